//! JSON that stays text until something reads it.
//!
//! Always true: a value never changes; a text is kept only if it can certainly be parsed, so that reading it cannot
//! fail; two values are equal however their texts are written. What a service answered is often read by one expression
//! or by none: kept as text, it takes about a tenth of the memory and of the time to load a run.

use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

use super::json::RESERVED_PREFIX;

/// A text that is nested more deeply is parsed at once: the JSON parser's bound is a little greater.
const TEXT_DEPTH_MAX: usize = 100;

/// JSON that is shared: a clone costs a reference count. Reading it as a [`Value`] parses its text, once.
#[derive(Clone)]
pub struct SharedJson(Arc<Representation>);

enum Representation {
    Value(Arc<Value>),
    /// An object or a list for which [`is_kept_as_text`] holds, and its value once something has read it.
    Text {
        text: Box<RawValue>,
        value: OnceLock<Arc<Value>>,
    },
}

impl SharedJson {
    /// Keeps this value as text, if it can be kept so.
    pub fn as_text(value: &Value) -> Self {
        let text = serde_json::value::to_raw_value(value);
        text.and_then(Self::of_text).unwrap_or_else(|_| value.clone().into())
    }

    /// Makes a list of these items; an absent item is null. The list is text unless all items are values in memory.
    pub fn list<'a>(items: impl Iterator<Item = Option<&'a SharedJson>> + Clone) -> Self {
        let is_value = |item: Option<&SharedJson>| item.is_none_or(|item| matches!(*item.0, Representation::Value(_)));
        let text = match items.clone().all(is_value) {
            true => None,
            false => serde_json::value::to_raw_value(&Items(items.clone())).and_then(Self::of_text).ok(),
        };
        text.unwrap_or_else(|| items.map(|item| item.map_or(Value::Null, |item| (**item).clone())).collect())
    }

    /// Keeps a text; parses it if it is no object or list, or if only parsing shows whether it can be read.
    fn of_text(text: Box<RawValue>) -> Result<Self, serde_json::Error> {
        Ok(match text.get().starts_with(['{', '[']) && is_kept_as_text(text.get()) {
            true => Self(Arc::new(Representation::Text { text, value: OnceLock::new() })),
            false => serde_json::from_str::<Value>(text.get())?.into(),
        })
    }

    /// The value, shared.
    pub fn shared(&self) -> &Arc<Value> {
        match &*self.0 {
            Representation::Value(value) => value,
            // A run must not go on with another value than the recorded one, so there is none to return instead.
            Representation::Text { text, value } => value.get_or_init(|| match serde_json::from_str(text.get()) {
                Ok(value) => Arc::new(value),
                Err(error) => unreachable!("a text that was checked cannot be read as JSON: {error}"),
            }),
        }
    }

    /// Whether this is a list without items. Does not parse the text.
    pub fn is_empty_list(&self) -> bool {
        match &*self.0 {
            Representation::Value(value) => value.as_array().is_some_and(Vec::is_empty),
            Representation::Text { text, .. } => {
                text.get().strip_prefix('[').is_some_and(|rest| rest.trim_start() == "]")
            }
        }
    }

    /// Whether both share the same memory.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Whether this is text that nothing has parsed.
    #[cfg(test)]
    pub fn is_unread(&self) -> bool {
        matches!(&*self.0, Representation::Text { value, .. } if value.get().is_none())
    }
}

/// Whether a syntactically valid text (as checked by [`RawValue`]) is kept, because it can certainly be parsed. This is
/// not certain if the text is nested too deeply, if an escape may stand for half a surrogate pair, or if an object may
/// have a reserved key. A text with line breaks is not kept either, because line breaks separate stored events.
fn is_kept_as_text(text: &str) -> bool {
    let (mut depth, mut deepest, mut quoted, mut escaped) = (0_usize, 0, false, false);
    for byte in text.bytes() {
        match byte {
            b'u' if escaped => return false,
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => quoted = !quoted,
            b'{' | b'[' if !quoted => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !quoted => depth = depth.saturating_sub(1),
            b'\n' | b'\r' => return false,
            _ => {}
        }
    }
    deepest <= TEXT_DEPTH_MAX && !text.contains(RESERVED_PREFIX)
}

