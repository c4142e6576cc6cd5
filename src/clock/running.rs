//! When processes of a store ran. Only such time counts towards a window that began before the process's start.
//!
//! The question it answers: "how much of a window has passed?" Always true: the time between the end of one process and
//! the start of the next (a gap) does not count, however long it seems. The machine's clock at the start does not show
//! whether that time has passed or the clock is wrong: with a clock that is a day ahead, retry keys would expire that
//! clients still use. A gap of at most the window divided by [`TOLERATED_GAP_DIVISOR`] counts as if a process had run.
//!
//! This module reads neither a clock nor the store; `app` does.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// The longest gap that counts as if a process had run is the window divided by this; only longer gaps are kept.
const TOLERATED_GAP_DIVISOR: u32 = 24;
/// The most gaps that are kept; where there are more, the oldest counts as if a process had run.
const GAPS_MAX: usize = 1_000;

/// When processes of a store ran.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningTimes {
    /// The last time at which a process recorded that it ran.
    last_recorded: Option<Timestamp>,
    /// The times in which no process ran, oldest first, without overlaps.
    gaps: Vec<Gap>,
    /// The generation of the store. Each recording raises it, above every generation that a file of retry keys has. A
    /// file gets the new generation only after the store has it, so a store whose generation is lower than that of its
    /// file is an older copy.
    #[serde(default)]
    store_generation: u64,
}

/// A time in which no process ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Gap {
    from: Timestamp,
    to: Timestamp,
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

impl RunningTimes {
    /// Records that a process starts now. `newest_event` is the time of the store's newest event: if no time was
    /// recorded before, the last process counts as having run until that event.
    pub fn start(&mut self, now: Timestamp, newest_event: Option<Timestamp>, window: Duration) {
        // Times after now were recorded by a process whose clock was wrong.
        self.gaps.retain(|gap| gap.from < now);
        for gap in &mut self.gaps {
            gap.to = gap.to.min(now);
        }
        if let Some(last) = self
            .last_recorded
            .or(newest_event)
            .filter(|last| now.duration_since(*last) > signed(window / TOLERATED_GAP_DIVISOR))
        {
            self.gaps.push(Gap { from: last, to: now });
        }
        let counted_from = self.window_start(now, window);
        self.gaps.retain(|gap| gap.to > counted_from);
        let surplus = self.gaps.len().saturating_sub(GAPS_MAX);
        self.gaps.drain(..surplus);
        self.last_recorded = Some(now);
    }

    /// Records that a process runs at this time.
    pub fn note(&mut self, now: Timestamp) {
        self.last_recorded = Some(now);
    }

    /// Begins the next generation of the store: one more than the larger of the present one and `seen`. Returns it.
    pub fn begin_generation(&mut self, seen: u64) -> u64 {
        self.store_generation = self.store_generation.max(seen).saturating_add(1);
        self.store_generation
    }

    /// The generation of the store.
    pub fn generation(&self) -> u64 {
        self.store_generation
    }

    /// The start of a window that ends at `now`.
    pub fn window_start(&self, now: Timestamp, window: Duration) -> Timestamp {
        let (mut start, mut left) = (now, signed(window));
        for gap in self.gaps.iter().rev().filter(|gap| gap.from < now) {
            let counted = start.duration_since(gap.to.min(start));
            if counted >= left {
                break;
            }
            left = left.saturating_sub(counted);
            start = gap.from;
        }
        start.checked_sub(left).unwrap_or(Timestamp::MIN)
    }

    /// The end of a window that began at `at`. A later gap may still postpone it.
    pub fn window_end(&self, at: Timestamp, window: Duration) -> Timestamp {
        let mut end = at.checked_add(signed(window)).unwrap_or(Timestamp::MAX);
        for gap in self.gaps.iter().filter(|gap| gap.to > at) {
            if gap.from >= end {
                break;
            }
            let uncounted = gap.to.duration_since(gap.from.max(at));
            end = end.checked_add(uncounted).unwrap_or(Timestamp::MAX);
        }
        end
    }

