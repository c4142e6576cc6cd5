//! Executes runs: acquire, decide, append, perform, repeat.
//!
//! The question it answers: "how does a workflow answer this request, and does its run survive a crash?" A request
//! comes in through [`Engine::arm`] (`api::arm`); its run is executed by one task (`driver`) that asks a state machine
//! (`machine`) what to do and does it through `ports`. Which run has a task is decided by `scheduler`: a suspended run
//! has none, and a message to it starts one. Always true: a run's state is its events; a rehearsal can send only reads;
//! a private or shared call is sent only after its event is durable. What a run does next is decided by `workflow`,
//! which is pure; `store` stores the events; the proxy decides which arm answers a request.
//!
//! When a service is slow, its attempts time out and other steps go on; when the store is slow, effects and answers
//! wait; when the process ends, the next one resumes its runs from the store ([`Engine::recover`]).

mod api;
mod bounds;
mod clock;
mod context;
mod driver;
mod files_snapshot;
mod kill_switch;
mod legacy_replies;
mod legacy_reply_paths;
mod machine;
mod ports;
mod run_metrics;
mod run_spans;
mod run_trace;
mod scheduler;
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

use self::api::large_bodies;
use self::bounds::usize_of;
use self::context::{Core, Files, Ports, Process, Schedule};
use self::files_snapshot::{FilesSnapshot, ProcessConstants};
use self::kill_switch::KillSwitch;
use self::machine::Ids;
use self::ports::client::{RehearsingClient, SendingClient};
use self::ports::repeating_client::RepeatingClient;
use self::ports::seal::Sealer;
use self::ports::writer::KnownPlans;
use self::scheduler::lease::Lease;
use self::scheduler::load_permits::LoadPermits;
use self::scheduler::recover;
use self::scheduler::run_snapshots::RunSnapshots;
use self::scheduler::stuck::StuckRuns;
use self::scheduler::subscriptions::RunSubscriptions;
use self::scheduler::why_unresumed::WhyUnresumed;
use self::tasks::Tasks;
use crate::affinity::{StoreAffinity, host_name};
use crate::clock::ProcessClock;
use crate::exchange::{ArmReply, ArmRequest, LateFailureObserver, RepeatReply, RepeatRequest};
use crate::flag::{Freeze, Service};
use crate::limits::Limits;
use crate::names::{RunId, ServiceName, WorkerId, WorkflowName};
use crate::secret::Secret;
use crate::store::{StoreHandle, process_name};
use crate::transport::AddressRegistry;
use crate::workflow::{Mode, Plan, PlanVersion};

pub use api::adopt::AdoptionStart;
pub use api::types::{Explanation, Start, StartError, Started};
pub use ports::breaker::BreakerState;
pub use ports::guard_message_queue::GuardMessage;
pub use ports::service::{BreakerView, ServiceView};
pub use scheduler::command_error::CommandError;
pub use scheduler::recover::{CatchUp, Recovered};

/// The engine's arm, as proxy and shadow call it.
pub type ArmService = BoxCloneSyncService<ArmRequest, ArmReply, Infallible>;

/// Sends a request to legacy a second time.
pub type RepeatService = BoxCloneSyncService<RepeatRequest, RepeatReply, Infallible>;

/// What an engine is built from.
pub struct EngineParts {
    /// The store of the engine's runs.
    pub store: StoreHandle,
    /// The plans in force.
    pub plans: BTreeMap<WorkflowName, Arc<Plan>>,
    /// The services that steps call.
    pub services: BTreeMap<ServiceName, Arc<Service>>,
    /// The values of `secrets.NAME`.
    pub secrets: BTreeMap<String, Secret>,
    /// Seals callers' credentials and sensitive values.
    pub store_key: Option<Secret>,
    /// The store's secret, from which idempotency keys are derived.
    pub key_secret: [u8; 32],
    /// The limits in force.
    pub limits: Arc<Limits>,
    /// The addresses of services, which the proxy shares.
    pub addresses: Arc<AddressRegistry>,
    /// Learns of new pins before the answer is sent.
    pub affinity: Arc<StoreAffinity>,
    /// The process's clock, which follows the time of a shared store.
    pub clock: Arc<ProcessClock>,
    /// Is told of runs that fail after their answer.
    pub late_failures: Arc<dyn LateFailureObserver>,
}

