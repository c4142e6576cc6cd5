//! Decides whether a request is compared, and prepares the copies of the request and of legacy's reply.
//!
//! Always true:
//! - For a request that should be compared, one ticket is opened before legacy is called.
//! - If the request cannot be compared (for example, because its body is too large), nothing is copied for a
//!   comparison, and the ticket is settled as skipped as soon as the status of legacy's reply is known.
//! - Without a comparison a reply is copied only for the sake of an instance: to find the id of the instance that the
//!   request created, or to see whether the reply ends the instance.

use std::sync::{Arc, Mutex};

use http::{Method, request};

use super::body_copy::BodyCopy;
use super::copied_exchange::{CopiedExchange, CopiedRequest, SkippedRequest};
use super::monotonic::now;
use super::noted_instance::FollowUpAtLegacy;
use super::proxied_request::{FlaggedRequest, ProxiedRequest, declared_length};
use super::upload::Upload;
use crate::exchange::{ComparisonOutcome, ComparisonTicket, InstanceAccess, OfferedRequest, OpenRequest};
use crate::flag::{EngineWork, Owner, SkipReason, State};
use crate::workflow::Mode;

/// What copies an exchange, and the buffer for the copy of the request's body; `None` for what is not copied.
pub(super) type CopySetup = (Option<CopiedExchange>, Option<Arc<Mutex<BodyCopy>>>);

/// Opens the ticket of a request that should be compared, and prepares what copies the request and its reply.
pub(super) fn prepare_copy(
    proxied: &ProxiedRequest<'_>,
    flagged: &FlaggedRequest,
    head: &request::Parts,
    upload: &Upload,
    rung: State,
    engine_work: EngineWork,
) -> CopySetup {
    let shared = &proxied.client.shared;
    let bytes_max = usize::try_from(shared.limits.body_capture_bytes_max).unwrap_or(usize::MAX);
    let open = || {
        let cohort = flagged.cohort.and_then(|index| flagged.flag.route.cohorts.get(index));
        let cohort = cohort.map(|cohort| Arc::from(cohort.name.as_str()));
        let request = OfferedRequest::new(flagged.flag.route.id.clone(), proxied.table.set.files_version);
        let (method, declared) = (head.method.clone(), flagged.stratum_value.clone());
        shared.offer.open(OfferedRequest { rung, method, cohort, declared, ..request })
    };
    let announced = announce(proxied, flagged, rung, &head.method);
    let too_large = || declared_length(&head.headers).is_some_and(|n| n > bytes_max as u64);
    let why_not = || match () {
        () if !shared.offer.has_room(&flagged.flag.route.id) => Some(SkipReason::QueueFull),
        () if proxied.upgrade.is_some() => Some(SkipReason::Streaming),
        () if too_large() => Some(SkipReason::BodyTooLarge),
        () => None,
    };
    let (mode, skip) = match engine_work {
        EngineWork::None => (None, None),
        EngineWork::Skip(reason) => (None, Some(reason)),
        EngineWork::Rehearse => (Some(Mode::Rehearse), why_not()),
        EngineWork::Dark => (Some(Mode::Dark), why_not()),
    };
    let skipped = skip.map(|reason| {
        let mut ticket = open();
        let is_in_dark = match mode {
            None => rung >= State::Dark && !is_conditional_read(reason, &head.method),
            Some(mode) => mode == Mode::Dark,
        };
        if is_in_dark {
            ticket.expect_twin();
        }
        ticket.set_outcome_on_drop(ComparisonOutcome::Skipped(reason));
        ticket
    });
    let compare = mode.filter(|_| skipped.is_none()).map(|mode| {
        let mut ticket = open();
        if mode == Mode::Dark {
            ticket.expect_twin();
        }
        (ticket, mode)
    });
    // In `off` the reply is searched for an id only if legacy could return an id that the engine owns. Replies that end
    // an instance are copied too: instances may have been recorded meanwhile, or through another route of the family.
    let is_watched = || rung != State::Off || shared.affinity.engine_owns_any(&flagged.flag.family);
    let creates = flagged.creates() && is_watched();
    let may_end = flagged.flag.route.lifetime.ends.is_some() && (flagged.flag.is_family_above_off || is_watched());
    if compare.is_none() && !creates && !may_end {
        let seen = || {
            let key = flagged.instance.as_ref()?.key.clone();
            Some(FollowUpAtLegacy { affinity: shared.affinity.clone(), key })
        };
        let skipped = skipped.map(|ticket| SkippedRequest { ticket, seen: seen() });
        return (skipped.map(Box::new).map(CopiedExchange::Skipped), None);
    }
    let body = (compare.is_some() && !upload.is_empty())
        .then(|| Arc::new(Mutex::new(BodyCopy { bytes_max, ..BodyCopy::default() })));
    let copied_request =
        CopiedRequest { skipped, open: announced, ..copied_request(proxied, flagged, head, compare, body.clone()) };
    (Some(CopiedExchange::Request(Box::new(copied_request))), body)
}

