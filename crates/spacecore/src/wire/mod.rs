//! The channel between a keeper and the guest of its spacecore.
//!
//! One reliable byte stream (a virtio-serial port on QEMU, a vsock connection elsewhere, a socket in a container) carries everything:
//!
//! ```text
//!  keeper                                        guest (PID 1)
//!    |  <------------------------------ Hello      |   the guest is up and knows nothing yet
//!    |  Configure  ----------------------------->  |   host name, entropy, layers, network, mounts, process
//!    |  <------------------------------ Configured |   mounts are in place, the process is about to start
//!    |  <------------------------------ Started    |
//!    |  data, credit, eof  <------------------->   |   stdin, stdout, stderr; folders carry FUSE messages
//!    |  Exec, Signal, Resize, Stats, Check, Fetch> |
//!    |  <------------------------------ Ended      |   exit code or signal
//!    |  Shutdown  ------------------------------>  |   stop signal, grace period, kill, sync, power off
//! ```
//!
//! Each side treats the other as hostile. [`frame`] bounds and checks every frame, [`link`] checks stream numbers and
//! credit, [`message`] is what the control frames say. All three are free of I/O, so that they can be tested without a machine.

pub mod frame;
pub mod link;
pub mod message;

/// The version of the protocol; a guest and a keeper that differ in it refuse each other.
pub const VERSION: u32 = 4;

/// The name of the virtio-serial port that carries the channel (`/sys/class/virtio-ports/*/name`).
pub const PORT_NAME: &str = "vimana.channel";

/// Where a workload finds its secrets.
pub const SECRETS: &str = "/run/secrets";

/// What a file holds that a container's driver has mounted for the guest to write, where the root can't be written.
pub const TO_BE_WRITTEN: &str = "to be written by the guest\n";

/// What makes a guest binary PID 1 of a container rather than of a microVM: its first argument.
pub const CONTAINER_MODE: &str = "container";
/// The argument after it for a container that may write to folders of the host.
pub const WITH_FOLDERS: &str = "with-folders";

/// The descriptor that carries the channel in a container: a stream socket.
pub const CONTAINER_CHANNEL: i32 = 3;

/// Number of the stream of a process' standard input; process 0 is the workload, further ones come by `Exec`.
///
/// Three streams belong to each process, so that processes 0 to [`MAX_PROCESS`] have streams of their own.
pub const fn stdin_of(process: u16) -> u16 {
    process * 3
}

/// Number of the stream of a process' standard output, or of its terminal.
pub const fn stdout_of(process: u16) -> u16 {
    process * 3 + 1
}

/// Number of the stream of a process' standard error; unused where the process has a terminal.
pub const fn stderr_of(process: u16) -> u16 {
    process * 3 + 2
}

/// The highest process number: streams below [`FIRST_FOLDER`] belong to processes.
pub const MAX_PROCESS: u16 = 4095;

/// Stream numbers from here on belong to folders, one each.
pub const FIRST_FOLDER: u16 = 0x8000;

/// The largest number of folders that one spacecore can have.
pub const MAX_FOLDERS: u16 = 64;

/// The most checks that a guest makes at a time.
pub const MAX_CHECKS: usize = 8;

/// The largest page in bytes that a workload may serve about itself.
pub const MAX_PAGE: usize = 512 * 1024;
