//! When legacy last served requests of each route although their keys could not be noted.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;

use crate::clock;
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
    /// From the time that an earlier process wrote. That time may lie in the future; the process has ended, so its last
    /// such request came before now.
    pub fn by_earlier_process(in_file: Timestamp) -> Self {
        Self { at: in_file.min(clock::now()), in_file }
    }
}

/// When legacy last served unnoted requests, by route.
#[derive(Default)]
pub(super) struct UnnotedTimes {
    times: HashMap<SlotRoute, ServedUnnoted>,
    /// Whether the times are written to a file.
    pub has_file: bool,
    /// The routes whose times are not in the file.
    to_write: Vec<SlotRoute>,
    /// The routes whose times are being written.
    being_written: Vec<SlotRoute>,
    /// The routes whose times could not be written; tried again with the next such request of the route, or with the
    /// next [`UnnotedTimes::write_exact_times`].
    failed: Vec<SlotRoute>,
}

impl UnnotedTimes {
    /// The times that were read from a file.
    pub fn read(times: Vec<(SlotRoute, Timestamp)>) -> Self {
        let times = times.into_iter().map(|(route, at)| (route, ServedUnnoted::by_earlier_process(at))).collect();
        Self { times, has_file: true, ..Self::default() }
    }

    pub fn is_empty(&self) -> bool {
        self.times.is_empty()
    }

    pub fn last_served(&self, route: &SlotRoute) -> Option<Timestamp> {
        self.times.get(route).map(|served| served.at)
    }

    /// Records that legacy served a request of a route unnoted. Returns whether that time is to be written to the file,
    /// or being written.
    pub fn set(&mut self, route: SlotRoute, at: Timestamp) -> bool {
        if let Some(served) = self.times.get_mut(&route) {
            served.at = served.at.max(at);
            if served.in_file >= at {
                if let Some(failed) = self.failed.iter().position(|failed| *failed == route) {
                    self.failed.swap_remove(failed);
                    self.write_later(route);
                }
                return self.to_write.contains(&route) || self.being_written.contains(&route);
            }
        }
        let in_file = at.checked_add(UNNOTED_WRITE_INTERVAL).unwrap_or(at);
        self.times.insert(route, ServedUnnoted { at, in_file });
        self.write_later(route);
        self.has_file
    }

    fn write_later(&mut self, route: SlotRoute) {
        if self.has_file && !self.to_write.contains(&route) {
            self.to_write.push(route);
        }
    }

    /// Has those times in the file that were set to the future ([`UNNOTED_WRITE_INTERVAL`]) replaced by the exact times
    /// of the last such requests: for each route whose time in the file has passed, or for `all` routes. A later
    /// process needs the exact ones: a flip by force accepts the requests before it, and with a time that is too late a
    /// request would count as later than the flip.
    pub fn write_exact_times(&mut self, all: bool) {
        let now = clock::now();
        let mut to_write = std::mem::take(&mut self.failed);
        for (route, served) in &mut self.times {
            // The file has milliseconds, and the time there must not be before the request.
            let exact = Timestamp::from_millisecond(served.at.as_millisecond() + 1).unwrap_or(served.at);
            if served.in_file > exact && (all || served.in_file <= now) {
                served.in_file = exact;
                to_write.push(*route);
            }
        }
        to_write.into_iter().for_each(|route| self.write_later(route));
    }

    /// Whether a retry may still come of a request that legacy served although its key could not be noted.
    pub fn may_be_retried(&self, window: Duration) -> bool {
        let now = clock::now();
        self.times.values().any(|served| clock::window_end(served.at, window) > now)
    }

    pub fn is_to_write(&self) -> bool {
        !self.to_write.is_empty()
    }

    /// Takes the times that are to be written. [`UnnotedTimes::end_write`] must follow.
    pub fn take_to_write(&mut self) -> Vec<(SlotRoute, Timestamp)> {
        self.being_written = std::mem::take(&mut self.to_write);
        let in_file = |route: &SlotRoute| self.times.get(route).map(|served| (*route, served.in_file));
        self.being_written.iter().filter_map(in_file).collect()
    }

    /// Records the routes whose times could not be written.
    pub fn end_write(&mut self, failed: Vec<SlotRoute>) {
        self.being_written.clear();
        self.failed.extend(failed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::RouteId;

    /// The exact time is not written before: until the time in the file has come, a request of that route needs no
    /// write.
    #[test]
    fn the_exact_time_is_written_once_the_time_in_the_file_has_come() {
        let now = clock::now();
        let [over, served] = ["over", "served"].map(|id| SlotRoute::of(&RouteId::new(id)));
        let seconds = Duration::from_secs;
        let mut unnoted = UnnotedTimes { has_file: true, ..UnnotedTimes::default() };
        unnoted.times.insert(over, ServedUnnoted { at: now - seconds(30), in_file: now - seconds(1) });
        unnoted.times.insert(served, ServedUnnoted { at: now - seconds(30), in_file: now + seconds(30) });
        unnoted.write_exact_times(false);
        assert_eq!(unnoted.to_write, [over]);
        let exact = unnoted.times[&over];
        assert!(exact.in_file >= exact.at && exact.in_file <= exact.at + Duration::from_millis(1));
        unnoted.write_exact_times(true);
        assert_eq!(unnoted.to_write, [over, served], "at the end of the process");
        unnoted.to_write.clear();
        unnoted.write_exact_times(true);
        assert!(unnoted.to_write.is_empty(), "both are exact");
    }

    #[test]
    fn a_time_that_could_not_be_written_is_tried_again() {
        let mut unnoted = UnnotedTimes { has_file: true, ..UnnotedTimes::default() };
        let (route, now) = (SlotRoute::of(&RouteId::new("orders.create")), clock::now());
        assert!(unnoted.set(route, now) && unnoted.set(route, now), "it is not in the file yet");
        assert_eq!(unnoted.take_to_write().len(), 1);
        assert!(unnoted.set(route, now), "it is being written");
        unnoted.end_write(vec![route]);
        assert!(!unnoted.is_to_write());
        unnoted.write_exact_times(false);
        assert_eq!(unnoted.take_to_write().len(), 1);
        unnoted.end_write(vec![route]);
        assert!(unnoted.set(route, now), "it is not in the file: the next request has it written");
        assert_eq!(unnoted.take_to_write().len(), 1);
        unnoted.end_write(Vec::new());
        assert!(!unnoted.set(route, now));
        unnoted.write_exact_times(false);
        assert!(!unnoted.is_to_write());
    }
}
