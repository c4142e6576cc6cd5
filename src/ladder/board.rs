//! Where every route stands: plain data. What may move is `judge`'s business, what is durable the mover's.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Declared;
use crate::flag::{FlagSet, Freeze, Instance, Route, Shares, Standing, State};
use crate::names::RouteId;
use crate::store::{DeclaredState, FlipRecord};

/// One route's place.
#[derive(Clone)]
pub(super) struct Place {
    pub route: Arc<Route>,
    pub standing: Standing,
    /// The last flip, where there is one.
    pub last: Option<FlipRecord>,
    /// Why the file's wish was refused, where it was.
    pub refused: Vec<String>,
}

/// All places, and what is remembered beside them.
#[derive(Clone)]
pub(super) struct Board {
    pub declared: Declared,
    pub places: BTreeMap<RouteId, Place>,
    /// The last flip of every route that ever had one, also of those that are in no file now.
    pub flips: BTreeMap<RouteId, FlipRecord>,
    /// What the store remembers of the files.
    pub remembered: BTreeMap<RouteId, DeclaredState>,
    pub freeze: Freeze,
    pub healthy: bool,
    pub generation: u64,
    pub secret: [u8; 32],
}

impl Place {
    /// The rung that the route stands on: what was asked for, or less where the gate refused the file's wish.
    pub fn stands(&self) -> State {
        self.standing.gate.map_or(self.standing.requested, |gate| gate.min(self.standing.requested))
    }
    /// Whether it stands there already, and nothing else was asked for.
    pub fn is_at(&self, to: State, shares: Shares) -> bool {
        self.standing.requested == to && self.standing.shares == shares && self.stands() == to
    }
    /// As the file declares it now.
    pub fn declared(&self) -> DeclaredState {
        let Route { id, declared, shares, .. } = &*self.route;
        DeclaredState { route: id.clone(), state: *declared, shares: *shares }
    }
    fn moved(&mut self, to: State, shares: Shares, flip: FlipRecord) {
        self.standing.requested = to;
        self.standing.shares = shares;
        self.standing.unproven = false;
        self.standing.gate = None;
        self.last = Some(flip);
        self.refused.clear();
    }
}

impl Board {
    /// Notes a flip of a route that is in force from now on.
    pub fn flipped(&mut self, route: &RouteId, flip: FlipRecord) {
        self.flips.insert(route.clone(), flip.clone());
        if let Some(place) = self.places.get_mut(route) {
            let shares = flip.shares.unwrap_or(place.standing.shares);
            place.moved(state_of(&flip), shares, flip);
        }
    }

    /// Notes the engine's health.
    pub fn set_health(&mut self, healthy: bool) {
        self.healthy = healthy;
        self.places.values_mut().for_each(|place| place.standing.healthy = healthy);
    }

    /// The place of a route that is new in the files: as its last flip says, else as the store remembers the file,
    /// else as the file says now, unproven.
    pub fn place(&self, route: &Arc<Route>) -> Place {
        let mut standing = Standing::declared(route);
        standing.healthy = self.healthy;
        let last = self.flips.get(&route.id).cloned();
        if let Some(flip) = &last {
            standing.requested = state_of(flip);
            standing.shares = flip.shares.unwrap_or(standing.shares);
            standing.unproven = false;
        } else if let Some(remembered) = self.remembered.get(&route.id) {
            standing.requested = remembered.state;
            standing.shares = remembered.shares;
        }
        Place { route: Arc::clone(route), standing, last, refused: Vec::new() }
    }

    /// The routes that follow up what this one creates.
    pub fn followers<'a>(&'a self, creator: &'a RouteId) -> impl Iterator<Item = &'a Place> {
        self.places.values().filter(
            move |place| matches!(&place.route.instance, Some(Instance::Follows { creator: c, .. }) if c == creator),
        )
    }

    /// The set that all this comes to.
    pub fn flag_set(&self) -> FlagSet {
        let standings = self.places.iter().map(|(id, place)| (id.clone(), place.standing.clone())).collect();
        let Declared { edition, routes, default_legacy, services } = self.declared.clone();
        FlagSet::new(self.generation, routes, &standings, default_legacy, services, self.freeze, self.secret)
            .of_edition(edition)
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
