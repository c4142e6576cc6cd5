//! One request to the engine's arm, from its checks to its reply.
//!
//! Always true: whatever happens to the run, the caller is told something within its deadline; a request of which no
//! run was made has done nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use super::client::Executor;
use super::clock::Clock;
use super::driver::{Caller, Driver, Parts, Told};
use super::journal::{Journal, Keeper};
use super::pins::Took;
use super::registry::{Held, Place, Verdict, Word};
use super::replies;
use super::snapshot::Snapshot;
use super::{Core, decode};
use crate::compare::{Body, Observation};
use crate::exchange::{ArmReply, ArmRequest, RequestCopy};
use crate::flag::{Arm, InstanceId, SkipReason};
use crate::names::{RouteId, RunId, Seq};
use crate::store::{Claim, FirstTry, Priority};
use crate::workflow::{Creates, Event, Mode, Plan, RunStarted, deeper_than, evolve, fold, input_refused};

/// What is kept of the caller's time for a look into the store.
const LOOK: Duration = Duration::from_millis(50);

/// Answers a request.
pub(super) async fn handle(core: Arc<Core>, request: ArmRequest) -> ArmReply {
    let deadline = Instant::now() + request.deadline;
    let fall_back = request.may_fall_back && request.mode == Mode::Real;
    let snapshot = core.snapshot.load_full();
    let run = RunId(Uuid::now_v7());
    let claim = claim(&request);
    // First of all: whatever is in the way of a new run must not send a retry to legacy.
    let mut place = match take_place(&core, &snapshot, run, &request.route, claim, fall_back, deadline).await {
        Ok(place) => place,
        Err(reply) => return *reply,
    };
    let New { plan, permit, started, credentials, run_key } =
        match prepare(&core, &snapshot, &request, run, fall_back, deadline).await {
            Ok(new) => new,
            Err(reply) => {
                if matches!(*reply, ArmReply::Abandoned(_)) {
                    place.give_back(&core.pins);
                }
                return *reply;
            }
        };
    let Ok(born) = evolve(None, &Event::RunStarted(Arc::new(started))) else {
        return problem(run, "the run was not born");
    };
    let (tell, told) = oneshot::channel();
    // A little of the time is kept for writing down what is said when it is over.
    let until = deadline - (request.deadline / 4).min(Duration::from_millis(250));
    let (executor, keeper, priority) = core.of_mode(request.mode, &plan, run_key);
    let mut driver = Driver::new(Parts {
        core: core.clone(),
        snapshot: snapshot.clone(),
        plan,
        clock: Clock::starting(born.started().started),
        run: born,
        credentials,
        executor,
        journal: Journal::new(keeper, priority, claim, Seq(0)),
        caller: Some(Caller { tell, may_fall_back: fall_back, until }),
        place: Some(place),
    });
    driver.born();
    core.spawn(driver, permit);

    match timeout_at(deadline, told).await {
        Ok(Ok(Told::Reply(reply))) => *reply,
        Ok(Ok(Told::Other { run, same_request: false })) => replies::other_request(run),
        Ok(Ok(Told::Other { run, same_request: true })) => {
            let word = core.registry.word(run);
            match attach(&core, &snapshot, run, word, fall_back, deadline).await {
                Some(reply) => reply,
                None => problem(run, "it left nothing"),
            }
        }
        Ok(Err(_)) => problem(run, "the run's task ended"),
        Err(_) => problem(run, "the store did not answer in time"),
    }
}

/// All that a new run is made of.
struct New {
    plan: Arc<Plan>,
    permit: Option<OwnedSemaphorePermit>,
    started: RunStarted,
    credentials: BTreeMap<String, String>,
    run_key: Option<Vec<u8>>,
}

