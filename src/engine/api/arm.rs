//! Handles one request to the engine's arm, from its checks to its reply.
//!
//! Always true: whatever happens to the run, the caller gets a reply within its deadline; a request for which no run
//! was created has had no effect.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use crate::clock;
use crate::engine::api::attach::{attach, given_back, unknown_outcome};
use crate::engine::api::claim::{
    claim, first_try_unknown, held_under_another_credential, refuse_if_held_under_earlier_keys, register,
};
use crate::engine::api::prepare::{AdmittedRun, prepare};
use crate::engine::api::prepared::{PreparedRun, Waiter};
use crate::engine::api::run_tree;
use crate::engine::context::Core;
use crate::engine::driver::{self, WaitingCaller};
use crate::engine::kill_switch::Operation;
use crate::engine::legacy_replies::{LegacySources, RepliesOfRun};
use crate::engine::machine::{CallerAnswer, add_intents_below, replies};
use crate::engine::ports::decode::DecodeBounds;
use crate::engine::scheduler::registry::Registration;
use crate::exchange::{
    ArmAnswer, ArmReply, ArmRequest, FILES_CHANGED, FROZEN, KeysOfLegacy, MayBegin, NO_FIRST_TRY, RunReport,
};
use crate::flag::SkipReason;
use crate::names::RunId;
use crate::store::ClaimedRequest;
use crate::workflow::{Mode, Plan, StepKind};

