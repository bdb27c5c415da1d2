//! Gets a guest kernel: the distribution's own, by its own package tool, or from files that a person names.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::import::{self, ImportError};
use super::{FileError, Kernel, KernelStore, StoreError, at, package, release_order};
use crate::spawn;

/// Why a kernel can't be fetched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// This system's packages aren't known here.
    #[error(
        "this system isn't Debian or Ubuntu ({0}); name a kernel: vimana kernel fetch --from FILE.deb or FOLDER"
    )]
    System(String),
    /// The package tool isn't there.
    #[error("{0} isn't on this machine; name a kernel: vimana kernel fetch --from FILE.deb or FOLDER")]
    NoTool(&'static str),
    /// The package lists are missing, or don't have the kernel.
    #[error("the package lists of this machine don't have {0}; get them with: sudo apt-get update")]
    Lists(String),
    /// The package tool failed.
    #[error("{command} failed: {said}")]
    Tool {
        /// What was executed.
        command: String,
        /// The last of what it said.
        said: String,
    },
    /// A package can't be unpacked.
    #[error("can't unpack {}", package.display())]
    Unpack {
        /// The package.
        package: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is no kernel in what was named.
    #[error("there is no boot/vmlinuz-* in {0}")]
    NoKernel(String),
    /// A file can't be read.
    #[error("can't read what was named")]
    File(#[source] FileError),
    /// The kernel can't be taken into the store.
    #[error("can't take the kernel")]
    Import(#[source] ImportError),
    /// The store can't be written.
    #[error("can't fetch into the kernel store")]
    Store(#[source] StoreError),
}

impl From<FileError> for FetchError {
    fn from(error: FileError) -> Self {
        Self::File(error)
    }
}

/// What a fetch is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Looking for the newest package.
    Looking,
    /// Downloading these packages.
    Downloading(Vec<String>),
    /// Unpacking a package.
    Unpacking(String),
    /// Taking the kernel into the store.
    Keeping,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Looking => f.write_str("looking for the newest kernel"),
            Self::Downloading(packages) => write!(f, "downloading {}", packages.join(", ")),
            Self::Unpacking(package) => write!(f, "unpacking {package}"),
            Self::Keeping => f.write_str("keeping the kernel"),
        }
    }
}

/// Fetches the newest kernel for virtual machines that the distribution has. Needs no root, and installs nothing. The
/// package tool checks what it downloads against the distribution's signature.
pub fn fetch(store: &KernelStore, progress: &mut dyn FnMut(Step)) -> Result<Kernel, FetchError> {
    progress(Step::Looking);
    let (id, like) = system();
    let newest = package::newest_of(&id, &like, std::env::consts::ARCH);
    let newest =
        newest.ok_or_else(|| FetchError::System(if id.is_empty() { "no os-release".into() } else { id }))?;
    let mut packages = package::concrete(&apt_cache(&newest)?);
    packages.truncate(1);
    let image = packages.first().ok_or_else(|| FetchError::Lists(newest.clone()))?;
    let modules = package::concrete(&apt_cache(image)?);
    packages.extend(modules.into_iter().filter(|name| name.starts_with("linux-modules-")));

    progress(Step::Downloading(packages.clone()));
    let aside = store.aside().map_err(FetchError::Store)?;
    let folder = aside.path().join("packages");
    fs::create_dir(&folder).map_err(at(&folder))?;
    let mut download = tool("apt-get")?;
    download.current_dir(&folder).args(["download", "-q"]).args(&packages);
    run(download)?;
    let mut files: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(&folder).map_err(at(&folder))? {
        files.push(entry.map_err(at(&folder))?.path());
    }
    files.sort();
    fetch_from(store, &files, progress)
}

/// Takes a kernel from packages (`.deb`), or from one folder that has `boot/vmlinuz-*` and `lib/modules`, or that has
/// `vmlinuz` or `vmlinux` and perhaps `modules`, or from one image.
pub fn fetch_from(
    store: &KernelStore,
    from: &[PathBuf],
    progress: &mut dyn FnMut(Step),
) -> Result<Kernel, FetchError> {
    let packages = from.iter().all(|path| path.extension().is_some_and(|extension| extension == "deb"));
    if let ([path], false) = (from, packages) {
        fs::metadata(path).map_err(at(path))?;
        progress(Step::Keeping);
        if path.is_file() {
            return import::import(store, path, None).map_err(FetchError::Import);
        }
        return from_folder(store, path);
    }
    let aside = store.aside().map_err(FetchError::Store)?;
    let folder = aside.path().join("unpacked");
    fs::create_dir(&folder).map_err(at(&folder))?;
    for path in from {
        progress(Step::Unpacking(path.file_name().unwrap_or_default().to_string_lossy().into_owned()));
        let failed = |source| FetchError::Unpack { package: path.clone(), source };
        package::unpack(path, &folder).map_err(failed)?;
    }
    progress(Step::Keeping);
    let names: Vec<String> = from.iter().map(|path| path.display().to_string()).collect();
    from_folder(store, &folder).map_err(|error| match error {
        FetchError::NoKernel(_) => FetchError::NoKernel(names.join(", ")),
        error => error,
    })
}

fn from_folder(store: &KernelStore, folder: &Path) -> Result<Kernel, FetchError> {
    let boot = folder.join("boot");
    let entries = fs::read_dir(&boot).into_iter().flatten().flatten();
    let images = entries.filter_map(|entry| {
        let release = entry.file_name().to_str()?.strip_prefix("vmlinuz-")?.to_owned();
        Some((release_order(&release), release, entry.path()))
    });
    let (image, modules) = match images.max() {
        Some((_, release, image)) => (image, folder.join("lib/modules").join(release)),
        None => {
            let image =
                ["vmlinux", "vmlinuz"].map(|name| folder.join(name)).into_iter().find(|path| path.is_file());
            let image = image.ok_or_else(|| FetchError::NoKernel(folder.display().to_string()))?;
            (image, folder.join("modules"))
        }
    };
    let modules = modules.is_dir().then_some(modules);
    import::import(store, &image, modules.as_deref()).map_err(FetchError::Import)
}

/// `ID` and `ID_LIKE` of os-release(5).
fn system() -> (String, String) {
    let places = ["/etc/os-release", "/usr/lib/os-release"];
    let text = places.iter().find_map(|path| fs::read_to_string(path).ok()).unwrap_or_default();
    let value = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.unwrap_or_default().trim_matches(['"', '\'']).to_owned()
    };
    (value("ID"), value("ID_LIKE"))
}

