//! What the guard of a route did, and the request to release it.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::flips::FlipRow;
use super::run_requests;
use crate::flag::{Effective, GuardCondition, GuardRelease, State};
use crate::names::RouteId;
use crate::store::GuardAction;

/// What the guard of a route did and nobody has released.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GuardRow {
    /// `lowered`, or `alerted` in `only`.
    pub action: GuardAction,
    /// The highest state that the guard allows; `null` for an alarm.
    pub limit: Option<State>,
    /// The condition that did not hold.
    pub condition: Option<GuardCondition>,
    /// How many requests or pairs were bad.
    pub bad: u64,
    /// Among so many, the last ones.
    pub of: u64,
    /// The ids of some of their runs.
    pub runs: Vec<String>,
    /// When it acted.
    pub at: Timestamp,
    /// What it found.
    pub reason: String,
    /// Whether the store has not recorded it yet: if the process ends before it is recorded, it is lost.
    pub unrecorded: bool,
    /// How it returns: by `hand`, or also by `evidence`.
    pub release: GuardRelease,
    /// The pairs in a row since then without a difference or a failed run.
    pub clean_pairs: u64,
    /// How many of these `release: evidence` asks for.
    pub clean_pairs_wanted: u64,
}

/// A request to release what the guard of a route did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GuardReleaseRequest {
    /// Why.
    #[serde(deserialize_with = "super::free_text::required")]
    pub reason: String,
    /// Also if the route was changed since its evidence, or a follower of it is still lowered.
    #[serde(default)]
    pub force: bool,
    /// The caller's name, where the listener requires no token: recorded as unverified.
    #[serde(default, rename = "as")]
    #[schemars(with = "Option<run_requests::PersonName>")]
    pub by: Option<String>,
}

/// What the guard of a route did is released.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GuardReleaseResponse {
    /// The route.
    pub route: RouteId,
    /// The record.
    pub record: FlipRow,
    /// The state in force now, and why.
    pub effective: Effective,
    /// What the gates up to the requested state would still require, as sentences. A release does not ask them.
    pub still_shut: Vec<String>,
}
