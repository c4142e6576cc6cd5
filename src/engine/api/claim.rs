//! Takes a request for the engine by its retry key, in this process and in the store.
//!
//! Always true: a run claims the key that its request has now; a run or a first try of the same request is found under
//! any of its keys and credentials, including the keys that earlier files gave it.

use std::ops::RangeInclusive;
use std::time::Duration;

use futures_util::future::try_join_all;
use tokio::time::{Instant, timeout_at};

use crate::affinity::KeyTakeResult;
use crate::engine::api::attach::{STORE_READ_TIME, attach, unknown_outcome};
use crate::engine::context::Core;
use crate::engine::files_snapshot::FilesSnapshot;
use crate::engine::machine::{Announcement, replies};
use crate::engine::scheduler::registry::{KeyTaken, Registration};
use crate::exchange::{Affinity as _, ArmReply, ArmRequest, ProblemDocument};
use crate::flag::{Arm, RetryKey};
use crate::names::RunId;
use crate::store::{Claim, StoredFirstTry};
use crate::workflow::Mode;

/// The pauses between attempts to register a key whose run has ended here, while it is not known what the store has of
/// it: the first and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(100));

/// Whether this is the request's digest, computed in the present way or in that of earlier versions.
fn is_same(request: &ArmRequest, digest: [u8; 32]) -> bool {
    let request = &request.request;
    request.digest() == digest || request.digest_of_earlier_versions() == Some(digest)
}

/// The claim of the retry key that the run's first append makes; `None` for a run that claims none. On a store that
/// other processes share, it also names legacy's keys under other credentials.
pub(super) fn claim(request: &ArmRequest, is_store_shared: bool) -> Option<Claim> {
    match request.mode {
        Mode::Real if request.keep => request.retry_keys.map(|keys| {
            let digest = request.request.digest();
            let of_verified = || Some(keys.unverified_retry?.of_verified_request(&digest, &keys.scoped));
            let of_request = keys.any_caller.map(|any| any.of_request(&digest)).or_else(of_verified);
            let mut others = keys.of_legacy_under_other_credentials().filter(|_| is_store_shared);
            let legacy_keys = [others.next(), others.next()];
            let decided_in = request.set_in_use.as_ref().map(|set| set.number);
            Claim { key: keys.scoped, request: digest, of_request, legacy_keys, decided_in }
        }),
        Mode::Real | Mode::Rehearse | Mode::Dark => None,
    }
}

