//! One attempt to run a spacecore: prepared, started as a keeper that outlives the node, spoken with until it is gone.
//!
//! ```text
//!   begin:  prepare --> start the keeper --+
//!   resume: the keeper of a node before ---+--> speak --> the keeper is gone --> what is left is read
//! ```
//!
//! Orders that come before the keeper is there wait for it; an order to end that comes while the image is pulled spares the start.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use hypercore::network::Publish;
use rustix::process::Signal;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::task::spawn_blocking;

use super::core::Happening;
use super::line;
use crate::home::Home;
use crate::keeper::assignment::{Lifetime, LogPlan};
use crate::keeper::report::{FromKeeper, Outcome, ToKeeper, is_spoken};
use crate::prepare::{self, PrepareError, Prepared, Wanted, Watcher};
use crate::run_folder::{self, Left};
use crate::session::Session;
use crate::supervisor::End;

/// Size in bytes at which a log's file is set aside, and how many there are.
const LOG_FILE: (u64, u32) = (8 * 1024 * 1024, 4);

/// The program that this process executes, whatever lies at its path by now: a keeper understands the node that started it.
pub(super) const PROGRAM: &str = "/proc/self/exe";

/// The variable in which a workload learns of its published ports.
const PUBLIC_PORTS: &str = "VIMANA_PUBLIC_PORTS=";

/// One attempt, as its task knows it.
pub(super) struct Attempt {
    /// The spacecore's name.
    pub(super) spacecore: String,
    /// Its number.
    pub(super) number: u64,
    /// The name of its run folder.
    pub(super) keeper: String,
    /// Where things lie.
    pub(super) home: Home,
    /// Where the spacecore's log is.
    pub(super) log: PathBuf,
    /// Where to tell what happens.
    pub(super) tell: UnboundedSender<Happening>,
    /// What the keeper is to do.
    pub(super) orders: UnboundedReceiver<ToKeeper>,
}

impl Attempt {
    /// Prepares and starts the spacecore, and stays until it is gone. So many prepare at a time as there are permits.
    pub(super) async fn begin(mut self, wanted: Wanted, permits: Arc<Semaphore>) {
        let end = match self.start(wanted, &permits).await {
            Ok(session) => {
                self.stay(Some(session)).await;
                return;
            }
            Err(end) => end,
        };
        self.say(|spacecore, attempt| Happening::Gone { spacecore, attempt, end });
    }

    /// Finds the keeper that a node before this one has started, and stays until it is gone.
    pub(super) async fn resume(mut self) {
        self.stay(None).await;
    }

    async fn start(&mut self, wanted: Wanted, permits: &Semaphore) -> Result<Session, End> {
        // A semaphore that is never closed gives a permit, or there is no node any more.
        let permit = permits.acquire().await;
        let home = self.home.clone();
        let prepared =
            blocking(move || prepare::prepare(&home, &wanted, &mut Unwatched)).await?.map_err(end_by)?;
        if let Ok(ToKeeper::Stop { .. } | ToKeeper::Kill) = self.orders.try_recv() {
            return Err(End::Stopped);
        }
        let (digest, ports) = (
            prepared.plan.image_digest.clone(),
            prepared.plan.publish.iter().map(|publish| shared(publish).to_string()).collect(),
        );
        self.say(|spacecore, attempt| Happening::Prepared { spacecore, attempt, digest, ports });
        let (keeper, log) = (self.keeper.clone(), self.log.clone());
        let session = blocking(move || launch(&prepared, &keeper, log)).await?;
        drop(permit);
        session
    }

    async fn stay(&mut self, mut session: Option<Session>) {
        let run_folder = self.home.run().join(&self.keeper);
        let mut was_there = session.is_some();
        // What a full disk has kept from being left in the run folder was said at least.
        let mut last_words = None;
        let end = loop {
            let mut connected = match session.take() {
                Some(session) => session,
                None => match line::adopt(&run_folder).await {
                    Ok(session) => session,
                    Err(left) => break end_of(left, was_there || has_lived(&run_folder), last_words),
                },
            };
            was_there = true;
            if !is_spoken(connected.protocol()) {
                let protocol = connected.protocol();
                drop(connected);
                break end_of(self.watch(&run_folder, protocol).await, was_there, None);
            }
            let (tell, spacecore, attempt) = (self.tell.clone(), self.spacecore.clone(), self.number);
            let hear = |message| {
                if let FromKeeper::Finished { outcome, .. } = &message {
                    last_words = Some(outcome.clone());
                }
                // Nobody hears it only where the node is ending.
                let _ = tell.send(Happening::Heard { spacecore: spacecore.clone(), attempt, message });
            };
            // A connection that failed is made again where the keeper is still there.
            let _ = line::speak(&mut connected, &mut self.orders, hear).await;
            if let Some(mut keeper) = connected.into_keeper() {
                let _ = spawn_blocking(move || keeper.wait()).await;
                break end_of(line::end_of(&run_folder).await, was_there, last_words);
            }
        };
        self.say(|spacecore, attempt| Happening::Gone { spacecore, attempt, end });
    }

