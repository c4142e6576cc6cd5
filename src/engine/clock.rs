//! What time it is, for this process and for each of its runs.
//!
//! Always true of a run's time: it never goes back and never jumps, whatever the machine's clock does, because it is the wall's time at
//! the run's start and what has elapsed since. A rehearsal's may be put forward: durations elapse at once.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

/// This machine's time; in a simulation, the simulation's.
pub(super) fn wall() -> Timestamp {
    #[cfg(test)]
    if let Some(now) = simulated::now() {
        return now;
    }
    Timestamp::now()
}

/// The time of a thread on which tokio's time is paused, and what its machines' clocks make of it.
#[cfg(test)]
pub(super) mod simulated {
    use std::cell::Cell;

    use jiff::{SignedDuration, Timestamp};
    use tokio::time::Instant;

    thread_local! {
        static BEGUN: Cell<Option<(Timestamp, Instant)>> = const { Cell::new(None) };
        static WRONG: Cell<SignedDuration> = const { Cell::new(SignedDuration::ZERO) };
    }

    /// It is this time now, and goes on as tokio's does.
    pub fn begin(at: Timestamp) {
        BEGUN.set(Some((at, Instant::now())));
        skew(SignedDuration::ZERO);
    }
    /// The machine's time again.
    pub fn end() {
        BEGUN.set(None);
    }
    /// The machines' clocks are wrong by so much from now on.
    pub fn skew(by: SignedDuration) {
        WRONG.set(by);
    }
    /// What time it really is.
    pub fn time() -> Option<Timestamp> {
        let (at, since) = BEGUN.get()?;
        at.checked_add(SignedDuration::try_from(since.elapsed()).ok()?).ok()
    }
    pub(super) fn now() -> Option<Timestamp> {
        time()?.checked_add(WRONG.get()).ok()
    }
}

/// What time it is. Where several processes share a store it is the store's time, one for all of them: a process whose
/// machine has another idea of time, or changes it, ends no wait early and holds nobody up.
///
/// Always true: on a shared store it differs from the store's by no more than the store took for the quickest of its
/// answers, and what this machine's steady clock drifts between two of them. When the store is silent it goes on by
/// that steady clock; when the store's own clock was set, it follows.
#[derive(Default)]
pub(super) struct Wall(Mutex<Option<(Timestamp, Instant)>>);

impl Wall {
    /// The time.
    pub fn now(&self) -> Timestamp {
        let heard = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        heard.map_or_else(wall, reached)
    }
    /// The store was asked at one time, and has just said what time it was there: it is that now, or later by no more
    /// than the answer took.
    pub fn heard(&self, at: Timestamp, asked: Instant) {
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let took = SignedDuration::try_from(now.duration_since(asked)).unwrap_or_default();
        let latest = at.checked_add(took).unwrap_or(at);
        // What was known before is kept as far as the answer allows it.
        let time = heard.map_or(at, |before| reached(before).clamp(at, latest));
        *heard = Some((time, now));
    }
}

/// What time it is now, if it was that then.
fn reached((at, since): (Timestamp, Instant)) -> Timestamp {
    let elapsed = SignedDuration::try_from(since.elapsed()).unwrap_or_default();
    at.checked_add(elapsed).unwrap_or(at)
}

pub(super) struct Clock {
    wall: Timestamp,
    since: Instant,
    ahead: SignedDuration,
}

impl Clock {
    /// Starts now; not before `earliest`, the last event of a run that another process left.
    pub fn starting(now: Timestamp, earliest: Timestamp) -> Self {
        Self { wall: now.max(earliest), since: Instant::now(), ahead: SignedDuration::ZERO }
    }
    /// Its time.
    pub fn now(&self) -> Timestamp {
        let elapsed = SignedDuration::try_from(self.since.elapsed()).unwrap_or_default();
        self.wall.checked_add(elapsed).and_then(|now| now.checked_add(self.ahead)).unwrap_or(self.wall)
    }
    /// How long until a time; none if it has passed.
    pub fn until(&self, at: Timestamp) -> Duration {
        // One millisecond more: the timer may not wake a hair too early.
        Duration::try_from(at.duration_since(self.now())).map_or(Duration::ZERO, |left| left + Duration::from_millis(1))
    }
    /// Lets the time until then elapse at once.
    pub fn put_forward(&mut self, to: Timestamp) {
        let ahead = to.duration_since(self.now());
        if ahead.is_positive() {
            self.ahead = self.ahead.checked_add(ahead).unwrap_or(self.ahead);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// The store answers late, early, from another time: nobody is further from it than its answer took.
    #[tokio::test(start_paused = true)]
    async fn the_stores_time_is_followed_within_what_its_answers_take() {
        let (wall, begun) = (Wall::default(), time("2040-01-01T00:00:00Z"));
        // What the store's clock says now, heard after so long.
        let start = Instant::now();
        let there =
            |set: i64| begun + SignedDuration::try_from(start.elapsed()).unwrap() + SignedDuration::from_secs(set);
        let hear = async |took: u64, set: i64| {
            let (asked, said) = (Instant::now(), there(set));
            tokio::time::sleep(ms(took)).await;
            wall.heard(said, asked);
            there(set).duration_since(wall.now()).as_millis()
        };
        assert_eq!(hear(900, 0).await, 900, "it may have said so at once");
        assert_eq!(hear(3, 0).await, 3, "a quicker answer says more");
        tokio::time::sleep(ms(60_000)).await;
        assert_eq!(hear(2_000, 0).await, 3, "a slower one takes nothing back");
        assert_eq!(hear(10, 3_600).await, 10, "its clock was put forward");
        assert_eq!(hear(10, -3_600).await, 0, "and back: not before what it has just said");
    }
}
