//! The flags of all routes. A request uses one set from its first byte to its last.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use http::{HeaderMap, HeaderName, Method};
use serde_json::Value;

use super::conventions::PathConventions;
use super::effective::{Effective, StateInputs, proven_for};
use super::hashes::HashKeys;
use super::key_text::AmbiguousKey;
use super::readings::RouteTrees;
use super::route_groups::{PathForms, RouteGroups, RouteHit};
use super::{
    AdoptRule, Cohort, EarlierRetryKeys, EarlierScopes, Family, Freeze, Instance, InstanceKey, InstanceKeySource,
    Percent, ReassignedRequests, RequestFacts, RetryKeys, Route, RouteMatch, Service, Shares, State,
};
use crate::names::{PlanSet, RouteId, ServiceName};

/// Every route with its flag, in force together. Immutable; replaced as a whole.
pub struct FlagSet {
    /// The number of the set, which increases with each replacement.
    pub set_number: u64,
    /// The version of the files that the set was built from. The engine runs the workflows of the same files.
    pub files_version: u64,
    /// The routes, in the order of the files.
    pub routes: Vec<Arc<RouteFlag>>,
    /// The service that gets, unchanged, the requests that no route matches.
    pub default_legacy: Arc<Service>,
    /// The services by name.
    pub services: BTreeMap<ServiceName, Arc<Service>>,
    /// The kill switch.
    pub freeze: Freeze,
    /// Whether answers say which arm gave them, unless their route says otherwise.
    pub exposes_arm: bool,
    /// Whether any legacy service gets the names of header fields as they were written.
    pub preserves_header_case: bool,
    pub(super) groups: RouteGroups,
    by_id: HashMap<RouteId, usize>,
    hash_keys: HashKeys,
    earlier_scopes: Arc<EarlierScopes>,
    /// Former routes: those to which the requests of `earlier_scopes.reassigned` belonged, in the same order, in `off`
    /// and without a workflow.
    former_routes: Vec<Arc<RouteFlag>>,
    /// Finds the former routes to which a server may lead an unusual path. `None` if there are no former routes.
    pub(super) former_route_trees: Option<RouteTrees>,
}

/// A route and its flag.
pub struct RouteFlag {
    /// The route as checked.
    pub route: Arc<Route>,
    /// The state that was requested.
    pub requested: State,
    /// The state in force, and why.
    pub effective: Effective,
    /// The shares in force.
    pub shares: Shares,
    /// The highest rung that guard, health and kill switch allow; it caps cohorts.
    pub cap: State,
    /// The requested rung, limited by the gate.
    pub granted: State,
    /// Whether the route is held below `live` for a limited time, after which it returns to `live` without passing a
    /// gate.
    pub is_held: bool,
    /// Whether a restart returns the route to `live` or above, because the flip down is not in the store yet.
    pub returns_at_restart: bool,
    /// The highest rung that the route reached by evidence for all callers.
    pub proven: State,
    /// The rungs that cohorts reached by the evidence of their own requests. A cohort whose rule is above its rung here
    /// and above `proven` needs `force`.
    pub proven_cohorts: BTreeMap<String, State>,
    /// The names of the cohorts that are held below `live` in spite of their `force`. Nearly always empty.
    pub held_cohorts: Vec<String>,
    /// The family of the route that creates the instances; the route's own if it neither creates nor follows any.
    pub family: Family,
    /// Whether any request of the family can be on a rung above `off`: such requests show instances of legacy, and the
    /// ends of these have to be seen in `off` too.
    pub is_family_above_off: bool,
    /// How legacy's instances of the family become the engine's; `None`: they do not.
    pub adopt: Option<Arc<AdoptRule>>,
    /// The plans in force, in `live` and above; `None`: those of the files.
    pub plans: Option<RoutePlans>,
}

/// The plans of a route in `live` or above.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoutePlans {
    /// The plans in force.
    pub in_force: Arc<PlanSet>,
    /// The plans of the files, if they differ from those in force.
    pub candidate: Option<CandidatePlans>,
}

/// The candidate of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CandidatePlans {
    /// Its plans.
    pub plans: Arc<PlanSet>,
    /// The id under which its evidence is kept.
    pub id: RouteId,
    /// The share of new requests that it answers.
    pub share: Percent,
}

/// The route that a request belongs to.
pub struct FoundRoute<'a> {
    /// Route and flag.
    pub flag: &'a Arc<RouteFlag>,
    /// The parameters of the template. [`FlagSet::resolve`] leaves them out if no workflow reads them.
    pub params: Vec<(Arc<str>, String)>,
}

