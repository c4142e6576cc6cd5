//! The calls that legacy makes, as the API shows them.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::names::{RouteId, ServiceName};

/// The calls that legacy made for the requests of a route, since the process started; `late` and `of_no_request` since
/// the evidence of the route began.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EgressView {
    /// The route.
    pub route: RouteId,
    /// Whether legacy's calls are watched at all (`egress:`). If not, all numbers are zero.
    pub is_watched: bool,
    /// What identifies a call's request in addition to the trace (`egress.correlate`); `null` if only the trace does.
    pub correlate: Option<String>,
    /// How many seconds after the end of a request calls can still be attributed to it (`egress.window`); `null` if
    /// calls are not watched.
    pub window_s: Option<f64>,
    /// Requests of the route whose calls were watched.
    pub requests: u64,
    /// How many of these requests can get no further call, because the window after their end is over.
    pub closed: u64,
    /// How many of the closed requests made no call: no call was attributed to them, and no ambiguous call could be
    /// theirs.
    pub without_call: u64,
    /// The numbers of calls that were attributed to requests of the route.
    pub calls: AttributedCalls,
    /// The numbers of calls for all routes.
    pub all: EgressCalls,
    /// Calls that came after `window_s`, name a request of this route, may have changed something, and are neither made
    /// by the workflow nor named in `ignore_calls`: they are compared with nothing, and hold the gate to `live` as long
    /// as the pairs of that time count.
    #[serde(default)]
    pub late: u64,
    /// Where they went, as `ignore_calls` names them: `POST bank/points`.
    #[serde(default)]
    pub late_to: Vec<String>,
    /// The same of calls and tunnels that belong to no known request and that a request of this route may have caused,
    /// because one was compared in the ten minutes before.
    #[serde(default)]
    pub of_no_request: u64,
    /// Where they went.
    #[serde(default)]
    pub of_no_request_to: Vec<String>,
    /// The latest calls that were attributed to no request of any route, newest first.
    pub unattributed: Vec<UnattributedCall>,
    /// Where legacy opened tunnels (CONNECT) to, for whatever request: those to which most were opened first, 64 at
    /// most. What goes through a tunnel is not seen: it is in none of the other numbers, and compared with nothing.
    #[serde(default)]
    pub tunnels: Vec<TunnelRow>,
    /// Tunnels to hosts that are not among these.
    #[serde(default)]
    pub tunnels_to_others: u64,
}

/// The tunnels that legacy opened to one host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TunnelRow {
    /// The host and port.
    pub to: String,
    /// The service that has this address; `null` if none has.
    pub service: Option<ServiceName>,
    /// How many were opened since the process started.
    pub opened: u64,
    /// How many of them are open.
    pub open: u64,
    /// When the last one was opened.
    pub last_opened: Timestamp,
}

/// The numbers of attributed calls, by what identified their request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AttributedCalls {
    /// By the `traceparent`.
    pub traceparent: u64,
    /// By the declared header.
    pub header: u64,
    /// By the declared value.
    pub value: u64,
}

/// The numbers of calls for all routes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EgressCalls {
    /// Calls that were attributed to a request that is compared.
    pub attributed: u64,
    /// Calls for requests that are not compared; they count in no share.
    #[serde(default)]
    pub not_compared: u64,
    /// Calls that several requests could have caused.
    pub ambiguous: u64,
    /// Calls that no watched request caused, as far as is known.
    pub unattributed: u64,
    /// The share of all calls but those in `not_compared` that was attributed, from 0 to 1; `null` if there was none.
    pub attributed_share: Option<f64>,
    /// Attributed calls that were not kept for the comparison (`egress_bytes_max`, or too many for one request): the
    /// effects of their requests are not judged.
    pub not_kept: u64,
    /// Requests whose calls were not watched, or not until the end of the request (`egress_requests_max`).
    pub requests_left_out: u64,
    /// Requests that are not compared and were not known, or not until the end of the request
    /// (`egress_uncompared_requests_max`): calls that are found by header or value are ambiguous meanwhile.
    #[serde(default, alias = "bystanders_left_out")]
    pub uncompared_requests_left_out: u64,
}

/// A call that was attributed to no request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UnattributedCall {
    /// When the call ended.
    pub at: Timestamp,
    /// The service that the call went to; `null` if no service has the call's address.
    pub service: Option<ServiceName>,
    /// The method.
    pub method: String,
    /// The URL, redacted.
    pub url: String,
    /// `ambiguous` or `unattributed`.
    pub outcome: String,
}
