//! Runs that people and programs start.
//!
//! Always true: of all starts with one key, in this process and in earlier ones, one creates a run, and all return it.
//! The key is looked up before any check that may refuse a new run: the files may have changed since the first start.
//! A start returns only after the run's first event is durable. Such a run has no route and no caller: the value of
//! `respond` is its output.
//!
//! When the store refuses the first append, nothing was started. When it does not answer, the error says that the
//! outcome is unknown, and repeating the start with the same key starts no second run. Each answer of the store is
//! awaited for `command_wait_ms` at most, so a start does not wait for ever for a store that hangs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_TYPE, HeaderValue};
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

use crate::engine::api::prepared::{PreparedRun, Waiter};
use crate::engine::api::types::{Start, StartError, Started};
use crate::engine::context::Core;
use crate::engine::driver;
use crate::engine::files_snapshot::FilesSnapshot;
use crate::engine::kill_switch::Operation;
use crate::engine::machine::{RecoveryPause, StartAnswer};
use crate::engine::ports::decode;
use crate::engine::run_trace;
use crate::engine::scheduler::registry::{KeyTaken, Registration};
use crate::engine::scheduler::successors;
use crate::exchange::RequestCopy;
use crate::limits::Limits;
use crate::names::{JobId, PlanId, RunId, WorkflowName};
use crate::store::{Claim, ClaimedRequest, StoredFirstTry};
use crate::workflow::{
    ApprovalAbove, BytesMark, Event, FirstValues, Mode, Parent, Plan, RouteAbove, RunStarted, SensitivePath,
    quotes_in_first_event,
};

/// The request path that expressions see in a run that was started through the API, not by a route.
const REQUEST_PATH: &str = "/api/v2/orchestrate/run";

/// The content of the first event of a run that no route started, besides its plan and input.
pub(in crate::engine) struct StartContext {
    pub mode: Mode,
    pub by: Option<String>,
    pub job: Option<JobId>,
    pub parent: Option<Parent>,
    pub route_above: Option<RouteAbove>,
    /// See [`RunStarted::child_plans`].
    pub child_plans: Option<Arc<BTreeMap<WorkflowName, PlanId>>>,
    pub approval_above: Option<ApprovalAbove>,
    /// The parts of legacy's reply that the run's plan and those of its child runs read.
    pub legacy: Option<Arc<Value>>,
    pub traceparent: Option<String>,
    /// The latest end of the run.
    pub until: Option<Timestamp>,
    /// Distinguishes the engine's encoding of raw bytes from JSON that looks like it.
    pub bytes_mark: BytesMark,
    /// The sensitive parts of the run's first event, as declared by whoever begins it.
    pub sensitive_paths: Vec<SensitivePath>,
}

/// The time by which a run that starts now has to end: the `deadline` of its plan.
pub(in crate::engine) fn deadline(plan: &Plan, now: Timestamp) -> Option<Timestamp> {
    plan.deadline.and_then(|deadline| now.checked_add(deadline).ok())
}