/// Whether a run of this request can be made now; nothing has begun by then.
async fn prepare(
    core: &Core,
    snapshot: &Snapshot,
    request: &ArmRequest,
    run: RunId,
    fall_back: bool,
    deadline: Instant,
) -> Result<New, Box<ArmReply>> {
    let not_started = |reason, detail: &str| Err(Box::new(replies::not_started(fall_back, 503, reason, detail)));
    if *core.draining.borrow() {
        return not_started("shutting_down", "This process is shutting down");
    }
    let Some(plan) = snapshot.plans.get(&request.workflow).cloned() else {
        return not_started("no_workflow", &format!("There is no workflow `{}`", request.workflow));
    };
    let family = request.creates.as_ref().map(|(family, _)| family);
    // Where legacy may not answer in its stead the alert has to do.
    if fall_back && family.is_some_and(|family| core.pins.collided(family)) {
        return not_started("pin_collision", "Both arms have given out one id");
    }
    let permit = match core.runs_of(request.mode).map(|runs| runs.clone().try_acquire_owned()) {
        None => None,
        Some(Ok(permit)) => Some(permit),
        Some(Err(_)) => {
            return not_started("too_many_runs", "As many runs are in flight as may be (runs_in_flight_max)");
        }
    };
    let body = decode::request_body(&request.request, decode::depth_max(&core.limits));
    if let Err(why) = plan.check_input(&body) {
        return Err(Box::new(bad_input(core, snapshot, &plan, request, run, &body, &why)));
    }
    let instance = match load_instance(core, &plan, request.instance.as_ref(), deadline).await {
        Ok(instance) => instance,
        Err(why) => {
            let mut reply = replies::not_started(fall_back, 503, "no_instance", why);
            if let ArmReply::Refused(_, report) = &mut reply {
                report.unresolved = Some((SkipReason::NoInstance, why.to_owned()));
            }
            return Err(Box::new(reply));
        }
    };
    match birth(core, &plan, request, run, &body, instance) {
        Ok((started, credentials, run_key)) => Ok(New { plan, permit, started, credentials, run_key }),
        Err(why) => not_started("no_store_key", why),
    }
}

/// What a request gets whose body the workflow does not take: what `respond` says of it, or a problem.
fn bad_input(
    core: &Core,
    snapshot: &Snapshot,
    plan: &Plan,
    request: &ArmRequest,
    run: RunId,
    body: &Value,
    why: &[String],
) -> ArmReply {
    let declared = birth(core, plan, request, run, body, None).ok().and_then(|(started, ..)| {
        let never_begun = evolve(None, &Event::RunStarted(Arc::new(started))).ok()?;
        input_refused(&never_begun, plan, &snapshot.world, &why.join("; "))
    });
    match declared {
        Some(answer) => replies::answered(&answer, Default::default()),
        None => replies::bad_input(why),
    }
}

/// What takes the retry key with the run's first append.
fn claim(request: &ArmRequest) -> Option<Claim> {
    match request.mode {
        Mode::Real => request.retry_key.map(|key| Claim { key, request: request_hash(&request.request) }),
        Mode::Rehearse | Mode::Dark => None,
    }
}

/// Makes sure that nobody else has the retry key, in this process or on disk: another run's answer is this request's
/// too, and what legacy took is legacy's. Only then may a failure give the request back to legacy.
async fn take_place(
    core: &Core,
    snapshot: &Snapshot,
    run: RunId,
    route: &RouteId,
    claim: Option<Claim>,
    fall_back: bool,
    deadline: Instant,
) -> Result<Place, Box<ArmReply>> {
    let mut place = loop {
        match core.registry.take(run, claim) {
            Ok(place) => break place,
            Err(Held { run, same_request: false, .. }) => return Err(Box::new(replies::other_request(run))),
            Err(Held { run, word, .. }) => {
                // A run that came to nothing leaves the key to the next.
                if let Some(reply) = attach(core, snapshot, run, word, fall_back, deadline).await {
                    return Err(Box::new(reply));
                }
                if Instant::now() >= deadline {
                    return Err(Box::new(problem(run, "it had no answer in time")));
                }
                tokio::task::yield_now().await;
            }
        }
    };
    let Some(claim) = claim else { return Ok(place) };
    match core.pins.take_for_engine(claim.key, route) {
        Took::Fresh => place.hold(core.pins.clone(), claim.key),
        Took::Again => {}
        Took::Others => return Err(Box::new(replies::taken_by_legacy(fall_back))),
    }
    match timeout_at(deadline, core.store.first_try(claim.key)).await {
        Ok(Ok(Some(FirstTry { run: Some(run), request, .. }))) => {
            place.keep();
            drop(place);
            if request.is_some_and(|request| request != claim.request) {
                return Err(Box::new(replies::other_request(run)));
            }
            let word = core.registry.word(run);
            let reply = attach(core, snapshot, run, word, fall_back, deadline).await;
            Err(Box::new(reply.unwrap_or_else(|| problem(run, "it left nothing"))))
        }
        Ok(Ok(Some(FirstTry { arm: Arm::Legacy, .. }))) => {
            place.give_back(&core.pins);
            Err(Box::new(replies::taken_by_legacy(fall_back)))
        }
        Ok(Ok(_)) => Ok(place),
        Ok(Err(_)) | Err(_) => {
            let why = "the store does not say whether an earlier try was taken";
            Err(Box::new(ArmReply::Refused(replies::unknown_of(None, why, None), Default::default())))
        }
    }
}

