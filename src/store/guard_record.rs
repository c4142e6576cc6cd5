//! What the guard of a route did, as a record beside the flips.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::flag::{GuardCondition, State};
use crate::names::{RouteId, RunId};

/// An action of the guard of a route, or its end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GuardRecord {
    /// The route.
    pub route: RouteId,
    /// What happened.
    pub action: GuardAction,
    /// The highest state that the guard allows from now on; `None`: it limits nothing.
    pub limit: Option<State>,
    /// What was more than is accepted; `None` in a release.
    pub condition: Option<GuardCondition>,
    /// How many requests or pairs were bad.
    #[serde(default)]
    pub bad: u64,
    /// Of how many requests or pairs: the most recent ones.
    #[serde(default)]
    pub of: u64,
    /// The runs of some of them.
    #[serde(default)]
    pub runs: Vec<RunId>,
}

/// What the guard of a route did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GuardAction {
    /// It lowered the state in force.
    Lowered,
    /// It raised an alarm in `only`, where it lowers nothing.
    Alerted,
    /// A person, or clean evidence, ended that; or, from `shadow`, raised the limit to `dark`.
    Released,
}

impl GuardAction {
    /// The name in JSON and in messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lowered => "lowered",
            Self::Alerted => "alerted",
            Self::Released => "released",
        }
    }
}

/// The id under which the actions of a route's guard are stored: beside its flips and apart from them, so that the last
/// flip of a route is not an action of its guard. No route can have such an id.
pub fn guard_key(route: &RouteId) -> RouteId {
    RouteId::from(format!("{route}#guard").as_str())
}
