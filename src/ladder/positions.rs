//! The rung of every route according to flips and files, as plain data. Which moves are allowed is left to `gate`, what
//! else limits a route (guard, health, kill switch) to `in_force`, and making moves durable to `mover`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;

use super::awaited_pairs::AwaitedPairs;
use super::scopes::Scopes;
use super::types::{DeclaredFiles, FlipError, FlipSource, MoveRequest};
use super::unfollowed_instances::{self, FamiliesBefore, Followers};
use super::unlisted_ids::{self, EarlierIds, UnlistedIds};
use crate::flag::{Cohort, EarlierScopes, Freeze, Instance, Percent, Route, Shares, State, StateInputs};
use crate::names::{PlanSet, RouteId};
use crate::problem::nearest;
use crate::store::{DeclaredPromote, DeclaredState, FileState, FlipRecord, ForcedState, LiveBasis, RetryScopes};

/// The highest state that a file sets without flip, evidence or force: up to here the engine keeps nothing but
/// evidence.
pub(super) const UNPROVEN_MAX: State = State::Shadow;

/// One route with its requested state, its shares, and what limits it.
#[derive(Clone)]
pub(super) struct RoutePosition {
    pub route: Arc<Route>,
    /// The requested state and shares. Guard and health are not in it, because they are not moves.
    pub inputs: StateInputs,
    /// The last flip, if there is one.
    pub last: Option<FlipRecord>,
    /// Whether a move that is not recorded yet overrides a gate up to `live` by force. Once it is recorded, `last` says
    /// so.
    pub overrides_gate: bool,
    /// Why the route does not have the state or the shares in the file, or the state of the last flip; empty if it has.
    pub refused: Vec<String>,
    /// When the route's hold below `live` ends; `None` if it is not held.
    pub held_until: Option<Timestamp>,
    /// The earliest time at which a hold of one of its cohorts ends; `None` if none is held.
    pub cohorts_held_until: Option<Timestamp>,
    /// Set while the move by its file waits for pairs that are under way.
    pub awaits_pairs: Option<AwaitedPairs>,
}

/// The positions by which new files were judged. They differ from those in force if persons have flipped routes since
/// the files were read (`outdated_moves`).
pub(super) struct JudgedFiles<'a> {
    /// When the files were read.
    pub read: Instant,
    pub judged: &'a Positions,
}

/// All routes, with the flips and declarations that the store has.
#[derive(Clone)]
pub(super) struct Positions {
    pub declared: DeclaredFiles,
    pub routes: BTreeMap<RouteId, RoutePosition>,
    /// The ids of these routes that the files do not list.
    pub unlisted_ids: UnlistedIds,
    /// The earlier ids of these routes, and of routes that are in no file now.
    pub earlier_ids: EarlierIds,
    /// The last flip of every route that ever had one, also of routes that are in no file now.
    pub flips: BTreeMap<RouteId, FlipRecord>,
    /// The stored declaration of each route.
    pub stored_declarations: BTreeMap<RouteId, FileState>,
    /// Declarations of other processes' files that are newer than the stored ones (`followed_declarations`).
    pub followed_declarations: BTreeMap<RouteId, FileState>,
    /// The routes in `stored_declarations` that the files do not have any more.
    pub absent: BTreeSet<RouteId>,
    /// Set while new files are judged: the ids of their routes that were earlier ids of other routes of these files.
    /// The flips under such an id are those of the other route.
    pub taken_ids: BTreeSet<RouteId>,
    /// The basis of the evidence with which routes, or cohorts of them, went to `live` or above.
    pub live: BTreeMap<RouteId, LiveBasis>,
    /// The plans in force of the routes in `live` or above.
    pub in_force: BTreeMap<RouteId, Arc<PlanSet>>,
    /// The earlier plans in force of some of these routes; see [`DeclaredState::evidence_from`].
    pub evidence_from: BTreeMap<RouteId, Arc<PlanSet>>,
    /// The last record of each route's candidate.
    pub candidates: BTreeMap<RouteId, FlipRecord>,
    /// The states above `shadow` that files put in force without a flip.
    pub forced: BTreeMap<RouteId, ForcedState>,
    /// The requirements of each route's gates by its file (`promote_changes`).
    pub promotes: BTreeMap<RouteId, DeclaredPromote>,
    /// For each route that follows up instances, or did so by earlier files: the requests by which it does or did so.
    pub followers: Followers,
    /// The scopes of each route's retry keys, now and earlier.
    pub scopes: Scopes,
    /// The earlier scopes, in the form in which requests are looked up under them.
    pub earlier_scopes: Arc<EarlierScopes>,
    /// The kill switch, as it was when these positions were read.
    pub freeze: Freeze,
}

