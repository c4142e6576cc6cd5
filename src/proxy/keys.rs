//! The retry keys of one request, and the arm that has them.
//!
//! Always true: where the caller's scope is a credential that nobody verified, what legacy takes is also noted for any
//! caller, so that the next try with a refreshed one stays with legacy; what the engine took is refused under another
//! one, and legacy is not asked.

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

/// Gives legacy what the engine gave back.
pub(super) fn give_to_legacy(pins: &dyn Affinity, keys: Option<RetryKeys>) -> LegacyTake {
    let Some(RetryKeys { scoped, any_caller }) = keys else { return LegacyTake::Noted };
    match (pins.give_to_legacy(scoped), any_caller) {
        (LegacyTake::Noted, Some(any_caller)) => pins.give_to_legacy(any_caller),
        (took, _) => took,
    }
}

/// Whether the engine may have a request with this key, of whatever body, under another credential of the same caller.
pub(super) fn may_be_held(pins: &dyn Affinity, any_caller: &RetryKey) -> bool {
    pins.remembered(&any_caller.of_request(&[0; 32])) != Remembered::NotEngine
}

/// Whether the engine has this very request under another credential. What legacy holds stays with legacy.
pub(super) async fn is_held(
    pins: &dyn Affinity,
    any_caller: &RetryKey,
    digest: &[u8; 32],
) -> Result<bool, OwnerUnknown> {
    let request = any_caller.of_request(digest);
    let (first, held) = tokio::join!(pins.first_try(any_caller), pins.first_try(&request));
    Ok(first? != Some(Arm::Legacy) && held? == Some(Arm::Engine))
}

/// A request was refused because the engine has it under another credential.
pub(super) fn count_held(route: &RouteId) {
    metrics::counter!("pointsman_retry_keys_held_total", "route" => route.to_string()).increment(1);
    tracing::info!(%route, "a retry key came before with the same request under another credential: nothing is done");
}

/// Which arm took the first try, as far as the store knows; under another credential of the same caller only legacy
/// counts.
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