/// The embedded orchestrator. Dropping it cancels the tasks of all runs, and leaves the runs as a crash of the process
/// would.
pub struct Engine {
    core: Arc<Core>,
}

/// How long giving up the runs of this process may take.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(2);

/// How many earlier versions of the files are kept for requests in flight. A request that was decided under an older
/// version begins no run: under another version its steps may have other effects.
const EARLIER_VERSIONS_MAX: usize = 3;

impl Engine {
    /// Makes an engine, which begins nothing by itself. Real runs are driven on the runtime in which the engine is
    /// made, rehearsals and dark runs on the runtime from which the arm is called.
    ///
    /// # Panics
    /// If called outside a Tokio runtime.
    pub fn new(parts: EngineParts) -> Self {
        let EngineParts { store, plans, services, secrets, store_key, key_secret, limits, addresses, .. } = parts;
        let EngineParts { affinity, clock, late_failures, .. } = parts;
        let (started, copy_started) = (clock.now(), affinity.copy_started());
        let process = ProcessConstants { key_secret, limits: &limits, addresses: &addresses, started };
        let snapshot = FilesSnapshot::new(0, &plans, &[], &services, &secrets, process, None);
        let runs_max = usize_of(limits.runs_in_flight_max).min(Semaphore::MAX_PERMITS);
        let dark_max = runs_max.saturating_mul(usize_of(limits.shadow_service_share_percent.min(100))) / 100;
        let lease = Lease::new(store.is_shared().then(|| Limits::ms(limits.lease_ms)));
        let files = Files {
            snapshot: ArcSwap::from_pointee(snapshot),
            earlier: ArcSwap::default(),
            key_secret,
            limits: limits.clone(),
            addresses,
            started,
            reloaded: Notify::new(),
            reloaded_for_webhooks: Notify::new(),
        };
        let kill_switch = KillSwitch::new();
        let sending = |mode| Arc::new(SendingClient::new(&limits, &key_secret, mode, kill_switch.clone()));
        let ports = Ports {
            store,
            affinity,
            sealer: Arc::new(Sealer::new(store_key.as_ref())),
            known_plans: KnownPlans::default(),
            rehearsing: Arc::new(RehearsingClient::new(&limits, &key_secret)),
            repeating: RepeatingClient::new(&limits, &key_secret),
            sending_dark: sending(Mode::Dark),
            sending_real: sending(Mode::Real),
            #[cfg(test)]
            executor_override: std::sync::OnceLock::new(),
            webhook_message_stored: Notify::new(),
            guard_messages: Default::default(),
            late_failures,
        };
        let schedule = Schedule {
            registry: Arc::default(),
            real_permits: Arc::new(Semaphore::new(runs_max)),
            dark_permits: Arc::new(Semaphore::new(dark_max.max(1))),
            wake_permits: Arc::new(Semaphore::new(runs_max.max(1))),
            worker: WorkerId(Uuid::now_v7()),
            worker_name: process_name(std::process::id(), &host_name()),
            lease,
            mailboxes: Arc::default(),
            timers: Arc::default(),
            stuck: StuckRuns::default(),
            load_permits: LoadPermits::default(),
            run_snapshots: Arc::new(RunSnapshots::new(&limits)),
            subscriptions: RunSubscriptions::new(usize_of(limits.api_start_events_bytes_max)),
            gauge_labels: Mutex::default(),
            counted_runs: Arc::default(),
            why_unresumed: WhyUnresumed::default(),
            is_supervised: AtomicBool::new(false),
        };
        let process = Process {
            clock,
            copy_started,
            ids: Mutex::new(Ids::new(fastrand::u64(..))),
            kill_switch,
            draining: watch::Sender::new(false),
            leaves_runs: watch::Sender::new(false),
            tasks: TaskTracker::new(),
            background_tasks: TaskTracker::new(),
            cancelled: CancellationToken::new(),
            runtime: Handle::current(),
        };
        let core = Core { files, ports, schedule, process, run_tasks: Box::new(Tasks) };
        Self { core: Arc::new(core) }
    }

