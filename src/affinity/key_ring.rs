//! A ring buffer of the records that wait for the store, in memory and in the file.
//!
//! Always true: records are numbered and in order; a record is overwritten only when the store has it.

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;

use super::key_file::{KeyFile, Record};
use crate::clock;
use crate::flag::RetryKey;
use crate::slot_file::SlotRoute;

/// When legacy serves a request whose key could not be noted, the time in the file for its route is set this far in the
/// future, so that it is written at most once per interval and not for each request.
const UNNOTED_WRITE_INTERVAL: Duration = Duration::from_secs(60);

/// When legacy last served a request of a route with a key that could not be noted.
#[derive(Clone, Copy)]
pub(super) struct ServedUnnoted {
    pub at: Timestamp,
    /// The time in the file, or to be written there: at most [`UNNOTED_WRITE_INTERVAL`] later.
    pub in_file: Timestamp,
}

impl ServedUnnoted {
    /// From the time that an earlier process wrote: it served no request after this moment.
    pub fn by_earlier_process(in_file: Timestamp) -> Self {
        Self { at: in_file.min(clock::now()), in_file }
    }
}

/// See the module.
pub(super) struct Ring {
    /// `None` if records are kept in memory only.
    pub file: Option<KeyFile>,
    /// The size of the ring.
    pub records: u64,
    /// All records up to this number are in the store.
    pub stored: u64,
    /// The records after it, in order.
    pub waiting: VecDeque<Record>,
    /// The keys of the waiting records, each with the number of its newest record.
    pub waiting_keys: HashMap<RetryKey, u64>,
    /// For each route, when legacy last served a request with a key that could not be noted.
    pub unnoted: HashMap<SlotRoute, ServedUnnoted>,
    /// The signs, found when a file was opened, that records were missing in it: this process's file, or one whose keys
    /// it took over.
    pub damage: Option<String>,
    /// The routes in `unnoted` whose time is not in the file.
    pub unnoted_to_write: Vec<SlotRoute>,
    /// The highest generation of the store that a file of it had when it was opened.
    pub generation: u64,
    pub written_since_sync: bool,
    /// Whether the last attempt to note a key failed.
    pub failing: bool,
    pub closed: bool,
    /// The store has all records, and its list says so.
    pub finished: bool,
    pub gauge: metrics::Gauge,
}

impl Ring {
    /// A ring that keeps this many records, in memory only.
    pub(super) fn in_memory(records: u64, gauge: metrics::Gauge) -> Self {
        Self {
            file: None,
            records,
            stored: 0,
            waiting: VecDeque::new(),
            waiting_keys: HashMap::new(),
            unnoted: HashMap::new(),
            damage: None,
            unnoted_to_write: Vec::new(),
            generation: 0,
            written_since_sync: false,
            failing: false,
            closed: false,
            finished: false,
            gauge,
        }
    }

    /// The number of the last record.
    pub fn last(&self) -> u64 {
        self.waiting.back().map_or(self.stored, |record| record.seq)
    }

    /// Removes the records up to a number, because the store has them now, and writes that number to the file.
    pub fn set_stored(&mut self, seq: u64) {
        while let Some(record) = self.waiting.pop_front_if(|record| record.seq <= seq) {
            if self.waiting_keys.get(&record.key) == Some(&record.seq) {
                self.waiting_keys.remove(&record.key);
            }
        }
        self.stored = self.stored.max(seq);
        self.gauge.set(self.waiting.len() as f64);
        // If this fails, the next process moves these records to the store once more, which changes nothing.
        if let Some(file) = &self.file
            && let Err(error) = file.write_progress(self.stored, self.last())
        {
            tracing::debug!(%error, "the number of the records that are in the store was not written to the file of retry keys");
        }
    }

    /// Drops the records whose window is over: a retry with such a key is a new request.
    pub fn forget_expired(&mut self, window: Duration) {
        let is_over = |record: &Record| clock::passed(record.at) >= window;
        let expired = self.waiting.iter().take_while(|record| is_over(record)).last().map(|record| record.seq);
        if let Some(seq) = expired {
            self.set_stored(seq);
        }
    }

