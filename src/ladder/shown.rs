//! The evidence, the status and the metrics of routes, as they are shown.

use serde_json::Value;

use super::Ladder;
use super::export::{show_candidate_share, show_plan_trouble, show_verdict};
use super::mover::Mover;
use super::plans;
use super::positions::Positions;
use super::status::{self, RouteStatus};
use crate::names::RouteId;

impl Ladder {
    /// The evidence of a route, or of its candidate, as it is now; `null` if the files do not have the route.
    pub fn evidence_now(&self, route: &RouteId, of_candidate: bool) -> Value {
        let (positions, gate) = (self.mover.in_force().inputs().positions, self.mover.gate());
        let Some(position) = positions.routes.get(route) else { return Value::Null };
        let evidence = match of_candidate {
            false => gate.evidence_of(&positions, position),
            true => gate.evidence_of_candidate(&positions, position),
        };
        serde_json::to_value(evidence).unwrap_or_default()
    }
}

impl Mover {
    pub fn status(&self, only: Option<&RouteId>) -> Vec<RouteStatus> {
        let inputs = self.in_force().inputs();
        let Positions { declared, routes, .. } = &inputs.positions;
        let wanted = declared.routes.iter().filter(|route| only.is_none_or(|only| route.id == *only));
        let routes = wanted.filter_map(|route| routes.get(&route.id));
        routes
            .map(|position| status::route_status(&inputs, self.gate(), position, self.auto_status(position)))
            .collect()
    }

    /// Shows the verdict of the next gate of every route with a workflow, and whether its plan in force can be run.
    pub fn publish_verdicts(&self) {
        let inputs = self.in_force().inputs();
        let positions = &inputs.positions;
        for position in positions.routes.values().filter(|position| position.route.workflow.is_some()) {
            show_plan_trouble(&position.route.id, positions.declared.plans.unrunnable.contains_key(&position.route.id));
            let plans = plans::of_flag(positions, &position.route.id);
            let candidate = plans.and_then(|plans| plans.candidate);
            show_candidate_share(&position.route.id, candidate.map_or(0.0, |own| own.share.as_f64() / 100.0));
            show_verdict(&position.route.id, self.gate().next(positions, position).map(|next| next.verdict()));
        }
    }
}
