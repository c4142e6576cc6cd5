//! PURE. The rate limiter of a service: when the next call may begin.
//!
//! Always true: in any time `t` at most `burst + t / every` calls of all runs together begin, if each begins at its
//! time (`rate_queue` bounds how late they may be). Calls of rehearsed and dark runs are limited to a share of that and
//! take only what real runs leave; no real run queues behind them. Time is an argument: the time since some fixed
//! instant.

use std::time::Duration;

use crate::flag::Rate;

/// The rate limiter of one service.
#[derive(Clone, Debug)]
pub(super) struct RateLimiter {
    rate: Rate,
    share: u32,
    /// The number of processes among which the rate is divided.
    processes: u32,
    all: Bucket,
    secondary: Bucket,
    /// How many calls of real runs wait and have taken no token yet.
    queued: u32,
}

impl RateLimiter {
    /// `share`: the percentage that rehearsed and dark runs may use.
    pub fn new(rate: Rate, share: u64) -> Self {
        let share = u32::try_from(share.clamp(1, 100)).unwrap_or(100);
        let [all, secondary] = buckets(rate, share, 1);
        Self { rate, share, processes: 1, all, secondary, queued: 0 }
    }

    /// Sets the number of processes that send calls to the service, this one included: each has an equal share of the
    /// rate and of the burst (at least one call).
    pub fn divide_among(&mut self, processes: u32, now: Duration) {
        let processes = processes.max(1);
        if self.processes != processes {
            self.processes = processes;
            let [all, secondary] = buckets(self.rate, self.share, processes);
            (self.all, self.secondary) = (self.all.with_rate_of(all, now), self.secondary.with_rate_of(secondary, now));
        }
    }

    /// Adds a call of a real run to the queue.
    ///
    /// # Errors
    /// The call could begin only after `latest`, and is not added. The error is the time at which it could begin.
    pub fn queue(&mut self, now: Duration, latest: Duration) -> Result<(), Duration> {
        let at = self.next_time(now);
        if at > latest {
            return Err(at);
        }
        self.queued += 1;
        Ok(())
    }

    /// Removes the first call from the queue and takes a token for it; returns the time at which the call may begin.
    /// `due_from` is when the call was added, or a little before now if that is later: so a call that gave up its turn
    /// a little late delays none of the calls behind it.
    pub fn take(&mut self, due_from: Duration) -> Duration {
        self.leave();
        let at = self.all.time_of(1, due_from);
        self.all.take(at);
        at
    }

    /// Removes a call that has taken no token from the queue.
    pub fn leave(&mut self) {
        self.queued = self.queued.saturating_sub(1);
    }

    /// Returns the token that was taken last, if its time, `at`, has not come: the call that took it did not begin.
    pub fn return_token(&mut self, at: Duration, now: Duration) {
        if at > now {
            self.all.return_token();
        }
    }

    /// Admits a call of a rehearsed or dark run now. If the burst is larger than one call, one call of the burst is
    /// left for real runs. Calls of real runs that are queued come first.
    ///
    /// # Errors
    /// The call may not begin now. The error is the time at which to try again.
    pub fn admit_secondary(&mut self, now: Duration) -> Result<(), Duration> {
        let all = self.all.after(self.queued, now);
        let at = all.time_of(all.burst.min(2), now).max(self.secondary.time_of(1, now));
        if at > now {
            return Err(at);
        }
        self.all.take(now);
        self.secondary.take(now);
        Ok(())
    }

    /// When a call could begin that is added to the queue now.
    pub fn next_time(&self, now: Duration) -> Duration {
        self.all.after(self.queued, now).time_of(1, now)
    }
}

/// A token bucket: one token is added every `every`, up to `burst`.
#[derive(Clone, Debug)]
struct Bucket {
    every: Duration,
    burst: u32,
    /// When it will be full again.
    full_at: Duration,
}

/// The buckets of all calls, and of those of rehearsed and dark runs.
fn buckets(rate: Rate, share: u32, processes: u32) -> [Bucket; 2] {
    let every = nanos(rate.per.as_nanos().div_ceil(u128::from(rate.calls.max(1)))).saturating_mul(processes);
    let burst = (u32::try_from(rate.burst).unwrap_or(u32::MAX) / processes).max(1);
    let secondary_burst = u32::try_from(u64::from(burst) * u64::from(share) / 100).unwrap_or(burst).max(1);
    [Bucket::new(every, burst), Bucket::new(every.saturating_mul(100) / share, secondary_burst)]
}

