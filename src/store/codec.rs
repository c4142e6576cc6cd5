//! The format of stored events: the events of an append are one value with a line for each (its time in nanoseconds
//! since 1970, a space, its JSON); large values within them are stored apart.
//!
//! Always true: decoding returns what was encoded. The JSON that is written here contains no line end, so that lines
//! are separated without parsing. A value that is larger than the bound is stored once under the hash of its bytes; the
//! event has `null` in its place, and its path is stored apart from the event, so that no value of a user can look like
//! a reference. Extracted values do not nest: if a large value is small without its large children, only those children
//! are extracted. An event within the bound is stored whole.

use std::collections::HashMap;
use std::io::Write as _;

use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::workflow::Event;

/// The least value of the bound up to which an event is stored whole. A lower bound would save nothing, because a
/// reference takes about as many bytes.
pub(super) const INLINE_BYTES_MIN: usize = 256;

/// A value of an event that is stored by its hash.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct LargeValue {
    /// The JSON pointer to it in the event.
    pub(super) path: String,
    /// The hash of `body`.
    pub(super) hash: [u8; 32],
    /// The value as JSON.
    pub(super) body: Vec<u8>,
}

/// Adds the line of an event and returns the values that were extracted from it.
pub(super) fn encode_line(
    lines: &mut Vec<u8>,
    at: i64,
    event: &Event,
    inline_bytes_max: usize,
) -> Result<Vec<LargeValue>, serde_json::Error> {
    begin_line(lines, at);
    let start = lines.len();
    serde_json::to_writer(&mut *lines, event)?;
    if lines.len() - start <= inline_bytes_max {
        return Ok(Vec::new());
    }
    let mut value = serde_json::to_value(event)?;
    let mut parts = Vec::new();
    extract_large_values(&mut value, inline_bytes_max, &mut String::new(), &mut parts)?;
    lines.truncate(start);
    serde_json::to_writer(&mut *lines, &value)?;
    Ok(parts)
}

/// Adds the line of an event whose JSON was written elsewhere. Line ends between tokens of the JSON become spaces.
pub(super) fn copy_line(lines: &mut Vec<u8>, at: i64, json: &[u8]) {
    begin_line(lines, at);
    lines.extend(json.iter().map(|byte| if *byte == b'\n' { b' ' } else { *byte }));
}

fn begin_line(lines: &mut Vec<u8>, at: i64) {
    if !lines.is_empty() {
        lines.push(b'\n');
    }
    // Writing to a Vec cannot fail.
    let _ = write!(lines, "{at} ");
}

/// Splits a value into its events, each as its time and its JSON, or why a line cannot be split.
pub(super) fn split_lines(value: &[u8]) -> impl Iterator<Item = Result<(i64, &[u8]), String>> {
    value.split(|byte| *byte == b'\n').map(|line| {
        let mut halves = line.splitn(2, |byte| *byte == b' ');
        let at = halves.next().and_then(|at| std::str::from_utf8(at).ok()?.parse().ok());
        at.zip(halves.next()).ok_or_else(|| "its line does not begin with a time".to_owned())
    })
}

/// Decodes an event from its JSON and its extracted values, each with its path.
pub(super) fn decode_event<'a>(
    json: &[u8],
    parts: impl IntoIterator<Item = (&'a str, &'a [u8])>,
) -> Result<Event, String> {
    let mut parts = parts.into_iter().peekable();
    let failed = |error: serde_json::Error| format!("an event cannot be read: {error}");
    if parts.peek().is_none() {
        return serde_json::from_slice(json).map_err(failed);
    }
    let event: Value = serde_json::from_slice(json).map_err(failed)?;
    let mut extracted = Vec::new();
    for (path, body) in parts {
        if event.pointer(path).is_none() {
            return Err(format!("an event has no path `{path}` for its payload"));
        }
        let body = serde_json::from_slice(body).map_err(|error| format!("a payload cannot be read: {error}"))?;
        extracted.push((path, body));
    }
    let whole = serde_json::to_vec(&WithExtractedValues { value: &event, extracted: &extracted }).map_err(failed)?;
    serde_json::from_slice(&whole).map_err(failed)
}

/// Serialises a value with extracted values in their places, without parsing those.
struct WithExtractedValues<'a> {
    value: &'a Value,
    /// By the path within `value`.
    extracted: &'a [(&'a str, &'a RawValue)],
}

impl<'a> WithExtractedValues<'a> {
    /// The extracted values, grouped by the member or item that contains them; each with its path within that one.
    fn by_key(&self) -> HashMap<&'a str, Vec<(&'a str, &'a RawValue)>> {
        let mut by_key: HashMap<_, Vec<_>> = HashMap::new();
        for (path, body) in self.extracted {
            let path = path.strip_prefix('/').unwrap_or(path);
            let (key, rest) = path.split_at(path.find('/').unwrap_or(path.len()));
            by_key.entry(key).or_default().push((rest, *body));
        }
        by_key
    }
}

