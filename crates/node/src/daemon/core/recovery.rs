//! Going on where a node before this one has left off.

use super::{Core, Spacecore, now_ms};
use crate::balance;
use crate::daemon::record;
use crate::keeper::report::ToKeeper;
use crate::run_folder::{self, Left};
use crate::session::Session;
use crate::supervisor::Input;

impl Core {
    /// Takes up a spacecore where a node before this one has left it.
    pub(super) fn recover(&mut self, mut record: record::Spacecore) {
        let name = record.name.clone();
        if !self.deployments.contains_key(&record.deployment) {
            // Its deployment was forgotten last, so it was gone already.
            let _ = self.records.forget_spacecore(&name);
            return;
        }
        let (state, effects) = record.state.clone().recovered(now_ms());
        record.state = state;
        let deployment = record.deployment.clone();
        self.spacecores.insert(name.clone(), Spacecore::new(record));
        self.perform(&name, effects);
        // That it is to stand still may have been kept last, or alone.
        if self.deployments.get(&deployment).is_some_and(|found| !found.record.running) {
            self.step(&name, Input::Halt);
        }
    }

    /// Clears away what a node before this one has left and no spacecore knows of, and ends whom nobody keeps any more.
    pub(super) fn clear_strays(&self) {
        let known: Vec<&String> =
            self.spacecores.values().filter_map(|found| found.record.keeper.as_ref()).collect();
        let entries = std::fs::read_dir(self.home.run()).into_iter().flatten().flatten();
        let strays = entries.filter(|entry| !known.iter().any(|keeper| entry.file_name() == keeper.as_str()));
        for path in strays.map(|entry| entry.path()) {
            if self.damaged.values().any(|remains| remains.may_own(&path)) {
                continue;
            }
            if balance::is_folder(&path) {
                let is_its = |name: &String| balance::folder(&self.home.run(), name) == path;
                if !self.balancers.keys().chain(self.damaged.keys()).any(is_its) {
                    Self::end_stray(path);
                }
                continue;
            }
            match run_folder::look(&path) {
                Ok(Left::Ended(_)) => {
                    tokio::task::spawn_blocking(move || run_folder::clear(&path));
                }
                // Only a keeper that outlives its parent listens.
                Ok(Left::Held) => {
                    if let Ok(mut session) = Session::adopt(&path) {
                        session.tell(&ToKeeper::Kill);
                        session.flush();
                    }
                }
                Ok(Left::Deserted | Left::Nothing) | Err(_) => {}
            }
        }
    }
}
