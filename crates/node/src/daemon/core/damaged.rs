//! Deployments of which a file can't be read: they are shown, their spacecores go on, and nothing is done with them until somebody says
//! so, by mending the file or by `rm`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use super::{Core, Happening, Spacecore};
use crate::balance;
use crate::daemon::balancer;
use crate::daemon::call::Refusal;
use crate::daemon::line::look;
use crate::daemon::record::{self, Damaged};
use crate::daemon::view::{DeploymentView, SpacecoreView};
use crate::keeper::report::ToKeeper;
use crate::run_folder::{self, Left};
use crate::session::Session;
use crate::supervisor::{GRACE_MS, STOP_PATIENCE_MS};

/// How often it is looked whether something has ended.
const NAP: Duration = Duration::from_millis(50);

/// What is known of a deployment that can't be read as a whole.
#[derive(Debug, Default)]
pub(super) struct Remains {
    /// Which files, and why.
    reasons: Vec<String>,
    /// Its spacecores, as far as they can be read.
    spacecores: Vec<record::Spacecore>,
    /// The names of those that can't.
    unread: Vec<String>,
    removing: bool,
}

impl Remains {
    fn reason(&self) -> String {
        self.reasons.join("; ")
    }

    fn names(&self) -> impl Iterator<Item = &String> {
        self.spacecores.iter().map(|one| &one.name).chain(&self.unread)
    }

    /// Whether this may be the run folder of one of its spacecores.
    pub(super) fn may_own(&self, folder: &Path) -> bool {
        let Some(folder) = folder.file_name().and_then(|name| name.to_str()) else { return false };
        let is_known = self.spacecores.iter().any(|one| one.keeper.as_deref() == Some(folder));
        // What tells attempts apart has no hyphen.
        let of = folder.rsplit_once('-').map(|(spacecore, _)| spacecore);
        is_known || self.unread.iter().any(|name| Some(name.as_str()) == of)
    }
}

impl Core {
    /// Leaves those alone of which a file can't be read.
    pub(super) fn set_aside(&mut self, damaged: Vec<Damaged>) {
        for found in damaged {
            let name = match (&found.spacecore, found.deployment) {
                (_, Some(deployment)) => deployment,
                (Some(spacecore), None) => self.owner(spacecore).unwrap_or_else(|| spacecore.clone()),
                (None, None) => continue,
            };
            self.deployments.remove(&name);
            let remains = self.damaged.entry(name.clone()).or_default();
            remains.unread.extend(found.spacecore);
            remains.reasons.push(found.reason.clone());
            self.events.note("damaged", Some(&name), None, found.reason);
        }
    }

    /// Takes a spacecore for one of a deployment that can't be read, if it is.
    pub(super) fn belongs_to_damaged(&mut self, record: record::Spacecore) -> Option<record::Spacecore> {
        match self.damaged.get_mut(&record.deployment) {
            Some(remains) => {
                remains.spacecores.push(record);
                None
            }
            None => Some(record),
        }
    }

    /// What can't be read, for whoever started the node.
    pub(in crate::daemon) fn complaints(&self) -> Vec<String> {
        let each = |(name, remains): (&String, &Remains)| {
            format!("{name} is damaged, and its spacecores are left alone: {}", remains.reason())
        };
        self.damaged.iter().map(each).collect()
    }

    pub(super) fn damaged_of(&self, spacecore: &str) -> Option<&String> {
        let mut all = self.damaged.iter();
        all.find(|(_, remains)| remains.names().any(|name| name == spacecore)).map(|(name, _)| name)
    }

    /// Why nothing is done with a deployment, if that is because it can't be read.
    pub(super) fn is_damaged(&self, name: &str) -> Option<Refusal> {
        let remains = self.damaged.get(name)?;
        Some(Refusal::Damaged { name: name.to_owned(), reason: remains.reason() })
    }

    pub(super) fn show_damaged(&self, name: &str) -> Option<DeploymentView> {
        let remains = self.damaged.get(name)?;
        let damaged = |view: SpacecoreView| SpacecoreView { phase: "damaged".to_owned(), ..view };
        let spacecores = remains.spacecores.iter().cloned();
        let mut spacecores: Vec<SpacecoreView> =
            spacecores.map(|record| damaged(Spacecore::new(record).show())).collect();
        spacecores.sort_by_key(|one| one.index);
        Some(DeploymentView {
            name: name.to_owned(),
            image: "-".to_owned(),
            isolation: "-".to_owned(),
            revision: 0,
            wanted_revision: 0,
            replicas: u32::try_from(remains.names().count()).unwrap_or(u32::MAX),
            ready: 0,
            state: if remains.removing { "removing" } else { "damaged" }.to_owned(),
            trouble: Some(remains.reason()),
            ports: Vec::new(),
            spacecores,
        })
    }

    /// Ends what a deployment consists of that can't be read, then forgets it.
    pub(super) fn remove_damaged(&mut self, name: &str) -> Option<DeploymentView> {
        let run = self.home.run();
        let remains = self.damaged.get_mut(name)?;
        if !std::mem::replace(&mut remains.removing, true) {
            let entries = std::fs::read_dir(&run).into_iter().flatten().flatten().map(|entry| entry.path());
            let folders: Vec<PathBuf> = entries.filter(|folder| remains.may_own(folder)).collect();
            let (ports, tell, deployment) = (balance::folder(&run, name), self.tell.clone(), name.to_owned());
            self.events.note("removing", Some(name), None, "is to be gone".to_owned());
            tokio::spawn(async move {
                for folder in folders {
                    end(folder).await;
                }
                balancer::end(ports.clone()).await;
                clear(ports, Duration::from_secs(5)).await;
                // Where nobody hears it the node is ending.
                let _ = tell.send(Happening::DamagedEnded { deployment });
            });
        }
        self.show_damaged(name)
    }

    /// Forgets what has ended. The files that can't be read are kept, under names that nobody reads.
    pub(super) fn damaged_ended(&mut self, name: &str) {
        let Some(remains) = self.damaged.remove(name) else { return };
        let forgotten = remains
            .spacecores
            .iter()
            .try_for_each(|one| self.records.forget_spacecore(&one.name))
            .and_then(|()| self.records.move_aside(name, &remains.unread));
        let text = match forgotten {
            Ok(()) => "is gone; what can't be read of it is kept as .damaged".to_owned(),
            Err(error) => image::whole(&error),
        };
        self.events.note("removed", Some(name), None, text);
    }
}

/// Ends a keeper in order, or otherwise, and clears away what is left.
async fn end(folder: PathBuf) {
    if let Ok(mut session) = Session::adopt(&folder) {
        session.tell(&ToKeeper::Stop { grace_ms: GRACE_MS });
        session.flush();
    }
    clear(folder, Duration::from_millis(GRACE_MS.saturating_add(STOP_PATIENCE_MS))).await;
}

/// Clears a run folder away once nobody holds it any more; kills whoever still does after this time.
async fn clear(folder: PathBuf, patience: Duration) {
    let end = Instant::now() + patience;
    while look(&folder) == Left::Held && Instant::now() < end {
        sleep(NAP).await;
    }
    let cleared = spawn_blocking(move || {
        run_folder::kill_holder(&folder)?;
        run_folder::clear(&folder)
    });
    // What is left is swept by the next command.
    let _ = cleared.await;
}

/// Deployments by name, of which a file can't be read.
pub(super) type AllDamaged = BTreeMap<String, Remains>;
