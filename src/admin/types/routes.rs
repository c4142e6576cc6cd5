//! The routes and their states.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::auto::AutoRow;
use super::candidates::CandidateRow;
use super::cohorts::CohortAheadRow;
use super::flips::FlipRow;
use super::gate::GateRow;
use super::guard::GuardRow;
use super::instances::InstancesRow;
use crate::evidence::{Condition, EvidenceRestart, GateVerdict, RouteEvidence};
use crate::flag::{Effective, Shares, State};
use crate::names::{RouteId, WorkflowName};

/// A route in one row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RouteRow {
    /// The route's id.
    pub id: RouteId,
    /// Method and path, such as `POST /orders`; the host, if the route has one, stands before the path.
    pub matches: String,
    /// The legacy service.
    pub legacy: String,
    /// The workflow that the engine runs for the route.
    pub workflow: Option<WorkflowName>,
    /// The route that creates the instances that this one follows up.
    #[serde(default)]
    pub follows: Option<RouteId>,
    /// On a route that creates instances: those that are alive, for each arm that has, or had, some.
    #[serde(default)]
    pub instances: Vec<InstancesRow>,
    /// The state that was requested.
    pub requested: State,
    /// The state in force, and why.
    pub effective: Effective,
    /// The reason that was given for passing the gate by force; `null` once the evidence suffices.
    #[serde(default)]
    pub forced: Option<String>,
    /// The cohorts that are on a higher rung than the route.
    #[serde(default)]
    pub cohorts_ahead: Vec<CohortAheadRow>,
    /// What a person has to accept by a forced flip, such as a pin collision: a sentence. `null` if there is nothing.
    #[serde(default)]
    pub to_accept: Option<String>,
    /// If the route's workflow, rules, `match` or services were changed while the route, or a cohort of it, was in
    /// `live` or above: a sentence that says so and what to do. `null` if there was no such change, once the evidence
    /// suffices, and after a flip with `--force`.
    #[serde(default)]
    pub changed_since_evidence: Option<String>,
    /// When and why the evidence was last started from zero; `null` if that never happened.
    #[serde(default)]
    pub evidence_restarted: Option<EvidenceRestart>,
    /// Whether the route's last flip, a flip down, is in force and not recorded yet: if the process ends before it is
    /// recorded, the route returns to the state in the store.
    #[serde(default)]
    pub flip_unrecorded: bool,
    /// What the route's guard did; `null` if nothing, or if it was released.
    #[serde(default)]
    pub guard: Option<GuardRow>,
    /// While the engine answers callers: what the route's guard is asked to count and cannot, because legacy's own rate
    /// is not known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_guarded: Vec<String>,
    /// In `live` and `only`: the plan in force, whatever the files say. Where its workflow runs others, a hash over all
    /// plans follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
    /// Why that plan cannot be run with the files in force: then the engine begins nothing for the route. `null` if it
    /// can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan_trouble: Option<String>,
    /// Its changed workflow, where that is not in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candidate: Option<CandidateRow>,
    /// How far its share is on the way to the next one; `null` if it does not grow by itself.
    #[serde(default)]
    pub auto: Option<AutoRow>,
    /// What the next rung still requires; `null` in `off`, on the highest rung, and for a route without a workflow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<GateRow>,
    /// The shares in force.
    pub shares: Shares,
    /// The number of comparisons since the evidence was last started from zero.
    pub pairs: u64,
    /// How many of these comparisons differ.
    pub mismatched: u64,
    /// The upper bound of the share of requests that differ, from 0 to 1, with a confidence of 95 % however often it is
    /// looked at; `null` without pairs.
    #[serde(default)]
    pub mismatch_at_most: Option<f64>,
    /// The share of requests that were compared, from 0 to 1; `null` without pairs.
    #[serde(default)]
    pub coverage: Option<f64>,
    /// How many shared steps of the workflow nothing compared yet.
    #[serde(default)]
    pub uncompared_steps: u64,
    /// When the route was flipped last; `null` if it never was.
    #[serde(default)]
    pub since: Option<Timestamp>,
    /// The number of requests answered since the process started.
    pub requests: u64,
    /// The median time that the proxy added to a request, in microseconds; `null` if nothing was measured.
    pub overhead_p50_us: Option<f64>,
}

/// A route in full.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RouteDetail {
    /// The row.
    pub row: RouteRow,
    /// The state that the file declares.
    pub declared: State,
    /// The last flip. Its number is 0 until the store has recorded it.
    pub flip: Option<FlipRow>,
    /// Why the route is not in the state that its file declares or that it was flipped to; empty if it is.
    #[serde(default)]
    pub refused: Vec<String>,
    /// The next rung and what it still requires; `null` on the highest rung. Nothing is missing if the gate is open.
    pub next: Option<NextRung>,
    /// The consequences of lowering the route, as sentences; empty if the engine owns no instance.
    pub horizon: Vec<String>,
    /// How many instances of the family each arm owns. Of the instances of `legacy`, only those count that have a twin:
    /// an instance that the engine created in `dark` from the same request.
    pub pins: BTreeMap<String, u64>,
    /// The evidence.
    pub evidence: RouteEvidence,
}

/// The next rung up and what it still requires.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NextRung {
    /// The rung.
    pub to: State,
    /// The verdict of its gate.
    #[serde(default = "not_judged")]
    pub verdict: GateVerdict,
    /// All that does not hold, as sentences; empty if the gate is open.
    pub missing: Vec<String>,
    /// The conditions on the route's evidence, whether they hold or not.
    #[serde(default)]
    pub conditions: Vec<Condition>,
}

/// The verdict where a server of an earlier version gives none.
fn not_judged() -> GateVerdict {
    GateVerdict::Inconclusive
}
