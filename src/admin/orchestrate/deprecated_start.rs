//! `POST /api/maestro/produce`, the deprecated way to start a run.
//!
//! Always true: request and response are those of its successor; every response says when the endpoint was deprecated
//! (RFC 9745), when it will be removed (RFC 8594) and what replaces it. Only callers on this machine and holders of
//! tokens that may start runs are accepted; `api.maestro: false` switches the endpoint off.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::start::start;
use crate::admin::error::ApiError;
use crate::admin::extract::JsonBody;
use crate::admin::state::Admin;
use crate::admin::types::StartRequest;

/// When the endpoint was deprecated: 2026-11-20, in seconds since 1970.
const DEPRECATED: HeaderValue = HeaderValue::from_static("@1795132800");
/// When the endpoint will be removed.
const SUNSET: HeaderValue = HeaderValue::from_static("Fri, 31 Dec 2027 00:00:00 GMT");
/// What replaces the endpoint.
const SUCCESSOR: HeaderValue = HeaderValue::from_static("</api/v2/orchestrate/run>; rel=\"successor-version\"");

pub(in crate::admin) async fn produce(
    admin: Admin,
    headers: HeaderMap,
    request: JsonBody<StartRequest>,
) -> Result<Response, ApiError> {
    if !admin.parts.deprecated_start {
        let detail = "`api.maestro` is false";
        return Err(ApiError::new(StatusCode::FORBIDDEN, "switched-off", "The endpoint is switched off", detail)
            .hint("POST the same to /api/v2/orchestrate/run"));
    }
    start(admin, headers, request).await
}

/// Adds the deprecation headers to every response, errors too.
pub(in crate::admin) async fn add_deprecation_headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await.into_response();
    let headers = response.headers_mut();
    headers.insert("deprecation", DEPRECATED);
    headers.insert("sunset", SUNSET);
    headers.append(header::LINK, SUCCESSOR);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dates_are_valid_in_their_formats() {
        let since: i64 = DEPRECATED.to_str().unwrap().trim_start_matches('@').parse().unwrap();
        assert_eq!(jiff::Timestamp::from_second(since).unwrap().to_string(), "2026-11-20T00:00:00Z");
        let until = httpdate::parse_http_date(SUNSET.to_str().unwrap()).unwrap();
        assert_eq!(httpdate::fmt_http_date(until), SUNSET.to_str().unwrap(), "the day of the week is right");
    }
}
