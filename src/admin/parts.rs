//! What the API needs from the rest of the process; `app` fills it in.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use serde_json::Value;

use super::types::{AdoptionsView, EgressStatus, InstancesRow, ProcessRow, ServiceRow, ShadowLoad, StuckRun};
use crate::config::{CheckFailed, Findings, RouteRules, Token};
use crate::egress::Attribution;
use crate::engine::{CommandError, Engine, Explanation, Start, StartError, Started};
use crate::evidence::{Captures, Evidence};
use crate::flag::{Arm, Family, FlagSet, Freeze};
use crate::ladder::{self, CandidateMove, FlipError, Flipped, FreezeError, Frozen, GuardReleased, Ladder, RouteStatus};
use crate::limits::Limits;
use crate::names::{PlanId, RouteId, RunId, Seq, ServiceName, StepId, WorkflowName};
use crate::record::RecordWriter;
use crate::store::{FlipRecord, StoreError, StoreHandle, StoredEvent};
use crate::workflow::{ControlCommand, RunSummary};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Returns what is known of the callers of a service; `None` if the files do not have it.
pub type FindCallers = Arc<dyn Fn(&ServiceName) -> Option<CallersOfService> + Send + Sync>;

/// What is known of the callers of a service outside the store.
pub struct CallersOfService {
    /// Finds what may call it: by the files, the states and plans in force, and the runs that have not ended.
    pub may_call: BoxFuture<'static, Result<Vec<String>, StoreError>>,
    /// The process's time.
    pub now: Timestamp,
    /// The id under which the process stores until when it has noted calls.
    pub process: Uuid,
    /// Stores what was noted up to now.
    pub flush: BoxFuture<'static, Result<(), StoreError>>,
}

/// Returns the instances of a family that are alive, for each arm.
pub type InstancesOfFamily = Arc<dyn Fn(&Family) -> Vec<InstancesRow> + Send + Sync>;

/// Returns the rules of a route; `None` if the files do not have the route.
pub type RulesOfRoute = Arc<dyn Fn(&RouteId) -> Option<RouteRules> + Send + Sync>;

/// Puts the candidate of a route in force, or gives it a share of new requests; resolves once the outcome is known.
pub type MoveCandidate = Arc<dyn Fn(CandidateMove) -> BoxFuture<'static, Result<(), CandidateMoveError>> + Send + Sync>;

/// Why a candidate was not moved. Nothing changed, unless the text says otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CandidateMoveError {
    /// It may not be moved like this: a sentence for each reason.
    Refused(Vec<String>),
    /// Files are being put in force, or another process takes over from this one.
    Waits(String),
    /// The store did not record it, or something else failed.
    Failed(String),
}

/// Everything that the API shows and controls.
#[derive(Clone)]
pub struct AdminParts {
    /// Moves routes, and sets the kill switch.
    pub ladder: Arc<dyn LadderControl>,
    /// What comparisons add up to.
    pub evidence: Arc<Evidence>,
    /// Captures of pairs.
    pub captures: Arc<Captures>,
    /// Attributes the calls by legacy to requests; `None` without an egress listener.
    pub attribution: Option<Attribution>,
    /// Starts runs and sends them commands.
    pub engine: Arc<dyn EngineControl>,
    /// Gets what is entered in the record beside flips.
    pub recorder: Arc<RecordWriter>,
    /// The store of runs, flips and samples.
    pub store: StoreHandle,
    /// Updates all metrics and renders them as Prometheus text. Called for one scrape at a time.
    pub render_metrics: Arc<dyn Fn() -> String + Send + Sync>,
    /// The tokens; may be empty only where the listener is on loopback.
    pub tokens: Vec<Token>,
    /// The address of this listener.
    pub listen: SocketAddr,
    /// Whether the deprecated `POST /api/maestro/produce` is open.
    pub deprecated_start: bool,
    /// The rules in force by which a route's pairs are compared.
    pub rules: RulesOfRoute,
    /// The names of the workflows in force.
    pub workflows: Arc<dyn Fn() -> Vec<WorkflowName> + Send + Sync>,
    /// Cancelled when the listener stops; streams and waits then end.
    pub stopping: CancellationToken,
    /// The addresses on which the proxy listens.
    pub proxy_listen: Vec<SocketAddr>,
    /// When the process started.
    pub started: Timestamp,
    /// The limits in force.
    pub limits: Arc<Limits>,
    /// The state of the process now.
    pub process_status: Arc<dyn Fn() -> ProcessStatus + Send + Sync>,
    /// What may call a service; `None` if the files do not have it.
    pub callers: FindCallers,
    /// The instances of a family that are alive, for each arm.
    pub instances: InstancesOfFamily,
    /// Has the engine adopt instances of legacy.
    pub adoptions: Arc<dyn AdoptionControl>,
    /// The traffic of a route.
    pub traffic: Arc<dyn Fn(&RouteId) -> RouteTraffic + Send + Sync>,
    /// The services of the files, by name.
    pub services: Arc<dyn Fn() -> Vec<ServiceRow> + Send + Sync>,
    /// The processes that share the store.
    pub processes: Arc<dyn Fn() -> Vec<ProcessRow> + Send + Sync>,
    /// Waits, for a bounded time, until the other processes that share the store have the flip with this number in
    /// force. Returns the names of those that do not; at once all, if it has no number yet.
    pub wait_followed: Arc<dyn Fn(Option<u64>) -> BoxFuture<'static, Vec<String>> + Send + Sync>,
    /// Moves the candidate of a route.
    pub move_candidate: MoveCandidate,
    /// Requests that the files are read now. The receiver gets the outcome of a reading that begins after the call, or
    /// nothing if the process stops.
    pub reload: Arc<dyn Fn() -> oneshot::Receiver<Reloaded> + Send + Sync>,
}

