//! An exchange that has its answer.
//!
//! Always true: it is counted once, when the client's socket has taken the last byte of the answer or its connection
//! has ended before.

use std::sync::Arc;

use http::StatusCode;

use super::monotonic::now;
use super::route_metrics::{AnsweredBy, RouteMetrics};
use crate::flag::State;

/// The facts of an exchange that has its answer.
pub(super) struct AnsweredExchange {
    pub route_metrics: Arc<RouteMetrics>,
    pub rung: State,
    pub answered_by: AnsweredBy,
    pub status: StatusCode,
    /// When the request's head was complete, in microseconds of `monotonic::now`.
    pub began: u64,
    /// Whether the answer is to say which arm gave it.
    pub exposes_arm: bool,
}

impl AnsweredExchange {
    /// The exchange has ended.
    pub(super) fn end(self) {
        let AnsweredExchange { route_metrics, rung, answered_by, status, began, exposes_arm: _ } = self;
        route_metrics.count_answer(rung, answered_by, status, now().saturating_sub(began));
    }
}
