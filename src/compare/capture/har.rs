//! Pairs of a HAR file (HTTP Archive 1.2): requests and replies, without reads and calls.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::Deserialize;
use uuid::Uuid;

use super::record::{CAPTURE_VERSION, Capture, CapturedBody, CapturedReply, CapturedRequest};
use crate::names::RouteId;

/// Why a file is no HAR.
#[derive(Debug, thiserror::Error)]
pub enum HarError {
    /// It is no JSON of this form.
    #[error("it is no HAR file: {0}")]
    Form(#[from] serde_json::Error),
}

#[derive(Deserialize)]
struct Har {
    log: Log,
}

#[derive(Deserialize)]
struct Log {
    entries: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    #[serde(default)]
    started_date_time: Option<String>,
    request: HarRequest,
    response: HarResponse,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct HarRequest {
    method: String,
    url: String,
    #[serde(default)]
    headers: Vec<HarHeader>,
    #[serde(default)]
    post_data: Option<PostData>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PostData {
    #[serde(default)]
    mime_type: String,
    #[serde(default)]
    text: String,
    #[serde(default)]
    params: Vec<HarParam>,
}

#[derive(Deserialize)]
struct HarParam {
    name: String,
    #[serde(default)]
    value: String,
}

#[derive(Deserialize)]
struct HarResponse {
    status: u16,
    #[serde(default)]
    headers: Vec<HarHeader>,
    #[serde(default)]
    content: Content,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Content {
    #[serde(default)]
    mime_type: String,
    #[serde(default)]
    text: String,
    #[serde(default)]
    encoding: Option<String>,
}

#[derive(Deserialize)]
struct HarHeader {
    name: String,
    value: String,
}

/// Headers that are left out, because they describe the transfer of a body, and the archive has the decoded body.
const LEFT_OUT: [&str; 4] = ["content-encoding", "content-length", "transfer-encoding", "connection"];

/// Names the route of a request, by its method, host and path.
pub type RouteOf<'a> = &'a dyn Fn(&str, Option<&str>, &str) -> Option<RouteId>;

/// The pairs of a HAR file for which `route_of` names a route: by method, host and path of the request. A reply without
/// a status (a request that was blocked or aborted) makes no pair.
///
/// # Errors
/// The text is no HAR.
pub fn pairs_of_har(text: &str, route_of: RouteOf<'_>) -> Result<Vec<Capture>, HarError> {
    let Har { log } = serde_json::from_str(text.strip_prefix('\u{feff}').unwrap_or(text))?;
    let pair = |(number, entry): (usize, Entry)| {
        let Entry { started_date_time, request, response } = entry;
        let rest = request.url.split_once("://").map_or(request.url.as_str(), |(_, rest)| rest);
        let rest = rest.split('#').next().unwrap_or_default();
        let (before, query) = rest.split_once('?').map_or((rest, None), |(before, query)| (before, Some(query)));
        let (host, path) = before.split_at(before.find('/').unwrap_or(before.len()));
        let path = if path.is_empty() { "/" } else { path };
        if response.status == 0 {
            return None;
        }
        let route = route_of(&request.method, Some(host), path)?;
        let mut headers = kept(request.headers);
        let body = request.post_data.as_ref().map(body_of_post).unwrap_or_default();
        if let Some(PostData { mime_type, .. }) = &request.post_data {
            with_type(&mut headers, mime_type);
        }
        let mut reply_headers = kept(response.headers);
        with_type(&mut reply_headers, &response.content.mime_type);
        Some(Capture {
            version: CAPTURE_VERSION,
            id: Uuid::from_u128(number as u128),
            route,
            at: started_date_time.and_then(|text| text.parse().ok()).unwrap_or(Timestamp::UNIX_EPOCH),
            started: None,
            plan: None,
            outcome: None,
            request: CapturedRequest {
                method: request.method,
                path: path.to_owned(),
                query: query.map(str::to_owned),
                headers,
                body,
            },
            legacy: CapturedReply {
                status: response.status,
                headers: reply_headers,
                body: body_of(response.content),
                may_be_unread: false,
            },
            instance: None,
            reads: Vec::new(),
            intents: Vec::new(),
            calls: None,
        })
    };
    Ok(log.entries.into_iter().enumerate().filter_map(pair).collect())
}

fn kept(headers: Vec<HarHeader>) -> Vec<(String, String)> {
    let is_kept = |name: &str| !name.starts_with(':') && !LEFT_OUT.iter().any(|other| name.eq_ignore_ascii_case(other));
    let headers = headers.into_iter().filter(|header| is_kept(&header.name));
    headers.map(|HarHeader { name, value }| (name.to_ascii_lowercase(), value)).collect()
}

fn with_type(headers: &mut Vec<(String, String)>, mime_type: &str) {
    if !mime_type.is_empty() && !headers.iter().any(|(name, _)| name == "content-type") {
        headers.push(("content-type".to_owned(), mime_type.to_owned()));
    }
}

fn body_of_post(PostData { text, params, .. }: &PostData) -> CapturedBody {
    if !text.is_empty() {
        return CapturedBody::Text(text.clone());
    }
    let encoded =
        |text: &str| percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string();
    match params.is_empty() {
        true => CapturedBody::Empty,
        false => {
            let fields = params.iter().map(|param| format!("{}={}", encoded(&param.name), encoded(&param.value)));
            CapturedBody::Text(fields.collect::<Vec<_>>().join("&"))
        }
    }
}

fn body_of(Content { text, encoding, .. }: Content) -> CapturedBody {
    match encoding.as_deref() {
        _ if text.is_empty() => CapturedBody::Empty,
        Some(encoding) if encoding.eq_ignore_ascii_case("base64") => {
            match STANDARD.decode(&text).ok().and_then(|bytes| String::from_utf8(bytes).ok()) {
                Some(text) => CapturedBody::Text(text),
                // A binary body stays in base64, so that it differs from whatever a workflow answers.
                None => CapturedBody::Text(text),
            }
        }
        Some(_) | None => CapturedBody::Text(text),
    }
}
