//! The folder where everything lies that Vimana keeps on a machine.

use std::env;
use std::io;
use std::path::{Path, PathBuf};

/// The folder of one user, or of the machine for root: `VIMANA_HOME`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    root: PathBuf,
}

impl Home {
    /// A home in a given folder.
    pub fn at(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// `VIMANA_HOME` if it is set; else `/var/lib/vimana` for root, and the XDG data folder
    /// (`$XDG_DATA_HOME/vimana`, `~/.local/share/vimana`) for everybody else.
    ///
    /// # Errors
    /// None of the variables is set to an absolute path.
    pub fn find() -> io::Result<Self> {
        let var = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let is_root = rustix::process::geteuid().is_root();
        Self::choose(var("VIMANA_HOME"), is_root, var("XDG_DATA_HOME"), var("HOME"))
    }

    fn choose(
        chosen: Option<PathBuf>,
        is_root: bool,
        data: Option<PathBuf>,
        home: Option<PathBuf>,
    ) -> io::Result<Self> {
        let root = match (chosen, is_root) {
            (Some(chosen), _) => std::path::absolute(chosen)?,
            (None, true) => PathBuf::from("/var/lib/vimana"),
            (None, false) => data
                .filter(|path| path.is_absolute())
                .or_else(|| home.map(|home| home.join(".local/share")))
                .map(|data| data.join("vimana"))
                .filter(|path| path.is_absolute())
                .ok_or_else(|| {
                    io::Error::other("neither VIMANA_HOME, XDG_DATA_HOME nor HOME names a folder; set one")
                })?,
        };
        Ok(Self { root })
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A word of eight hexadecimal digits that tells it from other homes of this machine.
    pub fn tag(&self) -> String {
        let root = self.root.canonicalize().unwrap_or_else(|_| self.root.clone());
        image::Digest::of(root.as_os_str().as_encoded_bytes()).hex().chars().take(8).collect()
    }

    /// Images, by content.
    pub fn images(&self) -> PathBuf {
        self.root.join("images")
    }

    /// Guest kernels, by content.
    pub fn kernels(&self) -> PathBuf {
        self.root.join("kernels")
    }

    /// What can be made again: initramfs, verdicts on the machine.
    pub fn cache(&self) -> PathBuf {
        self.root.join("cache")
    }

    /// Named volumes, by spacecore.
    pub fn volumes(&self) -> PathBuf {
        self.root.join("volumes")
    }

    /// The folder of one named volume.
    pub fn volume(&self, spacecore: &str, name: &str) -> PathBuf {
        self.volumes().join(spacecore).join(name)
    }

    /// Secrets, encrypted.
    pub fn secrets(&self) -> PathBuf {
        self.root.join("secrets")
    }

    /// What the operator allows to run.
    pub fn policy(&self) -> PathBuf {
        self.root.join("policy.toml")
    }

    /// What the operator says of the node.
    pub fn node_settings(&self) -> PathBuf {
        self.root.join("node.toml")
    }

    /// Run folders of the spacecores that run.
    pub fn run(&self) -> PathBuf {
        self.root.join("run")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(
        chosen: Option<&str>,
        is_root: bool,
        data: Option<&str>,
        home: Option<&str>,
    ) -> Option<PathBuf> {
        let path = |text: Option<&str>| text.map(PathBuf::from);
        Home::choose(path(chosen), is_root, path(data), path(home)).ok().map(|home| home.root)
    }

    #[test]
    fn the_home_is_where_people_look_for_it() {
        let is = |path: &str| Some(PathBuf::from(path));
        assert_eq!(chosen(Some("/srv/v"), true, None, None), is("/srv/v"));
        assert_eq!(chosen(None, true, Some("/x"), Some("/root")), is("/var/lib/vimana"));
        assert_eq!(chosen(None, false, Some("/data"), Some("/home/a")), is("/data/vimana"));
        assert_eq!(chosen(None, false, Some("relative"), Some("/home/a")), is("/home/a/.local/share/vimana"));
        assert_eq!(chosen(None, false, None, None), None);
    }
}
