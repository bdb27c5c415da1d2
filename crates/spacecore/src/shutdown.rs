//! Ways in which the machine, or the container, ends. None of them returns.

use std::io::Write;
use std::mem::ManuallyDrop;
use std::os::fd::{FromRawFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::Duration;

use rustix::mount::UnmountFlags;
use rustix::system::RebootCommand;
use spacecore::wire::frame::Frame;
use spacecore::wire::message::{Refusal, RefusalKind, ToHost};

use crate::root::{ROOT, WRITABLE};
use spacecore::refusal::refuse;

static IS_PID_1: AtomicBool = AtomicBool::new(true);
static CHANNEL: AtomicI32 = AtomicI32::new(-1);

/// Notes the channel's descriptor, which stays open as long as the machine runs.
pub(crate) fn remember_channel(channel: RawFd) {
    CHANNEL.store(channel, Ordering::Relaxed);
}

/// Called by a forked process: its end isn't the machine's.
pub(crate) fn forget_that_this_is_pid_1() {
    IS_PID_1.store(false, Ordering::Relaxed);
}

/// Powers off; in a container PID 1 ends, and the kernel kills whatever is left with it.
pub(crate) fn power_off() -> ! {
    if crate::mode::is_container() {
        std::process::exit(0);
    }
    let _ = rustix::system::reboot(RebootCommand::PowerOff);
    // A machine without a power switch: the VMM was told not to reboot.
    let _ = rustix::system::reboot(RebootCommand::Restart);
    loop {
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// Writes everything to the disks, and powers off.
pub(crate) fn sync_and_power_off() -> ! {
    let _ = rustix::mount::unmount(ROOT, UnmountFlags::DETACH);
    let _ = rustix::mount::unmount(WRITABLE, UnmountFlags::DETACH);
    rustix::fs::sync();
    power_off()
}

/// Says on the console why the machine can't go on, tells the keeper, and powers off.
#[allow(unsafe_code)]
pub(crate) fn fail(refusal: &Refusal) -> ! {
    let _ = writeln!(std::io::stderr(), "spacecore: {}", refusal.message);
    let channel = CHANNEL.load(Ordering::Relaxed);
    if channel >= 0 {
        let message = ToHost::Refused { process: None, refusal: refusal.clone() };
        let mut bytes = Vec::new();
        Frame::Control(serde_json::to_vec(&message).unwrap_or_default()).encode(&mut bytes);
        // SAFETY: the channel's descriptor is open for as long as the machine runs, and isn't closed here.
        let mut port = ManuallyDrop::new(unsafe { std::fs::File::from_raw_fd(channel) });
        let _ = port.write_all(&bytes);
        if !crate::mode::is_container() {
            // The port has taken the message; the VMM still has to hand it on.
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    power_off()
}

/// Ends the machine after a panic in PID 1; elsewhere only that process ends.
pub(crate) fn on_panic(panic: &str) {
    if IS_PID_1.load(Ordering::Relaxed) {
        fail(&refuse(RefusalKind::Other, format!("the guest's PID 1 panicked: {panic}")));
    }
}
