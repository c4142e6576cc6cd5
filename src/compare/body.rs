//! What a body is: JSON, text, or bytes that only their digest tells apart.

use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use serde_json::Value;

use super::Bounds;
use super::decode::{Decoded, decode};
use super::findings::Findings;
use super::observation::{Body, Observation};
use super::text;
use super::verdict::{Kind, TooMuch};

/// A body, unpacked and read.
#[derive(Debug)]
pub(super) enum Form {
    Empty,
    Json(Value),
    Text(String),
    Bytes(Bytes),
}

impl Form {
    pub(super) fn of(observation: &Observation, bounds: &Bounds) -> Result<Self, TooMuch> {
        let Body::Whole(raw) = observation.body() else { return Err(TooMuch::Size) };
        let plain = match decode(observation.headers(), raw, bounds.bytes)? {
            Decoded::Plain(plain) => plain,
            Decoded::Opaque(raw) => return Ok(Form::Bytes(raw)),
        };
        if plain.is_empty() {
            return Ok(Form::Empty);
        }
        match declared(observation.headers()) {
            Declared::Json => json(&plain, bounds).map(|json| json.unwrap_or(Form::Bytes(plain))),
            Declared::Text => Ok(as_text(plain)),
            Declared::Nothing => Ok(match json(&plain, bounds) {
                Ok(Some(json)) => json,
                // Nobody said that it is JSON: it need not be judged as such.
                Ok(None) | Err(_) => as_text(plain),
            }),
            Declared::Other => Ok(Form::Bytes(plain)),
        }
    }

    /// As expressions see it.
    pub(super) fn value(&self) -> Value {
        match self {
            Form::Json(value) => value.clone(),
            Form::Text(text) => Value::String(text.clone()),
            Form::Empty | Form::Bytes(_) => Value::Null,
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Form::Empty => "nothing",
            Form::Json(_) => "JSON",
            Form::Text(_) => "text",
            Form::Bytes(_) => "bytes",
        }
    }
}

/// Bodies that are not both JSON.
pub(super) fn differing_forms(legacy: &Form, engine: &Form, found: &mut Findings<'_>) -> Result<(), TooMuch> {
    match (legacy, engine) {
        (Form::Empty, Form::Empty) => Ok(()),
        (Form::Text(legacy), Form::Text(engine)) => text::compare(legacy, engine, found),
        (Form::Bytes(legacy), Form::Bytes(engine)) => {
            if legacy != engine {
                found.plain("body", Kind::Value, Some(&digest(legacy)), Some(&digest(engine)));
            }
            Ok(())
        }
        (Form::Empty, other) => {
            found.plain("body", Kind::Extra, None, Some(other.name()));
            Ok(())
        }
        (other, Form::Empty) => {
            found.plain("body", Kind::Missing, Some(other.name()), None);
            Ok(())
        }
        (legacy, engine) => {
            found.plain("body", Kind::Type, Some(legacy.name()), Some(engine.name()));
            Ok(())
        }
    }
}

/// What stands for bytes that are not shown.
pub(super) fn digest(bytes: &[u8]) -> String {
    format!("{} bytes, digest {}", bytes.len(), &blake3::hash(bytes).to_hex()[..16])
}

enum Declared {
    Json,
    Text,
    Other,
    Nothing,
}

fn declared(headers: &HeaderMap) -> Declared {
    let Some(value) = headers.get(CONTENT_TYPE) else { return Declared::Nothing };
    let essence = value.to_str().unwrap_or("-").split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    match essence.as_str() {
        "" => Declared::Nothing,
        "application/json" | "text/json" => Declared::Json,
        other if other.ends_with("+json") => Declared::Json,
        "application/xml"
        | "application/javascript"
        | "application/x-www-form-urlencoded"
        | "application/x-ndjson"
        | "application/yaml"
        | "application/graphql" => Declared::Text,
        other if other.starts_with("text/") || other.ends_with("+xml") => Declared::Text,
        _ => Declared::Other,
    }
}

fn as_text(plain: Bytes) -> Form {
    match std::str::from_utf8(&plain) {
        Ok(text) => Form::Text(text.to_owned()),
        Err(_) => Form::Bytes(plain),
    }
}

/// The parser's own limit; a body nested deeper than this cannot be read.
const PARSER_DEPTH_MAX: usize = 127;

/// `None` where it is no JSON. The depth is looked at first: the parser and everything after it recurse.
fn json(plain: &[u8], bounds: &Bounds) -> Result<Option<Form>, TooMuch> {
    if depth(plain) > bounds.depth.min(PARSER_DEPTH_MAX) {
        return Err(TooMuch::Depth);
    }
    Ok(serde_json::from_slice(plain).ok().map(Form::Json))
}

/// The deepest nesting of brackets outside strings.
fn depth(json: &[u8]) -> usize {
    let (mut now, mut deepest) = (0usize, 0usize);
    let (mut in_string, mut escaped) = (false, false);
    for byte in json {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'[' | b'{' => {
                now += 1;
                deepest = deepest.max(now);
            }
            b']' | b'}' => now = now.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}
