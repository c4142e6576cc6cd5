//! The latch of a route's guard, as the API and the CLI show it.

use super::gate::Gate;
use super::guard_latches::is_unrecorded;
use super::guard_types::GuardStatus;
use super::in_force::Inputs;
use super::positions::RoutePosition;
use crate::evidence::CleanPairs;
use crate::store::GuardRecord;

/// The latch of a route's guard; `None` if it has none.
pub(super) fn guard_status(inputs: &Inputs, gate: &Gate, position: &RoutePosition) -> Option<GuardStatus> {
    let latch = inputs.guards.latch(&position.route)?;
    let GuardRecord { action, limit, condition, bad, of, runs, route: _ } = latch.guard.clone()?;
    let CleanPairs { pairs, .. } =
        limit.map(|limit| gate.evidence.clean_pairs(&position.route.id, limit)).unwrap_or_default();
    Some(GuardStatus {
        action,
        limit,
        condition,
        bad,
        of,
        runs,
        at: latch.at,
        reason: latch.reason.clone().unwrap_or_default(),
        is_recorded: !is_unrecorded(latch),
        release: position.route.guard.as_ref().map(|guard| guard.release).unwrap_or_default(),
        clean_pairs: pairs,
        clean_pairs_wanted: position.route.promote.pairs,
    })
}
