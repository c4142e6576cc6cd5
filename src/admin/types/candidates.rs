//! The candidate of a route: its changed workflow, which is not in force yet.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::run_requests;
use crate::evidence::{Condition, GateVerdict};
use crate::names::RouteId;

/// The changed workflow of a route in `live` or `only`. It is rehearsed, and answers no more than its share of callers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CandidateRow {
    /// The candidate's plan. Where its workflow runs others, a hash over all plans follows.
    pub plan: String,
    /// How far it is.
    pub stage: CandidateStage,
    /// The share of the route's new requests that it answers, in percent: none in `shadow`.
    pub share: f64,
    /// Since when it is the candidate with this share; `null` if that is not recorded yet.
    pub since: Option<Timestamp>,
    /// Why the guard took its share away; `null` unless that was the last move.
    pub stopped_by_guard: Option<String>,
    /// The pairs that were compared with the plan in force.
    pub pairs: u64,
    /// Of these, those that differ.
    pub mismatched: u64,
    /// The verdict of the gate that it has to pass to be in force.
    pub verdict: GateVerdict,
    /// What the gate still requires, as sentences; empty if it is open.
    pub missing: Vec<String>,
    /// The conditions on the evidence, whether they hold or not.
    pub conditions: Vec<Condition>,
}

/// How far a candidate is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CandidateStage {
    /// It is rehearsed on copies of requests that the plan in force has answered.
    Shadow,
    /// It answers a share of the route's new requests too.
    Live,
    /// It is the plan in force.
    InForce,
}

impl CandidateStage {
    /// Its name in requests and in the record.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Shadow => "shadow",
            Self::Live => "live",
            Self::InForce => "in-force",
        }
    }
}

/// A request to move the candidate of a route.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CandidateRequest {
    /// The new stage: `live` with `percent`, `in-force`; or `shadow`, which takes its share away.
    pub to: CandidateStage,
    /// With `live`: the share of the route's new requests that it answers, in percent.
    #[serde(default)]
    pub percent: Option<f64>,
    /// The plan that is taken for the candidate: another one is not moved. Left out: whichever is the candidate now.
    #[serde(default)]
    pub plan: Option<String>,
    /// Why; required with `force`.
    #[serde(default, deserialize_with = "super::free_text::optional")]
    pub reason: Option<String>,
    /// Pass the gate without its evidence.
    #[serde(default)]
    pub force: bool,
    /// The caller's name, where the listener requires no token: recorded as unverified.
    #[serde(default, rename = "as")]
    #[schemars(with = "Option<run_requests::PersonName>")]
    pub by: Option<String>,
}

/// The candidate of a route was moved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CandidateResponse {
    /// The route.
    pub route: RouteId,
    /// The plan that was moved.
    pub candidate: String,
    /// The plan in force now.
    pub in_force: String,
    /// The plan that was in force before. Runs and follow-ups that it has begun keep it.
    pub before: String,
    /// The share of the route's new requests that the candidate answers now, in percent.
    pub share: f64,
    /// Whether the gate was passed by force.
    pub forced: bool,
}
