//! `traces:` of `pointsman.yaml`.

use http::Uri;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::problem::{Problems, Site};
use crate::traces::TracesSettings;

/// Spans of exchanges and runs for an OpenTelemetry collector.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TracesDraft {
    /// The base of the collector's OTLP/HTTP receiver, such as `http://127.0.0.1:4318`.
    pub otlp: String,
    /// The share of the traces that begin here and are recorded, from 0 to 1; a request that comes with a `traceparent`
    /// is recorded if that says so. Default 1.
    pub sample: Option<f64>,
    /// The attribute `service.name` of the spans. Default `pointsman`.
    pub service_name: Option<String>,
}

/// Checks a draft.
pub(crate) fn check(draft: &TracesDraft, site: &Site, problems: &mut Problems) -> Option<TracesSettings> {
    let TracesDraft { otlp, sample, service_name } = draft;
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
    let service_name = service_name.clone().unwrap_or_else(|| "pointsman".to_owned());
    Some(TracesSettings { otlp: otlp.ok()?, sample: is_share.then_some(sample)?, service_name })
}

fn collector(text: &str) -> Result<Uri, String> {
    let uri = text.parse::<Uri>().map_err(|error| format!("`{text}` is not a URL: {error}"))?;
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    match uri.scheme_str() {
        Some("http") if authority.contains('@') || uri.query().is_some() => {
            Err("the URL of a collector has neither credentials nor a query".to_owned())
        }
        Some("http") if !authority.is_empty() => Ok(uri),
        Some("https") => Err("spans are sent over plain HTTP: let a collector on this machine pass them on".to_owned()),
        _ => Err(format!("`{text}` is not the URL of a collector")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_http_base_is_a_collector() {
        for good in ["http://127.0.0.1:4318", "http://collector:4318/base/"] {
            assert!(collector(good).is_ok(), "{good}");
        }
        for bad in
            ["127.0.0.1:4318", "https://collector", "http://user:pw@collector", "http://c/?a=b", "", "/v1/traces"]
        {
            assert!(collector(bad).is_err(), "{bad}");
        }
    }
}
