//! The reference for users: the list of topics, and each topic, as plain text or as a simple HTML page.

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, header};

use super::error::ApiError;
use super::extract::PathParams;
use crate::docs::{self, Topic};

/// The path of the list of topics, and the beginning of every topic's path.
pub(super) const DOCS: &str = "/docs";

pub(super) async fn index(headers: HeaderMap) -> Response {
    if !wants_html(&headers) {
        let mut text = format!("{DOCS}/TOPIC is one of these, as `pointsman help TOPIC` shows it:\n\n");
        for topic in docs::TOPICS {
            text.push_str(&format!("{DOCS}/{:<12} {}\n", topic.name, topic.title()));
        }
        return plain(text);
    }
    html(docs::page("Pointsman: topics", &docs::index(), &links(docs::TOPICS)))
}

pub(super) async fn topic(PathParams(name): PathParams<String>, headers: HeaderMap) -> Result<Response, ApiError> {
    let names = docs::TOPICS.iter().map(|topic| topic.name);
    let topic = docs::find(&name).map_err(|_| ApiError::unknown("topic", &name, names))?;
    if !wants_html(&headers) {
        return Ok(plain(topic.text()));
    }
    Ok(html(docs::page(topic.title(), &topic.text(), &links(docs::TOPICS))))
}

fn links(topics: &[Topic]) -> Vec<(String, &'static str)> {
    topics.iter().map(|topic| (format!("{DOCS}/{}", topic.name), topic.name)).collect()
}

/// A browser lists HTML in `Accept`; `curl` sends `*/*` and gets text.
fn wants_html(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted
        .flat_map(|value| value.split(','))
        .any(|kind| kind.split(';').next().unwrap_or_default().trim() == "text/html")
}

fn plain(text: String) -> Response {
    ([(header::VARY, HeaderValue::from_static("accept"))], text).into_response()
}

fn html(page: String) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        (header::VARY, HeaderValue::from_static("accept")),
    ];
    (headers, page).into_response()
}
