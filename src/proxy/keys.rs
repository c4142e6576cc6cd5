//! The retry keys of one request, and the arm that has them.
//!
//! Always true: where the caller's scope is a credential that nobody verified, what legacy takes is also noted for any
//! caller, so that the next try with a refreshed one stays with legacy.

use crate::exchange::{Affinity, LegacyTake, OwnerUnknown};
use crate::flag::{Arm, RetryKeys};

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
