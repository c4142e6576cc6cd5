//! The metrics of one route.
//!
//! Handles are registered once per route and kept over reloads, so that no request looks a name up. Always true: label
//! values are closed sets (route ids from the files, states, arms, code classes); a series exists once something was
//! counted in it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use http::StatusCode;
use metrics::{Counter, Histogram, counter, histogram};

use crate::flag::{DecisionDiagnostics, RequestFacts, RouteFlag, State, StratumValue};

/// Which party answered: the label `answered_by`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AnsweredBy {
    Legacy,
    Engine,
    /// The proxy itself, with a problem, or with the methods of a path (OPTIONS).
    Proxy,
    /// A service that legacy calls through the egress listener.
    Service,
}

impl AnsweredBy {
    /// The label's value.
    pub(super) fn as_str(self) -> &'static str {
        ANSWERED_BY[self as usize]
    }
}

const ANSWERED_BY: [&str; 4] = ["legacy", "engine", "proxy", "service"];
/// The class of an answer's status, or `cut` if the client did not get the whole answer: the label `code_class`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CodeClass {
    Informational,
    Success,
    Redirection,
    ClientError,
    ServerError,
    Cut,
}

impl CodeClass {
    const ALL: [CodeClass; 6] = [
        CodeClass::Informational,
        CodeClass::Success,
        CodeClass::Redirection,
        CodeClass::ClientError,
        CodeClass::ServerError,
        CodeClass::Cut,
    ];

    /// The class of a status.
    pub(super) fn of(status: StatusCode) -> Self {
        Self::ALL[usize::from(status.as_u16() / 100).clamp(1, 5) - 1]
    }
    /// The label's value.
    fn as_str(self) -> &'static str {
        ["1xx", "2xx", "3xx", "4xx", "5xx", "cut"][self as usize]
    }
}

const SERIES: usize = State::ALL.len() * ANSWERED_BY.len() * CodeClass::ALL.len();

/// The metric handles of one route.
pub(super) struct RouteMetrics {
    route: Arc<str>,
    requests: Box<[OnceLock<Counter>; SERIES]>,
    duration: [OnceLock<Histogram>; ANSWERED_BY.len()],
    overhead: Histogram,
    fallbacks: OnceLock<Counter>,
    traffic_counts: TrafficCounts,
}

/// The counts that the command `status` shows: requests, and a histogram of the proxy's overhead by powers of two of a
/// microsecond.
#[derive(Default)]
struct TrafficCounts {
    requests: AtomicU64,
    overhead: [AtomicU64; 24],
}

