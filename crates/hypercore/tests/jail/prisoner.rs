//! The program in the jail: tries one thing, and ends with 0 if it could, with 1 if it was held back.
//!
//! Its unsafe blocks are system calls on numbers and on C strings that outlive them, each made in order to be refused.

#![allow(unsafe_code, clippy::undocumented_unsafe_blocks, clippy::print_stderr)]

use std::collections::HashMap;
use std::ffi::CString;
use std::fs;
use std::io;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};

use hypercore::jail::Part::{self, Filter, Group, Landlock, Limits, Network, Processes, Root, User};

type Values = HashMap<String, String>;

/// One attack.
pub struct Attack {
    pub name: &'static str,
    /// The parts of the jail without which it succeeds.
    pub parts: &'static [Part],
    /// Whether another user couldn't do it without any jail either.
    pub root_only: bool,
    run: fn(&Values) -> io::Result<()>,
}

const fn anybody(name: &'static str, parts: &'static [Part], run: fn(&Values) -> io::Result<()>) -> Attack {
    Attack { name, parts, root_only: false, run }
}

const fn root(name: &'static str, parts: &'static [Part], run: fn(&Values) -> io::Result<()>) -> Attack {
    Attack { name, parts, root_only: true, run }
}

pub const ATTACKS: &[Attack] = &[
    anybody("read a neighbour's disk", &[Root, User, Landlock], |v| read(&v["secret"])),
    anybody("read it by a path with ..", &[Root, User, Landlock], |v| {
        read(&format!("/../..{}", v["secret"]))
    }),
    anybody("write a neighbour's disk", &[Root, User, Landlock], |v| write(&v["secret"])),
    anybody("write the image that it boots from", &[Root, User, Landlock], |v| write(&v["image"])),
    anybody("make a file in a folder open to all", &[Root, Landlock, User], |v| {
        fs::write(format!("{}/new", v["open"]), "x")
    }),
    anybody("make a link in a folder open to all", &[Root, Landlock, User, Filter], |v| {
        let link = format!("{}/link-{}", v["open"], std::process::id());
        std::os::unix::fs::symlink("/etc/passwd", &link)?;
        fs::remove_file(link)
    }),
    anybody("change the mode of its image", &[Root, User, Filter, Landlock], |v| {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(&v["image"], fs::Permissions::from_mode(0o644))
    }),
    anybody("read the host's list of users", &[Root, Landlock], |_| read("/etc/passwd")),
    root("read the host's passwords", &[Root, User, Landlock], |_| read("/etc/shadow")),
    anybody("list the host's files", &[Root, Landlock], |_| {
        // Its own root has an `/etc` too, with what its loader needs.
        let mut names = fs::read_dir("/etc")?.flatten().map(|entry| entry.file_name());
        if names.any(|name| name == "passwd") { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
    }),
    anybody("see the host's processes", &[Root, Landlock], |v| read(&format!("/proc/{}/stat", v["pid"]))),
    root("read another process' memory by /proc", &[Root, Landlock, Processes, User], |v| {
        fs::File::open(format!("/proc/{}/mem", v["pid"])).map(drop)
    }),
    root("set a value of the kernel", &[Root, Landlock, User, Network], |_| {
        fs::OpenOptions::new().write(true).open("/proc/sys/kernel/printk").map(drop)
    }),
    root("open a device of the host", &[Root, User, Landlock], |_| fs::File::open("/dev/kmsg").map(drop)),
    anybody("execute a shell", &[Root, Landlock], |_| {
        let shell = CString::new("/bin/sh")?;
        let arguments = [shell.as_ptr(), c"-c".as_ptr(), c"exit 0".as_ptr(), std::ptr::null()];
        let none = [std::ptr::null()];
        // SAFETY: both arrays end with a null pointer and point to C strings that outlive the call.
        unsafe { libc::execve(shell.as_ptr(), arguments.as_ptr(), none.as_ptr()) };
        Err(io::Error::last_os_error())
    }),
    anybody("signal a process of the host", &[Processes, User, Filter, Landlock], |v| {
        answer(unsafe { libc::kill(pid(v), 0) }.into())
    }),
    anybody("signal one of its threads", &[Processes, User, Landlock], |v| {
        answer(unsafe { libc::syscall(libc::SYS_tgkill, pid(v), pid(v), 0) })
    }),
    root("look into another process (ptrace)", &[Processes, User, Filter, Landlock], |v| {
        let pid = pid(v);
        let none = std::ptr::null_mut::<libc::c_void>();
        answer(unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid, none, none) })
    }),
    anybody("find another process (pidfd)", &[Processes, Filter], |v| {
        answer(unsafe { libc::syscall(libc::SYS_pidfd_open, pid(v), 0) })
    }),
    anybody("connect to the host's loopback", &[Network, Filter, Landlock], |v| {
        TcpStream::connect(("127.0.0.1", v["port"].parse().unwrap())).map(drop)
    }),
    anybody("connect to an API's socket", &[Root, Filter, Landlock], |v| {
        UnixStream::connect(&v["socket"]).map(drop)
    }),
    anybody("connect to a socket without a path", &[Network, Filter, Landlock], |v| {
        UnixStream::connect_addr(&SocketAddr::from_abstract_name(&v["abstract"])?).map(drop)
    }),
    anybody("ask the kernel about its network", &[Filter], |_| socket(libc::AF_NETLINK, libc::SOCK_RAW)),
    anybody("make a socket to its host (vsock)", &[Filter], |_| socket(libc::AF_VSOCK, libc::SOCK_STREAM)),
    root("read packets of the host", &[Filter, User, Network], |_| socket(libc::AF_PACKET, libc::SOCK_RAW)),
    anybody("use another's shared memory", &[Network, Filter], |v| {
        let shared = v["shared"].parse().unwrap();
        match unsafe { libc::shmat(shared, std::ptr::null(), 0) } as isize {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    }),
    anybody("learn the host's name", &[Network], |v| {
        let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
        if name == v["host"] { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
    }),
    anybody("start a process", &[Filter], |_| {
        let child = unsafe { libc::fork() };
        if child == 0 {
            unsafe { libc::_exit(0) }
        }
        answer(child.into())
    }),
    anybody("make a user namespace", &[Filter], |_| {
        answer(unsafe { libc::unshare(libc::CLONE_NEWUSER) }.into())
    }),
    root("mount a file system", &[Filter, User, Root, Landlock], |_| {
        let none = std::ptr::null();
        answer(
            unsafe { libc::mount(none, c"/".as_ptr(), none, libc::MS_REC | libc::MS_PRIVATE, none.cast()) }
                .into(),
        )
    }),
    root("become root", &[Filter, User], |_| {
        answer(unsafe { libc::syscall(libc::SYS_setresuid, 0, 0, 0) })?;
        match unsafe { libc::geteuid() } {
            0 => Ok(()),
            _ => Err(io::ErrorKind::PermissionDenied.into()),
        }
    }),
    root("change its root again", &[Filter, User], |_| answer(unsafe { libc::chroot(c"/".as_ptr()) }.into())),
    root("make a device", &[Filter, User, Root, Landlock], |v| {
        let path = CString::new(format!("{}/device-{}", v["open"], std::process::id()))?;
        answer(unsafe { libc::mknod(path.as_ptr(), libc::S_IFCHR | 0o600, libc::makedev(1, 3)) }.into())?;
        answer(unsafe { libc::unlink(path.as_ptr()) }.into())
    }),
    root("give itself a better place (nice)", &[Filter, User], |_| {
        answer(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, -5) }.into())
    }),
    root("load a program into the kernel (bpf)", &[Filter, User], |_| {
        const BPF_MAP_CREATE: libc::c_int = 0;
        // An array of one element: type 2, key of 4 bytes, value of 4 bytes.
        let map = [2_u32, 4, 4, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        answer(unsafe { libc::syscall(libc::SYS_bpf, BPF_MAP_CREATE, map.as_ptr(), size_of_val(&map)) })
    }),
    anybody("use the kernel's keys", &[Filter], |_| {
        const KEYCTL_GET_KEYRING_ID: libc::c_int = 0;
        const KEY_SPEC_SESSION_KEYRING: libc::c_int = -3;
        answer(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING, 1) })
    }),
    root("catch page faults (userfaultfd)", &[Filter, User], |_| {
        answer(unsafe { libc::syscall(libc::SYS_userfaultfd, 0) })
    }),
    anybody("write beyond the end of its disk", &[Limits], |_| {
        let byte = 0_u8;
        // SAFETY: one byte, at the descriptor that it was handed, which is put back to its length.
        let written = unsafe { libc::pwrite(100, (&raw const byte).cast(), 1, super::DISK_BYTES as i64) };
        answer(written as i64)?;
        answer(unsafe { libc::ftruncate(100, super::DISK_BYTES as i64) }.into())
    }),
    anybody("open files without end", &[Limits], |_| {
        let most = 5000;
        let opened: io::Result<Vec<_>> = (0..most).map(|_| fs::File::open("/dev/null")).collect();
        opened.map(drop)
    }),
    anybody("take memory without end", &[Group], |_| {
        let most = usize::try_from(super::TAKEN.memory_bytes).unwrap() * 3;
        let mut taken = vec![0_u8; most];
        taken.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
        std::hint::black_box(&taken);
        Ok(())
    }),
    anybody("take processors without end", &[Group], |_| {
        let begin = std::time::Instant::now();
        let lasts = std::time::Duration::from_millis(1500);
        let spin = || while begin.elapsed() < lasts {};
        std::thread::scope(|scope| {
            scope.spawn(spin);
            scope.spawn(spin);
        });
        let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        let used = used.tv_sec as f64 + used.tv_nsec as f64 / 1e9;
        // Halfway between what it may and what it gets of a machine on which others want some too.
        let most = f64::from(super::TAKEN.cpu_milli) / 1000.0 * 1.5;
        if used / begin.elapsed().as_secs_f64() > most { Ok(()) } else { Err(io::ErrorKind::TimedOut.into()) }
    }),
    root("start threads without end", &[Limits, Group], |_| {
        let wait = || std::thread::sleep(std::time::Duration::from_millis(300));
        let small = || std::thread::Builder::new().stack_size(65_536);
        (0..super::THREADS + 10).try_for_each(|_| small().spawn(wait).map(drop))
    }),
];

