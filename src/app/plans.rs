//! The plans in force of the routes in `live` and `only`: built from the definitions that the store has.
//!
//! Always true: a plan in force that the files in force cannot run, because they lack a service or a secret that it
//! names or because its definition cannot be read, is not run: the engine begins nothing for its route
//! ([`PlansInForce::plans_not_in_files`]), so that in `live` legacy answers and in `only` nobody does. Files that would
//! cause this are refused while the process runs. At a start they are accepted, so that all other routes are served.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::refused_files::RefusedFiles;
use crate::compare::Rules;
use crate::config::{RouteRules, Setup, shared_steps_below};
use crate::evidence::EvidenceBasis;
use crate::flag::Route;
use crate::ladder::{CandidateMove, DeclaredPlans, KeptPlans};
use crate::names::{PlanSet, RouteId, ServiceName, StepId, WorkflowName};
use crate::store::{StoreHandle, candidate_key, route_of_candidate};
use crate::workflow::{Plan, PlanVersion, StepPart};

/// The plans in force, by route; of the other routes those of the files are run.
#[derive(Clone, Default)]
pub(super) struct PlansInForce {
    versions: BTreeMap<RouteId, PlanVersion>,
    /// By route: earlier plans that the plans in force have replaced through the gate of a candidate. The evidence of
    /// the other routes of the family still depends on the earlier ones: see [`PlansInForce::for_evidence_of_others`].
    evidence_from: BTreeMap<RouteId, PlanVersion>,
    /// By route: why its plans in force cannot be run, as a sentence.
    unrunnable: BTreeMap<RouteId, String>,
}

