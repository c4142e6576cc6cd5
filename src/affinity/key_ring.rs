//! Records that wait for the store, as they stand in the file: numbered, in order, at most as many as the file has room
//! for. What is written over is in the store.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use jiff::Timestamp;

use super::key_file::{KeyFile, Record, UnnotedRoute};
use crate::clock;
use crate::flag::RetryKey;

/// A route that was served unnoted is written down this often at most, and as served so much later.
const UNNOTED_EVERY: Duration = Duration::from_secs(60);

/// See the module.
pub(super) struct Ring {
    pub file: Option<KeyFile>,
    pub records: u64,
    /// All records up to this number are in the store.
    pub stored: u64,
    /// Those after it, in order.
    pub waiting: VecDeque<Record>,
    pub known: HashMap<RetryKey, u64>,
    pub unnoted: HashMap<UnnotedRoute, Timestamp>,
    /// Those of them that the file does not have.
    pub unnoted_unwritten: Vec<UnnotedRoute>,
    pub written_since_sync: bool,
    pub failing: bool,
    pub closed: bool,
    /// The store has all of it and does not list the file any more.
    pub unlisted: bool,
    pub gauge: metrics::Gauge,
}

impl Ring {
    pub fn last(&self) -> u64 {
        self.waiting.back().map_or(self.stored, |record| record.seq)
    }

    pub fn stored_through(&mut self, seq: u64) {
        while let Some(record) = self.waiting.pop_front_if(|record| record.seq <= seq) {
            if self.known.get(&record.key) == Some(&record.seq) {
                self.known.remove(&record.key);
            }
        }
        self.stored = self.stored.max(seq);
        self.gauge.set(self.waiting.len() as f64);
        // Not said, they are moved to the store once more by the next process, which changes nothing.
        if let Some(file) = &self.file
            && let Err(error) = file.write_stored(self.stored)
        {
            tracing::debug!(%error, "the file of retry keys does not know what is in the store");
        }
    }

    /// Lets go of those whose window is over: their retry would be a new request.
    pub fn forget_expired(&mut self, window: Duration) {
        let now = clock::now();
        let is_over = |record: &Record| record.at.checked_add(window).is_ok_and(|until| until <= now);
        let expired = self.waiting.iter().take_while(|record| is_over(record)).last().map(|record| record.seq);
        if let Some(seq) = expired {
            self.stored_through(seq);
        }
    }

    /// Says once that noting fails.
    pub fn fails(&mut self, why: &str, error: Option<&std::io::Error>) {
        if !std::mem::replace(&mut self.failing, true) {
            let path = self.file.as_ref().map(|file| file.path().display().to_string()).unwrap_or_default();
            let error = error.map(ToString::to_string);
            tracing::error!(
                %path, waiting = self.waiting.len(), error,
                "retry keys cannot be noted in their file: {why}; keyed requests of routes in `live` get 503 instead of legacy"
            );
        }
    }

    pub fn set_unnoted(&mut self, route: UnnotedRoute, at: Timestamp) {
        let known = self.unnoted.get(&route);
        if known.is_some_and(|known| *known >= at) {
            return;
        }
        // Later than it was, so that it need not be written for each request.
        let at = at.checked_add(UNNOTED_EVERY).unwrap_or(at);
        self.unnoted.insert(route, at);
        if !self.unnoted_unwritten.contains(&route) {
            self.unnoted_unwritten.push(route);
        }
        self.write_unnoted();
    }

    pub fn write_unnoted(&mut self) {
        let Some(file) = &mut self.file else { return self.unnoted_unwritten.clear() };
        let unnoted = &self.unnoted;
        self.unnoted_unwritten
            .retain(|route| unnoted.get(route).is_some_and(|at| file.write_unnoted(*route, *at).is_err()));
    }
}
