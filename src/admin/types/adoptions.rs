//! Instances of legacy that the engine adopts, and the requests to have them adopted.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::run_requests;
use crate::flag::Arm;
use crate::names::{RouteId, RunId, WorkflowName};
use crate::store::AdoptionState;

/// The adoptions of a family.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AdoptionsView {
    /// The route that creates the instances.
    pub route: RouteId,
    /// The workflow of its `adopt:`; `null` if it has none.
    pub workflow: Option<WorkflowName>,
    /// How many instances the engine has adopted.
    pub adopted: u64,
    /// How many are being moved now.
    pub moving: u64,
    /// How many wait for a person: whether legacy released them is not known.
    pub unknown: u64,
    /// How many were tried and stayed legacy's.
    pub given_back: u64,
    /// The newest bulk of this process; `null` if there was none.
    pub bulk: Option<BulkRow>,
    /// Instances that are not the engine's: unknown ones, those that move, those that stayed legacy's; of each at most
    /// 100.
    pub instances: Vec<AdoptionRow>,
}

/// A bulk of adoptions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct BulkRow {
    /// Whether it goes on.
    pub is_running: bool,
    /// When it was asked for.
    pub since: Timestamp,
    /// Who asked for it.
    pub by: String,
    /// How many instances it has read so far.
    pub found: u64,
    /// How many of these the engine has adopted.
    pub adopted: u64,
    /// How many the engine had made itself.
    pub engines: u64,
    /// How many are legacy's.
    pub at_legacy: u64,
    /// How many wait for a person.
    pub unknown: u64,
    /// How many are still being moved.
    pub moving: u64,
    /// By instance: why it was not adopted, of at most 100.
    pub reasons: BTreeMap<String, String>,
    /// Why it ended before it had read all instances; `null` if it did not.
    pub ended_early: Option<String>,
}

/// An instance that the engine has not adopted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AdoptionRow {
    /// Its id.
    pub id: String,
    /// `unknown`, `moving` or `given_back`.
    #[schemars(with = "String")]
    pub state: AdoptionState,
    /// Why; `null` while it moves.
    pub reason: Option<String>,
    /// The run that moves it, or tried.
    #[schemars(with = "String")]
    pub run: RunId,
    /// Who asked for it, or decided it.
    pub by: String,
    /// When its state changed last.
    pub at: Timestamp,
}

/// A request to have instances adopted: `all`, or some `ids`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AdoptRequest {
    /// All instances that legacy is known to have.
    #[serde(default)]
    pub all: bool,
    /// The ids of some.
    #[serde(default)]
    #[schemars(length(max = 10_000))]
    pub ids: Vec<String>,
    /// The caller's name, where the listener requires no token: recorded as unverified.
    #[serde(default, rename = "as")]
    #[schemars(with = "Option<run_requests::PersonName>")]
    pub by: Option<String>,
}

/// A decision about an instance of which it is not known whether legacy released it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AdoptionDecisionRequest {
    /// The instance's id.
    pub id: String,
    /// Whose it is.
    pub owner: Arm,
    /// Why.
    #[serde(deserialize_with = "super::free_text::required")]
    pub reason: String,
    /// The caller's name, where the listener requires no token: recorded as unverified.
    #[serde(default, rename = "as")]
    #[schemars(with = "Option<run_requests::PersonName>")]
    pub by: Option<String>,
}
