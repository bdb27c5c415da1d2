//! PID 1 of a microVM or of a container: brings up the channel, is told by the keeper what to be, and runs one workload.
//!
//! Started as `/init` it is a microVM's; started with the argument `container` it is a container's, whose runtime has
//! already done most of what follows: see [`container`]. With the argument `measure` it is none of these: see [`measure`].
//!
//! ```text
//!  boot       /dev, /sys, the modules of the channel, Hello, then the modules that every guest needs
//!  configure  time, entropy, disks, layers, overlay, network               in PID 1
//!  inside     mounts, /etc files, user, working directory, exec            in the workload's own namespaces, before exec
//!  guest      one poll loop: channel, output, input, folders, ends
//!  shutdown   kill, unmount, sync, power off
//! ```
//!
//! PID 1 never walks a path that the workload can change, and never waits for a file system that the keeper serves: both
//! are done by the process that becomes the workload. It is single-threaded throughout, since it forks.

mod boot;
mod cgroup;
mod channel;
mod checks;
mod configure;
mod container;
mod disks;
mod encrypted;
mod environment;
mod exec;
mod filter;
mod folder;
mod guest;
mod init;
mod inside;
mod limits;
mod mapper;
mod measure;
mod mode;
mod modules;
mod network;
mod paths;
mod probe;
mod process;
mod relay;
mod root;
mod running;
mod shutdown;
mod signals;
mod stats;
mod steps;
mod terminal;
mod transfer;
mod users;
mod verity;

use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|mode| mode == measure::MODE) {
        return measure::run();
    }
    if std::process::id() != 1 {
        let _ = writeln!(std::io::stderr(), "spacecore is PID 1 of a guest; it can't be started on its own");
        return ExitCode::from(2);
    }
    if std::env::args_os().nth(1).is_some_and(|mode| mode == spacecore::wire::CONTAINER_MODE) {
        let folders = std::env::args_os().nth(2).is_some_and(|what| what == spacecore::wire::WITH_FOLDERS);
        mode::be_container(folders);
    }
    std::panic::set_hook(Box::new(|panic| shutdown::on_panic(&panic.to_string())));
    let refusal = guest::run();
    shutdown::fail(&refusal)
}
