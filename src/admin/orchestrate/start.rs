//! Starts a run and waits until it has ended or waits for somebody, within a bound.
//!
//! Always true: the response is sent with 200 when the run has ended or waits for somebody, or with 202 and the run's
//! present state when the bound on the wait is reached or the process stops; the same idempotency key returns the same
//! run. When a client disconnects, its run continues. If the run is on disk but cannot be read for the response, the
//! response is 202 with the run's id.

use std::time::Duration;

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::envelope::{RUN_PATH, envelope};
use super::idempotency_key::{hash_parts, idempotency_key, request_hash};
use super::load::RunForDisplay;
use super::stream::{follow, last_event_id};
use super::unreadable::response_to_start;
use crate::admin::caller::ApiCaller;
use crate::admin::error::ApiError;
use crate::admin::extract::JsonBody;
use crate::admin::state::{Admin, ApiState};
use crate::admin::types::{Delivery, StartRequest};
use crate::engine::Start;
use crate::flag::RetryKey;
use crate::limits::Limits;
use crate::names::{RunId, Seq};
use crate::store::StoredEvent;
use crate::workflow::deeper_than;

pub(in crate::admin) async fn start(
    admin: Admin,
    headers: HeaderMap,
    JsonBody(request, caller): JsonBody<StartRequest>,
) -> Result<Response, ApiError> {
    let StartRequest { workflow, query, input, stream: streamed, idempotency_key: key_in_body, by } = request;
    let by = caller.recorded_name(by.as_deref())?;
    let workflow = match (workflow, query) {
        (Some(workflow), None) => workflow,
        (None, Some(_)) => return Err(no_planner(&admin)),
        (Some(_), Some(_)) | (None, None) => return Err(ApiError::inconsistent("give either `workflow` or `query`")),
    };
    let depth_max = usize::try_from(admin.parts.limits.output_depth_max).unwrap_or(usize::MAX);
    if deeper_than(&input, depth_max) {
        let detail = format!("`input` is nested deeper than {depth_max} (output_depth_max)");
        return Err(ApiError::values("The input is not what the workflow takes", vec![detail], "/input"));
    }
    let wait = Wait::preferred(&headers, &admin.parts.limits);
    let key = idempotency_key(&headers, key_in_body.as_deref())?.map(|key| {
        let scope = match &caller {
            ApiCaller::Token(name) => name.as_str(),
            ApiCaller::Unverified(_) => "",
        };
        (hash_parts(&["orchestrate", scope, &key]), request_hash(&workflow, &input))
    });
    let key = key.map(|(key, request)| (RetryKey(key), request));
    let last_event = if streamed { last_event_id(&headers)? } else { Seq(0) };
    // Acquired before the start: a stream that is refused must not leave a run behind.
    let slot = streamed.then(|| admin.stream_slots.acquire()).transpose()?;
    let start = Start { workflow: workflow.as_str().into(), input, by, key };
    let engine = &admin.parts.engine;
    let (started, response) = match slot {
        Some(slot) => {
            let started = engine.start(start).await.map_err(ApiError::not_started)?;
            // `Last-Event-ID` counts only if an earlier request started the run: a client has no event of a new run.
            let after = if started.is_new { Seq(0) } else { last_event };
            let response = follow(&admin, started.run, after, slot).await;
            (started, response)
        }
        None => {
            let (started, events_at_rest) =
                engine.start_watched(start, wait.bound).await.map_err(ApiError::not_started)?;
            let mut events = None;
            if !wait.bound.is_zero() {
                tokio::select! {
                    collected = events_at_rest => events = collected,
                    () = admin.parts.stopping.cancelled() => {}
                }
            }
            let response = run_response(&admin, started.run, events).await;
            (started, response)
        }
    };
    let mut response = response.or_else(|error| response_to_start(&started, error))?;
    let headers = response.headers_mut();
    if let Ok(location) = HeaderValue::from_str(&format!("{}/{}", RUN_PATH, started.run)) {
        headers.insert(header::LOCATION, location);
    }
    if !started.is_new {
        headers.insert("idempotent-replayed", HeaderValue::from_static("true"));
    }
    if let Some(applied) = wait.applied.filter(|_| !streamed).and_then(|text| HeaderValue::from_str(&text).ok()) {
        headers.insert("preference-applied", applied);
    }
    Ok(response)
}

/// The response with the run's present state, which is computed from `events` if given, else loaded from the store.
async fn run_response(state: &ApiState, run: RunId, events: Option<Vec<StoredEvent>>) -> Result<Response, ApiError> {
    let loaded = match events {
        Some(events) => RunForDisplay::of_events(state, run, events).await?,
        None => RunForDisplay::load(state, run).await?,
    };
    let ended_or_awaits_input =
        loaded.view.status.has_ended_or_awaits_input() || !loaded.waiting_descendants.is_empty();
    let status = if ended_or_awaits_input { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok((status, Json(envelope(state, &loaded, Delivery::Sync))).into_response())
}

fn no_planner(state: &ApiState) -> ApiError {
    let names = (state.parts.workflows)();
    let detail = "this version has no planner that turns `query` into a plan; nothing was started";
    ApiError::new(StatusCode::NOT_IMPLEMENTED, "no-planner", "A query cannot be planned", detail)
        .hint("name one of these workflows under `workflow`")
        .reasons(names.iter().map(ToString::to_string).collect())
}

/// How long the response may wait for the run.
struct Wait {
    bound: Duration,
    /// The preference that was honoured, for `Preference-Applied`.
    applied: Option<String>,
}

impl Wait {
    /// `Prefer: wait=N` within `api_wait_ms`; `Prefer: respond-async` does not wait (RFC 7240).
    fn preferred(headers: &HeaderMap, limits: &Limits) -> Self {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| ((*name).parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn the_preferred_wait_is_at_most_the_limit() {
        let limits = Limits { api_wait_ms: 5_000, ..Limits::default() };
        let wait = |fields: &[(&'static str, &str)]| {
            let wait = Wait::preferred(&headers(fields), &limits);
            (wait.bound.as_secs(), wait.applied)
        };
        assert_eq!(wait(&[]), (5, None));
        assert_eq!(wait(&[("prefer", "handling=lenient, wait=2")]), (2, Some("wait=2".into())));
        assert_eq!(wait(&[("prefer", "wait=900")]), (5, Some("wait=5".into())));
        assert_eq!(wait(&[("prefer", "wait=soon")]), (5, None));
        assert_eq!(wait(&[("prefer", "respond-async, wait=2")]), (0, Some("respond-async".into())));
    }
}
