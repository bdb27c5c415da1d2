//! A process that is no program of the image's: it copies files in the workload's root.

use std::error::Error;
use std::io::Write;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::process::DumpableBehavior;
use spacecore::archive::place::Side;
use spacecore::archive::{ArchiveError, Limits};
use spacecore::wire::message::Transfer;

use crate::process::exit;

/// Copies, then ends the process. Standard input, output and error are in place, and the mounts are the workload's.
pub(crate) fn run(transfer: &Transfer) -> ! {
    // The workload's processes can't look into this one, which is PID 1's program and not theirs.
    let hidden = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
    close_the_rest();
    let result = match hidden {
        Ok(()) => copy(transfer),
        Err(error) => Err(ArchiveError::Stream(error.into())),
    };
    let code = match result {
        Ok(()) => 0,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "{}", chain(&error));
            1
        }
    };
    exit(code)
}

/// Closes all that PID 1 had open, such as the other ends of pipes: there is no program whose start would close them.
#[allow(unsafe_code)]
fn close_the_rest() {
    // SAFETY: nothing here owns a descriptor from 3 on that it still uses; the call takes numbers only.
    unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
}

fn copy(transfer: &Transfer) -> Result<(), ArchiveError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::openat(CWD, "/", flags, Mode::empty());
    let side = Side::Root(root.map_err(|error| ArchiveError::Stream(error.into()))?);
    match transfer {
        Transfer::Out { path } => side.pack(path.as_bytes(), std::io::stdout().lock(), &mut |path, what| {
            let _ = writeln!(std::io::stderr(), "not copied: {path:?}, which is {what}");
        }),
        Transfer::Into { path, contents } => {
            // The disk is the limit.
            let limits = Limits { entries: u64::MAX, bytes: u64::MAX };
            side.unpack(path.as_bytes(), *contents, std::io::stdin().lock(), limits)
        }
    }
}

/// An error with its causes, in one line.
fn chain(error: &ArchiveError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
