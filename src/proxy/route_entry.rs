//! What a request uses of its route: metric handles, the service behind it, limits.

use std::sync::Arc;

use http::StatusCode;

use super::answered_exchange::AnsweredExchange;
use super::route_metrics::{AnsweredBy, RouteMetrics};
use super::turns::Turns;
use super::upstream::Upstream;
use super::wait_limits::ExchangeLimits;
use crate::flag::State;

/// One route's metric handles and upstream.
pub(super) struct RouteEntry {
    pub route_metrics: Arc<RouteMetrics>,
    pub upstream: Arc<Upstream>,
    pub limits: ExchangeLimits,
    /// The largest body, in bytes, that is read whole before legacy gets the request; 0: none.
    pub buffer_request: u64,
    /// Whether answers of the engine are compressed.
    pub compress: bool,
    /// The turns of the route's requests, if their number is limited.
    pub turns: Option<Arc<Turns>>,
    /// Whether each answer names the arm that gave it.
    pub exposes_arm: bool,
    /// The template of the route's path, if it has parameters.
    pub template: Option<Arc<str>>,
}

impl RouteEntry {
    /// Returns the facts of an exchange of the route that has its answer; it is counted when it has ended.
    pub(super) fn answered(
        &self,
        rung: State,
        answered_by: AnsweredBy,
        status: StatusCode,
        began: u64,
    ) -> AnsweredExchange {
        let (route_metrics, exposes_arm) = (self.route_metrics.clone(), self.exposes_arm);
        AnsweredExchange {
            route_metrics,
            rung,
            answered_by,
            status,
            began,
            exposes_arm,
            refused: None,
            served: None,
            cut: None,
            admission: None,
            record: None,
            in_progress: None,
            write: None,
            after: None,
        }
    }
}
