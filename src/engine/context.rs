//! What every part of the engine shares: the store, the files in force, the ports, the mailboxes, the kill switch.
//!
//! Always true: there is one of it in an engine; it knows those who move runs only as [`RunTasks`].

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use futures_util::future::BoxFuture;
use tokio::runtime::Handle;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::affinity::StoreAffinity;
use crate::clock::ProcessClock;
use crate::engine::kill_switch::KillSwitch;
use crate::engine::machine::{ChildSpec, ChildState, Ids, Writes};
use crate::engine::ports::client::{Executor, RehearsingClient, SendingClient};
use crate::engine::ports::seal::Sealer;
use crate::engine::ports::veil::{self, Veil};
use crate::engine::ports::writer::{KeptPlans, Writer, WriterParts};
use crate::engine::scheduler::lease::{Hold, Lease};
use crate::engine::scheduler::mailbox::{Mailboxes, Slot};
use crate::engine::scheduler::reads::Reads;
use crate::engine::scheduler::registry::Registry;
use crate::engine::scheduler::run_snapshots::RunSnapshots;
use crate::engine::scheduler::spawn_gate::SpawnGate;
use crate::engine::scheduler::stuck::Stuck;
use crate::engine::scheduler::timers::Timers;
use crate::engine::scheduler::watchers::Watchers;
use crate::engine::snapshot::Snapshot;
use crate::limits::Limits;
use crate::names::{Fence, RunId, Seq, WorkerId, WorkflowName};
use crate::store::{Owned, Priority, SharedStore, StoreError, StoredEvent};
use crate::workflow::{Mode, Plan, Run, RunStarted, RunStatus};

/// What those who schedule runs, and the runs themselves, know of those who move runs.
pub(super) trait RunTasks: Send + Sync {
    /// Moves a run in a task of its own, taken or still to be taken.
    fn open(&self, core: Arc<Core>, slot: Slot, owned: Option<(Owned, Hold)>, permit: Option<OwnedSemaphorePermit>);
    /// Sees that a child lives: it is born, unless it is there, or may not be born; its end, where it has ended.
    fn look_after(
        &self,
        core: Arc<Core>,
        parent: Arc<RunStarted>,
        gate: Arc<SpawnGate>,
        child: ChildSpec,
        depth: u64,
    ) -> BoxFuture<'static, ChildState>;
    /// Sees to it, from now on, that resting runs are woken.
    fn supervise(&self, core: &Arc<Core>);
}

/// What an engine's parts share: see the module's head.
pub(super) struct Core {
    pub files: Files,
    pub ports: Ports,
    pub schedule: Schedule,
    pub process: Process,
    /// Makes tasks for runs.
    pub run_tasks: Box<dyn RunTasks>,
}

/// What the files say.
pub(super) struct Files {
    /// What the newest files say.
    pub snapshot: ArcSwap<Snapshot>,
    /// What the files before them say, newest first: requests that were decided by them are on their way.
    pub earlier: ArcSwap<Vec<Arc<Snapshot>>>,
    pub key_secret: [u8; 32],
    pub limits: Arc<Limits>,
    /// Other files are in force.
    pub reloaded: Notify,
}

/// What leads out of the process: the store, services, who is told of pins and messages.
pub(super) struct Ports {
    pub store: SharedStore,
    pub pins: Arc<StoreAffinity>,
    pub sealer: Arc<Sealer>,
    pub kept_plans: KeptPlans,
    pub rehearsing: Arc<RehearsingClient>,
    pub sending_dark: Arc<SendingClient>,
    pub sending_real: Arc<SendingClient>,
    /// Takes the place of the sending client.
    #[cfg(test)]
    pub instead: std::sync::OnceLock<Arc<dyn Executor>>,
    /// This process recorded a message to a webhook.
    pub recorded: Notify,
}

/// Which run has a task, what wakes the others, and how many may move.
pub(super) struct Schedule {
    pub registry: Arc<Registry>,
    /// Durable runs in flight that answer callers.
    pub runs: Arc<Semaphore>,
    /// Dark ones.
    pub dark_runs: Arc<Semaphore>,
    /// Runs that are woken.
    pub woken: Arc<Semaphore>,
    /// This process, as the store knows it.
    pub worker: WorkerId,
    /// As people know it.
    pub worker_name: String,
    pub lease: Arc<Lease>,
    pub mailboxes: Arc<Mailboxes>,
    pub timers: Arc<Timers>,
    pub stuck: Stuck,
    pub reads: Reads,
    /// Which runs are to get a snapshot.
    pub run_snapshots: Arc<RunSnapshots>,
    pub watchers: Watchers,
    /// What the gauge of unfinished runs names.
    pub counted: Mutex<BTreeSet<(WorkflowName, RunStatus)>>,
    /// Whether the supervisor was started.
    pub supervised: AtomicBool,
}

