//! Moves runs forward: claim, decide, append, perform, repeat.
//!
//! The question it answers: "who answers this request with a workflow, and does what it began survive?" A request
//! comes in through [`Engine::arm`] (`api::arm`); its run is moved by one task (`driver`) that asks a state machine
//! (`machine`) what to do and does it through `ports`. Which run has a task is the `scheduler`'s business: a run that only
//! waits has none, and what is sent to a run finds it wherever it is. Always true: a run is what its events say; a
//! rehearsal can send only reads; a private or shared call leaves only after it is on disk. What a run does next is
//! decided by `workflow`, which is pure; keeping is `store`'s business; who answers a request is the proxy's.
//!
//! When a service is slow, its attempts time out and the rest goes on; when the store is, effects and answers wait;
//! when the process ends, the next one goes on from what is on disk ([`Engine::recover`]).

mod api;
mod bounds;
mod clock;
mod context;
mod driver;
mod kill_switch;
mod machine;
mod ports;
mod scheduler;
mod snapshot;
mod tally;
mod tasks;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::util::BoxCloneSyncService;
use uuid::Uuid;

use self::api::arm;
use self::bounds::usize_of;
use self::context::{Core, Files, Ports, Process, Schedule};
use self::kill_switch::KillSwitch;
use self::machine::Ids;
use self::ports::client::{RehearsingClient, SendingClient};
use self::ports::seal::Sealer;
use self::ports::writer::KeptPlans;
use self::scheduler::lease::Lease;
use self::scheduler::reads::Reads;
use self::scheduler::recover;
use self::scheduler::run_snapshots::RunSnapshots;
use self::scheduler::stuck::Stuck;
use self::scheduler::watchers::Watchers;
use self::snapshot::Snapshot;
use self::tasks::Tasks;
use crate::affinity::StoreAffinity;
use crate::clock::ProcessClock;
use crate::exchange::{ArmReply, ArmRequest};
use crate::flag::{Freeze, Service};
use crate::limits::Limits;
use crate::names::{RunId, ServiceName, WorkerId, WorkflowName};
use crate::secret::Secret;
use crate::store::SharedStore;
use crate::workflow::{Mode, Plan};

pub use api::types::{Explanation, NotDone, NotStarted, Start, Started};
pub use ports::breaker::BreakerState;
pub use ports::service::{BreakerView, ServiceView};
pub use scheduler::recover::Recovered;

/// The engine's arm, as proxy and shadow know it.
pub type ArmService = BoxCloneSyncService<ArmRequest, ArmReply, Infallible>;

/// What an engine is made of.
pub struct EngineParts {
    /// Where runs are kept.
    pub store: SharedStore,
    /// The plans in force.
    pub plans: BTreeMap<WorkflowName, Arc<Plan>>,
    /// The services that steps call.
    pub services: BTreeMap<ServiceName, Arc<Service>>,
    /// What `secrets.NAME` is.
    pub secrets: BTreeMap<String, Secret>,
    /// Seals credentials of callers.
    pub store_key: Option<Secret>,
    /// Keys idempotency keys: the store's secret.
    pub key_secret: [u8; 32],
    /// The bounds in force.
    pub limits: Arc<Limits>,
    /// Hears what was pinned before the answer leaves.
    pub pins: Arc<StoreAffinity>,
    /// The process's time; a shared store sets it.
    pub clock: Arc<ProcessClock>,
}

/// The embedded orchestrator. Dropping it cuts every run where it is, as the end of the process would.
pub struct Engine {
    core: Arc<Core>,
}

/// Saying goodbye to a store that others share.
const LEAVE: Duration = Duration::from_secs(2);

/// Editions that are kept for requests on their way; of an older one the newest takes the place.
const EARLIER_EDITIONS_MAX: usize = 3;

impl Engine {
    /// Makes an engine; it does nothing before it is asked. Runs are moved in the runtime that it is made in, whoever
    /// asks; rehearsals and dark runs where they are asked for.
    ///
    /// # Panics
    /// Outside a runtime.
    pub fn new(parts: EngineParts) -> Self {
        let EngineParts { store, plans, services, secrets, store_key, key_secret, limits, pins, clock } = parts;
        let snapshot = Snapshot::new(0, &plans, &services, &secrets, key_secret, &limits, None);
        let runs_max = usize_of(limits.runs_in_flight_max).min(Semaphore::MAX_PERMITS);
        let dark_max = runs_max.saturating_mul(usize_of(limits.shadow_service_share_percent.min(100))) / 100;
        let lease = Lease::new(store.is_shared().then(|| Limits::ms(limits.lease_ms)));
        let files = Files {
            snapshot: ArcSwap::from_pointee(snapshot),
            earlier: ArcSwap::default(),
            key_secret,
            limits: limits.clone(),
            reloaded: Notify::new(),
        };
        let kill_switch = KillSwitch::new();
        let sending = |mode| Arc::new(SendingClient::new(&limits, &key_secret, mode, kill_switch.clone()));
        let ports = Ports {
            store,
            pins,
            sealer: Arc::new(Sealer::new(store_key.as_ref())),
            kept_plans: KeptPlans::default(),
            rehearsing: Arc::new(RehearsingClient::new(&limits, &key_secret)),
            sending_dark: sending(Mode::Dark),
            sending_real: sending(Mode::Real),
            #[cfg(test)]
            instead: std::sync::OnceLock::new(),
            recorded: Notify::new(),
        };
        let schedule = Schedule {
            registry: Arc::default(),
            runs: Arc::new(Semaphore::new(runs_max)),
            dark_runs: Arc::new(Semaphore::new(dark_max.max(1))),
            woken: Arc::new(Semaphore::new(runs_max.max(1))),
            worker: WorkerId(Uuid::now_v7()),
            worker_name: format!("process {}", std::process::id()),
            lease,
            mailboxes: Arc::default(),
            timers: Arc::default(),
            stuck: Stuck::default(),
            reads: Reads::default(),
            run_snapshots: Arc::new(RunSnapshots::new(&limits)),
            watchers: Watchers::new(usize_of(limits.api_start_events_bytes_max)),
            counted: Mutex::default(),
            supervised: AtomicBool::new(false),
        };
        let process = Process {
            clock,
            ids: Mutex::new(Ids::new(fastrand::u64(..))),
            kill_switch,
            draining: watch::Sender::new(false),
            tasks: TaskTracker::new(),
            besides: TaskTracker::new(),
            cut: CancellationToken::new(),
            threads: Handle::current(),
        };
        let core = Core { files, ports, schedule, process, run_tasks: Box::new(Tasks) };
        Self { core: Arc::new(core) }
    }