    /// Logs that a key cannot be noted, unless that was logged since the last success.
    pub fn log_failure(&mut self, why: &str, error: Option<&std::io::Error>) {
        if !std::mem::replace(&mut self.failing, true) {
            let path = self.file.as_ref().map(|file| file.path().display().to_string()).unwrap_or_default();
            let error = error.map(ToString::to_string);
            tracing::error!(
                %path, waiting = self.waiting.len(), error,
                "retry keys cannot be noted in their file: {why}; requests with a retry key, of routes that are in `live` or would return there without a gate, get 503 and are not sent to legacy"
            );
        }
    }

    /// Logs that records were missing in a file whose keys this process has, and remembers the signs.
    pub fn note_damage(&mut self, path: &Path, damage: Option<String>) {
        let Some(damage) = damage else { return };
        tracing::error!(
            path = %path.display(), damage,
            "the file of retry keys is damaged, and retry keys of requests that legacy served may be lost: for the retry \
             window no route goes up to `live` unless forced"
        );
        self.damage = Some(format!("the file of retry keys {} is damaged ({damage})", path.display()));
    }

    pub fn set_unnoted(&mut self, route: SlotRoute, at: Timestamp, window: Duration) {
        if let Some(served) = self.unnoted.get_mut(&route) {
            served.at = served.at.max(at);
            if served.in_file >= at {
                return;
            }
        }
        let in_file = at.checked_add(UNNOTED_WRITE_INTERVAL).unwrap_or(at);
        self.unnoted.insert(route, ServedUnnoted { at, in_file });
        if !self.unnoted_to_write.contains(&route) {
            self.unnoted_to_write.push(route);
        }
        self.write_unnoted(window);
    }

    /// Has the exact time of the last such request written to the file for each route without one since the time that
    /// is there, or for all routes: a flip by force after that request accepts it, also for later processes.
    pub fn settle_unnoted(&mut self, all: bool) {
        let now = clock::now();
        for (route, served) in &mut self.unnoted {
            // The file has milliseconds, and the time there must not be before the request.
            let exact = Timestamp::from_millisecond(served.at.as_millisecond() + 1).unwrap_or(served.at);
            if served.in_file > exact && (all || served.in_file <= now) {
                served.in_file = exact;
                if !self.unnoted_to_write.contains(route) {
                    self.unnoted_to_write.push(*route);
                }
            }
        }
    }

    /// Whether a retry may still come of a request that legacy served although its key could not be noted.
    pub fn has_unnoted(&self, window: Duration) -> bool {
        let now = clock::now();
        self.unnoted.values().any(|served| clock::window_end(served.at, window) > now)
    }

    pub fn write_unnoted(&mut self, window: Duration) {
        let Some(file) = &mut self.file else { return self.unnoted_to_write.clear() };
        let (unnoted, before, now) = (&self.unnoted, self.unnoted_to_write.len(), clock::now());
        let is_over = |at| clock::window_end(at, window) <= now;
        self.unnoted_to_write.retain(|route| {
            unnoted.get(route).is_some_and(|served| file.write_unnoted(*route, served.in_file, is_over).is_err())
        });
        self.written_since_sync |= self.unnoted_to_write.len() < before;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::RouteId;

    fn ring() -> Ring {
        Ring::in_memory(8, metrics::Gauge::noop())
    }

    /// Not before, because until then a request of that route writes nothing.
    #[test]
    fn the_exact_time_is_written_once_the_time_in_the_file_has_come() {
        let (mut ring, now) = (ring(), clock::now());
        let [over, served] = ["over", "served"].map(|id| SlotRoute::of(&RouteId::new(id)));
        let seconds = Duration::from_secs;
        ring.unnoted.insert(over, ServedUnnoted { at: now - seconds(30), in_file: now - seconds(1) });
        ring.unnoted.insert(served, ServedUnnoted { at: now - seconds(30), in_file: now + seconds(30) });
        ring.settle_unnoted(false);
        assert_eq!(ring.unnoted_to_write, [over]);
        let exact = ring.unnoted[&over];
        assert!(exact.in_file >= exact.at && exact.in_file <= exact.at + Duration::from_millis(1));
        ring.settle_unnoted(true);
        assert_eq!(ring.unnoted_to_write, [over, served], "at the end of the process");
        ring.unnoted_to_write.clear();
        ring.settle_unnoted(true);
        assert!(ring.unnoted_to_write.is_empty(), "both are exact");
    }
}