impl Serialize for WithExtractedValues<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let Some((_, body)) = self.extracted.iter().rfind(|(path, _)| path.is_empty()) {
            return body.serialize(serializer);
        }
        match self.value {
            Value::Object(members) if !self.extracted.is_empty() => {
                let by_key = self.by_key();
                let mut map = serializer.serialize_map(Some(members.len()))?;
                for (key, value) in members {
                    let extracted = by_key.get(pointer_token(key).as_str()).map_or(&[][..], Vec::as_slice);
                    map.serialize_entry(key, &WithExtractedValues { value, extracted })?;
                }
                map.end()
            }
            Value::Array(items) if !self.extracted.is_empty() => {
                let by_key = self.by_key();
                let mut list = serializer.serialize_seq(Some(items.len()))?;
                for (index, value) in items.iter().enumerate() {
                    let extracted = by_key.get(index.to_string().as_str()).map_or(&[][..], Vec::as_slice);
                    list.serialize_element(&WithExtractedValues { value, extracted })?;
                }
                list.end()
            }
            value => value.serialize(serializer),
        }
    }
}

/// The hash by which a body is stored.
pub(super) fn hash(body: &[u8]) -> [u8; 32] {
    *blake3::hash(body).as_bytes()
}

/// Replaces large values within `value` by null and adds them to `parts`.
fn extract_large_values(
    value: &mut Value,
    max: usize,
    path: &mut String,
    parts: &mut Vec<LargeValue>,
) -> Result<(), serde_json::Error> {
    let parent_len = path.len();
    for (key, child) in children(value) {
        if json_bytes(child) <= max {
            continue;
        }
        path.push('/');
        path.push_str(&pointer_token(&key));
        let large_inner: usize = children(child).map(|(_, inner)| json_bytes(inner)).filter(|inner| *inner > max).sum();
        // Without its large children the value is small enough to stay.
        if large_inner > 0 && json_bytes(child) - large_inner <= max {
            extract_large_values(child, max, path, parts)?;
        } else {
            let body = serde_json::to_vec(child)?;
            parts.push(LargeValue { path: path.clone(), hash: hash(&body), body });
            *child = Value::Null;
        }
        path.truncate(parent_len);
    }
    Ok(())
}

/// A key as a part of a JSON pointer.
fn pointer_token(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

fn children(value: &mut Value) -> Box<dyn Iterator<Item = (String, &mut Value)> + '_> {
    match value {
        Value::Object(fields) => Box::new(fields.iter_mut().map(|(key, child)| (key.clone(), child))),
        Value::Array(items) => Box::new(items.iter_mut().enumerate().map(|(index, child)| (index.to_string(), child))),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Box::new(std::iter::empty()),
    }
}

