//! Computes the time of a process from readings of the machine's clocks; reads no clock itself.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::machine::ClockReading;

/// The time is slewed towards the machine's clock by at most the elapsed time divided by this: 500 ppm, 43 seconds a
/// day.
const SLEW_DIVISOR: i128 = 2_000;
/// The largest offset at which the machine's clock is followed. A larger one means that it was set, perhaps wrongly.
const FOLLOWED_MAX: SignedDuration = SignedDuration::from_secs(60);
/// The shortest interval at which the machine's clock is compared with the time.
const COMPARED_EVERY: Duration = Duration::from_secs(1);

/// Why the machine's clock and the time are more than a minute apart, and by how much: positive where the machine's
/// clock is ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disagreement {
    /// The store's newest event was ahead of the machine's clock at the start, and the time continues from that event.
    /// The offset is negative.
    StoreAhead(SignedDuration),
    /// The machine's clock was set while the process ran.
    Jumped(SignedDuration),
    /// The time is a shared store's, and this machine's clock differs from it.
    DiffersFromStore(SignedDuration),
}

impl std::fmt::Display for Disagreement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // `25h 3s ahead of`, or `3m behind`.
        let seconds = |offset: &SignedDuration| SignedDuration::from_secs(offset.as_secs()).abs();
        let side = |offset: &SignedDuration| if offset.is_negative() { "behind" } else { "ahead of" };
        match self {
            Self::StoreAhead(offset) => write!(
                f,
                "this machine's clock was {:#} behind the store's newest event when the process started: the process's time \
                 continues from that event; if the machine's clock is wrong, set it and restart",
                seconds(offset)
            ),
            Self::Jumped(offset) => write!(
                f,
                "this machine's clock was set while the process runs, and is {:#} {} the process's time: timers are not \
                 affected; if the machine's clock is right now, restart to use it",
                seconds(offset),
                side(offset)
            ),
            Self::DiffersFromStore(offset) => write!(
                f,
                "this machine's clock is {:#} {} the database's, and the process uses the database's: set the one that is \
                 wrong",
                seconds(offset),
                side(offset)
            ),
        }
    }
}

/// A change in how far the machine's clock is from the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockChange {
    /// The machine's clock is more than a minute away from the process's time. At the last check it was not, or the
    /// offset has since changed by more than a minute.
    Disagrees(Disagreement),
    /// The machine's clock is within a minute of the time again.
    Agrees,
}

/// Which clock the time follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Machine,
    Store,
}

/// The state from which a process's time is computed: the time at one reading, and the slew since.
#[derive(Clone, Debug)]
pub(super) struct Timekeeper {
    source: Source,
    /// The time when the steady clock showed `boot`.
    time: Timestamp,
    boot: Duration,
    /// How far the time is still to be slewed towards the machine's clock, in nanoseconds.
    slew_left_ns: i128,
    /// How far the store was ahead of the machine's clock at the start.
    store_ahead: SignedDuration,
    /// The offset that was last reported; zero where none was.
    reported: SignedDuration,
}

impl Timekeeper {
    /// Starts the time of a process: it begins at the machine's wall clock.
    pub(super) fn starting(reading: ClockReading) -> Self {
        let ClockReading { wall, boot } = reading;
        let (source, zero) = (Source::Machine, SignedDuration::ZERO);
        Self { source, time: wall, boot, slew_left_ns: 0, store_ahead: zero, reported: zero }
    }

    /// The time at this reading. Not earlier than the time returned for an earlier reading, unless
    /// [`Timekeeper::follow`] followed a shared store's clock back in between.
    pub(super) fn now(&mut self, reading: ClockReading) -> Timestamp {
        let now = self.at(reading.boot);
        if reading.boot.saturating_sub(self.boot) >= COMPARED_EVERY {
            (self.time, self.boot) = (now, reading.boot);
            let offset = reading.wall.duration_since(now);
            let followed = self.source == Source::Machine && offset.abs() <= FOLLOWED_MAX;
            self.slew_left_ns = if followed { offset.as_nanos() } else { 0 };
        }
        now
    }

