//! The request to read the files now, and its response.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::file_problem::FileProblem;
use super::flips::FlipRow;
use super::run_requests;
use crate::evidence::EvidenceRestart;
use crate::flag::{Effective, State};
use crate::names::RouteId;

/// A request to read the files now.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReloadRequest {
    /// The caller's name, where the listener requires no token: logged as unverified.
    #[serde(default, rename = "as")]
    #[schemars(with = "Option<run_requests::PersonName>")]
    pub by: Option<String>,
}

/// The files were read and are in force.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ReloadResponse {
    /// Whether the files differ from those that were in force before. If not, secrets and key files were read again.
    pub changed: bool,
    /// For how many seconds files with this content have been in force.
    pub in_force_s: f64,
    /// Counts how often the flag set was replaced, by files or by flips.
    pub generation: u64,
    /// The flips that the files made.
    pub flips: Vec<FlipRow>,
    /// The routes whose effective state changed by this reading without a flip, because the gate now allows them
    /// another state, or because the files changed until when they are held below `live`.
    #[serde(default)]
    pub moved: Vec<MovedRoute>,
    /// The routes that are not in the state that is requested for them.
    #[serde(rename = "held")]
    pub limited: Vec<LimitedRoute>,
    /// The routes whose workflow, rules, `match` or services were changed, by these files or by earlier ones, while the
    /// route, or a cohort of it, was in `live` or above. They stay there, although no evidence supports the change.
    #[serde(default)]
    pub changed_since_evidence: Vec<ChangedRoute>,
    /// The routes whose evidence these files started from zero, because something that it depends on changed.
    #[serde(default)]
    pub evidence_restarted: Vec<RestartedRoute>,
    /// The routes whose changed workflow is a candidate: the workflow that was in force before still answers.
    #[serde(default)]
    pub candidates: Vec<CandidateOfRoute>,
    /// The warnings of `check`.
    pub warnings: Vec<FileProblem>,
    /// Settings that differ from those that the process was started with; they take effect at the next start.
    pub needs_restart: Vec<String>,
}

/// A route whose files have another workflow than the one in force.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CandidateOfRoute {
    /// The route.
    pub route: RouteId,
    /// The share of new requests that the workflow of the files answers, percent.
    pub percent: f64,
}

/// A route whose effective state changed without a flip.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MovedRoute {
    /// The route.
    pub route: RouteId,
    /// The state in force before.
    pub from: State,
    /// The state in force now, and why.
    pub effective: Effective,
}

/// A route that was changed while it, or a cohort of it, was in `live` or above.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ChangedRoute {
    /// The route.
    pub route: RouteId,
    /// What was changed and what to do, as a sentence.
    pub reason: String,
}

/// A route whose evidence started from zero.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RestartedRoute {
    /// The route.
    pub route: RouteId,
    /// When, and what changed.
    pub restart: EvidenceRestart,
}

/// A route that is not in the state that is requested for it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LimitedRoute {
    /// The route.
    pub route: RouteId,
    /// The state in the file.
    pub declared: State,
    /// The state in force.
    pub state: State,
    /// Why the route is not in the requested state, as sentences.
    pub reasons: Vec<String>,
}