impl RoutePosition {
    /// The rung that the route is on: the requested one, or a lower one if the gate refused the state in the file, a
    /// hold keeps the route at `dark`, or its file lacks a workflow or `key`.
    pub fn rung(&self) -> State {
        self.inputs.granted()
    }
    /// The higher of the route's rung and the state to which it may return by its last flip.
    pub fn highest(&self) -> State {
        self.last.as_ref().map_or(State::Off, state_of).max(self.rung())
    }
    /// The share of callers who are on a rung or above it; `None` if the route is below that rung.
    pub fn reached(&self, rung: State) -> Option<Percent> {
        let rungs = State::ALL.into_iter().filter(|above| (rung..=self.rung()).contains(above));
        rungs.map(|above| self.inputs.shares.of(above)).max()
    }
    /// Whether the route is on this rung already, and no other state was requested.
    pub fn is_at(&self, to: State, shares: Shares) -> bool {
        self.inputs.requested == to && self.inputs.shares == shares && self.rung() == to
    }
    /// Whether a flip raises the route, or the share of the rung to which it goes.
    pub fn is_raised_by(&self, MoveRequest { to, percent, .. }: &MoveRequest) -> bool {
        *to > self.rung() || percent.is_some_and(|percent| percent > self.inputs.shares.of(*to))
    }
    /// The present declaration of the route's file.
    pub fn declared(&self) -> FileState {
        FileState { state: self.route.declared, shares: self.route.shares }
    }
    /// Whether the engine answers requests of the route, or of a cohort of it, and so takes new instances, unless
    /// guard, health or kill switch prevents that.
    pub fn takes_instances(&self) -> bool {
        let takes = |cohort: &Cohort| !self.inputs.held_cohorts.contains(&cohort.name);
        let by_own_evidence = |cohort: &Cohort| cohort.state.min(self.inputs.proven_for(cohort)) >= State::Live;
        self.rung() >= State::Live || self.live_cohorts().any(takes) || self.route.cohorts.iter().any(by_own_evidence)
    }
    /// The cohorts that are in `live` or above, or held below it, by `force` or by the evidence of the whole route.
    /// Those that are there by their own evidence are left out: if the basis changes, they have no evidence any more,
    /// and go down.
    pub fn live_cohorts(&self) -> impl Iterator<Item = &Cohort> {
        let is_allowed = |cohort: &&Cohort| cohort.force.is_some() || self.inputs.proven >= State::Live;
        self.route.cohorts.iter().filter(|cohort| cohort.state >= State::Live).filter(is_allowed)
    }
    /// When a person last gave `--force` for the present state.
    pub fn forced_at(&self) -> Option<Timestamp> {
        let flip = self.last.as_ref()?;
        match &flip.overridden {
            Some(overridden) => overridden.forced_at,
            // Recorded by an earlier version.
            None => (flip.forced && flip.by != FlipSource::File.as_str()).then_some(flip.at),
        }
    }
    fn moved(&mut self, to: State, shares: Shares, flip: FlipRecord) {
        self.inputs.requested = to;
        self.inputs.shares = shares;
        self.inputs.has_no_flip = false;
        self.inputs.gate = None;
        self.inputs.is_held = false;
        self.last = Some(flip);
        self.overrides_gate = false;
        self.refused.clear();
        self.held_until = None;
        self.awaits_pairs = None;
    }
}

