//! Which names a deployment's spacecores can have.

use std::path::Path;

use super::{Core, Deployment, spacecore_name};
use crate::daemon::call::Refusal;

/// The most replicas of a deployment on one node.
const MOST: u32 = 1000;

/// The longest name: a spacecore's is its host name too, a DNS label (RFC 1123).
const LABEL: usize = 63;

/// The longest path of a unix socket in bytes (unix(7)).
const SOCKET_PATH: usize = 107;

/// What follows a spacecore's name in the path of its keeper's socket: what tells its attempts apart, and the socket's own name.
const AFTER: usize = "-0123456789ab/keeper.sock".len();

/// The longest name of a spacecore whose keeper has its socket under this folder.
fn longest(run: &Path) -> usize {
    let before = run.as_os_str().len().saturating_add(1);
    SOCKET_PATH.saturating_sub(before.saturating_add(AFTER)).min(LABEL)
}

impl Core {
    /// Whether a deployment can have so many replicas.
    pub(super) fn check_replicas(&self, name: &str, replicas: u32) -> Result<(), Refusal> {
        if replicas > MOST {
            return Err(Refusal::TooMany { replicas, most: MOST });
        }
        let last = spacecore_name(name, replicas.saturating_sub(1));
        let longest = longest(&self.home.run());
        if last.len() > longest {
            let number = last.len().saturating_sub(name.len());
            return Err(Refusal::NameTooLong {
                name: name.to_owned(),
                most: longest.saturating_sub(number),
                spacecore: last,
                longest,
            });
        }
        for spacecore in (0..replicas).map(|index| spacecore_name(name, index)) {
            if let Some(other) = self.owner(&spacecore).filter(|other| other != name) {
                return Err(Refusal::NameTaken { name: name.to_owned(), spacecore, other });
            }
        }
        Ok(())
    }

    /// The deployment that has, or may have, a spacecore of this name.
    pub(super) fn owner(&self, spacecore: &str) -> Option<String> {
        let there = self.spacecores.get(spacecore).map(|found| found.record.deployment.clone());
        let there = there.or_else(|| self.damaged_of(spacecore).cloned());
        there.or_else(|| {
            let names = |found: &Deployment| {
                (0..found.record.replicas).any(|index| found.spacecore(index) == spacecore)
            };
            self.deployments.values().find(|found| names(found)).map(|found| found.record.name.clone())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_label_and_leaves_room_for_its_keeper_s_socket() {
        assert_eq!(longest(Path::new("/srv/v/run")), 63);
        assert_eq!(longest(Path::new("/var/lib/vimana/run")), 62);
        let folder = tempfile::tempdir().unwrap();
        let long = folder.path().join("x".repeat(40));
        std::fs::create_dir(&long).unwrap();
        let bind = |length: usize| {
            let keeper = long.join(format!("{}-0123456789ab", "n".repeat(length)));
            std::fs::create_dir(&keeper).unwrap();
            std::os::unix::net::UnixListener::bind(keeper.join("keeper.sock"))
        };
        let longest = longest(&long);
        assert!(longest < 63, "{}", long.display());
        assert!(bind(longest).is_ok());
        assert!(bind(longest + 1).is_err());
    }
}
