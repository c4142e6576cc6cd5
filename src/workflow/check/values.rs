//! Small values as people write them: names, durations, statuses, headers.

use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};
use serde_json::Value;

use crate::expression::Template;
use crate::problem::nearest;
use crate::workflow::Statuses;

/// Whether a name begins with a letter or `_`, and has only letters, digits, `-` and `_`, at most 64 in all. Names
/// become metric labels, keys and parts of paths.
pub(super) fn is_name(name: &str) -> bool {
    let first = |c: char| c.is_ascii_alphabetic() || c == '_';
    let rest = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    (1..=64).contains(&name.len()) && name.starts_with(first) && name.chars().all(rest)
}

pub(super) fn bad_name(what: &str, name: &str) -> String {
    format!(
        "`{name}` cannot be the name of a {what}: a letter or `_`, then letters, digits, `-` and `_`, at most 64 in all"
    )
}

/// Parses a duration such as `50ms`, `2s`, `1m` or `1h`: more than zero, at most a day. `workflow::span` has other
/// bounds, for waits, the timeouts of questions and signals, and computed values.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim().find(|c: char| !c.is_ascii_digit()).unwrap_or(text.trim().len());
    let (number, unit) = text.trim().split_at(digits);
    let factor = match unit.trim() {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "" if digits > 0 => return Err(format!("`{text}` is not a duration: it has no unit; write {number}s")),
        _ => return Err(format!("`{text}` is not a duration; write 50ms, 2s, 1m or 1h")),
    };
    let millis = number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
    match millis {
        Some(0) => Err("a duration is longer than 0".to_owned()),
        Some(millis) if millis <= 86_400_000 => Ok(Duration::from_millis(millis)),
        Some(_) => Err(format!("`{text}` is longer than a day")),
        None => Err(format!("`{text}` is not a duration; write 50ms, 2s, 1m or 1h")),
    }
}

/// Parses a duration like [`duration`], but also in days (`3d`) and up to a year.
pub(super) fn span(text: &str) -> Result<Duration, String> {
    let days = text.trim().strip_suffix('d').and_then(|days| days.trim().parse::<u64>().ok());
    match days {
        None => duration(text).map_err(|message| message.replace("2s, 1m or 1h", "2s, 1m, 1h or 3d")),
        Some(0) => Err("a duration is longer than 0".to_owned()),
        Some(days @ 1..=366) => Ok(Duration::from_secs(days * 86_400)),
        Some(_) => Err(format!("`{text}` is longer than a year")),
    }
}

/// Parses statuses such as `402`, `"402"` and `2xx`. Returns them, and the error messages with their indexes.
pub(super) fn statuses(list: &[Value]) -> (Statuses, Vec<(usize, String)>) {
    let (mut ranges, mut bad) = (Vec::new(), Vec::new());
    for (index, value) in list.iter().enumerate() {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let range = match text.as_bytes() {
            [class @ b'2'..=b'5', b'x' | b'X', b'x' | b'X'] => {
                let low = u16::from(class - b'0') * 100;
                Some((low, low + 99))
            }
            _ => text.parse().ok().filter(|status| (200..=599).contains(status)).map(|status| (status, status)),
        };
        match range {
            Some(range) => ranges.push(range),
            None => bad.push((index, format!("`{text}` is not a status; write 402, or 4xx for all of them"))),
        }
    }
    (Statuses(ranges), bad)
}

/// Parses a call such as `POST ${services.stock}/…`. Returns the method, the position of the URL (in characters) and
/// the URL; or an error message and a hint.
pub(super) fn call(text: &str) -> Result<(Method, usize, &str), (String, Option<String>)> {
    let trimmed = text.trim_start();
    let word = trimmed.split(char::is_whitespace).next().unwrap_or("");
    let rest = &trimmed[word.len()..];
    let url = rest.trim();
    let known = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    let Some(method) = known.iter().find(|known| **known == word).and_then(|known| known.parse().ok()) else {
        if word.contains("${") {
            return Err(("a call is a method and a URL".to_owned(), Some(format!("write `call: GET {text}`"))));
        }
        let meant = nearest(&word.to_ascii_uppercase(), known).map(|known| format!("did you mean `{known}`?"));
        return Err((
            format!("unknown method `{word}`"),
            meant.or_else(|| Some(format!("methods are {}", known.join(", ")))),
        ));
    };
    if url.is_empty() {
        return Err((
            "a call is a method and a URL".to_owned(),
            Some(format!("write `{word} ${{services.NAME}}/path`")),
        ));
    }
    let before = text.len() - rest.trim_start().len();
    Ok((method, text[..before].chars().count(), url))
}

/// Headers that the protocol or the engine sets.
const RESERVED: [&str; 10] = [
    "connection",
    "content-length",
    "host",
    "idempotency-key",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "proxy-connection",
];

pub(super) fn header(name: &str) -> Result<HeaderName, String> {
    let parsed = HeaderName::try_from(name).map_err(|_| format!("`{name}` is not a header's name"))?;
    match RESERVED.contains(&parsed.as_str()) {
        true => Err(format!("`{parsed}` cannot be set here: the engine or the protocol sets it")),
        false => Ok(parsed),
    }
}

/// Checks a header's value if it holds no expression.
pub(super) fn header_value(template: &Template) -> Result<(), String> {
    let Some(Value::String(text)) = template.as_constant() else { return Ok(()) };
    HeaderValue::from_str(text)
        .map(|_| ())
        .map_err(|_| "a header's value has no line breaks or control characters".to_owned())
}

/// Parses a status that is a number or the text of one: `204`, `"204"`.
pub(super) fn status_number(value: &Value) -> Option<u16> {
    value.as_u64().and_then(|number| number.try_into().ok()).or_else(|| value.as_str()?.parse().ok())
}

/// Checks a status if it holds no expression.
pub(super) fn status(template: &Template) -> Result<(), String> {
    let Some(value) = template.as_constant() else {
        return match template.single() {
            Some(_) => Ok(()),
            None => Err("a status is a number or one `${ … }`".to_owned()),
        };
    };
    match status_number(value) {
        Some(200..=599) => Ok(()),
        _ => Err(format!("{value} is not a status; it is a number from 200 to 599")),
    }
}
