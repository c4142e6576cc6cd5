//! A named HTTP base, and the limits for calls of steps to it.

use std::time::Duration;

use crate::names::ServiceName;

/// A named HTTP base.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// Its name: a metric label.
    pub name: ServiceName,
    /// At least one.
    pub urls: Vec<BaseUrl>,
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
    /// When an address gets no forwarded requests for a while; `None` means `eject: off`.
    pub eject: Option<Eject>,
    /// How its addresses are checked between requests; `None`: they are not.
    pub health: Option<HealthCheck>,
    /// The time over which an address that gets requests again gets its full share of them.
    pub slow_start: Option<Duration>,
}

impl Service {
    /// A service without settings.
    pub fn at(name: impl Into<ServiceName>, urls: impl IntoIterator<Item = http::Uri>) -> Self {
        Self {
            name: name.into(),
            urls: urls.into_iter().map(BaseUrl::from).collect(),
            keyed: false,
            connect: None,
            first_byte: None,
            calls_max: None,
            requests_max: None,
            breaker: None,
            rate: None,
            eject: Some(Eject::default()),
            health: None,
            slow_start: None,
        }
    }
}

/// One of a service's base URLs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseUrl {
    /// `http://host:port` and an optional base path, no trailing slash.
    pub uri: http::Uri,
    /// Its share of the requests is its weight divided by the sum of all weights. At least 1.
    pub weight: u32,
}

impl From<http::Uri> for BaseUrl {
    fn from(uri: http::Uri) -> Self {
        Self { uri, weight: 1 }
    }
}

/// When an address of a service gets no forwarded requests for a while: at once when it accepts no connection, or when
/// several requests in a row got no answer. Concerns services with more than one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Eject {
    /// So many requests in a row without an answer. At least 1.
    pub after: u32,
    /// For this long the first time, doubled each time it happens again soon …
    pub time: Duration,
    /// … up to this.
    pub time_max: Duration,
}

impl Default for Eject {
    fn default() -> Self {
        Self { after: 3, time: Duration::from_secs(10), time_max: Duration::from_secs(300) }
    }
}

/// A request that is sent to each address of a service again and again, to find out whether it can serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// The target of the `GET`, below the base URL.
    pub path: String,
    /// The pause between two checks of an address.
    pub every: Duration,
    /// A check without a reply after this time has failed.
    pub timeout: Duration,
    /// An address gets no requests after so many failures in a row …
    pub failures: u32,
    /// … and gets them again after so many successes in a row.
    pub successes: u32,
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
    /// It stays open for this long before trial calls (`probes`) go through; doubled each time one of them fails …
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