fn apt_cache(name: &str) -> Result<String, FetchError> {
    let mut command = tool("apt-cache")?;
    command.args(["depends", "--no-recommends", "--no-suggests", "--no-conflicts", "--no-breaks"]);
    command.args(["--no-replaces", "--no-enhances", "--", name]);
    // An unknown package is an exit code of 100 with nothing printed.
    match run(command) {
        Err(FetchError::Tool { said, .. })
            if said.contains("No packages found") || said.contains("Unable to locate") =>
        {
            Err(FetchError::Lists(name.to_owned()))
        }
        other => other,
    }
}

fn tool(name: &'static str) -> Result<Command, FetchError> {
    let mut command = Command::new(spawn::find(name).ok_or(FetchError::NoTool(name))?);
    command.env("LC_ALL", "C").stdin(Stdio::null());
    Ok(command)
}

fn run(mut command: Command) -> Result<String, FetchError> {
    let words = [command.get_program()].into_iter().chain(command.get_args());
    let line = words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
    let output = match command.output() {
        Ok(output) => output,
        Err(error) => {
            return Err(FetchError::Tool { command: line, said: error.to_string() });
        }
    };
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let last: Vec<&str> = said.lines().filter(|line| line.starts_with("E:")).collect();
        let said = if last.is_empty() { said.trim().to_owned() } else { last.join(" ") };
        return Err(FetchError::Tool { command: line, said: said.chars().take(1000).collect() });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
