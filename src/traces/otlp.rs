//! Spans as OTLP writes them: an `ExportTraceServiceRequest` in the JSON encoding
//! (<https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding>).
//!
//! Always true: ids are lower-case hex digits, and 64-bit numbers are strings, as that encoding requires.

use jiff::Timestamp;
use serde::Serialize;

use super::span::{Attribute, Span};

/// The status code of a span that failed.
const STATUS_ERROR: u32 = 2;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ExportRequest<'a> {
    resource_spans: [ResourceSpans<'a>; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ResourceSpans<'a> {
    resource: Resource<'a>,
    scope_spans: [ScopeSpans<'a>; 1],
}

#[derive(Serialize)]
struct Resource<'a> {
    attributes: [KeyValue<'a>; 2],
}

#[derive(Serialize)]
struct ScopeSpans<'a> {
    scope: Scope,
    spans: Vec<OtlpSpan<'a>>,
}

#[derive(Serialize)]
struct Scope {
    name: &'static str,
    version: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OtlpSpan<'a> {
    trace_id: String,
    span_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_span_id: Option<String>,
    name: &'a str,
    kind: u32,
    start_time_unix_nano: String,
    end_time_unix_nano: String,
    attributes: Vec<KeyValue<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status<'a>>,
}

#[derive(Serialize)]
struct Status<'a> {
    code: u32,
    message: &'a str,
}

#[derive(Serialize)]
struct KeyValue<'a> {
    key: &'a str,
    value: AnyValue<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
enum AnyValue<'a> {
    StringValue(&'a str),
    IntValue(String),
}

/// The body of a request that exports these spans.
pub(super) fn export_request(service_name: &str, spans: &[Span]) -> serde_json::Result<Vec<u8>> {
    let text = |key, value| KeyValue { key, value: AnyValue::StringValue(value) };
    let attributes = [text("service.name", service_name), text("service.version", env!("CARGO_PKG_VERSION"))];
    let scope = Scope { name: "pointsman", version: env!("CARGO_PKG_VERSION") };
    let scope_spans = [ScopeSpans { scope, spans: spans.iter().map(otlp_span).collect() }];
    let resource_spans = [ResourceSpans { resource: Resource { attributes }, scope_spans }];
    serde_json::to_vec(&ExportRequest { resource_spans })
}

fn otlp_span(span: &Span) -> OtlpSpan<'_> {
    let Span { context, parent, name, kind, start, end, attributes, error } = span;
    OtlpSpan {
        trace_id: format!("{:032x}", context.trace_id),
        span_id: format!("{:016x}", context.span_id),
        parent_span_id: parent.map(|parent| format!("{parent:016x}")),
        name,
        kind: *kind as u32,
        start_time_unix_nano: nanoseconds(*start),
        // A span of a machine whose clock was set back would end before it began.
        end_time_unix_nano: nanoseconds((*end).max(*start)),
        attributes: attributes.iter().map(|(key, value)| KeyValue { key, value: any_value(value) }).collect(),
        status: error.as_ref().map(|message| Status { code: STATUS_ERROR, message }),
    }
}

fn any_value(value: &Attribute) -> AnyValue<'_> {
    match value {
        Attribute::Text(text) => AnyValue::StringValue(text),
        Attribute::Number(number) => AnyValue::IntValue(number.to_string()),
    }
}

fn nanoseconds(time: Timestamp) -> String {
    time.as_nanosecond().max(0).to_string()
}