/// What becomes possible only where there are sockets.
pub const BY_SOCKETS: &[Attack] = &[
    root("connect to the host's loopback, by TCP alone", &[Network], |v| {
        TcpStream::connect(("127.0.0.1", v["port"].parse().unwrap())).map(drop)
    }),
    root("make a raw socket", &[Filter, User], |_| {
        answer(unsafe { libc::socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP) }.into())
    }),
    root("make a socket for paths (unix)", &[Filter], |_| socket(libc::AF_UNIX, libc::SOCK_DGRAM)),
    root("leave its network namespace", &[Filter, User, Root, Landlock], |v| {
        let namespace = fs::File::open(format!("/proc/{}/ns/net", v["pid"]))?;
        answer(unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) }.into())
    }),
    root("make a network namespace of its own", &[Filter, User], |_| {
        answer(unsafe { libc::unshare(libc::CLONE_NEWNET) }.into())
    }),
    root("change an interface of its own", &[Filter, User], |_| {
        // `struct ifreq`: the name, then the flags.
        let mut request = [0_u8; 40];
        request[..2].copy_from_slice(b"lo");
        request[16..18].copy_from_slice(&(libc::IFF_UP as u16).to_ne_bytes());
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        answer(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, request.as_ptr()) }.into())
    }),
    root("have the kernel run a socket's filter", &[Filter], |_| {
        let mut everything = libc::sock_filter { code: 6, jt: 0, jf: 0, k: u32::MAX };
        let program = libc::sock_fprog { len: 1, filter: &raw mut everything };
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        let (level, option) = (libc::SOL_SOCKET, libc::SO_ATTACH_FILTER);
        let length = size_of_val(&program) as libc::socklen_t;
        let place = (&raw const program).cast();
        answer(unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, place, length) }.into())
    }),
];

