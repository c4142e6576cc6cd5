//! Bodies of several parts (RFC 2046, section 5.1; forms with files: RFC 7578) as documents.
//!
//! Always true: the boundary between the parts, which senders draw at random, has no meaning, also where the text
//! before the first part (the preamble) names it; a body that is not of this form has no document and is compared as
//! bytes.

use http::HeaderMap;
use http::header::CONTENT_TYPE;
use serde_json::{Map, Value};

use super::bounds::{BoundExceeded, CompareBounds};
use super::digest::digest;
use super::parsed_body::bounded_json;
use crate::expression::MediaType;

/// The most parts of a body that has a document.
const PARTS_MAX: usize = 1_000;
/// The longest boundary (RFC 2046, section 5.1.1).
const BOUNDARY_CHARS_MAX: usize = 70;

/// What stands in a preamble in place of the boundary.
const BOUNDARY: &[u8] = b"BOUNDARY";
/// The key of a preamble: in a form beside the names of its parts, elsewhere in an element before the first part.
const PREAMBLE: &str = "#preamble";

/// Returns the parts of a body; `None` if it is not declared as one of several parts, or is not of this form. The parts
/// of a form are an object by their names (of a repeated name, an array); other parts are an array. A part has its
/// `body`, and its `type` and `filename` if it says them. The body is JSON if its type says so, else text, else the
/// digest of its bytes. A preamble that is not blank stands before the parts.
///
/// # Errors
/// A part is nested too deeply.
pub(super) fn document(
    headers: &HeaderMap,
    body: &[u8],
    bounds: &CompareBounds,
) -> Result<Option<Value>, BoundExceeded> {
    let Some((is_form, boundary)) = declared(headers) else { return Ok(None) };
    let Some((preamble, parts)) = parts(body, &boundary) else { return Ok(None) };
    let mut fields = Map::new();
    let mut others = Vec::new();
    if !preamble.iter().all(u8::is_ascii_whitespace) {
        let shown = value(None, &without_boundary(preamble, &boundary), bounds)?;
        match is_form {
            true => drop(fields.insert(PREAMBLE.to_owned(), shown)),
            false => others.push(Value::Object(Map::from_iter([(PREAMBLE.to_owned(), shown)]))),
        }
    }
    for MultipartPart { name, filename, content_type, body } in parts {
        let mut shown = Map::new();
        let media_type = content_type.as_deref().map(essence);
        filename.into_iter().for_each(|name| drop(shown.insert("filename".to_owned(), name.into())));
        content_type.into_iter().for_each(|of| drop(shown.insert("type".to_owned(), of.into())));
        shown.insert("body".to_owned(), value(media_type.as_deref(), body, bounds)?);
        let shown = Value::Object(shown);
        match (is_form, name) {
            (false, _) => others.push(shown),
            (true, None) => return Ok(None),
            // Nothing tells the part from the preamble.
            (true, Some(name)) if name == PREAMBLE => return Ok(None),
            (true, Some(name)) => match fields.get_mut(&name) {
                None => drop(fields.insert(name, shown)),
                Some(Value::Array(parts)) => parts.push(shown),
                Some(first) => *first = Value::Array(vec![first.take(), shown]),
            },
        }
    }
    Ok(Some(if is_form { Value::Object(fields) } else { Value::Array(others) }))
}

/// The bodies of the parts of a document, without the other members of the parts: of a form by the parts' names, else
/// as a list. So the name of a part tells whether its body is secret, and nothing about its type.
pub(super) fn bodies(document: &Value) -> Value {
    let body = |part: &Value| part.get("body").unwrap_or(part).clone();
    let bodies = |parts: &Value| match parts {
        Value::Array(parts) => parts.iter().map(body).collect(),
        part => body(part),
    };
    match document {
        Value::Object(fields) => Value::Object(fields.iter().map(|(name, of)| (name.clone(), bodies(of))).collect()),
        parts => bodies(parts),
    }
}

/// Whether a body is declared as one of several parts.
pub(super) fn is_declared(headers: &HeaderMap) -> bool {
    declared(headers).is_some()
}

/// Whether a body is a form, and its boundary; `None` if it is not declared as one of several parts.
fn declared(headers: &HeaderMap) -> Option<(bool, Vec<u8>)> {
    let value = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let essence = essence(value);
    let boundary = parameter(value, "boundary").filter(|of| (1..=BOUNDARY_CHARS_MAX).contains(&of.len()))?;
    essence.starts_with("multipart/").then(|| (essence == "multipart/form-data", boundary.into_bytes()))
}