impl RouteMetrics {
    /// Returns the number of answered requests, and the median of the proxy's overhead in microseconds (interpolated
    /// within a power of two).
    pub(super) fn traffic_counts(&self) -> (u64, Option<f64>) {
        let counts: Vec<u64> = self.traffic_counts.overhead.iter().map(|n| n.load(Ordering::Relaxed)).collect();
        let half = counts.iter().sum::<u64>() as f64 / 2.0;
        let mut below = 0.0;
        let mut median = None;
        for (power, count) in counts.into_iter().map(|n| n as f64).enumerate() {
            if count > 0.0 && below + count >= half {
                let low = if power == 0 { 0.0 } else { f64::from(1u32 << (power - 1)) };
                let high = f64::from(1u32 << power);
                median = Some(low + (high - low) * (half - below) / count);
                break;
            }
            below += count;
        }
        (self.traffic_counts.requests.load(Ordering::Relaxed), median)
    }
    pub(super) fn new(route: &str) -> Self {
        Self {
            route: route.into(),
            requests: Box::new([const { OnceLock::new() }; SERIES]),
            duration: [const { OnceLock::new() }; ANSWERED_BY.len()],
            overhead: histogram!("pointsman_proxy_overhead_seconds"),
            fallbacks: OnceLock::new(),
            traffic_counts: TrafficCounts::default(),
        }
    }
    /// Returns the route whose metrics these are.
    pub(super) fn route(&self) -> &str {
        &self.route
    }
    fn label(&self) -> String {
        self.route.as_ref().to_owned()
    }
    /// Counts an answer that took this many microseconds.
    pub(super) fn count_answer(&self, rung: State, answered_by: AnsweredBy, class: CodeClass, micros: u64) {
        let row = usize::from(rung.rank()) * ANSWERED_BY.len() + answered_by as usize;
        let index = row * CodeClass::ALL.len() + class as usize;
        let requests = self.requests[index].get_or_init(|| {
            counter!(
                "pointsman_requests_total", "route" => self.label(), "state" => rung.as_str(),
                "answered_by" => answered_by.as_str(), "code_class" => class.as_str()
            )
        });
        requests.increment(1);
        self.traffic_counts.requests.fetch_add(1, Ordering::Relaxed);
        let duration = self.duration[answered_by as usize].get_or_init(
            || histogram!("pointsman_request_duration_seconds", "route" => self.label(), "arm" => answered_by.as_str()),
        );
        duration.record(seconds(micros));
    }
    /// Records the time that the proxy itself took until the reply's head, in microseconds.
    pub(super) fn record_overhead(&self, micros: u64) {
        self.overhead.record(seconds(micros));
        let power = (u64::BITS - micros.leading_zeros()) as usize;
        self.traffic_counts.overhead[power.min(self.traffic_counts.overhead.len() - 1)].fetch_add(1, Ordering::Relaxed);
    }
    /// Counts a request without a key value, and cohort rules that failed. Rare, so the series are looked up by name.
    pub(super) fn count_diagnostics(&self, diagnostics: DecisionDiagnostics) {
        let DecisionDiagnostics { without_key, cohort_errors, cohort: _ } = diagnostics;
        if without_key {
            counter!("pointsman_unkeyed_total", "route" => self.label()).increment(1);
        }
        if cohort_errors > 0 {
            counter!("pointsman_cohort_errors_total", "route" => self.label()).increment(u64::from(cohort_errors));
        }
    }
    /// The value that a request has of its route's `promote.strata_by`. Counts a key that cannot be evaluated: the
    /// request then has no value. Rare, so the series is looked up by name.
    pub(super) fn stratum_value(&self, flag: &RouteFlag, facts: &RequestFacts<'_>) -> Option<StratumValue> {
        let key = flag.route.promote.strata_by.as_ref()?;
        key.value_of(facts, &flag.route.redact).unwrap_or_else(|_| {
            counter!("pointsman_stratum_errors_total", "route" => self.label()).increment(1);
            None
        })
    }
    /// Counts a request with a retry key whose caller has no verified token, although the route's callers should have
    /// one. Rare, so the series is looked up by name.
    pub(super) fn count_unverified_caller(&self) {
        counter!("pointsman_unverified_callers_total", "route" => self.label()).increment(1);
    }
    /// Counts a request that was answered with a problem, by its reason. Rare, so the series is looked up by name.
    pub(super) fn count_refusal(&self, reason: &str) {
        counter!("pointsman_refusals_total", "route" => self.label(), "reason" => reason.to_owned()).increment(1);
    }
    /// Counts a request that the engine gave back to legacy.
    pub(super) fn count_fallback(&self) {
        self.fallbacks.get_or_init(|| counter!("pointsman_fallbacks_total", "route" => self.label())).increment(1);
    }
}

fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_overhead_is_within_its_power_of_two() {
        let route_metrics = RouteMetrics::new("orders.create");
        assert_eq!(route_metrics.traffic_counts(), (0, None));
        for micros in [3, 90, 100, 110, 5_000] {
            route_metrics.record_overhead(micros);
        }
        let (_, median) = route_metrics.traffic_counts();
        assert!(median.is_some_and(|us| (64.0..128.0).contains(&us)), "{median:?}");
    }
}
