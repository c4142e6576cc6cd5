//! `traces:` of `pointsman.yaml`.

use std::collections::BTreeMap;

use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use schemars::JsonSchema;
use serde::Deserialize;

use super::listener_tls::Context;
use super::service_tls::{self, PlatformRoots};
use crate::flag::file::ServiceTlsDraft;
use crate::problem::{Problems, Site};
use crate::secret::Secret;
use crate::traces::{TracesSettings, TrustSampled};

/// Spans of exchanges and runs for an OpenTelemetry collector.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TracesDraft {
    /// The base of the collector's OTLP/HTTP receiver, such as `http://127.0.0.1:4318` or `https://otlp.example.org`.
    pub otlp: String,
    /// How the certificate of a collector with an `https://` URL is verified, as for a service.
    pub tls: Option<ServiceTlsDraft>,
    /// Header fields that the collector gets; their values may name secrets: `Bearer ${secrets.NAME}`.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The share of the traces that begin here and are recorded, from 0 to 1. Default 1.
    pub sample: Option<f64>,
    /// Which requests' `traceparent` decides whether their trace is recorded: `peers` (the default: requests from peers
    /// under `trust_forwarded`), `always` or `never`. For other requests, `sample` decides.
    #[serde(default)]
    pub trust_sampled: TrustSampledDraft,
    /// The attribute `service.name` of the spans. Default `pointsman`.
    pub service_name: Option<String>,
}

/// Which requests' `traceparent` decides whether their trace is recorded.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum TrustSampledDraft {
    /// No request's.
    Never,
    /// That of requests from peers under `trust_forwarded`.
    #[default]
    Peers,
    /// Every request's.
    Always,
}

/// The secrets that the files name, and the values of those that could be read.
pub(super) struct Secrets<'a, D> {
    pub named: &'a BTreeMap<String, D>,
    pub values: &'a BTreeMap<String, Secret>,
}

/// Checks a draft.
pub(super) fn check<D>(
    draft: &TracesDraft,
    secrets: &Secrets<'_, D>,
    site: &Site,
    context: &mut Context<'_>,
    problems: &mut Problems,
) -> Option<TracesSettings> {
    let TracesDraft { otlp, tls, headers, sample, trust_sampled, service_name } = draft;
    let sample = sample.unwrap_or(1.0);
    let is_share = (0.0..=1.0).contains(&sample);
    if !is_share {
        problems
            .error(&site.key("sample"), format!("`{sample}` is not a share"))
            .hint("a number from 0 to 1: 0.1 records a tenth of the traces that begin here");
    }
    let otlp = collector(otlp).map_err(|why| {
        problems.error(&site.key("otlp"), why).hint("for example `http://127.0.0.1:4318`");
    });
    let headers = collector_headers(headers, secrets, &site.key("headers"), problems);
    let otlp = otlp.ok()?;
    let is_https = otlp.scheme_str() == Some("https");
    let tls_site = site.key("tls");
    let tls = match (is_https, tls) {
        (false, Some(_)) => {
            problems
                .error(&tls_site, "`tls:` is allowed only with an `https://` URL in `otlp`")
                .hint("`otlp: https://…`");
            return None;
        }
        (false, None) => None,
        (true, tls) => {
            let (tls, site) = (tls.clone().unwrap_or_default(), if tls.is_some() { &tls_site } else { site });
            if tls.cert.is_some() != tls.key.is_some() {
                problems.error(site, "`cert:` and `key:` belong together").hint("give both, or neither");
            }
            Some(service_tls::build(&tls, site, &mut PlatformRoots::default(), context, problems)?)
        }
    };
    let has_credentials = draft.headers.values().any(|value| value.contains("${"));
    if !is_https && has_credentials && !is_loopback(&otlp) {
        problems
            .warn(&site.key("headers"), "secrets are sent to the collector in clear")
            .hint("use an `https://` URL, or a collector on this machine that passes the spans on");
    }
    let trust_sampled = match trust_sampled {
        TrustSampledDraft::Never => TrustSampled::Never,
        TrustSampledDraft::Peers => TrustSampled::Peers,
        TrustSampledDraft::Always => TrustSampled::Always,
    };
    let service_name = service_name.clone().unwrap_or_else(|| "pointsman".to_owned());
    let sample = is_share.then_some(sample)?;
    Some(TracesSettings { otlp, tls, headers: headers?, sample, trust_sampled, service_name })
}

