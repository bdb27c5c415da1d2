//! The node's one thread of thought: everything that happens comes here, one after another, and is decided on.
//!
//! Decisions are [`supervisor`](crate::supervisor)'s for a spacecore and [`rollout`](crate::rollout)'s for a deployment; this module
//! feeds them and does what they say. What takes long runs in tasks of its own, which come back as [`Happening`]s.

mod answer;
mod damaged;
mod effects;
mod evict;
mod foreign;
mod logs;
mod moves;
mod names;
mod observe;
mod recovery;
mod room;
mod scale;
mod service;
mod show;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use spacecore::wire::message::Fetched;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Semaphore, oneshot, watch};

use self::damaged::AllDamaged;
use self::service::{Draining, Hold};
use super::attempt::Attempt;
use super::balancer::Said;
use super::call::{Call, Refusal, Reply};
use super::events::Events;
use super::observer::Observable;
use super::pressure::Evictable;
use super::record::{self, Damaged, RecordError, Records};
use super::sampler::Measured;
use super::view::{Event, StatsView};
use crate::anomaly::Finding;
use crate::capacity::Offer;
use crate::clock::{now_ns, unix_time_ns};
use crate::home::Home;
use crate::keeper::report::{FromKeeper, ToKeeper};
use crate::supervisor::{End, Rules, Timer};

pub(super) use self::foreign::notice as notice_of;

/// Something that has happened.
pub(super) enum Happening {
    /// Somebody asks something.
    Call(Call),
    /// Somebody wants to hear what happens after this event.
    Listen(u64, oneshot::Sender<(Vec<Event>, tokio::sync::broadcast::Receiver<Event>)>),
    /// Somebody wants to know which deployments are to be measured.
    ToMeasure(oneshot::Sender<Vec<Measured>>),
    /// Somebody wants to know who can go when memory is short.
    ToEvict(oneshot::Sender<Vec<Evictable>>),
    /// A spacecore has to go, for this reason.
    Evict { spacecore: String, reason: String },
    /// Somebody wants to know which spacecores are to be observed.
    ToObserve(oneshot::Sender<Vec<Observable>>),
    /// A spacecore behaves unlike itself, or does so no more.
    Found { spacecore: String, finding: Finding },
    /// The load of a deployment that scales by itself: one sample of each spacecore that could be measured, in thousandths.
    Load { deployment: String, samples: Vec<u64> },
    /// An attempt is about to start its keeper.
    Prepared { spacecore: String, attempt: u64, digest: String, ports: Vec<String> },
    /// A keeper said something.
    Heard { spacecore: String, attempt: u64, message: FromKeeper },
    /// An attempt's keeper runs and speaks a version that this node doesn't.
    Foreign { spacecore: String, attempt: u64, protocol: u32 },
    /// An attempt is over, and its keeper is gone.
    Gone { spacecore: String, attempt: u64, end: End },
    /// What was left of an attempt is cleared away, as far as that is possible.
    Cleared { spacecore: String, failure: Option<String> },
    /// A deployment is to be looked at again.
    Wake { deployment: String, at_ms: u64 },
    /// A balancer said something, or is gone.
    Balancer { deployment: String, said: Said },
    /// Those whom a spacecore serves have had their time.
    DrainOver { spacecore: String, turn: u64 },
    /// What belonged to a deployment that can't be read has ended.
    DamagedEnded { deployment: String },
    /// A timer has run out.
    Timer { spacecore: String, timer: Timer, turn: u64 },
}

impl Happening {
    /// Whether it leaves everything as it is.
    fn only_asks(&self) -> bool {
        match self {
            Self::Call(call) => match call {
                Call::Deployments { .. }
                | Call::Deployment { .. }
                | Call::Spacecore { .. }
                | Call::Stats { .. }
                | Call::Fetch { .. }
                | Call::Keeper { .. }
                | Call::Capacity { .. }
                | Call::EventCounts { .. } => true,
                Call::Apply { .. }
                | Call::Scale { .. }
                | Call::SetRunning { .. }
                | Call::Restart { .. }
                | Call::Remove { .. } => false,
            },
            Self::Listen(..) | Self::ToMeasure(_) | Self::ToObserve(_) | Self::ToEvict(_) => true,
            _ => false,
        }
    }
}

/// A deployment with its manifests as they were read.
struct Deployment {
    record: record::Deployment,
    manifests: BTreeMap<u64, hac::Manifest>,
    /// When it is looked at again although nothing has happened.
    wakes_ms: Option<u64>,
}

/// A spacecore with what belongs to this life of the node alone.
struct Spacecore {
    record: record::Spacecore,
    /// What was kept last, so that nothing is written twice.
    kept: Vec<u8>,
    /// How many of its attempts are being cleared away.
    clearing: u32,
    orders: Option<UnboundedSender<ToKeeper>>,
    /// The version that its keeper speaks, where this node doesn't.
    foreign: Option<u32>,
    draining: Option<Draining>,
    timers: BTreeMap<Timer, u64>,
    leaving: Option<Leaving>,
    /// Questions to its keeper: their numbers, and who waits.
    next_request: u32,
    checks: BTreeMap<u32, (u64, usize)>,
    stats: BTreeMap<u32, Reply<StatsView>>,
    /// What each check says that didn't pass when it was asked last, by its place in the manifest.
    complaints: BTreeMap<usize, String>,
    pages: BTreeMap<u32, Reply<Fetched>>,
    /// Whether its keeper knows what those before this version didn't.
    fetches: bool,
}

