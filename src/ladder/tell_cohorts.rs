//! Tells the listeners of the moves of cohorts.
//!
//! Always true: a listener is told of a move once the move is in force. The first listener is also told of the cohorts
//! that `force` puts ahead of their routes at the start.

use std::sync::Arc;

use super::cohort_listener::{CohortListener, CohortMove};
use super::cohort_moves::moves;
use super::mover::Mover;
use super::positions::Positions;
use crate::flag::State;

impl Mover {
    /// Logs the moves and tells the listeners. To be called once `after` is in force.
    pub(super) fn tell_cohort_moves(&self, before: &Positions, after: &Positions) {
        let listeners = self.cohort_listeners().connected.clone();
        self.tell_moves(moves(before, after), after, &listeners);
    }

    fn tell_moves(&self, moves: Vec<CohortMove>, after: &Positions, listeners: &[Arc<dyn CohortListener>]) {
        for mut moved in moves {
            if let Some(position) = after.routes.get(&moved.route) {
                let evidence = self.gate().evidence_of(after, position);
                moved.evidence = serde_json::to_value(evidence).unwrap_or_default();
            }
            let CohortMove { route, cohort, from, to, cause, forced, is_repeated, .. } = &moved;
            let shown = |state: &Option<State>| state.map_or("none", State::as_str);
            let (from, to, why) = (shown(from), shown(to), cause.as_str());
            let what = if from == to { "a cohort has other callers" } else { "a cohort is on another rung" };
            if !is_repeated {
                tracing::warn!(%route, cohort, from, to, why, forced, "{what}");
            }
            listeners.iter().for_each(|listener| listener.moved(moved.clone()));
        }
    }

    /// Connects a listener: it is told of each move of a cohort from now on. The first one is also told of the moves
    /// that the start found.
    pub(super) fn connect_to_cohorts(&self, listener: Arc<dyn CohortListener>) {
        let mut listeners = self.cohort_listeners();
        let at_start = std::mem::take(&mut listeners.at_start);
        listeners.connected.push(listener.clone());
        drop(listeners);
        self.tell_moves(at_start, &self.in_force().inputs().positions, &[listener]);
    }
}
