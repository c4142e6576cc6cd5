//! Asks the store which arm took the first try of a request.

use crate::exchange::{Affinity, ArmUnknown};
use crate::flag::{Arm, RetryKey, RetryKeys};

/// A first try as the store knows it.
pub(super) struct FoundTry {
    pub arm: Option<Arm>,
    /// Whether the arm has the caller's own key, not one that several callers share.
    pub is_own: bool,
}

/// Asks the store which arm took the first try. A try under another credential counts only if legacy took it.
pub(super) async fn first_try(affinity: &dyn Affinity, keys: &RetryKeys) -> Result<FoundTry, ArmUnknown> {
    let arm_of = async |key: Option<RetryKey>| match key {
        Some(key) => affinity.first_try(&key).await,
        None => Ok(None),
    };
    let (scoped, any_caller, verified_callers) = tokio::join!(
        affinity.first_try(&keys.scoped),
        arm_of(keys.any_caller),
        arm_of(keys.looked_up_verified_callers()),
    );
    let scoped = scoped?;
    let found = match scoped {
        Some(arm) => Some(arm),
        None => any_caller?.filter(|arm| *arm == Arm::Legacy),
    };
    let of_verified = match found {
        Some(_) => None,
        None => verified_callers?.filter(|arm| *arm == Arm::Legacy),
    };
    Ok(FoundTry { arm: found.or(of_verified), is_own: scoped.is_some() })
}