/// What becomes of a spacecore once it stands still.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Leaving {
    /// It is started again as this revision.
    Replace(u64),
    /// It is forgotten.
    Remove,
}

/// The node's thought.
pub(super) struct Core {
    home: Home,
    offer: Offer,
    /// Whether containers are a user's.
    rootless: bool,
    records: Records,
    events: Events,
    deployments: BTreeMap<String, Deployment>,
    spacecores: BTreeMap<String, Spacecore>,
    /// Those that live, or are about to, by their deployments.
    balancers: BTreeMap<String, Hold>,
    damaged: AllDamaged,
    happenings: UnboundedReceiver<Happening>,
    tell: UnboundedSender<Happening>,
    permits: Arc<Semaphore>,
    turn: u64,
    /// Deployments of which something has changed.
    marked: BTreeSet<String>,
    /// Rises with everything that can be seen.
    changes: watch::Sender<u64>,
}

impl Core {
    /// Reads what a node before this one has kept.
    ///
    /// # Errors
    /// It can't be read.
    pub(super) fn open(
        home: Home,
        records: Records,
        events: Events,
        offer: Offer,
    ) -> Result<Self, RecordError> {
        let record::Loaded { deployments, spacecores, mut damaged } = records.load()?;
        let (tell, happenings) = unbounded_channel();
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let mut core = Self {
            home,
            offer,
            rootless: !rustix::process::geteuid().is_root(),
            records,
            events,
            deployments: BTreeMap::new(),
            spacecores: BTreeMap::new(),
            balancers: BTreeMap::new(),
            damaged: AllDamaged::new(),
            happenings,
            tell,
            permits: Arc::new(Semaphore::new(cpus.saturating_mul(2))),
            turn: 0,
            marked: BTreeSet::new(),
            changes: watch::Sender::new(0),
        };
        for record in deployments {
            let name = record.name.clone();
            match Deployment::read(record) {
                Ok(deployment) => _ = core.deployments.insert(name, deployment),
                Err(error) => damaged.push(Damaged {
                    deployment: Some(name),
                    spacecore: None,
                    reason: image::whole(&error),
                }),
            }
        }
        core.set_aside(damaged);
        // Before the spacecores, some of which may have to be taken out of service.
        core.find_balancers();
        for record in spacecores {
            if let Some(record) = core.belongs_to_damaged(record) {
                core.recover(record);
            }
        }
        core.clear_strays();
        core.keep_logs_in_bounds();
        core.marked.extend(core.deployments.keys().cloned());
        core.reconcile_marked();
        Ok(core)
    }

    /// Where to tell what happens.
    pub(super) fn teller(&self) -> UnboundedSender<Happening> {
        self.tell.clone()
    }

    /// Rises whenever something has changed that can be seen.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Deals with the next thing that happens; waits for it.
    pub(super) async fn turn(&mut self) {
        let mut next = self.happenings.recv().await;
        let mut changes = false;
        while let Some(happening) = next {
            // Who waits for a change asks again after each: an answer mustn't be one.
            changes |= !happening.only_asks();
            self.take(happening);
            next = self.happenings.try_recv().ok();
        }
        if changes {
            self.changes.send_modify(|count| *count = count.wrapping_add(1));
        }
    }

    fn take(&mut self, happening: Happening) {
        self.deal_with(happening);
        self.reconcile_marked();
    }

    /// Has a deployment be looked at, once what is being done is done.
    fn mark(&mut self, deployment: &str) {
        self.marked.insert(deployment.to_owned());
    }

    fn reconcile_marked(&mut self) {
        while let Some(name) = self.marked.pop_first() {
            self.reconcile(&name);
            self.serve(&name, Vec::new());
        }
    }

    fn deal_with(&mut self, happening: Happening) {
        match happening {
            Happening::Call(call) => self.answer(call),
            Happening::Listen(after, reply) => _ = reply.send(self.events.listen(after)),
            Happening::ToMeasure(reply) => _ = reply.send(self.to_measure()),
            Happening::ToEvict(reply) => _ = reply.send(self.to_evict()),
            Happening::Evict { spacecore, reason } => self.evict(&spacecore, reason),
            Happening::ToObserve(reply) => _ = reply.send(self.to_observe()),
            Happening::Found { spacecore, finding } => self.found(&spacecore, finding),
            Happening::Load { deployment, samples } => self.load(&deployment, &samples),
            Happening::Prepared { spacecore, attempt, digest, ports } => {
                if let Some(found) = self.current(&spacecore, attempt) {
                    found.record.image_digest = Some(digest);
                    found.record.ports = ports;
                    self.keep(&spacecore);
                }
            }
            Happening::Heard { spacecore, attempt, message } => self.heard(&spacecore, attempt, message),
            Happening::Foreign { spacecore, attempt, protocol } => {
                self.found_foreign(&spacecore, attempt, protocol);
            }
            Happening::Gone { spacecore, attempt, end } => self.gone(&spacecore, attempt, end),
            Happening::Cleared { spacecore, failure } => self.cleared(&spacecore, failure),
            Happening::Wake { deployment, at_ms } => self.woken(&deployment, at_ms),
            Happening::Balancer { deployment, said } => self.balancer_said(&deployment, said),
            Happening::DrainOver { spacecore, turn } => self.drain_over(&spacecore, turn),
            Happening::DamagedEnded { deployment } => self.damaged_ended(&deployment),
            Happening::Timer { spacecore, timer, turn } => self.timer(&spacecore, timer, turn),
        }
    }

