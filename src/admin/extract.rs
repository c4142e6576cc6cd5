//! What a call brings: its body, its query, the names in its path; each bounded, and told where it is wrong.

use std::time::Duration;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use http::StatusCode;
use serde::de::DeserializeOwned;

use super::Shared;
use super::guard::Who;
use super::problem::Refusal;
use crate::workflow::is_nested_beyond;

/// A call's body arrives within this time.
const BODY_READ_MAX: Duration = Duration::from_secs(10);

/// A JSON body, read within bounds; what is wrong with it is said with line and column.
pub(super) struct Ask<T>(pub T, pub Who);

impl<T: DeserializeOwned> FromRequest<Arc<Shared>> for Ask<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, shared: &Arc<Shared>) -> Result<Self, Refusal> {
        let (mut head, body) = request.into_parts();
        let who = head.extensions.remove::<Who>().unwrap_or(Who::Anybody(None));
        let bytes = read(body, shared.parts.limits.api_body_bytes_max).await?;
        // A list of its members would be taken for a struct too.
        if bytes.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
            return Err(Refusal::bad("the body: it is no JSON object"));
        }
        let asked = serde_json::from_slice(&bytes).map_err(|error| match is_nested_beyond(&error) {
            true => too_deep(shared.parts.limits.output_depth_max),
            false => Refusal::bad(format!("the body: {error}")),
        })?;
        Ok(Self(asked, who))
    }
}

fn too_deep(depth_max: u64) -> Refusal {
    let detail = format!("the body is nested deeper than {depth_max} (output_depth_max)");
    Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "too-deep", "The body is nested too deep", detail)
}

async fn read(body: Body, bytes_max: u64) -> Result<bytes::Bytes, Refusal> {
    let max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
    match tokio::time::timeout(BODY_READ_MAX, http_body_util::BodyExt::collect(http_body_util::Limited::new(body, max)))
        .await
    {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            let detail = format!("the body is larger than {max} bytes (api_body_bytes_max)");
            Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "The body is too large", detail))
        }
        Ok(Err(_)) => Err(Refusal::bad("the body broke off")),
        Err(_) => {
            let detail = format!("the body did not arrive within {} s", BODY_READ_MAX.as_secs());
            Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, "too-slow", "The body is too slow", detail))
        }
    }
}

/// The query of a call; an unknown name in it is an error, as a misspelt filter would show too much.
pub(super) struct Asked<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Asked<T> {
    type Rejection = Refusal;

    async fn from_request_parts(head: &mut http::request::Parts, _state: &S) -> Result<Self, Refusal> {
        match Query::<T>::try_from_uri(&head.uri) {
            Ok(Query(asked)) => Ok(Self(asked)),
            Err(error) => Err(Refusal::bad(format!("the query: {}", error.body_text()))),
        }
    }
}

/// The names in a call's path.
pub(super) struct Named<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Named<T> {
    type Rejection = Refusal;

    async fn from_request_parts(head: &mut http::request::Parts, state: &S) -> Result<Self, Refusal> {
        match Path::<T>::from_request_parts(head, state).await {
            Ok(Path(names)) => Ok(Self(names)),
            Err(error) => Err(Refusal::bad(format!("the path: {}", error.body_text()))),
        }
    }
}
