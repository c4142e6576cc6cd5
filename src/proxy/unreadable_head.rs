//! The answer to a head that the HTTP library (hyper) cannot read. By itself, hyper answers with a status alone. The
//! answer that replaces hyper's has the same status, and a problem document that says what is wrong.
//!
//! Always true: bytes of hyper are replaced only if hyper writes them while no exchange is under way. At such a time
//! hyper writes nothing but answers to unreadable heads, and closes the connection afterwards.

use bytes::Bytes;
use http::StatusCode;
use serde_json::json;

/// The reason of a request whose head is not HTTP/1.1.
pub(super) const MALFORMED_HEAD: &str = "malformed-head";
/// The reason of a request whose head is larger than `head_bytes_max` or has more fields than `head_fields_max`, or
/// whose target is longer than 65,534 bytes.
pub(super) const HEAD_TOO_LARGE: &str = "head-too-large";

/// Returns the answer that replaces hyper's; `None` if `written` does not begin an answer to an unreadable head.
pub(super) fn answer_instead_of(written: &[u8]) -> Option<Bytes> {
    let (version, rest) = written.split_at_checked(b"HTTP/1.1 ".len())?;
    let status = StatusCode::from_bytes(rest.get(..3)?).ok().filter(|_| version.starts_with(b"HTTP/1."))?;
    let (kind, title, why) = problem(status)?;
    let detail = format!("{why} Nothing was forwarded.");
    let document = json!({
        "type": format!("urn:pointsman:problem:{kind}"),
        "title": title,
        "status": status.as_u16(),
        "detail": detail,
    });
    let body = format!("{document}\n");
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/problem+json\r\ncache-control: no-store\r\n\
         x-pointsman-source: proxy\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    Some((head + &body).into())
}

/// Returns the problem's reason, title and explanation for a status with which hyper refuses a head.
fn problem(status: StatusCode) -> Option<(&'static str, &'static str, &'static str)> {
    match status {
        StatusCode::BAD_REQUEST => Some((
            MALFORMED_HEAD,
            "The head cannot be read",
            "The request's head is not valid HTTP/1.1: its method, target, version or a header field has bytes that are \
             not allowed there. In a target such bytes (a space, a quotation mark, `<`, `>` and others) have to be \
             percent-encoded.",
        )),
        StatusCode::URI_TOO_LONG => Some((
            HEAD_TOO_LARGE,
            "The target is too long",
            "The request's target is longer than HTTP's reader takes (65,534 bytes).",
        )),
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => Some((
            HEAD_TOO_LARGE,
            "The head is too large",
            "The request's head is too large, or has too many header fields (limits: head_bytes_max, head_fields_max).",
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_answers_to_unreadable_heads_are_replaced() {
        for (written, kind) in [
            ("HTTP/1.1 400 Bad Request\r\n", Some("malformed-head")),
            ("HTTP/1.0 414 URI Too Long\r\n", Some("head-too-large")),
            ("HTTP/1.1 431 Request Header Fields Too Large\r\n", Some("head-too-large")),
            ("HTTP/1.1 200 OK\r\n", None),
            ("HTTP/1.1 4", None),
            ("a part of a body 400", None),
        ] {
            let answer = answer_instead_of(written.as_bytes());
            let text = answer.as_ref().map(|answer| String::from_utf8_lossy(answer).into_owned());
            assert_eq!(text.is_some(), kind.is_some(), "{written}");
            let Some((text, kind)) = text.zip(kind) else { continue };
            assert!(text.starts_with(&written.replace("/1.0", "/1.1")), "{text}");
            assert!(text.contains(&format!("urn:pointsman:problem:{kind}")), "{text}");
        }
    }
}
