//! Turns errors into answers; the only module that does so.
//!
//! Always true: each answer is an RFC 9457 problem with `x-pointsman-source`, and its detail says whether trying again
//! could do the work twice.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderName, HeaderValue, Response, StatusCode};

use super::answered_exchange::AnsweredExchange;
use super::failure::{Failure, HEAD_TIMEOUT, HEAD_TOO_LARGE, MALFORMED_HEAD, NOT_BEGUN, describe, reason, source};
use super::legacy::CallError;
use super::line_limit::LineLimit;
use super::monotonic::now;
use super::reply_body::ReplyBody;
use super::route_entry::RouteEntry;
use super::route_metrics::{AnsweredBy, RouteMetrics};
use super::wait::{ConnectionWait, Phase};
use crate::exchange::{ProblemDocument, Source};
use crate::flag::State;

pub(super) const SOURCE: HeaderName = HeaderName::from_static("x-pointsman-source");
const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

/// A request that is answered with a problem.
pub(super) struct Refused {
    pub failure: Failure,
    /// The route's entry and the rung, if the request got so far that they are known.
    pub route: Option<(Arc<RouteEntry>, State)>,
}

impl Refused {
    pub(super) fn early(failure: Failure) -> Self {
        Self { failure, route: None }
    }
}

/// Builds the answer. A request that was refused before its route was known is counted with those that match no route.
pub(super) fn refuse(
    refused: Refused,
    no_route: &Arc<RouteEntry>,
    wait: &Arc<ConnectionWait>,
    began: u64,
) -> Response<ReplyBody> {
    let Refused { failure, route } = refused;
    let (status, kind, title, detail, close) = describe(&failure);
    let source = source(&failure);
    let (entry, rung) = route.unwrap_or_else(|| (no_route.clone(), State::Off));
    let reason = reason(&failure, kind);
    entry.route_metrics.count_refusal(&reason);
    let logged_detail = match &failure {
        Failure::Engine(problem) => &problem.detail,
        _ => &detail,
    };
    log(&failure, &reason, entry.route_metrics.route(), logged_detail);
    let (body, retry_after) = match failure {
        Failure::Engine(problem) => (document(&problem, status), problem.retry_after_s),
        _ => {
            // The condition may pass: the store may answer again or have room for keys again, or this process, the
            // route or legacy may take requests again.
            let is_busy =
                matches!(failure, Failure::Overloaded | Failure::RouteBusy | Failure::Legacy(CallError::Busy));
            let is_store = matches!(failure, Failure::FirstTryUnknown | Failure::KeyNotNoted | Failure::NoStore(_));
            let soon = is_busy || is_store;
            let retry_after = soon.then_some(1);
            let problem = ProblemDocument {
                status: status.as_u16(),
                kind: kind.into(),
                title: title.into(),
                detail,
                source,
                run: None,
                retry_after_s: retry_after,
                shared_step_begun: None,
            };
            (document(&problem, status), retry_after)
        }
    };
    let answered_by = if source == Source::Workflow { AnsweredBy::Engine } else { AnsweredBy::Proxy };
    let refused = Some(reason);
    let answered = AnsweredExchange { refused, ..entry.answered(rung, answered_by, status, began) };
    wait.enter(Phase::Reply);
    let mut response = Response::new(ReplyBody::full(body, wait.clone(), Some(answered)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, PROBLEM_JSON);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(SOURCE, HeaderValue::from_static(source.as_str()));
    if let Some(seconds) = retry_after {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    // Otherwise the connection would wait for a body that is never read, and could neither be used nor count as idle.
    if close || !wait.is_request_done() {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

fn document(problem: &ProblemDocument, status: StatusCode) -> Bytes {
    let ProblemDocument { status: _, kind, title, detail, source: _, run, retry_after_s: _, shared_step_begun } =
        problem;
    let mut json = serde_json::Map::new();
    json.insert("type".into(), format!("urn:pointsman:problem:{kind}").into());
    json.insert("title".into(), title.as_str().into());
    json.insert("status".into(), status.as_u16().into());
    json.insert("detail".into(), detail.as_str().into());
    if let Some(run) = run {
        json.insert("run_id".into(), run.to_string().into());
    }
    if let Some(begun) = shared_step_begun {
        json.insert("shared_step_begun".into(), (*begun).into());
    }
    let mut text = serde_json::Value::Object(json).to_string();
    text.push('\n');
    Bytes::from(text)
}

/// The limits for logged refusals, one for each level, so that many bad requests do not suppress the lines about
/// legacy.
static INFO_LINES: LineLimit = LineLimit::new();
static WARN_LINES: LineLimit = LineLimit::new();
static ERROR_LINES: LineLimit = LineLimit::new();

/// Returns the number of lines that were left out before, if a line may be written now.
macro_rules! next_line {
    ($level:ident, $lines:ident) => {
        tracing::enabled!(tracing::Level::$level).then(|| $lines.next_line(now() / 1_000_000)).flatten()
    };
}

/// Counts and logs a request whose head hyper could not read and has refused. Returns the reason and the status.
pub(super) fn record_unreadable(no_route: &RouteMetrics, error: &hyper::Error) -> Option<(&'static str, u16)> {
    let (reason, status) = match error {
        // hyper offers no other way to distinguish these two errors.
        error if error.is_parse_too_large() && error.to_string() == "URI too long" => (HEAD_TOO_LARGE, 414),
        error if error.is_parse_too_large() => (HEAD_TOO_LARGE, 431),
        error if error.is_parse() => (MALFORMED_HEAD, 400),
        _ => return None,
    };
    no_route.count_refusal(reason);
    if let Some(left_out) = next_line!(INFO, INFO_LINES) {
        tracing::info!(reason, left_out, %error, "a request was refused");
    }
    Some((reason, status))
}

/// Counts and logs a request whose head is not complete when a drain closes its connection. Returns its problem
/// document.
pub(super) fn record_unfinished(no_route: &RouteMetrics) -> Bytes {
    no_route.count_refusal(HEAD_TIMEOUT);
    if let Some(left_out) = next_line!(INFO, INFO_LINES) {
        tracing::info!(reason = HEAD_TIMEOUT, left_out, "a request was refused");
    }
    let status = StatusCode::REQUEST_TIMEOUT;
    let detail = "The rest of the request's head did not come in time, and this process stops or hands over (limits: drain_head_ms).";
    let problem = ProblemDocument {
        status: status.as_u16(),
        kind: HEAD_TIMEOUT.into(),
        title: "The head did not come whole".into(),
        detail: format!("{detail} {NOT_BEGUN}"),
        source: Source::Proxy,
        run: None,
        retry_after_s: None,
        shared_step_begun: None,
    };
    document(&problem, status)
}

/// Logs a refused request. Where the cause is at the service or the engine, the line says more than the answer.
fn log(failure: &Failure, reason: &str, route: &str, detail: &str) {
    match failure {
        Failure::Legacy(CallError::Unreachable(why)) => {
            if let Some(left_out) = next_line!(WARN, WARN_LINES) {
                let message = "no connection to the service could be made; nothing was sent";
                tracing::warn!(route, reason, left_out, %why, "{message}");
            }
        }
        Failure::Legacy(CallError::Closed(error) | CallError::Invalid(error)) => {
            if let Some(left_out) = next_line!(WARN, WARN_LINES) {
                let message = "the service gave no valid reply; the request may have been carried out";
                tracing::warn!(route, reason, left_out, %error, "{message}");
            }
        }
        Failure::EngineSilent => {
            if let Some(left_out) = next_line!(ERROR, ERROR_LINES) {
                tracing::error!(
                    route,
                    reason,
                    left_out,
                    "the engine gave no answer by its deadline; its run may go on"
                );
            }
        }
        Failure::EngineGaveBack => {
            if let Some(left_out) = next_line!(ERROR, ERROR_LINES) {
                tracing::error!(route, reason, left_out, "the engine gave back a request that legacy may not answer");
            }
        }
        _ => {
            if let Some(left_out) = next_line!(INFO, INFO_LINES) {
                tracing::info!(route, reason, left_out, detail, "a request was refused");
            }
        }
    }
}
