//! The answer to OPTIONS on a path whose routes are all in `only`, where legacy is never called.

use bytes::Bytes;
use http::header::{ALLOW, CONNECTION};
use http::{HeaderValue, Method, Response, StatusCode};

use super::proxied_request::ProxiedRequest;
use super::reply_body::ReplyBody;
use super::respond::SOURCE;
use super::route_metrics::AnsweredBy;
use super::wait::Phase;
use crate::exchange::Source;
use crate::flag::State;

/// Answers OPTIONS with the methods that have a route.
pub(super) fn answer(proxied: &ProxiedRequest<'_>, methods: &[&Method]) -> Response<ReplyBody> {
    let wait = &proxied.client.wait;
    let answered = proxied.answered(State::Only, AnsweredBy::Proxy, StatusCode::NO_CONTENT);
    wait.enter(Phase::Reply);
    let mut response = Response::new(ReplyBody::full(Bytes::new(), wait.clone(), Some(answered)));
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    let mut allowed: Vec<&str> = methods.iter().map(|method| method.as_str()).collect();
    if methods.contains(&&Method::GET) {
        allowed.push("HEAD");
    }
    allowed.push("OPTIONS");
    allowed.sort_unstable();
    allowed.dedup();
    if let Ok(allowed) = HeaderValue::from_str(&allowed.join(", ")) {
        headers.insert(ALLOW, allowed);
    }
    headers.insert(SOURCE, HeaderValue::from_static(Source::Proxy.as_str()));
    // The request's body will not be read.
    if !wait.is_request_done() {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
