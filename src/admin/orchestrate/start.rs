//! Starts.
//!
//! Always true: a start is answered with the run as it stands when it ends or waits for somebody, or, after a bound,
//! as it stands then (202); the same key gives the same run. A caller that goes away ends nothing but its own wait.

use std::time::Duration;

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::Value;

use super::{Seen, stream};
use crate::admin::extract::Ask;
use crate::admin::guard::Who;
use crate::admin::problem::Refusal;
use crate::admin::types::{Delivery, RunAsk};
use crate::admin::{Admin, Shared};
use crate::engine::Start;
use crate::flag::RetryKey;
use crate::limits::Limits;
use crate::names::{RunId, Seq};
use crate::workflow::deeper_than;

/// The header that names a wish.
const KEY: &str = "idempotency-key";
/// Longest name of a wish.
const KEY_CHARS_MAX: usize = 255;

pub(in crate::admin) async fn start(
    admin: Admin,
    headers: HeaderMap,
    Ask(ask, who): Ask<RunAsk>,
) -> Result<Response, Refusal> {
    let RunAsk { workflow, query, input, stream: streamed, idempotency_key, by } = ask;
    let by = who.name(by.as_deref())?;
    let workflow = match (workflow, query) {
        (Some(workflow), None) => workflow,
        (None, Some(_)) => return Err(no_planner(&admin)),
        (Some(_), Some(_)) | (None, None) => return Err(Refusal::unfit("say one of `workflow` and `query`")),
    };
    let depth_max = usize::try_from(admin.parts.limits.output_depth_max).unwrap_or(usize::MAX);
    if deeper_than(&input, depth_max) {
        let detail = format!("`input` is nested deeper than {depth_max} (output_depth_max)");
        return Err(Refusal::values("The input is not what the workflow takes", vec![detail], "/input"));
    }
    let wait = Wait::asked(&headers, &admin.parts.limits);
    let key = key(&headers, idempotency_key.as_deref())?.map(|key| {
        let scope = match &who {
            Who::Token(name) => name.as_str(),
            Who::Anybody(_) => "",
        };
        (hashed(&["orchestrate", scope, &key]), request_hash(&workflow, &input))
    });
    let key = key.map(|(key, request)| (RetryKey(key), request));
    // A stream that cannot be had must not leave a run behind.
    let place = streamed.then(|| admin.streams.place()).transpose()?;
    let start = Start { workflow: workflow.as_str().into(), input, by, key };
    let desk = &admin.parts.desk;
    let (started, mut response) = match place {
        Some(place) => {
            let started = desk.start(start).await.map_err(Refusal::not_started)?;
            let response = stream::follow(&admin, started.run, Seq(0), place).await?;
            (started, response)
        }
        None => {
            let (started, rest) = desk.start_watched(start, wait.bound).await.map_err(Refusal::not_started)?;
            if !wait.bound.is_zero() {
                tokio::select! {
                    () = rest => {}
                    () = admin.parts.ending.cancelled() => {}
                }
            }
            let response = shown(&admin, started.run).await?;
            (started, response)
        }
    };
    let headers = response.headers_mut();
    if let Ok(location) = HeaderValue::from_str(&format!("{}/{}", super::envelope::RUN, started.run)) {
        headers.insert(header::LOCATION, location);
    }
    if !started.fresh {
        headers.insert("idempotent-replayed", HeaderValue::from_static("true"));
    }
    if let Some(applied) = wait.applied.filter(|_| !streamed).and_then(|text| HeaderValue::from_str(&text).ok()) {
        headers.insert("preference-applied", applied);
    }
    Ok(response)
}

