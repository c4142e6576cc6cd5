//! Decodes bodies to the values that expressions see, and selects the parts of requests and replies that a plan reads.
//!
//! Always true: a body is decoded by its content type: JSON as it is, a form to a map, text to a string, anything else
//! to a value that represents the bytes ([`BytesMark`]); without a content type it is JSON if it can be read as that.
//! The selected parts are only those that the plan names, without the caller's credentials.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use serde_json::{Map, Value};

use crate::compare::{Body, Observation, decoded_body};
use crate::exchange::RequestCopy;
use crate::expression::{MediaType, ReadPath, parse_fields_strictly, parse_form_strictly, parse_json};
use crate::flag::has_raw_bytes;
use crate::limits::Limits;
use crate::workflow::{
    BytesMark, CREDENTIALS, CallBody, Plan, StepKind, VALUE_DEPTH_MAX, deeper_than, is_nested_beyond, values_in,
};

/// How deeply a decoded body may be nested.
pub(in crate::engine) fn depth_max(limits: &Limits) -> usize {
    usize::try_from(limits.output_depth_max).unwrap_or(usize::MAX).min(VALUE_DEPTH_MAX)
}

/// The bounds of a decoded body: bytes, nesting depth, number of values.
#[derive(Clone, Copy)]
pub(in crate::engine) struct DecodeBounds {
    pub bytes: usize,
    pub depth: usize,
    pub values: usize,
    /// Distinguishes the engine's encoding of raw bytes from JSON that looks like it.
    pub bytes_mark: BytesMark,
}

impl DecodeBounds {
    pub(in crate::engine) fn of(limits: &Limits, key_secret: &[u8; 32]) -> Self {
        let size = |limit| usize::try_from(limit).unwrap_or(usize::MAX);
        let (bytes, values) = (size(limits.output_bytes_max), size(limits.output_values_max));
        Self { bytes, depth: depth_max(limits), values, bytes_mark: BytesMark::new(key_secret) }
    }
}

/// Decodes a body by its content type.
///
/// # Errors
/// The content type says JSON or form, and the body cannot be read as that or exceeds the bounds. The error says what
/// is wrong, as the rest of a sentence about the body.
pub(in crate::engine) fn body(bytes: &[u8], content_type: Option<&str>, bounds: DecodeBounds) -> Result<Value, String> {
    let DecodeBounds { bytes: _, depth: depth_max, values: values_max, bytes_mark } = bounds;
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    let kind = MediaType::of(content_type.unwrap_or_default());
    let too_many = || Err(format!("has more values than the limit output_values_max ({values_max})"));
    if kind.is_json() {
        if values_in(bytes) > values_max {
            return too_many();
        }
        let too_deep = || format!("is nested deeper than the limit output_depth_max ({depth_max})");
        let value = parse_json(bytes).map_err(|error| match is_nested_beyond(&error) {
            true => too_deep(),
            false => format!("cannot be read as JSON: {error}"),
        })?;
        return if deeper_than(&value, depth_max) { Err(too_deep()) } else { Ok(value) };
    }
    if kind.is_form() {
        // The map, and one value for each field.
        if bytes.iter().filter(|byte| **byte == b'&').count() + 2 > values_max {
            return too_many();
        }
        return parse_form_strictly(bytes).map_err(|why| format!("cannot be read as a form: {why}"));
    }
    if kind.is_text()
        && let Ok(text) = std::str::from_utf8(bytes)
    {
        return Ok(Value::String(text.to_owned()));
    }
    if kind.is_empty()
        && values_in(bytes) <= values_max
        && let Ok(value) = parse_json(bytes)
        && !deeper_than(&value, depth_max)
    {
        return Ok(value);
    }
    Ok(bytes_mark.value(bytes, content_type))
}

/// The decoded value of a body that came with these headers, its `Content-Encoding` decoded where the result is within
/// the bound.
///
/// # Errors
/// The same as of [`body`].
pub(in crate::engine) fn body_with_headers(
    headers: &HeaderMap,
    bytes: &Bytes,
    limits: DecodeBounds,
) -> Result<Value, String> {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    match decoded_body(headers, bytes, limits.bytes) {
        Some(plain) => body(&plain, content_type, limits),
        None => body(bytes, content_type, limits)
            .map_err(|why| format!("{why} (its content-encoding cannot be decoded here within the limits)")),
    }
}

/// Headers as expressions see them: names in lower case, repeated ones joined.
pub(in crate::engine) fn headers(headers: &HeaderMap) -> BTreeMap<String, String> {
    let mut all: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        all.entry(name.as_str().to_owned())
            .and_modify(|known| {
                known.push_str(", ");
                known.push_str(&value);
            })
            .or_insert_with(|| value.into_owned());
    }
    all
}

