//! The metrics of the requests that are watched.

use metrics::{Counter, counter};

/// Counts requests of one kind by what became of them.
pub(super) struct RequestCounters {
    pub(super) watched: Counter,
    pub(super) refused: Counter,
    pub(super) evicted: Counter,
}

impl RequestCounters {
    pub(super) fn of(kind: &'static str) -> Self {
        let [watched, refused, evicted] = ["watched", "refused", "evicted"]
            .map(|outcome| counter!("pointsman_egress_requests_total", "kind" => kind, "outcome" => outcome));
        Self { watched, refused, evicted }
    }
}
