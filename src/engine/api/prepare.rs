//! Prepares the run of a request to a route, or the reply that says why no run is created.
//!
//! Always true: nothing of the run has begun when `prepare` returns. The first event holds only those parts of the
//! request that the plan reads; credentials in it are sealed. Which arm or run owns the retry key is settled before
//! that, in the module `arm`.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout_at};

use crate::compare::{Body, InstanceIds, Observation};
use crate::engine::api::start;
use crate::engine::context::Core;
use crate::engine::machine::{refused_input, replies};
use crate::engine::ports::{decode, sealed_values};
use crate::engine::scheduler::load;
use crate::engine::snapshot::FilesSnapshot;
use crate::exchange::{ArmReply, ArmRequest};
use crate::expression::ReadPath;
use crate::flag::{InstanceId, SkipReason};
use crate::names::{JobId, RunId};
use crate::store::{RunBodies, RunFilter, StoreError};
use crate::workflow::{
    Creates, Event, FirstValues, Mode, Plan, RunStarted, RunStatus, SensitivePath, Taint, deeper_than, evolve, fold,
    may_create_instance, quotes_in_first_event,
};

/// The parts of a run that can be created for a request.
pub(in crate::engine) struct AdmittedRun {
    pub plan: Arc<Plan>,
    pub permit: Option<OwnedSemaphorePermit>,
    pub started: RunStarted,
    pub credentials: BTreeMap<String, String>,
    pub run_key: Option<Vec<u8>>,
    /// Of a follow-up whose instance has a twin: the ids of both.
    pub instance_ids: Option<InstanceIds>,
}

/// Checks whether a run can be created for this request now.
///
/// # Errors
/// No run can be created. The error is the reply to the caller.
pub(in crate::engine) async fn prepare(
    core: &Core,
    snapshot: &FilesSnapshot,
    request: &ArmRequest,
    run: RunId,
    may_fall_back: bool,
    deadline: Instant,
) -> Result<AdmittedRun, Box<ArmReply>> {
    let not_started = |reason, detail: &str| Err(Box::new(replies::not_started(may_fall_back, 503, reason, detail)));
    if *core.process.draining.borrow() {
        return not_started("shutting_down", "This process is shutting down");
    }
    // A new stored run waits until the runs that the last process left are resumed. Rehearsals, and runs of a route
    // with `keep: none`, are not stored and do not wait.
    if request.mode != Mode::Rehearse && request.keep && !core.schedule.why_unresumed.is_none() {
        return not_started("resuming_runs", "The runs that the last process left are not resumed yet");
    }
    let Some(plan) = request.workflow.as_ref().and_then(|name| snapshot.plans.get(name)).cloned() else {
        let name = request.workflow.as_ref().map_or("", |name| name.as_str());
        return not_started("no_workflow", &format!("There is no workflow `{name}`"));
    };
    let family = request.creates.as_ref().map(|(family, _)| family);
    // A request that may not fall back to legacy gets a run nevertheless; the collision has raised an alert.
    if may_fall_back && family.is_some_and(|family| core.ports.affinity.collided(family)) {
        return not_started("pin_collision", "Both arms have created an instance with the same id");
    }
    let permit = match core.permits_of(request.mode).map(|runs| runs.clone().try_acquire_owned()) {
        None => None,
        Some(Ok(permit)) => Some(permit),
        Some(Err(_)) => {
            let limit = match request.mode {
                Mode::Dark => {
                    "The dark share (shadow_service_share_percent) of the runs in flight (runs_in_flight_max)"
                }
                Mode::Real | Mode::Rehearse => "The limit of runs in flight (runs_in_flight_max)",
            };
            return not_started("too_many_runs", &format!("{limit} is reached"));
        }
    };
    let bounds = decode::DecodeBounds::of(&core.files.limits, &core.files.key_secret);
    let refused = |body: &Value, why: &[String]| bad_input(core, snapshot, &plan, request, run, body, why);
    let body = match decode::request_body(&request.request, &plan, bounds) {
        Ok(body) => body,
        Err(why) => return Err(Box::new(refused(&Value::Null, &[why]))),
    };
    if let Err(why) = plan.check_input(&body) {
        return Err(Box::new(refused(&body, &why)));
    }
    let instance = match load_instance(core, &plan, request, deadline).await {
        Ok(instance) => instance,
        Err(why) => {
            let mut reply = replies::not_started(may_fall_back, 503, "no_instance", why);
            if let ArmReply::Refused(_, report) = &mut reply {
                report.unresolved = Some((SkipReason::NoInstance, why.to_owned()));
            }
            return Err(Box::new(reply));
        }
    };
    let instance_ids = instance.ids.clone();
    match first_event(core, snapshot, &plan, request, run, &body, instance) {
        Ok((started, credentials, run_key)) => {
            Ok(AdmittedRun { plan, permit, started, credentials, run_key, instance_ids })
        }
        Err(why) => not_started("no_store_key", why),
    }
}