/// The headers of these names, in the form of [`headers`].
pub(in crate::engine) fn headers_of<'a>(
    all: &HeaderMap,
    names: impl Iterator<Item = &'a str>,
) -> BTreeMap<String, String> {
    let text = |name: &str| {
        let values = all.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
        values.collect::<Vec<_>>().join(", ")
    };
    names.filter(|name| all.contains_key(*name)).map(|name| (name.to_owned(), text(name))).collect()
}

/// The parts of a request that a plan reads: those to store, and the credentials to seal.
pub(in crate::engine) struct PlanInputs {
    /// The parts without credentials.
    pub request: Arc<Value>,
    /// The credentials that the plan reads.
    pub credentials: BTreeMap<String, String>,
}

/// The decoded body of a request; null where the plan neither checks it, nor reads more of it than its bytes
/// (`request.raw`), nor declares sensitive parts in it.
///
/// # Errors
/// The plan reads a body, or a part of the head, that cannot be decoded. The error says what is wrong, in a sentence.
pub(in crate::engine) fn request_body(
    request: &RequestCopy,
    plan: &Plan,
    bounds: DecodeBounds,
) -> Result<Value, String> {
    let read_paths = request_paths(plan);
    check_head(request, &read_paths)?;
    match plan.input_schema.is_some() || reads_part(&read_paths, "body") {
        true => body_with_headers(&request.headers, &request.body, bounds).map_err(|why| format!("the body {why}")),
        // Sensitive values that the plan declares in the body may be quoted in the parts that the plan reads.
        false if !plan.sensitive_values().body.is_empty() => {
            Ok(body_with_headers(&request.headers, &request.body, bounds).unwrap_or_default())
        }
        false => Ok(Value::Null),
    }
}

/// Checks that the path parameters, query values and headers that a plan reads are UTF-8: a workflow never sends on a
/// value in which bytes were replaced.
fn check_head(request: &RequestCopy, read_paths: &[&[Arc<str>]]) -> Result<(), String> {
    let raw = |(name, value): &&(Arc<str>, String)| has_raw_bytes(value) && reads_member(read_paths, "params", name);
    if let Some((name, _)) = request.params.iter().find(raw) {
        return Err(format!("the part of the path that is `{name}` is not UTF-8"));
    }
    if reads_part(read_paths, "query") {
        query(request, read_paths).map_err(|why| format!("the query cannot be read: {why}"))?;
    }
    let raw = |(name, value): &(&HeaderName, &HeaderValue)| {
        std::str::from_utf8(value.as_bytes()).is_err() && reads_member(read_paths, "headers", name.as_str())
    };
    match request.headers.iter().find(raw) {
        Some((name, _)) => Err(format!("the header `{name}` is not UTF-8")),
        None => Ok(()),
    }
}

/// The query parameters that a plan reads.
fn query(request: &RequestCopy, read_paths: &[&[Arc<str>]]) -> Result<Value, String> {
    let query = request.query.as_deref().unwrap_or_default();
    parse_fields_strictly(query.as_bytes(), |name| reads_member(read_paths, "query", name))
}

/// The paths within a request that a plan reads.
fn request_paths(plan: &Plan) -> Vec<&[Arc<str>]> {
    plan.reads.iter().filter(|path| path.root() == "request").map(|path| &path.0[1..]).collect()
}

/// Whether any of these paths leads to this part of the request, or to the whole request.
fn reads_part(read_paths: &[&[Arc<str>]], part: &str) -> bool {
    read_paths.iter().any(|path| path.first().is_none_or(|first| **first == *part))
}

/// Whether any of these paths leads to this member of a part of the request, or to the whole part.
fn reads_member(read_paths: &[&[Arc<str>]], part: &str, member: &str) -> bool {
    let leads = |path: &&[Arc<str>]| path.get(1).is_none_or(|name| name.eq_ignore_ascii_case(member));
    read_paths.iter().filter(|path| path.first().is_none_or(|first| **first == *part)).any(leads)
}

