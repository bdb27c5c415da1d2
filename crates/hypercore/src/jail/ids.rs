//! Users that belong to nobody: a range of ids for each spacecore, from the part of all ids that the machine's own tools
//! leave alone (systemd's `UIDS-GIDS` document: containers of its own end at 0x6fff_ffff).

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::FlockOperation;

/// How many ids a range has.
pub const IDS: u32 = 65_536;

/// The first of all ids that spacecores have.
pub const FIRST_ID: u32 = 0x7000_0000;
const RANGES: u32 = 4096;
/// One file for each range that is or was in use; whose holder has it locked. Shared by all homes on the machine.
const LOCKS: &str = "/run/vimana/ids";

/// A range of user and group ids that no other spacecore has as long as this lives.
#[derive(Debug)]
pub struct Ids {
    first: u32,
    _lock: File,
}

impl Ids {
    /// Takes the lowest range that is free.
    ///
    /// # Errors
    /// The caller isn't root, or all ranges are in use.
    pub fn take() -> io::Result<Self> {
        Self::take_in(Path::new(LOCKS))
    }

    fn take_in(locks: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(locks)?;
        for range in 0..RANGES {
            let file = locks.join(range.to_string());
            let lock = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&file)?;
            match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {
                    let first = FIRST_ID.saturating_add(range.saturating_mul(IDS));
                    return Ok(Self { first, _lock: lock });
                }
                Err(rustix::io::Errno::WOULDBLOCK) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(io::Error::other(format!("all {RANGES} ranges of user ids are in use")))
    }

    /// The first id: the user and the group that a program in a jail becomes, and a container's root.
    pub fn first(&self) -> u32 {
        self.first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_never_have_the_same_range_and_a_free_one_is_used_again() {
        let folder = tempfile::tempdir().unwrap();
        let first = Ids::take_in(folder.path()).unwrap();
        let second = Ids::take_in(folder.path()).unwrap();
        assert_eq!(second.first() - first.first(), IDS);
        let freed = first.first();
        drop(first);
        assert_eq!(Ids::take_in(folder.path()).unwrap().first(), freed);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
