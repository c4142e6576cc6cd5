//! Where a route stands, as the API and the CLI tell it.

use super::gate::Gate;
use super::in_force::Inputs;
use super::positions::RoutePosition;
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
    /// Why the gate was passed by hand, by a flip or the file, until the evidence has caught up.
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

pub(super) fn of(inputs: &Inputs, gate: &Gate, at: &RoutePosition) -> RouteStatus {
    RouteStatus {
        route: at.route.id.clone(),
        declared: at.route.declared,
        requested: at.inputs.requested,
        effective: inputs.effective(at),
        shares: at.inputs.shares,
        unproven: at.inputs.unproven,
        forced: gate.still_forced(&inputs.positions, at),
        refused: at.refused.clone(),
        last: at.last.clone(),
        next: gate.next(&inputs.positions, at).map(|(to, missing)| NextRung { to, missing }),
    }
}