/// Has the engine adopt instances of legacy, and shows them.
pub trait AdoptionControl: Send + Sync {
    /// The adoptions of the family of a route.
    fn view<'a>(&'a self, route: &'a RouteId) -> BoxFuture<'a, Result<AdoptionsView, AdoptionRefused>>;
    /// Begins to move the instances that a route creates: those with these ids, or all.
    fn start<'a>(
        &'a self,
        route: &'a RouteId,
        ids: Option<Vec<String>>,
        by: String,
    ) -> BoxFuture<'a, Result<(), AdoptionRefused>>;
    /// Decides which arm owns an instance whose owner is not known.
    fn decide<'a>(
        &'a self,
        route: &'a RouteId,
        id: &'a str,
        owner: Arm,
        by: String,
        reason: String,
    ) -> BoxFuture<'a, Result<(), AdoptionRefused>>;
}

/// Why a request to adopt instances, or a decision about one, was refused.
#[derive(Clone, Debug)]
pub enum AdoptionRefused {
    /// It must not be done, or not now.
    Refused(String),
    /// The store does not answer.
    Store(StoreError),
}

/// The outcome of a reading of the files.
#[derive(Clone, Debug)]
pub enum Reloaded {
    /// The files are in force.
    InForce {
        /// Whether the files differ from those that were in force before.
        changed: bool,
        /// When files with this content came into force.
        since: Instant,
        /// The flips that the files made.
        flips: Vec<FlipRecord>,
        /// The warnings of `check`.
        warnings: Findings,
        /// Settings that differ from those that the process was started with; they take effect at the next start.
        needs_restart: Vec<&'static str>,
    },
    /// The check refused the files: the last good set stays in force.
    Refused(CheckFailed),
    /// The files are valid but cannot be put in force now, for these reasons: the last good set stays in force.
    RefusedByLadder(Vec<String>),
    /// The files are valid, but the store did not record what they declare: the last good set stays in force, and the
    /// new files are tried again.
    NotRecorded(String),
    /// The files are valid, but something else is being put in force, or another process takes over from this one: the
    /// last good set stays in force, and the new files are tried again.
    Waits(String),
}

