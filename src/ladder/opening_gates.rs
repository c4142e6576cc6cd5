//! Gates that are open, but for pairs that are under way and may differ: those of cohorts, and those above what a guard
//! has lowered and clean evidence releases. They are judged again and again.
//!
//! Always true: such a gate stays shut until no pair is under way when it is judged, or until its conditions have held
//! for the longest time that a pair takes (`pairs_within`): while requests go on coming, some are always under way.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::flag::State;
use crate::names::RouteId;

/// The gate of a route to a state: for one of its cohorts, or for the route after its guard has lowered it (`None`).
type GateKey = (RouteId, Option<String>, State);

/// Until when each of these gates waits for pairs.
#[derive(Default)]
pub(super) struct OpeningGates(Mutex<BTreeMap<GateKey, Instant>>);

impl OpeningGates {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<GateKey, Instant>> {
        // A poisoned lock is safe to use: a change is one insertion or removal.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The conditions of this gate hold, and pairs are under way: whether it waits for them. `within`: how long it
    /// waits from the first call on.
    pub fn waits(&self, route: &RouteId, cohort: Option<&str>, to: State, within: Duration) -> bool {
        let now = Instant::now();
        let key = (route.clone(), cohort.map(str::to_owned), to);
        now < *self.lock().entry(key).or_insert(now + within)
    }

    /// The conditions of this gate do not hold: when they do again, it waits anew.
    pub fn note_shut(&self, route: &RouteId, cohort: Option<&str>, to: State) {
        self.lock().remove(&(route.clone(), cohort.map(str::to_owned), to));
    }
}