fn collector(text: &str) -> Result<Uri, String> {
    let uri = text.parse::<Uri>().map_err(|error| format!("`{text}` is not a URL: {error}"))?;
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    match uri.scheme_str() {
        Some("http" | "https") if authority.contains('@') || uri.query().is_some() => {
            Err("the URL of a collector has neither credentials nor a query: use `headers:`".to_owned())
        }
        Some("http" | "https") if !authority.is_empty() => Ok(uri),
        _ => Err(format!("`{text}` is not the URL of a collector")),
    }
}

fn is_loopback(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn collector_headers<D>(
    headers: &BTreeMap<String, String>,
    secrets: &Secrets<'_, D>,
    site: &Site,
    problems: &mut Problems,
) -> Option<HeaderMap> {
    let (mut all, mut is_good) = (HeaderMap::new(), true);
    for (name, text) in headers {
        let site = site.key(name.as_str());
        let header = header_name(name).and_then(|name| Ok((name, header_value(text, secrets)?)));
        match header {
            Ok((name, Some(value))) => drop(all.insert(name, value)),
            // The check of the secret itself reports why it could not be read.
            Ok((_, None)) => {}
            Err(why) => {
                problems.error(&site, why).hint("for example `authorization: Bearer ${secrets.otlp}`");
                is_good = false;
            }
        }
    }
    is_good.then_some(all)
}

fn header_name(text: &str) -> Result<HeaderName, String> {
    let name = text.parse::<HeaderName>().map_err(|_| format!("`{text}` is not the name of a header"))?;
    match [CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, TRANSFER_ENCODING].contains(&name) {
        true => Err(format!("`{name}` is set by the exporter")),
        false => Ok(name),
    }
}

/// A value with its secrets filled in; `None` if a secret could not be read.
fn header_value<D>(text: &str, secrets: &Secrets<'_, D>) -> Result<Option<HeaderValue>, String> {
    let (mut filled, mut rest) = (String::new(), text);
    while let Some((before, behind)) = rest.split_once("${") {
        let unsupported = || "a value may have `${secrets.NAME}`, and no other expression".to_owned();
        let (name, after) = behind.split_once('}').ok_or_else(unsupported)?;
        let name = name.trim().strip_prefix("secrets.").ok_or_else(unsupported)?;
        if !secrets.named.contains_key(name) {
            return Err(format!("there is no secret `{name}`"));
        }
        let Some(secret) = secrets.values.get(name) else { return Ok(None) };
        filled.push_str(before);
        filled.push_str(secret.reveal());
        rest = after;
    }
    filled.push_str(rest);
    // The error is dropped: the value may be a secret.
    let mut value = HeaderValue::from_str(&filled).map_err(|_| "its value cannot be sent in a header".to_owned())?;
    value.set_sensitive(true);
    Ok(Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_of_http_or_https_is_a_collector() {
        for good in ["http://127.0.0.1:4318", "http://collector:4318/base/", "https://otlp.example.org"] {
            assert!(collector(good).is_ok(), "{good}");
        }
        for bad in ["127.0.0.1:4318", "ftp://collector", "https://user:pw@collector", "http://c/?a=b", "", "/v1/traces"]
        {
            assert!(collector(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn secrets_are_filled_into_headers_and_nothing_else_is() {
        let named = BTreeMap::from([("otlp".to_owned(), ()), ("absent".to_owned(), ())]);
        let values = BTreeMap::from([("otlp".to_owned(), Secret::new("s3cret"))]);
        let secrets = Secrets { named: &named, values: &values };
        let value = |text| header_value(text, &secrets);
        let filled = value("Bearer ${secrets.otlp}, ${ secrets.otlp }").unwrap().unwrap();
        assert_eq!((filled.as_bytes(), filled.is_sensitive()), (&b"Bearer s3cret, s3cret"[..], true));
        assert_eq!(value("plain").unwrap().unwrap().as_bytes(), b"plain");
        assert!(value("${secrets.absent}").unwrap().is_none());
        for bad in ["${secrets.other}", "${request.body}", "${secrets.otlp", "a\nb"] {
            assert!(value(bad).is_err(), "{bad}");
        }
        assert!(header_name("x-api-key").is_ok() && header_name("a b").is_err() && header_name("Host").is_err());
    }
}
