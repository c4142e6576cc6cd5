//! Flips down that are in force and that the store has not recorded.
//!
//! A route goes down also where the store refuses to record that (a full disk): in `only` nothing else gives its requests
//! back to legacy. A task (`record_later`) records such flips as soon as the store takes writes. A restart before that
//! loses them. Where the store does not answer, so that it is not known whether it has the flip, the flip waits.
//!
//! Always true: nothing else about routes is recorded before them, so that the last flip in the store is the last one
//! that was made. Each call that changes the list holds the lock of moves.

use std::sync::{Mutex, MutexGuard, PoisonError};

use metrics::Gauge;

use super::positions::Positions;
use crate::flag::State as Rung;
use crate::names::RouteId;
use crate::store::FlipRecord;

/// The flips that wait, at most one for each route.
pub(super) struct UnrecordedFlips {
    state: Mutex<State>,
    count: Gauge,
}

#[derive(Default)]
struct State {
    /// In the order in which they were made.
    waiting: Vec<Waiting>,
    /// Whether a task records them.
    is_recording: bool,
}

struct Waiting {
    flip: FlipRecord,
    /// The state of the route's last flip in the store; of a route without a flip, its state by its file.
    stored: Rung,
}

impl UnrecordedFlips {
    pub fn new() -> Self {
        let count = metrics::gauge!("pointsman_flips_unrecorded");
        count.set(0.0);
        Self { state: Mutex::default(), count }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A poisoned lock is usable: nothing that changes the list panics halfway.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many flips are in force that the store does not have.
    pub fn count(&self) -> usize {
        self.state().waiting.len()
    }

    /// The state that the store has for a route whose flip down waits.
    pub fn stored_state(&self, route: &RouteId) -> Option<Rung> {
        let state = self.state();
        state.waiting.iter().find(|waiting| waiting.flip.route.as_ref() == Some(route)).map(|waiting| waiting.stored)
    }

    /// Adds a flip, in place of an earlier one of its route. `stored` is the state that the store has unless an earlier
    /// one waits. Until the flip is recorded, it has a number of its own, which is higher than those of all flips of
    /// routes that the store has.
    pub fn add(&self, mut flip: FlipRecord, mut stored: Rung, positions: &Positions) -> FlipRecord {
        let mut state = self.state();
        if let Some(before) = state.waiting.iter().position(|waiting| waiting.flip.route == flip.route) {
            let before = state.waiting.remove(before);
            (flip.from, stored) = (before.flip.from, before.stored);
        }
        state.waiting.push(Waiting { flip: flip.clone(), stored });
        self.count.set(state.waiting.len() as f64);
        let newest = positions.flips.values().map(|flip| flip.number).max().unwrap_or(0);
        FlipRecord { number: newest + 1, ..flip }
    }

    /// Whether the caller has to start the task that records: there is something to record, and no task does.
    pub fn begin_recording(&self) -> bool {
        let mut state = self.state();
        let begins = !state.waiting.is_empty() && !state.is_recording;
        state.is_recording |= begins;
        begins
    }

    /// The flips that wait, in the order in which they were made.
    pub fn all(&self) -> Vec<FlipRecord> {
        self.state().waiting.iter().map(|waiting| waiting.flip.clone()).collect()
    }

    /// The store has them.
    pub fn clear(&self) {
        self.state().waiting.clear();
        self.count.set(0.0);
    }

    /// The task that records them ends.
    pub fn end_recording(&self) {
        self.state().is_recording = false;
    }
}
