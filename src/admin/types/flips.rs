//! The request to flip a route, and its response.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::run_requests;
use crate::flag::{Effective, Shares, State};
use crate::names::RouteId;
use crate::store::{CandidateAction, GuardAction};

/// A request to move a route to another state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FlipRequest {
    /// The new state.
    pub to: State,
    /// The share from now on, in percent.
    #[serde(default)]
    #[schemars(range(min = 0, max = 100))]
    pub percent: Option<f64>,
    /// The reason.
    #[serde(default, deserialize_with = "super::free_text::optional")]
    pub reason: Option<String>,
    /// Pass the gate without its evidence; requires a reason.
    #[serde(default)]
    pub force: bool,
    /// Confirms that the caller has read the consequences; required to lower a route from `only`.
    #[serde(default)]
    pub acknowledge: bool,
    /// The caller's name, where the listener requires no token: recorded as unverified.
    #[serde(default, rename = "as")]
    #[schemars(with = "Option<run_requests::PersonName>")]
    pub by: Option<String>,
}

/// The response to a flip that was made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FlipResponse {
    /// The record. Its number is 0 if nothing changed, and until the store has recorded it. If a larger share was set
    /// together with a lower state: the record of the share, with the `from` of the flip down.
    pub flip: FlipRow,
    /// Whether anything changed: a flip to the present state changes nothing.
    #[serde(default = "super::default_true")]
    pub changed: bool,
    /// Whether the store has recorded the flip. If not (status 202), the route is down all the same, but returns to the
    /// state in the store if the process ends before the flip is recorded. Also false if the flip down is recorded, but
    /// it is not known yet whether the larger share that was given with it is recorded; `note` says so.
    #[serde(default = "super::default_true")]
    pub recorded: bool,
    /// If the flip is not recorded, or not in force in another process: a sentence that says so. Left out otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// The other processes on the same store that do not have it in force yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_in_force_in: Vec<String>,
    /// The state in force now.
    pub effective: Effective,
    /// The shares in force now.
    pub shares: Shares,
    /// If the route was lowered: the consequences, as sentences. If a larger share was given together with the lower
    /// state, a sentence says so where the share was not raised, so that the route has to be flipped again to get it,
    /// or where it is not known yet whether the share was raised.
    pub horizon: Vec<String>,
    /// What the gates that this flip overrode by force still require, as sentences.
    #[serde(default)]
    pub still_required: Vec<String>,
    /// The number of durable runs of the route that have not ended; they continue as they were started.
    pub runs_in_flight: u64,
}

/// One change of a flag.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FlipRow {
    /// The number of the record; later records have higher numbers.
    pub number: u64,
    /// The route; `null` for the kill switch.
    pub route: Option<RouteId>,
    /// The state before (for the kill switch: `no`, `instances`, `effects`).
    pub from: String,
    /// The state after.
    pub to: String,
    /// The shares after the change.
    pub shares: Option<Shares>,
    /// Who made the change.
    pub by: String,
    /// When the change was made.
    pub at: Timestamp,
    /// The reason given.
    pub reason: Option<String>,
    /// Whether a gate was passed by force: by this flip, or by an earlier one whose gate the evidence still does not
    /// open.
    pub forced: bool,
    /// The rung below the lowest such gate; `null` if there is none, and in records of earlier versions.
    #[serde(default)]
    pub forced_above: Option<State>,
    /// The rung below the lowest gate that this flip itself passed by force; `null` if it passed none so, and in
    /// records of earlier versions.
    #[serde(default)]
    pub forced_now_above: Option<State>,
    /// What a guard did, or `released` for the end of that: then `from` and `to` are states in force, and the requested
    /// state did not change. Left out for flips.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guard: Option<GuardAction>,
    /// What became of the candidate of the route; then `from` and `to` are stages, and the state did not change. Left
    /// out for flips.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candidate: Option<CandidateAction>,
}
