//! The calls that legacy makes, as the API shows them.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::names::{RouteId, ServiceName};

/// The calls that legacy made for the requests of a route, since the process started.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EgressView {
    /// The route.
    pub route: RouteId,
    /// Whether legacy's calls are watched at all (`egress:`). If not, everything below is zero.
    pub is_watched: bool,
    /// What, beside its trace, says which request a call is for (`egress.correlate`); `null` if nothing does.
    pub correlate: Option<String>,
    /// For how long after its end calls are attributed to a request, in seconds (`egress.window`); `null` if nothing is
    /// watched.
    pub window_s: Option<f64>,
    /// Requests of the route whose calls were watched.
    pub requests: u64,
    /// Of these, those to which no call can be attributed any more, because the window after their end is over.
    pub closed: u64,
    /// Of the closed ones, those for which legacy made no call: none was attributed, and no ambiguous one could be
    /// theirs.
    pub without_call: u64,
    /// The calls that were attributed to requests of the route.
    pub calls: AttributedCalls,
    /// The calls for all routes.
    pub all: EgressCalls,
    /// The last calls that were attributed to no request of any route, newest first.
    pub unattributed: Vec<UnattributedCall>,
}

/// Calls, by what attributed them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AttributedCalls {
    /// The `traceparent`.
    pub traceparent: u64,
    /// The declared header.
    pub header: u64,
    /// The declared value.
    pub value: u64,
}

/// Calls for all routes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EgressCalls {
    /// Those that were attributed to a request.
    pub attributed: u64,
    /// Those that several requests could have caused.
    pub ambiguous: u64,
    /// Those of no watched request.
    pub unattributed: u64,
    /// The share that was attributed, from 0 to 1; `null` if there was no call.
    pub attributed_share: Option<f64>,
    /// Attributed ones that were not kept for the comparison (`egress_bytes_max`, or too many for one request): the
    /// effects of their requests are not judged.
    pub not_kept: u64,
    /// Requests whose calls were not watched, or not until their end (`egress_requests_max`).
    pub requests_left_out: u64,
}

/// A call that was attributed to no request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UnattributedCall {
    /// When it had ended.
    pub at: Timestamp,
    /// The service that it went to; `null` if its address is that of none.
    pub service: Option<ServiceName>,
    /// The method.
    pub method: String,
    /// The URL, redacted.
    pub url: String,
    /// `ambiguous` or `unattributed`.
    pub outcome: String,
}
