//! What the ladder is told of checked files.

use std::collections::BTreeMap;
use std::time::Duration;

use super::plans::PlansInForce;
use crate::config::Setup;
use crate::evidence::EvidenceBasis;
use crate::flag::Route;
use crate::ladder::{CandidateMove, DeclaredFiles};
use crate::names::{RouteId, StepId};
use crate::shadow::CONTROL_ENDS_WITHIN;
use crate::workflow::PlanVersion;

/// How long comparing may take after a request's window is over.
const PAIRS_AFTER_WINDOW: Duration = Duration::from_secs(1);

/// What the ladder has to know of these files, with the basis of the evidence of each route and candidate.
pub(super) fn declared(
    setup: &Setup,
    files_version: u64,
    (plans, bases): (&PlansInForce, &[(RouteId, EvidenceBasis)]),
    candidate_move: Option<CandidateMove>,
) -> DeclaredFiles {
    DeclaredFiles {
        plans: plans.declared(setup, bases, candidate_move),
        files_version,
        routes: setup.routes.clone(),
        default_legacy: setup.default_legacy.clone(),
        services: setup.services.clone(),
        exposes_arm: setup.settings.exposes_arm,
        bases: bases.iter().map(|(route, basis)| (route.clone(), basis.hash.clone())).collect(),
        read_only: setup
            .routes
            .iter()
            .filter(|route| is_read_only(setup, plans, route))
            .map(|route| route.id.clone())
            .collect(),
        shared_steps: setup.rules.iter().map(|(id, rules)| (id.clone(), rules.shared_steps_to_compare())).collect(),
        private_steps: setup.rules.iter().map(|(id, rules)| (id.clone(), rules.private_steps_of_one_arm())).collect(),
        sent_reads: sent_reads(setup),
        pairs_within: setup.settings.attribution.as_ref().map_or(Duration::ZERO, |of| of.window) + PAIRS_AFTER_WINDOW,
        candidate_pairs_within: CONTROL_ENDS_WITHIN + PAIRS_AFTER_WINDOW,
    }
}

/// By route: the steps that send reads with methods that are not safe, unless legacy's own reads answer them.
fn sent_reads(setup: &Setup) -> BTreeMap<RouteId, Vec<StepId>> {
    let routes = setup.routes.iter().filter(|route| !route.replay_reads);
    routes.filter_map(|route| Some((route.id.clone(), setup.rules.get(&route.id)?.sent_reads_of_one_arm()))).collect()
}

/// Whether the route's workflow only reads, in the files and in the version in force.
fn is_read_only(setup: &Setup, plans: &PlansInForce, route: &Route) -> bool {
    let of_files = route.workflow.as_ref().and_then(|name| setup.workflows.get(name));
    let in_force = plans.of(&route.id).and_then(PlanVersion::plan);
    of_files.is_some() && of_files.into_iter().chain(in_force).all(|plan| plan.reason_to_keep().is_none())
}
