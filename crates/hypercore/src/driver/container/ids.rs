//! Whose ids of the host a container's are.
//!
//! Root's containers have high ones, each a range of its own ([`crate::jail::Ids`]). A user's containers are made inside a user namespace of the user's own:
//! 0 there is the user, and the ids from 1 on are the range that `/etc/subuid` and `/etc/subgid` give the user, which the
//! set-user-id programs `newuidmap` and `newgidmap` set. Without them there is only the id 0.
//!
//! Source: user_namespaces(7), subuid(5), newuidmap(1).

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::process::Command;

use serde_json::{Value, json};

use super::config::{FIRST_ID, IDS};
use super::mapping;
use crate::spawn;

/// Where a container's ids come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ids {
    /// Root's containers: ids of the host that nobody else has, from this one on.
    High {
        /// The first of the user ids, and of the group ids.
        first: u32,
    },
    /// A user's containers: the user, and ranges that belong to the user.
    Range {
        /// The first of the user ids.
        users: u32,
        /// The first of the group ids.
        groups: u32,
    },
    /// A user's containers, where the user has no ranges: the user alone.
    One,
}

impl Ids {
    /// What the calling process can give a container. Root's have a range each: until one starts, the first stands for it.
    pub fn here() -> Self {
        let user = rustix::process::geteuid();
        if user.is_root() {
            return Self::High { first: FIRST_ID };
        }
        let (user, name) = (user.as_raw(), name_of(user.as_raw()));
        let range = |file: &str| first_range(&fs::read_to_string(file).ok()?, user, name.as_deref());
        let programs = ["newuidmap", "newgidmap"].iter().all(|name| spawn::find(name).is_some());
        match (range("/etc/subuid"), range("/etc/subgid")) {
            (Some(users), Some(groups)) if programs => Self::Range { users, groups },
            _ => Self::One,
        }
    }

    /// Whether the containers are a user's.
    pub fn is_rootless(self) -> bool {
        !matches!(self, Self::High { .. })
    }

    /// The first user id and group id that stand for a container's 1, where a user has them to give.
    pub fn range(self) -> Option<(u32, u32)> {
        match self {
            Self::Range { users, groups } => Some((users, groups)),
            Self::High { .. } | Self::One => None,
        }
    }

    /// How many ids a container has.
    pub(super) fn count(self) -> u32 {
        if self == Self::One { 1 } else { IDS }
    }

    /// What a process that makes containers calls the container's id 0.
    pub(super) fn base(self) -> u32 {
        if let Self::High { first } = self { first } else { 0 }
    }

    /// The mappings of user and group ids for the bundle's configuration, as the host sees them.
    pub(super) fn mappings(self) -> (Value, Value) {
        let line = |inside: u32, host: u32, size: u32| json!({ "containerID": inside, "hostID": host, "size": size });
        let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let of = |own: u32, first: u32| json!([line(0, own, 1), line(1, first, IDS.saturating_sub(1))]);
        match self {
            Self::High { first } => (json!([line(0, first, IDS)]), json!([line(0, first, IDS)])),
            Self::Range { users, groups } => (of(own.0, users), of(own.1, groups)),
            Self::One => (json!([line(0, own.0, 1)]), json!([line(0, own.1, 1)])),
        }
    }

    /// Makes the user namespace of a user's containers; nothing of the caller's changes.
    pub(super) fn outer(self) -> io::Result<OwnedFd> {
        let user = rustix::process::geteuid().as_raw();
        let group = rustix::process::getegid().as_raw();
        mapping::user_namespace(|child| match self {
            Self::High { first } => mapping::write_maps(child, first, first, IDS),
            Self::One => mapping::write_maps(child, user, group, 1),
            Self::Range { users, groups } => {
                set_range("newuidmap", child, user, users)?;
                set_range("newgidmap", child, group, groups)
            }
        })
    }

    /// Makes the calling process, which must have one thread, root of the namespace of a user's containers.
    pub(super) fn enter(self) -> io::Result<()> {
        let outer = self.outer()?;
        self.become_root_of(&outer)
    }

