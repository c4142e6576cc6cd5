//! A request of a family whose instances may be moved from legacy to the engine.
//!
//! Always true:
//! - The request is counted before its arm is decided, and before its retry keys are recorded for legacy.
//! - While its instance moves, the request waits, for a bounded time.
//! - Only a write whose decision is `live`, and whose first try legacy has not taken, asks to move its instance.

use std::time::Duration;

use http::Method;

use super::failure::Failure;
use super::proxied_request::ProxiedRequest;
use super::respond::Refused;
use super::retry_keys::KnownFirstTry;
use crate::exchange::{
    AdoptionAnswer, AdoptionRequest, Affinity, InstanceAccess, LegacyAdmission, LegacyAdmissionRequest, RequestAtLegacy,
};
use crate::flag::{Decision, Instance, InstanceKey, MOVING, Owner, RequestFacts, RouteFlag, State};

/// How long a request waits while its instance is moved.
const MOVE_WAIT: Duration = Duration::from_secs(10);
/// Why a request is refused while the pins of other processes are not known.
const NOT_CURRENT: &str = "whether another process has moved the instance of this request to the engine is not known now; \
                           nothing was started";

/// Counts a request that legacy may get, if its family's instances may be moved; waits while its instance is moved.
pub(super) async fn admit(
    proxied: &ProxiedRequest<'_>,
    flag: &RouteFlag,
    follows: Option<&InstanceKey>,
    method: &Method,
) -> Result<Option<RequestAtLegacy>, Box<Refused>> {
    let Some(rule) = &flag.adopt else { return Ok(None) };
    let access = match (follows, &flag.route.instance) {
        (Some(key), _) => InstanceAccess::FollowsUp(key),
        (None, Some(Instance::Creates { .. })) => InstanceAccess::Creates(&flag.family),
        (None, Some(Instance::Follows { .. }) | None) => return Ok(None),
    };
    let request = LegacyAdmissionRequest { access, is_write: !method.is_safe(), settles: rule.settles };
    let client = proxied.client;
    let refused = |why| Box::new(proxied.refused(flag.effective.state, Failure::NoSafeArm(why)));
    let until = tokio::time::Instant::now() + MOVE_WAIT;
    loop {
        match client.shared.affinity.admit_to_legacy(&request) {
            LegacyAdmission::AtLegacy(at_legacy) => return Ok(at_legacy),
            LegacyAdmission::Unknown => return Err(refused(NOT_CURRENT)),
            LegacyAdmission::Moving(moved) => match client.wait.or_overdue(tokio::time::timeout_at(until, moved)).await
            {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return Err(refused(MOVING)),
            },
        }
    }
}

/// Whether a request asks for its instance to be moved. Looks up whether legacy took its first try: then the instance
/// is not moved, because its retry stays with legacy.
pub(super) async fn is_asked_for(
    flag: &RouteFlag,
    facts: &RequestFacts<'_>,
    decision_if_new: &Decision,
    first_try: &mut KnownFirstTry,
    affinity: &dyn Affinity,
) -> bool {
    let is_live = matches!(decision_if_new, Decision::Legacy { rung: State::Live, .. });
    let is_legacys = matches!(facts.owner, Owner::NoPin | Owner::LegacyWithTwin);
    if flag.adopt.is_none() || facts.method.is_safe() || !is_live || !is_legacys || first_try.arm.is_some() {
        return false;
    }
    first_try.ask_store_about_legacy(affinity).await;
    first_try.arm.is_none() && !first_try.is_unknown && !first_try.is_contradictory
}

/// Moves an instance from legacy to the engine, if that is possible now.
///
/// # Errors
/// The instance is still being moved.
pub(super) async fn adopt(
    proxied: &ProxiedRequest<'_>,
    flag: &RouteFlag,
    key: &InstanceKey,
) -> Result<(), Box<Refused>> {
    let Some(rule) = flag.adopt.clone() else { return Ok(()) };
    let client = proxied.client;
    let asked = client.shared.affinity.adopt(AdoptionRequest { key: key.clone(), rule });
    match client.wait.or_overdue(asked).await {
        Ok(AdoptionAnswer::AtLegacy | AdoptionAnswer::Settled) => Ok(()),
        Ok(AdoptionAnswer::Moving) | Err(_) => {
            Err(Box::new(proxied.refused(flag.effective.state, Failure::NoSafeArm(MOVING))))
        }
    }
}
