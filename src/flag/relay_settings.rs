//! How requests are forwarded to legacy, and whether the engine's answers are compressed like legacy's.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

/// How requests are forwarded, as a service or a route declares it. What the route declares takes precedence.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RelaySettings {
    /// A request with a body of at most this many bytes is forwarded only when the client has sent all of it, so that a
    /// slow client occupies neither a connection nor one of the service's `requests_max`. 0: every body is forwarded
    /// while it arrives.
    pub buffer_request: Option<u64>,
    /// How long to wait from the request's last byte to the reply's first byte.
    pub first_byte: Option<Duration>,
    /// The longest pause within a body, in either direction.
    pub idle: Option<Duration>,
    /// The longest time of the whole exchange.
    pub total: Option<TotalTimeout>,
    /// Whether the engine's answers are compressed, because those of the service are.
    pub compress: Option<Compress>,
}

/// How the engine's answers are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Compress {
    /// Not at all.
    Off,
    /// With gzip, for clients that accept it.
    Gzip,
}

/// The longest time of a whole exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TotalTimeout {
    /// There is no limit.
    Off,
    /// The exchange ends after this time.
    After(Duration),
}

impl RelaySettings {
    /// These settings; where they are not set, those of `others`.
    pub fn or(&self, others: &Self) -> Self {
        let Self { buffer_request, first_byte, idle, total, compress } = *self;
        Self {
            buffer_request: buffer_request.or(others.buffer_request),
            first_byte: first_byte.or(others.first_byte),
            idle: idle.or(others.idle),
            total: total.or(others.total),
            compress: compress.or(others.compress),
        }
    }
}