    /// As [`Ids::enter`], for a namespace that is made already.
    fn become_root_of(self, outer: &OwnedFd) -> io::Result<()> {
        use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
        move_into_link_name_space(std::os::fd::AsFd::as_fd(outer), Some(LinkNameSpaceType::User))?;
        if self != Self::One {
            // Those that the user has beside have no number here. Where there is one id nobody may give them up.
            rustix::thread::set_thread_groups(&[])?;
        }
        Ok(())
    }

    /// Does something as root of the namespace of a user's containers, where everything that they have made can be touched.
    /// The calling process may have threads.
    ///
    /// # Errors
    /// The namespace can't be made, or the work fails; of that only the kind of the error comes back.
    #[allow(unsafe_code)]
    pub(super) fn inside(self, work: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        use rustix::process::{Pid, WaitOptions, waitpid};
        let outer = self.outer()?;
        // SAFETY: the child has this thread alone, with a copy of all memory; the C library makes its allocator usable in
        // the child of a process with threads, and the work takes no lock that another thread may hold.
        let child = match unsafe { libc::fork() } {
            0 => {
                let done = self.become_root_of(&outer).and_then(|()| work());
                let code = done.err().map_or(0, |error| error.raw_os_error().unwrap_or(libc::EIO));
                // SAFETY: ends this process without running what its parent registered for its own exit.
                unsafe { libc::_exit(code) }
            }
            child => Pid::from_raw(child).filter(|_| child > 0).ok_or_else(io::Error::last_os_error)?,
        };
        let ended = rustix::io::retry_on_intr(|| waitpid(Some(child), WaitOptions::empty()))?;
        match ended.and_then(|(_, status)| status.exit_status()) {
            Some(0) => Ok(()),
            Some(code) => Err(io::Error::from_raw_os_error(code)),
            None => Err(io::Error::other("the process that was to do it was killed")),
        }
    }
}

/// Lets one of shadow's programs write a map: the caller's own id as 0, the range from 1 on.
fn set_range(program: &str, child: i32, own: u32, first: u32) -> io::Result<()> {
    let path = spawn::find(program).ok_or(io::ErrorKind::NotFound)?;
    let numbers = [0, own, 1, 1, first, IDS.saturating_sub(1)].map(|number| number.to_string());
    let output = Command::new(path).arg(child.to_string()).args(numbers).output()?;
    match output.status.success() {
        true => Ok(()),
        false => {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(io::Error::other(format!("{program}: {}", said.trim())))
        }
    }
}

/// The user's name, by which ranges may be listed. Users that aren't in `/etc/passwd` have theirs by number.
fn name_of(user: u32) -> Option<String> {
    let users = fs::read_to_string("/etc/passwd").ok()?;
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(user)).then(|| name.to_owned())
    })
}

/// The first range of the user's that is large enough.
fn first_range(text: &str, user: u32, name: Option<&str>) -> Option<u32> {
    text.lines().find_map(|line| {
        let mut fields = line.trim().split(':');
        let whose = fields.next()?;
        let (first, count) = (fields.next()?.parse::<u32>().ok()?, fields.next()?.parse::<u32>().ok()?);
        let is_own = Some(whose) == name || whose.parse() == Ok(user);
        (is_own && count >= IDS.saturating_sub(1) && first.checked_add(count).is_some()).then_some(first)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_the_user_s_by_name_or_number_and_large_enough() {
        let text = "# comment\nother:100000:65536\nuser:1:10\nuser:200000:65536\n1000:300000:65536\n";
        assert_eq!(first_range(text, 1000, Some("user")), Some(200_000));
        assert_eq!(first_range(text, 1000, None), Some(300_000));
        assert_eq!(first_range(text, 1001, Some("else")), None);
        assert_eq!(first_range("user:4294967295:65536\n", 1, Some("user")), None);
        assert_eq!(first_range("user:x:y\nuser\n::\n", 1, Some("user")), None);
    }
}