/// Announces a request that creates an instance with a twin, or follows one up, so that the twin is changed in the
/// order of legacy's answers. Returns `None` for all other requests. If the request is not copied after all, its
/// announcement is dropped at once, which closes the announced request.
fn announce(
    proxied: &ProxiedRequest<'_>,
    flagged: &FlaggedRequest,
    rung: State,
    method: &Method,
) -> Option<OpenRequest> {
    let access = match (&flagged.instance, flagged.owner) {
        (Some(instance), Owner::LegacyWithTwin) if !flagged.is_retry => InstanceAccess::FollowsUp(instance.key.clone()),
        (Some(_), _) => return None,
        (None, _) if flagged.creates() && rung == State::Dark && !flagged.is_retry => {
            InstanceAccess::Creates(flagged.flag.family.clone())
        }
        (None, _) => return None,
    };
    proxied.client.shared.offer.announce(access, !method.is_safe(), now())
}

/// Whether a request was skipped as a conditional read (`HEAD` counts as one). Such a request needs no twin: in `live`
/// the engine gets such requests too and may ignore the condition, which only saves a transfer. A condition on a write
/// (`If-Match`) says whether to write at all.
fn is_conditional_read(reason: SkipReason, method: &Method) -> bool {
    reason == SkipReason::Conditional && method.is_safe()
}

/// A request whose reply is copied: for the comparison, or only for the created instance's id.
fn copied_request(
    proxied: &ProxiedRequest<'_>,
    flagged: &FlaggedRequest,
    head: &request::Parts,
    compare: Option<(ComparisonTicket, Mode)>,
    body: Option<Arc<Mutex<BodyCopy>>>,
) -> CopiedRequest {
    let shared = &proxied.client.shared;
    let noise = u32::from(flagged.flag.route.noise.hundredths());
    CopiedRequest {
        will_repeat: compare.is_some() && noise > 0 && fastrand::u32(..10_000) < noise,
        sent: None,
        effect_registry: compare.as_ref().and(shared.effect_registry.as_ref()).cloned(),
        effects: None,
        open: None,
        compare,
        skipped: None,
        flags: proxied.table.set.clone(),
        flag: flagged.flag.clone(),
        request: flagged.copy(proxied.client, head),
        body,
        instance: flagged.instance.clone(),
        is_retry: flagged.is_retry,
        legacy_keys: flagged.keys_of_legacy(),
        began: proxied.began,
        turn_at: 0,
        bytes_max: usize::try_from(shared.limits.body_capture_bytes_max).unwrap_or(usize::MAX),
        offer: shared.offer.clone(),
        affinity: shared.affinity.clone(),
    }
}

/// Prepares the copy of a fallback's reply, which is never compared, only searched for the created instance's id.
pub(super) fn copy_fallback(
    proxied: &ProxiedRequest<'_>,
    flagged: &FlaggedRequest,
    head: &request::Parts,
) -> Option<Box<CopiedRequest>> {
    flagged.creates().then(|| Box::new(copied_request(proxied, flagged, head, None, None)))
}