impl FlagSet {
    /// Builds a set. `secret` keys the hashes that place callers inside or outside shares, so that no client can choose
    /// its bucket. A route that `inputs` does not list has the state that its file declares, and no flip.
    pub fn new(
        set_number: u64,
        routes: Vec<Arc<Route>>,
        inputs: &BTreeMap<RouteId, StateInputs>,
        default_legacy: Arc<Service>,
        services: BTreeMap<ServiceName, Arc<Service>>,
        freeze: Freeze,
        secret: [u8; 32],
    ) -> Self {
        let groups = RouteGroups::new(&routes);
        let by_id = routes.iter().enumerate().map(|(index, route)| (route.id.clone(), index)).collect();
        let families: HashMap<RouteId, Family> =
            routes.iter().map(|route| (route.id.clone(), Family::of(route))).collect();
        let adopt_rules: HashMap<RouteId, Arc<AdoptRule>> =
            routes.iter().filter_map(|route| Some((route.id.clone(), route.lifetime.adopt.clone()?))).collect();
        let flag = |route: Arc<Route>| {
            let declared = StateInputs::declared(&route);
            let inputs = inputs.get(&route.id).unwrap_or(&declared);
            let creator = match &route.instance {
                Some(Instance::Follows { creator, .. }) => creator,
                Some(Instance::Creates { .. }) | None => &route.id,
            };
            let family = families.get(creator).cloned().unwrap_or_else(|| creator.clone().into());
            let adopt = adopt_rules.get(creator).cloned();
            RouteFlag { adopt, ..RouteFlag::new(route, inputs, family, freeze) }
        };
        let mut routes: Vec<RouteFlag> = routes.into_iter().map(flag).collect();
        let above_off: HashSet<Family> =
            routes.iter().filter(|flag| flag.can_be_above_off()).map(|flag| flag.family.clone()).collect();
        routes.iter_mut().for_each(|flag| flag.is_family_above_off = above_off.contains(&flag.family));
        let routes: Vec<_> = routes.into_iter().map(Arc::new).collect();
        let hash_keys = HashKeys::new(&secret);
        let preserves_header_case =
            default_legacy.preserve_header_case || routes.iter().any(|flag| flag.route.legacy.preserve_header_case);
        Self {
            set_number,
            files_version: 0,
            routes,
            default_legacy,
            services,
            freeze,
            exposes_arm: false,
            preserves_header_case,
            groups,
            by_id,
            hash_keys,
            earlier_scopes: Arc::default(),
            former_routes: Vec::new(),
            former_route_trees: None,
        }
    }

    /// This set with this version of its files.
    pub fn with_files_version(self, files_version: u64) -> Self {
        Self { files_version, ..self }
    }

    /// This set with the plans in force of its routes.
    pub fn with_plans(mut self, plans: impl Fn(&RouteId) -> Option<RoutePlans>) -> Self {
        for flag in &mut self.routes {
            if let Some(plans) = plans(&flag.route.id) {
                // A set that is being built shares its flags with nobody.
                if let Some(flag) = Arc::get_mut(flag) {
                    flag.plans = Some(plans);
                }
            }
        }
        self
    }

    /// This set with answers that say which arm gave them, if `exposes_arm`, unless their route says otherwise.
    pub fn with_exposed_arms(self, exposes_arm: bool) -> Self {
        Self { exposes_arm, ..self }
    }

    /// This set with the scopes that retry keys had in earlier files.
    pub fn with_earlier_scopes(self, earlier_scopes: Arc<EarlierScopes>) -> Self {
        let former = |reassigned: &ReassignedRequests| {
            let (route, matches) = (reassigned.route.clone(), reassigned.matched.matches.clone());
            let route = Route::without_workflow(route, matches, self.default_legacy.clone());
            let (inputs, family) = (StateInputs::declared(&route), Family::of(&route));
            Arc::new(RouteFlag::new(Arc::new(route), &inputs, family, self.freeze))
        };
        let former_routes: Vec<_> = earlier_scopes.reassigned.iter().map(former).collect();
        let mut former_route_trees = None;
        for (index, former) in former_routes.iter().enumerate() {
            let trees = former_route_trees.get_or_insert_with(|| RouteTrees::new(&PathConventions::default()));
            trees.insert(&former.route.matches, index);
        }
        Self { earlier_scopes, former_routes, former_route_trees, ..self }
    }