    /// How much of a window that began at `at` has passed by `now`.
    pub fn passed(&self, at: Timestamp, now: Timestamp) -> Duration {
        let mut passed = now.duration_since(at);
        for gap in self.gaps.iter().filter(|gap| gap.to > at && gap.from < now) {
            passed = passed.saturating_sub(gap.to.min(now).duration_since(gap.from.max(at)));
        }
        Duration::try_from(passed).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: i64 = 3_600;
    const DAY: Duration = Duration::from_secs(24 * 3_600);

    fn at(hours: i64) -> Timestamp {
        Timestamp::from_second(hours * HOUR).unwrap()
    }

    /// A process ran until hour 0 and recorded that, and another one starts at this hour.
    fn restarted_at(hour: i64) -> RunningTimes {
        let mut times = RunningTimes::default();
        times.start(at(-100), None, DAY);
        times.note(at(0));
        times.start(at(hour), None, DAY);
        times
    }

    #[test]
    fn the_time_between_two_processes_does_not_count() {
        let times = restarted_at(26);
        assert_eq!(times.passed(at(-1), at(26)), Duration::from_secs(3_600));
        assert_eq!(times.window_end(at(-1), DAY), at(49));
        assert_eq!(times.window_start(at(49), DAY), at(-1));
        // Times after the last start are not shifted.
        assert_eq!(times.window_end(at(27), DAY), at(51));
        assert_eq!(times.window_start(at(60), DAY), at(36));
    }

    /// The clock was 26 hours ahead at one start and is right again at the next.
    #[test]
    fn a_clock_that_was_ahead_for_a_while_does_not_end_a_window_early() {
        let mut times = restarted_at(26);
        times.start(at(1), None, DAY);
        assert_eq!(times.passed(at(-1), at(1)), Duration::from_secs(3_600), "the hour between the two does not count");
        assert_eq!(times.window_end(at(-1), DAY), at(24));
        // Here an event was written while the clock was ahead, and the next process's time continues from that event.
        let mut times = restarted_at(26);
        times.note(at(27));
        times.start(at(27), Some(at(27)), DAY);
        assert_eq!(times.passed(at(-1), at(27)), Duration::from_secs(2 * 3_600));
    }

    #[test]
    fn a_short_gap_counts_and_old_gaps_are_dropped() {
        assert_eq!(restarted_at(1).gaps, [], "an hour is within the tolerance");
        let mut times = restarted_at(2);
        assert_eq!(times.gaps, [Gap { from: at(0), to: at(2) }]);
        times.note(at(30));
        times.start(at(30), None, DAY);
        assert_eq!(times.gaps, [], "a window that began in it is over");
    }

    #[test]
    fn in_a_store_without_recorded_times_a_process_ran_until_the_newest_event() {
        let mut times = RunningTimes::default();
        times.start(at(26), Some(at(0)), DAY);
        assert_eq!(times.gaps, [Gap { from: at(0), to: at(26) }]);
        let mut times = RunningTimes::default();
        times.start(at(26), None, DAY);
        assert_eq!(times.gaps, [], "the store is new");
    }

    proptest! {
        /// The three functions agree: the time in which processes ran counts, and so do gaps within the tolerance.
        #[test]
        fn a_window_is_over_once_its_length_has_been_counted(
            lives in proptest::collection::vec((0..40_i64, 1..40_i64), 1..8), began in 0..200_i64, window in 1..40_u64,
        ) {
            let window = Duration::from_secs(window * 3_600);
            let (mut times, mut now, mut counted) = (RunningTimes::default(), at(0), Duration::ZERO);
            let mut key = None;
            for (down, up) in lives {
                let start = now.checked_add(SignedDuration::from_hours(down)).unwrap();
                times.start(start, None, window);
                let is_gap = signed(window / TOLERATED_GAP_DIVISOR) < start.duration_since(now);
                if key.is_some() && !is_gap {
                    counted += Duration::try_from(start.duration_since(now)).unwrap();
                }
                now = start;
                for _ in 0..up {
                    now += SignedDuration::from_hours(1);
                    times.note(now);
                    match key {
                        None if now >= at(began) => key = Some(now),
                        None => {}
                        Some(_) => counted += Duration::from_secs(3_600),
                    }
                    if let Some(key) = key {
                        let is_over = counted >= window;
                        prop_assert_eq!(times.window_end(key, window) <= now, is_over);
                        prop_assert_eq!(times.window_start(now, window) >= key, is_over);
                        if !is_over {
                            prop_assert_eq!(times.passed(key, now), counted);
                        }
                    }
                }
            }
        }
    }
}