impl PlansInForce {
    /// Builds the plans of these sets for these files.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn load(
        store: &StoreHandle,
        setup: &Setup,
        KeptPlans { in_force, evidence_from }: KeptPlans,
    ) -> anyhow::Result<Self> {
        let mut loaded = Self::default();
        for (id, set) in evidence_from {
            match build(store, setup, &set).await? {
                Ok(version) => drop(loaded.evidence_from.insert(id, version)),
                Err(why) => {
                    tracing::warn!(
                        route = %id,
                        "the plans from before cannot be built, so the evidence of this route's family starts from \
                         zero: {why}"
                    )
                }
            }
        }
        for (id, set) in in_force {
            let Some(route) = setup.routes.iter().find(|route| route.id == id) else { continue };
            if let Some(of_files) = version_of_files(setup, route).filter(|of_files| of_files.set == set) {
                loaded.versions.insert(id, of_files);
                continue;
            }
            let (version, why) = match build(store, setup, &set).await? {
                Ok(version) => {
                    let missing = missing_in_files(setup, route, &version);
                    let needs = || format!("its plan in force, {}, needs {}", set.label(), missing.join("; "));
                    let why = (!missing.is_empty()).then(|| format!("{}: these files do not have it", needs()));
                    (version, why)
                }
                Err(why) => (PlanVersion { set, plans: BTreeMap::new() }, Some(why)),
            };
            if let Some(why) = why {
                let sentence = format!("`{id}` is in `live` or `only`, and {why}. {}", remedy(&id));
                loaded.unrunnable.insert(id.clone(), sentence);
            }
            loaded.versions.insert(id, version);
        }
        Ok(loaded)
    }

    /// Returns these plans, unless those of a route cannot be run although its plans could be run up to now.
    ///
    /// # Errors
    /// [`RefusedFiles`] names these routes.
    pub fn refusing_new(self, known: &BTreeMap<RouteId, String>, routes: &[Arc<Route>]) -> Result<Self, RefusedFiles> {
        let is_known = |id: &RouteId| {
            let route = routes.iter().find(|route| route.id == *id);
            route.is_some_and(|route| route.ids().any(|id| known.contains_key(id)))
        };
        let new = self.unrunnable.iter().filter(|(id, _)| !is_known(id));
        let new: Vec<String> = new.map(|(_, why)| why.clone()).collect();
        if new.is_empty() { Ok(self) } else { Err(RefusedFiles(new)) }
    }

    /// Says in the log which plans cannot be run, at the start of a process.
    pub fn log_unrunnable(&self) {
        for (route, why) in &self.unrunnable {
            tracing::error!(%route, "{why}. Until then legacy answers its requests in `live`, and in `only` they are refused with a 503");
        }
    }

    /// The plans in force of a route, where the files do not decide.
    pub fn of(&self, route: &RouteId) -> Option<&PlanVersion> {
        self.versions.get(route)
    }

    /// The plans of a route that count for the basis of the other routes of its family: those in force, or earlier ones
    /// that these replaced through the gate of a candidate.
    pub fn for_evidence_of_others(&self, route: &RouteId) -> Option<&PlanVersion> {
        self.evidence_from.get(route).or_else(|| self.versions.get(route))
    }

    /// The plans in force that the files do not have.
    fn changed<'a>(&'a self, setup: &'a Setup) -> impl Iterator<Item = (&'a Arc<Route>, &'a PlanVersion)> {
        let changed = |route: &'a Arc<Route>| {
            let in_force = self.versions.get(&route.id)?;
            let is_of_files = version_of_files(setup, route).is_some_and(|of_files| of_files.set == in_force.set);
            (!is_of_files).then_some((route, in_force))
        };
        setup.routes.iter().filter_map(changed)
    }

    /// The versions that the engine has to know though they are not in the files, without those that cannot be run.
    pub fn plans_not_in_files(&self, setup: &Setup) -> Vec<PlanVersion> {
        let mut known = BTreeSet::new();
        let changed = self.changed(setup).filter(|(route, _)| !self.unrunnable.contains_key(&route.id));
        changed
            .map(|(_, version)| version.clone())
            .filter(|version| known.insert(format!("{:?}", version.set)))
            .collect()
    }

    /// The routes whose files have another plan than the one in force.
    pub fn routes_with_candidate<'a>(&'a self, setup: &'a Setup) -> impl Iterator<Item = &'a Arc<Route>> {
        self.changed(setup).filter(|(route, _)| route.workflow.is_some()).map(|(route, _)| route)
    }

    /// The rules of each route and of each candidate. Those of a route whose files have another plan may refer to steps
    /// of the plan in force.
    pub fn rules(&self, setup: &Setup) -> BTreeMap<RouteId, Arc<Rules>> {
        let mut rules = setup.rules.clone();
        for (route, in_force) in self.changed(setup) {
            let Some(of_files) = setup.rules.get(&route.id) else { continue };
            rules.insert(candidate_key(&route.id), of_files.clone());
            let mut with_control = setup.clone();
            with_control.workflows.extend(in_force.plans.clone());
            let workflow = Some(in_force.set.workflow.clone());
            with_control.routes = vec![Arc::new(Route { workflow, ..Route::clone(route) })];
            let of_control = RouteRules::of(&with_control, &route.id);
            if let Some(checked) = of_control.and_then(|of_control| of_control.check_draft(of_files.draft())) {
                rules.insert(route.id.clone(), Arc::new(checked));
            }
        }
        rules
    }

    /// What the ladder has to know of plans.
    pub fn declared(
        &self,
        setup: &Setup,
        bases: &[(RouteId, EvidenceBasis)],
        candidate_move: Option<CandidateMove>,
    ) -> DeclaredPlans {
        let of_files: Vec<(RouteId, PlanVersion)> =
            setup.routes.iter().filter_map(|route| Some((route.id.clone(), version_of_files(setup, route)?))).collect();
        let of_candidate = |(id, basis): &(RouteId, EvidenceBasis)| Some((route_of_candidate(id)?, basis.hash.clone()));
        DeclaredPlans {
            sources: of_files
                .iter()
                .flat_map(|(_, version)| version.plans.values())
                .map(|plan| (plan.id.clone(), plan.source.clone()))
                .collect(),
            shared_steps_below: of_files
                .iter()
                .map(|(id, version)| (id.clone(), uncompared_below(setup, id, version)))
                .filter(|(_, steps)| !steps.is_empty())
                .collect(),
            of_files: of_files.into_iter().map(|(id, version)| (id, version.set)).collect(),
            in_force: self.versions.iter().map(|(id, version)| (id.clone(), version.set.clone())).collect(),
            unrunnable: self.unrunnable.clone(),
            candidate_bases: bases.iter().filter_map(of_candidate).collect(),
            candidate_move,
        }
    }
}

