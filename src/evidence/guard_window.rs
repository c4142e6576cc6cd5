//! The last requests, or pairs, of which a guard counts the bad ones.

use std::collections::VecDeque;

use crate::flag::GuardRule;

/// The last requests, or pairs: only the bad ones are remembered, by their numbers.
#[derive(Debug)]
pub(super) struct GuardWindow {
    /// The accepted rate of bad ones.
    accepted: f64,
    /// The `at_least` of the guard's settings.
    at_least: u64,
    rule: GuardRule,
    /// How many there were since the start of the process, or the last change of the settings.
    seen: u64,
    /// The value of `seen` when the window was last restarted: what came before does not count.
    restarted_at: u64,
    /// The numbers of the last bad ones, the newest first.
    bad: VecDeque<u64>,
    crossed: Option<Crossing>,
    /// How many this process has counted, and how many of them were bad.
    counted: [u64; 2],
}

/// More bad requests than are accepted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Crossing {
    pub bad: u64,
    /// Among how many requests: the last ones.
    pub of: u64,
    /// The accepted rate.
    pub accepted: f64,
}

/// A window at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct WindowCounts {
    pub accepted: f64,
    /// The requests that count, at most `over`.
    pub of: u64,
    /// How many of these are bad, as far as they are remembered.
    pub bad: u64,
    /// The guard acts after this many bad requests in a row.
    pub consecutive_bad_to_act: Option<u64>,
    /// The guard acts once this many of the last `over` are bad, however spread.
    pub bad_in_window_to_act: Option<u64>,
}

impl GuardWindow {
    pub fn new(accepted: f64, over: u64, at_least: u64) -> Self {
        Self {
            accepted,
            at_least,
            rule: GuardRule::new(accepted, over, at_least),
            seen: 0,
            restarted_at: 0,
            bad: VecDeque::new(),
            crossed: None,
            counted: [0; 2],
        }
    }

    /// Sets the accepted rate; the requests that were counted stay.
    pub fn accept(&mut self, accepted: f64) {
        if (accepted - self.accepted).abs() > f64::EPSILON {
            self.accepted = accepted;
            self.rule = GuardRule::new(accepted, self.rule.over(), self.at_least);
        }
    }

    /// Counts one request. Returns whether this is more than is accepted.
    pub fn count(&mut self, is_bad: bool) -> bool {
        let [counted, bad] = &mut self.counted;
        (*counted, *bad) = (*counted + 1, *bad + u64::from(is_bad));
        self.add(is_bad)
    }

    /// How many this process has counted, and how many of them were bad.
    pub fn counted(&self) -> [u64; 2] {
        self.counted
    }

    /// Counts the requests that another process has counted, `bad` of them bad ones. Their order is not known, so the
    /// bad ones are spread evenly. Returns whether this is more than is accepted.
    pub fn count_others(&mut self, [counted, bad]: [u64; 2]) -> bool {
        // The window holds no more than these.
        let added = counted.min(self.rule.over());
        let bad = if counted > added { (bad * added).div_ceil(counted) } else { bad.min(added) };
        let mut crosses = false;
        for n in 0..added {
            crosses |= self.add((n + 1) * bad / added > n * bad / added);
        }
        crosses
    }

    fn add(&mut self, is_bad: bool) -> bool {
        self.seen += 1;
        if !is_bad {
            return false;
        }
        self.bad.push_front(self.seen);
        self.bad.truncate(self.rule.remembered());
        let ages = self.bad.iter().map(|number| self.seen - number + 1);
        let Some((bad, of)) = self.rule.crossing(ages) else { return false };
        self.crossed = Some(Crossing { bad, of, accepted: self.accepted });
        true
    }

    /// Takes the crossing since the last call, if there is one, and restarts the window, so that the same requests do
    /// not count twice.
    pub fn take_crossing(&mut self) -> Option<Crossing> {
        let crossed = self.crossed.take();
        if crossed.is_some() {
            self.restart();
        }
        crossed
    }

    /// Forgets what was counted.
    pub fn restart(&mut self) {
        self.restarted_at = self.seen;
        self.bad.clear();
        self.crossed = None;
    }