/// The first event of a run that no route started. Expressions see its input as the body of a POST request: as JSON,
/// or, where it is bytes, as those bytes with their content type.
pub(in crate::engine) fn first_event(
    plan: &Plan,
    run: RunId,
    input: &Value,
    context: StartContext,
    now: Timestamp,
) -> RunStarted {
    let (body, content_type) = match context.bytes_mark.bytes(input) {
        Some((payload, content_type)) => (payload.bytes(), content_type),
        None => (input.to_string().into_bytes(), Some("application/json".to_owned())),
    };
    let mut headers = HeaderMap::new();
    if let Some(Ok(content_type)) = content_type.as_deref().map(HeaderValue::from_str) {
        headers.insert(CONTENT_TYPE, content_type);
    }
    let request = RequestCopy {
        method: http::Method::POST,
        path: REQUEST_PATH.to_owned(),
        query: None,
        params: Vec::new(),
        headers,
        traceparent: None,
        body: Bytes::from(body),
        peer: [127, 0, 0, 1].into(),
    };
    let facts = decode::facts(&request, input, plan, context.bytes_mark);
    let StartContext {
        mode,
        by,
        job,
        parent,
        route_above,
        child_plans,
        approval_above,
        legacy,
        traceparent,
        until,
        bytes_mark: _,
        mut sensitive_paths,
    } = context;
    let (kept, legacy_kept) = (&*facts.request, legacy.as_deref());
    let first = FirstValues {
        body: input,
        headers: &request.headers,
        kept,
        legacy: legacy_kept,
        legacy_headers: None,
        instance: None,
    };
    sensitive_paths.extend(quotes_in_first_event(plan, &first));
    let injected = plan.inject.as_ref().and_then(|inject| inject.values(mode, &facts.request, legacy.as_ref()));
    let until = [until, deadline(plan, now)].into_iter().flatten().min();
    RunStarted {
        run,
        workflow: plan.workflow.clone(),
        plan: plan.id.clone(),
        mode,
        route: None,
        child_plans,
        started: now,
        request: facts.request,
        credentials: Vec::new(),
        sealed: None,
        injected,
        legacy,
        instance: None,
        creates: None,
        traceparent,
        job,
        parent,
        route_above,
        approval_above,
        bytes_marked: true,
        bytes_opaque: true,
        sensitive: !(plan.sensitive_values().is_empty() && sensitive_paths.is_empty()),
        sensitive_paths,
        child_before: false,
        rerun_of: None,
        pinned_before: Vec::new(),
        effects_before: None,
        deliveries_before: Vec::new(),
        by,
        until,
    }
}

/// Starts a run. If this call creates the run, `before_create` is called first: a subscription made there misses no
/// event.
pub(in crate::engine) async fn start(
    core: &Arc<Core>,
    start: Start,
    before_create: impl FnOnce(RunId) + Send,
) -> Result<Started, StartError> {
    let Start { workflow, input, by, key } = start;
    let claim = key.map(|(key, request)| Claim::new(key, request));
    let run = RunId(core.process.new_id());
    let registration = match register(core, run, claim).await? {
        KeyOwner::New(registration) => registration,
        KeyOwner::Earlier(other) => return earlier_start(core, other).await,
    };
    let snapshot = core.files.snapshot.load_full();
    let plan = plan_of(&snapshot, &workflow)?;
    refuse_adoption(&plan)?;
    plan.check_input(&input).map_err(StartError::BadInput)?;
    refuse_while_recovering(core)?;
    let permit = acquire_permit(core)?;
    let context = StartContext {
        mode: Mode::Real,
        by: Some(by),
        job: None,
        parent: None,
        route_above: None,
        child_plans: None,
        approval_above: None,
        legacy: None,
        traceparent: run_trace::of_first_run(run),
        until: None,
        bytes_mark: core.bytes_mark(),
        sensitive_paths: Vec::new(),
    };
    let started = first_event(&plan, run, &input, context, core.process.clock.now());
    let (credentials, run_key) = Default::default();
    before_create(run);
    let new = NewRun { plan, started, taken_over: Vec::new(), pause: None, credentials, run_key, claim };
    create(core, new, registration, permit).await
}

/// The plan of a workflow in the files in force.
pub(in crate::engine) fn plan_of(snapshot: &FilesSnapshot, workflow: &WorkflowName) -> Result<Arc<Plan>, StartError> {
    snapshot.plans.get(workflow).cloned().ok_or_else(|| StartError::UnknownWorkflow {
        workflow: workflow.as_str().to_owned(),
        known: snapshot.plans.keys().map(|name| name.as_str().to_owned()).collect(),
    })
}

/// Refuses to begin a run of a workflow that adopts instances, other than for a claimed instance: it would make legacy
/// release one that nobody has claimed.
pub(in crate::engine) fn refuse_adoption(plan: &Plan) -> Result<(), StartError> {
    let why =
        "this workflow adopts instances of legacy: it begins only for an instance that was claimed (`pointsman adopt`)";
    plan.adoption.as_ref().map_or(Ok(()), |_| Err(StartError::Invalid(why.to_owned())))
}

/// Refuses a start while the runs that the last process left are not resumed yet.
pub(in crate::engine) fn refuse_while_recovering(core: &Core) -> Result<(), StartError> {
    let refused =
        |why| StartError::Unavailable(format!("the runs that the last process left are not resumed yet: {why}"));
    core.schedule.why_unresumed.get().map_or(Ok(()), |why| Err(refused(why)))
}

