//! What this binary was started as: PID 1 of a microVM, or of a container.

use std::sync::atomic::{AtomicBool, Ordering};

static IS_CONTAINER: AtomicBool = AtomicBool::new(false);

static WRITES_TO_HOST: AtomicBool = AtomicBool::new(false);

/// Notes that a container's runtime has started this process, and whether the container may write to folders of the host.
pub(crate) fn be_container(writes_to_host: bool) {
    IS_CONTAINER.store(true, Ordering::Relaxed);
    WRITES_TO_HOST.store(writes_to_host, Ordering::Relaxed);
}

/// Whether this is a container that may write to folders of the host.
pub(crate) fn writes_to_host() -> bool {
    WRITES_TO_HOST.load(Ordering::Relaxed)
}

/// Whether a container's runtime has started this process, and has done all that the configuration of a microVM asks for.
pub(crate) fn is_container() -> bool {
    IS_CONTAINER.load(Ordering::Relaxed)
}
