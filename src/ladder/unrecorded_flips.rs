//! Flips down that are in force and that the store does not have yet.
//!
//! A flip down waits for nothing: neither for the store nor for a move that waits for the store. It is in force in this
//! process at once, and a task (`record_unrecorded`) records it as soon as the store takes it. If the process is killed
//! before that, the route returns to the state that the store has.
//!
//! Always true:
//!
//! - A move that was under way when the flip down was made does not raise the route above it: the flip is applied again
//!   to the positions of that move before they come into force ([`UnrecordedFlip::reapply_to`]).
//! - Every other move of routes that begins later is recorded after it.
//! - Each route has at most one unrecorded flip: a newer one, which is lower, replaces it.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;

use super::gate::Gate;
use super::holds;
use super::positions::{Positions, state_of};
use crate::flag::{Percent, Route, Shares, State};
use crate::names::RouteId;
use crate::store::FlipRecord;

/// The provisional numbers of unrecorded flips begin here, above all numbers that a store gives. No one outside
/// `ladder` sees them.
const UNRECORDED: u64 = 1 << 52;

/// A flip down that is in force and that the store does not have yet.
#[derive(Clone)]
pub(super) struct UnrecordedFlip {
    /// Identifies the flip in this process.
    pub id: u64,
    /// When a person asked for it; `None` if it reverts a flip that a freeze overtook.
    pub asked: Option<Instant>,
    /// The flip as it will be recorded: its number is 0.
    pub flip: FlipRecord,
    /// The new share, if it was asked for.
    pub percent: Option<Percent>,
    /// Whether the route had the requested state already here, but another process may have raised it or enlarged its
    /// share: the store did not answer. Such a flip is recorded although it changes nothing here.
    pub may_be_raised_elsewhere: bool,
    /// Whether this flip, and the unrecorded flips that it replaced, changed nothing in this process.
    pub changed_nothing: bool,
    /// The highest state in which a restart would find the route now, without this flip.
    pub restart_state: State,
    /// Gets the record. Closed if a newer flip down replaces this one, or if the route is as low without it.
    pub recorded: Arc<watch::Sender<Option<FlipRecord>>>,
}

impl UnrecordedFlip {
    pub fn is_of(&self, route: &RouteId) -> bool {
        self.flip.route.as_ref() == Some(route)
    }

    /// Whether this flip would raise the route, or its share, if it was recorded after the flip `recorded` of the
    /// route.
    pub fn raises_after(&self, recorded: &FlipRecord) -> bool {
        let (to, there) = (state_of(&self.flip), state_of(recorded));
        let share = |of: &FlipRecord| of.shares.map(|shares| shares.of(to));
        to > there || (to == there && share(&self.flip) > share(recorded))
    }

    /// Whether this flip changed nothing when it was made, and would take the route out of `only` if it was recorded
    /// after the flip `recorded`, which raised it there: nobody has acknowledged what leaving `only` costs.
    pub fn leaves_only_after(&self, recorded: &FlipRecord) -> bool {
        self.changed_nothing && state_of(recorded) == State::Only && state_of(&self.flip) < State::Only
    }

    /// The flip with a provisional number, as `Positions` have it until the store gives it its number.
    pub fn provisional(&self) -> FlipRecord {
        FlipRecord { number: UNRECORDED + self.id, ..self.flip.clone() }
    }

    /// Whether this flip no longer counts, because another process has recorded the flip `recorded` first: after that
    /// one, this flip would raise the route or its share, or take it out of `only` without an acknowledgement.
    pub fn is_superseded_by(&self, recorded: &FlipRecord) -> bool {
        self.raises_after(recorded) || self.leaves_only_after(recorded)
    }