    /// Stays until a keeper is gone that speaks another version, and ends it by signals where it is to end.
    async fn watch(&mut self, run_folder: &Path, protocol: u32) -> Left {
        self.say(|spacecore, attempt| Happening::Foreign { spacecore, attempt, protocol });
        loop {
            tokio::select! {
                order = self.orders.recv() => {
                    let signal = match order {
                        Some(ToKeeper::Stop { .. }) => Signal::TERM,
                        Some(ToKeeper::Kill) => Signal::KILL,
                        Some(_) => continue,
                        // The node doesn't concern itself with this keeper any more.
                        None => return line::end_of(run_folder).await,
                    };
                    // One that is gone needs no signal; one that can't be found is killed when its time is over.
                    let folder = run_folder.to_owned();
                    let _ = spawn_blocking(move || run_folder::signal_holder(&folder, signal)).await;
                }
                left = line::end_of(run_folder) => return left,
            }
        }
    }

    fn say(&self, happening: impl FnOnce(String, u64) -> Happening) {
        let _ = self.tell.send(happening(self.spacecore.clone(), self.number));
    }
}

/// Runs what blocks on a thread of its own.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, End> {
    spawn_blocking(work).await.map_err(|error| End::NotStarted(error.to_string()))
}

fn launch(prepared: &Prepared, keeper: &str, log: PathBuf) -> Result<Session, End> {
    let failed = |error: &dyn std::error::Error| End::NotStarted(image::whole(error));
    let mut assignment =
        prepared.assignment(keeper, Lifetime::Independent).map_err(|error| failed(&error))?;
    if !prepared.plan.publish.is_empty() {
        let env = &mut assignment.configuration.process.env;
        if !env.iter().any(|known| known.starts_with(PUBLIC_PORTS)) {
            let ports =
                prepared.plan.publish.iter().map(|publish| shared(publish).to_string().replace(' ', ""));
            env.push(format!("{PUBLIC_PORTS}{}", ports.collect::<Vec<_>>().join(",")));
        }
    }
    assignment.log = Some(LogPlan { folder: log, file_bytes: LOG_FILE.0, files: LOG_FILE.1 });
    Session::start(Path::new(PROGRAM), &assignment).map_err(|error| failed(&error))
}

/// A port as the world sees it: the balancer's, which has the guest's number, and not the one that was chosen for this replica alone.
fn shared(publish: &Publish) -> Publish {
    let host = if publish.host == 0 { publish.guest } else { publish.host };
    Publish { host, ..*publish }
}

/// What another attempt can't mend is a refusal; what comes from elsewhere may be there the next time.
fn end_by(error: PrepareError) -> End {
    let text = image::whole(&error);
    match error {
        PrepareError::Plan(_)
        | PrepareError::Policy(crate::policy::GateError::Refused(_))
        | PrepareError::Reference(_)
        | PrepareError::ByImage { .. }
        | PrepareError::Volume(_) => End::Refused(text),
        PrepareError::Policy(_)
        | PrepareError::Sweep { .. }
        | PrepareError::Options(_)
        | PrepareError::Open(_)
        | PrepareError::Images(_)
        | PrepareError::Pull { .. }
        | PrepareError::Gather(_)
        | PrepareError::Kernels(_)
        | PrepareError::Kernel(_)
        | PrepareError::Fetch(_)
        | PrepareError::Secret(_)
        | PrepareError::Key(_)
        | PrepareError::Initramfs(_) => End::NotStarted(text),
    }
}

/// How an attempt ended. What a killed keeper leaves may have been swept away by another command.
fn end_of(left: Left, was_there: bool, last_words: Option<Outcome>) -> End {
    match &left {
        Left::Ended(outcome) => End::of(outcome),
        Left::Held | Left::Deserted | Left::Nothing => match last_words {
            Some(outcome) => End::of(&outcome),
            None if !was_there && left != Left::Held => End::NeverBegun,
            None => End::Lost("its keeper was killed, or the machine was restarted".to_owned()),
        },
    }
}

/// Whether a keeper came to life here: whoever starts one makes the folder, and may die before it is executed.
fn has_lived(run_folder: &Path) -> bool {
    run_folder.join("keeper.sock").exists()
}

/// Nobody sees how the node prepares.
struct Unwatched;

impl Watcher for Unwatched {
    fn done(&mut self, _step: &str) {}

    fn say(&mut self, _text: &str) {}

    fn pull(
        &mut self,
        store: &image::Store,
        reference: &image::Reference,
        options: &image::PullOptions,
    ) -> Result<image::Image, image::PullError> {
        store.pull(reference, options, &|_| {})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keeper_that_never_came_to_life_is_no_failure_of_its_workload() {
        assert_eq!(end_of(Left::Nothing, false, None), End::NeverBegun);
        assert_eq!(end_of(Left::Deserted, false, None), End::NeverBegun);
        for left in [Left::Nothing, Left::Deserted] {
            assert!(matches!(end_of(left, true, None), End::Lost(_)));
        }
    }

    #[test]
    fn what_a_keeper_said_last_counts_where_it_could_leave_nothing() {
        let stopped = || Some(Outcome::Stopped);
        assert_eq!(end_of(Left::Deserted, true, stopped()), End::Stopped);
        let left = Outcome::NotStarted { reason: "no memory".to_owned() };
        assert_eq!(end_of(Left::Ended(left.clone()), true, stopped()), End::of(&left));
    }
}
