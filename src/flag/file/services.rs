//! A service: its form in the files, and its check.

use std::borrow::Cow;

use http::Uri;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::relay_settings::relay_settings;
use super::values::{check_name, duration};
use super::{
    BreakerDraft, BuildTls, EjectDraft, HealthDraft, ServicePathsDraft, ServiceTlsDraft, SizeDraft, TimeoutsDraft,
    UrlDraft,
};
use super::{addresses, breaker, service_tls};
use crate::flag::path::check_plain;
use crate::flag::{BaseUrl, Compress, Service};
use crate::problem::{Problems, Site};

/// A service: one base URL, or a map with more settings.
#[derive(Clone, Debug)]
pub enum ServiceDraft {
    /// One base URL.
    Url(String),
    /// A map of settings.
    Map(Box<ServiceMapDraft>),
}

/// A named HTTP base with its settings.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServiceMapDraft {
    /// `http://host:port` or `https://host:port`, with a base path if there is one; or `{ url: …, weight: 3 }`.
    pub urls: Vec<UrlDraft>,
    /// Whether the service honours `Idempotency-Key`.
    #[serde(default)]
    pub keyed: bool,
    /// How long a connection may take, for forwarded requests and for calls of steps: `2s`.
    pub connect: Option<String>,
    /// How long a reply's first byte may take, in both cases (within a step's `timeout`): `30s`.
    pub first_byte: Option<String>,
    /// As a route's legacy: the longest pause within a body, in either direction: `30s`.
    pub idle: Option<String>,
    /// As a route's legacy: the longest time of the whole exchange: `10m`, or `off`.
    pub total: Option<String>,
    /// As a route's legacy: a body of at most this size is forwarded only when it has arrived as a whole: `64KiB`.
    pub buffer_request: Option<SizeDraft>,
    /// As a route's legacy that compresses its replies: whether the engine's answers are compressed too: `gzip`, or
    /// `off` (the default).
    pub compress: Option<Compress>,
    /// How many calls of steps may be in flight at the same time.
    pub calls_max: Option<u64>,
    /// How many requests may be forwarded to the service at the same time; others wait for their turn.
    pub requests_max: Option<u64>,
    /// When calls of steps are refused without being tried; on by default, `off` switches it off.
    pub breaker: Option<BreakerDraft>,
    /// How many calls of steps may begin: `100/s`, `600/m`, `1000/h`.
    pub rate: Option<String>,
    /// How many calls of steps may begin at once after a pause.
    pub burst: Option<u64>,
    /// When an address gets no requests (forwarded ones and calls of steps) for a while; on by default, `off` switches
    /// it off.
    pub eject: Option<EjectDraft>,
    /// A request that is sent to each address periodically; an address that fails it gets neither forwarded requests
    /// nor calls of steps.
    pub health: Option<HealthDraft>,
    /// How long it takes until an address that is new or gets requests again gets its full share of them: `30s`.
    pub slow_start: Option<String>,
    /// The TLS of `https://` URLs; without it, the certificates that this machine trusts are trusted.
    pub tls: Option<ServiceTlsDraft>,
    /// Which version of HTTP the service is sent: `1` (the default), `2`, or `auto` (what an https service chooses).
    #[serde(default)]
    #[schemars(schema_with = "service_tls::text_or_number")]
    pub http: Option<Value>,
    /// The `Host` field that the service gets: `client` (the client's, the default), `url` (that of the URL), or a
    /// fixed one.
    pub host: Option<String>,
    /// As a route's legacy: how the service reads paths: `tomcat`, `spring`, `express`, `rails`, `iis`, `strict`, or a
    /// map.
    pub paths: Option<ServicePathsDraft>,
    /// As a route's legacy: whether the names of header fields are forwarded as they were written, in both directions;
    /// otherwise they are lower case.
    #[serde(default)]
    pub preserve_header_case: bool,
}

impl<'de> Deserialize<'de> for ServiceDraft {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::String(text) => Ok(Self::Url(text)),
            value => serde_json::from_value(value).map(Self::Map).map_err(serde::de::Error::custom),
        }
    }
}

impl JsonSchema for ServiceDraft {
    fn schema_name() -> Cow<'static, str> {
        "Service".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = ServiceMapDraft::json_schema(generator);
        schema.insert("type".to_owned(), serde_json::json!(["string", "object"]));
        schema.insert("description".to_owned(), "A named HTTP base: one URL, or a map with more settings.".into());
        schema
    }
}

/// Checks one entry of `services:`; `site` is where its value is.
pub fn check_service(
    name: &str,
    draft: &ServiceDraft,
    site: &Site,
    tls: &mut BuildTls<'_>,
    problems: &mut Problems,
) -> Option<Service> {
    let mut own = Problems::default();
    check_name("name for a service", name, &site.clone().at_key(), &mut own);
    let service = match draft {
        ServiceDraft::Url(url) => {
            let url = UrlDraft { url: url.clone(), weight: None, is_map: false };
            let draft = ServiceMapDraft { urls: vec![url], ..ServiceMapDraft::default() };
            build_service(name, &draft, site, |_| site.clone(), tls, &mut own)
        }
        ServiceDraft::Map(draft) => {
            build_service(name, draft, site, |index| site.key("urls").index(index), tls, &mut own)
        }
    };
    let bad = own.has_errors();
    problems.extend(own);
    (!bad).then_some(service)
}

