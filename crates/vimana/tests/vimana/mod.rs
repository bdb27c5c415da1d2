//! The binary under test, the homes that it is given, and how its processes are watched.

pub mod layout;

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use tempfile::TempDir;

/// The binary under test.
pub const VIMANA: &str = env!("CARGO_BIN_EXE_vimana");

/// What the homes of all tests share, as it takes long to make.
const SHARED: [&str; 3] = ["kernels", "cache", "images"];

/// `vimana` with these arguments, in this home.
pub fn command(home: &Path, args: &[&str]) -> Command {
    command_of(Path::new(VIMANA), home, args)
}

/// The same of another file.
pub fn command_of(program: &Path, home: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(args).env("VIMANA_HOME", home).env_remove("VIMANA_KERNEL").stdin(Stdio::null());
    command
}

/// The folder in which all tests of a suite find a home with guest kernel, caches and images.
pub fn shared(suite: &str) -> Result<PathBuf, String> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(suite);
    for part in SHARED {
        fs::create_dir_all(folder.join("home").join(part)).map_err(|error| error.to_string())?;
    }
    Ok(folder)
}

/// A home of a test's own, which shares what takes long to make.
pub fn home(shared: &Path, prefix: &str) -> Result<TempDir, String> {
    home_in(&std::env::temp_dir(), shared, prefix)
}

/// The same in this folder.
pub fn home_in(folder: &Path, shared: &Path, prefix: &str) -> Result<TempDir, String> {
    let folder =
        tempfile::Builder::new().prefix(prefix).tempdir_in(folder).map_err(|error| error.to_string())?;
    for part in SHARED {
        let link = symlink(shared.join("home").join(part), folder.path().join(part));
        link.map_err(|error| error.to_string())?;
    }
    Ok(folder)
}

/// The folders of the spacecores that run in a home.
pub fn run_folders(home: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(home.join("run")) else { return Vec::new() };
    entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

/// Waits until nobody else has the lock, and takes it.
pub fn lock(path: &Path) -> Result<File, String> {
    let lock = File::create(path).map_err(|error| error.to_string())?;
    flock(&lock, FlockOperation::LockExclusive).map_err(|error| error.to_string())?;
    Ok(lock)
}

/// Has a home have a guest kernel. The caller holds a lock.
pub fn fetch_kernel(home: &Path) -> Result<(), String> {
    let kernels: Vec<PathBuf> = fs::read_dir(home.join("kernels"))
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    // One that an older version has kept may lack what guests need now.
    if kernels.iter().any(|kernel| kernel.join("modules/dm_crypt.ko").exists()) {
        return Ok(());
    }
    let fetched = command(home, &["kernel", "fetch"]).output().map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&fetched.stderr).trim().to_owned();
    fetched.status.success().then_some(()).ok_or_else(|| format!("there is no guest kernel: {said}"))
}

/// The exit code as a shell shows it.
pub fn code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

pub fn kill(pid: u32, signal: i32) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    let signal = rustix::process::Signal::from_named_raw(signal).unwrap();
    // A process that has just ended can't be signalled; the test notices what matters itself.
    let _ = rustix::process::kill_process(pid, signal);
}

/// Waits for a condition, and fails with the words if it doesn't come about.
pub fn eventually<T>(what: &str, seconds: u64, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "didn't happen within {seconds} s: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
