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
    /// The service's name: a metric label.
    pub name: ServiceName,
    /// The base URLs; at least one.
    pub urls: Vec<BaseUrl>,
    /// Whether the service honours `Idempotency-Key`, so that a repeat with the same key and bytes is harmless.
    pub keyed: bool,
    /// Overrides the limit for connecting, for forwarded requests and for calls of steps.
    pub connect: Option<Duration>,
    /// How requests are forwarded to the service as a route's legacy. Its `first_byte` also ends an attempt of a step,
    /// if that is earlier than the step's `timeout`.
    pub relay: RelaySettings,
    /// Overrides the limit on calls of steps in flight at the same time.
    pub calls_max: Option<u64>,
    /// How many requests may be forwarded to the service, as a route's legacy, at the same time; others wait for their
    /// turn. `None`: any number.
    pub requests_max: Option<u64>,
    /// When calls of steps are refused without being tried; `None` means `breaker: off`.
    pub breaker: Option<BreakerSettings>,
    /// The highest rate at which calls of steps may begin.
    pub rate: Option<Rate>,
    /// When an address gets no requests for a while; `None` means `eject: off`.
    pub eject: Option<Eject>,
    /// How the service's addresses are checked between requests; `None` means not at all.
    pub health: Option<HealthCheck>,
    /// How long it takes until an address that is new or gets requests again gets its full share of them.
    pub slow_start: Option<Duration>,
    /// What TLS handshakes need; `None` if none of the service's URLs is an https URL.
    pub tls: Option<ServiceTls>,
    /// Which version of HTTP requests to the service use.
    pub http: HttpVersion,
    /// The `Host` field that the service gets.
    pub host: SentHost,
    /// How the service reads paths, as a route's legacy.
    pub paths: PathConventions,
    /// Whether the names of header fields in requests to the service and in its replies are forwarded as they were
    /// written.
    pub preserve_header_case: bool,
}

/// The `Host` field that a service gets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SentHost {
    /// The client's in requests that are forwarded; that of the URL in calls of steps.
    #[default]
    Client,
    /// That of the URL.
    Url,
    /// A fixed value.
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
    /// `http://host:port` or `https://host:port` with an optional base path, without a trailing slash.
    pub uri: http::Uri,
    /// The weight, at least 1: the URL's share of the requests is its weight divided by the sum of all weights.
    pub weight: u32,
}

impl BaseUrl {
    /// Whether requests to the URL use TLS.
    pub fn is_https(&self) -> bool {
        self.uri.scheme_str() == Some("https")
    }
    /// The port of the URL, or else the default port of its scheme.
    pub fn port(&self) -> u16 {
        self.uri.port_u16().unwrap_or(if self.is_https() { 443 } else { 80 })
    }
}

impl From<http::Uri> for BaseUrl {
    fn from(uri: http::Uri) -> Self {
        Self { uri, weight: 1 }
    }
}

/// When an address of a service gets no requests for a while: at once if it accepts no connection, or after several
/// requests in a row without an answer. Concerns services with more than one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Eject {
    /// How many requests in a row without an answer cause an ejection. At least 1.
    pub after: u32,
    /// How long the first ejection lasts. Doubled for each further one that follows soon, up to `time_max`.
    pub time: Duration,
    /// The longest time of an ejection.
    pub time_max: Duration,
}

impl Default for Eject {
    fn default() -> Self {
        Self { after: 3, time: Duration::from_secs(10), time_max: Duration::from_secs(300) }
    }
}

/// A request that is sent to each address of a service periodically, to find out whether it can serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// The target of the `GET`, below the base URL.
    pub path: String,
    /// The pause between two checks of an address.
    pub every: Duration,
    /// A check without a reply after this time has failed.
    pub timeout: Duration,
    /// After how many failures in a row an address gets no requests.
    pub failures: u32,
    /// After how many successes in a row an address gets requests again.
    pub successes: u32,
}

/// When calls to a service are refused without being tried.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BreakerSettings {
    /// The breaker opens when at least `min` calls ended within `over` and at least this share of them failed. Above
    /// 0.0, at most 1.0.
    pub failures: f64,
    /// The time over which calls and failures are counted.
    pub over: Duration,
    /// With fewer calls than this within `over` the breaker does not open.
    pub min: u32,
    /// A call that takes longer counts as failed.
    pub slow: Option<Duration>,
    /// How long the breaker stays open before trial calls (`probes`) go through. Doubled each time one of them fails,
    /// up to `open_max`.
    pub open: Duration,
    /// The longest time for which the breaker stays open.
    pub open_max: Duration,
    /// How many probes go through. If all succeed, the breaker closes.
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
    /// How many calls may begin within `per`; at least 1.
    pub calls: u64,
    /// The time within which `calls` may begin.
    pub per: Duration,
    /// How many calls may begin at once after a pause; at least 1.
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
