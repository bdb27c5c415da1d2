//! What a process does about signals.

/// The highest number of a signal.
const LAST: libc::c_int = 64;

/// Lets every signal do to the calling process what it does by default, and blocks none.
///
/// The kernel is asked itself: the C library refuses the signals 32 and 33, which it needs for threads.
#[allow(unsafe_code)]
pub(crate) fn be_default() {
    // `struct kernel_sigaction` (x86-64, arm64): handler, flags, restorer, mask. All zero is SIG_DFL.
    let default = [0_u64; 4];
    let none = 0_u64;
    for signal in 1..=LAST {
        // SAFETY: the kernel reads `default`, and writes nothing; no handler is called from here on. SIGKILL and SIGSTOP are
        // refused, and have no other action.
        unsafe {
            let (new, old) = (default.as_ptr(), std::ptr::null_mut::<u64>());
            libc::syscall(libc::SYS_rt_sigaction, signal, new, old, size_of_val(&none));
        }
    }
    // SAFETY: the kernel reads `none`, and writes nothing.
    unsafe {
        let (new, old) = (&raw const none, std::ptr::null_mut::<u64>());
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, new, old, size_of_val(&none));
    }
}
