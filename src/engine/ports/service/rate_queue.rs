//! The queue of calls that wait for the rate of a service.
//!
//! Always true: calls of real runs begin in the order in which they queue. Only the first of the queue has taken a
//! token; a call that is withdrawn leaves its place and returns its token, so that the calls behind it begin earlier.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::rate::RateLimiter;
use crate::flag::Rate;

/// How late a call may take its token; longer than a timer's rounding and a wake-up. After a longer stop of the process
/// or of the machine, the calls that came due meanwhile do not begin together.
const LATE_MAX: Duration = Duration::from_millis(10);

/// The rate limiter of a service, and the calls that wait for it.
pub(super) struct RateQueue {
    /// Times given to the limiter count from here.
    started: Instant,
    limiter: Mutex<RateLimiter>,
    /// Held by the first of the queue until its call begins. Given to the others in the order in which they came.
    turn: tokio::sync::Mutex<()>,
}

impl RateQueue {
    /// `share`: the percentage that rehearsed and dark runs may use.
    pub fn new(rate: Rate, share: u64) -> Self {
        Self {
            started: Instant::now(),
            limiter: Mutex::new(RateLimiter::new(rate, share)),
            turn: tokio::sync::Mutex::default(),
        }
    }

    /// Sets the number of processes that send calls to the service.
    pub fn divide_among(&self, processes: u32) {
        let now = self.now();
        self.limiter().divide_among(processes, now);
    }

    /// Waits until a call of a real run may begin, at most until `wait_until`. A call that need not wait is admitted
    /// also if that has passed. If `step_deadline` has passed when its turn comes, the call takes no token, because it
    /// will not be sent.
    ///
    /// # Errors
    /// The call could not begin before `wait_until`. The error is how long after now it could begin.
    pub async fn admit(&self, wait_until: Instant, step_deadline: Option<Instant>) -> Result<(), Duration> {
        let queued_at = self.now();
        let latest = wait_until.duration_since(self.started).max(queued_at);
        self.limiter().queue(queued_at, latest).map_err(|next| next.saturating_sub(queued_at))?;
        let queued = QueuedCall { queue: self, queued_at, is_queued: true };
        let turn = self.turn.lock().await;
        if has_passed(step_deadline) {
            drop(queued); // before `turn`, so that the next call does not count it
            return Ok(());
        }
        let mut first = queued.become_first(turn);
        let now = self.now();
        if first.begins > latest.max(now) {
            return Err(first.begins.saturating_sub(now)); // between `queue` and `lock` another call got ahead of it
        }
        // A timer would round up to its next tick, and the calls behind this one would wait for that.
        if first.begins > now {
            tokio::time::sleep_until(self.started + first.begins).await;
        }
        first.has_begun = true;
        Ok(())
    }

    /// Like [`RateQueue::admit`], for a call of a rehearsed or dark run.
    ///
    /// # Errors
    /// The same as of [`RateQueue::admit`].
    pub async fn admit_secondary(&self, wait_until: Instant, step_deadline: Option<Instant>) -> Result<(), Duration> {
        loop {
            if has_passed(step_deadline) {
                return Ok(());
            }
            let now = self.now();
            let admitted = self.limiter().admit_secondary(now);
            let Err(again) = admitted else { return Ok(()) };
            if again > wait_until.duration_since(self.started).max(now) {
                return Err(again.saturating_sub(now));
            }
            tokio::time::sleep_until(self.started + again).await;
        }
    }

    /// How long a call that queues now would wait.
    pub fn next_in(&self) -> Duration {
        let now = self.now();
        self.limiter().next_time(now).saturating_sub(now)
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }
    fn limiter(&self) -> MutexGuard<'_, RateLimiter> {
        self.limiter.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn has_passed(until: Option<Instant>) -> bool {
    until.is_some_and(|until| until <= Instant::now())
}

/// A call in the queue. It leaves the queue when this is dropped.
struct QueuedCall<'a> {
    queue: &'a RateQueue,
    queued_at: Duration,
    is_queued: bool,
}

impl<'a> QueuedCall<'a> {
    fn become_first(mut self, turn: tokio::sync::MutexGuard<'a, ()>) -> FirstCall<'a> {
        self.is_queued = false;
        let due_from = self.queued_at.max(self.queue.now().saturating_sub(LATE_MAX));
        let begins = self.queue.limiter().take(due_from);
        FirstCall { queue: self.queue, begins, has_begun: false, _turn: turn }
    }
}

impl Drop for QueuedCall<'_> {
    fn drop(&mut self) {
        if self.is_queued {
            self.queue.limiter().leave();
        }
    }
}

/// The first call of the queue, which has taken the next token. If this is dropped before the call has begun, the token
/// is returned, and only then the turn: the next call must not take a token in between.
struct FirstCall<'a> {
    queue: &'a RateQueue,
    /// When the call may begin.
    begins: Duration,
    has_begun: bool,
    _turn: tokio::sync::MutexGuard<'a, ()>,
}

impl Drop for FirstCall<'_> {
    fn drop(&mut self) {
        if !self.has_begun {
            self.queue.limiter().return_token(self.begins, self.queue.now());
        }
    }
}