/// The length of a value as JSON, without escape characters.
fn json_bytes(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) => 4,
        Value::Number(number) => number.as_str().len(),
        Value::String(text) => text.len() + 2,
        Value::Array(items) => 1 + items.iter().map(|item| 1 + json_bytes(item)).sum::<usize>(),
        Value::Object(fields) => 1 + fields.iter().map(|(key, value)| 4 + key.len() + json_bytes(value)).sum::<usize>(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::workflow::{CallRecord, Payload};
    use crate::workflow::{EndingEvent, StepEvent};

    const MAX: usize = 64;

    fn round_trip(event: &Event, max: usize) -> Vec<LargeValue> {
        let mut written = Vec::new();
        let parts = encode_line(&mut written, -7, event, max).unwrap();
        let (at, json) = split_lines(&written).next().unwrap().unwrap();
        assert_eq!((at, split_lines(&written).count()), (-7, 1));
        let back = decode_event(json, parts.iter().map(|part| (part.path.as_str(), part.body.as_slice()))).unwrap();
        assert_eq!(back, *event);
        parts
    }

    fn computed(output: Value) -> Event {
        Event::Step(StepEvent::Computed { step: "s".into(), output: output.into() })
    }

    #[test]
    fn a_small_event_stays_whole() {
        let event = computed(json!({ "a": null, "n": 12_345_678_901_234_567_890_u64 }));
        assert_eq!(round_trip(&event, MAX).len(), 0);
    }

    #[test]
    fn equal_values_have_one_hash_in_all_events() {
        let body = format!("{{\"text\":\"{}\"}}", "x".repeat(1_000));
        let record = CallRecord {
            method: "POST".into(),
            url: "http://127.0.0.1/".into(),
            headers: Vec::new(),
            body: Payload::Text(body),
            secrets: Default::default(),
        };
        let of = |step: &str| {
            let json = json!({ "step_started": {
                "step": step, "item": null, "attempt": 1, "key": step, "effect": "shared",
                "mode": "real", "rehearsed": false, "request": serde_json::to_value(&record).unwrap(),
            } });
            let mut value = json;
            let mut parts = Vec::new();
            extract_large_values(&mut value, 500, &mut String::new(), &mut parts).unwrap();
            parts
        };
        let (one, two) = (of("a"), of("b"));
        assert_eq!(one.len(), 1);
        assert_eq!((&one[0].hash, &one[0].path), (&two[0].hash, &two[0].path));
        assert_eq!(one[0].path, "/step_started/request/body/text");
    }

    #[test]
    fn many_small_values_are_extracted_together_and_a_large_one_alone() {
        let items: Vec<Value> = (0..100).map(|n| json!(n)).collect();
        let parts = round_trip(&computed(json!({ "items": items, "note": "y".repeat(200), "n": 1 })), MAX);
        let paths: Vec<&str> = parts.iter().map(|part| part.path.as_str()).collect();
        assert_eq!(paths, ["/step_computed/output/items", "/step_computed/output/note"]);
        let long = "z".repeat(100);
        let parts = round_trip(&computed(json!([{ "a/b~c": long }, long])), MAX);
        assert_eq!(parts[0].path, "/step_computed/output/0/a~1b~0c");
        assert_eq!(parts[0].hash, parts[1].hash);
    }

    /// Holds also where the output, parts of it, or all of the event's large values were extracted.
    #[test]
    fn reading_an_event_does_not_parse_its_output() {
        let output = json!({ "text": "x".repeat(300), "list": [{ "n": 1 }, { "a/b~c": "y".repeat(300) }], "10": "~1" });
        for max in [64, 200, 400, 100_000] {
            let mut written = Vec::new();
            let parts = encode_line(&mut written, 1, &computed(output.clone()), max).unwrap();
            let json = split_lines(&written).next().unwrap().unwrap().1;
            let parts: Vec<_> = parts.iter().map(|part| (part.path.as_str(), part.body.as_slice())).collect();
            let Event::Step(StepEvent::Computed { output: read, .. }) = decode_event(json, parts).unwrap() else {
                panic!("another event")
            };
            assert!(read.is_unread(), "{max}");
            assert_eq!((&*read, read.to_string()), (&output, output.to_string()), "{max}");
        }
        let unread = decode_event(b"{\"step_computed\":{\"step\":\"s\",\"output\":[\"\\ud800\"]}}", []);
        assert!(unread.unwrap_err().contains("an event cannot be read"));
    }

    #[test]
    fn a_value_that_looks_like_a_reference_is_data() {
        let event = computed(json!({ "refs": { "/x": "00" }, "$ref": "y".repeat(300), "null": null }));
        assert_eq!(round_trip(&event, MAX).len(), 1);
        assert!(decode_event(b"{\"completed\":{}}", [("/nowhere", b"1".as_slice())]).unwrap_err().contains("/nowhere"));
        assert!(decode_event(b"{\"step_computed\":{}}", [("/step_computed", b"{".as_slice())]).is_err());
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            Just(serde_json::from_str("1.2300e5").unwrap()),
            "[a-z/~\"\\\\é]{0,90}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                proptest::collection::vec(("[a-c/~0]{0,3}", inner), 0..6)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    #[test]
    fn each_event_has_one_line_whatever_it_contains() {
        let mut written = Vec::new();
        let events = [json!("a\nb \u{1}"), json!({ "n": 1 }), json!("z".repeat(500))].map(computed);
        let mut parts = 0;
        for (at, event) in (1..).zip(&events) {
            parts += encode_line(&mut written, at, event, 256).unwrap().len();
        }
        copy_line(&mut written, i64::MIN, b"{\"completed\":\n{}}");
        let read: Vec<_> = split_lines(&written).map(Result::unwrap).collect();
        assert_eq!(read.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [1, 2, 3, i64::MIN]);
        assert_eq!(decode_event(read[0].1, []).unwrap(), events[0]);
        assert_eq!(decode_event(read[1].1, []).unwrap(), events[1]);
        assert_eq!(decode_event(read[3].1, []).unwrap(), Event::Ending(EndingEvent::Completed {}));
        assert_eq!(parts, 1);
        for broken in ["", " {}", "x {}", "1"] {
            assert!(split_lines(broken.as_bytes()).all(|line| line.is_err()), "{broken}");
        }
    }

    proptest! {
        #[test]
        fn decoding_returns_what_was_encoded(output in value(), max in 1..200_usize) {
            round_trip(&computed(output), max);
        }
    }
}