impl Bucket {
    fn new(every: Duration, burst: u32) -> Self {
        Self { every, burst, full_at: Duration::ZERO }
    }
    /// This bucket with the rate of another one: it holds no more tokens than before.
    fn with_rate_of(&self, other: Self, now: Duration) -> Self {
        let since = self.full_at.saturating_sub(now);
        let missing = since.as_nanos().div_ceil(self.every.as_nanos().max(1));
        let missing = u32::try_from(missing).unwrap_or(u32::MAX);
        let missing = missing.saturating_add(other.burst.saturating_sub(self.burst));
        Self { full_at: now.saturating_add(other.every.saturating_mul(missing)), ..other }
    }
    /// The earliest time at which it holds `count` tokens.
    fn time_of(&self, count: u32, now: Duration) -> Duration {
        let missing = self.every.saturating_mul(self.burst.saturating_sub(count));
        now.max(self.full_at.saturating_sub(missing))
    }
    /// Takes one token at this time.
    fn take(&mut self, at: Duration) {
        self.full_at = self.full_at.max(at).saturating_add(self.every);
    }
    /// Returns a token that was taken at a time to come.
    fn return_token(&mut self) {
        self.full_at = self.full_at.saturating_sub(self.every);
    }
    /// The bucket as it will be when `count` more tokens are taken, each as early as possible.
    fn after(&self, count: u32, now: Duration) -> Self {
        let mut after = self.clone();
        if count > 0 {
            after.full_at = self.full_at.max(now).saturating_add(self.every.saturating_mul(count));
        }
        after
    }
}

