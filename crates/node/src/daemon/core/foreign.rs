//! Keepers of another version than this node speaks with: they go on until their spacecores are updated, restarted or stopped.

use super::{Core, Happening, Spacecore};
use crate::daemon::call::Refusal;
use crate::keeper::report::{FromKeeper, PROTOCOL};
use crate::supervisor::Input;

/// What there is to say of such a keeper.
pub(in crate::daemon) fn notice(protocol: u32) -> String {
    let age = if protocol < PROTOCOL { "an older" } else { "a newer" };
    format!(
        "its keeper is of {age} version ({protocol}, this node speaks {PROTOCOL}): it goes on, isn't checked or entered, and is replaced at the next update or restart"
    )
}

impl Core {
    /// Takes a workload for running whose keeper lives and can't be asked.
    pub(super) fn found_foreign(&mut self, name: &str, attempt: u64, protocol: u32) {
        let Some(spacecore) = self.current(name, attempt) else { return };
        spacecore.foreign = Some(protocol);
        let deployment = spacecore.record.deployment.clone();
        self.events.note("foreign-keeper", Some(&deployment), Some(name), notice(protocol));
        self.step(name, Input::Started { attempt });
    }

    /// Answers a check of a workload that can't be asked: as things stand it is well.
    pub(super) fn take_for_well(&mut self, name: &str, attempt: u64, check: usize) {
        let Some(spacecore) = self.spacecores.get_mut(name) else { return };
        let request = spacecore.request();
        spacecore.checks.insert(request, (attempt, check));
        let message = FromKeeper::Checked { request, failure: None };
        // It comes back here in the next turn.
        let _ = self.tell.send(Happening::Heard { spacecore: name.to_owned(), attempt, message });
    }

    /// A spacecore whose workload runs and whose keeper is spoken with.
    pub(super) fn spoken_with(&mut self, name: &str) -> Result<&mut Spacecore, Refusal> {
        let spacecore = self.running(name)?;
        match spacecore.foreign {
            Some(protocol) => Err(Refusal::Foreign { name: name.to_owned(), protocol }),
            None => Ok(spacecore),
        }
    }
}
