//! Who owns a file, on either side.
//!
//! A keeper that is root passes owners through as they are. One that isn't can own files only as its own user: that
//! user's files belong to root in the guest, and what the guest makes belongs to that user, whoever makes it there.
//! Files of the host's root then appear as nobody's (65534), and those of others under their own number.

use rustix::fs::{Gid, Stat, Uid};
use rustix::io::Errno;

const NOBODY: u32 = 65534;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owners {
    /// The keeper is root.
    AsTheyAre,
    /// The keeper is this user with this group.
    Mapped { uid: u32, gid: u32 },
}

/// What to hand to `chown`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) uid: Option<Uid>,
    pub(super) gid: Option<Gid>,
}

impl Owners {
    /// The rule for this process.
    pub(super) fn of_this_process() -> Self {
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        if uid.is_root() { Self::AsTheyAre } else { Self::Mapped { uid: uid.as_raw(), gid: gid.as_raw() } }
    }

    /// User and group that the guest sees.
    pub(super) fn shown(self, stat: &Stat) -> (u32, u32) {
        let show = |own: u32, id: u32| match id {
            id if id == own => 0,
            0 => NOBODY,
            other => other,
        };
        match self {
            Self::AsTheyAre => (stat.st_uid, stat.st_gid),
            Self::Mapped { uid, gid } => (show(uid, stat.st_uid), show(gid, stat.st_gid)),
        }
    }

    /// What a change of owner in the guest means here. `EPERM` for an owner that a keeper without root can't give;
    /// giving a file to whom it belongs already is no change.
    pub(super) fn change(self, stat: &Stat, uid: Option<u32>, gid: Option<u32>) -> Result<Change, Errno> {
        if uid == Some(u32::MAX) || gid == Some(u32::MAX) {
            return Err(Errno::INVAL);
        }
        let (uid, gid) = match self {
            Self::AsTheyAre => (uid, gid),
            Self::Mapped { uid: own_uid, gid: own_gid } => {
                let (shown_uid, shown_gid) = self.shown(stat);
                (mapped(uid, shown_uid, own_uid)?, mapped(gid, shown_gid, own_gid)?)
            }
        };
        Ok(Change { uid: uid.map(Uid::from_raw), gid: gid.map(Gid::from_raw) })
    }
}

fn mapped(wanted: Option<u32>, shown: u32, own: u32) -> Result<Option<u32>, Errno> {
    match wanted {
        None => Ok(None),
        Some(wanted) if wanted == shown => Ok(None),
        Some(0) => Ok(Some(own)),
        Some(_) => Err(Errno::PERM),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A real file's attributes, with another owner.
    fn owned_by(uid: u32, gid: u32) -> Stat {
        let mut stat = rustix::fs::stat("/").unwrap();
        (stat.st_uid, stat.st_gid) = (uid, gid);
        stat
    }

    #[test]
    fn a_user_s_own_files_belong_to_root_in_the_guest_and_root_s_to_nobody() {
        let owners = Owners::Mapped { uid: 1000, gid: 100 };
        assert_eq!(owners.shown(&owned_by(1000, 100)), (0, 0));
        assert_eq!(owners.shown(&owned_by(0, 0)), (NOBODY, NOBODY));
        assert_eq!(owners.shown(&owned_by(33, 1000)), (33, 1000));
        assert_eq!(Owners::AsTheyAre.shown(&owned_by(33, 0)), (33, 0));
    }

    #[test]
    fn without_root_files_are_given_to_the_own_user_alone() {
        let owners = Owners::Mapped { uid: 1000, gid: 100 };
        let mine = owned_by(1000, 100);
        let unchanged = Change { uid: None, gid: None };
        assert_eq!(owners.change(&mine, Some(0), Some(0)), Ok(unchanged));
        assert_eq!(owners.change(&mine, Some(33), None), Err(Errno::PERM));
        assert_eq!(owners.change(&mine, None, Some(1000)), Err(Errno::PERM));
        let group = Change { uid: None, gid: Some(Gid::from_raw(100)) };
        assert_eq!(owners.change(&owned_by(1000, 5), None, Some(0)), Ok(group));
        let given = Change { uid: Some(Uid::from_raw(33)), gid: None };
        assert_eq!(Owners::AsTheyAre.change(&mine, Some(33), None), Ok(given));
        assert_eq!(Owners::AsTheyAre.change(&mine, Some(u32::MAX), None), Err(Errno::INVAL));
    }
}