/// Registers the run and its retry key, and checks in this process and in the store that neither another run nor legacy
/// has the key. Only after that may a failure give the request to legacy.
///
/// # Errors
/// Another run or legacy holds the key, or it is unknown whether one does. The error is the reply to the caller.
pub(super) async fn register(
    core: &Core,
    snapshot: &FilesSnapshot,
    run: RunId,
    claim: Option<Claim>,
    request: &ArmRequest,
    may_fall_back: bool,
    deadline: Instant,
) -> Result<Registration, Box<ArmReply>> {
    let mut pause = Duration::ZERO;
    let mut registration = loop {
        match core.schedule.registry.register(run, claim) {
            Ok(registration) => break registration,
            // Another request has the key once its run is stored. Until then it may be refused itself, because the key
            // is that of this request, or go to legacy.
            Err(KeyTaken { run, request: taken, mut durable, .. }) if !is_same(request, taken) => {
                let stored = timeout_at(deadline, durable.wait_for(|durable| *durable)).await;
                match stored.map(|stored| stored.is_ok()) {
                    Ok(true) => return Err(Box::new(replies::other_request(run))),
                    Ok(false) => wait_until_next(&mut pause, deadline).await,
                    Err(_) => return Err(Box::new(first_try_unknown())),
                }
            }
            Err(KeyTaken { run, announcement: announced, .. }) => {
                // `None`: the other run ended without events and has released the key, which is registered again.
                if let Some(reply) = attach(core, snapshot, run, announced, may_fall_back, deadline).await {
                    return Err(Box::new(reply));
                }
                if Instant::now() >= deadline {
                    return Err(Box::new(unknown_outcome(run, "the run had no answer in time")));
                }
                wait_until_next(&mut pause, deadline).await;
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
        KeyTakeResult::Retry => {}
        KeyTakeResult::OtherArmHasIt => {
            return Err(give_to_legacy_unless_held(core, claim, registration, (request, may_fall_back), deadline).await);
        }
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
            // from the store, one after the other.
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
        Ok(Ok(_)) if took == KeyTakeResult::Retry => Ok(registration),
        // The proxy looked for these keys too, but before the body had arrived.
        Ok(Ok(
            (_, Some(StoredFirstTry { arm: Arm::Legacy, .. }), _) | (.., Some(StoredFirstTry { arm: Arm::Legacy, .. })),
        )) => Err(give_to_legacy_unless_held(core, claim, registration, (request, may_fall_back), deadline).await),
        Ok(Ok(_)) => {
            let Some(key) = keys.any_caller else { return Ok(registration) };
            let verified_callers = keys.looked_up_verified_callers();
            let files_version = request.earlier.files_version;
            let any_caller = AnyCaller { key, verified_callers, may_be_stored, files_version };
            take_under_any_credential(core, claim, any_caller, registration, (request, may_fall_back), deadline).await
        }
        Ok(Err(_)) | Err(_) => Err(Box::new(first_try_unknown())),
    }
}

/// Waits before a key is registered once more, at first only for other tasks, and each time longer.
async fn wait_until_next(pause: &mut Duration, deadline: Instant) {
    match pause.is_zero() {
        true => tokio::task::yield_now().await,
        false => tokio::time::sleep_until(deadline.min(Instant::now() + *pause)).await,
    }
    *pause = (*pause * 2).clamp(PAUSES.0, PAUSES.1);
}

/// A request's retry key for any caller.
struct AnyCaller {
    key: RetryKey,
    /// See [`RetryKeys::verified_callers`](crate::flag::RetryKeys::verified_callers).
    verified_callers: Option<RetryKey>,
    /// Whether the store may have a run of the same request.
    may_be_stored: bool,
    /// The version of the files that decided the request.
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
    (request, may_fall_back): (&ArmRequest, bool),
    deadline: Instant,
) -> Result<Registration, Box<ArmReply>> {
    let AnyCaller { key, verified_callers, may_be_stored, files_version } = any_caller;
    let (affinity, of_request) = (&core.ports.affinity, key.of_request(&claim.request));
    let verified_callers = verified_callers.as_ref();
    match affinity.take_for_engine_under_any_credential(&key, verified_callers, &claim.request, files_version) {
        KeyTakeResult::First => registration.reserve(affinity.clone(), of_request),
        KeyTakeResult::Retry => return Err(held_under_another_credential()),
        KeyTakeResult::OtherArmHasIt => {
            return Err(give_to_legacy_unless_held(core, claim, registration, (request, may_fall_back), deadline).await);
        }
        KeyTakeResult::UnderOtherFiles => return Err(held_under_other_files()),
        KeyTakeResult::Unknown => return Err(Box::new(first_try_unknown())),
    }
    if !may_be_stored {
        return Ok(registration);
    }
    // A run of a verified caller has claimed another key in this range. This request's own key is so far only in
    // memory.
    let range = key.range_of_request(&claim.request, false);
    match timeout_at(deadline, core.ports.store.engine_took_any(range)).await {
        Ok(Ok(true)) => Err(held_under_another_credential()),
        Ok(Ok(false)) => Ok(registration),
        Ok(Err(_)) | Err(_) => Err(Box::new(first_try_unknown())),
    }
}

/// Refuses a request that the engine took under another credential. Looks the request up under the keys that earlier
/// files would give it and under the digest that earlier versions compute; not under the present key and digest, under
/// which this try itself has been registered by now.
pub(super) async fn refuse_if_held_under_earlier_keys(
    core: &Core,
    claim: Claim,
    request: &ArmRequest,
    deadline: Instant,
) -> Result<(), Box<ArmReply>> {
    let present = request.retry_keys.and_then(|keys| keys.any_caller).map(|key| (key, claim.request));
    let others = all_keys(claim, request).into_iter().filter(|key| Some(*key) != present);
    refuse_if_taken(core, others, request, deadline).await
}

/// The reply to a request that goes to legacy because legacy has its key for any caller. Under that key legacy may have
/// another caller's request, while the engine, perhaps of an earlier process, has this one: then this one is refused.
async fn give_to_legacy_unless_held(
    core: &Core,
    claim: Claim,
    mut registration: Registration,
    (request, may_fall_back): (&ArmRequest, bool),
    deadline: Instant,
) -> Box<ArmReply> {
    let all = all_keys(claim, request);
    if let Err(refused) = refuse_if_taken(core, all.iter().copied(), request, deadline).await {
        return refused;
    }
    // The engine may have taken the request meanwhile.
    let held: Vec<_> = all.into_iter().map(|(key, digest)| range_of_others(key, &digest, request)).collect();
    match registration.give_to_legacy_unless_held(&core.ports.affinity, &held) {
        true => Box::new(replies::taken_by_legacy(may_fall_back)),
        false => held_under_another_credential(),
    }
}

/// The keys for any caller that a request has now and had by earlier files, each with its digests.
fn all_keys(claim: Claim, request: &ArmRequest) -> Vec<(RetryKey, [u8; 32])> {
    let digests = [claim.request].into_iter().chain(request.request.digest_of_earlier_versions());
    let keys = request.retry_keys.iter().chain(&request.earlier.keys).filter_map(|keys| keys.any_caller);
    keys.flat_map(|key| digests.clone().map(move |digest| (key, digest))).collect()
}

/// The range of keys under which the engine has a request with this digest, if another try of the request had this key
/// for any caller.
fn range_of_others(any_caller: RetryKey, digest: &[u8; 32], request: &ArmRequest) -> RangeInclusive<RetryKey> {
    any_caller.range_of_request(digest, request.retry_keys.is_some_and(|keys| keys.is_verified()))
}

/// Refuses a request that the engine took under one of these keys for any caller and digests, as far as this process or
/// the store knows. To be called before the request itself takes such a key.
async fn refuse_if_taken(
    core: &Core,
    keys: impl Iterator<Item = (RetryKey, [u8; 32])>,
    request: &ArmRequest,
    deadline: Instant,
) -> Result<(), Box<ArmReply>> {
    let look_ups = keys.map(|(key, digest)| {
        let range = range_of_others(key, &digest, request);
        core.ports.affinity.engine_took_any(range)
    });
    match timeout_at(deadline, try_join_all(look_ups)).await {
        Ok(Ok(taken)) if !taken.contains(&true) => Ok(()),
        Ok(Ok(_)) => Err(held_under_another_credential()),
        Ok(Err(_)) | Err(_) => Err(Box::new(first_try_unknown())),
    }
}

pub(super) fn held_under_another_credential() -> Box<ArmReply> {
    Box::new(ArmReply::Refused(ProblemDocument::taken_under_another_credential(), Default::default()))
}

fn held_under_other_files() -> Box<ArmReply> {
    Box::new(ArmReply::Refused(ProblemDocument::taken_under_other_files(), Default::default()))
}

pub(super) fn first_try_unknown() -> ArmReply {
    let why = "the store does not say whether an earlier try was taken";
    ArmReply::Refused(replies::unknown_of(None, why, None), Default::default())
}