/// This process: its time, its switches, its tasks.
pub(super) struct Process {
    /// What time it is.
    pub clock: Arc<ProcessClock>,
    /// Draws identifiers: of runs, of orders.
    pub ids: Mutex<Ids>,
    pub kill_switch: Arc<KillSwitch>,
    pub draining: watch::Sender<bool>,
    pub tasks: TaskTracker,
    /// Background tasks: the supervisor, the watchdog, webhooks, the outbox.
    pub besides: TaskTracker,
    pub cut: CancellationToken,
    /// The runtime of durable runs: the one in which the engine was made.
    pub threads: Handle,
}

impl Process {
    /// A version 7 identifier of this process's time, which a jump of the machine's clock does not move: later ones are
    /// greater.
    pub fn new_id(&self) -> Uuid {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner).next(self.clock.now())
    }
}

impl Core {
    /// All events of a run, its sensitive values in clear.
    pub async fn events(&self, run: RunId) -> Result<Vec<StoredEvent>, StoreError> {
        Ok(veil::open(&self.ports.sealer, run, self.ports.store.events(run, Seq::FIRST).await?))
    }
    /// What the files say that a request was decided by.
    pub fn snapshot_of(&self, edition: Option<u64>) -> Arc<Snapshot> {
        let newest = self.files.snapshot.load_full();
        let Some(edition) = edition.filter(|edition| *edition != newest.edition) else { return newest };
        self.files.earlier.load().iter().find(|earlier| earlier.edition == edition).cloned().unwrap_or(newest)
    }

    /// The permits of durable runs of a mode: dark ones have a share of their own, so that they never keep a caller out.
    pub fn runs_of(&self, mode: Mode) -> Option<&Arc<Semaphore>> {
        match mode {
            Mode::Rehearse => None, // the shadow executor has bounds of its own
            Mode::Dark => Some(&self.schedule.dark_runs),
            Mode::Real => Some(&self.schedule.runs),
        }
    }

    /// What performs the calls of a run of this mode, and what writes its events; a run that was taken comes with what
    /// held then.
    pub fn of_mode(
        &self,
        mode: Mode,
        plan: &Arc<Plan>,
        run_key: Option<Vec<u8>>,
        fence: Fence,
        hold: Option<Hold>,
        veil: Option<Veil>,
    ) -> (Arc<dyn Executor>, Option<(Writer, Writes)>) {
        let writer = |priority| {
            let parts = WriterParts {
                store: self.ports.store.clone(),
                pins: self.ports.pins.clone(),
                plans: self.ports.kept_plans.clone(),
                plan: plan.clone(),
                run_key,
                lease: self.schedule.lease.clone(),
                snapshots: self.schedule.run_snapshots.clone(),
                veil: veil.clone(),
            };
            Some((Writer::new(parts, hold), Writes { priority, worker: self.schedule.worker, fence }))
        };
        #[cfg(test)]
        if let (Some(instead), Mode::Real) = (self.ports.instead.get(), mode) {
            return (instead.clone(), writer(Priority::Live));
        }
        match mode {
            Mode::Rehearse => (self.ports.rehearsing.clone(), None),
            Mode::Dark => (self.ports.sending_dark.clone(), writer(Priority::Dark)),
            Mode::Real => (self.ports.sending_real.clone(), writer(Priority::Live)),
        }
    }

    /// The slot of a new run; a rehearsal has none.
    pub fn slot_of_new(&self, run: &Run) -> Option<Slot> {
        (run.mode() != Mode::Rehearse)
            .then(|| self.schedule.mailboxes.claim_slot(&self.schedule.timers, run.id()))
            .flatten()
    }

    /// Makes a run look at what may have changed: its task, or one that is begun for it.
    pub fn wake(&self, run: RunId) {
        if !self.schedule.mailboxes.notify(run) {
            self.schedule.timers.now(run);
        }
    }

    /// Runs a background task until the process ends.
    pub fn beside(&self, work: impl Future<Output = ()> + Send + 'static) {
        let cut = self.process.cut.clone();
        let work = async move {
            cut.run_until_cancelled(work).await;
        };
        self.process.besides.spawn_on(work, &self.process.threads);
    }
}
