//! The system calls that a virtual machine monitor may make: those that QEMU was seen to make from its start to its end with
//! disks, a network and a guest that uses them, and those that its libraries use instead on other kernels. Everything else
//! fails with `EPERM`; `clone3` with `ENOSYS`, so that `clone` is used, whose flags a filter can read.
//!
//! Missing on purpose, beside what only root could use: new processes (`clone` makes threads alone), sockets of any family
//! but what it was handed (`socketpair` of its own aside), `ptrace` and all else that looks into other processes, signals to
//! others, keys, `bpf`, `io_uring`, `userfaultfd`, `perf_event_open`, namespaces, mounts, and changes to files' owners, modes
//! and names.

use serde_json::Value;

use crate::seccomp::rule;

/// Allowed with any arguments.
const ALLOWED: &str = "access arch_prctl brk capget clock_getres clock_gettime clock_nanosleep close close_range dup dup2 dup3 \
    epoll_create1 epoll_ctl epoll_pwait epoll_pwait2 epoll_wait eventfd2 execve exit exit_group faccessat faccessat2 \
    fadvise64 fallocate fchdir fcntl fdatasync fstat fstatfs fsync ftruncate futex futex_wait futex_wake getcpu getcwd \
    getdents64 getegid geteuid getgid getgroups get_mempolicy getpeername getpgrp getpid getppid getrandom getresgid \
    getresuid getrlimit get_robust_list getrusage getsid getsockname getsockopt gettid gettimeofday getuid lseek lstat \
    madvise mbind membarrier memfd_create mincore mlock mlock2 mmap mprotect mremap mseal msync munlock munmap nanosleep \
    newfstatat open openat openat2 pipe2 poll ppoll pread64 preadv preadv2 pselect6 pwrite64 pwritev pwritev2 read \
    readlink readlinkat readv recvfrom recvmsg restart_syscall rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigreturn \
    rt_sigsuspend rt_sigtimedwait sched_getaffinity sched_getparam sched_getscheduler sched_yield \
    seccomp select sendmsg sendto set_mempolicy set_robust_list setsockopt set_tid_address shutdown sigaltstack signalfd4 \
    stat statfs statx sync_file_range sysinfo tgkill timer_create timer_delete timer_getoverrun timer_gettime timer_settime \
    timerfd_create timerfd_gettime timerfd_settime uname write writev";

#[cfg(target_arch = "x86_64")]
const ARCHITECTURES: [&str; 1] = ["SCMP_ARCH_X86_64"];
#[cfg(not(target_arch = "x86_64"))]
const ARCHITECTURES: [&str; 1] = ["SCMP_ARCH_AARCH64"];

/// Of clone(2).
const CLONE_THREAD: u32 = 0x1_0000;
const AF_UNIX: u32 = 1;
const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;
const SOCK_STREAM: u32 = 1;
const SOCK_DGRAM: u32 = 2;
/// The bits of a socket's type that aren't flags.
const SOCK_TYPE_MASK: u32 = 0xf;

/// What a process may say of itself (prctl(2)): its name, timer slack, machine check policy, no new privileges, its own
/// seccomp filter, names of memory areas, and what capabilities its bounding set has.
const PROCESS: [u32; 7] = [15, 29, 33, 38, 22, 0x5356_4d41, 23];

/// Requests to files and block devices (ioctl_list(2)): not blocking, terminal or not, bytes to read; sizes, discard and
/// write of zeros, read-only, alignment.
const REQUESTS: [u32; 13] = [
    0x5421,
    0x5401,
    0x541b,
    0x8008_1272,
    0x1260,
    0x1268,
    0x127a,
    0x127b,
    0x127c,
    0x1277,
    0x127f,
    0x125e,
    0x8008_1270,
];
/// Requests to a tap that was handed over (`linux/if_tun.h`): what it is and can do, the room of its packets, the size, order
/// and use of the header of offloads. Not among them: becoming another one, a user's or a lasting one, filters, queues.
const TAP_REQUESTS: [u32; 8] =
    [0x8004_54cf, 0x8004_54d2, 0x4004_54d0, 0x4004_54d4, 0x8004_54d7, 0x4004_54d8, 0x4004_54dc, 0x4004_54de];
/// The type of all requests to KVM, in the request's second byte (`linux/kvm.h`).
const KVM_TYPE: u32 = 0xae00;

/// What a process that runs Wasm programs does with files beside.
const FILES: &str = "copy_file_range flock linkat mkdirat renameat renameat2 symlinkat unlinkat utimensat";

/// What it does with sockets, where its program has a network. All that was handed to it is connected already, so that no
/// path can be reached by these.
const SOCKETS: &str = "accept4 bind connect listen";

/// Families, types and protocols of the sockets that it makes (ip(7)): TCP and UDP, by IPv4 and IPv6, each by its number and as
/// what its type stands for.
const FAMILIES: [u32; 2] = [AF_INET, AF_INET6];
const PROTOCOLS: [(u32, u32); 4] = [(SOCK_STREAM, 0), (SOCK_STREAM, 6), (SOCK_DGRAM, 0), (SOCK_DGRAM, 17)];

/// Options that it sets, by their level: those that WASI knows. Of SOL_SOCKET the address in use again, the sizes of both buffers,
/// keeping alive; of IP the time to live; of IPv6 the same, and nothing but IPv6; of TCP the three numbers of keeping alive.
const OPTIONS: [(u32, u32); 10] =
    [(1, 2), (1, 7), (1, 8), (1, 9), (0, 2), (41, 16), (41, 26), (6, 4), (6, 5), (6, 6)];

