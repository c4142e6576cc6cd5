//! What became of the candidate of a route, as a record beside the flips.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::flag::Percent;
use crate::names::{PlanSet, RouteId};

/// A change of the candidate of a route: the changed version of its workflow that is not in force yet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CandidateRecord {
    /// The route.
    pub route: RouteId,
    /// What happened.
    pub action: CandidateAction,
    /// The plans in force from now on; `None` where the route is below `live`.
    pub in_force: Option<PlanSet>,
    /// The plans of the candidate from now on; `None` if there is none.
    pub candidate: Option<PlanSet>,
    /// The share of new requests that the candidate answers from now on; `None` for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<Percent>,
}

/// What happened to the candidate of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CandidateAction {
    /// The files changed the workflow of a route in `live` or `only`.
    Appeared,
    /// The files changed the workflow back, or the route went below `live`.
    Dropped,
    /// The candidate answers another share of new requests.
    Moved,
    /// The candidate is in force.
    Promoted,
}

impl CandidateAction {
    /// The name in JSON and in messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Appeared => "appeared",
            Self::Dropped => "dropped",
            Self::Moved => "moved",
            Self::Promoted => "promoted",
        }
    }
}

const SUFFIX: &str = "#candidate";

/// The id under which a route's candidate is stored: its records and its evidence, apart from the route's own. No route
/// can have such an id.
pub fn candidate_key(route: &RouteId) -> RouteId {
    RouteId::from(format!("{route}{SUFFIX}").as_str())
}

/// The route of whose candidate this is the id; `None` if it is the id of a route.
pub fn route_of_candidate(id: &RouteId) -> Option<RouteId> {
    id.as_str().strip_suffix(SUFFIX).map(RouteId::from)
}
