//! The calls by legacy that are part of no compared pair: puts them into the evidence of their routes, and holds the
//! gate to `live` of a route while there are some that the workflow does not make and `ignore_calls` does not name.
//! Without this, a workflow that lacks such calls would seem right.

use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;

use crate::egress::Attribution;
use crate::evidence::{Evidence, UncomparedCallCounts, UncomparedTarget, UncomparedTargets};
use crate::exchange::CallTarget;
use crate::flag::{Route, State};
use crate::ladder::{GateCondition, Unmet};
use crate::names::RouteId;
use crate::shadow::RulesInForce;

/// The most targets that a sentence names.
const NAMED_MAX: usize = 8;

/// The calls by legacy that are part of no compared pair.
pub(super) struct UncomparedCallsGate {
    pub(super) rules: RulesInForce,
    pub(super) evidence: Arc<Evidence>,
    pub(super) attribution: Attribution,
    /// Locked while calls are taken out of `attribution` and put into the evidence: a gate that is judged meanwhile
    /// waits, and so finds them.
    pub(super) taking: Mutex<()>,
}

/// The calls that hold the gate of a route shut.
struct GateHoldingCalls {
    calls: u64,
    /// Where they went, as lines of `ignore_calls`.
    to: String,
    /// When the first one ended.
    first: Timestamp,
}

impl UncomparedCallsGate {
    /// Puts the calls that are part of no compared pair into the evidence.
    pub(super) fn update_evidence(&self) {
        let _one_at_a_time = self.taking.lock().unwrap_or_else(PoisonError::into_inner);
        for calls in self.attribution.take_uncompared() {
            self.evidence.count_uncompared(&calls, &|to| self.is_expected(&calls.route, to));
        }
    }

    /// Whether the workflow of the route makes such a call, or its rules ignore it.
    fn is_expected(&self, route: &RouteId, to: &CallTarget) -> bool {
        let CallTarget { service, authority, method, path } = to;
        self.rules
            .load()
            .get(route)
            .is_some_and(|rules| rules.is_expected_call(service.as_ref(), authority, method, path))
    }

    /// The unexpected calls to these targets; `None` if there are none.
    fn gate_holding_calls(&self, route: &RouteId, targets: &UncomparedTargets) -> Option<GateHoldingCalls> {
        let is_expected = |target: &&UncomparedTarget| target.target().is_some_and(|to| self.is_expected(route, &to));
        let unexpected: Vec<&UncomparedTarget> = targets.listed.iter().filter(|target| !is_expected(target)).collect();
        let named = unexpected.iter().take(NAMED_MAX).map(|target| format!("`{}`", target.pattern()));
        let mut to: Vec<String> = named.collect();
        match unexpected.len().saturating_sub(NAMED_MAX) {
            0 => {}
            more => to.push(format!("{more} more targets (`evidence.uncompared_calls` in the API)")),
        }
        // Calls to targets that are not listed count as unexpected: what they were is not known.
        if targets.others > 0 {
            to.push(format!("{} calls to targets that are not listed", targets.others));
        }
        // The time of the first one counts: a flip by force after that overrides the condition for good.
        let first = unexpected.iter().map(|target| target.first).chain(targets.others_since).min()?;
        let calls = unexpected.iter().map(|target| target.calls).sum::<u64>() + targets.others;
        Some(GateHoldingCalls { calls, to: to.join(", "), first })
    }
}

impl GateCondition for UncomparedCallsGate {
    fn unmet(&self, route: &Route, _from: State, to: State) -> Vec<Unmet> {
        if to != State::Live || !route.promote.effects_compared {
            return Vec::new();
        }
        self.update_evidence();
        let UncomparedCallCounts { late, of_no_request } = self.evidence.uncompared_calls(&route.id);
        let late = self.gate_holding_calls(&route.id, &late).map(|GateHoldingCalls { calls, to, first }| Unmet {
            why: format!(
                "legacy made {calls} calls for requests of this route after `egress.window` was over, which are part of no \
                 compared pair and which the workflow does not make ({to}): raise the window, or name in \
                 `compare.ignore_calls` those that are never for the route"
            ),
            since: Some(first),
        });
        let of_no_request = self.gate_holding_calls(&route.id, &of_no_request).map(|GateHoldingCalls { calls, to, first }| Unmet {
            why: format!(
                "legacy made {calls} calls or tunnels that may have changed something, belong to no known request and may \
                 be for requests of this route, are part of no compared pair and not made by the workflow ({to}): name in \
                 `compare.ignore_calls` those that are never for the route, such as jobs of legacy and calls of other \
                 routes; if they are for it, add them to the workflow, or have legacy send with each call the request's \
                 `traceparent`, or what `egress.correlate` names"
            ),
            since: Some(first),
        });
        late.into_iter().chain(of_no_request).collect()
    }
}
