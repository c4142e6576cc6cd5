//! The state that all parts of the engine share: the store, the files in force, the ports, the mailboxes, the kill
//! switch.
//!
//! Always true: an engine has exactly one [`Core`]; the code that executes runs is known here only as [`RunTasks`].

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use tokio::runtime::Handle;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::affinity::StoreAffinity;
use crate::clock::ProcessClock;
use crate::engine::files_snapshot::FilesSnapshot;
use crate::engine::kill_switch::KillSwitch;
use crate::engine::legacy_replies::LegacySources;
use crate::engine::machine::{AppendHeader, ChildSpec, ChildState, Ids};
use crate::engine::ports::client::{Executor, RehearsingClient, SendingClient};
use crate::engine::ports::event_sealer::EventSealer;
use crate::engine::ports::guard_message_queue::GuardMessages;
use crate::engine::ports::opened_events::{self, OpenedEvents};
use crate::engine::ports::repeating_client::RepeatingClient;
use crate::engine::ports::seal::Sealer;
use crate::engine::ports::writer::{KnownPlans, Writer, WriterParts};
use crate::engine::scheduler::acquired_run::AcquiredRun;
use crate::engine::scheduler::gauges::CountedRuns;
use crate::engine::scheduler::lease::{Lease, LeaseProof};
use crate::engine::scheduler::load_permits::LoadPermits;
use crate::engine::scheduler::mailbox::{ExecutionSlot, Mailboxes};
use crate::engine::scheduler::registry::Registry;
use crate::engine::scheduler::run_snapshots::RunSnapshots;
use crate::engine::scheduler::spawn_policy_cell::SpawnPolicyCell;
use crate::engine::scheduler::stuck::StuckRuns;
use crate::engine::scheduler::subscriptions::RunSubscriptions;
use crate::engine::scheduler::timers::Timers;
use crate::engine::scheduler::why_unresumed::WhyUnresumed;
use crate::exchange::LateFailureObserver;
use crate::limits::Limits;
use crate::names::{Fence, RunId, Seq, StepId, WorkerId, WorkflowName};
use crate::store::{OwnedRun, Priority, StoreError, StoreHandle, StoredEvent};
use crate::transport::AddressRegistry;
use crate::workflow::{BytesMark, Mode, Plan, Run, RunStarted, RunStatus};

/// The interface through which scheduler and drivers reach the code that executes runs, so that their files need not
/// import it.
pub(super) trait RunTasks: Send + Sync {
    /// Starts a task that executes a run. The task acquires the run first, unless `owned` shows that this process
    /// already has it.
    fn start_run_task(
        &self,
        core: Arc<Core>,
        slot: ExecutionSlot,
        owned: Option<(OwnedRun, LeaseProof)>,
        permit: Option<OwnedSemaphorePermit>,
    );
    /// Drives a run that this process has acquired, until it has ended, is suspended, or the process drains.
    fn drive(&self, core: Arc<Core>, acquired: AcquiredRun) -> BoxFuture<'static, ()>;
    /// Like [`RunTasks::drive`], but in a task of its own.
    fn spawn(&self, core: &Arc<Core>, acquired: AcquiredRun, permit: Option<OwnedSemaphorePermit>);
    /// Starts the successor that a superseded run names, unless it exists; an error says why it could not be started.
    fn start_successor(&self, core: Arc<Core>, of: RunId, from: StepId) -> BoxFuture<'static, Result<(), String>>;
    /// Creates a child unless it exists or its parent's spawn policy forbids that; returns the child's state.
    fn ensure_child(
        &self,
        core: Arc<Core>,
        parent: Arc<RunStarted>,
        spawn_policy: Arc<SpawnPolicyCell>,
        child: ChildSpec,
        depth: u64,
        legacy_sources: LegacySources,
    ) -> BoxFuture<'static, ChildState>;
    /// Starts the supervisor, which wakes suspended runs, unless it was started before.
    fn supervise(&self, core: &Arc<Core>);
}

/// The state that the parts of an engine share.
pub(super) struct Core {
    pub files: Files,
    pub ports: Ports,
    pub schedule: Schedule,
    pub process: Process,
    pub run_tasks: Box<dyn RunTasks>,
}