/// The filter for an emulator that translates, or one that uses KVM, as the OCI runtime specification writes it.
pub(crate) fn filter(kvm: bool) -> Value {
    rules(kvm, "", false)
}

/// The filter for a process that runs Wasm programs. It makes no set-user-ID and set-group-ID files: folders of the host that it may
/// write to show it as their owner. The mode that `openat2` is told lies in memory; `openat` is used instead.
pub(crate) fn wasm() -> Value {
    rules(false, FILES, false)
}

/// The same for one whose program has a network: it makes sockets of TCP and UDP, and no others.
pub(crate) fn wasm_sockets() -> Value {
    rules(false, FILES, true)
}

/// System calls that make files, with the arguments that are the flags, where these decide, and the mode.
const MAKE: [(&str, Option<u32>, u32); 3] =
    [("open", Some(1), 2), ("openat", Some(2), 3), ("fchmod", None, 1)];
/// `O_CREAT`, and what is special of `O_TMPFILE` (open(2)).
const MAKING: u32 = 0x40_0040;
const SET_IDS: u32 = 0o6000;

fn rules(kvm: bool, more: &str, sockets: bool) -> Value {
    let writes = !more.is_empty();
    let judged = |name: &&str| {
        let makes = *name == "openat2" || MAKE.iter().any(|(known, ..)| known == name);
        writes && makes || sockets && *name == "setsockopt"
    };
    let names = ALLOWED.split_whitespace().chain(more.split_whitespace());
    let names: Vec<&str> = names.filter(|name| !judged(name)).collect();
    let mut rules = vec![
        rule::any(&names),
        rule::masked("clone", 0, CLONE_THREAD, CLONE_THREAD),
        rule::absent("clone3"),
        // Its own limits and processors alone.
        rule::equal("prlimit64", 0, 0),
        rule::equal("sched_setaffinity", 0, 0),
        // A pair of datagram sockets could send to any path.
        rule::with("socketpair", &[rule::is(0, AF_UNIX), rule::is_masked(1, SOCK_TYPE_MASK, SOCK_STREAM)]),
    ];
    rules.extend(PROCESS.map(|what| rule::equal("prctl", 0, what)));
    rules.extend(TAP_REQUESTS.map(|request| rule::equal("ioctl", 1, request)));
    rules.extend(REQUESTS.map(|request| rule::equal("ioctl", 1, request)));
    if writes {
        rules.push(rule::absent("openat2"));
        for (name, flags, mode) in MAKE {
            rules.extend(flags.map(|flags| rule::masked(name, flags, MAKING, 0)));
            rules.push(rule::masked(name, mode, SET_IDS, 0));
        }
    }
    if sockets {
        rules.push(rule::any(&SOCKETS.split_whitespace().collect::<Vec<_>>()));
        for family in FAMILIES {
            rules.extend(PROTOCOLS.map(|(kind, protocol)| {
                let kind = rule::is_masked(1, SOCK_TYPE_MASK, kind);
                rule::with("socket", &[rule::is(0, family), kind, rule::is(2, protocol)])
            }));
        }
        let option = |(level, name)| rule::with("setsockopt", &[rule::is(1, level), rule::is(2, name)]);
        rules.extend(OPTIONS.map(option));
    }
    if kvm {
        rules.push(rule::masked("ioctl", 1, 0xff00, KVM_TYPE));
    }
    rule::filter(&ARCHITECTURES, &rules)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_system_call_is_named_twice_and_none_that_is_left_out() {
        let mut names: Vec<&str> = ALLOWED.split_whitespace().collect();
        for left_out in [
            "mount", "unshare", "setns", "bpf", "keyctl", "ptrace", "socket", "connect", "fork", "vfork",
            "kill", "clone",
        ] {
            assert!(!names.contains(&left_out), "{left_out}");
        }
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn what_runs_wasm_programs_may_change_names_of_files_and_starts_no_process_either() {
        let text = wasm().to_string();
        assert!(
            text.contains("\"unlinkat\"") && !text.contains("\"vfork\"") && !text.contains("\"connect\"")
        );
        let all: Vec<&str> = ALLOWED.split_whitespace().collect();
        assert!(FILES.split_whitespace().all(|name| !all.contains(&name)));
    }

    #[test]
    fn a_wasm_program_s_sockets_are_of_tcp_and_udp_and_take_the_options_that_wasi_knows() {
        let filter = wasm_sockets();
        let named = |name: &str| {
            let rules = filter["syscalls"].as_array().unwrap().iter();
            rules
                .filter(|rule| rule["names"].as_array().unwrap().iter().any(|n| n == name))
                .collect::<Vec<_>>()
        };
        // Nothing allows either with any arguments.
        for (name, count) in [("socket", 8), ("setsockopt", OPTIONS.len())] {
            assert_eq!(named(name).len(), count, "{name}");
            assert!(named(name).iter().all(|rule| rule["args"].as_array().unwrap().len() >= 2), "{name}");
        }
        assert!(SOCKETS.split_whitespace().all(|name| named(name).len() == 1));
        assert!(named("getsockopt").len() == 1 && named("sendmmsg").is_empty() && named("accept").is_empty());
    }

    #[test]
    fn only_the_filter_for_kvm_lets_its_requests_through() {
        let has = |kvm| filter(kvm).to_string().contains(&KVM_TYPE.to_string());
        assert!(has(true) && !has(false));
    }
}