/// The state of the process at one moment.
#[derive(Clone, Debug, Default)]
pub struct ProcessStatus {
    /// How long ago the files in force were loaded.
    pub flags_age: Duration,
    /// Why the newest version of the files was refused, if it was.
    pub flags_error: Option<String>,
    /// The warnings of `check` about the files in force.
    pub warnings: Vec<String>,
    /// The settings of the files in force that take effect at the next start.
    pub needs_restart: Vec<&'static str>,
    /// Whether the engine and its store take new runs.
    pub engine_healthy: bool,
    /// What is wrong with the store; `None` if it reports nothing.
    pub store_trouble: Option<String>,
    /// Why not all runs that the last process left have been resumed; `None` if all have.
    pub recovery_trouble: Option<String>,
    /// How the machine's clock differs from the process's time; `None` if they differ by at most a minute.
    pub clock_trouble: Option<String>,
    /// The names of services that have no address; `None` if all have one.
    pub services_trouble: Option<String>,
    /// Why retry keys of requests that legacy served may be unknown; `None` if all are known.
    pub retry_keys_trouble: Option<String>,
    /// The instances whose owner is not known, as text.
    pub adoption_trouble: Option<String>,
    /// The instances of legacy for which nobody answers, as text.
    pub instances_trouble: Option<String>,
    /// Which processes that share the store have other files, as text.
    pub processes_trouble: Option<String>,
    /// Whether the process is stopping.
    pub stopping: bool,
    /// The number of runs that have a task now; a waiting run has none.
    pub runs_in_flight: u64,
    /// The oldest of the runs that this process cannot resume.
    pub stuck: Vec<StuckRun>,
    /// How many more runs cannot be resumed, beyond those in `stuck`.
    pub stuck_more: u64,
    /// The load of the shadow executor.
    pub shadow: ShadowLoad,
    /// The process that this one took over from, or that it hands over to; `None` if there is neither.
    pub succession: Option<String>,
    /// The listener for calls that legacy makes, if there is one.
    pub egress: Option<EgressStatus>,
    /// Why a start of a run would be refused now; `None` if it would be accepted.
    pub not_ready: Option<String>,
}

/// The traffic of a route since the process started.
#[derive(Clone, Copy, Debug, Default)]
pub struct RouteTraffic {
    /// Requests answered.
    pub requests: u64,
    /// The median time that the proxy added to a request, in microseconds.
    pub overhead_p50_us: Option<f64>,
}

/// The part of the ladder that the API uses.
pub trait LadderControl: Send + Sync {
    /// The flag set in force.
    fn flags(&self) -> Arc<FlagSet>;
    /// Moves a route.
    fn flip(&self, route: RouteId, request: ladder::MoveRequest) -> BoxFuture<'_, Result<Flipped, FlipError>>;
    /// Sets the kill switch.
    fn freeze(&self, to: Freeze, reason: Option<String>, by: String) -> BoxFuture<'_, Result<Frozen, FreezeError>>;
    /// Whether the freeze in force is not in the store yet.
    fn freeze_is_unrecorded(&self) -> bool {
        false
    }
    /// How many flips down are in force that are not in the store yet.
    fn unrecorded_flips(&self) -> usize {
        0
    }
    /// Releases what the guard of a route did.
    fn release_guard(
        &self,
        route: RouteId,
        release: ladder::GuardRelease,
    ) -> BoxFuture<'_, Result<GuardReleased, FlipError>>;
    /// The state of every route and what its next rung requires, in file order.
    fn status(&self) -> Vec<RouteStatus>;
    /// The same of one route; `None` if the files do not have it.
    fn status_of(&self, route: &RouteId) -> Option<RouteStatus>;
    /// See [`Ladder::evidence_now`].
    fn evidence_now(&self, _route: &RouteId, _of_candidate: bool) -> serde_json::Value {
        serde_json::Value::Null
    }
    /// The consequences that a person should know before the engine stops answering a route.
    fn horizon(&self, route: RouteId) -> BoxFuture<'_, Result<Vec<String>, FlipError>>;
}

/// Resolves when the run has ended, or waits for a person or a signal, or after the bound on the wait. Returns all
/// events of the run if they are in memory, `None` if they have to be read from the store.
pub type WaitForEndOrInput<'a> = BoxFuture<'a, Option<Vec<StoredEvent>>>;