/// Answers a request.
pub(in crate::engine) async fn handle(core: Arc<Core>, request: ArmRequest) -> ArmReply {
    let deadline = Instant::now() + request.deadline;
    let may_fall_back = request.may_fall_back && request.mode == Mode::Real;
    let decided_by = core.snapshot_of(request.files_version);
    // If the files that decided the request are no longer in memory, the request begins no run. The newest files are
    // then used only to answer from the run of an earlier try.
    let snapshot = decided_by.clone().unwrap_or_else(|| core.files.snapshot.load_full());
    let run = RunId(core.process.new_id());
    let request = match find_twin(&core, request, deadline).await {
        Ok(request) => request,
        Err(reply) => return *reply,
    };
    if let Err(reply) = refuse_retry_in_dark(&core, &request, deadline).await {
        return *reply;
    }
    let claim = claim(&request, core.ports.store.is_shared());
    // The retry key is registered before any check that may refuse a new run: such a refusal must not send a retry of
    // an earlier request to legacy.
    let mut registration = match register(&core, &snapshot, run, claim, &request, may_fall_back, deadline).await {
        Ok(registration) => registration,
        Err(reply) => return *reply,
    };
    // The caller may go away, and the run goes on.
    registration.keep_in_use(request.set_in_use.clone());
    if let Some(claim) = claim
        && let Err(reply) = refuse_if_held_under_earlier_keys(&core, claim, &request, deadline).await
    {
        return *reply;
    }
    // The request came to the engine only because it is a retry. No run of its first try was found, and the retry may
    // not begin one.
    if request.may_begin == MayBegin::Never {
        return may_not_begin(
            &core,
            registration,
            may_fall_back,
            NO_FIRST_TRY,
            "The first try of this request left no run",
        );
    }
    if decided_by.is_none() {
        let why = "The flag files have changed too often since this request was decided";
        return may_not_begin(&core, registration, may_fall_back, FILES_CHANGED, why);
    }
    let AdmittedRun { plan, permit, started, credentials, run_key, instance_ids } =
        match prepare(&core, &snapshot, &request, run, may_fall_back, deadline).await {
            Ok(new) => new,
            Err(reply) => {
                if matches!(*reply, ArmReply::Abandoned(_)) {
                    registration.give_to_legacy(&core.ports.affinity);
                }
                return *reply;
            }
        };
    // `pointsman check` refuses a route with `keep: none` if the plan has a reason to be stored. Checked again, because
    // the effects of a run that is not stored could be repeated without anybody knowing.
    if let Some(reason) = plan.reason_to_keep().filter(|_| !request.keep && request.mode != Mode::Rehearse) {
        tracing::error!(route = %request.route, plan = %plan.id, %reason, "a run that must be stored was not begun");
        let why = format!("The run would not be stored, in spite of {reason}");
        return may_not_begin(&core, registration, may_fall_back, "must_be_kept", &why);
    }
    // Nothing is awaited from here until the task is spawned: once `freeze` has returned, the run exists or never will.
    let permit_to_begin = core.process.kill_switch.begin(Operation::Run);
    if request.may_begin != MayBegin::Always && permit_to_begin.is_none() {
        return may_not_begin(&core, registration, may_fall_back, FROZEN, "New instances are frozen");
    }
    let bounds = DecodeBounds::of(&core.files.limits, &core.files.key_secret);
    let replies = |calls| Arc::new(RepliesOfRun::at_top(calls, &started, plan.clone(), bounds));
    let legacy_sources =
        LegacySources { reads: request.reads.clone(), replies: request.legacy_calls.clone().map(replies) };
    let begins_others = plan.steps.iter().any(|step| matches!(step.kind, StepKind::Run(_)));
    let runs_others = (request.mode == Mode::Dark && begins_others).then(|| plan.clone());
    let Ok(mut prepared) = PreparedRun::new(plan, started, snapshot.clone()) else {
        return unknown_outcome(run, "the run was not created");
    };
    prepared.legacy_sources = legacy_sources;
    let (answer_sender, answer) = oneshot::channel();
    // Some of the time is reserved for recording the answer that is given at the deadline.
    let recording_time = (request.deadline / 4).min(Duration::from_millis(250));
    let (answer_by, give_up_by) = (deadline - recording_time, deadline - recording_time / 5);
    prepared.keep &= request.keep;
    prepared.slot = if prepared.keep { core.slot_of_new(&prepared.run) } else { None };
    let prepared = PreparedRun { credentials, run_key, claim, registration: Some(registration), ..prepared };
    let awaited_intents = request.awaited_intents;
    let caller = WaitingCaller { answer_sender, may_fall_back, answer_by, give_up_by, awaited_intents };
    driver::spawn(&core, prepared.driver(&core, Waiter::Caller(caller)), permit);
    drop(permit_to_begin);

    match timeout_at(deadline, answer).await {
        Ok(Ok(CallerAnswer::Reply(mut reply))) => {
            if let ArmReply::Answer(ArmAnswer { report, .. }) | ArmReply::Refused(_, report) = &mut *reply {
                report.instance = instance_ids;
                if let Some(plan) = runs_others {
                    add_stored_intents(&core, report, &plan, deadline).await;
                }
            }
            *reply
        }
        Ok(Ok(CallerAnswer::OtherRun { run, request: ClaimedRequest::Other })) => replies::other_request(run),
        Ok(Ok(CallerAnswer::OtherRun { run, request: ClaimedRequest::UnderAnotherCredential })) => {
            // If that run gave the request back to legacy, the engine no longer has the request, although the run's
            // claim stays in the store.
            let abandoned = given_back(&core, &snapshot, run, may_fall_back, deadline).await;
            abandoned.unwrap_or_else(|| *held_under_another_credential())
        }
        Ok(Ok(CallerAnswer::OtherRun { run, request: ClaimedRequest::Same })) => {
            let announced = core.schedule.registry.announcement(run);
            match attach(&core, &snapshot, run, announced, may_fall_back, deadline).await {
                Some(reply) => reply,
                None => unknown_outcome(run, "the other run with the same retry key has no events"),
            }
        }
        Ok(Err(_)) => unknown_outcome(run, "the run's task ended"),
        Err(_) => unknown_outcome(run, "the store did not answer in time"),
    }
}

/// How long before the deadline the reading of the child runs' intents is given up.
const READ_MARGIN: Duration = Duration::from_millis(50);

/// Adds the intents of the stored runs below a dark run, and the branches that they took.
async fn add_stored_intents(core: &Core, report: &mut RunReport, plan: &Plan, deadline: Instant) {
    let Some(run) = report.run else { return };
    // Ends before the deadline: a caller that gets no reply by then counts the run as timed out.
    match timeout_at(deadline - READ_MARGIN, run_tree::intents_below(core, run)).await {
        Ok(Ok(below)) => add_intents_below(report, below, plan),
        Ok(Err(error)) => {
            tracing::debug!(
                %run, %error,
                "the intents of a dark run's child runs cannot be read, nor the branches that they took"
            );
            report.lacks_intents = true;
        }
        Err(_) => report.lacks_intents = true,
    }
}