    /// The requests that may concern a workflow: those of routes that have one, and of routes that had one by earlier
    /// files, for as long as a retry may come.
    pub fn workflow_requests(&self) -> Vec<RouteMatch> {
        let with_workflow = self.routes.iter().filter(|flag| flag.route.workflow.is_some());
        with_workflow.chain(&self.former_routes).map(|flag| flag.route.matches.clone()).collect()
    }

    /// This set, in which these requests concern a workflow too.
    pub fn with_workflow_requests(self, requests: Vec<RouteMatch>) -> Self {
        let reassigned = requests.into_iter().map(ReassignedRequests::without_keys).collect();
        self.with_earlier_scopes(Arc::new(EarlierScopes { reassigned, ..EarlierScopes::default() }))
    }

    /// The route of a request, by host, method and a path without dot segments. A static segment beats a parameter; a
    /// GET route also matches HEAD.
    pub fn find<'a>(&'a self, method: &Method, host: Option<&str>, path: &str) -> Option<FoundRoute<'a>> {
        self.groups.find(method, host, PathForms::plain(path)).and_then(|hit| self.found(hit))
    }

    pub(super) fn found(&self, hit: RouteHit<'_, '_>) -> Option<FoundRoute<'_>> {
        self.routes.get(hit.index).map(|flag| FoundRoute { flag, params: hit.params() })
    }

    /// A route by id.
    pub fn route(&self, id: &RouteId) -> Option<&Arc<RouteFlag>> {
        self.by_id.get(id).and_then(|index| self.routes.get(*index))
    }

    /// The routes that follow up the instances of a family.
    pub fn followers(&self, family: &Family) -> impl Iterator<Item = &Arc<RouteFlag>> {
        let follows = |flag: &RouteFlag| matches!(flag.route.instance, Some(Instance::Follows { .. }));
        self.routes.iter().filter(move |flag| flag.family == *family && follows(flag))
    }

    /// The first follower of a family that is below `live`. While there is one, no instance of legacy is adopted,
    /// because all requests about an adopted instance go to the engine.
    pub fn follower_below_live(&self, family: &Family) -> Option<&Arc<RouteFlag>> {
        self.followers(family).find(|flag| flag.route.workflow.is_none() || flag.effective.state < State::Live)
    }

    /// Whether a route creates instances that a route in `only` follows up. Nobody would answer there for an instance
    /// that legacy created.
    pub(super) fn has_follower_in_only(&self, flag: &RouteFlag) -> bool {
        matches!(flag.route.instance, Some(Instance::Creates { .. }))
            && self.followers(&flag.family).any(|follower| follower.effective.state == State::Only)
    }

    /// The retry keys of this request; `None` if it has none.
    ///
    /// # Errors
    /// See [`AmbiguousKey`].
    pub fn retry_keys(&self, flag: &RouteFlag, facts: &RequestFacts<'_>) -> Result<Option<RetryKeys>, AmbiguousKey> {
        self.hash_keys.retry_keys(&flag.route, facts)
    }

    /// The retry keys of this request under the scopes of earlier files, while a retry may come. Nearly always empty.
    pub fn earlier_retry_keys(&self, flag: &RouteFlag, facts: &RequestFacts<'_>) -> EarlierRetryKeys {
        self.earlier_scopes.retry_keys(&flag.route, &self.hash_keys, facts)
    }

    /// Whether the arm or the retry keys of this route's requests may depend on this header, now or by earlier files.
    pub fn depends_on_header(&self, flag: &RouteFlag, name: &HeaderName) -> bool {
        flag.route.depends_on_header(name) || self.earlier_scopes.depend_on_header(&flag.route.id, name)
    }

    /// The route to which a request belonged by earlier files, if that route had a workflow and its requests may belong
    /// to another route now, or to none. Nearly always `None`.
    pub fn former_route(
        &self,
        method: &Method,
        host: Option<&str>,
        path: &str,
        now_s: impl FnOnce() -> i64,
    ) -> Option<FoundRoute<'_>> {
        if self.former_routes.is_empty() {
            return None;
        }
        let (index, params) = self.earlier_scopes.find_reassigned(method, host, path, now_s())?;
        self.former_routes.get(index).map(|flag| FoundRoute { flag, params })
    }

    /// A former route by its index in `former_route_trees`, while a retry of its requests may come.
    pub(super) fn former_at(&self, index: usize, now_s: impl Fn() -> i64) -> Option<&Arc<RouteFlag>> {
        let may_come = self.earlier_scopes.reassigned.get(index)?.may_come(now_s());
        self.former_routes.get(index).filter(|_| may_come)
    }

    pub(super) fn hash_keys(&self) -> &HashKeys {
        &self.hash_keys
    }
}

