//! By what processes of one machine have in common: signals, `/proc`, shared memory, sockets without a path, devices.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use super::files::Disk;
use super::{INSIDE, Table, done, guests, said, shown, tries};
use crate::support::{Home, Killed, text};

/// What a neighbour has in its arguments and its environment.
const MARK: &str = "of-a-neighbour";

struct Shared(i32);

impl Shared {
    #[allow(unsafe_code)]
    fn new() -> Self {
        // SAFETY: plain numbers; the segment is removed when this is dropped.
        let made = unsafe { libc::shmget(libc::IPC_PRIVATE, 4096, libc::IPC_CREAT | 0o666) };
        assert!(made >= 0, "{}", std::io::Error::last_os_error());
        Self(made)
    }
}

impl Drop for Shared {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        // SAFETY: plain numbers.
        unsafe { libc::shmctl(self.0, libc::IPC_RMID, std::ptr::null_mut()) };
    }
}

#[test]
fn processes_of_the_host_are_nobody_to_a_guest() {
    let test = "processes_of_the_host_are_nobody_to_a_guest";
    let (Some(program), Some(home)) = (super::can(test), Home::new(test)) else { return };
    let mut command = Command::new("sleep");
    command.arg0(MARK).arg("600").env("NEIGHBOUR", MARK).stdin(Stdio::null());
    let mut neighbour = Killed(command.spawn().unwrap());
    let pid = neighbour.0.id();
    let socket = format!("vimana-attacked-{pid}");
    let _listening = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&socket).unwrap()).unwrap();
    let shared = Shared::new();
    let disk = Disk::new(home.path());
    let attacks = [
        ("signal a process of the host", format!("signal {pid}")),
        ("see the arguments of a process of the host", format!("see {pid} {MARK}")),
        ("read the environment of a process of the host", format!("read /proc/{pid}/environ {MARK}")),
        ("attach to shared memory of the host", format!("shm {}", shared.0)),
        ("connect to a socket without a path", format!("abstract {socket}")),
        (
            "read a disk of the host by its number",
            format!("device /tmp/vimana-{pid} {} a-secret", disk.number),
        ),
    ];
    let all: Vec<_> = attacks
        .iter()
        .enumerate()
        .map(|(place, (_, command))| (format!("try-{place}"), command.clone()))
        .collect();
    let free = text(&Command::new(&program).args(tries(&all)).output().unwrap().stdout);
    std::fs::remove_file(format!("/tmp/vimana-{pid}")).unwrap();
    let mut table = Table::new();
    for (from, flags) in guests(test) {
        let args = ["run", "--network", "none", "-m", "128Mi", "-v", &shown(&program)];
        let output =
            home.vimana(&[&args, flags, &[&home.image, "--", INSIDE]].concat()).args(tries(&all)).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        let guarded = text(&output.stdout);
        for ((word, _), (name, _)) in all.iter().zip(&attacks) {
            table.row(name, from, done(&guarded, word), done(&free, word), said(&guarded, word));
        }
        assert!(neighbour.0.try_wait().unwrap().is_none(), "the neighbour has ended");
    }
    table.judge();
    home.assert_nothing_is_left();
}
