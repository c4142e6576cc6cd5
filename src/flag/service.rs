//! A named HTTP base, and the limits for calls of steps to it.

use std::time::Duration;

use http::uri::Authority;

use super::PathConventions;
use super::RelaySettings;
use super::http_version::HttpVersion;
use super::service_tls::ServiceTls;
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
    /// How requests are forwarded to it, where it is a route's legacy. Its `first_byte` also ends an attempt of a step,
    /// if that is earlier than the step's `timeout`.
    pub relay: RelaySettings,
    /// Overrides the limit on steps' calls in flight at the same time.
    pub calls_max: Option<u64>,
    /// The most requests that are forwarded to it at the same time, where it is a route's legacy; others wait for their
    /// turn. `None`: any number.
    pub requests_max: Option<u64>,
    /// When steps' calls are refused without being tried; `None` means `breaker: off`.
    pub breaker: Option<BreakerSettings>,
    /// The highest rate at which calls of steps may begin.
    pub rate: Option<Rate>,
    /// When an address gets no requests for a while; `None` means `eject: off`.
    pub eject: Option<Eject>,
    /// How its addresses are checked between requests; `None`: they are not.
    pub health: Option<HealthCheck>,
    /// The time over which an address that gets requests again gets its full share of them.
    pub slow_start: Option<Duration>,
    /// What TLS handshakes need; `None` if none of its URLs is an https URL.
    pub tls: Option<ServiceTls>,
    /// Which version of HTTP is spoken to it.
    pub http: HttpVersion,
    /// The `Host` field that it gets.
    pub host: SentHost,
    /// How it reads paths, where it is a route's legacy.
    pub paths: PathConventions,
    /// Whether the names of header fields are forwarded to it, and its replies to clients, in the case in which they
    /// came.
    pub preserve_header_case: bool,
}

/// The `Host` field that a service gets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SentHost {
    /// The client's, in requests that are forwarded; that of the URL, in calls of steps.
    #[default]
    Client,
    /// That of the URL.
    Url,
    /// This one.
    Fixed(Authority),
}

impl Service {
    /// A service without settings.
    pub fn at(name: impl Into<ServiceName>, urls: impl IntoIterator<Item = http::Uri>) -> Self {
        Self {
            name: name.into(),
            urls: urls.into_iter().map(BaseUrl::from).collect(),
            keyed: false,
            connect: None,
            relay: RelaySettings::default(),
            calls_max: None,
            requests_max: None,
            breaker: None,
            rate: None,
            eject: Some(Eject::default()),
            health: None,
            slow_start: None,
            tls: None,
            http: HttpVersion::default(),
            host: SentHost::default(),
            paths: PathConventions::default(),
            preserve_header_case: false,
        }
    }
}

/// One of a service's base URLs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseUrl {
    /// `http://host:port` or `https://host:port` and an optional base path, no trailing slash.
    pub uri: http::Uri,
    /// Its share of the requests is its weight divided by the sum of all weights. At least 1.
    pub weight: u32,
}

impl BaseUrl {
    /// Whether requests go to it over TLS.
    pub fn is_https(&self) -> bool {
        self.uri.scheme_str() == Some("https")
    }
    /// The port that it names, or the one of its scheme.
    pub fn port(&self) -> u16 {
        self.uri.port_u16().unwrap_or(if self.is_https() { 443 } else { 80 })
    }
}

impl From<http::Uri> for BaseUrl {
    fn from(uri: http::Uri) -> Self {
        Self { uri, weight: 1 }
    }
}

/// When an address of a service gets no requests for a while: at once when it accepts no connection, or when
/// several requests in a row got no answer. Concerns services with more than one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Eject {
    /// So many requests in a row without an answer. At least 1.
    pub after: u32,
    /// How long the first ejection lasts. Doubled each time it happens again soon, up to `time_max`.
    pub time: Duration,
    /// The longest time of an ejection.
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
    /// After so many failures in a row an address gets no requests.
    pub failures: u32,
    /// After so many successes in a row it gets requests again.
    pub successes: u32,
}

/// When calls to a service are refused without being tried.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BreakerSettings {
    /// It opens when at least `min` calls ended within `over` and at least this share of them failed. Above 0.0, at
    /// most 1.0.
    pub failures: f64,
    /// The time over which calls and failures are counted.
    pub over: Duration,
    /// With fewer calls than this within `over` it does not open.
    pub min: u32,
    /// A call that takes longer counts as failed.
    pub slow: Option<Duration>,
    /// How long it stays open before trial calls (`probes`) go through. Doubled each time one of them fails, up to
    /// `open_max`.
    pub open: Duration,
    /// The longest time for which it stays open.
    pub open_max: Duration,
    /// How many probes go through. If all succeed, it closes.
    pub probes: u32,
}

impl Default for BreakerSettings {
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
    /// How many calls may begin within `per`; at least one.
    pub calls: u64,
    /// The time within which `calls` may begin.
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
