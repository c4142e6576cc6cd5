//! Where a route stands, as the API and the CLI tell it.

use super::board::{Board, Place};
use super::judge::{is_still_forced, next};
use crate::evidence::Evidence;
use crate::flag::{Effective, Shares, State};
use crate::names::RouteId;
use crate::store::FlipRecord;

/// Where a route stands and why.
#[derive(Clone, Debug, serde::Serialize)]
pub struct RouteStatus {
    /// The route.
    pub route: RouteId,
    /// What its file declares.
    pub declared: State,
    /// What was asked for last, by a flip or the file.
    pub requested: State,
    /// What is in force, and why.
    pub effective: Effective,
    /// The shares in force.
    pub shares: Shares,
    /// No flip stands behind it: it is as its file declares.
    pub unproven: bool,
    /// Why the gate was passed by hand, until the evidence has caught up.
    pub forced: Option<String>,
    /// Why the file's wish was refused; empty where it was not.
    pub refused: Vec<String>,
    /// The last flip.
    pub last: Option<FlipRecord>,
    /// The rung above; `None` at the top.
    pub next: Option<NextRung>,
}

/// The rung above, and what it still takes.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct NextRung {
    /// Which.
    pub to: State,
    /// Every condition that does not hold, as sentences; empty where the way is open.
    pub missing: Vec<String>,
}

pub(super) fn of(board: &Board, evidence: &Evidence, place: &Place) -> RouteStatus {
    let forced = is_still_forced(evidence, place);
    let reason = |flip: &FlipRecord| flip.reason.clone().unwrap_or_default();
    RouteStatus {
        route: place.route.id.clone(),
        declared: place.route.declared,
        requested: place.standing.requested,
        effective: place.standing.effective(board.freeze),
        shares: place.standing.shares,
        unproven: place.standing.unproven,
        forced: place.last.as_ref().filter(|_| forced).map(reason),
        refused: place.refused.clone(),
        last: place.last.clone(),
        next: next(board, evidence, place).map(|(to, missing)| NextRung { to, missing }),
    }
}
