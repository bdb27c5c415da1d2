//! What this binary was started as: PID 1 of a microVM, or of a container.

use std::sync::atomic::{AtomicBool, Ordering};

static IS_CONTAINER: AtomicBool = AtomicBool::new(false);

/// Notes that a container's runtime has started this process.
pub(crate) fn be_container() {
    IS_CONTAINER.store(true, Ordering::Relaxed);
}

/// Whether a container's runtime has started this process, and has done all that the configuration of a microVM asks for.
pub(crate) fn is_container() -> bool {
    IS_CONTAINER.load(Ordering::Relaxed)
}
