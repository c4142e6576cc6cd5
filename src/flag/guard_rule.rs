//! After how many bad requests, of how many, a guard acts.
//!
//! The rule for one accepted rate is a table: `k` bad ones within the last `n` requests, for each `k`. It is made from
//! a sequential test, which stays valid however often its result is looked at, and which is started again at each bad
//! request: the guard acts once the requests since some earlier bad one are [`RATIO`] times likelier under a uniform
//! distribution of the rate above the accepted one than under the accepted one itself. These ratios, summed over all
//! starts, are a Shiryaev-Roberts statistic: while the true rate is the accepted one, the guard acts once in [`RATIO`]
//! requests on average or less often, and far less often while it is lower.

use super::likelihood::ln_evidence_above;

/// See the module: the mean number of requests between two actions while the rate is just the accepted one.
const RATIO: f64 = 100_000.0;

/// The table for one accepted rate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuardRule {
    over: u64,
    /// At the index `k - 1`: within how many requests `k` bad ones have to be; 0 if `k` are too few. Ascending.
    within: Vec<u64>,
}

impl GuardRule {
    /// The rule for an accepted rate, where the last `over` requests count, and it takes `at_least` bad ones.
    pub fn new(rate: f64, over: u64, at_least: u64) -> Self {
        let speaks_against =
            |bad: u64, requests: u64| ln_evidence_above(rate, requests as f64, bad as f64) >= RATIO.ln();
        let mut within = Vec::new();
        for bad in 1..=over {
            let last = within.last().copied().unwrap_or(0);
            let longest = match bad >= at_least && speaks_against(bad, bad) {
                // More requests without a bad one speak less against the rate.
                true => {
                    let (mut low, mut high) = (bad.max(last), over + 1);
                    while high - low > 1 {
                        let middle = low.midpoint(high);
                        if speaks_against(bad, middle) { low = middle } else { high = middle }
                    }
                    low
                }
                false => 0,
            };
            within.push(longest);
            if longest >= over {
                break;
            }
        }
        Self { over, within }
    }

    /// After how many bad requests in a row the guard acts; `None` if it never acts.
    pub fn consecutive_bad_to_act(&self) -> Option<u64> {
        let first = self.within.iter().position(|within| *within > 0)?;
        u64::try_from(first + 1).ok()
    }

    /// How many of the last `over` requests have to be bad, however they are spread, for the guard to act; `None` if it
    /// does not act even if all are.
    pub fn bad_in_window_to_act(&self) -> Option<u64> {
        let last = self.within.last().filter(|within| **within >= self.over)?;
        debug_assert!(*last > 0);
        u64::try_from(self.within.len()).ok()
    }

    /// How many of the last requests count.
    pub fn over(&self) -> u64 {
        self.over
    }

    /// How many bad requests have to be remembered.
    pub fn remembered(&self) -> usize {
        self.within.len()
    }

    /// How many bad requests there are within how many requests, if that is enough to act. `ages`: how many requests
    /// ago each bad one was (1 is the present one), the newest first.
    pub fn crossing(&self, ages: impl Iterator<Item = u64>) -> Option<(u64, u64)> {
        let mut counted = (1_u64..).zip(ages.zip(&self.within));
        let (bad, (requests, _)) = counted.find(|(_, (age, within))| age <= *within)?;
        Some((bad, requests))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn consecutive_bad(rate: f64) -> Option<u64> {
        GuardRule::new(rate, 500, 5).consecutive_bad_to_act()
    }

    /// The numbers in the documentation.
    #[test]
    fn an_outage_is_acted_on_within_a_named_number_of_requests() {
        assert_eq!([0.0, 0.001, 0.01, 0.05, 0.1, 0.2].map(consecutive_bad), [5, 5, 5, 5, 6, 9].map(Some));
        let rule = GuardRule::new(0.01, 500, 5);
        assert_eq!((rule.within[3], rule.within[4], rule.bad_in_window_to_act()), (0, 17, Some(22)));
        let bad_in_window = |rate: f64| GuardRule::new(rate, 500, 5).bad_in_window_to_act();
        assert_eq!([0.001, 0.1].map(bad_in_window), [9, 90].map(Some));
    }

    #[test]
    fn a_rate_that_cannot_be_exceeded_is_never_acted_on() {
        assert_eq!((consecutive_bad(1.0), GuardRule::new(0.9, 20, 1).consecutive_bad_to_act()), (None, None));
        assert_eq!(
            GuardRule::new(0.5, 10, 1).consecutive_bad_to_act(),
            None,
            "ten requests say too little against 50 %"
        );
        assert_eq!(GuardRule::new(0.01, 4, 5).consecutive_bad_to_act(), None, "fewer requests than it takes bad ones");
    }

    #[test]
    fn the_table_ascends_and_a_higher_rate_takes_more() {
        for rate in [0.0, 0.001, 0.01, 0.1, 0.5] {
            let rule = GuardRule::new(rate, 500, 5);
            assert!(rule.within.windows(2).all(|pair| pair[0] <= pair[1]), "{rate}: {rule:?}");
            let higher = GuardRule::new(rate + 0.05, 500, 5);
            assert!(
                higher.consecutive_bad_to_act() >= rule.consecutive_bad_to_act()
                    && higher.remembered() >= rule.remembered(),
                "{rate}"
            );
        }
        assert_eq!(GuardRule::new(0.0, 500, 1).bad_in_window_to_act(), Some(1), "no bad one is accepted");
    }
}
