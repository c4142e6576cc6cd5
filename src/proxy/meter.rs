//! What is counted of a request?
//!
//! Handles to metrics, registered once per route and kept over reloads, so that no request looks a name up. Always
//! true: label values are closed sets (route ids from the files, states, arms, code classes); a series exists once it
//! has something to say.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use http::StatusCode;
use metrics::{Counter, Histogram, counter, histogram};

use super::clock::now;
use crate::flag::{Notes, State};

/// Who gave the answer: the label `answered_by`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    Legacy,
    Engine,
    /// We ourselves: a problem.
    Proxy,
}

const BY: [&str; 3] = ["legacy", "engine", "proxy"];
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
const SERIES: usize = State::ALL.len() * BY.len() * CLASSES.len();

/// The handles of one route.
pub(super) struct Meter {
    route: Arc<str>,
    requests: Box<[OnceLock<Counter>; SERIES]>,
    duration: [OnceLock<Histogram>; 3],
    overhead: Histogram,
    fallbacks: OnceLock<Counter>,
    seen: Seen,
}

/// What `status` shows of a route at a glance: requests, and our own share by powers of two of a microsecond.
#[derive(Default)]
struct Seen {
    requests: AtomicU64,
    overhead: [AtomicU64; 24],
}

impl Meter {
    /// Requests answered, and the middle of our own share of them in microseconds (within its power of two).
    pub(super) fn seen(&self) -> (u64, Option<f64>) {
        let counts: Vec<u64> = self.seen.overhead.iter().map(|n| n.load(Ordering::Relaxed)).collect();
        let half = counts.iter().sum::<u64>() as f64 / 2.0;
        let mut below = 0.0;
        let mut middle = None;
        for (power, count) in counts.into_iter().map(|n| n as f64).enumerate() {
            if count > 0.0 && below + count >= half {
                let low = if power == 0 { 0.0 } else { f64::from(1u32 << (power - 1)) };
                let high = f64::from(1u32 << power);
                middle = Some(low + (high - low) * (half - below) / count);
                break;
            }
            below += count;
        }
        (self.seen.requests.load(Ordering::Relaxed), middle)
    }
    pub(super) fn new(route: &str) -> Self {
        Self {
            route: route.into(),
            requests: Box::new([const { OnceLock::new() }; SERIES]),
            duration: [const { OnceLock::new() }; 3],
            overhead: histogram!("pointsman_proxy_overhead_seconds"),
            fallbacks: OnceLock::new(),
            seen: Seen::default(),
        }
    }
    /// The route that it counts for.
    pub(super) fn route(&self) -> &str {
        &self.route
    }
    fn label(&self) -> String {
        self.route.as_ref().to_owned()
    }
    fn answered(&self, rung: State, by: By, status: StatusCode, micros: u64) {
        let class = usize::from(status.as_u16() / 100).clamp(1, 5) - 1;
        let place = (usize::from(rung.rank()) * BY.len() + by as usize) * CLASSES.len() + class;
        let requests = self.requests[place].get_or_init(|| {
            counter!(
                "pointsman_requests_total", "route" => self.label(), "state" => rung.as_str(),
                "answered_by" => BY[by as usize], "code_class" => CLASSES[class]
            )
        });
        requests.increment(1);
        self.seen.requests.fetch_add(1, Ordering::Relaxed);
        let duration = self.duration[by as usize].get_or_init(
            || histogram!("pointsman_request_duration_seconds", "route" => self.label(), "arm" => BY[by as usize]),
        );
        duration.record(seconds(micros));
    }
    /// Our own share of a request's time, until its reply's head.
    pub(super) fn overhead(&self, micros: u64) {
        self.overhead.record(seconds(micros));
        let power = (u64::BITS - micros.leading_zeros()) as usize;
        self.seen.overhead[power.min(self.seen.overhead.len() - 1)].fetch_add(1, Ordering::Relaxed);
    }
    /// Counts what the decision noted: callers outside every share for want of a key, and cohorts that could not be
    /// judged. Rare, so looked up by name.
    pub(super) fn noted(&self, notes: Notes) {
        let Notes { without_key, cohort_errors } = notes;
        if without_key {
            counter!("pointsman_unkeyed_total", "route" => self.label()).increment(1);
        }
        if cohort_errors > 0 {
            counter!("pointsman_cohort_errors_total", "route" => self.label()).increment(u64::from(cohort_errors));
        }
    }
    /// The engine gave a request back to legacy.
    pub(super) fn fell_back(&self) {
        self.fallbacks.get_or_init(|| counter!("pointsman_fallbacks_total", "route" => self.label())).increment(1);
    }
}

fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

/// Counts one answer when its last byte has been handed on.
pub(super) struct Finish {
    pub meter: Arc<Meter>,
    pub rung: State,
    pub by: By,
    pub status: StatusCode,
    pub began: u64,
}

impl Finish {
    pub(super) fn record(self) {
        let Finish { meter, rung, by, status, began } = self;
        meter.answered(rung, by, status, now().saturating_sub(began));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_our_own_share_lies_within_its_power_of_two() {
        let meter = Meter::new("orders.create");
        assert_eq!(meter.seen(), (0, None));
        for micros in [3, 90, 100, 110, 5_000] {
            meter.overhead(micros);
        }
        let (_, middle) = meter.seen();
        assert!(middle.is_some_and(|us| (64.0..128.0).contains(&us)), "{middle:?}");
    }
}