/// The part of the engine that the API uses.
pub trait EngineControl: Send + Sync {
    /// See [`Engine::start`].
    fn start(&self, start: Start) -> BoxFuture<'_, Result<Started, StartError>>;
    /// See [`Engine::start_watched`].
    fn start_watched(
        &self,
        start: Start,
        within: Duration,
    ) -> BoxFuture<'_, Result<(Started, WaitForEndOrInput<'_>), StartError>> {
        async move {
            let started = self.start(start).await?;
            let run = started.run;
            Ok((started, self.wait_until_ended_or_awaits_input(run, within).map(|_| None).boxed()))
        }
        .boxed()
    }
    /// See [`Engine::plan_source`].
    fn plan_source(&self, _: &PlanId) -> Option<Arc<Value>> {
        None
    }
    /// See [`Engine::rerun`].
    fn rerun(&self, of: RunId, from: StepId, by: String) -> BoxFuture<'_, Result<Started, StartError>>;
    /// See [`Engine::give_command`].
    fn give_command(
        &self,
        run: RunId,
        command: ControlCommand,
        by: String,
    ) -> BoxFuture<'_, Result<RunSummary, CommandError>>;
    /// See [`Engine::wait_until_ended_or_awaits_input`].
    fn wait_until_ended_or_awaits_input(&self, run: RunId, within: Duration) -> BoxFuture<'_, Option<RunSummary>>;
    /// See [`Engine::wait_for_events_after`].
    fn wait_for_events_after(&self, run: RunId, seq: Seq, within: Duration) -> BoxFuture<'_, Option<Seq>>;
    /// See [`Engine::explain`].
    fn explain(&self, run: RunId) -> BoxFuture<'_, Result<Explanation, CommandError>>;
    /// See [`Engine::why_stuck`].
    fn why_stuck(&self, _run: RunId) -> Option<Arc<str>> {
        None
    }
}

impl EngineControl for Engine {
    fn start(&self, start: Start) -> BoxFuture<'_, Result<Started, StartError>> {
        Engine::start(self, start).boxed()
    }
    fn start_watched(
        &self,
        start: Start,
        within: Duration,
    ) -> BoxFuture<'_, Result<(Started, WaitForEndOrInput<'_>), StartError>> {
        Engine::start_watched(self, start, within).boxed()
    }
    fn plan_source(&self, id: &PlanId) -> Option<Arc<Value>> {
        Engine::plan_source(self, id)
    }
    fn rerun(&self, of: RunId, from: StepId, by: String) -> BoxFuture<'_, Result<Started, StartError>> {
        Engine::rerun(self, of, from, by).boxed()
    }
    fn give_command(
        &self,
        run: RunId,
        command: ControlCommand,
        by: String,
    ) -> BoxFuture<'_, Result<RunSummary, CommandError>> {
        Engine::give_command(self, run, command, by).boxed()
    }
    fn wait_until_ended_or_awaits_input(&self, run: RunId, within: Duration) -> BoxFuture<'_, Option<RunSummary>> {
        Engine::wait_until_ended_or_awaits_input(self, run, within).boxed()
    }
    fn wait_for_events_after(&self, run: RunId, seq: Seq, within: Duration) -> BoxFuture<'_, Option<Seq>> {
        Engine::wait_for_events_after(self, run, seq, within).boxed()
    }
    fn explain(&self, run: RunId) -> BoxFuture<'_, Result<Explanation, CommandError>> {
        Engine::explain(self, run).boxed()
    }
    fn why_stuck(&self, run: RunId) -> Option<Arc<str>> {
        Engine::why_stuck(self, run)
    }
}

impl LadderControl for Ladder {
    fn evidence_now(&self, route: &RouteId, of_candidate: bool) -> serde_json::Value {
        Ladder::evidence_now(self, route, of_candidate)
    }
    fn flags(&self) -> Arc<FlagSet> {
        Ladder::flags(self).load_full()
    }
    fn flip(&self, route: RouteId, request: ladder::MoveRequest) -> BoxFuture<'_, Result<Flipped, FlipError>> {
        async move { Ladder::flip(self, &route, request).await }.boxed()
    }
    fn freeze(&self, to: Freeze, reason: Option<String>, by: String) -> BoxFuture<'_, Result<Frozen, FreezeError>> {
        Ladder::freeze(self, to, reason, by).boxed()
    }
    fn freeze_is_unrecorded(&self) -> bool {
        Ladder::freeze_is_unrecorded(self)
    }
    fn unrecorded_flips(&self) -> usize {
        Ladder::unrecorded_flips(self)
    }
    fn release_guard(
        &self,
        route: RouteId,
        release: ladder::GuardRelease,
    ) -> BoxFuture<'_, Result<GuardReleased, FlipError>> {
        async move { Ladder::release_guard(self, &route, release).await }.boxed()
    }
    fn status(&self) -> Vec<RouteStatus> {
        Ladder::status(self)
    }
    fn status_of(&self, route: &RouteId) -> Option<RouteStatus> {
        Ladder::status_of(self, route)
    }
    fn horizon(&self, route: RouteId) -> BoxFuture<'_, Result<Vec<String>, FlipError>> {
        async move { Ladder::horizon(self, &route).await }.boxed()
    }
}