fn build_service(
    name: &str,
    draft: &ServiceMapDraft,
    site: &Site,
    at: impl Fn(usize) -> Site,
    build_tls: &mut BuildTls<'_>,
    problems: &mut Problems,
) -> Service {
    let ServiceMapDraft { urls, keyed, connect, calls_max, requests_max, breaker, rate, burst, .. } = draft;
    if urls.is_empty() {
        problems.error(&site.key("urls"), format!("service `{name}` has no URL"));
    }
    if *calls_max == Some(0) {
        problems.error(&site.key("calls_max"), "with 0 no call could ever be made").hint("at least 1");
    }
    if *requests_max == Some(0) {
        problems.error(&site.key("requests_max"), "with 0 no request could ever be forwarded").hint("at least 1");
    }
    let connect = connect.as_ref().and_then(|text| duration(text, &site.key("connect"), problems));
    let ServiceMapDraft { first_byte, idle, total, .. } = draft.clone();
    let timeouts = TimeoutsDraft { first_byte, idle, total };
    let relay = relay_settings(draft.buffer_request.as_ref(), draft.compress, &timeouts, site, site, problems);
    let breaker = breaker::breaker(breaker.as_ref(), &site.key("breaker"), problems);
    let rate = breaker::rate(rate.as_ref(), *burst, site, problems);
    let eject = addresses::eject(draft.eject.as_ref(), &site.key("eject"), problems);
    let health = draft.health.as_ref().map(|health| addresses::health(health, &site.key("health"), problems));
    let slow_start = draft.slow_start.as_ref().and_then(|text| duration(text, &site.key("slow_start"), problems));
    let paths = draft.paths.as_ref().map(|paths| paths.check(&site.key("paths"), problems)).unwrap_or_default();
    let url = |(index, draft): (usize, &UrlDraft)| {
        let site = at(index);
        let weight = addresses::weight(draft, &site, problems);
        let at_url = if draft.is_map { site.key("url") } else { site };
        Some(BaseUrl { uri: base_url(&draft.url, &at_url, problems)?, weight })
    };
    let urls: Vec<BaseUrl> = urls.iter().enumerate().filter_map(url).collect();
    let has_https = urls.iter().any(BaseUrl::is_https);
    // With a wrong URL it is not known whether the service has https URLs, so `tls` is not checked.
    let tls = if urls.len() == draft.urls.len() {
        service_tls::tls(draft.tls.as_ref(), has_https, site, build_tls, problems)
    } else {
        None
    };
    let has_plain = !urls.iter().all(BaseUrl::is_https);
    let http = service_tls::http(draft.http.as_ref(), has_plain, site, problems);
    let host = service_tls::host(draft.host.as_ref(), site, problems);
    let (name, keyed, calls_max, requests_max) = (name.into(), *keyed, *calls_max, *requests_max);
    Service {
        name,
        urls,
        keyed,
        connect,
        relay,
        calls_max,
        requests_max,
        breaker,
        rate,
        eject,
        health,
        slow_start,
        tls,
        http,
        host,
        paths,
        preserve_header_case: draft.preserve_header_case,
    }
}

/// A base URL, without a slash at its end.
fn base_url(text: &str, site: &Site, problems: &mut Problems) -> Option<Uri> {
    let mut refuse = |message: String, hint: &str| {
        problems.error(site, message).hint(hint);
        None
    };
    let example = "for example http://127.0.0.1:9000 or https://shop.internal/api";
    let uri: Uri = match text.parse() {
        Ok(uri) => uri,
        Err(error) => return refuse(format!("`{text}` is not a URL: {error}"), example),
    };
    let scheme = match uri.scheme_str() {
        Some(scheme @ ("http" | "https")) => scheme,
        _ => return refuse(format!("`{text}` is not an http or https URL"), example),
    };
    let authority = uri.authority()?;
    if authority.as_str().contains('@') {
        let hint = "name credentials under `secrets:`, and use them in a step's headers";
        return refuse("a base URL cannot have a user name or password".into(), hint);
    }
    if authority.host().is_empty() || authority.port_u16() == Some(0) {
        return refuse(format!("`{text}` names no host and port that can be called"), example);
    }
    if uri.query().is_some() || text.contains('#') {
        return refuse("a base URL has neither query nor fragment".into(), example);
    }
    let path = uri.path();
    if check_plain(path).is_err() {
        return refuse(format!("the base path `{path}` has segments that servers interpret differently"), example);
    }
    let text = format!("{scheme}://{authority}{}", path.trim_end_matches('/'));
    text.parse().ok()
}