    /// The engine as an arm: always ready, never an error.
    pub fn arm(&self) -> ArmService {
        let core = self.core.clone();
        BoxCloneSyncService::new(tower::service_fn(move |request: ArmRequest| {
            let core = core.clone();
            async move { Ok(arm::handle(core, request).await) }
        }))
    }

    /// Takes newly checked files: requests that are decided by this edition are run by it, and those of the editions
    /// before it by theirs. One that never came in force is replaced by the next with its number. Runs in flight keep
    /// the plan that they started with.
    pub fn reload(
        &self,
        edition: u64,
        plans: &BTreeMap<WorkflowName, Arc<Plan>>,
        services: &BTreeMap<ServiceName, Arc<Service>>,
        secrets: &BTreeMap<String, Secret>,
    ) {
        let before = self.core.files.snapshot.load_full();
        let (key, limits) = (self.core.files.key_secret, &self.core.files.limits);
        let newest = Snapshot::new(edition, plans, services, secrets, key, limits, Some(&before));
        if before.edition != edition {
            let earlier = self.core.files.earlier.load();
            let kept = std::iter::once(&before).chain(earlier.iter()).take(EARLIER_EDITIONS_MAX).cloned().collect();
            self.core.files.earlier.store(Arc::new(kept));
        }
        self.core.files.snapshot.store(Arc::new(newest));
        self.core.files.reloaded.notify_one();
    }

    /// Sets the kill switch: with [`Freeze::Effects`], private and shared steps that have not begun are held.
    /// What takes a finished step back is such a step too. When this returns, nothing begins any more that the word
    /// forbids, whenever it was decided; a word that is older than the one in force changes nothing.
    pub async fn freeze(&self, version: u64, freeze: Freeze) {
        self.core.process.kill_switch.set(version, freeze).await;
        if self.core.process.kill_switch.word() != Freeze::Effects {
            self.core.schedule.timers.released().into_iter().for_each(|run| self.core.wake(run));
        }
    }

    /// Runs that nothing would ever move, and why: each is a bug. At most a thousand are named.
    pub fn stuck(&self) -> Vec<(RunId, String)> {
        self.core.schedule.stuck.list()
    }

    /// The services of the newest files, by name: their breakers, and who is under way there.
    pub fn services(&self) -> Vec<ServiceView> {
        let snapshot = self.core.files.snapshot.load_full();
        let mut services: Vec<_> = snapshot.services.iter().map(|(name, base)| base.view(name.clone())).collect();
        services.sort_by(|a, b| a.name.cmp(&b.name));
        services
    }

    /// Whether it takes no new runs, because the process ends.
    pub fn is_draining(&self) -> bool {
        *self.core.process.draining.borrow()
    }

    /// How many runs are moving now.
    pub fn runs_in_flight(&self) -> usize {
        self.core.process.tasks.len()
    }

    /// Goes on with every run that the last process left unfinished. Finished steps are not done again; a call that
    /// was under way is sent again with the same key and bytes where a repeat is harmless, and pauses its run where
    /// not.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn recover(&self) -> Result<Recovered, crate::store::StoreError> {
        recover::recover(&self.core).await
    }

    /// Takes no new runs and lets those in flight come to rest: with a caller to their answer, without one to the end
    /// of the calls that are under way. What is not at rest in time is cut, and goes on in the next process. Whether
    /// all came to rest.
    pub async fn drain(&self, within: Duration) -> bool {
        self.core.process.draining.send_replace(true);
        self.core.process.tasks.close();
        let rested = tokio::time::timeout(within, self.core.process.tasks.wait()).await.is_ok();
        if !rested {
            tracing::warn!(runs = self.core.process.tasks.len(), "runs are cut; the next process goes on with them");
            self.core.process.cut.cancel();
            self.core.process.tasks.wait().await;
        }
        self.core.process.cut.cancel();
        self.core.process.besides.close();
        self.core.process.besides.wait().await;
        if self.core.ports.store.is_shared()
            && let Ok(Err(error)) =
                tokio::time::timeout(LEAVE, self.core.ports.store.leave(self.core.schedule.worker)).await
        {
            tracing::warn!(%error, "others hear that this process has gone when its lease is over");
        }
        rested
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.core.process.cut.cancel();
    }
}
