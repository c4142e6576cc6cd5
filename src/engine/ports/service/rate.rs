//! PURE. The rate limiter of a service: when the next call may begin.
//!
//! Always true: in any time `t` at most `burst + t / every` calls of all runs together begin. Calls of rehearsed and
//! dark runs are limited to a share of that and take only what real runs leave; no real run queues behind them. Time is
//! an argument: the time since some fixed instant.

use std::time::Duration;

use crate::flag::Rate;

/// The rate limiter of one service.
#[derive(Clone, Debug)]
pub(super) struct RateLimiter {
    all: Bucket,
    secondary: Bucket,
}

impl RateLimiter {
    /// `share`: the percentage that rehearsed and dark runs may use.
    pub fn new(rate: Rate, share: u64) -> Self {
        let share = u32::try_from(share.clamp(1, 100)).unwrap_or(100);
        let every = nanos(rate.per.as_nanos().div_ceil(u128::from(rate.calls.max(1))));
        let burst = u32::try_from(rate.burst).unwrap_or(u32::MAX).max(1);
        let secondary_burst = u32::try_from(u64::from(burst) * u64::from(share) / 100).unwrap_or(burst).max(1);
        Self {
            all: Bucket::new(every, burst),
            secondary: Bucket::new(every.saturating_mul(100) / share, secondary_burst),
        }
    }

    /// Reserves the next time at which a call may begin.
    ///
    /// # Errors
    /// That time is after `latest`: it is returned, and nothing is reserved.
    pub fn queue(&mut self, now: Duration, latest: Duration) -> Result<Duration, Duration> {
        let at = self.all.time_of(1, now);
        if at > latest {
            return Err(at);
        }
        self.all.take(at);
        Ok(at)
    }

    /// Admits a call of a rehearsed or dark run now. If the burst is larger than one call, one call of the burst is
    /// left for real runs.
    ///
    /// # Errors
    /// Not now: the time at which to try again.
    pub fn admit_secondary(&mut self, now: Duration) -> Result<(), Duration> {
        let at = self.all.time_of(self.all.burst.min(2), now).max(self.secondary.time_of(1, now));
        if at > now {
            return Err(at);
        }
        self.all.take(now);
        self.secondary.take(now);
        Ok(())
    }

    /// The time from which a call may begin.
    pub fn next_time(&self, now: Duration) -> Duration {
        self.all.time_of(1, now)
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

impl Bucket {
    fn new(every: Duration, burst: u32) -> Self {
        Self { every, burst, full_at: Duration::ZERO }
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
}

fn nanos(nanos: u128) -> Duration {
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }
    fn rates(calls: u64, burst: u64) -> RateLimiter {
        RateLimiter::new(Rate { calls, per: Duration::from_secs(1), burst }, 20)
    }

    #[test]
    fn a_burst_begins_at_once_and_further_calls_queue() {
        let mut rates = rates(10, 3);
        let begun: Vec<_> = (0..5).map(|_| rates.queue(ms(0), ms(10_000)).unwrap().as_millis()).collect();
        assert_eq!(begun, [0, 0, 0, 100, 200]);
        assert_eq!(rates.queue(ms(0), ms(299)), Err(ms(300)), "after its latest time: nothing is reserved");
        assert_eq!(rates.queue(ms(0), ms(300)), Ok(ms(300)));
        assert_eq!((rates.next_time(ms(399)), rates.next_time(ms(400))), (ms(400), ms(400)));
    }

    #[test]
    fn secondary_calls_take_what_is_left_within_their_share() {
        let mut rates = rates(10, 10);
        assert_eq!(rates.admit_secondary(ms(0)), Ok(()));
        assert_eq!(rates.admit_secondary(ms(0)), Ok(()));
        assert_eq!(rates.admit_secondary(ms(0)), Err(ms(500)), "a fifth of ten at once, then two each second");
        for _ in 0..8 {
            assert_eq!(rates.queue(ms(0), ms(0)), Ok(ms(0)));
        }
        assert_eq!(rates.queue(ms(0), ms(0)), Err(ms(100)));
        assert_eq!(rates.admit_secondary(ms(500)), Ok(()), "by then five tokens are free");
        for _ in 0..4 {
            assert_eq!(rates.queue(ms(500), ms(500)), Ok(ms(500)));
        }
        assert_eq!(rates.admit_secondary(ms(1_000)), Ok(()));
        for _ in 0..3 {
            assert_eq!(rates.queue(ms(1_000), ms(1_000)), Ok(ms(1_000)));
        }
        assert_eq!(rates.admit_secondary(ms(1_500)), Ok(()));
    }

    #[test]
    fn the_last_token_is_left_for_a_real_run() {
        let mut rates = rates(10, 2);
        assert_eq!(rates.queue(ms(0), ms(0)), Ok(ms(0)));
        assert_eq!(rates.admit_secondary(ms(0)), Err(ms(100)), "one token is left");
        assert_eq!(rates.queue(ms(0), ms(0)), Ok(ms(0)));
    }

    proptest! {
        /// In no interval do more calls begin than `burst` plus the tokens added in it, secondary calls included.
        #[test]
        fn the_rate_is_never_exceeded(
            calls in 1u64..200,
            burst in 1u64..30,
            requests in prop::collection::vec((0u64..50, any::<bool>()), 1..300),
        ) {
            let mut rates = rates(calls, burst);
            let every = 1e9 / calls as f64;
            let (mut now, mut begun) = (Duration::ZERO, Vec::new());
            for (pause, real) in requests {
                now += ms(pause);
                match real {
                    true => begun.extend(rates.queue(now, now + ms(500))),
                    false => begun.extend(rates.admit_secondary(now).map(|()| now)),
                }
            }
            begun.sort();
            for (from, first) in begun.iter().enumerate() {
                for (to, last) in begun.iter().enumerate().skip(from) {
                    let allowed = burst as f64 + (*last - *first).as_nanos() as f64 / every;
                    prop_assert!((to - from + 1) as f64 <= allowed + 1e-3, "{} within {:?}", to - from + 1, *last - *first);
                }
            }
        }
    }
}