/// The reply to a request whose body the workflow refuses or cannot read: the one that `respond` declares for it, or a
/// problem document.
fn bad_input(
    core: &Core,
    snapshot: &FilesSnapshot,
    plan: &Arc<Plan>,
    request: &ArmRequest,
    run: RunId,
    body: &Value,
    why: &[String],
) -> ArmReply {
    let begun = first_event(core, snapshot, plan, request, run, body, InstanceFacts::default()).ok();
    let refused_run = begun.and_then(|(started, ..)| {
        let event = Event::RunStarted(Arc::new(started));
        let mut run = evolve(None, &event).ok()?;
        run.collect_sensitive(plan, [&event]);
        Some(run)
    });
    refused_input::reply(refused_run.as_ref(), plan, &snapshot.decision_inputs, why)
}

/// What is known about the instance that a request follows up.
#[derive(Default)]
struct InstanceFacts {
    /// The result of the run that created it: `id`, `input`, `output`, `status`; `None` where nothing reads it.
    value: Option<Arc<Value>>,
    /// The sensitive parts of the value.
    sensitive_paths: Vec<SensitivePath>,
    /// The ids of the instance and of its twin, where legacy owns the instance.
    ids: Option<InstanceIds>,
}

/// The value of `instance` in expressions, from the run that created it: `id`, `input`, `output`, `status`, and
/// `legacy_id` where legacy owns the instance and the run made its twin.
async fn load_instance(
    core: &Core,
    plan: &Plan,
    request: &ArmRequest,
    deadline: Instant,
) -> Result<InstanceFacts, &'static str> {
    let Some(instance) = &request.instance else { return Ok(InstanceFacts::default()) };
    if !plan.reads.iter().any(|path| path.root() == "instance") {
        // Nothing in the workflow needs the twin's id, but a comparison does.
        let ids = async {
            let of_twin = instance.run.filter(|_| request.mode != Mode::Real && request.instance_ids.is_some())?;
            let creator = timeout_at(deadline, creator_run(core, of_twin)).await.ok()?.ok()??;
            twin_ids(instance, own_id(request, creator.bodies.output.as_ref()))
        };
        return Ok(InstanceFacts { ids: ids.await, ..InstanceFacts::default() });
    }
    let run = instance.run.ok_or("It is not known which run created the instance")?;
    let no_answer = "The store does not say what is known of the instance";
    let creator = timeout_at(deadline, creator_run(core, run)).await.map_err(|_| no_answer)?;
    let CreatorRun { bodies, mode, status, sensitive_paths, job: _ } =
        creator.map_err(|_| no_answer)?.ok_or("Nothing is known of the instance")?;
    if request.mode == Mode::Real && mode != Mode::Real {
        // Its shared steps were rehearsed, so its results are not those of the instance.
        return Err("Legacy created the instance; the engine has only a dark run of it");
    }
    let shallow = |output: &Value| !deeper_than(output, decode::depth_max(&core.files.limits));
    let output = bodies.output.filter(shallow);
    let known_as = Value::from(&*instance.key.id);
    let (id, legacy_id) = match mode {
        Mode::Real => (known_as, Value::Null),
        Mode::Dark | Mode::Rehearse => (own_id(request, output.as_ref()), known_as),
    };
    let reads_id = |path: &ReadPath| path.root() == "instance" && path.part(0).is_none_or(|part| part == "id");
    if id.is_null() && plan.reads.iter().any(reads_id) {
        return Err("The twin's answer has no id of the instance");
    }
    let ids = if request.mode == Mode::Real { None } else { twin_ids(instance, id.clone()) };
    let value = serde_json::json!({
        "id": id,
        "legacy_id": legacy_id,
        "input": bodies.input,
        "output": output,
        "status": status.as_str(),
    });
    Ok(InstanceFacts { value: Some(Arc::new(value)), sensitive_paths, ids })
}

