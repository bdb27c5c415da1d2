//! The system calls that a container's processes may make: what container engines allow by default for a process without
//! special capabilities. Everything else fails with `EPERM`, and a system call that nobody knows yet with `ENOSYS`, so
//! that programs fall back as they do on an older kernel.
//!
//! Left out, beside what only root of the host could use: `keyctl` and its kin (keys know no namespaces), `userfaultfd`
//! and `perf_event_open` (they help exploits), `bpf`, `io_uring_*` (work that no filter sees), new namespaces and mounts
//! (kernel code that is reached by nothing else), `personality` but for its harmless values, and sockets of
//! families that few programs use, `AF_VSOCK` among them (it reaches the host without a network).

use serde_json::Value;

use crate::seccomp::rule;

/// Allowed with any arguments, on every architecture that knows them.
const ALLOWED: &str = "accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir chmod chown chown32 \
    clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep \
    clock_nanosleep_time64 close close_range connect copy_file_range creat dup dup2 dup3 epoll_create epoll_create1 \
    epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 execve execveat exit \
    exit_group faccessat faccessat2 fadvise64 fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 \
    fchown fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat \
    fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futex futex_requeue futex_time64 futex_wait \
    futex_waitv futex_wake futimesat getcpu getcwd getdents getdents64 getegid getegid32 geteuid geteuid32 getgid \
    getgid32 getgroups getgroups32 getitimer getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid \
    getresgid32 getresuid getresuid32 getrlimit get_robust_list getrusage getsid getsockname getsockopt get_thread_area \
    gettid gettimeofday getuid getuid32 getxattr getxattrat inotify_add_watch inotify_init inotify_init1 \
    inotify_rm_watch io_cancel ioctl io_destroy io_getevents io_pgetevents io_pgetevents_time64 ioprio_get ioprio_set \
    io_setup io_submit ipc kill landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lchown32 \
    lgetxattr link linkat listen listmount listxattr listxattrat llistxattr _llseek lremovexattr lseek lsetxattr \
    lstat lstat64 madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat \
    mlock mlock2 mlockall mmap mmap2 mprotect mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 \
    mq_timedsend mq_timedsend_time64 mq_unlink mremap mseal msgctl msgget msgrcv msgsnd msync munlock munlockall munmap \
    name_to_handle_at nanosleep newfstatat _newselect open openat openat2 pause pidfd_getfd pidfd_open \
    pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll ppoll_time64 prctl pread64 preadv preadv2 \
    prlimit64 process_mrelease process_vm_readv process_vm_writev pselect6 pselect6_time64 ptrace pwrite64 pwritev \
    pwritev2 read readahead readlink readlinkat readv recv recvfrom recvmmsg recvmmsg_time64 recvmsg remap_file_pages \
    removexattr removexattrat rename renameat renameat2 restart_syscall rmdir rseq rt_sigaction rt_sigpending \
    rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo \
    sched_getaffinity sched_getattr sched_getparam sched_get_priority_max sched_get_priority_min sched_getscheduler \
    sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam sched_setscheduler \
    sched_yield seccomp select semctl semget semop semtimedop semtimedop_time64 send sendfile sendfile64 sendmmsg \
    sendmsg sendto setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setitimer setpgid \
    setpriority setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit \
    set_robust_list setsid setsockopt set_thread_area set_tid_address setuid setuid32 setxattr setxattrat shmat shmctl \
    shmdt shmget shutdown sigaltstack signalfd signalfd4 sigprocmask sigreturn socketpair splice stat stat64 \
    statfs statfs64 statmount statx symlink symlinkat sync sync_file_range syncfs sysinfo tee tgkill time timer_create \
    timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create \
    timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 times tkill truncate truncate64 ugetrlimit umask \
    uname unlink unlinkat uretprobe utime utimensat utimensat_time64 utimes vfork vmsplice wait4 waitid waitpid write \
    writev chroot";

