//! The state of a route that is in force, and the inputs that it follows from.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Cohort, Freeze, Route, Shares, State};

/// The state in force: the lowest of requested, gate, guard, health and kill switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Effective {
    /// The state in force.
    pub state: State,
    /// Why.
    pub why: EffectiveReason,
}

/// Which input determines the effective state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum EffectiveReason {
    /// As requested.
    Requested,
    /// No evidence supports it: no flip was recorded, so that it is the state in the file; or something that the
    /// evidence depends on was changed while the route was in `live` or above.
    Unproven,
    /// The gate allows less than what was requested, or a route in `live` is held at `dark` for a time.
    Gate,
    /// The guard lowered the route.
    Guard,
    /// The engine is not healthy.
    Health,
    /// The kill switch is on.
    Freeze,
}

impl EffectiveReason {
    /// All reasons: the closed set of the metric's labels.
    pub const ALL: [EffectiveReason; 6] = [
        EffectiveReason::Requested,
        EffectiveReason::Unproven,
        EffectiveReason::Gate,
        EffectiveReason::Guard,
        EffectiveReason::Health,
        EffectiveReason::Freeze,
    ];

    /// The label.
    pub fn as_str(self) -> &'static str {
        match self {
            EffectiveReason::Requested => "requested",
            EffectiveReason::Unproven => "unproven",
            EffectiveReason::Gate => "gate",
            EffectiveReason::Guard => "guard",
            EffectiveReason::Health => "health",
            EffectiveReason::Freeze => "freeze",
        }
    }
}

/// The inputs of a route's effective state: flips, gate, guard and health.
#[derive(Clone, Debug, PartialEq)]
pub struct StateInputs {
    /// The state of the last flip, or the one in the file.
    pub requested: State,
    /// The shares in force.
    pub shares: Shares,
    /// Whether no flip of the route was recorded.
    pub has_no_flip: bool,
    /// The highest state that the gate allows, if more was requested; for a route that is held, the state at which it
    /// is held.
    pub gate: Option<State>,
    /// Whether the route is held below `live`, at the state in `gate`, for a limited time, after which it returns to
    /// `live` without a gate.
    pub is_held: bool,
    /// Whether a flip down is in force and not recorded yet, and a restart would return the route to `live` or above.
    pub returns_at_restart: bool,
    /// The highest state that the guard allows.
    pub guard: Option<State>,
    /// Whether the engine can take new instances.
    pub healthy: bool,
    /// The highest rung that the route reached by evidence, for all callers.
    pub proven: State,
    /// The highest rungs, above `shadow`, that cohorts without `force` reached by the evidence of their own requests,
    /// by name.
    pub proven_cohorts: BTreeMap<String, State>,
    /// The names of the cohorts that are held below `live` in spite of their `force`.
    pub held_cohorts: Vec<String>,
    /// Whether something that the evidence depends on was changed while the route, or a cohort of it, was in `live` or
    /// above.
    pub is_changed: bool,
}

/// The highest rung that the callers of a cohort without `force` may be on.
pub(super) fn proven_for(route_proven: State, cohorts_proven: &BTreeMap<String, State>, cohort: &Cohort) -> State {
    let own = cohorts_proven.get(&cohort.name).copied().unwrap_or(State::Shadow);
    route_proven.max(own).max(State::Shadow)
}

impl StateInputs {
    /// The inputs for a route as its file declares it: without a flip and without anything that lowers it.
    pub fn declared(route: &Route) -> Self {
        Self {
            requested: route.declared,
            shares: route.shares,
            has_no_flip: true,
            gate: None,
            is_held: false,
            returns_at_restart: false,
            guard: None,
            healthy: true,
            proven: State::Off,
            proven_cohorts: BTreeMap::new(),
            held_cohorts: Vec::new(),
            is_changed: false,
        }
    }

    /// The highest rung that the callers of a cohort without `force` may be on: what the route reached by evidence for
    /// all callers, or what the cohort reached by its own; `shadow` at least.
    pub fn proven_for(&self, cohort: &Cohort) -> State {
        proven_for(self.proven, &self.proven_cohorts, cohort)
    }

    /// The state in force: the lowest of requested, gate, guard, health and kill switch. The last three never lower
    /// `only`.
    pub fn effective(&self, freeze: Freeze) -> Effective {
        let mut effective = match self.gate {
            Some(gate) if gate < self.requested => Effective { state: gate, why: EffectiveReason::Gate },
            _ if self.has_no_flip || (self.is_changed && self.requested >= State::Live) => {
                Effective { state: self.requested, why: EffectiveReason::Unproven }
            }
            _ => Effective { state: self.requested, why: EffectiveReason::Requested },
        };
        if effective.state == State::Only {
            return effective;
        }
        for (limit, why) in self.limits(freeze) {
            if limit < effective.state {
                effective = Effective { state: limit, why };
            }
        }
        effective
    }

    /// The requested state, limited by the gate.
    pub fn granted(&self) -> State {
        self.gate.map_or(self.requested, |gate| gate.min(self.requested))
    }

    /// The highest rung that guard, health and kill switch allow.
    pub(super) fn cap(&self, freeze: Freeze) -> State {
        self.limits(freeze).into_iter().map(|(limit, _)| limit).fold(State::Only, State::min)
    }

    /// The highest states that kill switch, health and guard allow. Kill switch and health stop new engine instances,
    /// so that they allow `shadow` at most: `dark` creates instances too (durable twins), `shadow` keeps only evidence.
    fn limits(&self, freeze: Freeze) -> [(State, EffectiveReason); 3] {
        let freeze = match freeze {
            Freeze::No => State::Only,
            Freeze::Instances | Freeze::Effects => State::Shadow,
        };
        let health = if self.healthy { State::Only } else { State::Shadow };
        [
            (freeze, EffectiveReason::Freeze),
            (health, EffectiveReason::Health),
            (self.guard.unwrap_or(State::Only), EffectiveReason::Guard),
        ]
    }
}