    /// Applies this flip again to `positions`, if they were computed before it was made. Returns whether the flip still
    /// has to be recorded: not if a move that was under way has put the route as low, with as small a share; nor if a
    /// followed flip supersedes this one. `followed_after`: set if the positions have moves of other processes; these
    /// have higher numbers than `followed_after`.
    pub fn reapply_to(&mut self, positions: &mut Positions, followed_after: Option<u64>, gate: &Gate) -> bool {
        let Some(own) = self.flip.route.clone() else { return false };
        let Some(position) = positions.routes.values().find(|at| at.route.ids().any(|id| *id == own)) else {
            // The route has left the files. If it is re-added, it goes no higher than its last flip.
            positions.flips.insert(own, self.provisional());
            return true;
        };
        if position.last.as_ref().map(|flip| flip.number) == Some(self.provisional().number) {
            return true;
        }
        let followed = position.last.as_ref().filter(|last| followed_after.is_some_and(|after| last.number > after));
        if followed.is_some_and(|last| !is_unrecorded(last) && self.is_superseded_by(last)) {
            return false;
        }
        let to = state_of(&self.flip);
        let has_larger_share = self.flip.shares.is_some_and(|shares| position.inputs.shares.of(to) > shares.of(to));
        let is_as_low = position.highest() == to && !has_larger_share;
        if position.highest() < to || (is_as_low && !self.may_be_raised_elsewhere) {
            return false;
        }
        let id = position.route.id.clone();
        lower(positions, &id, self, gate);
        true
    }
}

/// Whether the store does not have the last flip of a route yet.
pub(super) fn is_unrecorded(last: &FlipRecord) -> bool {
    last.number >= UNRECORDED
}

/// A last flip as others see it: its number is 0 while the store does not have it.
pub(super) fn with_shown_number(last: FlipRecord) -> FlipRecord {
    if is_unrecorded(&last) { FlipRecord { number: 0, ..last } } else { last }
}

/// Applies an unrecorded flip down to a route; leaves the route on its rung if that is lower. If no share was asked
/// for, the share of the new rung does not become larger than it was when the flip was made.
pub(super) fn lower(positions: &mut Positions, id: &RouteId, unrecorded: &mut UnrecordedFlip, gate: &Gate) {
    let Some(position) = positions.routes.get(id) else { return };
    let (rung, refused, declared, shares) =
        (position.rung(), position.refused.clone(), position.declared(), position.inputs.shares);
    let to = state_of(&unrecorded.flip);
    if !position.last.as_ref().is_some_and(is_unrecorded) {
        rung.as_str().clone_into(&mut unrecorded.flip.from);
        unrecorded.restart_state = position.highest();
    }
    unrecorded.flip.route = Some(id.clone());
    let made_with = unrecorded.flip.shares.map_or(shares.of(to), |made_with| made_with.of(to));
    let share = unrecorded.percent.unwrap_or(shares.of(to).min(made_with));
    unrecorded.flip.shares = Some(shares.with(to, share));
    // A flip ends a move that the file requested and the gate refused: the store gets the file's present declaration,
    // so that the move is not judged again.
    positions.set_declaration_of_flipped(id, declared);
    positions.apply_flip(id, unrecorded.provisional());
    match positions.routes.get_mut(id) {
        Some(position) if rung < to => (position.inputs.gate, position.refused) = (Some(rung), refused),
        _ => holds::lower_after_flip(positions, id, gate),
    }
}

/// The states and shares to which the outstanding write moves routes, each under all ids of its route. A restart may
/// find them although they are not in force yet.
#[derive(Clone, Default)]
pub(super) struct OutstandingWrite(Vec<(RouteId, State, Option<Shares>)>);

impl OutstandingWrite {
    /// `positions`: have the ids of the routes.
    pub fn new(flips: &[FlipRecord], positions: &Positions) -> Self {
        let of_routes = flips.iter().filter(|flip| flip.candidate.is_none());
        let targets = of_routes.filter_map(|flip| Some((flip.route.as_ref()?, state_of(flip), flip.shares)));
        // While new files are recorded, the files in force may have the route under an earlier id only.
        let ids = |id| positions.routes.get(id).into_iter().flat_map(|position| position.route.ids()).chain([id]);
        Self(targets.flat_map(|(id, to, shares)| ids(id).map(move |id| (id.clone(), to, shares))).collect())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The highest state to which the write may move the route.
    pub fn target(&self, route: &Route) -> Option<State> {
        self.own(route).map(|(_, to, _)| *to).max()
    }

    /// The largest share that the route may have on this rung after the write.
    pub fn share(&self, route: &Route, rung: State) -> Option<Percent> {
        self.own(route).filter_map(|(_, _, shares)| Some(shares.as_ref()?.of(rung))).max()
    }

    fn own<'a>(&'a self, route: &'a Route) -> impl Iterator<Item = &'a (RouteId, State, Option<Shares>)> {
        self.0.iter().filter(|(id, ..)| route.ids().any(|own| own == id))
    }
}