pub fn act(words: &[String]) -> i32 {
    let values: Values = words
        .iter()
        .filter_map(|word| word.split_once('='))
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .collect();
    let result = match words.first().map(String::as_str) {
        Some("look around") => look_around(),
        Some("use sockets") => use_sockets(),
        Some("wait") => loop {
            std::thread::sleep(std::time::Duration::from_secs(60));
        },
        name => match ATTACKS.iter().chain(BY_SOCKETS).find(|attack| Some(attack.name) == name) {
            Some(attack) => (attack.run)(&values),
            None => return 2,
        },
    };
    match result {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("{error}");
            1
        }
    }
}

fn read(path: &str) -> io::Result<()> {
    fs::read(path).map(drop)
}

fn write(path: &str) -> io::Result<()> {
    use std::io::Write;
    fs::OpenOptions::new().write(true).open(path)?.write_all(b"a")
}

fn answer(answer: i64) -> io::Result<()> {
    if answer == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn pid(values: &Values) -> i32 {
    values["pid"].parse().unwrap()
}

fn socket(family: i32, kind: i32) -> io::Result<()> {
    answer(unsafe { libc::socket(family, kind, 0) }.into())
}

fn use_sockets() -> io::Result<()> {
    TcpListener::bind("0.0.0.0:0")?.set_ttl(7)?;
    UdpSocket::bind("0.0.0.0:0")?.set_ttl(7)?;
    match TcpListener::bind("[::]:0") {
        // A kernel may be without it.
        Err(error) if error.raw_os_error() != Some(libc::EAFNOSUPPORT) => Err(error),
        Ok(_) | Err(_) => Ok(()),
    }
}

fn look_around() -> io::Result<()> {
    let open = (0..1024).filter(|number| unsafe { libc::fcntl(*number, libc::F_GETFD) } >= 0);
    let open: Vec<String> = open.map(|number| number.to_string()).collect();
    eprintln!("descriptors {}", open.join(" "));
    eprintln!("variables {}", std::env::vars_os().count());
    eprintln!("pid {} of a parent {}", std::process::id(), std::os::unix::process::parent_id());
    eprintln!("groups {}", unsafe { libc::getgroups(0, std::ptr::null_mut()) });
    Ok(())
}
