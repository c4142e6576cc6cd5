//! Moves that other processes on the same store have recorded, as they were read, and the positions after them.
//!
//! Always true: a flip is not applied where a newer one of its route is in force already.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;

use super::kill_switch::is_of_kill_switch;
use super::positions::{Positions, RoutePosition};
use super::unrecorded_flips::is_unrecorded;
use crate::names::{PlanSet, RouteId};
use crate::store::{DeclaredState, FlipRecord, GuardRecord};

/// Moves that other processes have recorded and that are not in force here yet.
#[derive(Clone)]
pub struct FollowedMoves {
    /// The number of the newest flip in the store when the moves were read.
    pub(super) newest: u64,
    /// The last flips of routes and of candidates, the last actions of guards, and the last change of the kill switch:
    /// those of them that are newer than the flips in force, the oldest first.
    pub(super) flips: Vec<FlipRecord>,
    /// The declarations of all routes in the store, as they were read with the flips.
    pub(super) rows: Vec<DeclaredState>,
}

impl FollowedMoves {
    /// The numbers that the store gave to these flips; if `before` is set, only of flips that were made before that
    /// time.
    pub(super) fn numbers(&self, before: Option<Timestamp>) -> Vec<u64> {
        let is_before = |flip: &&FlipRecord| before.is_none_or(|before| flip.at < before);
        self.flips.iter().filter(is_before).map(|flip| flip.number).collect()
    }

    /// These positions after the flips of routes and candidates.
    pub(super) fn apply_to(&self, before: &Positions) -> Positions {
        let mut positions = before.clone();
        for flip in &self.flips {
            if let Some(record) = &flip.candidate {
                let own = positions.candidates.get(&record.route);
                if own.is_none_or(|own| own.number < flip.number) {
                    positions.candidates.insert(record.route.clone(), flip.clone());
                    self.set_plans(&mut positions, &record.route);
                }
                continue;
            }
            let Some(of_record) = flip.route.as_ref().filter(|_| flip.guard.is_none()) else { continue };
            let present = self.present_ids(&positions, of_record);
            if present.is_empty() {
                positions.apply_flip(of_record, flip.clone());
                self.set_plans(&mut positions, of_record);
            }
            let row = self.row(of_record);
            for route in present {
                let Some(position) = positions.routes.get(&route).filter(|at| !has_newer_flip(at, flip)) else {
                    continue;
                };
                let declared = position.declared();
                positions.apply_flip(&route, flip.clone());
                positions.set_declaration_of_flipped(&route, declared);
                positions.note_followed_declaration(&route, row);
                self.set_plans(&mut positions, &route);
            }
        }
        positions
    }

    /// The present ids, by the files in force, of the routes that have or had this id. If there is none, another
    /// process may have newer files that rename the route: then the routes with one of the earlier ids in its stored
    /// row.
    fn present_ids(&self, positions: &Positions, id: &RouteId) -> Vec<RouteId> {
        let having = |ids: &[RouteId]| {
            let has = |at: &&RoutePosition| at.route.ids().any(|own| ids.contains(own));
            positions.routes.values().filter(has).map(|at| at.route.id.clone()).collect::<Vec<_>>()
        };
        let present = having(std::slice::from_ref(id));
        match self.row(id).filter(|_| present.is_empty()) {
            Some(row) => having(&row.earlier_ids),
            None => present,
        }
    }

    fn row(&self, route: &RouteId) -> Option<&DeclaredState> {
        self.rows.iter().find(|row| row.route == *route)
    }

    /// The actions of guards. If the files in force have the route under another id, an action is returned under both.
    pub(super) fn guard_actions(&self, positions: &Positions) -> Vec<FlipRecord> {
        let actions = self.flips.iter().filter_map(|flip| Some((flip, flip.guard.as_ref()?)));
        let each = actions.flat_map(|(flip, guard)| {
            let others = self.present_ids(positions, &guard.route).into_iter().filter(|id| *id != guard.route);
            std::iter::once(guard.route.clone()).chain(others).map(move |route| {
                let guard = GuardRecord { route, ..guard.clone() };
                FlipRecord { guard: Some(guard), ..flip.clone() }
            })
        });
        each.collect()
    }

    /// Takes over from the store what it has of a route in `live`: the plans in force, and the basis with which the
    /// route went there.
    fn set_plans(&self, positions: &mut Positions, route: &RouteId) {
        let row = self.row(route);
        let plans = |set: Option<&PlanSet>| set.cloned().map(Arc::new);
        let in_force = plans(row.and_then(|row| row.in_force.as_ref()));
        let evidence_from = plans(row.and_then(|row| row.evidence_from.as_ref()));
        set_or_remove(&mut positions.in_force, route, in_force);
        set_or_remove(&mut positions.evidence_from, route, evidence_from);
        set_or_remove(&mut positions.live, route, row.and_then(|row| row.live.clone()));
    }

    /// The routes that were moved, by their ids in the files in force.
    pub(super) fn moved_ids(&self, positions: &Positions) -> BTreeSet<RouteId> {
        self.routes().flat_map(|id| self.present_ids(positions, id)).collect()
    }

    /// The last change of the kill switch, if there is one.
    pub(super) fn kill_switch(&self) -> Option<&FlipRecord> {
        self.flips.iter().rfind(|flip| is_of_kill_switch(flip))
    }

    /// Whether a route or a candidate was moved.
    pub(super) fn has_moves_of_routes(&self) -> bool {
        self.routes().next().is_some()
    }

    pub(super) fn routes(&self) -> impl Iterator<Item = &RouteId> {
        let moved = self.flips.iter().filter(|flip| flip.guard.is_none());
        moved.filter_map(|flip| flip.candidate.as_ref().map(|record| &record.route).or(flip.route.as_ref()))
    }
}

/// Whether the last flip of a route is this one, or was recorded after it. An unrecorded last flip does not count: it
/// is applied again after this one.
fn has_newer_flip(position: &RoutePosition, flip: &FlipRecord) -> bool {
    position.last.as_ref().is_some_and(|last| !is_unrecorded(last) && last.number >= flip.number)
}

fn set_or_remove<T>(map: &mut BTreeMap<RouteId, T>, route: &RouteId, value: Option<T>) {
    match value {
        Some(value) => drop(map.insert(route.clone(), value)),
        None => drop(map.remove(route)),
    }
}