/// Legacy's id of an instance, and the one that the engine gave to its twin.
fn twin_ids(instance: &InstanceId, engine: Value) -> Option<InstanceIds> {
    let Value::String(engine) = engine else { return None };
    Some(InstanceIds { legacy: (*instance.key.id).to_owned(), engine })
}

/// The id that the engine gave to an instance's twin, as text like one from a path; null where its answer has none.
fn own_id(request: &ArmRequest, output: Option<&Value>) -> Value {
    let found = request.instance_ids.as_ref().zip(output).and_then(|(path, output)| path.query(output).first());
    match found {
        Some(Value::String(text)) => text.as_str().into(),
        Some(Value::Number(number)) => number.to_string().into(),
        Some(Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_)) | None => Value::Null,
    }
}

/// What is known of the run that created an instance.
struct CreatorRun {
    bodies: RunBodies,
    mode: Mode,
    status: RunStatus,
    sensitive_paths: Vec<SensitivePath>,
    job: Option<JobId>,
}

/// How many runs of a job are read for the newest output of an instance, besides the run that pinned it.
const RUNS_WITH_OUTPUT_MAX: usize = 20;

/// The newest run of the job that created an instance: a rerun supersedes the run that pinned the instance. While the
/// newest run has no output, the newest output of the earlier runs is used.
async fn creator_run(core: &Core, run: RunId) -> Result<Option<CreatorRun>, StoreError> {
    let Some(creator) = read_creator_run(core, run).await? else { return Ok(None) };
    if !creator.status.is_final() {
        return Ok(Some(creator));
    }
    let job = Some(creator.job.unwrap_or(JobId(run.0)));
    let filter = RunFilter { job, limit: RUNS_WITH_OUTPUT_MAX, ..RunFilter::default() };
    let runs = core.ports.store.runs(filter).await?;
    let Some(newest) = runs.first().filter(|newest| newest.run_id != run) else { return Ok(Some(creator)) };
    let Some(mut newest) = read_creator_run(core, newest.run_id).await? else { return Ok(None) };
    let mut older = runs.iter().skip(1).map(|summary| summary.run_id).filter(|id| *id != run);
    while newest.bodies.output.is_none() {
        match older.next() {
            Some(id) => {
                if let Some(read) = read_creator_run(core, id).await? {
                    newest.take_output_of(read);
                }
            }
            None => {
                newest.take_output_of(creator);
                break;
            }
        }
    }
    Ok(Some(newest))
}

impl CreatorRun {
    /// Takes the output of an earlier run. Parts that are sensitive in either run count as sensitive.
    fn take_output_of(&mut self, earlier: Self) {
        self.bodies.output = earlier.bodies.output;
        self.sensitive_paths.extend(earlier.sensitive_paths);
    }
}

/// Reads a run that created an instance: from its events, or from its summary if its events were purged.
async fn read_creator_run(core: &Core, run: RunId) -> Result<Option<CreatorRun>, StoreError> {
    let (input, output) = (SensitivePath::of(["instance", "input"]), SensitivePath::of(["instance", "output"]));
    let events = core.events(run).await?;
    if let Ok(mut creator) = fold(events.iter().map(|stored| &stored.event)) {
        let mut sensitive_paths = Vec::new();
        let bodies = RunBodies::of_run(&creator);
        if creator.holds_sensitive() {
            let plan = load::collect_sensitive(core, &mut creator, &events).await?;
            let taint = plan.and_then(|plan| Taint::of(&plan, &creator));
            // Without the run's plan it is not known which parts are sensitive, so all count as sensitive.
            let body = taint.map_or_else(|| vec![SensitivePath::whole()], |taint| taint.request_body());
            sensitive_paths.extend(body.iter().map(|path| input.then(path)));
            let answer = creator.answer().map(|answer| answer.sensitive_body()).unwrap_or_default();
            sensitive_paths.extend(answer.iter().map(|path| output.then(path)));
            // An answer that an earlier version recorded does not say where it quotes sensitive values of the run.
            for (value, at) in [(&bodies.input, &input), (&bodies.output, &output)] {
                let quotes = value.as_ref().map(|value| creator.quotes_in(value, at, &sensitive_paths));
                sensitive_paths.extend(quotes.unwrap_or_default());
            }
        }
        return Ok(Some(CreatorRun {
            bodies,
            mode: creator.started().mode,
            status: creator.status(),
            sensitive_paths,
            job: creator.started().job,
        }));
    }
    if !events.is_empty() {
        return Ok(None);
    }
    let (bodies, summary) = (core.ports.store.purged_run_bodies(run).await?, core.ports.store.run(run).await?);
    let Some((mut bodies, summary)) = bodies.zip(summary) else { return Ok(None) };
    let mut sensitive_paths = Vec::new();
    for (value, path) in [(&mut bodies.input, input), (&mut bodies.output, output)] {
        if value.as_mut().is_some_and(|value| sealed_values::open_value(&core.ports.sealer, run, value)) {
            sensitive_paths.push(path);
        }
    }
    Ok(Some(CreatorRun { bodies, mode: summary.mode, status: summary.status, sensitive_paths, job: summary.job }))
}