/// The reply to a request that may not begin a run now: it goes to legacy if that is allowed and certainly nothing of
/// it is stored.
fn may_not_begin(
    core: &Core,
    mut registration: Registration,
    may_fall_back: bool,
    reason: &'static str,
    why: &str,
) -> ArmReply {
    if !registration.is_first_try() {
        return first_try_unknown();
    }
    if may_fall_back {
        registration.give_to_legacy(&core.ports.affinity);
    }
    replies::not_started(may_fall_back, 503, reason, why)
}

/// For a follow-up that legacy answered: looks up the run that is the instance's twin in the engine. The proxy, which
/// must not wait for the store, knew only that there may be a twin.
async fn find_twin(core: &Core, mut request: ArmRequest, deadline: Instant) -> Result<ArmRequest, Box<ArmReply>> {
    let is_recorded = request.reads.as_ref().is_some_and(|reads| reads.instance().is_some());
    let Some(instance) = request.instance.as_mut().filter(|instance| instance.run.is_none() && !is_recorded) else {
        return Ok(request);
    };
    let why = match request.mode {
        Mode::Real => return Ok(request),
        Mode::Dark => SkipReason::NoTwin,
        Mode::Rehearse => SkipReason::NoInstance,
    };
    let mut detail = "The engine has no twin of the instance";
    let keys: Vec<_> = instance.key.pin_keys().collect();
    for key in keys {
        match timeout_at(deadline, core.ports.store.pin(key)).await {
            Ok(Ok(Some(pin))) if pin.run.is_some() => {
                instance.run = pin.run;
                return Ok(request);
            }
            Ok(Ok(_)) => {}
            Ok(Err(_)) | Err(_) => detail = "The store does not say which run is the twin of the instance",
        }
    }
    let mut reply = replies::not_started(false, 503, "no_instance", detail);
    if let ArmReply::Refused(_, report) = &mut reply {
        report.unresolved = Some((why, detail.to_owned()));
    }
    Err(Box::new(reply))
}

/// Refuses the dark run of a client's retry if legacy took the first try in an earlier process, or in another one that
/// shares the store: the first try had its own dark run, and a second one would send the private effects again. A retry
/// of a first try in this process was recognised before this is called.
async fn refuse_retry_in_dark(core: &Core, request: &ArmRequest, deadline: Instant) -> Result<(), Box<ArmReply>> {
    let Some(KeysOfLegacy { keys, decided_at }) = &request.legacy_keys else { return Ok(()) };
    let store = &core.ports.store;
    if request.mode != Mode::Dark || keys.is_empty() {
        return Ok(());
    }
    // Checked before the store is read: a key that legacy took waits in a file (`key_log`) until the store has it, and
    // may get from there to the store in between.
    let is_waiting = keys.iter().any(|key| core.ports.affinity.legacy_noted_before(key, *decided_at));
    let looked_up = timeout_at(deadline, try_join_all(keys.iter().map(|key| store.first_try(*key)))).await;
    let retried = match looked_up {
        // An entry that this request wrote itself is not older than its decision. A time in the future does not count:
        // another process's clock may be ahead.
        Ok(Ok(found))
            if !is_waiting && found.iter().flatten().all(|first| (*decided_at..=clock::now()).contains(&first.at)) =>
        {
            return Ok(());
        }
        Ok(Ok(_)) => Some("Legacy took the first try of this request before"),
        Ok(Err(_)) | Err(_) => None,
    };
    let detail = retried.unwrap_or("The store does not say whether this request is a retry");
    let mut reply = replies::not_started(false, 503, "retried", detail);
    if let (ArmReply::Refused(_, report), Some(_)) = (&mut reply, retried) {
        report.unresolved = Some((SkipReason::Retried, detail.to_owned()));
    }
    Err(Box::new(reply))
}
