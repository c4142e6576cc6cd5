//! PURE. When the next call to a service may begin.
//!
//! Always true: in any time `t` no more than `burst + t / every` calls begin, all runs together; those of rehearsed and
//! dark runs are within a share of that, take only what real runs leave, and never make a real one wait in a queue
//! behind them. Time is an argument: whatever has passed since some fixed instant.

use std::time::Duration;

use crate::flag::Rate;

/// The calls of one service.
#[derive(Clone, Debug)]
pub(super) struct Rates {
    all: Bucket,
    secondary: Bucket,
}

impl Rates {
    /// `share` is that of rehearsed and dark runs, percent.
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

    /// Takes the next place in the queue: when this call may begin. None is taken where that is after `latest`; then
    /// the error is when it would have been.
    pub fn queue(&mut self, now: Duration, latest: Duration) -> Result<Duration, Duration> {
        let at = self.all.next(1, now);
        if at > latest {
            return Err(at);
        }
        self.all.take(at);
        Ok(at)
    }

    /// Lets a call beside the real ones begin now; else when to ask again. Of what may begin at once it leaves one for
    /// a real run, where that is more than one.
    pub fn admit_secondary(&mut self, now: Duration) -> Result<(), Duration> {
        let at = self.all.next(self.all.burst.min(2), now).max(self.secondary.next(1, now));
        if at > now {
            return Err(at);
        }
        self.all.take(now);
        self.secondary.take(now);
        Ok(())
    }

    /// Whether a call would have to wait now.
    pub fn is_busy(&self, now: Duration) -> bool {
        self.all.next(1, now) > now
    }
}

/// Fills by one each `every`, up to `burst`.
#[derive(Clone, Debug)]
struct Bucket {
    every: Duration,
    burst: u32,
    /// When it will be full again.
    full: Duration,
}

impl Bucket {
    fn new(every: Duration, burst: u32) -> Self {
        Self { every, burst, full: Duration::ZERO }
    }
    /// When `count` may begin at once, at the earliest.
    fn next(&self, count: u32, now: Duration) -> Duration {
        let empty = self.every.saturating_mul(self.burst.saturating_sub(count));
        now.max(self.full.saturating_sub(empty))
    }
    /// One begins at this time.
    fn take(&mut self, at: Duration) {
        self.full = self.full.max(at).saturating_add(self.every);
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
    fn rates(calls: u64, burst: u64) -> Rates {
        Rates::new(Rate { calls, per: Duration::from_secs(1), burst }, 20)
    }

    #[test]
    fn a_burst_goes_at_once_and_the_rest_in_order() {
        let mut rates = rates(10, 3);
        let begun: Vec<_> = (0..5).map(|_| rates.queue(ms(0), ms(10_000)).unwrap().as_millis()).collect();
        assert_eq!(begun, [0, 0, 0, 100, 200]);
        assert_eq!(rates.queue(ms(0), ms(299)), Err(ms(300)), "too late for this one: it takes no place");
        assert_eq!(rates.queue(ms(0), ms(300)), Ok(ms(300)));
        assert!(rates.is_busy(ms(399)));
        assert!(!rates.is_busy(ms(400)));
    }

    #[test]
    fn others_take_what_is_left_within_their_share() {
        let mut rates = rates(10, 10);
        assert_eq!(rates.admit_secondary(ms(0)), Ok(()));
        assert_eq!(rates.admit_secondary(ms(0)), Ok(()));
        assert_eq!(rates.admit_secondary(ms(0)), Err(ms(500)), "a fifth of ten at once, then two each second");
        for _ in 0..8 {
            assert_eq!(rates.queue(ms(0), ms(0)), Ok(ms(0)));
        }
        assert_eq!(rates.queue(ms(0), ms(0)), Err(ms(100)));
        assert_eq!(rates.admit_secondary(ms(500)), Ok(()), "by then five places are free");
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
    fn the_last_place_is_a_real_runs() {
        let mut rates = rates(10, 2);
        assert_eq!(rates.queue(ms(0), ms(0)), Ok(ms(0)));
        assert_eq!(rates.admit_secondary(ms(0)), Err(ms(100)), "one place is left");
        assert_eq!(rates.queue(ms(0), ms(0)), Ok(ms(0)));
    }

    proptest! {
        /// In no stretch of time more calls begin than `burst` and what it fills meanwhile, those beside included.
        #[test]
        fn no_more_begin_than_may(
            calls in 1u64..200,
            burst in 1u64..30,
            asks in prop::collection::vec((0u64..50, any::<bool>()), 1..300),
        ) {
            let mut rates = rates(calls, burst);
            let every = 1e9 / calls as f64;
            let (mut now, mut begun) = (Duration::ZERO, Vec::new());
            for (pause, real) in asks {
                now += ms(pause);
                match real {
                    true => begun.extend(rates.queue(now, now + ms(500))),
                    false => begun.extend(rates.admit_secondary(now).map(|()| now)),
                }
            }
            begun.sort();
            for (from, first) in begun.iter().enumerate() {
                for (to, last) in begun.iter().enumerate().skip(from) {
                    let may = burst as f64 + (*last - *first).as_nanos() as f64 / every;
                    prop_assert!((to - from + 1) as f64 <= may + 1e-3, "{} within {:?}", to - from + 1, *last - *first);
                }
            }
        }
    }
}
