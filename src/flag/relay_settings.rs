//! How requests are forwarded to legacy, and whether answers of the engine are compressed as those of legacy are.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

/// How requests are forwarded, as a service or a route says it. What a route says takes precedence.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RelaySettings {
    /// A request with a body of at most so many bytes is forwarded when the client has sent all of it, so that a slow
    /// client holds no connection and no turn of the service. 0: every body is forwarded while it comes.
    pub buffer_request: Option<u64>,
    /// The longest time from the request's last byte to the reply's first byte.
    pub first_byte: Option<Duration>,
    /// The longest pause within a body, either way.
    pub idle: Option<Duration>,
    /// The longest time of the whole exchange.
    pub total: Option<TotalTimeout>,
    /// Whether answers of the engine are compressed, as those of the service are.
    pub compress: Option<Compress>,
}

/// How answers of the engine are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Compress {
    /// They are not.
    Off,
    /// With gzip, for clients that accept it.
    Gzip,
}

/// The longest time of a whole exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TotalTimeout {
    /// It has no limit.
    Off,
    /// It has this one.
    After(Duration),
}

impl RelaySettings {
    /// These settings, and where they are silent those of `others`.
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
