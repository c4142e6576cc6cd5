//! Moves runs forward: claim, decide, append, perform, repeat.
//!
//! The question it answers: "who answers this request with a workflow, and does what it began survive?" A request
//! comes in through [`Engine::arm`] (`arm`), its run is moved by one task (`driver`) that asks a state machine (`machine`) what
//! to do; its events go to the store through the `writer`, its calls through `client`, when it is their turn at the `service`. A run that only waits
//! has no task: `alarm` knows what would wake it, `minder` wakes it, and what is said to it (`desk`) finds it wherever it
//! is (`mail`, `orders`, `take`). Always true: a run is what its events say; a rehearsal can send only reads; a private
//! or shared call leaves only after it is on disk. What a run does next is decided by `workflow`, which is pure; keeping
//! is `store`'s business; who answers a request is the proxy's.
//!
//! When a service is slow, its attempts time out and the rest goes on; when the store is, effects and answers wait;
//! when the process ends, the next one goes on from what is on disk ([`Engine::recover`]).

mod alarm;
mod arm;
mod begin;
mod birth;
mod births;
mod breaker;
mod children;
mod client;
mod clock;
mod decode;
mod desk;
mod driver;
mod explain;
mod follow;
mod lease;
mod links;
mod locks;
mod machine;
mod mail;
mod minder;
mod newborn;
mod notifier;
mod order_record;
mod orders;
mod outgoing;
mod recover;
mod registry;
mod replies;
mod rerun;
mod seal;
mod service;
mod snapshot;
mod stuck;
mod take;
mod tally;
#[cfg(test)]
mod tests;
mod watchdog;
mod writer;

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::future::Future;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::runtime::Handle;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::util::BoxCloneSyncService;
use uuid::Uuid;

use self::alarm::Alarm;
use self::client::{RehearsingClient, SendingClient, usize_of};
use self::driver::Driver;
use self::follow::Watchers;
use self::lease::Lease;
use self::mail::Post;
use self::registry::Registry;
use self::seal::Sealer;
use self::snapshot::Snapshot;
use self::stuck::Stuck;
use self::take::Reads;
use self::writer::KeptPlans;
use crate::affinity::StoreAffinity;
use crate::clock::ProcessClock;
use crate::exchange::{ArmReply, ArmRequest};
use crate::flag::{Freeze, Service};
use crate::limits::Limits;
use crate::names::{RunId, ServiceName, WorkerId, WorkflowName};
use crate::secret::Secret;
use crate::store::SharedStore;
use crate::workflow::{Mode, Plan, RunStatus};

pub use breaker::BreakerState;
pub use desk::{Explanation, NotDone, NotStarted, Start, Started};
pub use recover::Recovered;
pub use service::{BreakerView, ServiceView};

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

struct Core {
    store: SharedStore,
    pins: Arc<StoreAffinity>,
    /// What the newest files say.
    snapshot: ArcSwap<Snapshot>,
    /// What the files before them say, newest first: requests that were decided by them are on their way.
    earlier: ArcSwap<Vec<Arc<Snapshot>>>,
    key_secret: [u8; 32],
    limits: Arc<Limits>,
    sealer: Sealer,
    kept_plans: KeptPlans,
    rehearsing: Arc<RehearsingClient>,
    sending_dark: Arc<SendingClient>,
    sending_real: Arc<SendingClient>,
    /// Durable runs in flight that answer callers.
    runs: Arc<Semaphore>,
    /// Dark ones.
    dark_runs: Arc<Semaphore>,
    /// Those that were let in once and are woken.
    woken: Arc<Semaphore>,
    registry: Arc<Registry>,
    /// This process, as the store knows it.
    worker: WorkerId,
    /// As people know it.
    worker_name: String,
    lease: Arc<Lease>,
    post: Arc<Post>,
    alarm: Arc<Alarm>,
    watchers: Watchers,
    stuck: Stuck,
    reads: Reads,
    /// What the gauge of unfinished runs names.
    counted: Mutex<BTreeSet<(WorkflowName, RunStatus)>>,
    /// This process recorded a message to a webhook.
    recorded: Notify,
    /// Other files are in force.
    reloaded: Notify,
    /// Whether somebody minds the runs that rest.
    minding: AtomicBool,
    /// What time it is.
    clock: Arc<ProcessClock>,
    freeze: watch::Sender<Freeze>,
    draining: watch::Sender<bool>,
    tasks: TaskTracker,
    /// What goes on beside the runs.
    besides: TaskTracker,
    /// Takes the place of the sending client.
    #[cfg(test)]
    instead: std::sync::OnceLock<Arc<dyn self::client::Executor>>,
    cut: CancellationToken,
    /// The runtime that it was made in: what moves runs lives there, whoever asks.
    threads: Handle,
}

/// Saying goodbye to a store that others share.
const LEAVE: Duration = Duration::from_secs(2);

/// Editions that are kept for requests on their way; of an older one the newest takes the place.
const EARLIER_EDITIONS_MAX: usize = 3;

