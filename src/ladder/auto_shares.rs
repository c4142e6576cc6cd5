//! What was seen of the shares that grow by themselves (`auto`).

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::flag::{Auto, Percent, State};
use crate::names::RouteId;

/// What was seen of the shares that may grow.
#[derive(Default)]
pub(super) struct AutoShares(Mutex<BTreeMap<RouteId, SeenShare>>);

/// What was seen of one share.
#[derive(Clone, Debug)]
pub(super) struct SeenShare {
    pub state: State,
    pub share: Percent,
    /// Since when it is in force.
    pub since: Instant,
    /// The number of requests before that.
    pub before: u64,
    /// The number of requests since then.
    pub requests: u64,
    /// Whether a person has set it, so that it stays.
    pub is_set_by_hand: bool,
    /// What blocks the next share besides time and requests, as sentences.
    pub blocked_by: Vec<String>,
    /// Until when a step that is due waits for the pairs that are under way.
    pub pairs_until: Option<Instant>,
    /// Why the step failed when it was last tried.
    pub failure: Option<String>,
}

impl SeenShare {
    pub fn begin(&mut self, now: Instant, counted: u64) {
        (self.since, self.before, self.requests) = (now, counted, 0);
        (self.pairs_until, self.failure) = (None, None);
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
