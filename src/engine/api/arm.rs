//! Handles one request to the engine's arm, from its checks to its reply.
//!
//! Always true: whatever happens to the run, the caller gets a reply within its deadline; a request for which no run
//! was created has had no effect.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use crate::affinity::KeyTakeResult;
use crate::engine::api::attach::{STORE_READ_TIME, attach, unknown_outcome};
use crate::engine::api::prepare::{AdmittedRun, prepare};
use crate::engine::api::prepared::{PreparedRun, Waiter};
use crate::engine::context::Core;
use crate::engine::driver::{self, Caller};
use crate::engine::kill_switch::Operation;
use crate::engine::machine::replies;
use crate::engine::machine::{Announcement, CallerAnswer};
use crate::engine::scheduler::registry::{KeyTaken, Registration};
use crate::engine::snapshot::FilesSnapshot;
use crate::exchange::{
    Affinity as _, ArmReply, ArmRequest, FILES_CHANGED, FROZEN, KeysOfLegacy, MayBegin, NO_FIRST_TRY, ProblemDocument,
};
use crate::flag::{Arm, RetryKey, SkipReason};
use crate::names::RunId;
use crate::store::{Claim, ClaimedRequest, StoredFirstTry};
use crate::workflow::Mode;

/// Answers a request.
pub(in crate::engine) async fn handle(core: Arc<Core>, request: ArmRequest) -> ArmReply {
    let deadline = Instant::now() + request.deadline;
    let may_fall_back = request.may_fall_back && request.mode == Mode::Real;
    let decided_by = core.snapshot_of(request.files_version);
    // If those files are no longer in memory, this request begins no run; the newest files are then used only to answer
    // from the run of an earlier try.
    let snapshot = decided_by.clone().unwrap_or_else(|| core.files.snapshot.load_full());
    let run = RunId(core.process.new_id());
    let request = match find_twin(&core, request, deadline).await {
        Ok(request) => request,
        Err(reply) => return *reply,
    };
    if let Err(reply) = refuse_retry_in_dark(&core, &request, deadline).await {
        return *reply;
    }
    let claim = claim(&request);
    // The retry key is registered before any check that may refuse a new run: such a refusal must not send a retry of
    // an earlier request to legacy.
    let mut registration = match register(&core, &snapshot, run, claim, &request, may_fall_back, deadline).await {
        Ok(registration) => registration,
        Err(reply) => return *reply,
    };
    if let Some(claim) = claim
        && let Err(reply) = refuse_if_held_under_earlier_keys(&core, claim, &request).await
    {
        return *reply;
    }
    // The request was sent here only as a retry, and no run of its first try was found: it may not begin one.
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
    let AdmittedRun { plan, permit, started, credentials, run_key } =
        match prepare(&core, &snapshot, &request, run, may_fall_back, deadline).await {
            Ok(new) => new,
            Err(reply) => {
                if matches!(*reply, ArmReply::Abandoned(_)) {
                    registration.give_to_legacy(&core.ports.affinity);
                }
                return *reply;
            }
        };
    // `check` refuses files with such a route. Checked again because the effects of a run that is not stored could be
    // repeated without anybody knowing.
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
    let Ok(mut prepared) = PreparedRun::new(plan, started, snapshot.clone()) else {
        return unknown_outcome(run, "the run was not created");
    };
    let (answer_sender, answer) = oneshot::channel();
    // Some of the time is reserved for recording the answer that is given at the deadline.
    let until = deadline - (request.deadline / 4).min(Duration::from_millis(250));
    prepared.keep &= request.keep;
    prepared.slot = if prepared.keep { core.slot_of_new(&prepared.run) } else { None };
    let prepared = PreparedRun { credentials, run_key, claim, registration: Some(registration), ..prepared };
    let awaited_intents = request.awaited_intents;
    let caller = Caller { answer_sender, may_fall_back, answer_by: until, awaited_intents };
    driver::spawn(&core, prepared.driver(&core, Waiter::Caller(caller)), permit);
    drop(permit_to_begin);

    match timeout_at(deadline, answer).await {
        Ok(Ok(CallerAnswer::Reply(reply))) => *reply,
        Ok(Ok(CallerAnswer::OtherRun { run, request: ClaimedRequest::Other })) => replies::other_request(run),
        Ok(Ok(CallerAnswer::OtherRun { request: ClaimedRequest::UnderAnotherCredential, .. })) => {
            *held_under_another_credential()
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

/// Looks up the run that is the instance's twin, for a follow-up that legacy answered. The proxy, which must not wait
/// for the store, knew only that there may be a twin.
async fn find_twin(core: &Core, mut request: ArmRequest, deadline: Instant) -> Result<ArmRequest, Box<ArmReply>> {
    let Some(instance) = request.instance.as_mut().filter(|instance| instance.run.is_none()) else {
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

/// Refuses the dark run of a client's retry if legacy took the first try in an earlier process: the first try had its
/// own dark run, and a second one would send the private effects again. Retries of first tries in this process were
/// recognised before.
async fn refuse_retry_in_dark(core: &Core, request: &ArmRequest, deadline: Instant) -> Result<(), Box<ArmReply>> {
    let Some(KeysOfLegacy { keys, decided_at }) = &request.legacy_keys else { return Ok(()) };
    let store = &core.ports.store;
    // With a shared store the proxy has looked up the first try, because the engine of another process may have it.
    if request.mode != Mode::Dark || keys.is_empty() || store.is_shared() {
        return Ok(());
    }
    // Checked before the store is read: a key that legacy took waits in a file (`key_log`) until the store has it, and
    // may get from there to the store in between.
    let is_waiting = keys.iter().any(|key| core.ports.affinity.legacy_noted_before(key, *decided_at));
    let looked_up = timeout_at(deadline, try_join_all(keys.iter().map(|key| store.first_try(*key)))).await;
    let retried = match looked_up {
        // An entry that this request wrote itself is not older than its decision.
        Ok(Ok(found)) if !is_waiting && !found.iter().flatten().any(|first| first.at < *decided_at) => return Ok(()),
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

/// Whether the request with this digest is the same one, which may have come under earlier files.
fn is_same(request: &ArmRequest, digest: [u8; 32]) -> bool {
    let earlier = request.earlier.paths.iter().map(|path| request.request.digest_with(path));
    digest == request.request.digest() || earlier.into_iter().any(|earlier| earlier == digest)
}

/// The claim of the retry key that the run's first append makes.
fn claim(request: &ArmRequest) -> Option<Claim> {
    match request.mode {
        Mode::Real if request.keep => request.retry_keys.map(|keys| {
            let digest = request.request.digest();
            let of_verified = || Some(keys.unverified_retry?.of_verified_request(&digest, &keys.scoped));
            let of_request = keys.any_caller.map(|any| any.of_request(&digest)).or_else(of_verified);
            Claim { key: keys.scoped, request: digest, of_request }
        }),
        Mode::Real | Mode::Rehearse | Mode::Dark => None,
    }
}

/// Registers the run and its retry key, after checking in this process and in the store that neither another run nor
/// legacy has the key. Only after that may a failure give the request to legacy.
///
/// # Errors
/// Another run or legacy holds the key, or it is unknown whether one does: the reply to the caller.
async fn register(
    core: &Core,
    snapshot: &FilesSnapshot,
    run: RunId,
    claim: Option<Claim>,
    request: &ArmRequest,
    may_fall_back: bool,
    deadline: Instant,
) -> Result<Registration, Box<ArmReply>> {
    let mut registration = loop {
        match core.schedule.registry.register(run, claim) {
            Ok(registration) => break registration,
            Err(KeyTaken { run, request: taken, .. }) if !is_same(request, taken) => {
                return Err(Box::new(replies::other_request(run)));
            }
            Err(KeyTaken { run, announcement: announced, .. }) => {
                // The other run ended without events and has released the key: register again.
                if let Some(reply) = attach(core, snapshot, run, announced, may_fall_back, deadline).await {
                    return Err(Box::new(reply));
                }
                if Instant::now() >= deadline {
                    return Err(Box::new(unknown_outcome(run, "the run had no answer in time")));
                }
                tokio::task::yield_now().await;
            }
        }
    };
    let (Some(claim), Some(keys)) = (claim, request.retry_keys) else { return Ok(registration) };
    registration.set_retry_keys(keys);
    // Read before this request takes its keys, because taking them adds them to the set that is read here.
    let may_be_stored = claim.of_request.is_some_and(|key| core.ports.affinity.engine_may_have_taken(&key));
    let took = core.ports.affinity.take_request_for_engine(claim.key, &claim.request, &request.earlier);
    match took {
        KeyTakeResult::First => {
            registration.reserve(core.ports.affinity.clone(), claim.key);
            if let (Some(unverified_retry), Some(of_request)) = (&keys.unverified_retry, claim.of_request)
                && core.ports.affinity.take_for_unverified_retries(unverified_retry, of_request) == KeyTakeResult::First
            {
                registration.reserve(core.ports.affinity.clone(), of_request);
            }
        }
        KeyTakeResult::Repeat => {}
        KeyTakeResult::OtherArmHasIt => return Err(Box::new(replies::taken_by_legacy(may_fall_back))),
        KeyTakeResult::UnderOtherFiles => return Err(held_under_other_files()),
        KeyTakeResult::Unknown => return Err(Box::new(first_try_unknown())),
    }
    let stored_for = async |key: Option<RetryKey>| match key {
        Some(key) => core.ports.store.first_try(key).await,
        None => Ok(None),
    };
    let for_any_caller = stored_for(keys.any_caller);
    let for_verified_callers = stored_for(keys.looked_up_verified_callers());
    let stored =
        async { tokio::try_join!(core.ports.store.first_try(claim.key), for_any_caller, for_verified_callers) };
    match timeout_at(deadline, stored).await {
        // The keys that this retry took in memory are released when `registration` is dropped. Otherwise memory would
        // keep them for a whole retry window from now on, longer than the store keeps the key of the first try.
        Ok(Ok((Some(StoredFirstTry { run: Some(run), request: stored, .. }), ..))) => {
            if stored.is_some_and(|stored| !is_same(request, stored)) {
                return Err(Box::new(replies::other_request(run)));
            }
            let announced = core.schedule.registry.announcement(run);
            let reply = attach(core, snapshot, run, announced, true, deadline).await;
            let reply =
                reply.unwrap_or_else(|| unknown_outcome(run, "the other run with the same retry key has no events"));
            // Simultaneous tries wait for this registration. Without the announcement each of them would read the run
            // too, one after the other, while the rest look for it again and again.
            if Instant::now() + STORE_READ_TIME < deadline {
                registration.announce(|| Announcement::Reply(Box::new(reply.clone())));
            }
            Err(Box::new(replies::shared_reply(reply, may_fall_back)))
        }
        Ok(Ok((Some(StoredFirstTry { arm: Arm::Legacy, .. }), ..))) => {
            registration.give_to_legacy(&core.ports.affinity);
            Err(Box::new(replies::taken_by_legacy(may_fall_back)))
        }
        // An earlier try of this caller has the key, and has claimed the request for any credential too.
        Ok(Ok(_)) if took == KeyTakeResult::Repeat => Ok(registration),
        // The proxy looked for these keys too, but before the body had arrived.
        Ok(Ok(
            (_, Some(StoredFirstTry { arm: Arm::Legacy, .. }), _) | (.., Some(StoredFirstTry { arm: Arm::Legacy, .. })),
        )) => {
            registration.give_to_legacy(&core.ports.affinity);
            Err(Box::new(replies::taken_by_legacy(may_fall_back)))
        }
        Ok(Ok(_)) => {
            let Some(key) = keys.any_caller else { return Ok(registration) };
            let verified_callers = keys.looked_up_verified_callers();
            let files_version = request.earlier.files_version;
            let any_caller = AnyCaller { key, verified_callers, may_be_stored, files_version };
            take_under_any_credential(core, claim, any_caller, registration, may_fall_back, deadline).await
        }
        Ok(Err(_)) | Err(_) => Err(Box::new(first_try_unknown())),
    }
}

/// A request's retry key for any caller.
struct AnyCaller {
    key: RetryKey,
    /// See [`RetryKeys::verified_callers`](crate::flag::RetryKeys::verified_callers).
    verified_callers: Option<RetryKey>,
    /// Whether the store may have a run of the same request.
    may_be_stored: bool,
    /// The version of the files that the request was decided by.
    files_version: u64,
}

/// Takes for the engine, under any credential, a request whose credential is not verified. Retries under other
/// credentials find it.
///
/// # Errors
/// The same request came under another credential before, or legacy has the key for any caller.
async fn take_under_any_credential(
    core: &Core,
    claim: Claim,
    any_caller: AnyCaller,
    mut registration: Registration,
    may_fall_back: bool,
    deadline: Instant,
) -> Result<Registration, Box<ArmReply>> {
    let AnyCaller { key, verified_callers, may_be_stored, files_version } = any_caller;
    let (affinity, of_request) = (&core.ports.affinity, key.of_request(&claim.request));
    let verified_callers = verified_callers.as_ref();
    match affinity.take_for_engine_under_any_credential(&key, verified_callers, &claim.request, files_version) {
        KeyTakeResult::First => registration.reserve(affinity.clone(), of_request),
        KeyTakeResult::Repeat => return Err(held_under_another_credential()),
        KeyTakeResult::OtherArmHasIt => {
            registration.give_to_legacy(affinity);
            return Err(Box::new(replies::taken_by_legacy(may_fall_back)));
        }
        KeyTakeResult::UnderOtherFiles => return Err(held_under_other_files()),
        KeyTakeResult::Unknown => return Err(Box::new(first_try_unknown())),
    }
    if !may_be_stored {
        return Ok(registration);
    }
    // A verified caller's run has claimed another key in this range.
    let range = key.range_of_request(&claim.request, false);
    match timeout_at(deadline, core.ports.store.engine_took_any(range)).await {
        Ok(Ok(true)) => Err(held_under_another_credential()),
        Ok(Ok(false)) => Ok(registration),
        Ok(Err(_)) | Err(_) => Err(Box::new(first_try_unknown())),
    }
}

/// Refuses a request that the engine took under another credential. Looks it up under the keys that it would have had
/// by earlier files.
async fn refuse_if_held_under_earlier_keys(
    core: &Core,
    claim: Claim,
    request: &ArmRequest,
) -> Result<(), Box<ArmReply>> {
    let present = request.retry_keys;
    let is_verified = present.is_some_and(|keys| keys.is_verified());
    let present_key = present.and_then(|keys| keys.any_caller);
    let earlier = request.earlier.keys.iter().filter_map(|keys| keys.any_caller);
    let mut keys: Vec<RetryKey> = earlier.filter(|key| Some(*key) != present_key).collect();
    let mut looked_up: Vec<(RetryKey, [u8; 32])> = keys.iter().map(|key| (*key, claim.request)).collect();
    keys.extend(present_key);
    for path in &request.earlier.paths {
        let digest = request.request.digest_with(path);
        looked_up.extend(keys.iter().map(|key| (*key, digest)));
    }
    for (key, digest) in looked_up {
        let range = key.range_of_request(&digest, is_verified);
        match core.ports.affinity.engine_took_any(&key, range).await {
            Ok(true) => return Err(held_under_another_credential()),
            Ok(false) => {}
            Err(_) => return Err(Box::new(first_try_unknown())),
        }
    }
    Ok(())
}

fn held_under_another_credential() -> Box<ArmReply> {
    Box::new(ArmReply::Refused(ProblemDocument::held_under_another_credential(), Default::default()))
}

fn held_under_other_files() -> Box<ArmReply> {
    Box::new(ArmReply::Refused(ProblemDocument::held_under_other_files(), Default::default()))
}

fn first_try_unknown() -> ArmReply {
    let why = "the store does not say whether an earlier try was taken";
    ArmReply::Refused(replies::unknown_of(None, why, None), Default::default())
}
