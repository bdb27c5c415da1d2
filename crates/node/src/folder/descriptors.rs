//! How many file descriptors all folders of this process may hold together.
//!
//! A guest decides how many files it looks up and opens. The keeper must never run out of descriptors by that, so each
//! one that a folder keeps takes a permit, and there are fewer permits than the process may have descriptors.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors that stay free for the rest of the keeper.
const RESERVED: u64 = 256;
/// More than this is of no use: nodes beyond it are opened again when they are needed.
const MOST: u64 = 64 * 1024;

static TAKEN: AtomicUsize = AtomicUsize::new(0);

/// The right to hold one more descriptor; given back on drop.
#[derive(Debug)]
pub(super) struct Permit(());

impl Permit {
    /// Takes a permit, `None` where all are taken.
    pub(super) fn take() -> Option<Self> {
        let limit = limit();
        TAKEN
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| (taken < limit).then_some(taken + 1))
            .ok()
            .map(|_| Self(()))
    }

    /// Opens a descriptor that holds this permit.
    pub(super) fn open(self, open: impl FnOnce() -> Result<OwnedFd, Errno>) -> Result<Descriptor, Errno> {
        Ok(Descriptor { fd: open()?, _permit: self })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        TAKEN.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A file descriptor with its permit.
#[derive(Debug)]
pub(super) struct Descriptor {
    fd: OwnedFd,
    _permit: Permit,
}

impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Raises the process' soft limit to its hard one, once, and answers how many of these are for folders.
pub(super) fn limit() -> usize {
    static LIMIT: OnceLock<usize> = OnceLock::new();
    *LIMIT.get_or_init(|| {
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        let wanted = maximum.unwrap_or(MOST + RESERVED).min(MOST + RESERVED);
        let current = current.unwrap_or(wanted);
        let have = if current < wanted
            && setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum }).is_ok()
        {
            wanted
        } else {
            current
        };
        usize::try_from(have.saturating_sub(RESERVED).clamp(16, MOST)).unwrap_or(16)
    })
}