    pub fn counts(&self) -> WindowCounts {
        let over = self.rule.over();
        let oldest = (self.seen.saturating_sub(over)).max(self.restarted_at);
        let bad = self.bad.iter().filter(|number| **number > oldest).count() as u64;
        WindowCounts {
            accepted: self.accepted,
            of: self.seen - oldest,
            bad,
            consecutive_bad_to_act: self.rule.consecutive_bad_to_act(),
            bad_in_window_to_act: self.rule.bad_in_window_to_act(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many requests there are until the guard acts, at most `max`, if each is bad with this probability.
    fn requests_until(rate: f64, accepted: f64, max: u64, random: &mut fastrand::Rng) -> Option<u64> {
        let mut window = GuardWindow::new(accepted, 500, 5);
        (1..=max).find(|_| window.count(random.f64() < rate))
    }

    /// How many of so many histories the guard has acted in, and after how many requests in the mean.
    fn acted(rate: f64, accepted: f64, max: u64, histories: u64) -> (u64, f64) {
        let mut random = fastrand::Rng::with_seed(17);
        let all = (0..histories).filter_map(|_| requests_until(rate, accepted, max, &mut random));
        let after: Vec<u64> = all.collect();
        (after.len() as u64, after.iter().sum::<u64>() as f64 / after.len().max(1) as f64)
    }

    #[test]
    fn three_bad_requests_of_seven_are_too_few_to_act() {
        let mut window = GuardWindow::new(0.01, 500, 5);
        let crossed = [false, true, false, true, false, true, false].map(|is_bad| window.count(is_bad));
        assert!(!crossed.contains(&true) && window.take_crossing().is_none());
    }

    #[test]
    fn an_outage_after_clean_traffic_is_seen_within_the_named_number_of_requests() {
        for accepted in [0.001, 0.01, 0.1] {
            let mut window = GuardWindow::new(accepted, 500, 5);
            assert!(!(0..100_000).any(|n| window.count(accepted > 0.05 && n % 20 == 0)));
            let named = window.counts().consecutive_bad_to_act.unwrap();
            let after = (1..=named).find(|_| window.count(true));
            assert!(after.is_some(), "{accepted}: not within {named}");
            let Crossing { bad, of, .. } = window.take_crossing().unwrap();
            assert!(bad >= 5 && of >= bad, "{bad} of {of}");
            assert!(!window.count(true), "what was acted on does not count again");
        }
    }

    #[test]
    fn planted_rates_are_caught() {
        // At 1 % accepted: half of the requests fail, a fifth, a tenth.
        for (rate, within) in [(0.5, 20.0), (0.2, 60.0), (0.1, 180.0)] {
            let (caught, mean) = acted(rate, 0.01, 20_000, 400);
            assert!(caught == 400 && mean < within, "{rate}: {caught} of 400, after {mean} requests");
        }
        // Five times the accepted rate is caught in most histories within 2,000 requests.
        let (caught, _) = acted(0.05, 0.01, 2_000, 400);
        assert!(caught > 380, "{caught} of 400");
    }

    #[test]
    fn clean_traffic_and_the_accepted_rate_do_not_trip_it() {
        assert_eq!(acted(0.0, 0.01, 100_000, 4).0, 0);
        // At half the accepted rate never, at the accepted rate itself once in 100,000 requests or less often.
        let (tripped, _) = acted(0.005, 0.01, 50_000, 40);
        assert!(tripped <= 1, "{tripped} of 40 histories of 50,000 requests at half the accepted rate");
        let (tripped, _) = acted(0.01, 0.01, 20_000, 100);
        assert!(tripped <= 25, "{tripped} of 100 histories of 20,000 requests at the accepted rate");
    }

    #[test]
    fn what_another_process_has_counted_counts_as_well() {
        let mut window = GuardWindow::new(0.01, 500, 5);
        assert!(!window.count_others([10_000, 100]), "1 % is accepted");
        assert_eq!((window.counts().of, window.counts().bad, window.counted()), (500, 5, [0, 0]));
        assert!(!(0..3).any(|_| window.count(true)));
        assert!(window.count_others([4, 4]));
        assert_eq!(window.counted(), [3, 3]);
    }

    #[test]
    fn a_restarted_window_has_forgotten_everything() {
        let mut window = GuardWindow::new(0.01, 500, 5);
        (0..4).for_each(|_| assert!(!window.count(true)));
        window.restart();
        assert_eq!((window.counts().of, window.counts().bad), (0, 0));
        (0..4).for_each(|_| assert!(!window.count(true)));
        assert!(window.count(true));
    }

    #[test]
    fn another_accepted_rate_keeps_what_was_counted() {
        let mut window = GuardWindow::new(0.5, 500, 5);
        (0..4).for_each(|_| assert!(!window.count(true)));
        window.accept(0.01);
        assert!(window.count(true));
    }
}
