//! The facts of one exchange.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Version};
use jiff::Timestamp;

use crate::flag::{Decision, RouteFlag, State};
use crate::limits::ACCESS_LOG_TEXT_BYTES_MAX;
use crate::names::{RouteId, ServiceName};

/// The facts of one exchange, filled in as they become known. `None` means unknown or not applicable.
#[derive(Clone, Debug)]
pub struct AccessLogRecord {
    /// When the exchange ended.
    pub ended: Timestamp,
    /// The time from the complete head of the request to the end of the exchange.
    pub duration: Duration,
    /// The address of the client's side of the connection.
    pub client: IpAddr,
    /// What the request's head says; `None` if it could not be read.
    pub head: Option<RequestHead>,
    /// How many bytes of the request's body arrived.
    pub request_bytes: u64,
    /// The trace that the request belongs to.
    pub trace_id: Option<u128>,
    /// The route.
    pub route: Option<RouteId>,
    /// The route's effective state.
    pub state: Option<State>,
    /// The rung at which the request was handled.
    pub rung: Option<State>,
    /// Who should answer, according to the decision.
    pub decision: Option<&'static str>,
    /// If the decision is `engine`, why; if it is `legacy`, what the engine does after legacy's reply.
    pub reason: Option<&'static str>,
    /// Who answered.
    pub arm: Option<&'static str>,
    /// The legacy service that was called, the service that legacy called, or the one whose reply a step streams.
    pub service: Option<ServiceName>,
    /// How long it took to get a connection to that service.
    pub connect: Option<Duration>,
    /// The time from sending the request to that service until the first byte of its reply.
    pub first_byte: Option<Duration>,
    /// The status of the reply; `None` if none was begun.
    pub status: Option<u16>,
    /// How many bytes of the reply's body were passed on.
    pub reply_bytes: u64,
    /// Why the exchange failed.
    pub failure: Option<Cow<'static, str>>,
}

/// What a request's head says.
#[derive(Clone, Debug)]
pub struct RequestHead {
    /// The method.
    pub method: Method,
    /// The target as it arrived.
    pub target: Text,
    /// The path template of the route, if it has parameters: the value of one with a secret name is not shown.
    pub template: Option<Arc<str>>,
    /// The version of HTTP.
    pub version: Version,
    /// The header `user-agent`.
    pub user_agent: Option<Text>,
    /// The header `referer`.
    pub referer: Option<Text>,
    /// The header `x-forwarded-for`, where it is trusted.
    pub forwarded_for: Option<Text>,
}

/// A bounded copy of bytes that a client sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text(Box<[u8]>);

impl Text {
    /// Copies the bytes; `...` replaces everything beyond the bound.
    pub fn copy(bytes: &[u8]) -> Self {
        match bytes.get(..ACCESS_LOG_TEXT_BYTES_MAX) {
            Some(beginning) if beginning.len() < bytes.len() => Self([beginning, b"..."].concat().into()),
            _ => Self(bytes.into()),
        }
    }
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl AccessLogRecord {
    /// Creates the record of an exchange that begins.
    pub fn new(client: IpAddr, head: Option<RequestHead>) -> Self {
        Self {
            ended: Timestamp::UNIX_EPOCH,
            duration: Duration::ZERO,
            client,
            head,
            request_bytes: 0,
            trace_id: None,
            route: None,
            state: None,
            rung: None,
            decision: None,
            reason: None,
            arm: None,
            service: None,
            connect: None,
            first_byte: None,
            status: None,
            reply_bytes: 0,
            failure: None,
        }
    }

    /// Notes the route and its effective state; `template` is that of its path, if it has parameters.
    pub fn set_route(&mut self, flag: &RouteFlag, template: Option<&Arc<str>>) {
        self.route = Some(flag.route.id.clone());
        self.state = Some(flag.effective.state);
        if let Some(head) = &mut self.head {
            head.template = template.cloned();
        }
    }

    /// Notes what the decision says, and the rung.
    pub fn set_decision(&mut self, decision: &Decision) {
        self.rung = Some(decision.rung());
        (self.decision, self.reason) = (Some(decision.as_str()), decision.reason());
    }

    /// Whether the exchange was refused, cut off, or answered with a 5xx: such an exchange is always logged.
    pub(super) fn has_failed(&self) -> bool {
        self.failure.is_some() || self.status.is_none_or(|status| status >= 500)
    }
}

/// The version of HTTP as a number: `1.1`.
pub(super) fn version_name(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "0.9",
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        Version::HTTP_3 => "3",
        _ => "1.1",
    }
}
