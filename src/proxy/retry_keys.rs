//! The retry keys of one request, and which arm has them.
//!
//! Always true: where the caller's scope is a credential that nobody verified, a request that legacy takes is also
//! recorded for any caller, so that a retry with a refreshed credential stays with legacy; a request that the engine took
//! is refused under another credential, and legacy is not called.

use crate::exchange::{Affinity, LegacyTake, OwnerUnknown, Remembered};
use crate::flag::{Arm, RetryKey, RetryKeys};
use crate::names::RouteId;

/// Takes a request for legacy, unless the engine has it.
pub(super) fn take_for_legacy(pins: &dyn Affinity, keys: Option<RetryKeys>) -> LegacyTake {
    let Some(RetryKeys { scoped, any_caller }) = keys else { return LegacyTake::Noted };
    match (pins.take_for_legacy(scoped), any_caller) {
        (LegacyTake::Noted, Some(any_caller)) => pins.give_to_legacy(any_caller),
        (took, _) => took,
    }
}

/// Records for legacy a request that the engine gave back.
pub(super) fn give_to_legacy(pins: &dyn Affinity, keys: Option<RetryKeys>) -> LegacyTake {
    let Some(RetryKeys { scoped, any_caller }) = keys else { return LegacyTake::Noted };
    match (pins.give_to_legacy(scoped), any_caller) {
        (LegacyTake::Noted, Some(any_caller)) => pins.give_to_legacy(any_caller),
        (took, _) => took,
    }
}

/// Whether the engine may have a request with this key, with any body, under another credential of the same caller.
pub(super) fn may_be_held(pins: &dyn Affinity, any_caller: &RetryKey) -> bool {
    pins.remembered(&any_caller.of_request(&[0; 32])) != Remembered::NotEngine
}

/// Whether the engine has this exact request under another credential. A request that legacy has stays with legacy.
pub(super) async fn is_held(
    pins: &dyn Affinity,
    any_caller: &RetryKey,
    digest: &[u8; 32],
) -> Result<bool, OwnerUnknown> {
    let request = any_caller.of_request(digest);
    let (first, held) = tokio::join!(pins.first_try(any_caller), pins.first_try(&request));
    Ok(first? != Some(Arm::Legacy) && held? == Some(Arm::Engine))
}

/// Counts a request that was refused because the engine has it under another credential.
pub(super) fn count_held(route: &RouteId) {
    metrics::counter!("pointsman_retry_keys_held_total", "route" => route.to_string()).increment(1);
    tracing::info!(%route, "a retry key came before with the same request under another credential; the request was refused");
}

/// Which arm took the first try, according to the store; for another credential of the same caller only legacy counts.
pub(super) async fn first_try(pins: &dyn Affinity, keys: &RetryKeys) -> Result<Option<Arm>, OwnerUnknown> {
    let any_caller = async {
        match &keys.any_caller {
            Some(key) => pins.first_try(key).await,
            None => Ok(None),
        }
    };
    let (scoped, any_caller) = tokio::join!(pins.first_try(&keys.scoped), any_caller);
    Ok(match scoped? {
        Some(arm) => Some(arm),
        None => any_caller?.filter(|arm| *arm == Arm::Legacy),
    })
}