impl Positions {
    /// The positions before any file was read: only what the store has.
    pub fn from_store(declared: &DeclaredFiles, flips: Vec<FlipRecord>, rows: Vec<DeclaredState>) -> Self {
        let by_route = |flip: FlipRecord| Some((flip.route.clone()?, flip));
        let of_candidate = |flip: FlipRecord| Some((flip.candidate.as_ref()?.route.clone(), flip));
        let (candidates, flips): (Vec<_>, Vec<_>) = flips.into_iter().partition(|flip| flip.candidate.is_some());
        let freeze = flips.iter().find(|flip| flip.route.is_none()).map_or(Freeze::No, freeze_of);
        let followers = rows.iter().filter_map(|row| Some((row.route.clone(), row.follows.clone()?))).collect();
        let scopes = rows.iter().filter_map(|row| Some((row.route.clone(), row.retry.clone()?))).collect();
        let forced = rows.iter().filter_map(|row| Some((row.route.clone(), row.forced.clone()?))).collect();
        let promotes = rows.iter().filter_map(|row| Some((row.route.clone(), row.promote.clone()?))).collect();
        let live = rows.iter().filter_map(|row| Some((row.route.clone(), row.live.clone()?))).collect();
        let flips = flips.into_iter().filter_map(by_route).collect();
        let earlier_ids = rows.iter().map(|row| (row.route.clone(), row.earlier_ids.clone()));
        let earlier_ids = earlier_ids.filter(|(_, ids)| !ids.is_empty()).collect();
        let absent = rows.iter().filter(|row| row.is_absent).map(|row| row.route.clone()).collect();
        Self {
            declared: DeclaredFiles { routes: Vec::new(), ..declared.clone() },
            routes: BTreeMap::new(),
            unlisted_ids: UnlistedIds::new(),
            earlier_ids,
            in_force: plans_from_store(&rows, &flips, |row| row.in_force.as_ref()),
            evidence_from: plans_from_store(&rows, &flips, |row| row.evidence_from.as_ref()),
            candidates: candidates.into_iter().filter_map(of_candidate).collect(),
            flips,
            stored_declarations: rows.into_iter().filter_map(|row| Some((row.route, row.file?))).collect(),
            followed_declarations: BTreeMap::new(),
            absent,
            taken_ids: BTreeSet::new(),
            live,
            forced,
            promotes,
            followers,
            scopes,
            earlier_scopes: Arc::default(),
            freeze,
        }
    }

    /// Applies a recorded flip of a route.
    pub fn apply_flip(&mut self, route: &RouteId, flip: FlipRecord) {
        self.flips.insert(route.clone(), flip.clone());
        if let Some(position) = self.routes.get_mut(route) {
            let shares = flip.shares.unwrap_or(position.inputs.shares);
            let to = state_of(&flip);
            position.moved(to, shares, flip);
            if to < State::Live && position.live_cohorts().next().is_none() {
                self.live.remove(route);
            }
        }
    }

    /// Sets the last flip of a route whose position already is as this flip says.
    pub fn set_last_flip(&mut self, route: &RouteId, flip: FlipRecord) {
        if let Some(position) = self.routes.get_mut(route) {
            position.last = Some(flip.clone());
            position.overrides_gate = false;
        }
        self.flips.insert(route.clone(), flip);
    }

    /// The last flip of a route, also under an id that it had before. An earlier id does not count if it belonged to
    /// another route in the files that were read last: a route that replaces another one has not passed its gates.
    pub fn last_flip(&self, route: &Route) -> Option<&FlipRecord> {
        let is_of_another = |id: &RouteId| self.belonged_to_another(route, id) || self.taken_ids.contains(id);
        let own = self.counted_ids(route).filter(|id| !is_of_another(id));
        own.filter_map(|id| self.flips.get(id)).max_by_key(|flip| flip.number)
    }