fn problem(run: RunId, why: &str) -> ArmReply {
    let report = crate::exchange::RunReport { run: Some(run), ..Default::default() };
    ArmReply::Refused(replies::unknown_of(Some(run), why, None), report)
}

/// What the run that created the instance left: `id`, `input`, `output`, `status`.
async fn load_instance(
    core: &Core,
    plan: &Plan,
    instance: Option<&InstanceId>,
    deadline: Instant,
) -> Result<Option<Arc<Value>>, &'static str> {
    let Some(instance) = instance else { return Ok(None) };
    if !plan.reads.iter().any(|path| path.root() == "instance") {
        return Ok(None);
    }
    let run = instance.run.ok_or("It is not known which run created the instance")?;
    let events = match timeout_at(deadline, core.store.events(run, Seq::FIRST)).await {
        Ok(Ok(events)) => events,
        Ok(Err(_)) | Err(_) => return Err("The store does not say what is known of the instance"),
    };
    let run = fold(events.iter().map(|stored| &stored.event)).map_err(|_| "Nothing is known of the instance")?;
    let shallow = |output: &Value| !deeper_than(output, decode::depth_max(&core.limits));
    Ok(Some(Arc::new(serde_json::json!({
        "id": &*instance.key.id,
        "input": run.started().request.get("body"),
        "output": run.answer().map(|answer| answer.body.value()).filter(shallow),
        "status": run.status().as_str(),
    }))))
}

/// The run's first fact, the credentials that it may send on, and the sealed key to them.
type Born = (RunStarted, BTreeMap<String, String>, Option<Vec<u8>>);

/// What a request becomes.
fn birth(
    core: &Core,
    plan: &Plan,
    request: &ArmRequest,
    run: RunId,
    body: &Value,
    instance: Option<Arc<Value>>,
) -> Result<Born, &'static str> {
    let facts = decode::facts(&request.request, body, plan);
    let durable = request.mode != Mode::Rehearse;
    let sealed = match durable && !facts.credentials.is_empty() {
        true => {
            let sealed = core.sealer.seal(run, &facts.credentials);
            Some(sealed.ok_or("The workflow reads credentials of the caller, and there is no store_key")?)
        }
        false => None,
    };
    let (sealed, run_key) = sealed.map(|sealed| (sealed.credentials, sealed.key)).unzip();
    let depth_max = decode::depth_max(&core.limits);
    let legacy = request.legacy.as_ref().and_then(|legacy| decode::legacy(legacy, &plan.reads, depth_max));
    let trace = request.request.headers.get("traceparent").and_then(|value| value.to_str().ok());
    let started = RunStarted {
        run,
        workflow: plan.workflow.clone(),
        plan: plan.id.clone(),
        mode: request.mode,
        route: Some(request.route.clone()),
        started: Timestamp::now(),
        request: facts.request,
        credentials: facts.credentials.keys().cloned().collect(),
        sealed,
        legacy: legacy.map(Arc::new),
        instance,
        creates: creates(request, depth_max),
        traceparent: trace.map(str::to_owned),
    };
    Ok((started, facts.credentials, run_key))
}

