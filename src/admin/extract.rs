//! What a call brings: its body, its query, the names in its path; each bounded, and told where it is wrong.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use http::StatusCode;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Shared;
use super::guard::Who;
use super::problem::Refusal;
use crate::workflow::{is_nested_beyond, values_in};

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
        let values_max = shared.parts.limits.output_values_max;
        if values_in(&bytes) as u64 > values_max {
            let detail = format!("the body has more than {values_max} values (output_values_max)");
            return Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "The body is too large", detail));
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

impl<T: DeserializeOwned + JsonSchema, S: Send + Sync> FromRequestParts<S> for Asked<T> {
    type Rejection = Refusal;

    async fn from_request_parts(head: &mut http::request::Parts, _state: &S) -> Result<Self, Refusal> {
        match Query::<T>::try_from_uri(&head.uri) {
            Ok(Query(asked)) => Ok(Self(asked)),
            Err(_) => Err(misread::<T>(head.uri.query().unwrap_or_default())),
        }
    }
}

/// What is wrong with a query, parameter by parameter, held against what the path takes.
fn misread<T: JsonSchema>(query: &str) -> Refusal {
    let schema = schemars::schema_for!(T).to_value();
    let known: BTreeMap<&str, &Value> =
        schema["properties"].as_object().into_iter().flatten().map(|(name, of)| (name.as_str(), of)).collect();
    let names = known.keys().copied().collect::<Vec<_>>().join(", ");
    for (name, value) in crate::expression::pairs(query).as_object().into_iter().flatten() {
        let Some(of) = known.get(name.as_str()) else {
            let meant = crate::problem::nearest(name, known.keys().copied());
            let hint = meant.map_or(format!("it takes {names}"), |meant| format!("did you mean `{meant}`?"));
            return Refusal::bad(format!("the query: there is no parameter `{}` here", short(name))).hint(hint);
        };
        let Some(value) = value.as_str() else {
            return Refusal::bad(format!("the query: `{name}` stands there twice"));
        };
        if let Some(wanted) = wanted(of, value) {
            return Refusal::bad(format!("the query: `{name}` is {wanted}, not `{}`", short(value)));
        }
    }
    Refusal::bad("the query cannot be read").hint(format!("it takes {names}"))
}

/// What a parameter wants to be, where the value is something else.
fn wanted(of: &Value, value: &str) -> Option<String> {
    let is = |word: &str| of["type"] == word || of["type"].as_array().is_some_and(|types| types.contains(&word.into()));
    if is("integer") {
        let least = of["minimum"].as_u64().unwrap_or(0);
        let fits = value.parse::<u32>().is_ok_and(|number| u64::from(number) >= least);
        return (!fits).then(|| format!("a whole number from {least} to {}", u32::MAX));
    }
    if of["format"] == "date-time" {
        return value.parse::<jiff::Timestamp>().is_err().then(|| "a time like 2026-01-31T12:00:00Z".to_owned());
    }
    (is("boolean") && !matches!(value, "true" | "false")).then(|| "true or false".to_owned())
}

/// A value that somebody sent, within a sentence.
fn short(text: &str) -> String {
    let short: String = text.chars().take(60).collect();
    if short.len() < text.len() { short + "…" } else { short }
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
