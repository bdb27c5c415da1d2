//! Killing whoever holds a run folder, when it does no longer as it is told.
//!
//! Who that is, the kernel says: a process that has the very open file to which the lock belongs (`lock:` in proc(5),
//! `/proc/PID/fdinfo`). No number of a process is remembered, so that none can have become another's. The process is taken hold of by
//! a pidfd before it is looked at, and killed by it after: what was looked at is what is killed, or nothing.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, getpid, pidfd_open, pidfd_send_signal};

use super::LOCK;

/// Kills every process that holds a run folder, but never this one; says how many there were.
///
/// # Errors
/// It can't be found out who they are, or one of them can't be killed.
pub(crate) fn kill_holder(folder: &Path) -> io::Result<usize> {
    signal_holder(folder, Signal::KILL)
}

/// The same with another signal.
pub(crate) fn signal_holder(folder: &Path, signal: Signal) -> io::Result<usize> {
    let lock = match fs::symlink_metadata(folder.join(LOCK)) {
        Ok(lock) => lock,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    let mut killed = 0;
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = number(&entry?.file_name()).filter(|pid| *pid != getpid()) else { continue };
        let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { continue };
        if !holds(pid, &lock) {
            continue;
        }
        match pidfd_send_signal(&process, signal) {
            Ok(()) => killed += 1,
            Err(Errno::SRCH) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(killed)
}

fn number(name: &std::ffi::OsStr) -> Option<Pid> {
    Pid::from_raw(name.to_str()?.parse().ok()?)
}

/// Whether a process has an open file that holds this lock. One that is gone, or another user's, doesn't.
fn holds(pid: Pid, lock: &Metadata) -> bool {
    let process = Path::new("/proc").join(pid.as_raw_nonzero().to_string());
    let descriptors = fs::read_dir(process.join("fdinfo")).into_iter().flatten().flatten();
    let mut numbers = descriptors.map(|entry| entry.file_name());
    numbers.any(|number| {
        let said = fs::read_to_string(process.join("fdinfo").join(&number)).unwrap_or_default();
        let is_locked = said.lines().any(|line| is_lock(line, lock.ino()));
        // The numbers of files are those of one file system.
        let is_same = |open: Metadata| (open.dev(), open.ino()) == (lock.dev(), lock.ino());
        is_locked && fs::metadata(process.join("fd").join(&number)).is_ok_and(is_same)
    })
}

/// Whether a line says that this open file holds the exclusive lock of a file: `lock:\t1: FLOCK  ADVISORY  WRITE 22572 fe:00:1001 0 EOF`.
fn is_lock(line: &str, inode: u64) -> bool {
    let Some(lock) = line.strip_prefix("lock:") else { return false };
    let words: Vec<&str> = lock.split_whitespace().collect();
    let [_, "FLOCK", _, "WRITE", _, file, ..] = words[..] else { return false };
    file.rsplit_once(':').is_some_and(|(_, number)| number.parse() == Ok(inode))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::process::Command;

    use super::*;
    use crate::again;
    use crate::run_folder::{Left, RunFolder, look};

    #[test]
    fn a_line_about_another_lock_is_none() {
        assert!(is_lock("lock:\t1: FLOCK  ADVISORY  WRITE 22572 fe:00:10010692 0 EOF", 10_010_692));
        for other in [
            "lock:\t1: FLOCK  ADVISORY  WRITE 22572 fe:00:10010692 0 EOF",
            "lock:\t1: FLOCK  ADVISORY  READ 22572 fe:00:7 0 EOF",
            "lock:\t1: POSIX  ADVISORY  WRITE 22572 fe:00:7 0 EOF",
            "ino:\t7",
            "lock:",
        ] {
            assert!(!is_lock(other, 7), "{other}");
        }
    }

    #[test]
    fn whoever_holds_a_folder_is_killed_also_if_it_is_stopped_and_nobody_else_is() {
        let home = tempfile::tempdir().unwrap();
        let start = |name: &str| {
            let folder = RunFolder::create(&home.path().join("run").join(name)).unwrap();
            let held = again::execute(Command::new("sleep").arg("600"), &[folder.lock().as_fd()]).unwrap();
            (folder.path().to_owned(), held)
        };
        let (stuck, mut stopped) = start("stuck");
        let (other, mut well) = start("other");
        // It looks at the lock, and doesn't hold it.
        let looks = fs::File::open(stuck.join(LOCK)).unwrap();
        let mut looker = again::execute(Command::new("sleep").arg("600"), &[looks.as_fd()]).unwrap();
        let pid = Pid::from_child(&stopped);
        rustix::process::kill_process(pid, Signal::STOP).unwrap();

        assert_eq!(kill_holder(&stuck).unwrap(), 1);
        assert!(!stopped.wait().unwrap().success());
        assert_eq!(look(&stuck).unwrap(), Left::Deserted);
        assert_eq!(kill_holder(&stuck).unwrap(), 0, "there is nobody any more");
        assert_eq!(kill_holder(&home.path().join("run/none")).unwrap(), 0);
        assert_eq!(look(&other).unwrap(), Left::Held);
        for bystander in [&mut well, &mut looker] {
            assert!(bystander.try_wait().unwrap().is_none(), "it was killed along");
            bystander.kill().unwrap();
            bystander.wait().unwrap();
        }
    }

    #[test]
    fn a_process_never_kills_itself() {
        let home = tempfile::tempdir().unwrap();
        let own = RunFolder::create(&home.path().join("run/own")).unwrap();
        assert_eq!(kill_holder(own.path()).unwrap(), 0);
    }
}
