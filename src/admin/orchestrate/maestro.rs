//! The older entrance for starts, on its way out.
//!
//! Always true: it does what its successor does, with the same body and answer; every answer says since when it is
//! deprecated (RFC 9745), when it goes (RFC 8594) and what takes its place. Only callers on this machine and holders of
//! a token that may start runs come in; it can be switched off.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::start;
use crate::admin::Admin;
use crate::admin::extract::Ask;
use crate::admin::problem::Refusal;
use crate::admin::types::RunAsk;

/// 2026-11-20, in seconds of the epoch.
const DEPRECATED: HeaderValue = HeaderValue::from_static("@1795132800");
/// When it goes.
const SUNSET: HeaderValue = HeaderValue::from_static("Fri, 31 Dec 2027 00:00:00 GMT");
/// What takes its place.
const SUCCESSOR: HeaderValue = HeaderValue::from_static("</api/v2/orchestrate/run>; rel=\"successor-version\"");

pub(in crate::admin) async fn produce(admin: Admin, headers: HeaderMap, ask: Ask<RunAsk>) -> Result<Response, Refusal> {
    if !admin.parts.maestro {
        let detail = "the older entrance is switched off";
        return Err(Refusal::new(StatusCode::FORBIDDEN, "switched-off", "The older entrance is closed", detail)
            .hint("POST the same to /api/v2/orchestrate/run"));
    }
    start(admin, headers, ask).await
}

/// Marks every answer, refusals too.
pub(in crate::admin) async fn mark(request: Request, next: Next) -> Response {
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
    fn its_dates_are_dates() {
        let since: i64 = DEPRECATED.to_str().unwrap().trim_start_matches('@').parse().unwrap();
        assert_eq!(jiff::Timestamp::from_second(since).unwrap().to_string(), "2026-11-20T00:00:00Z");
        let until = httpdate::parse_http_date(SUNSET.to_str().unwrap()).unwrap();
        assert_eq!(httpdate::fmt_http_date(until), SUNSET.to_str().unwrap(), "the day of the week is right");
    }
}