/// The run's first event, the credentials that the run may send on, and the sealed key to them.
type FirstEvent = (RunStarted, BTreeMap<String, String>, Option<Vec<u8>>);

/// The first event of the request's run.
fn first_event(
    core: &Core,
    snapshot: &FilesSnapshot,
    plan: &Plan,
    request: &ArmRequest,
    run: RunId,
    body: &Value,
    instance: InstanceFacts,
) -> Result<FirstEvent, &'static str> {
    let bounds = decode::DecodeBounds::of(&core.files.limits, &core.files.key_secret);
    let facts = decode::facts(&request.request, body, plan, bounds.bytes_mark);
    let durable = request.mode != Mode::Rehearse && request.keep;
    let sealed = match durable && !facts.credentials.is_empty() {
        true => {
            let sealed = core.ports.sealer.seal(run, &facts.credentials);
            Some(sealed.ok_or("The workflow reads credentials of the caller, and there is no store_key")?)
        }
        false => None,
    };
    let (sealed, run_key) = sealed.map(|sealed| (sealed.credentials, sealed.key)).unzip();
    let trace = request.request.caller_trace().and_then(|value| value.to_str().ok());
    let now = core.process.clock.now();
    let InstanceFacts { value: instance, mut sensitive_paths, ids: _ } = instance;
    let legacy = request.legacy.as_ref().zip(snapshot.legacy_reads(&plan.workflow)).map(|(legacy, reads)| {
        sensitive_paths.extend(reads.sensitive.iter().cloned());
        Arc::new(decode::legacy(legacy, &reads.paths, bounds))
    });
    let first = FirstValues {
        body,
        headers: &request.request.headers,
        kept: &facts.request,
        legacy: legacy.as_deref(),
        legacy_headers: request.legacy.as_ref().map(|legacy| legacy.headers()),
        instance: instance.as_deref(),
    };
    sensitive_paths.extend(quotes_in_first_event(plan, &first));
    let started = RunStarted {
        run,
        workflow: plan.workflow.clone(),
        plan: plan.id.clone(),
        mode: request.mode,
        route: Some(request.route.clone()),
        started: now,
        request: facts.request,
        credentials: facts.credentials.keys().cloned().collect(),
        sealed,
        legacy,
        instance,
        creates: creates(request, bounds),
        traceparent: trace.map(str::to_owned),
        job: None,
        parent: None,
        route_above: None,
        approval_above: None,
        bytes_marked: true,
        bytes_opaque: true,
        sensitive: !(plan.sensitive_values().is_empty() && sensitive_paths.is_empty()),
        sensitive_paths,
        child_before: false,
        rerun_of: None,
        pinned_before: Vec::new(),
        effects_before: None,
        deliveries_before: Vec::new(),
        by: None,
        until: start::deadline(plan, now),
    };
    Ok((started, facts.credentials, run_key))
}

/// The instance that the run creates: under the engine's own id, or, in a dark run, under the id that legacy gave it.
fn creates(request: &ArmRequest, bounds: decode::DecodeBounds) -> Option<Creates> {
    let (family, path) = request.creates.as_ref()?;
    let family = family.first_id();
    match request.mode {
        Mode::Rehearse => None,
        Mode::Real => Some(Creates::Engine { family: family.clone(), path: path.to_string() }),
        Mode::Dark => {
            let creates = |legacy: &&Arc<Observation>| may_create_instance(legacy.status().as_u16());
            let legacy: &Observation = request.legacy.as_ref().filter(creates)?;
            let Body::Whole(bytes) = legacy.body() else { return None };
            let body = decode::body_with_headers(legacy.headers(), bytes, bounds).ok()?;
            let id = match path.query(&body).first()? {
                Value::String(text) => text.clone(),
                Value::Number(number) => number.to_string(),
                Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return None,
            };
            Some(Creates::Twin { family: family.clone(), id })
        }
    }
}