    /// A spacecore, if this is its attempt.
    fn current(&mut self, name: &str, attempt: u64) -> Option<&mut Spacecore> {
        self.spacecores.get_mut(name).filter(|spacecore| spacecore.record.state.attempt() == attempt)
    }

    /// Makes what the task of an attempt needs.
    fn attempt(&mut self, name: &str, number: u64, keeper: String) -> Attempt {
        let (sender, orders) = unbounded_channel();
        if let Some(spacecore) = self.spacecores.get_mut(name) {
            spacecore.orders = Some(sender);
        }
        Attempt {
            spacecore: name.to_owned(),
            number,
            keeper,
            home: self.home.clone(),
            log: self.records.logs().of(name),
            tell: self.tell.clone(),
            orders,
        }
    }

    /// Keeps a spacecore's record, if it has changed; `false` where it can't be kept.
    fn keep(&mut self, name: &str) -> bool {
        let Some(spacecore) = self.spacecores.get_mut(name) else { return true };
        let bytes = serde_json::to_vec(&spacecore.record).unwrap_or_default();
        if bytes == spacecore.kept {
            return true;
        }
        match self.records.keep_spacecore(&spacecore.record) {
            Ok(()) => {
                spacecore.kept = bytes;
                true
            }
            Err(error) => {
                let (deployment, text) = (spacecore.record.deployment.clone(), image::whole(&error));
                self.events.note("not-kept", Some(&deployment), Some(name), text);
                false
            }
        }
    }

    /// Keeps a deployment's record; what isn't kept isn't done.
    fn keep_deployment(&self, record: &record::Deployment) -> Result<(), Refusal> {
        self.records.keep_deployment(record).map_err(|error| Refusal::NotKept(image::whole(&error)))
    }
}

impl Deployment {
    fn read(record: record::Deployment) -> Result<Self, RecordError> {
        let parse = |revision: &record::Revision| {
            let manifest = hac::parse(&revision.manifest, hac::Format::Toml);
            let manifest = manifest.map_err(|wrong| RecordError::Manifest {
                deployment: record.name.clone(),
                revision: revision.number,
                reason: wrong.to_string(),
            })?;
            Ok((revision.number, manifest))
        };
        let manifests = record.revisions.iter().map(parse).collect::<Result<_, _>>()?;
        Ok(Self { manifests, record, wakes_ms: None })
    }

    fn rules(&self, revision: u64) -> Rules {
        let manifest = self.manifests.get(&revision).or_else(|| self.newest().1);
        Rules::of(manifest.unwrap_or(&hac::Manifest::default()))
    }

    /// The newest manifest.
    fn newest(&self) -> (u64, Option<&hac::Manifest>) {
        self.manifests.last_key_value().map_or((0, None), |(number, manifest)| (*number, Some(manifest)))
    }

    /// The name of the spacecore of this number: the first has the deployment's, so that what runs alone has one name.
    fn spacecore(&self, index: u32) -> String {
        spacecore_name(&self.record.name, index)
    }
}

/// The name of a deployment's spacecore of this number.
fn spacecore_name(deployment: &str, index: u32) -> String {
    match index {
        0 => deployment.to_owned(),
        other => format!("{deployment}-{other}"),
    }
}

impl Spacecore {
    fn new(mut record: record::Spacecore) -> Self {
        if record.since_unix_ms == 0 {
            record.stands_since(now_ms(), unix_ms());
        }
        // After a machine's restart its clock begins anew.
        record.since_ms = record.since_ms.min(now_ms());
        Self {
            record,
            kept: Vec::new(),
            clearing: 0,
            orders: None,
            foreign: None,
            draining: None,
            timers: BTreeMap::new(),
            leaving: None,
            next_request: 0,
            checks: BTreeMap::new(),
            stats: BTreeMap::new(),
            complaints: BTreeMap::new(),
            pages: BTreeMap::new(),
            fetches: false,
        }
    }

    fn order(&self, order: ToKeeper) {
        if let Some(orders) = &self.orders {
            // A keeper that is gone needs no orders.
            let _ = orders.send(order);
        }
    }

    fn request(&mut self) -> u32 {
        self.next_request = self.next_request.wrapping_add(1);
        self.next_request
    }
}

fn now_ms() -> u64 {
    now_ns() / 1_000_000
}

fn unix_ms() -> u64 {
    unix_time_ns() / 1_000_000
}