    /// The ids of a route whose stored flips and declarations count for its state. If the files that were read last had
    /// a route under some of these ids, the absent ids do not count: the requests of such an id went to legacy, or to
    /// the routes that the files had.
    fn counted_ids<'a>(&'a self, route: &'a Route) -> impl Iterator<Item = &'a RouteId> {
        let is_present = |id: &RouteId| self.stored_declarations.contains_key(id) && !self.absent.contains(id);
        let has_present = route.ids().any(is_present);
        route.ids().filter(move |id| !has_present || !self.absent.contains(*id))
    }

    /// Whether the newest flip under all ids of a route is not its own, but that of a route which it replaces. Unless
    /// this route gets a newer flip, the next reading of the files would take the other one for its own.
    pub fn has_flip_of_another(&self, route: &Route) -> bool {
        let last = route.ids().filter_map(|id| self.flips.get(id)).max_by_key(|flip| flip.number);
        last.map(|flip| flip.number) != self.last_flip(route).map(|flip| flip.number)
    }

    /// Whether an earlier id of a route belonged to another route: the store has declarations under both ids.
    fn belonged_to_another(&self, route: &Route, id: &RouteId) -> bool {
        *id != route.id && self.stored_declarations.contains_key(&route.id) && self.stored_declarations.contains_key(id)
    }

    /// The stored declaration of a route's file, also under an id that the route had before.
    pub fn stored_declaration(&self, route: &Route) -> Option<FileState> {
        self.counted_ids(route).find_map(|id| self.stored_declarations.get(id)).copied()
    }

    /// The ids of routes of new files that these files do not list.
    pub fn unlisted_ids_of(&self, routes: &[Arc<Route>]) -> UnlistedIds {
        unlisted_ids::find(&self.scopes, &self.earlier_ids, &self.unlisted_ids, routes)
    }

    /// The rows of all declarations, as the store keeps them.
    pub fn rows(&self) -> Vec<DeclaredState> {
        let routes = self.stored_declarations.keys().chain(self.scopes.keys()).chain(self.followers.keys());
        let routes: BTreeSet<&RouteId> = routes
            .chain(self.live.keys())
            .chain(self.in_force.keys())
            .chain(self.forced.keys())
            .chain(self.promotes.keys())
            .chain(self.earlier_ids.keys())
            .collect();
        let row = |route: &RouteId| DeclaredState {
            route: route.clone(),
            file: self.stored_declarations.get(route).copied(),
            retry: self.scopes.get(route).cloned(),
            follows: self.followers.get(route).cloned(),
            live: self.live.get(route).cloned(),
            in_force: self.in_force.get(route).map(|set| PlanSet::clone(set)),
            evidence_from: self.evidence_from.get(route).map(|set| PlanSet::clone(set)),
            forced: self.forced.get(route).cloned(),
            promote: self.promotes.get(route).cloned(),
            is_absent: self.absent.contains(route),
            earlier_ids: self.earlier_ids.get(route).cloned().unwrap_or_default(),
        };
        routes.into_iter().map(row).collect()
    }

    /// The earliest time at which a route, or a cohort of one, that is held below `live` is to be judged again.
    pub fn held_until(&self) -> Option<Timestamp> {
        self.routes.values().flat_map(|position| [position.held_until, position.cohorts_held_until]).flatten().min()
    }

    /// The families of these files. Before the files are read at a start, it is only known which routes had a workflow.
    pub fn families(&self) -> FamiliesBefore {
        let had_workflow = |id: &&RouteId| match self.scopes.get(*id) {
            Some(scopes) => scopes.present.is_some(),
            // An older version stored no scopes.
            None => self.scopes.is_empty(),
        };
        let creates =
            |route: &&Arc<Route>| route.workflow.is_some() && matches!(route.instance, Some(Instance::Creates { .. }));
        let may_have_non_creators = self.declared.routes.is_empty();
        let creators = match may_have_non_creators {
            true => self.scopes.keys().chain(self.stored_declarations.keys()).filter(had_workflow).cloned().collect(),
            false => self.declared.routes.iter().filter(creates).flat_map(|route| route.ids()).cloned().collect(),
        };
        let live_creators = self.routes.values().filter(|at| creates(&&at.route) && at.takes_instances());
        let live_creators = live_creators.map(|position| position.route.first_id().clone()).collect();
        let oldest_id =
            |(id, scopes): (&RouteId, &RetryScopes)| Some((id.clone(), scopes.present.as_ref()?.route.clone()));
        let oldest_ids = self.scopes.iter().filter_map(oldest_id).collect();
        let followers = unfollowed_instances::present_with_workflow(&self.followers);
        FamiliesBefore { followers, creators, live_creators, oldest_ids, may_have_non_creators }
    }