fn essence(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// A parameter of a header's value: a token, or a quoted string.
fn parameter(value: &str, wanted: &str) -> Option<String> {
    let mut rest = value;
    loop {
        // The part before the first `;` is no parameter.
        rest = &rest[rest.find(';')? + 1..];
        let (name, text) = rest.split_once('=')?;
        let mut found = String::new();
        let text = text.trim_start();
        let mut end = text.len();
        if let Some(quoted) = text.strip_prefix('"') {
            let mut escaped = false;
            for (at, c) in quoted.char_indices() {
                match c {
                    _ if escaped => (escaped, _) = (false, found.push(c)),
                    '\\' => escaped = true,
                    '"' => {
                        end = at + 2;
                        break;
                    }
                    other => found.push(other),
                }
            }
        } else {
            end = text.find(';').unwrap_or(end);
            text[..end].trim().clone_into(&mut found);
        }
        if name.trim().eq_ignore_ascii_case(wanted) {
            return Some(found);
        }
        rest = &text[end..];
    }
}

struct MultipartPart<'a> {
    name: Option<String>,
    filename: Option<String>,
    content_type: Option<String>,
    body: &'a [u8],
}

/// A preamble with a constant in place of the boundary, where that stands as a word.
fn without_boundary(preamble: &[u8], boundary: &[u8]) -> Vec<u8> {
    let is_letter = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let (mut shown, mut rest) = (Vec::with_capacity(preamble.len()), preamble);
    while let Some(at) = find(rest, boundary) {
        let (before, behind) = (&rest[..at], &rest[at + boundary.len()..]);
        let is_word = !is_letter(before.last().or(shown.last())) && !is_letter(behind.first());
        shown.extend_from_slice(before);
        shown.extend_from_slice(if is_word { BOUNDARY } else { boundary });
        rest = behind;
    }
    shown.extend_from_slice(rest);
    shown
}

/// What stands before the first boundary, and the parts between the boundaries. `None` if the last boundary is missing,
/// a part's head cannot be read, there are too many parts, or something stands behind the last boundary, which would
/// not be compared.
fn parts<'a>(body: &'a [u8], boundary: &[u8]) -> Option<(&'a [u8], Vec<MultipartPart<'a>>)> {
    let delimiter = [b"\r\n--", boundary].concat();
    // The line break before the first boundary may be missing.
    let (preamble, mut rest) = match body.strip_prefix(&delimiter[2..]) {
        Some(rest) => (&body[..0], rest),
        None => find(body, &delimiter).map(|at| (&body[..at], &body[at + delimiter.len()..]))?,
    };
    let mut parts = Vec::new();
    loop {
        if let Some(behind) = rest.strip_prefix(b"--") {
            return behind.iter().all(u8::is_ascii_whitespace).then_some((preamble, parts));
        }
        let line = find(rest, b"\r\n")?;
        if parts.len() == PARTS_MAX || !rest[..line].iter().all(|b| matches!(b, b' ' | b'\t')) {
            return None;
        }
        rest = &rest[line + 2..];
        let (head, behind) = match rest.strip_prefix(b"\r\n") {
            Some(behind) => (&rest[..0], behind),
            None => {
                let end = find(rest, b"\r\n\r\n")?;
                (&rest[..end], &rest[end + 4..])
            }
        };
        // The body of an empty part may begin with the line break of the delimiter.
        let end = match rest.len() - behind.len() {
            taken if taken >= 2 && rest[taken - 2..].starts_with(&delimiter) => None,
            _ => Some(find(behind, &delimiter)?),
        };
        let (content, next) = match end {
            None => (&behind[..0], &behind[delimiter.len() - 2..]),
            Some(end) => (&behind[..end], &behind[end + delimiter.len()..]),
        };
        parts.push(part(head, content)?);
        rest = next;
    }
}

fn part<'a>(head: &[u8], body: &'a [u8]) -> Option<MultipartPart<'a>> {
    let head = std::str::from_utf8(head).ok()?;
    let mut part = MultipartPart { name: None, filename: None, content_type: None, body };
    for line in head.split("\r\n").filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':')?;
        if name.eq_ignore_ascii_case("content-disposition") {
            (part.name, part.filename) = (parameter(value, "name"), parameter(value, "filename"));
        } else if name.eq_ignore_ascii_case("content-type") {
            part.content_type = Some(value.trim().to_owned());
        }
    }
    Some(part)
}

/// Where `wanted` begins in `bytes`.
fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

