//! Where every route stands by flips and files: plain data. What may move is `gate`'s business, what limits it beside
//! that is `in_force`'s, what is durable is the mover's.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::scopes::Scopes;
use super::types::Declared;
use crate::flag::{EarlierScopes, Freeze, Instance, Route, Shares, State, StateInputs};
use crate::names::RouteId;
use crate::store::{DeclaredState, FileState, FlipRecord};

/// Where one route stands.
#[derive(Clone)]
pub(super) struct RoutePosition {
    pub route: Arc<Route>,
    /// Without guard and health, which are not moves.
    pub inputs: StateInputs,
    /// The last flip, where there is one.
    pub last: Option<FlipRecord>,
    /// Why the file's state was refused, where it was.
    pub refused: Vec<String>,
}

/// All routes, and what is remembered of flips and files.
#[derive(Clone)]
pub(super) struct Positions {
    pub declared: Declared,
    pub routes: BTreeMap<RouteId, RoutePosition>,
    /// The last flip of every route that ever had one, also of those that are in no file now.
    pub flips: BTreeMap<RouteId, FlipRecord>,
    /// What the store remembers of the files.
    pub remembered: BTreeMap<RouteId, FileState>,
    /// What scopes retry keys by the files, and did before.
    pub scopes: Scopes,
    /// The earlier ones of them, as requests are held against them.
    pub looked_up: Arc<EarlierScopes>,
}

impl RoutePosition {
    /// The rung that the route stands on: what was asked for, or less where the gate refused the file's state.
    pub fn stands(&self) -> State {
        self.inputs.granted()
    }
    /// Whether it stands there already, and nothing else was asked for.
    pub fn is_at(&self, to: State, shares: Shares) -> bool {
        self.inputs.requested == to && self.inputs.shares == shares && self.stands() == to
    }
    /// What its file declares now.
    pub fn declared(&self) -> FileState {
        FileState { state: self.route.declared, shares: self.route.shares }
    }
    fn moved(&mut self, to: State, shares: Shares, flip: FlipRecord) {
        self.inputs.requested = to;
        self.inputs.shares = shares;
        self.inputs.unproven = false;
        self.inputs.gate = None;
        self.last = Some(flip);
        self.refused.clear();
    }
}

impl Positions {
    /// Before any file was read: what the store remembers.
    pub fn remembering(declared: &Declared, flips: Vec<FlipRecord>, remembered: Vec<DeclaredState>) -> Self {
        let by_route = |flip: FlipRecord| Some((flip.route.clone()?, flip));
        let scopes = remembered.iter().filter_map(|row| Some((row.route.clone(), row.retry.clone()?))).collect();
        Self {
            declared: Declared { routes: Vec::new(), ..declared.clone() },
            routes: BTreeMap::new(),
            flips: flips.into_iter().filter_map(by_route).collect(),
            remembered: remembered.into_iter().filter_map(|row| Some((row.route, row.file?))).collect(),
            scopes,
            looked_up: Arc::default(),
        }
    }

    /// Notes a flip of a route.
    pub fn flipped(&mut self, route: &RouteId, flip: FlipRecord) {
        self.flips.insert(route.clone(), flip.clone());
        if let Some(position) = self.routes.get_mut(route) {
            let shares = flip.shares.unwrap_or(position.inputs.shares);
            position.moved(state_of(&flip), shares, flip);
        }
    }

    /// The last flip of a route, also under an id that it had before.
    pub fn last_flip(&self, route: &Route) -> Option<&FlipRecord> {
        route.ids().filter_map(|id| self.flips.get(id)).max_by_key(|flip| flip.number)
    }

    /// What the store remembers of a route's file, also under an id that it had before.
    pub fn remembered(&self, route: &Route) -> Option<FileState> {
        route.ids().find_map(|id| self.remembered.get(id)).copied()
    }

    /// All that is to be remembered, as the store keeps it.
    pub fn rows(&self) -> Vec<DeclaredState> {
        let routes: BTreeSet<&RouteId> = self.remembered.keys().chain(self.scopes.keys()).collect();
        let row = |route: &RouteId| DeclaredState {
            route: route.clone(),
            file: self.remembered.get(route).copied(),
            retry: self.scopes.get(route).cloned(),
        };
        routes.into_iter().map(row).collect()
    }

    /// The routes that follow up what this one creates.
    pub fn followers<'a>(&'a self, creator: &'a RouteId) -> impl Iterator<Item = &'a RoutePosition> {
        self.routes.values().filter(
            move |other| matches!(&other.route.instance, Some(Instance::Follows { creator: c, .. }) if c == creator),
        )
    }
}

/// The state that a flip went to. One that this binary does not know keeps the engine out.
pub(super) fn state_of(flip: &FlipRecord) -> State {
    flip.to.parse().unwrap_or_else(|error| {
        tracing::warn!(route = ?flip.route, number = flip.number, %error, "a stored flip cannot be read: off");
        State::Off
    })
}

/// The kill switch as records write it.
pub(super) fn freeze_word(freeze: Freeze) -> &'static str {
    match freeze {
        Freeze::No => "no",
        Freeze::Instances => "instances",
        Freeze::Effects => "effects",
    }
}

/// The kill switch that a flip set. One that this binary does not know holds everything.
pub(super) fn freeze_of(flip: &FlipRecord) -> Freeze {
    let known = [Freeze::No, Freeze::Instances, Freeze::Effects].into_iter().find(|f| freeze_word(*f) == flip.to);
    known.unwrap_or_else(|| {
        tracing::warn!(number = flip.number, to = %flip.to, "a stored freeze cannot be read: everything is held");
        Freeze::Effects
    })
}
