//! How long each share that grows by itself (`auto`) has been in force, and how many requests it has had.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::flag::{Auto, Percent, State};
use crate::names::RouteId;

/// The shares that may grow, by route.
#[derive(Default)]
pub(super) struct AutoShares(Mutex<BTreeMap<RouteId, SeenShare>>);

/// What this process has seen of one share.
#[derive(Clone, Debug)]
pub(super) struct SeenShare {
    pub state: State,
    pub share: Percent,
    /// Since when the share is in force.
    pub since: Instant,
    /// The counter of requests at that time.
    pub counted_before: u64,
    /// The number of requests since that time.
    pub requests: u64,
    /// Whether a person has set the share, so that it does not grow by itself.
    pub is_set_by_hand: bool,
    /// What blocks the next share besides time and requests, as sentences.
    pub blocked_by: Vec<String>,
    /// Until when a step that is due waits for the pairs that are under way; `None` if none is due.
    pub awaits_pairs_until: Option<Instant>,
    /// Why the step failed when it was last tried.
    pub failure: Option<String>,
}

impl SeenShare {
    /// Counts time and requests from zero. `counted`: the counter of requests now.
    pub fn restart(&mut self, now: Instant, counted: u64) {
        (self.since, self.counted_before, self.requests) = (now, counted, 0);
        (self.awaits_pairs_until, self.failure) = (None, None);
    }

    /// How long it is until the share has had its time.
    pub fn due_in(&self, auto: &Auto, now: Instant) -> Duration {
        auto.each.saturating_sub(now.saturating_duration_since(self.since))
    }
}

impl AutoShares {
    pub(super) fn seen(&self) -> MutexGuard<'_, BTreeMap<RouteId, SeenShare>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
