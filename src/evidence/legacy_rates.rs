//! Legacy's own rates of errors and its latency, in the form in which the guard of a route accepts them from the
//! engine.

use std::time::Duration;

use super::legacy_share::{BadReplies, LEGACY_REPLIES_MIN};
use super::route::RouteEvidence;
use crate::flag::file::SLOW_RATE;

/// Legacy's own rates are rounded up to a multiple of 1/1000, so that the accepted rate changes seldom.
const RATE_STEPS: f64 = 1_000.0;

/// Legacy's own error rates and latency, which the guard accepts from the engine too.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct LegacyRates {
    /// Its share of 5xx; `None` if it has replied too rarely to tell.
    pub errors: Option<f64>,
    /// Its share of 4xx, or an upper bound of it.
    pub client_errors: Option<f64>,
    /// Its 99th percentile of latency.
    pub p99: Option<Duration>,
}

impl LegacyRates {
    pub(super) fn of(evidence: &RouteEvidence) -> Self {
        let legacy = &evidence.legacy;
        let client_errors = legacy.share(BadReplies::ClientErrors).at_most.map(rounded_up).filter(|rate| *rate < 1.0);
        let errors = legacy.share(BadReplies::ServerErrors).at_most.filter(|_| legacy.replies >= LEGACY_REPLIES_MIN);
        let wide = &evidence.all.latencies.legacy;
        // For pairs that an earlier version compared, only the wide buckets are known.
        let p99 = match (legacy.latencies.total() >= LEGACY_REPLIES_MIN, wide.total() >= LEGACY_REPLIES_MIN) {
            (true, _) => legacy.latencies.percentile(1.0 - SLOW_RATE),
            (false, true) => wide.percentile(1.0 - SLOW_RATE),
            (false, false) => None,
        };
        Self { errors: errors.map(rounded_up), client_errors, p99 }
    }
}

fn rounded_up(rate: f64) -> f64 {
    (rate * RATE_STEPS).ceil() / RATE_STEPS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::RepliesOfLegacy;

    #[test]
    fn for_few_replies_the_share_of_4xx_is_an_upper_bound_and_for_fewer_it_is_unknown() {
        let of = |replies, client_errors| {
            let legacy = RepliesOfLegacy { replies, client_errors, ..RepliesOfLegacy::default() };
            LegacyRates::of(&RouteEvidence { legacy, ..RouteEvidence::default() })
        };
        assert_eq!(of(0, 0), LegacyRates::default());
        assert_eq!(of(19, 0).client_errors, None);
        assert_eq!(of(20, 20).client_errors, None, "it may refuse all");
        let bounds = [(20, 0), (40, 0), (99, 0)].map(|(replies, refused)| of(replies, refused).client_errors.unwrap());
        assert!(bounds[0] < 0.25 && bounds[1] < 0.15 && bounds[2] > 0.01, "{bounds:?}");
        assert_eq!((of(100, 0).client_errors, of(100, 7).client_errors), (Some(0.0), Some(0.07)));
        assert_eq!(of(99, 0).errors, None);
    }

    #[test]
    fn stored_evidence_of_an_earlier_version_has_the_latencies_of_its_pairs() {
        let mut before = RouteEvidence::default();
        before.all.narrow_latencies.count(Duration::from_millis(7), Duration::from_millis(9));
        let mut stored = serde_json::to_value(&before).unwrap();
        stored.as_object_mut().unwrap().remove("legacy_latencies").unwrap();
        stored["legacy_replies"] = 120.into();
        let evidence = serde_json::from_value::<RouteEvidence>(stored).unwrap().restored();
        assert_eq!((evidence.legacy.replies, evidence.legacy.latencies), (120, before.all.narrow_latencies.legacy));
        let none = serde_json::from_value::<RouteEvidence>(serde_json::json!({})).unwrap().restored();
        assert_eq!(none.legacy, RepliesOfLegacy::default());
    }
}