/// The shared steps of the child workflows of a version whose calls nothing compares.
fn uncompared_below(setup: &Setup, id: &RouteId, version: &PlanVersion) -> Vec<String> {
    let is_unseen = |step: &StepId| setup.rules.get(id).is_some_and(|rules| rules.is_unseen(step));
    let plan_of = |name: &WorkflowName| version.plans.get(name).map(Arc::as_ref);
    version.plan().map(|top| shared_steps_below(top, plan_of, is_unseen)).unwrap_or_default()
}

/// The version of a route's workflow that the files have.
pub(super) fn version_of_files(setup: &Setup, route: &Route) -> Option<PlanVersion> {
    PlanVersion::of(route.workflow.as_ref()?, &setup.workflows)
}

/// Builds a version from the files where they have its plans, and from the store.
async fn build(store: &StoreHandle, setup: &Setup, set: &Arc<PlanSet>) -> anyhow::Result<Result<PlanVersion, String>> {
    let keyed: BTreeMap<ServiceName, bool> =
        setup.services.iter().map(|(name, service)| (name.clone(), service.keyed)).collect();
    let mut plans = BTreeMap::new();
    for (name, id) in &set.plans {
        if let Some(plan) = setup.workflows.get(name).filter(|plan| plan.id == *id) {
            plans.insert(name.clone(), plan.clone());
            continue;
        }
        let Some(source) = store.plan(id.clone()).await? else {
            return Ok(Err(format!("the store does not have its plan in force, {id} of `{name}`")));
        };
        match Plan::from_stored(&source, &keyed, &setup.limits) {
            Ok(plan) if plan.id == *id => drop(plans.insert(name.clone(), Arc::new(plan))),
            Ok(_) => return Ok(Err(format!("this version reads its plan in force, {id} of `{name}`, as another one"))),
            Err(problems) => {
                let why: Vec<String> = problems.iter().map(|problem| problem.message.clone()).collect();
                let why = why.join("; ");
                return Ok(Err(format!("its plan in force, {id} of `{name}`, cannot be run with these files: {why}")));
            }
        }
    }
    Ok(Ok(PlanVersion { set: set.clone(), plans }))
}

/// What a version of a route's plans needs and these files lack, as texts.
fn missing_in_files(setup: &Setup, route: &Route, version: &PlanVersion) -> Vec<String> {
    let mut missing = BTreeSet::new();
    for (name, plan) in &version.plans {
        let services = services_of(setup, plan);
        let absent = services.into_iter().filter(|service| !setup.services.contains_key(*service));
        missing.extend(absent.map(|service| format!("the service `{service}`, which `{name}` calls")));
        let secrets = plan.reads.iter().filter(|path| path.root() == "secrets").filter_map(|path| path.part(0));
        let absent = secrets.filter(|secret| !setup.settings.secrets.contains_key(*secret));
        missing.extend(absent.map(|secret| format!("the secret `{secret}`, which `{name}` reads")));
        if !route.keeps_runs
            && let Some(reason) = plan.reason_to_keep()
        {
            missing.insert(format!("runs that are kept (without `keep: none`), because of {reason}"));
        }
    }
    missing.into_iter().collect()
}

/// What to do about files under which the plan in force cannot be run.
fn remedy(id: &RouteId) -> String {
    format!(
        "Its changed workflow is only a candidate, and that plan stays in force: put back what it needs until the \
         candidate is in force (`pointsman flip {id} --candidate in-force`), or flip `{id}` to `dark` or lower first"
    )
}

/// The services that the calls of a plan go to or that an expression names.
pub(super) fn services_of<'a>(setup: &'a Setup, plan: &'a Plan) -> BTreeSet<&'a ServiceName> {
    let mut names = BTreeSet::new();
    for step in &plan.steps {
        let calls = [StepPart::Do, StepPart::Probe, StepPart::Undo].into_iter().filter_map(|part| step.call(part));
        names.extend(calls.map(|call| &call.service));
    }
    for path in plan.reads.iter().filter(|path| path.root() == "services") {
        // An expression that computes a service's name may name any service.
        names.extend(setup.services.keys().filter(|name| path.part(0).is_none_or(|part| part == name.as_str())));
    }
    names
}
