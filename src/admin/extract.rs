//! Reads a request's body, query and path parameters, each within bounds; an error says where the request is wrong.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use http::StatusCode;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::caller::ApiCaller;
use super::error::ApiError;
use super::state::ApiState;
use crate::expression::refuse_reserved_keys;
use crate::workflow::{is_nested_beyond, values_in};

/// How long a client may take to send the body.
const BODY_READ_MAX: Duration = Duration::from_secs(10);

/// A JSON body, read within bounds, and the caller; an error names line and column.
pub(super) struct JsonBody<T>(pub T, pub ApiCaller);

impl<T: DeserializeOwned> FromRequest<Arc<ApiState>> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &Arc<ApiState>) -> Result<Self, ApiError> {
        let (mut head, body) = request.into_parts();
        let caller = head.extensions.remove::<ApiCaller>().unwrap_or(ApiCaller::Unverified(None));
        let bytes = read(body, state.parts.limits.api_body_bytes_max).await?;
        // serde would also read a struct from an array of its fields.
        if bytes.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
            return Err(ApiError::bad("the body is not a JSON object"));
        }
        let values_max = state.parts.limits.output_values_max;
        if values_in(&bytes) as u64 > values_max {
            let detail = format!("the body has more than {values_max} values (output_values_max)");
            return Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "The body is too large", detail));
        }
        refuse_reserved_keys(&bytes).map_err(|error| ApiError::bad(format!("the body: {error}")))?;
        let value = serde_json::from_slice(&bytes).map_err(|error| match is_nested_beyond(&error) {
            true => too_deep(state.parts.limits.output_depth_max),
            false => ApiError::bad(format!("the body: {error}")),
        })?;
        Ok(Self(value, caller))
    }
}

fn too_deep(depth_max: u64) -> ApiError {
    let detail = format!("the body is nested deeper than {depth_max} (output_depth_max)");
    ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "too-deep", "The body is nested too deep", detail)
}

async fn read(body: Body, bytes_max: u64) -> Result<bytes::Bytes, ApiError> {
    let max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
    match tokio::time::timeout(BODY_READ_MAX, http_body_util::BodyExt::collect(http_body_util::Limited::new(body, max)))
        .await
    {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            let detail = format!("the body is larger than {max} bytes (api_body_bytes_max)");
            Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "The body is too large", detail))
        }
        Ok(Err(_)) => Err(ApiError::bad("the connection ended before the whole body had arrived")),
        Err(_) => {
            let detail = format!("the body did not arrive within {} s", BODY_READ_MAX.as_secs());
            Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, "too-slow", "The body is too slow", detail))
        }
    }
}

/// A request's query. An unknown parameter is an error, because a misspelt filter that is ignored would return too
/// much.
pub(super) struct QueryParams<T>(pub T);

impl<T: DeserializeOwned + JsonSchema, S: Send + Sync> FromRequestParts<S> for QueryParams<T> {
    type Rejection = ApiError;

    async fn from_request_parts(head: &mut http::request::Parts, _state: &S) -> Result<Self, ApiError> {
        match Query::<T>::try_from_uri(&head.uri) {
            Ok(Query(query)) => Ok(Self(query)),
            Err(_) => Err(query_error::<T>(head.uri.query().unwrap_or_default())),
        }
    }
}

/// An error that says which parameter of a query is wrong, according to the schema of `T`.
fn query_error<T: JsonSchema>(query: &str) -> ApiError {
    let schema = schemars::schema_for!(T).to_value();
    let known: BTreeMap<&str, &Value> =
        schema["properties"].as_object().into_iter().flatten().map(|(name, of)| (name.as_str(), of)).collect();
    let names = known.keys().copied().collect::<Vec<_>>().join(", ");
    for (name, value) in crate::expression::parse_form(query).as_object().into_iter().flatten() {
        let Some(of) = known.get(name.as_str()) else {
            let nearest = crate::problem::nearest(name, known.keys().copied());
            let hint = nearest.map_or(format!("it takes {names}"), |nearest| format!("did you mean `{nearest}`?"));
            return ApiError::bad(format!("the query: there is no parameter `{}` here", shortened(name))).hint(hint);
        };
        let Some(value) = value.as_str() else {
            return ApiError::bad(format!("the query: `{name}` is given twice"));
        };
        if let Some(expected) = expected_type(of, value) {
            return ApiError::bad(format!("the query: `{name}` has to be {expected}, not `{}`", shortened(value)));
        }
    }
    ApiError::bad("the query cannot be read").hint(format!("it takes {names}"))
}

/// The type that a parameter must have, as text; `None` if the value is of that type.
fn expected_type(schema: &Value, value: &str) -> Option<String> {
    let has_type = |word: &str| {
        schema["type"] == word || schema["type"].as_array().is_some_and(|types| types.contains(&word.into()))
    };
    if has_type("integer") {
        let minimum = schema["minimum"].as_u64().unwrap_or(0);
        let fits = value.parse::<u32>().is_ok_and(|number| u64::from(number) >= minimum);
        return (!fits).then(|| format!("a whole number from {minimum} to {}", u32::MAX));
    }
    if schema["format"] == "date-time" {
        return value.parse::<jiff::Timestamp>().is_err().then(|| "a time like 2026-01-31T12:00:00Z".to_owned());
    }
    (has_type("boolean") && !matches!(value, "true" | "false")).then(|| "true or false".to_owned())
}

/// A value from the request, short enough for an error text.
fn shortened(text: &str) -> String {
    let start: String = text.chars().take(60).collect();
    if start.len() < text.len() { start + "…" } else { start }
}

/// The parameters in a request's path.
pub(super) struct PathParams<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for PathParams<T> {
    type Rejection = ApiError;

    async fn from_request_parts(head: &mut http::request::Parts, state: &S) -> Result<Self, ApiError> {
        match Path::<T>::from_request_parts(head, state).await {
            Ok(Path(names)) => Ok(Self(names)),
            Err(error) => Err(ApiError::bad(format!("the path: {}", error.body_text()))),
        }
    }
}
