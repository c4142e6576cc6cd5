//! Which routes persons have lowered since the start of the process, or flipped to the state that they had, and when
//! they asked for it.

use std::collections::BTreeMap;
use std::time::Instant;

use super::positions::state_of;
use super::unrecorded_flips::UnrecordedFlip;
use crate::flag::{Route, State};
use crate::names::RouteId;

/// A person's flip that lowered a route, or left it where it is: when it was asked for, its state, and the person.
#[derive(Clone)]
pub(super) struct Lowering {
    pub at: Instant,
    pub to: State,
    pub by: String,
}

/// The routes that persons have lowered, or left where they are, since the start of the process.
#[derive(Clone, Default)]
pub(super) struct LoweredRoutes(BTreeMap<RouteId, Lowering>);

impl LoweredRoutes {
    pub fn add_flip(&mut self, unrecorded: &UnrecordedFlip) {
        let (Some(route), Some(at)) = (&unrecorded.flip.route, unrecorded.asked) else { return };
        self.add(route, Lowering { at, to: state_of(&unrecorded.flip), by: unrecorded.flip.by.clone() });
    }

    /// Notes that a person lowered a route or left it where it is. Of two such flips, the one that was asked for later
    /// counts, in whatever order they are noted here.
    pub fn add(&mut self, route: &RouteId, lowering: Lowering) {
        if self.0.get(route).is_none_or(|known| known.at <= lowering.at) {
            self.0.insert(route.clone(), lowering);
        }
    }

    /// The newest lowering of a route, if it was asked for at this time or later.
    pub fn since(&self, asked: Instant, route: &Route) -> Option<&Lowering> {
        let own = route.ids().filter_map(|id| self.0.get(id));
        own.filter(|lowered| lowered.at >= asked).max_by_key(|lowered| lowered.at)
    }
}
