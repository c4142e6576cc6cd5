//! The plans that the ladder gets together with new files: those of the files, and those that stay in force.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use crate::flag::Percent;
use crate::names::{PlanId, PlanSet, RouteId};

/// The plans of the files, and those in force.
#[derive(Clone, Default)]
pub struct DeclaredPlans {
    /// The plans of each route's workflow in the files.
    pub of_files: BTreeMap<RouteId, Arc<PlanSet>>,
    /// The plans that stay in force under these files, although the files may have other ones.
    pub in_force: BTreeMap<RouteId, Arc<PlanSet>>,
    /// For routes whose plans in force cannot be run under these files: why. The engine begins no run for them.
    pub unrunnable: BTreeMap<RouteId, String>,
    /// The definitions of the plans of the files: a definition is stored before its plan comes into force.
    pub sources: BTreeMap<PlanId, Arc<Value>>,
    /// The shared steps of the child workflows that a route's workflow runs, by the files: `WORKFLOW/STEP`.
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
    /// The plans that the person who asks has seen as the candidate: the move is refused if it has other ones by now.
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
