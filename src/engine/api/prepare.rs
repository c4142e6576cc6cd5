//! Prepares the run of a request to a route, or the reply that says why no run is created.
//!
//! Always true: nothing of the run has begun when `prepare` returns. The first event holds only those parts of the
//! request that the plan reads; credentials in it are sealed. Which arm or run owns the retry key is settled before
//! that, in the module `arm`.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use crate::compare::{Body, InstanceIds, Observation};
use crate::engine::api::instance_facts::{InstanceFacts, load_instance, recorded_instance, unknown_instance};
use crate::engine::api::start;
use crate::engine::api::unknown_instance::{WithoutInstance, judge};
use crate::engine::context::Core;
use crate::engine::files_snapshot::FilesSnapshot;
use crate::engine::machine::{refused_input, replies};
use crate::engine::ports::decode;
use crate::exchange::{ArmReply, ArmRequest, MayBegin, ProblemDocument, Reads, RunReport};
use crate::expression::id_spellings;
use crate::flag::SkipReason;
use crate::names::{PlanId, PlanSet, RunId, WorkflowName};
use crate::workflow::{
    Creates, Event, FirstValues, Injected, Mode, Plan, RunStarted, evolve, may_create_instance, quotes_in_first_event,
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
    let Some(plan) = snapshot.plan_of(request.workflow.as_ref(), request.plans.as_deref()) else {
        let name = request.workflow.as_ref().map_or("", |name| name.as_str());
        if let Some(plans) = &request.plans {
            let why = format!("This process cannot run {} of the workflow `{name}`", plans.label());
            return not_started("plan_not_runnable", &why);
        }
        return not_started("no_workflow", &format!("There is no workflow `{name}`"));
    };
    // The plan in force of a route may be older than its `keep: none`.
    let is_in_force = request.plans.is_some() && request.mode != Mode::Rehearse;
    if is_in_force && !request.keep && plan.reason_to_keep().is_some() {
        return not_started("plan_not_runnable", "The runs of the plan in force have to be kept");
    }
    let family = request.creates.as_ref().map(|(family, _)| family);
    // In `only` the request gets a run: legacy creates no instances there, and the collision has raised an alert.
    let is_below_only = may_fall_back || request.mode == Mode::Real && request.may_begin != MayBegin::Always;
    if is_below_only && family.is_some_and(|family| core.ports.affinity.collided(family)) {
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
    let mut may_change = true;
    let loaded = match request.reads.as_ref().and_then(|reads| reads.instance()) {
        Some(known) => recorded_instance(&plan, known),
        None => match judge(core, request, deadline).await {
            WithoutInstance::NotConcerned => load_instance(core, &plan, request, deadline).await,
            WithoutInstance::Unknown => Ok(unknown_instance(&plan, request)),
            WithoutInstance::AtLegacy(why) => {
                may_change = false;
                Err(why)
            }
            WithoutInstance::NotFound => {
                return Err(Box::new(ArmReply::Refused(ProblemDocument::no_such_instance(), RunReport::default())));
            }
        },
    };
    let instance = match loaded {
        Ok(instance) => instance,
        Err(why) => {
            let mut reply = replies::not_started(may_fall_back, 503, "no_instance", why);
            if let ArmReply::Refused(problem, report) = &mut reply {
                report.unresolved = Some((SkipReason::NoInstance, why.to_owned()));
                // Until somebody moves the instance, trying again is of no use.
                problem.retry_after_s = problem.retry_after_s.filter(|_| may_change);
            }
            return Err(Box::new(reply));
        }
    };
    if let Some((reads, known)) = request.reads.as_ref().zip(instance.known()) {
        reads.record_instance(known);
    }
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
    let now = begun.as_ref().map_or_else(|| core.process.clock.now(), |(started, ..)| started.started);
    let refused_run = begun.and_then(|(started, ..)| {
        let event = Event::RunStarted(Arc::new(started));
        let mut run = evolve(None, &event).ok()?;
        run.collect_sensitive(plan, [&event]);
        Some(run)
    });
    refused_input::reply(refused_run.as_ref(), plan, &snapshot.decision_inputs.at(now), why)
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
    let legacy = request.legacy.as_ref().zip(snapshot.legacy_reply_paths_of(plan, request.plans.as_deref())).map(
        |(legacy, paths)| {
            sensitive_paths.extend(paths.sensitive.iter().cloned());
            Arc::new(decode::legacy(legacy, &paths.paths, bounds))
        },
    );
    let first = FirstValues {
        body,
        headers: &request.request.headers,
        kept: &facts.request,
        legacy: legacy.as_deref(),
        legacy_headers: request.legacy.as_ref().map(|legacy| legacy.headers()),
        instance: instance.as_deref(),
    };
    sensitive_paths.extend(quotes_in_first_event(plan, &first));
    let injected = plan.inject.as_ref().and_then(|inject| inject.values(request.mode, &facts.request, legacy.as_ref()));
    let injected = with_clock_of(request.reads.as_deref(), injected);
    request.reads.iter().for_each(|reads| reads.record_started(now));
    let started = RunStarted {
        run,
        workflow: plan.workflow.clone(),
        plan: plan.id.clone(),
        mode: request.mode,
        route: Some(request.route.clone()),
        child_plans: request.plans.as_ref().and_then(|plans| child_plans(plans)),
        started: now,
        request: facts.request,
        credentials: facts.credentials.keys().cloned().collect(),
        sealed,
        injected,
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

/// The values injected into a run. If the run repeats an earlier one, its clock begins when that one began.
pub(super) fn with_clock_of(reads: Option<&dyn Reads>, injected: Option<Arc<Injected>>) -> Option<Arc<Injected>> {
    let Some(begun) = reads.and_then(Reads::started) else { return injected };
    Some(Arc::new(injected.map(Arc::unwrap_or_clone).unwrap_or_default().begun_at(begun)))
}

/// The plans of the workflows that a run of this version starts, directly or through others; `None` where it starts
/// none.
fn child_plans(version: &PlanSet) -> Option<Arc<BTreeMap<WorkflowName, PlanId>>> {
    (version.plans.len() > 1).then(|| Arc::new(version.plans.clone()))
}

/// The instance that the run creates: under the engine's own id, or, in a dark run, under the id that legacy gave it.
fn creates(request: &ArmRequest, bounds: decode::DecodeBounds) -> Option<Creates> {
    let (family, source) = request.creates.as_ref()?;
    let family = family.first_id();
    match request.mode {
        Mode::Rehearse => None,
        Mode::Real => Some(Creates::Engine { family: family.clone(), path: source.to_string() }),
        Mode::Dark => {
            let creates = |legacy: &&Arc<Observation>| may_create_instance(legacy.status().as_u16());
            let legacy: &Observation = request.legacy.as_ref().filter(creates)?;
            let (id, integer) = match source.header() {
                Some(header) => (header.id_in(legacy.headers())?, None),
                None => {
                    let Body::Whole(bytes) = legacy.body() else { return None };
                    let body = decode::body_with_headers(legacy.headers(), bytes, bounds).ok()?;
                    id_spellings(&source.find(&[], &body)?)?
                }
            };
            Some(Creates::Twin { family: family.clone(), id, integer })
        }
    }
}
