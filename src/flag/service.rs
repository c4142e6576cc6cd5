//! A named HTTP base, and the limits for calls of steps to it.

use std::time::Duration;

use crate::names::ServiceName;

/// A named HTTP base.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// Its name: a metric label.
    pub name: ServiceName,
    /// `http://host:port` and an optional base path, no trailing slash. At least one.
    pub urls: Vec<http::Uri>,
    /// Whether it honours `Idempotency-Key`, so that a repeat with the same key and bytes is harmless.
    pub keyed: bool,
    /// Overrides the limit for connecting, both where the service is a route's legacy and for calls of steps.
    pub connect: Option<Duration>,
    /// Overrides the limit for the first byte where the service is a route's legacy; for a step, also ends the attempt,
    /// if that is earlier than the step's `timeout`.
    pub first_byte: Option<Duration>,
    /// Overrides the limit on steps' calls in flight at the same time.
    pub calls_max: Option<u64>,
    /// The most requests that are forwarded to it at the same time, where it is a route's legacy; others wait for their
    /// turn. `None`: any number.
    pub requests_max: Option<u64>,
    /// When steps' calls are refused without being tried; `None` means `breaker: off`.
    pub breaker: Option<Breaker>,
    /// The highest rate at which calls of steps may begin.
    pub rate: Option<Rate>,
}

/// When calls to a service are refused without being tried.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Breaker {
    /// It opens when at least `min` calls ended within `over` and at least this share of them failed. Above 0.0, at
    /// most 1.0.
    pub failures: f64,
    /// The time over which calls and failures are counted.
    pub over: Duration,
    /// With fewer calls than this within `over` it does not open.
    pub min: u32,
    /// A call that takes longer counts as failed.
    pub slow: Option<Duration>,
    /// It stays open for this long before probes go through; doubled each time a probe fails …
    pub open: Duration,
    /// … up to this.
    pub open_max: Duration,
    /// How many probes go through. If all succeed, it closes.
    pub probes: u32,
}

impl Default for Breaker {
    /// The breaker of a service that declares none: it opens when half of at least 20 calls in 10 s failed.
    fn default() -> Self {
        Self {
            failures: 0.5,
            over: Duration::from_secs(10),
            min: 20,
            slow: None,
            open: Duration::from_secs(5),
            open_max: Duration::from_secs(60),
            probes: 3,
        }
    }
}

/// The highest rate at which calls may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// This many calls, at least one …
    pub calls: u64,
    /// … in this time.
    pub per: Duration,
    /// How many may begin at once after a pause, at least one.
    pub burst: u64,
}

impl std::fmt::Display for Rate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let unit = match self.per.as_secs() {
            3_600 => "h",
            60 => "m",
            _ => "s",
        };
        write!(f, "{}/{unit}", self.calls)
    }
}