    /// The engine as an arm, which is always ready and never fails.
    pub fn arm(&self) -> ArmService {
        let core = self.core.clone();
        BoxCloneSyncService::new(tower::service_fn(move |request: ArmRequest| {
            let core = core.clone();
            async move { Ok(large_bodies::answer(core, request).await) }
        }))
    }

    /// Sends requests to legacy a second time, through the connections and within the share of a service's limits that
    /// are for calls of rehearsed runs.
    pub fn repeats(&self) -> RepeatService {
        let core = self.core.clone();
        BoxCloneSyncService::new(tower::service_fn(move |request: RepeatRequest| {
            let core = core.clone();
            async move { Ok(api::repeat::repeat(&core, &request).await) }
        }))
    }

    /// Puts newly checked files in force. A request is processed with the version of the files under which it was
    /// decided. If `files_version` is the newest version's number, that version is replaced. Runs in flight keep the
    /// plan that they started with.
    pub fn reload(
        &self,
        files_version: u64,
        plans: &BTreeMap<WorkflowName, Arc<Plan>>,
        services: &BTreeMap<ServiceName, Arc<Service>>,
        secrets: &BTreeMap<String, Secret>,
    ) {
        self.reload_with(files_version, (plans, &[]), services, secrets);
    }

    /// As [`Engine::reload`]; these versions of workflows are in force for routes although the files have others. A
    /// request says which version it is for ([`ArmRequest::plans`]).
    pub fn reload_with(
        &self,
        files_version: u64,
        (plans, in_force): (&BTreeMap<WorkflowName, Arc<Plan>>, &[PlanVersion]),
        services: &BTreeMap<ServiceName, Arc<Service>>,
        secrets: &BTreeMap<String, Secret>,
    ) {
        let before = self.core.files.snapshot.load_full();
        let Files { key_secret, limits, addresses, started, .. } = &self.core.files;
        let process = ProcessConstants { key_secret: *key_secret, limits, addresses, started: *started };
        let newest = FilesSnapshot::new(files_version, plans, in_force, services, secrets, process, Some(&before));
        if before.files_version != files_version {
            let earlier = self.core.files.earlier.load();
            let versions = std::iter::once(&before).chain(earlier.iter()).take(EARLIER_VERSIONS_MAX).cloned().collect();
            self.core.files.earlier.store(Arc::new(versions));
        }
        self.core.files.snapshot.store(Arc::new(newest));
        self.core.files.reloaded.notify_one();
        self.core.files.reloaded_for_webhooks.notify_one();
    }

    /// Posts a message to a webhook about what a guard did. Does not wait.
    pub fn post(&self, message: GuardMessage) {
        self.core.ports.guard_messages.post(message, self.core.process.clock.now());
    }

    /// Sets the kill switch: with [`Freeze::Effects`], private and shared steps that have not begun are held, undos
    /// too. After this has returned, nothing that the freeze forbids begins, even if it was decided before. An older
    /// version than the one in force changes nothing.
    pub async fn freeze(&self, version: u64, freeze: Freeze) {
        self.core.process.kill_switch.set(version, freeze).await;
        if self.core.process.kill_switch.freeze() != Freeze::Effects {
            self.core.schedule.timers.take_frozen().into_iter().for_each(|run| self.core.wake(run));
        }
    }

