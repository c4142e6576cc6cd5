//! The keys that identify a request besides its trace: the hash of a header's or an expression's value.

use http::{HeaderMap, HeaderName};
use serde_json::Value;

use crate::secret::CanonicalNumber;

/// The hash of a value. Only the hash is kept: it is small and does not contain the value.
pub(super) type Key = [u8; 32];

/// Returns the key of a header; `None` if the header is absent or empty.
pub(super) fn of_header(headers: &HeaderMap, name: &HeaderName) -> Option<Key> {
    let mut hasher = blake3::Hasher::new();
    let mut is_empty = true;
    for value in headers.get_all(name) {
        is_empty &= value.as_bytes().trim_ascii().is_empty();
        hasher.update(&(value.len() as u64).to_le_bytes());
        hasher.update(value.as_bytes());
    }
    (!is_empty).then(|| *hasher.finalize().as_bytes())
}

/// Returns the key of a value; `None` if it identifies nothing: only numbers and texts that are not empty identify.
pub(super) fn of_value(value: &Value) -> Option<Key> {
    let text = match value {
        Value::String(text) if !text.is_empty() => format!("s{text}"),
        // `17`, `17.0` and `1.7e1` are equal, as in expressions.
        Value::Number(number) => format!("n{:?}", CanonicalNumber::parse(&number.to_string())?),
        Value::String(_) | Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return None,
    };
    Some(*blake3::hash(text.as_bytes()).as_bytes())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_texts_and_numbers_identify() {
        for nothing in [json!(null), json!(""), json!(true), json!([]), json!({"a": 1})] {
            assert_eq!(of_value(&nothing), None, "{nothing}");
        }
        assert_eq!(of_value(&json!(17)), of_value(&json!(17.0)));
        assert_ne!(of_value(&json!(17)), of_value(&json!("17")));
        assert!(of_value(&json!("a")).is_some());
    }

    #[test]
    fn a_header_is_identified_by_all_its_values() {
        let name = HeaderName::from_static("x-id");
        let headers = |values: &[&'static str]| -> HeaderMap {
            values.iter().map(|value| (name.clone(), http::HeaderValue::from_static(value))).collect()
        };
        let of = |values: &[&'static str]| of_header(&headers(values), &name);
        assert_eq!((of(&[]), of(&[""]), of(&["", " "])), (None, None, None));
        assert_eq!(of(&["a"]), of(&["a"]));
        assert_ne!(of(&["a", "b"]), of(&["ab"]));
    }
}