fn nanos(nanos: u128) -> Duration {
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }
    fn limiter(calls: u64, burst: u64) -> RateLimiter {
        RateLimiter::new(Rate { calls, per: Duration::from_secs(1), burst }, 20)
    }

    /// How many calls begin in this time, if each begins as soon as it may.
    fn begun(limiter: &mut RateLimiter, from: Duration, until: Duration) -> u32 {
        let mut count = 0;
        while admit(limiter, from, until).is_ok() {
            count += 1;
        }
        count
    }

    #[test]
    fn processes_have_equal_shares_of_the_rate_and_of_the_burst() {
        let mut limiter = limiter(10, 6);
        limiter.divide_among(2, ms(0));
        // A burst of 3, then 5 a second.
        assert_eq!(begun(&mut limiter, ms(0), ms(0)), 3);
        assert_eq!(begun(&mut limiter, ms(0), ms(2_000)), 10);
        // The other one ends: its share of the burst comes with time.
        limiter.divide_among(1, ms(2_000));
        assert_eq!(begun(&mut limiter, ms(2_000), ms(2_000)), 0);
        assert_eq!(begun(&mut limiter, ms(2_000), ms(3_000)), 10);
        // More processes than calls in the burst: one each.
        limiter.divide_among(100, ms(10_000));
        assert_eq!(begun(&mut limiter, ms(1_000_000), ms(1_000_000)), 1);
        limiter.divide_among(0, ms(2_000_000));
        assert_eq!(begun(&mut limiter, ms(3_000_000), ms(3_000_000)), 6);
    }

    /// Queues a call, and takes a token for it at once.
    fn admit(limiter: &mut RateLimiter, now: Duration, latest: Duration) -> Result<Duration, Duration> {
        limiter.queue(now, latest).map(|()| limiter.take(now))
    }

    #[test]
    fn a_burst_begins_at_once_and_further_calls_queue() {
        let mut limiter = limiter(10, 3);
        let begun: Vec<_> = (0..5).map(|_| admit(&mut limiter, ms(0), ms(10_000)).unwrap().as_millis()).collect();
        assert_eq!(begun, [0, 0, 0, 100, 200]);
        assert_eq!(limiter.queue(ms(0), ms(299)), Err(ms(300)), "after its latest time: it is not added");
        assert_eq!(admit(&mut limiter, ms(0), ms(300)), Ok(ms(300)));
        assert_eq!((limiter.next_time(ms(399)), limiter.next_time(ms(400))), (ms(400), ms(400)));
    }

    #[test]
    fn calls_that_leave_the_queue_cost_nothing() {
        let mut limiter = limiter(10, 1);
        assert_eq!(admit(&mut limiter, ms(0), ms(0)), Ok(ms(0)));
        for _ in 0..5 {
            assert_eq!(limiter.queue(ms(0), ms(10_000)), Ok(()));
        }
        assert_eq!(limiter.take(ms(0)), ms(100));
        assert_eq!(limiter.next_time(ms(0)), ms(600));
        assert_eq!(limiter.queue(ms(0), ms(599)), Err(ms(600)));
        limiter.leave();
        limiter.leave();
        assert_eq!(limiter.next_time(ms(50)), ms(400));
        limiter.return_token(ms(100), ms(50));
        assert_eq!(limiter.next_time(ms(50)), ms(300));
        assert_eq!(limiter.take(ms(50)), ms(100), "the next call of the queue gets the returned token");
        limiter.return_token(ms(100), ms(100));
        assert_eq!(limiter.take(ms(100)), ms(200), "its time had come: it may have been used");
    }

    #[test]
    fn secondary_calls_take_what_is_left_within_their_share() {
        let mut limiter = limiter(10, 10);
        assert_eq!(limiter.admit_secondary(ms(0)), Ok(()));
        assert_eq!(limiter.admit_secondary(ms(0)), Ok(()));
        assert_eq!(limiter.admit_secondary(ms(0)), Err(ms(500)), "a fifth of ten at once, then two each second");
        for _ in 0..8 {
            assert_eq!(admit(&mut limiter, ms(0), ms(0)), Ok(ms(0)));
        }
        assert_eq!(limiter.queue(ms(0), ms(0)), Err(ms(100)));
        assert_eq!(limiter.admit_secondary(ms(500)), Ok(()), "by then five tokens are free");
        for _ in 0..4 {
            assert_eq!(admit(&mut limiter, ms(500), ms(500)), Ok(ms(500)));
        }
        assert_eq!(limiter.admit_secondary(ms(1_000)), Ok(()));
        for _ in 0..3 {
            assert_eq!(admit(&mut limiter, ms(1_000), ms(1_000)), Ok(ms(1_000)));
        }
        assert_eq!(limiter.admit_secondary(ms(1_500)), Ok(()));
    }

    #[test]
    fn the_last_token_is_left_for_a_real_run() {
        let mut limiter = limiter(10, 2);
        assert_eq!(admit(&mut limiter, ms(0), ms(0)), Ok(ms(0)));
        assert_eq!(limiter.admit_secondary(ms(0)), Err(ms(100)), "one token is left");
        assert_eq!(admit(&mut limiter, ms(0), ms(0)), Ok(ms(0)));
    }

    /// What the calls of a service do to its limiter.
    #[derive(Clone, Copy, Debug)]
    enum Action {
        Queue,
        Secondary,
        /// The first call of the queue is withdrawn.
        WithdrawFirst,
        /// Another one is withdrawn.
        WithdrawOther,
    }

    /// The calls of real runs in the queue, and the times at which calls have begun.
    #[derive(Default)]
    struct Queue {
        /// When the first call begins, and by when it was promised to begin.
        first: Option<(Duration, Duration)>,
        /// When each other call was queued, and by when it was promised to begin.
        others: VecDeque<(Duration, Duration)>,
        begun: Vec<Duration>,
    }

    impl Queue {
        /// The next call becomes the first.
        fn next(&mut self, limiter: &mut RateLimiter) {
            self.first = self.others.pop_front().map(|(queued_at, by)| (limiter.take(queued_at), by));
        }
        fn advance(&mut self, limiter: &mut RateLimiter, now: Duration) -> Result<(), TestCaseError> {
            while let Some((at, by)) = self.first.filter(|(at, _)| *at <= now) {
                prop_assert!(at <= by, "it begins at {at:?}, although {by:?} was promised");
                self.begun.push(at);
                self.next(limiter);
            }
            Ok(())
        }
    }

    fn action() -> impl Strategy<Value = Action> {
        prop_oneof![
            4 => Just(Action::Queue),
            2 => Just(Action::Secondary),
            1 => Just(Action::WithdrawFirst),
            1 => Just(Action::WithdrawOther),
        ]
    }

    proptest! {
        /// In no interval do more calls begin than `burst` plus the tokens added in it, secondary calls included; each
        /// call begins no later than promised; and calls that were withdrawn take nothing from later ones.
        #[test]
        fn the_rate_is_never_exceeded(
            calls in 1u64..200,
            burst in 1u64..30,
            actions in prop::collection::vec((0u64..50, action()), 1..300),
        ) {
            let mut limiter = limiter(calls, burst);
            let every = 1e9 / calls as f64;
            let (mut now, mut queue) = (Duration::ZERO, Queue::default());
            for (pause, action) in actions {
                now += ms(pause);
                queue.advance(&mut limiter, now)?;
                match action {
                    Action::Queue => {
                        let by = limiter.next_time(now);
                        if limiter.queue(now, now + ms(500)).is_ok() {
                            queue.others.push_back((now, by));
                            if queue.first.is_none() {
                                queue.next(&mut limiter);
                            }
                        }
                    }
                    Action::Secondary => queue.begun.extend(limiter.admit_secondary(now).map(|()| now)),
                    Action::WithdrawFirst => if let Some((at, _)) = queue.first.take() {
                        limiter.return_token(at, now);
                        queue.next(&mut limiter);
                    },
                    Action::WithdrawOther => if queue.others.pop_back().is_some() {
                        limiter.leave();
                    },
                }
                queue.advance(&mut limiter, now)?;
            }
            queue.advance(&mut limiter, Duration::MAX)?;
            let mut begun = queue.begun;
            begun.sort();
            for (from, first) in begun.iter().enumerate() {
                for (to, last) in begun.iter().enumerate().skip(from) {
                    let allowed = burst as f64 + (*last - *first).as_nanos() as f64 / every;
                    prop_assert!((to - from + 1) as f64 <= allowed + 1e-3, "{} within {:?}", to - from + 1, *last - *first);
                }
            }
            let last = begun.last().copied().unwrap_or_default();
            let mut others = RateLimiter::new(Rate { calls, per: Duration::from_secs(1), burst }, 20);
            for at in begun {
                others.all.take(at);
            }
            prop_assert_eq!(limiter.next_time(last), others.next_time(last), "as if none had been withdrawn");
        }
    }
}