/// Serialises as a list.
struct Items<I>(I);

impl<'a, I: Iterator<Item = Option<&'a SharedJson>> + Clone> Serialize for Items<I> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.clone())
    }
}

impl From<Arc<Value>> for SharedJson {
    fn from(value: Arc<Value>) -> Self {
        Self(Arc::new(Representation::Value(value)))
    }
}

impl From<Value> for SharedJson {
    fn from(value: Value) -> Self {
        Arc::new(value).into()
    }
}

impl FromIterator<Value> for SharedJson {
    fn from_iter<I: IntoIterator<Item = Value>>(items: I) -> Self {
        Value::Array(items.into_iter().collect()).into()
    }
}

impl Default for SharedJson {
    fn default() -> Self {
        Value::Null.into()
    }
}

impl Deref for SharedJson {
    type Target = Value;

    fn deref(&self) -> &Value {
        self.shared()
    }
}

impl PartialEq for SharedJson {
    fn eq(&self, other: &Self) -> bool {
        let is_same_text = match (&*self.0, &*other.0) {
            (Representation::Text { text, .. }, Representation::Text { text: other, .. }) => text.get() == other.get(),
            _ => false,
        };
        self.is_same(other) || is_same_text || **self == **other
    }
}

/// Writes the JSON, whether it is kept as text or as a value.
impl fmt::Debug for SharedJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0 {
            Representation::Value(value) => fmt::Display::fmt(value, f),
            Representation::Text { text, .. } => f.write_str(text.get()),
        }
    }
}

impl Serialize for SharedJson {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &*self.0 {
            Representation::Value(value) => value.serialize(serializer),
            Representation::Text { text, .. } => text.serialize(serializer),
        }
    }
}