/// A permit for one more run.
///
/// # Errors
/// The process is draining, or the limit of runs in flight is reached.
pub(in crate::engine) fn acquire_permit(core: &Core) -> Result<OwnedSemaphorePermit, StartError> {
    if *core.process.draining.borrow() {
        return Err(StartError::Unavailable("this process is shutting down".into()));
    }
    let full = |_| StartError::Unavailable("the limit of runs in flight (runs_in_flight_max) is reached".into());
    core.schedule.real_permits.clone().try_acquire_owned().map_err(full)
}

/// The parts from which a run is created.
pub(in crate::engine) struct NewRun {
    pub plan: Arc<Plan>,
    pub started: RunStarted,
    /// Events that a rerun takes over from the run that it supersedes.
    pub taken_over: Vec<Event>,
    /// Pauses the run before it does anything.
    pub pause: Option<RecoveryPause>,
    pub credentials: BTreeMap<String, String>,
    pub run_key: Option<Vec<u8>>,
    pub claim: Option<Claim>,
}

/// Creates a run; returns when its first event is durable.
///
/// # Errors
/// The store refused the first append, its outcome is unknown (also after `command_wait_ms`), or a freeze forbids it.
pub(in crate::engine) async fn create(
    core: &Arc<Core>,
    new_run: NewRun,
    registration: Registration,
    permit: OwnedSemaphorePermit,
) -> Result<Started, StartError> {
    let NewRun { plan, started, taken_over, pause, credentials, run_key, claim } = new_run;
    let store = |why: String, unknown| StartError::Store { why, unknown };
    core.run_tasks.supervise(core);
    let (id, job, plan_id, adopts) = (started.run, started.job, plan.id.clone(), plan.adoption.is_some());
    let prepared = PreparedRun::new(plan, started, core.files.snapshot.load_full());
    let prepared = prepared.map_err(|misfit| store(misfit.to_string(), false))?;
    let summary = Box::new(prepared.run.summary(prepared.run.started().started));
    let until = Instant::now() + answer_within(core);
    let late = |_| {
        let how = format!("if it was started, `pointsman runs show {id}` will find it once the store answers");
        store(format!("the store has not confirmed {id} in time (command_wait_ms); {how}"), true)
    };
    // A task may hold the slot to deliver a command: the id of a successor is known before its first append.
    let slot = core.schedule.mailboxes.claim_free_slot(&core.schedule.timers, id);
    let slot_is_held = |_| {
        let why = "another task did not release the slot in time (command_wait_ms); this start has written nothing";
        store(format!("{id}: {why}"), false)
    };
    let slot = Some(timeout_at(until, slot).await.map_err(slot_is_held)?);
    let prepared = PreparedRun { credentials, run_key, claim, registration: Some(registration), slot, ..prepared };
    let (answer_sender, answer) = oneshot::channel();
    let mut driver = prepared.driver(core, Waiter::Starter(answer_sender));
    driver.record_taken_over(taken_over).map_err(|why| store(why, false))?;
    driver.pause_before_start(pause);
    // An adoption obeys a freeze, a start by the API does not. Nothing is awaited until the task is spawned.
    let permit_to_begin = core.process.kill_switch.begin(Operation::Run);
    if adopts && permit_to_begin.is_none() {
        return Err(StartError::Unavailable("new instances of the engine are frozen".to_owned()));
    }
    driver::spawn_in_engine(core, driver, Some(permit));
    drop(permit_to_begin);
    // If the answer is late, the run's task goes on nevertheless.
    match timeout_at(until, answer).await.map_err(late)? {
        Ok(StartAnswer::Stored) => {
            Ok(Started { run: id, job: job.unwrap_or(JobId(id.0)), plan: plan_id, is_new: true, summary })
        }
        Ok(StartAnswer::OtherRun { run, request: ClaimedRequest::Same }) => earlier_start(core, run).await,
        Ok(StartAnswer::OtherRun { run, request: ClaimedRequest::Other | ClaimedRequest::UnderAnotherCredential }) => {
            Err(StartError::KeyReused(run))
        }
        Ok(StartAnswer::NotStored(why)) => Err(store(why, false)),
        Ok(StartAnswer::Unknown(why)) => Err(store(why, true)),
        Err(_) => Err(store("the run's task ended before the store confirmed the run".into(), true)),
    }
}