/// The body of a part.
fn value(media_type: Option<&str>, body: &[u8], bounds: &CompareBounds) -> Result<Value, BoundExceeded> {
    let media_type = media_type.map(MediaType::of);
    let is_json = media_type.as_ref().is_some_and(MediaType::is_json);
    if is_json && let Some((value, _)) = bounded_json(body, bounds)?.filter(|(_, keys)| keys.is_empty()) {
        return Ok(value);
    }
    // A part without a type is text (RFC 7578, section 4.4).
    let is_text = is_json || media_type.is_none_or(|of| of.is_text());
    let text = is_text.then(|| std::str::from_utf8(body).ok()).flatten();
    Ok(text.map_or_else(|| Value::String(digest(body)), Value::from))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const BOUNDS: CompareBounds = CompareBounds { differences: 9, depth: 4, bytes: 9_999, effects: 9 };

    fn of(content_type: &str, body: &[u8]) -> Option<Value> {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, content_type.parse().unwrap())]);
        document(&headers, body, &BOUNDS).unwrap()
    }

    #[test]
    fn the_parts_of_a_form_are_named_and_the_boundary_has_no_meaning() {
        let form = |boundary: &str| {
            format!(
                "--{boundary}\r\nContent-Disposition: form-data; name=\"to\"\r\n\r\nann\r\n--{boundary} \r\n\
                 content-disposition: form-data; name=\"scan\"; filename=\"a;\\\"b\\\".pdf\"\r\n\
                 Content-Type: application/pdf\r\n\r\n%PDF\r\n\r\n--{boundary}\r\n\
                 Content-Disposition: form-data; name=tag\r\n\r\n\r\n--{boundary}\r\n\
                 Content-Disposition: form-data; name=tag\r\nContent-Type: application/json\r\n\r\n{{\"n\":1.10}}\r\n\
                 --{boundary}--\r\n"
            )
        };
        let a = of("multipart/form-data; boundary=xYz", form("xYz").as_bytes()).expect("a document");
        let b = of("Multipart/Form-Data; charset=utf-8; Boundary=\"a b\"", form("a b").as_bytes());
        let json: Value = serde_json::from_str(r#"{"n":1.10}"#).unwrap();
        let scan = json!({ "filename": "a;\"b\".pdf", "type": "application/pdf", "body": digest(b"%PDF\r\n") });
        let tags = json!([{ "body": "" }, { "type": "application/json", "body": json }]);
        assert_eq!(a, json!({ "to": { "body": "ann" }, "scan": scan, "tag": tags }));
        assert_eq!(Some(a), b);
    }

    #[test]
    fn other_parts_are_in_order() {
        let body = b"\r\n--x\r\n\r\none\r\n--x\r\nContent-Type: text/plain\r\nContent-ID: <1>\r\n\r\ntwo\r\n--x--";
        let parts = json!([{ "body": "one" }, { "type": "text/plain", "body": "two" }]);
        assert_eq!(of("multipart/mixed; boundary=x", body), Some(parts));
        assert_eq!(of("multipart/mixed; boundary=x", b"--x--\r\n"), Some(json!([])));
        assert_eq!(of("multipart/mixed; boundary=x", b"--x\r\n\r\n\r\n--x--"), Some(json!([{ "body": "" }])));
    }

    #[test]
    fn a_preamble_is_compared_without_the_boundary_that_it_names() {
        let of = |boundary: &str, text: &str| {
            let body = format!("{text}\r\n--{boundary}\r\n\r\none\r\n--{boundary}--");
            self::of(&format!("multipart/mixed; boundary=\"{boundary}\""), body.as_bytes())
        };
        let named = |boundary: &str| of(boundary, &format!("Parts begin with --{boundary}, see ({boundary})."));
        let preamble = json!([{ "#preamble": "Parts begin with --BOUNDARY, see (BOUNDARY)." }, { "body": "one" }]);
        assert_eq!(named("4kQ9-_1"), Some(preamble));
        assert_eq!(named("4kQ9-_1"), named("=_Zx.77"));
        assert_ne!(of("4kQ9", "Parts of 4kQ9"), of("Zx77", "Other parts of Zx77"));
        // A boundary that is a part of a word is none.
        assert_eq!(of("x", "a text of x"), Some(json!([{ "#preamble": "a text of BOUNDARY" }, { "body": "one" }])));
        assert_eq!(of("x", " \r\n"), Some(json!([{ "body": "one" }])));
        let form = |name: &str| {
            let body = format!("Hi x\r\n--x\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n1\r\n--x--");
            self::of("multipart/form-data; boundary=x", body.as_bytes())
        };
        assert_eq!(form("a"), Some(json!({ "#preamble": "Hi BOUNDARY", "a": { "body": "1" } })));
        assert_eq!(form("#preamble"), None);
    }

    #[test]
    fn what_is_not_of_this_form_has_no_document() {
        for (content_type, body) in [
            ("text/plain; boundary=x", "--x--"),
            ("multipart/mixed", "--x--"),
            ("multipart/mixed; boundary=", "----"),
            ("multipart/mixed; boundary=x", ""),
            ("multipart/mixed; boundary=x", "--x\r\n\r\none"),
            ("multipart/mixed; boundary=x", "--xy\r\n\r\none\r\n--x--"),
            ("multipart/mixed; boundary=x", "--x\r\nno head\r\n\r\none\r\n--x--"),
            ("multipart/mixed; boundary=x", "--x--hello"),
            ("multipart/mixed; boundary=x", "--x\r\n\r\none\r\n--x--\r\n--x\r\n\r\ntwo\r\n--x--"),
            ("multipart/form-data; boundary=x", "--x\r\n\r\nno name\r\n--x--"),
            ("multipart/form-data; boundary=\"x", "--x\r\n\r\nno name\r\n--x--"),
        ] {
            assert_eq!(of(content_type, body.as_bytes()), None, "{content_type}: {body:?}");
        }
        let many = "--x\r\n\r\n1\r\n".repeat(PARTS_MAX + 1) + "--x--";
        assert_eq!(of("multipart/mixed; boundary=x", many.as_bytes()), None);
    }
}
