//! What a container's processes can't do though PID 1 must.
//!
//! Where a container may write to a folder of the host, its filter judges the modes of files. That of openat2(2) lies in memory,
//! where no filter can look. PID 1 needs the call, and is ours; the processes that it starts fall back to `openat`, as on an
//! older kernel.

use spacecore::refusal::OrRefuse;
use spacecore::wire::message::{Refusal, RefusalKind};

/// The same on every architecture (`asm-generic/unistd.h`).
const OPENAT2: u32 = 437;
/// What marks a system call of the x32 ABI (`asm/unistd.h`).
const NOT_X32: u32 = !0x4000_0000;
/// `SECCOMP_RET_ERRNO` with `ENOSYS`, and `SECCOMP_RET_ALLOW` (`linux/seccomp.h`).
const UNKNOWN: u32 = 0x0005_0026;
const ALLOW: u32 = 0x7fff_0000;

const fn step(code: u16, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt, jf, k }
}

/// Load the call's number, drop the mark, compare (`linux/bpf_common.h`).
static PROGRAM: [libc::sock_filter; 5] = [
    step(0x20, 0, 0, 0),
    step(0x54, 0, 0, NOT_X32),
    step(0x15, 0, 1, OPENAT2),
    step(0x06, 0, 0, UNKNOWN),
    step(0x06, 0, 0, ALLOW),
];

/// Makes `openat2` unknown to the calling process and what it starts.
///
/// # Errors
/// The kernel refuses the filter.
#[allow(unsafe_code)]
pub(crate) fn forget_openat2() -> Result<(), Refusal> {
    const SECCOMP_SET_MODE_FILTER: libc::c_uint = 1;
    let filter = libc::sock_fprog { len: PROGRAM.len() as u16, filter: PROGRAM.as_ptr().cast_mut() };
    // SAFETY: the program is a constant, and the call only reads it.
    let answer = unsafe { libc::syscall(libc::SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &raw const filter) };
    let done = if answer == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) };
    done.or_refuse(RefusalKind::Other, || "restricting the process' system calls".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(unsafe_code)]
    fn a_process_that_forgot_openat2_has_openat() {
        let how = [0_u64; 3];
        // SAFETY: the child makes system calls on constants and on what was made before it, and ends.
        let code = unsafe {
            let child = libc::fork();
            if child == 0 {
                libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
                let asked = || {
                    let root = c"/".as_ptr();
                    let opened = libc::syscall(libc::SYS_openat2, libc::AT_FDCWD, root, how.as_ptr(), 24);
                    opened >= 0 || *libc::__errno_location() != libc::ENOSYS
                };
                let before = asked();
                let done = forget_openat2().is_ok();
                let old = libc::openat(libc::AT_FDCWD, c"/".as_ptr(), libc::O_RDONLY) >= 0;
                libc::_exit(
                    i32::from(!before)
                        | i32::from(!done) << 1
                        | i32::from(asked()) << 2
                        | i32::from(!old) << 3,
                )
            }
            let mut status = 0;
            libc::waitpid(child, &raw mut status, 0);
            libc::WEXITSTATUS(status)
        };
        assert_eq!(
            code, 0,
            "known before, made unknown, unknown after, openat still there: a bit for each that isn't so"
        );
    }
}