/// Allowed on one architecture only.
#[cfg(target_arch = "x86_64")]
const OF_ARCHITECTURE: &str = "arch_prctl modify_ldt";
#[cfg(not(target_arch = "x86_64"))]
const OF_ARCHITECTURE: &str =
    "arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls";

#[cfg(target_arch = "x86_64")]
const ARCHITECTURES: [&str; 3] = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"];
#[cfg(not(target_arch = "x86_64"))]
const ARCHITECTURES: [&str; 2] = ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"];

/// The families of sockets that programs use: local ones, IPv4 and IPv6, and those by which they ask for interfaces and send packets
/// on their own network: `AF_UNIX`, `AF_INET`, `AF_INET6`, `AF_NETLINK`, `AF_PACKET`. Others (`AF_VSOCK`, `AF_XDP`, `AF_ALG` and some
/// thirty more) reach kernel code that is reached by nothing else.
const FAMILIES: [u32; 5] = [1, 2, 10, 16, 17];

/// New namespaces of any kind (`CLONE_NEW*`, clone(2)).
const NAMESPACES: u32 = 0x7e02_0000;

/// Values of `personality` that change nothing of safety: Linux, 32 bits, old uname, both, and the question.
const PERSONALITIES: [u32; 5] = [0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// Changes of a file's mode, and new files, each with the argument that is the mode.
const CHANGES: [(&str, u32); 4] = [("chmod", 1), ("fchmod", 1), ("fchmodat", 2), ("fchmodat2", 2)];
const NEW: [(&str, u32); 3] = [("creat", 1), ("mknod", 1), ("mknodat", 2)];
/// What makes files only with certain flags: the arguments that are the flags and the mode.
const OPENED: [(&str, u32, u32); 2] = [("open", 1, 2), ("openat", 2, 3)];
const SET_IDS: u32 = 0o6000;
/// `O_CREAT`, and what is special of `O_TMPFILE` (open(2)).
const MAKING: u32 = 0x40_0040;

/// The filter, as the OCI runtime specification writes it (`linux.seccomp`). A container that may write to a folder of the host
/// makes no set-user-ID and no set-group-ID files: on the host it would be root, and any group, who made them. Folders inherit their
/// set-group-ID from the one that they are in. The mode that `openat2` is told lies in memory; PID 1 makes its processes forget that
/// call.
pub(crate) fn filter(writes_to_host: bool) -> Value {
    let by_mode = CHANGES.iter().chain(&NEW).map(|(name, _)| *name).chain(OPENED.map(|(name, ..)| name));
    let judged: Vec<&str> = match writes_to_host {
        true => by_mode.collect(),
        false => Vec::new(),
    };
    let names = ALLOWED.split_whitespace().chain(OF_ARCHITECTURE.split_whitespace());
    let names: Vec<&str> = names.filter(|name| !judged.contains(name)).collect();
    let mut rules = vec![rule::any(&names), rule::masked("clone", 0, NAMESPACES, 0), rule::absent("clone3")];
    if writes_to_host {
        rules.extend(CHANGES.map(|(name, mode)| rule::masked(name, mode, SET_IDS, 0)));
        rules.extend(NEW.map(|(name, mode)| rule::masked(name, mode, SET_IDS, 0)));
        for (name, flags, mode) in OPENED {
            rules.extend([rule::masked(name, flags, MAKING, 0), rule::masked(name, mode, SET_IDS, 0)]);
        }
    }
    rules.extend(FAMILIES.map(|family| rule::equal("socket", 0, family)));
    rules.extend(PERSONALITIES.map(|value| rule::equal("personality", 0, value)));
    rule::filter(&ARCHITECTURES, &rules)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_system_call_is_named_twice_and_none_that_is_left_out() {
        let mut names: Vec<&str> = ALLOWED.split_whitespace().collect();
        for left_out in
            ["mount", "unshare", "setns", "bpf", "keyctl", "io_uring_setup", "userfaultfd", "clone3"]
        {
            assert!(!names.contains(&left_out), "{left_out}");
        }
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