/// How long a start waits for each answer of the store.
fn answer_within(core: &Core) -> Duration {
    Limits::ms(core.files.limits.command_wait_ms)
}

/// The error if the store does not answer about a key within [`answer_within`].
fn key_unknown() -> StartError {
    let why = "the store does not say in time whether the key was used before (command_wait_ms)";
    StartError::Store { why: why.to_owned(), unknown: true }
}

/// The run that owns a retry key: the one just registered, or an earlier one that is durable.
#[expect(clippy::large_enum_variant, reason = "the large one is the usual one")]
pub(in crate::engine) enum KeyOwner {
    /// The run that was registered with it.
    New(Registration),
    /// An earlier run, which is on disk.
    Earlier(RunId),
}

/// Registers the run and its key. Returns the run that has the key already, if that run is on disk.
///
/// # Errors
/// The key belongs to another request; or within `command_wait_ms` the store does not tell whether the key was used
/// before, or whether the run that has it is on disk.
pub(in crate::engine) async fn register(
    core: &Arc<Core>,
    run: RunId,
    claim: Option<Claim>,
) -> Result<KeyOwner, StartError> {
    timeout(answer_within(core), claim_key(core, run, claim)).await.unwrap_or_else(|_| Err(key_unknown()))
}

async fn claim_key(core: &Arc<Core>, run: RunId, claim: Option<Claim>) -> Result<KeyOwner, StartError> {
    loop {
        let registration = match core.schedule.registry.register(run, claim) {
            Ok(registration) => registration,
            Err(KeyTaken { run, request, mut durable, .. }) => {
                if durable.wait_for(|durable| *durable).await.is_ok() {
                    let is_same = claim.is_none_or(|claim| claim.request == request);
                    return if is_same { Ok(KeyOwner::Earlier(run)) } else { Err(StartError::KeyReused(run)) };
                }
                // The other run's task ended without a durable event, or with an unknown outcome: the store shows
                // which.
                tokio::task::yield_now().await;
                continue;
            }
        };
        let Some(claim) = claim else { return Ok(KeyOwner::New(registration)) };
        return match core.ports.store.first_try(claim.key).await {
            Ok(Some(StoredFirstTry { run: Some(run), request, .. })) => match request {
                Some(request) if request != claim.request => Err(StartError::KeyReused(run)),
                _ => Ok(KeyOwner::Earlier(run)),
            },
            Ok(_) => Ok(KeyOwner::New(registration)),
            Err(error) => Err(StartError::Store {
                why: format!("the store does not say whether the key was used before: {error}"),
                unknown: true,
            }),
        };
    }
}

/// The run that an earlier start with the same key created, or the newest run of its job where retention has removed
/// that one.
async fn earlier_start(core: &Core, run: RunId) -> Result<Started, StartError> {
    let stored = async {
        match core.ports.store.run(run).await? {
            Some(summary) => Ok(Some(summary)),
            None => match successors::newest_after(core, run, None).await? {
                Some(newest) => core.ports.store.run(newest).await,
                None => Ok(None),
            },
        }
    };
    let late = || StartError::Store {
        why: format!("the key belongs to {run}, and the store does not return that run in time (command_wait_ms)"),
        unknown: true,
    };
    match timeout(answer_within(core), stored).await.map_err(|_| late())? {
        Ok(Some(summary)) => {
            let (id, job, plan) = (summary.run_id, summary.job.unwrap_or(JobId(run.0)), summary.plan_id.clone());
            Ok(Started { run: id, job, plan, is_new: false, summary: Box::new(summary) })
        }
        Ok(None) => Err(StartError::Store {
            why: format!(
                "the key belongs to {run}, and the store has no such run: use another key, or check the store (`pointsman store check`)"
            ),
            unknown: true,
        }),
        Err(error) => Err(StartError::Store { why: error.to_string(), unknown: true }),
    }
}