impl Core {
    /// What the files say that a request was decided by.
    fn snapshot_of(&self, edition: Option<u64>) -> Arc<Snapshot> {
        let newest = self.snapshot.load_full();
        let Some(edition) = edition.filter(|edition| *edition != newest.edition) else { return newest };
        self.earlier.load().iter().find(|earlier| earlier.edition == edition).cloned().unwrap_or(newest)
    }
}

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
        let core = Core {
            store,
            pins,
            snapshot: ArcSwap::from_pointee(snapshot),
            earlier: ArcSwap::default(),
            key_secret,
            sealer: Sealer::new(store_key.as_ref()),
            kept_plans: KeptPlans::default(),
            rehearsing: Arc::new(RehearsingClient::new(&limits)),
            sending_dark: Arc::new(SendingClient::new(&limits, Mode::Dark)),
            sending_real: Arc::new(SendingClient::new(&limits, Mode::Real)),
            limits,
            runs: Arc::new(Semaphore::new(runs_max)),
            dark_runs: Arc::new(Semaphore::new(dark_max.max(1))),
            woken: Arc::new(Semaphore::new(runs_max.max(1))),
            registry: Arc::default(),
            lease,
            worker: WorkerId(Uuid::now_v7()),
            worker_name: format!("process {}", std::process::id()),
            post: Arc::default(),
            alarm: Arc::default(),
            watchers: Watchers::default(),
            stuck: Stuck::default(),
            reads: Reads::default(),
            counted: Mutex::default(),
            recorded: Notify::new(),
            reloaded: Notify::new(),
            minding: AtomicBool::new(false),
            clock,
            freeze: watch::Sender::new(Freeze::No),
            draining: watch::Sender::new(false),
            tasks: TaskTracker::new(),
            besides: TaskTracker::new(),
            #[cfg(test)]
            instead: std::sync::OnceLock::new(),
            cut: CancellationToken::new(),
            threads: Handle::current(),
        };
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
        let before = self.core.snapshot.load_full();
        let (key, limits) = (self.core.key_secret, &self.core.limits);
        let newest = Snapshot::new(edition, plans, services, secrets, key, limits, Some(&before));
        if before.edition != edition {
            let earlier = self.core.earlier.load();
            let kept = std::iter::once(&before).chain(earlier.iter()).take(EARLIER_EDITIONS_MAX).cloned().collect();
            self.core.earlier.store(Arc::new(kept));
        }
        self.core.snapshot.store(Arc::new(newest));
        self.core.reloaded.notify_one();
    }

    /// Sets the kill switch: with [`Freeze::Effects`], private and shared steps that have not begun are held.
    /// What takes a finished step back is such a step too.
    pub fn freeze(&self, freeze: Freeze) {
        self.core.freeze.send_if_modified(|now| std::mem::replace(now, freeze) != freeze);
        if freeze != Freeze::Effects {
            self.core.alarm.released().into_iter().for_each(|run| self.core.wake(run));
        }
    }

    /// Runs that nothing would ever move, and why: each is a bug. At most a thousand are named.
    pub fn stuck(&self) -> Vec<(RunId, String)> {
        self.core.stuck.list()
    }

    /// The services of the newest files, by name: their breakers, and who is under way there.
    pub fn services(&self) -> Vec<ServiceView> {
        let snapshot = self.core.snapshot.load_full();
        let mut services: Vec<_> = snapshot.services.iter().map(|(name, base)| base.view(name.clone())).collect();
        services.sort_by(|a, b| a.name.cmp(&b.name));
        services
    }

    /// How many runs are moving now.
    pub fn runs_in_flight(&self) -> usize {
        self.core.tasks.len()
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
        self.core.draining.send_replace(true);
        self.core.tasks.close();
        let rested = tokio::time::timeout(within, self.core.tasks.wait()).await.is_ok();
        if !rested {
            tracing::warn!(runs = self.core.tasks.len(), "runs are cut; the next process goes on with them");
            self.core.cut.cancel();
            self.core.tasks.wait().await;
        }
        self.core.cut.cancel();
        self.core.besides.close();
        self.core.besides.wait().await;
        if self.core.store.is_shared()
            && let Ok(Err(error)) = tokio::time::timeout(LEAVE, self.core.store.leave(self.core.worker)).await
        {
            tracing::warn!(%error, "others hear that this process has gone when its lease is over");
        }
        rested
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.core.cut.cancel();
    }
}

impl Core {
    /// Drives a run in a task of its own.
    fn spawn(self: &Arc<Self>, driver: Driver, permit: Option<OwnedSemaphorePermit>) {
        let core = self.clone();
        let real = driver.mode() == Mode::Real;
        let moved = async move {
            let _permit = permit;
            // `None`: the process ends; what is on disk is what the next one goes on from.
            let _cut = core.cut.run_until_cancelled(driver.drive()).await;
        };
        // What nobody is answered by keeps to its caller's threads, which step back for others.
        match real {
            true => drop(self.tasks.spawn_on(moved, &self.threads)),
            false => drop(self.tasks.spawn(moved)),
        }
    }

    /// Does something beside the runs, for as long as the process lives.
    fn beside(&self, work: impl Future<Output = ()> + Send + 'static) {
        let cut = self.cut.clone();
        let work = async move {
            cut.run_until_cancelled(work).await;
        };
        self.besides.spawn_on(work, &self.threads);
    }
}