/// Selects the parts of a request that a plan reads. Parts that are not UTF-8 are left out. A request with such a part
/// begins no run, but the plan's `respond` may still answer it (`input_error`).
pub(in crate::engine) fn facts(request: &RequestCopy, body: &Value, plan: &Plan, bytes_mark: BytesMark) -> PlanInputs {
    let raw =
        plan.steps.iter().any(|step| matches!(&step.kind, StepKind::Call(call) if matches!(call.body, CallBody::Raw)));
    let read_paths = request_paths(plan);
    let reads = |part: &str| reads_part(&read_paths, part);
    let mut parts = Map::new();
    if reads("method") {
        parts.insert("method".into(), request.method.as_str().into());
    }
    if reads("path") {
        parts.insert("path".into(), request.path.clone().into());
    }
    if reads("params") {
        let params = request.params.iter().filter(|(_, value)| !has_raw_bytes(value));
        let params = params.map(|(name, value)| (name.to_string(), value.clone().into())).collect();
        parts.insert("params".into(), Value::Object(params));
    }
    if reads("query") {
        parts.insert("query".into(), query(request, &read_paths).unwrap_or_else(|_| Value::Object(Map::new())));
    }
    let mut credentials = BTreeMap::new();
    if reads("headers") {
        let mut all = headers(&request.headers);
        let is_utf8 = |value: &HeaderValue| std::str::from_utf8(value.as_bytes()).is_ok();
        all.retain(|name, _| request.headers.get_all(name).iter().all(is_utf8));
        let (hidden, shown): (BTreeMap<_, _>, BTreeMap<_, _>) =
            all.into_iter().partition(|(name, _)| CREDENTIALS.contains(&name.as_str()));
        parts.insert(
            "headers".into(),
            Value::Object(shown.into_iter().map(|(name, value)| (name, value.into())).collect()),
        );
        credentials.extend(hidden.into_iter().filter(|(name, _)| reads_member(&read_paths, "headers", name)));
    }
    if reads("body") {
        parts.insert("body".into(), body.clone());
    }
    // JSON that contains bytes has no form that a service could read: an expression that reads it gets an error.
    if (raw || reads("raw")) && !bytes_mark.are_within(body) {
        let content_type = request.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        parts.insert("raw".into(), bytes_mark.value(&request.body, content_type));
    }
    // A body or header that no expression names is not stored.
    let mut whole = Value::Object(parts);
    prune(&mut whole, &read_paths, raw, bytes_mark);
    PlanInputs { request: Arc::new(whole), credentials }
}

/// Removes the parts of a value that no path reads; with `raw`, its member `raw` stays. Bytes of which only parts are
/// read become empty bytes, because an expression that reads a part of bytes gets an error in any case.
fn prune(value: &mut Value, read_paths: &[&[Arc<str>]], raw: bool, bytes_mark: BytesMark) {
    if read_paths.iter().any(|path| path.is_empty()) {
        return;
    }
    if bytes_mark.is_bytes(value) {
        *value = bytes_mark.value(&[], None);
        return;
    }
    let Value::Object(members) = value else { return };
    members.retain(|name, _| (raw && name == "raw") || read_paths.iter().any(|path| *path[0] == **name));
    for (name, member) in members.iter_mut() {
        if raw && name == "raw" {
            continue;
        }
        prune(member, &inner_paths(read_paths, name), false, bytes_mark);
    }
}

/// The parts of legacy's reply to which these paths from the root `legacy` lead.
pub(in crate::engine) fn legacy(observation: &Observation, reads: &[ReadPath], bounds: DecodeBounds) -> Value {
    let mut parts = Map::new();
    parts.insert("status".into(), observation.status().as_u16().into());
    let shown = headers(observation.headers()).into_iter().filter(|(name, _)| name != "set-cookie");
    parts.insert("headers".into(), Value::Object(shown.map(|(name, value)| (name, value.into())).collect()));
    if let Body::Whole(bytes) = observation.body()
        && let Ok(body) = body_with_headers(observation.headers(), bytes, bounds)
    {
        parts.insert("body".into(), body);
    }
    let mut whole = Value::Object(parts);
    prune(&mut whole, &below_root(reads), false, bounds.bytes_mark);
    whole
}

/// Selects the parts of a run's `legacy` to which these paths from the root `legacy` lead. If they are all of it, the
/// value is shared with the run instead of copied, because a `for_each` may begin many child runs.
pub(in crate::engine) fn legacy_of_child(legacy: &Arc<Value>, reads: &[ReadPath], mark: BytesMark) -> Arc<Value> {
    let read_paths = below_root(reads);
    if is_read_whole(legacy, &read_paths) {
        return legacy.clone();
    }
    let mut parts = (**legacy).clone();
    prune(&mut parts, &read_paths, false, mark);
    Arc::new(parts)
}

fn below_root(reads: &[ReadPath]) -> Vec<&[Arc<str>]> {
    reads.iter().map(|path| &path.0[1..]).collect()
}

/// Whether [`prune`] would leave the value as it is.
fn is_read_whole(value: &Value, read_paths: &[&[Arc<str>]]) -> bool {
    if read_paths.iter().any(|path| path.is_empty()) {
        return true;
    }
    let Value::Object(members) = value else { return true };
    members.iter().all(|(name, member)| {
        let inner = inner_paths(read_paths, name);
        !inner.is_empty() && is_read_whole(member, &inner)
    })
}

/// The rest of each of the paths that lead to this member.
fn inner_paths<'a>(read_paths: &[&'a [Arc<str>]], name: &str) -> Vec<&'a [Arc<str>]> {
    read_paths.iter().filter(|path| *path[0] == *name).map(|path| &path[1..]).collect()
}
