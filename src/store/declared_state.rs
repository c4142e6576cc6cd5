//! What the files declared of a route when they were last put in force, and what that was based on.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::declared_promote::DeclaredPromote;
use super::follower_requests::FollowerRequests;
use super::retry_scopes::RetryScopes;
use crate::flag::{Shares, State};
use crate::names::{PlanSet, RouteId};

/// The last declaration of a route in the files, to which newly read files are compared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "DeclaredRow", into = "DeclaredRow")]
pub struct DeclaredState {
    /// The route.
    pub route: RouteId,
    /// What the file declared when the route was last in the files that were put in force; `None` where the store has
    /// no declaration under this id.
    pub file: Option<FileState>,
    /// What its retry keys are scoped by; `None` in a row that an older binary wrote.
    pub retry: Option<RetryScopes>,
    /// By which requests it follows up the instances of a family; `None` where it does not, or in a row that an older
    /// binary wrote.
    pub follows: Option<FollowerRequests>,
    /// The evidence with which the route, or a cohort of it, went to `live` or above; `None` where neither is there, or
    /// in a row that an older binary wrote.
    pub live: Option<LiveBasis>,
    /// The plans that are in force for the route in `live` or `only`, whatever the files say; `None` where it is lower,
    /// or in a row that an older binary wrote. Their definitions are stored by id.
    pub in_force: Option<PlanSet>,
    /// The earlier plans in force, where those in force replaced them through the gate of a candidate: the evidence of
    /// the other routes of the family is about instances that these made, and it still counts. `None` where that is not
    /// so, or in a row that an older binary wrote.
    pub evidence_from: Option<PlanSet>,
    /// The state above `shadow` that the `force` in its file put in force without a flip; `None` where it has a flip,
    /// where its file never did so, or in a row that an older binary wrote.
    pub forced: Option<ForcedState>,
    /// What its gates require; `None` where no version that notes it read files with the route.
    pub promote: Option<DeclaredPromote>,
    /// Whether the files put in force last do not have the route; `file` is then what earlier ones declared.
    pub is_absent: bool,
    /// The earlier ids of the route, the newest first, by the files that were put in force last: those that the files
    /// listed, and those that they listed no longer. Empty where it has none, or in a row that an older binary wrote.
    pub earlier_ids: Vec<RouteId>,
}

/// A state that a file put in force without a flip.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForcedState {
    /// The state.
    pub state: State,
    /// The reason that the file gives; `None` if it says no `force` any more, so that the state is not above `shadow`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Since when it is in force.
    pub since: Timestamp,
    /// The [`source`](super::RecordEntry::source) of its entry in the record.
    pub source: String,
}

/// The evidence with which a route, or a cohort of it, went to `live` or above.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveBasis {
    /// The basis of the evidence (a hash of workflows, rules, `match` and services) with which it went there: through
    /// the gate, or by force. If the files have another basis now, they were changed since. `None` if it is not known.
    pub basis: Option<String>,
    /// Whether the route is below `live` although its last flip put it in `live` or above: it is held, its gate is shut
    /// after a hold, or its file lacks what `live` needs (a workflow, a `key`).
    #[serde(rename = "is_held", default, skip_serializing_if = "std::ops::Not::not")]
    pub is_below_live: bool,
}

/// The stored form of [`DeclaredState`]. Older binaries wrote only the route, `state` and `shares`.
#[derive(Serialize, Deserialize)]
struct DeclaredRow {
    route: RouteId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    state: Option<State>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    shares: Option<Shares>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retry: Option<RetryScopes>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    follows: Option<FollowerRequests>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    live: Option<LiveBasis>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    in_force: Option<PlanSet>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    evidence_from: Option<PlanSet>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    forced: Option<ForcedState>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    promote: Option<DeclaredPromote>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    is_absent: bool,
    #[serde(rename = "was", default, skip_serializing_if = "Vec::is_empty")]
    earlier_ids: Vec<RouteId>,
}

impl From<DeclaredRow> for DeclaredState {
    fn from(row: DeclaredRow) -> Self {
        let DeclaredRow {
            route,
            state,
            shares,
            retry,
            follows,
            live,
            in_force,
            evidence_from,
            forced,
            promote,
            is_absent,
            earlier_ids,
        } = row;
        let file = state.zip(shares).map(|(state, shares)| FileState { state, shares });
        Self { route, file, retry, follows, live, in_force, evidence_from, forced, promote, is_absent, earlier_ids }
    }
}

impl From<DeclaredState> for DeclaredRow {
    fn from(state: DeclaredState) -> Self {
        let DeclaredState {
            route,
            file,
            retry,
            follows,
            live,
            in_force,
            evidence_from,
            forced,
            promote,
            is_absent,
            earlier_ids,
        } = state;
        let (state, shares) = file.map(|FileState { state, shares }| (state, shares)).unzip();
        Self {
            route,
            state,
            shares,
            retry,
            follows,
            live,
            in_force,
            evidence_from,
            forced,
            promote,
            is_absent,
            earlier_ids,
        }
    }
}

/// What a file declares of a route: only a change of that is a flip by `file`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FileState {
    /// Its state in the file.
    pub state: State,
    /// Its shares in the file.
    pub shares: Shares,
}