    /// If a follower of a route has no workflow, a sentence that says so.
    pub fn follower_without_workflow(&self, creator: &Route) -> Option<String> {
        let follower = self.followers(&creator.id).find(|follower| follower.route.workflow.is_none())?;
        let (id, follower) = (&creator.id, &follower.route.id);
        Some(format!(
            "`{follower}` follows up what `{id}` creates and has no workflow, so legacy would get its requests for what \
             the engine creates: `{id}` cannot be in `live` until `{follower}` has one"
        ))
    }

    /// The rungs that the cohorts of a route have reached, also under an id that the route had before.
    pub fn proven_cohorts(&self, route: &Route) -> BTreeMap<String, State> {
        let known = route.ids().find_map(|id| self.routes.get(id));
        known.map(|position| position.inputs.proven_cohorts.clone()).unwrap_or_default()
    }

    /// The routes that follow up what this one creates.
    pub fn followers<'a>(&'a self, creator: &'a RouteId) -> impl Iterator<Item = &'a RoutePosition> {
        self.routes.values().filter(
            move |other| matches!(&other.route.instance, Some(Instance::Follows { creator: c, .. }) if c == creator),
        )
    }

    /// The error for a route that is not in the files, with the most similar id.
    pub fn unknown_route(&self, route: &RouteId) -> FlipError {
        let near = nearest(route.as_str(), self.routes.keys().map(RouteId::as_str));
        FlipError::UnknownRoute(route.clone(), near.map(str::to_owned))
    }
}

/// The plans in force as the store has them, for the routes whose last flip is to `live` or above, or that have no
/// flip.
pub(super) fn plans_from_store(
    rows: &[DeclaredState],
    flips: &BTreeMap<RouteId, FlipRecord>,
    plans: impl Fn(&DeclaredState) -> Option<&PlanSet>,
) -> BTreeMap<RouteId, Arc<PlanSet>> {
    let is_live = |route: &RouteId| flips.get(route).is_none_or(|flip| state_of(flip) >= State::Live);
    let kept = rows.iter().filter(|row| is_live(&row.route));
    kept.filter_map(|row| Some((row.route.clone(), Arc::new(plans(row)?.clone())))).collect()
}

/// The state that a flip went to. An unknown state (of a newer version) counts as `off`.
pub(super) fn state_of(flip: &FlipRecord) -> State {
    flip.to.parse().unwrap_or_else(|error| {
        tracing::warn!(route = ?flip.route, number = flip.number, %error, "the state of a stored flip is unknown to this version: the route counts as `off`");
        State::Off
    })
}

/// The name of a freeze in records.
pub(super) fn freeze_name(freeze: Freeze) -> &'static str {
    match freeze {
        Freeze::No => "no",
        Freeze::Instances => "instances",
        Freeze::Effects => "effects",
    }
}

/// The freeze that a record set. An unknown one (of a newer version) counts as the strongest.
pub(super) fn freeze_of(flip: &FlipRecord) -> Freeze {
    let known = [Freeze::No, Freeze::Instances, Freeze::Effects].into_iter().find(|f| freeze_name(*f) == flip.to);
    known.unwrap_or_else(|| {
        tracing::warn!(number = flip.number, to = %flip.to, "a stored freeze is unknown to this version: every private and shared step is held");
        Freeze::Effects
    })
}
