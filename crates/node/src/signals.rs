//! Signals as a file descriptor, so that a poll loop meets them where it meets everything else.

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Signals of this process that are read instead of delivered (`signalfd(2)`).
#[derive(Debug)]
pub struct Signals {
    fd: OwnedFd,
}

impl Signals {
    /// Blocks these signals and opens the descriptor that reports them. To be called before any thread is started.
    ///
    /// # Errors
    /// The kernel refuses: no descriptors are left, or a number is no signal.
    #[allow(unsafe_code)]
    pub fn block(numbers: &[i32]) -> io::Result<Self> {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: sigemptyset initialises the set; the calls after it get a valid, initialised set.
        let fd = unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            for number in numbers {
                if libc::sigaddset(set.as_mut_ptr(), *number) != 0 {
                    return Err(io::Error::last_os_error());
                }
            }
            let error = libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut());
            if error != 0 {
                return Err(io::Error::from_raw_os_error(error));
            }
            libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: signalfd returned a descriptor that nothing else owns.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self { fd })
    }

    /// The next signal that arrived, if there is one.
    #[allow(unsafe_code)]
    pub fn next_signal(&mut self) -> Option<i32> {
        let mut info = MaybeUninit::<libc::signalfd_siginfo>::zeroed();
        let size = size_of::<libc::signalfd_siginfo>();
        // SAFETY: the buffer is as large as said, and any bytes are a valid signalfd_siginfo.
        let (read, info) = unsafe {
            let read = libc::read(self.fd.as_raw_fd(), info.as_mut_ptr().cast(), size);
            (read, info.assume_init())
        };
        (usize::try_from(read) == Ok(size)).then(|| i32::try_from(info.ssi_signo).unwrap_or(0))
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