/// What the answer will create: under the engine's own id, or, of a dark run, under legacy's.
fn creates(request: &ArmRequest, depth_max: usize) -> Option<Creates> {
    let (family, path) = request.creates.as_ref()?;
    match request.mode {
        Mode::Rehearse => None,
        Mode::Real => Some(Creates::Engine { family: family.clone(), path: path.to_string() }),
        Mode::Dark => {
            let legacy: &Observation = request.legacy.as_ref().filter(|legacy| legacy.status().is_success())?;
            let Body::Whole(bytes) = legacy.body() else { return None };
            let content_type = legacy.headers().get(http::header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
            let body = decode::body(bytes, content_type, depth_max).ok()?;
            let id = match path.query(&body).first()? {
                Value::String(text) => text.clone(),
                Value::Number(number) => number.to_string(),
                Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return None,
            };
            Some(Creates::Twin { family: family.clone(), id })
        }
    }
}

/// What makes two requests with one retry key the same.
fn request_hash(request: &RequestCopy) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    let method: &Method = &request.method;
    for part in [method.as_str().as_bytes(), request.path.as_bytes(), request.query.as_deref().unwrap_or("").as_bytes()]
    {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.update(&request.body);
    *hasher.finalize().as_bytes()
}

/// The answer of another run that has the same retry key: what it is, or will be within the deadline. `None` where
/// that run left nothing.
async fn attach(
    core: &Core,
    snapshot: &Snapshot,
    id: RunId,
    word: Option<Word>,
    fall_back: bool,
    deadline: Instant,
) -> Option<ArmReply> {
    // The rest is for a look into the store.
    let until = deadline.checked_sub(LOOK).unwrap_or(deadline);
    if let Some(mut word) = word
        && let Ok(Ok(verdict)) = timeout_at(until, word.wait_for(Option::is_some)).await
    {
        match verdict.clone() {
            Some(Verdict::Said(reply)) => return Some(replies::said(*reply, fall_back)),
            Some(Verdict::Run(run)) => {
                let plan = snapshot.plan(&run.started().plan);
                if let Some(reply) = replies::of_run(&run, plan.as_deref(), &snapshot.world, fall_back) {
                    return Some(reply);
                }
            }
            None => {}
        }
    }
    let events = match timeout_at(deadline, core.store.events(id, Seq::FIRST)).await {
        Ok(Ok(events)) if events.is_empty() => return None,
        Ok(Ok(events)) => events,
        Ok(Err(_)) | Err(_) => return Some(problem(id, "the store does not answer")),
    };
    let Ok(run) = fold(events.iter().map(|stored| &stored.event)) else {
        return Some(problem(id, "the run's events cannot be read"));
    };
    let plan = snapshot.plan(&run.started().plan);
    let reply = replies::of_run(&run, plan.as_deref(), &snapshot.world, fall_back);
    Some(reply.unwrap_or_else(|| match plan {
        Some(plan) => replies::still_running(&run, &plan, &snapshot.world),
        None => problem(id, "the run has no answer yet"),
    }))
}

impl Core {
    /// Whose places a durable run takes: dark ones have a share of their own, so that they never keep a caller out.
    pub(super) fn runs_of(&self, mode: Mode) -> Option<&Arc<Semaphore>> {
        match mode {
            Mode::Rehearse => None, // the shadow executor has bounds of its own
            Mode::Dark => Some(&self.dark_runs),
            Mode::Real => Some(&self.runs),
        }
    }

    /// What a mode works with.
    pub(super) fn of_mode(
        &self,
        mode: Mode,
        plan: &Arc<Plan>,
        run_key: Option<Vec<u8>>,
    ) -> (Arc<dyn Executor>, Option<Keeper>, Priority) {
        let keeper = Keeper {
            store: self.store.clone(),
            pins: self.pins.clone(),
            plans: self.kept_plans.clone(),
            plan: plan.clone(),
            run_key,
        };
        match mode {
            Mode::Rehearse => (self.rehearsing.clone(), None, Priority::Dark),
            Mode::Dark => (self.sending_dark.clone(), Some(keeper), Priority::Dark),
            Mode::Real => (self.sending_real.clone(), Some(keeper), Priority::Live),
        }
    }
}