/// The run as it stands.
async fn shown(shared: &Shared, run: RunId) -> Result<Response, Refusal> {
    let seen = Seen::read(shared, run).await?;
    let rests = seen.view.status.rests() || !seen.below.is_empty();
    let status = if rests { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok((status, Json(seen.envelope(shared, Delivery::Sync))).into_response())
}

fn no_planner(shared: &Shared) -> Refusal {
    let names = (shared.parts.workflows)();
    let detail = "this version has no planner that turns `query` into a plan";
    Refusal::new(StatusCode::NOT_IMPLEMENTED, "no-planner", "A query cannot be planned", detail)
        .hint("name one of these under `workflow`")
        .reasons(names.iter().map(ToString::to_string).collect())
}

/// How long the answer may take.
struct Wait {
    bound: Duration,
    /// What of the caller's preferences is honoured.
    applied: Option<String>,
}

impl Wait {
    /// `Prefer: wait=N`, within the bound; `Prefer: respond-async` is at once (RFC 7240).
    fn asked(headers: &HeaderMap, limits: &Limits) -> Self {
        let max = Limits::ms(limits.api_wait_ms);
        let preferences = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
        for preference in preferences.flat_map(|value| value.split([',', ';'])).map(str::trim) {
            if preference.eq_ignore_ascii_case("respond-async") {
                return Self { bound: Duration::ZERO, applied: Some("respond-async".to_owned()) };
            }
            let Some((name, seconds)) = preference.split_once('=') else { continue };
            let seconds: Option<u64> = seconds.trim().trim_matches('"').parse().ok();
            if let (true, Some(seconds)) = (name.trim().eq_ignore_ascii_case("wait"), seconds) {
                let bound = Duration::from_secs(seconds).min(max);
                return Self { bound, applied: Some(format!("wait={}", bound.as_secs())) };
            }
        }
        Self { bound: max, applied: None }
    }
}

/// The name of the wish, from the header or the body.
fn key(headers: &HeaderMap, said: Option<&str>) -> Result<Option<String>, Refusal> {
    let bad = |what: &str| Refusal::bad(format!("the idempotency key {what}"));
    let mut given = headers.get_all(KEY).iter();
    let header = match (given.next(), given.next()) {
        (None, _) => None,
        (Some(value), None) => Some(value.to_str().map_err(|_| bad("is not plain ASCII"))?.trim()),
        (Some(_), Some(_)) => return Err(bad("is given twice")),
    };
    // The header is a quoted string for those who follow the draft, and a bare one for everybody else.
    let header = header.map(|text| text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text));
    let key = match (header, said) {
        (Some(header), Some(said)) if header != said => {
            return Err(Refusal::unfit("the idempotency key differs between header and body"));
        }
        (Some(key), _) | (None, Some(key)) => key,
        (None, None) => return Ok(None),
    };
    named(key).then(|| Some(key.to_owned())).ok_or_else(|| bad(NAMED))
}

/// What a name has that a caller gives to a wish or a delivery.
pub(super) const NAMED: &str = "has 1 to 255 characters and none that control";

/// Whether it is one.
pub(super) fn named(name: &str) -> bool {
    !name.is_empty() && name.chars().count() <= KEY_CHARS_MAX && !name.chars().any(char::is_control)
}

/// The same for the same parts, whatever stands where one ends.
fn hashed(parts: &[&str]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    *hasher.finalize().as_bytes()
}

/// The same for the same workflow and input, in whatever order its keys were written.
fn request_hash(workflow: &str, input: &Value) -> [u8; 32] {
    let mut text = String::new();
    canonical(input, &mut text);
    hashed(&[workflow, &text])
}

fn canonical(value: &Value, out: &mut String) {
    match value {
        Value::Object(map) => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort_unstable();
            out.push('{');
            for key in keys {
                out.push_str(&Value::from(key.as_str()).to_string());
                out.push(':');
                canonical(&map[key.as_str()], out);
                out.push(',');
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for item in items {
                canonical(item, out);
                out.push(',');
            }
            out.push(']');
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => out.push_str(&value.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| ((*name).parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn the_order_of_keys_is_no_difference() {
        let hash = |text: &str| request_hash("w", &serde_json::from_str(text).unwrap());
        assert_eq!(hash(r#"{"a":1,"b":[{"c":2,"d":3}]}"#), hash(r#"{"b":[{"d":3,"c":2}],"a":1}"#));
        assert_ne!(hash(r#"{"a":1}"#), hash(r#"{"a":"1"}"#));
        assert_ne!(hash("[1,2]"), hash("[2,1]"));
        assert_ne!(request_hash("w", &Value::Null), request_hash("v", &Value::Null));
    }

    #[test]
    fn a_wait_stays_within_its_bound() {
        let limits = Limits { api_wait_ms: 5_000, ..Limits::default() };
        let wait = |fields: &[(&'static str, &str)]| {
            let wait = Wait::asked(&headers(fields), &limits);
            (wait.bound.as_secs(), wait.applied)
        };
        assert_eq!(wait(&[]), (5, None));
        assert_eq!(wait(&[("prefer", "handling=lenient, wait=2")]), (2, Some("wait=2".into())));
        assert_eq!(wait(&[("prefer", "wait=900")]), (5, Some("wait=5".into())));
        assert_eq!(wait(&[("prefer", "wait=soon")]), (5, None));
        assert_eq!(wait(&[("prefer", "respond-async, wait=2")]), (0, Some("respond-async".into())));
    }

    #[test]
    fn a_key_comes_from_the_header_or_the_body() {
        let key = |fields: &[(&'static str, &str)], said| super::key(&headers(fields), said).map_err(|e| e.0.status);
        assert_eq!(key(&[], None), Ok(None));
        assert_eq!(key(&[("idempotency-key", "\"a b\"")], None), Ok(Some("a b".into())));
        assert_eq!(key(&[("idempotency-key", "k")], Some("k")), Ok(Some("k".into())));
        assert_eq!(key(&[("idempotency-key", "k")], Some("l")), Err(422));
        assert_eq!(key(&[("idempotency-key", "k"), ("idempotency-key", "k")], None), Err(400));
        assert_eq!(key(&[], Some("")), Err(400));
        assert_eq!(key(&[], Some(&"x".repeat(256))), Err(400));
    }
}