/// The files in force, and earlier versions of them.
pub(super) struct Files {
    pub snapshot: ArcSwap<FilesSnapshot>,
    /// Earlier versions, newest first, for requests in flight that were decided by them.
    pub earlier: ArcSwap<Vec<Arc<FilesSnapshot>>>,
    pub key_secret: [u8; 32],
    pub limits: Arc<Limits>,
    /// The addresses of services, which the proxy shares.
    pub addresses: Arc<AddressRegistry>,
    /// When the process started.
    pub started: Timestamp,
    /// Notified after a reload.
    pub reloaded: Notify,
    /// Notified after a reload, for the task that sends messages to webhooks.
    pub reloaded_for_webhooks: Notify,
}

/// The connections to the outside: the store, pins, services and webhooks.
pub(super) struct Ports {
    pub store: StoreHandle,
    pub affinity: Arc<StoreAffinity>,
    pub sealer: Arc<Sealer>,
    pub known_plans: KnownPlans,
    pub rehearsing: Arc<RehearsingClient>,
    pub repeating: RepeatingClient,
    pub sending_dark: Arc<SendingClient>,
    pub sending_real: Arc<SendingClient>,
    /// Replaces the sending client.
    #[cfg(test)]
    pub executor_override: std::sync::OnceLock<Arc<dyn Executor>>,
    /// Notified when this process has stored a message to a webhook.
    pub webhook_message_stored: Notify,
    /// Messages to webhooks that are about no run.
    pub guard_messages: GuardMessages,
    /// Is told of runs that fail after their answer.
    pub late_failures: Arc<dyn LateFailureObserver>,
}

/// Which runs have a task, what wakes the others, and how many may be executed at the same time.
pub(super) struct Schedule {
    pub registry: Arc<Registry>,
    /// Permits for new real runs.
    pub real_permits: Arc<Semaphore>,
    /// Permits for new dark runs.
    pub dark_permits: Arc<Semaphore>,
    /// Permits for runs that are woken or resumed.
    pub wake_permits: Arc<Semaphore>,
    /// Identifies this process in the store.
    pub worker: WorkerId,
    /// The name of this process, for people.
    pub worker_name: String,
    pub lease: Arc<Lease>,
    pub mailboxes: Arc<Mailboxes>,
    pub timers: Arc<Timers>,
    pub stuck: StuckRuns,
    pub load_permits: LoadPermits,
    /// The queue of runs that are to get a snapshot.
    pub run_snapshots: Arc<RunSnapshots>,
    pub subscriptions: RunSubscriptions,
    /// The labels of the gauge of unfinished runs, to be set to zero when no such run is left.
    pub gauge_labels: Mutex<BTreeSet<(WorkflowName, RunStatus)>>,
    /// The runs that this gauge counts, on a store that several processes share.
    pub counted_runs: Arc<CountedRuns>,
    /// Why the runs of the last process are not resumed yet.
    pub why_unresumed: WhyUnresumed,
    /// Whether the supervisor was started.
    pub is_supervised: AtomicBool,
}

/// This process: its time, its switches, its tasks.
pub(super) struct Process {
    pub clock: Arc<ProcessClock>,
    /// See [`StoreAffinity::copy_started`].
    pub copy_started: Option<Timestamp>,
    /// Generates the identifiers of runs and commands.
    pub ids: Mutex<Ids>,
    pub kill_switch: Arc<KillSwitch>,
    pub draining: watch::Sender<bool>,
    /// Whether this process leaves the runs that no caller waits for to the other processes on the same store. Set
    /// before the drain, during which it stays set.
    pub leaves_runs: watch::Sender<bool>,
    /// The tasks that execute runs.
    pub tasks: TaskTracker,
    /// The background tasks: supervisor, watchdog, webhooks, outbox.
    pub background_tasks: TaskTracker,
    /// Cancels all tasks.
    pub cancelled: CancellationToken,
    /// The runtime of real runs and background tasks: the one in which the engine was made.
    pub runtime: Handle,
}

impl Process {
    /// A version 7 identifier with this process's time, which a jump of the machine's clock does not change: later
    /// identifiers are greater.
    pub fn new_id(&self) -> Uuid {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner).next(self.clock.now())
    }
}

