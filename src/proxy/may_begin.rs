//! Decides whether the engine may begin a run for a request that it gets.
//!
//! Always true: during a freeze no new run begins, except on routes in `only` and for instances that the engine owns;
//! what the engine has taken before continues.

use crate::exchange::MayBegin;
use crate::flag::{Decision, EngineReason, RouteFlag, State};

/// Whether the engine may begin a run for a request that it gets. A retry goes to the engine because the engine has
/// taken its first try. If the first try began no run (its client went away), the retry counts as a new request, with
/// the same restrictions: `decision_if_new` is the decision for a new request. Therefore this function also clears
/// `may_fall_back` in the decision if a new request could not fall back.
pub(super) fn may_begin(decision: &mut Decision, decision_if_new: &Decision, flag: &RouteFlag) -> MayBegin {
    // A freeze never lowers a route in `only`. It does lower a cohort in `only` of another route.
    let is_exempt = flag.effective.state == State::Only;
    let unless_frozen = if is_exempt { MayBegin::Always } else { MayBegin::UnlessFrozen };
    match decision {
        Decision::Engine { reason: EngineReason::Pin | EngineReason::Adopted, .. } => MayBegin::Always,
        Decision::Engine { reason: EngineReason::Rung | EngineReason::Cohort, .. } => unless_frozen,
        Decision::Engine { reason: EngineReason::Retry, may_fall_back, .. } => match decision_if_new {
            Decision::Engine { may_fall_back: would_fall_back, .. } => {
                *may_fall_back &= would_fall_back;
                unless_frozen
            }
            Decision::Legacy { .. } | Decision::Nobody { .. } => MayBegin::Never,
        },
        Decision::Legacy { .. } | Decision::Nobody { .. } => MayBegin::Never,
    }
}