    /// The time at a reading of the steady clock. The slew is at most a fixed fraction of the elapsed time, so that the
    /// time never goes back, and does not overshoot the machine's clock as last read.
    fn at(&self, boot: Duration) -> Timestamp {
        let elapsed = i128::try_from(boot.saturating_sub(self.boot).as_nanos()).unwrap_or(i128::MAX);
        let bound = elapsed / SLEW_DIVISOR;
        let nanos = elapsed.saturating_add(self.slew_left_ns.clamp(-bound, bound));
        let passed = i64::try_from(nanos / 1_000_000_000).ok().and_then(|seconds| {
            let rest = i32::try_from(nanos % 1_000_000_000).ok()?;
            Some(SignedDuration::new(seconds, rest))
        });
        passed.and_then(|passed| self.time.checked_add(passed).ok()).unwrap_or(Timestamp::MAX)
    }

    /// Raises the time to at least that of the store's newest event. Returns how far that event is ahead of the
    /// machine's clock, if by more than a minute.
    pub(super) fn raise_to_at_least(
        &mut self,
        newest_event: Timestamp,
        reading: ClockReading,
    ) -> Option<SignedDuration> {
        let now = self.at(reading.boot).max(newest_event);
        (self.time, self.boot, self.slew_left_ns) = (now, reading.boot, 0);
        let ahead = newest_event.duration_since(reading.wall);
        if ahead <= FOLLOWED_MAX {
            return None;
        }
        // The caller reports this offset, so the next check does not report it again.
        (self.store_ahead, self.reported) = (ahead, reading.wall.duration_since(now));
        Some(ahead)
    }

    /// Follows the time of a shared store. The store was asked at `asked`; its answer, received at this reading, was
    /// `store`.
    pub(super) fn follow(&mut self, store: Timestamp, asked: Duration, reading: ClockReading) {
        let took = SignedDuration::try_from(reading.boot.saturating_sub(asked)).unwrap_or_default();
        let latest = store.checked_add(took).unwrap_or(store);
        // The store read its clock somewhere between request and answer, so its time now is between `store` and
        // `latest`. The time computed from earlier answers is kept if it is in that range, so that it does not jump.
        let time = match self.source {
            Source::Machine => store,
            Source::Store => self.at(reading.boot).clamp(store, latest),
        };
        (self.source, self.time, self.boot, self.slew_left_ns) = (Source::Store, time, reading.boot, 0);
    }

    /// How far the machine's clock is ahead of the time.
    fn offset(&self, reading: ClockReading) -> SignedDuration {
        reading.wall.duration_since(self.at(reading.boot))
    }

    /// How the machine's clock and the time disagree, where they are more than a minute apart.
    pub(super) fn disagreement(&self, reading: ClockReading) -> Option<Disagreement> {
        let offset = self.offset(reading);
        if offset.abs() <= FOLLOWED_MAX {
            return None;
        }
        // `store_ahead` is the offset at the start, with the other sign.
        let is_as_at_start = offset.saturating_add(self.store_ahead).abs() <= FOLLOWED_MAX;
        Some(match self.source {
            Source::Store => Disagreement::DiffersFromStore(offset),
            Source::Machine if is_as_at_start => Disagreement::StoreAhead(offset),
            Source::Machine => Disagreement::Jumped(offset),
        })
    }

    /// Returns the change since the last check, and how far the machine's clock is ahead of the time.
    pub(super) fn check(&mut self, reading: ClockReading) -> (Option<ClockChange>, SignedDuration) {
        self.now(reading);
        let offset = self.offset(reading);
        let change = match self.disagreement(reading) {
            Some(disagreement) if offset.saturating_sub(self.reported).abs() > FOLLOWED_MAX => {
                self.reported = offset;
                Some(ClockChange::Disagrees(disagreement))
            }
            None if self.reported != SignedDuration::ZERO => {
                self.reported = SignedDuration::ZERO;
                Some(ClockChange::Agrees)
            }
            _ => None,
        };
        (change, offset)
    }
}

#[cfg(test)]
mod tests;
