//! Whose logs are kept: a spacecore's as long as its deployment is there, and after that in bounds.
//!
//! `logs/NAME` is the log of the spacecore of this name, or of the one that had the name last. Once a deployment of that name is made
//! anew, its spacecores begin with a clean log, and what was there becomes `logs/NAME.before`, in the place of what was that before. All that
//! belongs to no spacecore any more takes at most [`MOST`] bytes: what was written to longest ago goes first.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use hypercore::remove::remove_tree;

/// How many bytes the logs of spacecores may take that aren't there any more, all together.
const MOST: u64 = 256 * 1024 * 1024;

/// What follows the name of a spacecore that was there before one of this name.
const BEFORE: &str = ".before";
/// What follows a name whose log is about to be gone.
const GONE: &str = ".gone";

/// The folder with the logs.
#[derive(Debug, Clone)]
pub(super) struct Logs {
    root: PathBuf,
}

impl Logs {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// The log of a spacecore.
    pub(super) fn of(&self, spacecore: &str) -> PathBuf {
        self.root.join(spacecore)
    }

    /// The log of the spacecore that had this name before.
    pub(super) fn before(&self, spacecore: &str) -> PathBuf {
        self.root.join(format!("{spacecore}{BEFORE}"))
    }

    /// The names of spacecores of a deployment of this name of which there is a log.
    pub(super) fn names(&self, deployment: &str) -> BTreeSet<String> {
        let names = self.entries().into_iter().map(|(name, _)| name);
        let spacecores = names.map(|name| name.trim_end_matches(BEFORE).to_owned());
        spacecores.filter(|name| is_of(name, deployment)).collect()
    }

    /// Sets a log aside for a spacecore that is made under its name.
    ///
    /// # Errors
    /// It can't be moved; then the new one goes on with it.
    pub(super) fn set_aside(&self, spacecore: &str) -> io::Result<()> {
        let log = self.of(spacecore);
        if !log.is_dir() {
            return Ok(());
        }
        self.remove_one(&self.before(spacecore))?;
        fs::rename(&log, self.before(spacecore))
    }

    /// Removes a log, and that of the spacecore which had the name before.
    ///
    /// # Errors
    /// Something can't be removed.
    pub(super) fn remove(&self, spacecore: &str) -> io::Result<()> {
        self.remove_one(&self.before(spacecore))?;
        self.remove_one(&self.of(spacecore))
    }

    /// Gone at once under its name, whatever ends this process meanwhile.
    fn remove_one(&self, log: &Path) -> io::Result<()> {
        let gone = PathBuf::from(format!("{}{GONE}", log.display()));
        remove_tree(&gone).or_else(absent)?;
        fs::rename(log, &gone).or_else(absent)?;
        remove_tree(&gone).or_else(absent)
    }

    /// Removes what is too much of logs that belong to no spacecore any more.
    pub(super) fn keep_in_bounds(&self, is_there: impl Fn(&str) -> bool) {
        self.keep_within(MOST, is_there);
    }

    fn keep_within(&self, most: u64, is_there: impl Fn(&str) -> bool) {
        let mut left: Vec<(SystemTime, u64, PathBuf)> = Vec::new();
        for (name, path) in self.entries() {
            if name.ends_with(GONE) {
                // What is left of one will be looked at again.
                let _ = remove_tree(&path);
            } else if !is_there(&name) {
                let (written, bytes) = measure(&path);
                left.push((written, bytes, path));
            }
        }
        left.sort();
        let mut all: u64 = left.iter().map(|(_, bytes, _)| bytes).sum();
        for (_, bytes, path) in left {
            if all <= most {
                return;
            }
            let _ = self.remove_one(&path);
            all = all.saturating_sub(bytes);
        }
    }

    fn entries(&self) -> Vec<(String, PathBuf)> {
        let entries = fs::read_dir(&self.root).into_iter().flatten().flatten();
        let named = entries.filter_map(|entry| Some((entry.file_name().to_str()?.to_owned(), entry.path())));
        named.collect()
    }
}

/// Whether a deployment of this name can have a spacecore of that one.
fn is_of(spacecore: &str, deployment: &str) -> bool {
    let Some(rest) = spacecore.strip_prefix(deployment) else { return false };
    let number = rest.strip_prefix('-').and_then(|number| number.parse::<u32>().ok());
    rest.is_empty() || number.is_some_and(|number| number > 0 && rest == format!("-{number}"))
}

/// When a log was written to last, and how large it is.
fn measure(log: &Path) -> (SystemTime, u64) {
    let files = fs::read_dir(log).into_iter().flatten().flatten().filter_map(|file| file.metadata().ok());
    files.fold((SystemTime::UNIX_EPOCH, 0), |(written, bytes), file| {
        let modified = file.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        (written.max(modified), bytes.saturating_add(file.len()))
    })
}

fn absent(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn logs() -> (tempfile::TempDir, Logs) {
        let folder = tempfile::tempdir().unwrap();
        let logs = Logs::new(folder.path().to_owned());
        (folder, logs)
    }

    /// Writes a log of so many bytes, so many seconds after 1970.
    fn write(log: &Path, bytes: usize, seconds: u64) {
        fs::create_dir_all(log).unwrap();
        let file = fs::File::create(log.join("log")).unwrap();
        fs::write(log.join("log"), vec![b'x'; bytes]).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
    }

    #[test]
    fn a_spacecore_that_is_made_anew_begins_with_a_clean_log() {
        let (_folder, logs) = logs();
        for bytes in [3, 5] {
            write(&logs.of("web"), bytes, 1);
            logs.set_aside("web").unwrap();
            assert!(!logs.of("web").exists());
            assert_eq!(measure(&logs.before("web")).1, bytes as u64);
        }
        logs.set_aside("web").unwrap();
        assert!(logs.before("web").exists(), "what never said anything takes nobody's place");
        write(&logs.of("web"), 1, 1);
        logs.remove("web").unwrap();
        assert_eq!(logs.entries(), []);
    }

    #[test]
    fn a_deployment_s_logs_are_those_of_its_replicas() {
        let (_folder, logs) = logs();
        for name in ["web", "web-1", "web-12", "web-0", "web-01", "web-blue", "webs", "we"] {
            write(&logs.of(name), 1, 1);
        }
        write(&logs.before("web-3"), 1, 1);
        let names: Vec<String> = logs.names("web").into_iter().collect();
        assert_eq!(names, ["web", "web-1", "web-12", "web-3"]);
    }

    #[test]
    fn of_what_is_gone_the_oldest_goes_first_and_what_is_there_stays() {
        let (_folder, logs) = logs();
        write(&logs.of("there"), 100, 1);
        write(&logs.before("there"), 40, 2);
        write(&logs.of("old"), 40, 3);
        write(&logs.of("new"), 40, 4);
        fs::create_dir(logs.of("half.gone")).unwrap();
        let left = |most| {
            logs.keep_within(most, |name| name == "there");
            let mut names: Vec<String> = logs.entries().into_iter().map(|(name, _)| name).collect();
            names.sort();
            names
        };
        assert_eq!(left(120), ["new", "old", "there", "there.before"]);
        assert_eq!(left(119), ["new", "old", "there"]);
        assert_eq!(left(0), ["there"]);
    }
}
