//! The gate to `live` of a route for whose requests legacy makes calls after `egress.window`: they are compared with
//! nothing, so that a workflow without them looks right.

use crate::egress::{Attribution, LateTarget};
use crate::flag::{Route, State};
use crate::ladder::{GateCondition, Unmet};
use crate::shadow::RulesInForce;

/// Names such calls, unless the workflow makes them or `ignore_calls` names them.
pub(super) struct LateCallsGate {
    pub(super) rules: RulesInForce,
    pub(super) attribution: Attribution,
}

impl GateCondition for LateCallsGate {
    fn unmet(&self, route: &Route, _from: State, to: State) -> Vec<Unmet> {
        if to != State::Live || !route.promote.effects_compared {
            return Vec::new();
        }
        let late = self.attribution.report(&route.id).late;
        let rules = self.rules.load();
        let is_expected = |LateTarget { to, .. }: &&LateTarget| {
            let rules = rules.get(&route.id);
            rules.is_some_and(|rules| rules.is_expected_call(to.service.as_ref(), &to.authority, &to.method, &to.path))
        };
        let unexpected: Vec<&LateTarget> = late.targets.iter().filter(|target| !is_expected(target)).collect();
        // What the unlisted ones were is not known. As of the first one: a flip by force after that overrides it for
        // good.
        let counted = late.targets.iter().filter(|target| late.others > 0 || !is_expected(target));
        let Some(first) = counted.map(|target| target.first).min() else { return Vec::new() };
        let calls: u64 = unexpected.iter().map(|target| target.calls).sum::<u64>() + late.others;
        let mut to: Vec<String> = unexpected.iter().map(|target| format!("`{}`", target.to)).collect();
        if late.others > 0 {
            to.push(format!("{} more to targets that are not listed", late.others));
        }
        let why = format!(
            "legacy made {calls} calls for requests of this route after `egress.window` was over, which no pair shows and \
             the workflow does not make ({}): raise the window, or name in `compare.ignore_calls` those that are never \
             for the route",
            to.join(", ")
        );
        vec![Unmet { why, since: Some(first) }]
    }
}