impl RouteFlag {
    fn new(route: Arc<Route>, inputs: &StateInputs, family: Family, freeze: Freeze) -> Self {
        Self {
            requested: inputs.requested,
            effective: inputs.effective(freeze),
            shares: inputs.shares,
            cap: inputs.cap(freeze),
            granted: inputs.granted(),
            is_held: inputs.is_held,
            returns_at_restart: inputs.returns_at_restart,
            proven: inputs.proven,
            proven_cohorts: inputs.proven_cohorts.clone(),
            held_cohorts: inputs.held_cohorts.clone(),
            family,
            is_family_above_off: false,
            adopt: None,
            plans: None,
            route,
        }
    }
    /// The instance that a request follows up, if the route follows up instances. `body` gives the value of its body.
    pub fn follows(
        &self,
        params: &[(Arc<str>, String)],
        query: Option<&str>,
        headers: &HeaderMap,
        body: impl FnOnce() -> Option<Value>,
    ) -> Option<InstanceKey> {
        let Some(Instance::Follows { key, .. }) = &self.route.instance else { return None };
        Some(InstanceKey { family: self.family.clone(), id: key.id_in(params, query, headers, body)?.into() })
    }
    /// Whether the id of the instance that a request follows up is in its body.
    pub fn follows_by_body(&self) -> bool {
        matches!(&self.route.instance, Some(Instance::Follows { key: InstanceKeySource::Body(_), .. }))
    }
    /// Whether legacy may get the retry of a request about an instance that was adopted since its first try: its
    /// service recognises retries (`keyed: true`) and was told to release the instance, so that it performs nothing
    /// new for such a retry.
    pub fn legacy_recognises_retries_of_adopted(&self) -> bool {
        self.route.legacy.keyed && self.adopt.as_ref().is_some_and(|rule| rule.tells_legacy)
    }
    /// Whether the route is in `live` or above, or returns there without passing a gate: when the engine is healthy
    /// again, when a freeze is lifted, when the time for which it is held below `live` is over, or at a restart before
    /// its flip down is recorded. If not, a cohort of it may still be in `live`: see [`super::could_be_live`].
    pub fn could_be_live(&self) -> bool {
        self.granted >= State::Live || self.is_held || self.returns_at_restart
    }
    /// Whether files, gate and flips allow this rung at most.
    pub fn is_granted_at_most(&self, state: State) -> bool {
        self.granted <= state
    }
    /// The rung of a cohort: that of its rule, limited like the route's. A cohort that lacks evidence is at most on the
    /// rung that its route, or its own requests, reached by evidence, or on `shadow` if that is higher. A cohort that
    /// is held is at most on `dark`.
    pub fn rung_of(&self, cohort: &Cohort) -> State {
        let held = if self.held_cohorts.contains(&cohort.name) { State::Dark } else { State::Only };
        self.granted_rung_of(cohort).min(self.cap).min(held)
    }
    /// The rung of a cohort's rule, limited by the evidence. The cohort returns to this rung without passing a gate:
    /// when the engine is healthy again, when a freeze is lifted, or when the time for which it is held below `live` is
    /// over.
    pub(super) fn granted_rung_of(&self, cohort: &Cohort) -> State {
        let proven = if self.lacks_evidence(cohort) { self.proven_for(cohort) } else { State::Only };
        cohort.state.min(proven)
    }
    /// Whether a cohort is on a lower rung than its rule says because evidence is missing: the rule has no `force`, and
    /// neither the route, for all callers, nor the cohort, by its own requests, reached that rung by evidence.
    pub fn lacks_evidence(&self, cohort: &Cohort) -> bool {
        cohort.force.is_none() && cohort.state > self.proven_for(cohort)
    }
    /// Whether a cohort is ahead of what its route reached by evidence for all callers.
    pub(super) fn is_ahead(&self, cohort: &Cohort) -> bool {
        cohort.force.is_some() || cohort.state > self.proven.max(State::Shadow)
    }
    fn proven_for(&self, cohort: &Cohort) -> State {
        proven_for(self.proven, &self.proven_cohorts, cohort)
    }
    /// Whether any request can be on a rung above `off`.
    pub fn can_be_above_off(&self) -> bool {
        let cohorts = self.route.cohorts.iter().map(|cohort| self.rung_of(cohort));
        cohorts.fold(self.effective.state, State::max) > State::Off
    }
}
