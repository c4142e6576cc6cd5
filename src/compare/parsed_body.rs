//! A body parsed by its type: JSON, text, or bytes, of which a difference shows only the digest.

use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use serde_json::Value;

use super::bounds::{BoundExceeded, CompareBounds};
use super::decode::{Decoded, decode};
use super::json_reader;
use super::json_tree::JsonTree;
use super::observation::Body;
use super::repeated_keys::{RepeatedKey, repeated_keys};
use crate::expression::{MediaType, parse_json};

/// A body, decompressed and parsed.
#[derive(Clone, Debug)]
pub(super) enum ParsedBody {
    Empty,
    /// The value, and the keys that its text repeats.
    Json(Value, Vec<RepeatedKey>),
    Text(String),
    /// A text that is declared as JSON and is none. It is compared as text.
    NotJson(String),
    Bytes(Bytes),
}

impl ParsedBody {
    /// Parses a body; `headers` declare its type and encoding.
    pub(super) fn of_parts(headers: &HeaderMap, body: &Body, bounds: &CompareBounds) -> Result<Self, BoundExceeded> {
        match decoded(body, headers, bounds)? {
            Decoded::Plain(plain) => Self::of_plain(headers, plain, bounds),
            Decoded::Opaque(raw) => Ok(ParsedBody::Bytes(raw)),
        }
    }

    /// As [`ParsedBody::of_parts`], of a body that is decompressed.
    pub(super) fn of_plain(headers: &HeaderMap, plain: Bytes, bounds: &CompareBounds) -> Result<Self, BoundExceeded> {
        if plain.is_empty() {
            return Ok(ParsedBody::Empty);
        }
        match declared(headers) {
            Declared::Json => Ok(match (json(&plain, bounds)?, std::str::from_utf8(&plain)) {
                (Some(json), _) => json,
                (None, Ok(text)) => ParsedBody::NotJson(text.to_owned()),
                (None, Err(_)) => ParsedBody::Bytes(plain),
            }),
            Declared::Text => Ok(as_text(plain)),
            Declared::Nothing => Ok(match json(&plain, bounds) {
                Ok(Some(json)) => json,
                // Not declared as JSON: the body is compared as text if it is nested too deeply or is not JSON.
                Ok(None) | Err(_) => as_text(plain),
            }),
            Declared::Other => Ok(ParsedBody::Bytes(plain)),
        }
    }

    /// Returns the body as the value that expressions read.
    pub(super) fn value(&self) -> Value {
        match self {
            ParsedBody::Json(value, _) => value.clone(),
            ParsedBody::Text(text) | ParsedBody::NotJson(text) => Value::String(text.clone()),
            ParsedBody::Empty | ParsedBody::Bytes(_) => Value::Null,
        }
    }

    /// The text of a body that is compared as text.
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            ParsedBody::Text(text) | ParsedBody::NotJson(text) => Some(text),
            ParsedBody::Empty | ParsedBody::Json(..) | ParsedBody::Bytes(_) => None,
        }
    }

    /// The name of the body's type, for a difference between types.
    pub(super) fn name(&self) -> &'static str {
        match self {
            ParsedBody::Empty => "nothing",
            ParsedBody::Json(..) => "JSON",
            ParsedBody::Text(_) => "text",
            ParsedBody::NotJson(_) => "text that is not JSON",
            ParsedBody::Bytes(_) => "bytes",
        }
    }
}

/// Decompresses a body.
pub(super) fn decoded(body: &Body, headers: &HeaderMap, bounds: &CompareBounds) -> Result<Decoded, BoundExceeded> {
    let Body::Whole(raw) = body else { return Err(BoundExceeded::Size) };
    decode(headers, raw, bounds.bytes)
}

/// Reads a body as a tree, if it is JSON by what its headers declare, or if they declare nothing; `None` if it is not,
/// or if it needs more than most bodies do ([`ParsedBody::of_plain`]).
pub(super) fn tree_of(headers: &HeaderMap, plain: &[u8], bounds: &CompareBounds) -> Option<JsonTree> {
    match declared(headers) {
        Declared::Json | Declared::Nothing => json_reader::read(plain, bounds.depth.min(PARSER_DEPTH_MAX)),
        Declared::Text | Declared::Other => None,
    }
}

/// Whether a body is declared as JSON.
pub(super) fn is_declared_json(headers: &HeaderMap) -> bool {
    matches!(declared(headers), Declared::Json)
}

enum Declared {
    Json,
    Text,
    Other,
    Nothing,
}

fn declared(headers: &HeaderMap) -> Declared {
    let Some(value) = headers.get(CONTENT_TYPE) else { return Declared::Nothing };
    let kind = MediaType::of(value.to_str().unwrap_or("-"));
    match kind.as_str() {
        "" => Declared::Nothing,
        _ if kind.is_json() => Declared::Json,
        _ if kind.is_text() || kind.is_form() => Declared::Text,
        "application/javascript"
        | "application/x-ndjson"
        | "application/ndjson"
        | "application/jsonl"
        | "application/yaml"
        | "application/graphql" => Declared::Text,
        _ => Declared::Other,
    }
}

fn as_text(plain: Bytes) -> ParsedBody {
    match std::str::from_utf8(&plain) {
        Ok(text) => ParsedBody::Text(text.to_owned()),
        Err(_) => ParsedBody::Bytes(plain),
    }
}

/// The JSON parser's own limit on nesting.
const PARSER_DEPTH_MAX: usize = 127;

fn json(plain: &[u8], bounds: &CompareBounds) -> Result<Option<ParsedBody>, BoundExceeded> {
    Ok(bounded_json(plain, bounds)?.map(|(value, repeated)| ParsedBody::Json(value, repeated)))
}

/// Parses JSON, and finds the keys that it repeats; `None` if the text is not JSON.
pub(super) fn bounded_json(
    plain: &[u8],
    bounds: &CompareBounds,
) -> Result<Option<(Value, Vec<RepeatedKey>)>, BoundExceeded> {
    match json_reader::read(plain, bounds.depth.min(PARSER_DEPTH_MAX)) {
        Some(tree) => Ok(Some((tree.root().to_value(), Vec::new()))),
        None => general_json(plain, bounds),
    }
}

/// As [`bounded_json`], for any text. The depth is checked first, because the parser and all code after it recurse.
pub(super) fn general_json(
    plain: &[u8],
    bounds: &CompareBounds,
) -> Result<Option<(Value, Vec<RepeatedKey>)>, BoundExceeded> {
    let Outline { depth, members } = outline(plain);
    if depth > bounds.depth.min(PARSER_DEPTH_MAX) {
        return Err(BoundExceeded::Depth);
    }
    let Ok(value) = parse_json(plain) else { return Ok(None) };
    let repeated = repeated_keys(plain, members, &value);
    Ok(Some((value, repeated)))
}

/// What is known of a JSON text before it is parsed.
struct Outline {
    /// The deepest nesting of brackets.
    depth: usize,
    /// The number of members of all objects: each has one colon outside strings.
    members: usize,
}

/// Reads a JSON text without its strings.
fn outline(json: &[u8]) -> Outline {
    let (mut now, mut depth, mut members) = (0usize, 0usize, 0usize);
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
                depth = depth.max(now);
            }
            b']' | b'}' => now = now.saturating_sub(1),
            b':' => members += 1,
            _ => {}
        }
    }
    Outline { depth, members }
}
