//! What the ladder is told of plans: those of the files, and those that stay in force whatever the files say.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use crate::flag::Percent;
use crate::names::{PlanId, PlanSet, RouteId};

/// What the files and the store have of plans.
#[derive(Clone, Default)]
pub struct DeclaredPlans {
    /// The plans of each route's workflow in the files.
    pub of_files: BTreeMap<RouteId, Arc<PlanSet>>,
    /// The plans that stay in force under these files, whatever they say.
    pub in_force: BTreeMap<RouteId, Arc<PlanSet>>,
    /// Why some of these cannot be run under these files: the engine begins nothing for their routes.
    pub unrunnable: BTreeMap<RouteId, String>,
    /// The definitions of the plans of the files, to be stored before a plan is in force.
    pub sources: BTreeMap<PlanId, Arc<Value>>,
    /// The shared steps of the workflows that a route's workflow runs, in the files: `WORKFLOW/STEP`.
    pub shared_steps_below: BTreeMap<RouteId, Vec<String>>,
    /// The basis of the evidence of each candidate.
    pub candidate_bases: BTreeMap<RouteId, String>,
    /// The candidate that is moved together with these files.
    pub candidate_move: Option<CandidateMove>,
}

/// A request to put the candidate of a route in force, or to give it a share of the route's new requests.
#[derive(Clone, Debug)]
pub struct CandidateMove {
    /// The route.
    pub route: RouteId,
    /// The plans that whoever asks takes for the candidate.
    pub candidate: Arc<PlanSet>,
    /// The share of new requests that it answers from now on; `None` puts it in force.
    pub share: Option<Percent>,
    /// Override the gate; requires a reason.
    pub force: bool,
    /// Why.
    pub reason: Option<String>,
    /// Who requests it.
    pub by: String,
}

impl DeclaredPlans {
    /// The candidate that comes into force with these files.
    pub(super) fn comes_into_force(&self) -> Option<&CandidateMove> {
        self.candidate_move.as_ref().filter(|candidate_move| candidate_move.share.is_none())
    }
}