/// Works only from JSON: another format, or an enum representation of serde that buffers its content, gives an error.
impl<'de> Deserialize<'de> for SharedJson {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::of_text(Box::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn read(text: &str) -> Result<SharedJson, serde_json::Error> {
        serde_json::from_str(text)
    }

    #[test]
    fn a_text_is_parsed_when_it_is_read_and_written_as_it_is() {
        let text = r#"{"b": 1.2300e+5,"a":["é",12345678901234567890]}"#;
        let json = read(text).unwrap();
        assert!(json.is_unread());
        assert_eq!(serde_json::to_string(&json).unwrap(), text);
        assert_eq!(json, json.clone());
        assert!(json.is_unread(), "neither writing nor comparing with itself parses it");
        assert_eq!(json["a"][1].to_string(), "12345678901234567890");
        assert!(!json.is_unread());
        assert_eq!(json.to_string(), text.replace(": ", ":"));
        assert_eq!(serde_json::to_value(&json).unwrap(), *json);
        assert_eq!(serde_json::from_value::<SharedJson>((*json).clone()).unwrap(), json);
    }

    #[test]
    fn equal_values_are_equal_however_they_are_written() {
        let value = json!({ "a": [1], "b": null });
        for text in [r#"{"b":null,"a":[1]}"#, r#"{ "a" : [ 1 ], "b" : null }"#, r#"{"a":0,"b":null,"a":[1]}"#] {
            assert_eq!(read(text).unwrap(), value.clone().into(), "{text}");
        }
        assert_ne!(read(r#"{"a":[1]}"#).unwrap(), value.into());
        assert_eq!(SharedJson::default(), read("null").unwrap());
    }

    #[test]
    fn only_a_text_that_can_be_read_for_sure_is_kept() {
        let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        for kept in ["{}", "[]", r#"{"a":"\n\\"}"#, r#"["$serde"]"#, &deep(100)] {
            assert!(read(kept).unwrap().is_unread(), "{kept}");
        }
        let parsed = ["1", "\"a\"", "[\n1]", "[1,\r2]", r#"["\u00e9"]"#, r#"{"$serde_json::private::Number":"5"}"#];
        for parsed in parsed.into_iter().chain([deep(101).as_str()]) {
            let json = read(parsed).unwrap();
            assert_eq!(
                (json.is_unread(), &*json),
                (false, &serde_json::from_str::<Value>(parsed).unwrap()),
                "{parsed}"
            );
            assert!(!serde_json::to_string(&json).unwrap().contains(['\n', '\r']), "{parsed}");
        }
        for broken in [r#"["\ud800"]"#, "[1", "[01]", "[\"\u{1}\"]", "{\"a\" 1}", &deep(200)] {
            assert!(read(broken).is_err(), "{broken}");
        }
        assert!(serde_json::from_slice::<SharedJson>(b"[\"\xff\"]").is_err());
    }

    #[test]
    fn a_list_is_text_where_an_item_is_text() {
        let text = read(r#"{"a":1}"#).unwrap();
        let value: SharedJson = json!({ "b": 2 }).into();
        let all = json!([{ "a": 1 }, null, { "b": 2 }]);
        let list = SharedJson::list([Some(&text), None, Some(&value)].into_iter());
        assert!(list.is_unread() && text.is_unread());
        assert_eq!(*list, all);
        let values = SharedJson::list([Some(&all.clone().into()), None].into_iter());
        assert!(!values.is_unread());
        assert_eq!(*values, json!([all, null]));
        let deepest = SharedJson::as_text(&serde_json::from_str(&("[".repeat(100) + &"]".repeat(100))).unwrap());
        assert!(deepest.is_unread() && SharedJson::list([Some(&deepest)].into_iter()).is_array());
        for (text, is_empty) in [("[]", true), ("[ ]", true), ("[0]", false), ("{}", false), ("[[]]", false)] {
            assert_eq!(read(text).unwrap().is_empty_list(), is_empty, "{text}");
            assert_eq!(SharedJson::from(serde_json::from_str::<Value>(text).unwrap()).is_empty_list(), is_empty);
        }
    }

    proptest! {
        /// A text is accepted exactly if it can be parsed as a [`Value`], and then gives the same value.
        #[test]
        fn whatever_is_accepted_can_be_read(
            parts in proptest::collection::vec(
                prop_oneof![
                    r"-?[0-9]{0,2}(\.[0-9]{0,2})?([eE][+-]?[0-9]{0,3})?",
                    r#""([a-z é\t]|\\["\\/bfnrtux]|\\u[dD][89a-fA-F00][0-9]{2}){0,3}""#,
                    r"(true|null|\[\]|\{\}|\[1,?\]|,|nul|\{1\})",
                ],
                0..4,
            ),
        ) {
            let text = format!("[{}]", parts.join(","));
            match (read(&text), serde_json::from_str::<Value>(&text)) {
                (Ok(json), Ok(value)) => prop_assert_eq!(&*json, &value),
                (read, value) => prop_assert!(read.is_err() && value.is_err(), "{}", text),
            }
        }

        #[test]
        fn a_value_that_is_kept_as_text_stays_the_same(
            texts in proptest::collection::vec(any::<String>(), 0..4), numbers in proptest::collection::vec(any::<f64>(), 0..4),
        ) {
            let value = json!({ "texts": texts, "numbers": numbers, "inner": { "a": [texts.clone(), numbers.clone()] } });
            let json = SharedJson::as_text(&value);
            prop_assert_eq!(&*json, &value);
            let again: SharedJson = serde_json::from_slice(&serde_json::to_vec(&json).unwrap()).unwrap();
            prop_assert_eq!(again, json);
        }
    }
}