impl Core {
    /// All events of a run, its sensitive values in clear.
    ///
    /// # Errors
    /// The store does not return the events, or they hold values that another `store_key` sealed.
    pub async fn events(&self, run: RunId) -> Result<Vec<StoredEvent>, StoreError> {
        let stored = self.ports.store.events(run, Seq::FIRST).await?;
        match opened_events::open(&self.ports.sealer, run, stored) {
            OpenedEvents { no_sealed_value_opens: true, .. } => {
                Err(StoreError(opened_events::why_none_opens(&self.ports.sealer).to_owned()))
            }
            OpenedEvents { events, no_sealed_value_opens: false } => Ok(events),
        }
    }

    /// Encodes raw bytes as values for expressions, and distinguishes such values from JSON that only looks like them.
    /// All runs of a store have the same mark.
    pub fn bytes_mark(&self) -> BytesMark {
        BytesMark::new(&self.files.key_secret)
    }

    /// The files of a version; `None` if that version is no longer held.
    pub fn snapshot_of(&self, files_version: u64) -> Option<Arc<FilesSnapshot>> {
        let newest = self.files.snapshot.load_full();
        if newest.files_version == files_version {
            return Some(newest);
        }
        let earlier = self.files.earlier.load();
        earlier.iter().find(|earlier| earlier.files_version == files_version).cloned()
    }

    /// The permits for new durable runs of a mode. Dark runs have their own, so that they never keep a caller waiting.
    pub fn permits_of(&self, mode: Mode) -> Option<&Arc<Semaphore>> {
        match mode {
            Mode::Rehearse => None, // bounded by the shadow executor
            Mode::Dark => Some(&self.schedule.dark_permits),
            Mode::Real => Some(&self.schedule.real_permits),
        }
    }

    /// The executor and the writer of a run, by its mode. `lease_proof` comes from the acquisition of the run; `None`
    /// for a new run.
    pub fn executor_and_writer(
        &self,
        mode: Mode,
        plan: &Arc<Plan>,
        run_key: Option<Vec<u8>>,
        fence: Fence,
        lease_proof: Option<LeaseProof>,
        sealer: EventSealer,
    ) -> (Arc<dyn Executor>, Option<(Writer, AppendHeader)>) {
        let writer = |priority| {
            let parts = WriterParts {
                store: self.ports.store.clone(),
                affinity: self.ports.affinity.clone(),
                plans: self.ports.known_plans.clone(),
                plan: plan.clone(),
                run_key,
                lease: self.schedule.lease.clone(),
                snapshots: self.schedule.run_snapshots.clone(),
                sealer: sealer.clone(),
            };
            Some((Writer::new(parts, lease_proof), AppendHeader { priority, worker: self.schedule.worker, fence }))
        };
        #[cfg(test)]
        if let (Some(executor_override), Mode::Real) = (self.ports.executor_override.get(), mode) {
            return (executor_override.clone(), writer(Priority::Real));
        }
        match mode {
            Mode::Rehearse => (self.ports.rehearsing.clone(), None),
            Mode::Dark => (self.ports.sending_dark.clone(), writer(Priority::Dark)),
            Mode::Real => (self.ports.sending_real.clone(), writer(Priority::Real)),
        }
    }

    /// Claims the slot of a new run; a rehearsal has none.
    pub fn slot_of_new(&self, run: &Run) -> Option<ExecutionSlot> {
        (run.mode() != Mode::Rehearse)
            .then(|| self.schedule.mailboxes.claim_slot(&self.schedule.timers, run.id()))
            .flatten()
    }

    /// Makes a run check what has changed outside it. A run without a task gets one.
    pub fn wake(&self, run: RunId) {
        if !self.schedule.mailboxes.notify(run) {
            self.schedule.timers.wake_now(run);
        }
    }

    /// Runs a background task until the process ends.
    pub fn spawn_background(&self, work: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        let cancelled = self.process.cancelled.clone();
        let work = async move {
            cancelled.run_until_cancelled(work).await;
        };
        self.process.background_tasks.spawn_on(work, &self.process.runtime)
    }
}