    /// The first runs that have no next wake-up cause, which is a bug, or that cannot be loaded, which may have another
    /// cause (such as a missing `store_key`); and why.
    pub fn stuck(&self, limit: usize) -> Vec<(RunId, Arc<str>)> {
        self.core.schedule.stuck.first(limit)
    }

    /// How many runs have no next wake-up cause or cannot be loaded.
    pub fn stuck_count(&self) -> usize {
        self.core.schedule.stuck.count()
    }

    /// Why a run has no next wake-up cause or cannot be loaded; `None` for any other run.
    pub fn why_stuck(&self, run: RunId) -> Option<Arc<str>> {
        self.core.schedule.stuck.why(run)
    }

    /// The services of the newest files, by name: their breakers and their calls in flight.
    pub fn services(&self) -> Vec<ServiceView> {
        let snapshot = self.core.files.snapshot.load_full();
        let mut services: Vec<_> =
            snapshot.services.iter().map(|(name, service_limits)| service_limits.view(name.clone())).collect();
        services.sort_by(|a, b| a.name.cmp(&b.name));
        services
    }

    /// Whether the engine begins no new runs, because the process drains.
    pub fn is_draining(&self) -> bool {
        *self.core.process.draining.borrow()
    }

    /// How many runs have a task now.
    pub fn runs_in_flight(&self) -> usize {
        self.core.process.tasks.len()
    }

    /// Resumes every run that the last process left unfinished. Finished steps are not done again; a call that was in
    /// flight is sent again with the same key and bytes where a repeat is harmless, and otherwise has an unknown
    /// outcome.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn recover(&self) -> Result<Recovered, crate::store::StoreError> {
        recover::recover(&self.core, None).await
    }

    /// Like [`Engine::recover`], but in the background and repeated until it succeeds. Returns after the first try,
    /// or earlier if that takes long: [`Engine::why_unresumed`] says whether the runs are resumed. In a store that
    /// several processes share, `catch_up` is called before a run is resumed, once this process has its lease.
    pub async fn recover_in_background(&self, catch_up: CatchUp) {
        recover::recover_in_background(&self.core, catch_up).await;
    }

    /// Why the runs that the last process left are not resumed yet; `None` once they are. Until they are resumed, no
    /// stored run begins for a request or a start.
    pub fn why_unresumed(&self) -> Option<String> {
        self.core.schedule.why_unresumed.get().map(|why| (*why).clone())
    }

    /// Other processes on the same store go on with the runs that no caller waits for, as soon as their calls have
    /// ended. New runs are begun for callers until [`Engine::drain`].
    pub fn leave_runs(&self) {
        self.core.process.leaves_runs.send_replace(true);
    }

    /// Begins no new runs and waits for those in flight: for the answer of a run with a caller, for the calls in flight
    /// of the others. Tasks that have not ended in time are cancelled, and the next process resumes their runs. Returns
    /// whether all ended in time.
    pub async fn drain(&self, within: Duration) -> bool {
        self.core.process.draining.send_replace(true);
        self.leave_runs();
        self.core.process.tasks.close();
        let all_ended = tokio::time::timeout(within, self.core.process.tasks.wait()).await.is_ok();
        if !all_ended {
            tracing::warn!(
                runs = self.core.process.tasks.len(),
                "the drain time is over while runs are executed: they are interrupted; the next process resumes them"
            );
            self.core.process.cancelled.cancel();
            self.core.process.tasks.wait().await;
        }
        self.core.process.cancelled.cancel();
        self.core.process.background_tasks.close();
        self.core.process.background_tasks.wait().await;
        if self.core.ports.store.is_shared()
            && let Ok(Err(error)) =
                tokio::time::timeout(RELEASE_TIMEOUT, self.core.ports.store.release_runs(self.core.schedule.worker))
                    .await
        {
            tracing::warn!(%error, "the runs were not given up: other processes take them when the lease has run out");
        }
        all_ended
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.core.process.cancelled.cancel();
    }
}
