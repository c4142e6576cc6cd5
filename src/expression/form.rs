//! A query or form body (`a=1&b=2`) as expressions see it; routes, workflows and comparisons all parse it here.

use std::borrow::Cow;

use percent_encoding::percent_decode;
use serde_json::{Map, Value};

use super::json::{RESERVED_PREFIX, is_reserved_key};

/// Parses a form to a map of strings. A name that occurs several times gets a list; `+` is a space, as in HTML forms.
/// Bytes that are not UTF-8 are replaced, so that different values may become equal.
pub fn parse_form(raw: &str) -> Value {
    parse_form_with(raw, |bytes| String::from_utf8_lossy(bytes).into_owned())
}

/// Like [`parse_form`], but `text` turns the decoded bytes of each name and value into a string.
pub fn parse_form_with(raw: &str, text: impl Fn(&[u8]) -> String) -> Value {
    let decoded = |part: &[u8]| text(&percent_decode(&spaces(part)).collect::<Vec<u8>>());
    Value::Object(fields(raw.as_bytes()).fold(Map::new(), |map, (name, value)| add(map, decoded(name), decoded(value))))
}

/// Like [`parse_form`], but nothing is replaced: a name or value that is not UTF-8 is an error.
///
/// # Errors
/// A name or a value is not UTF-8, or a name is reserved. The error says which field it is, counted from 1.
pub fn parse_form_strictly(raw: &[u8]) -> Result<Value, String> {
    parse_fields_strictly(raw, |_| true)
}

/// Like [`parse_form_strictly`], but only fields whose name `is_wanted` accepts are checked for UTF-8 and returned.
///
/// # Errors
/// A wanted field is not UTF-8, or any name is reserved. The error says which field it is, counted from 1.
pub fn parse_fields_strictly(raw: &[u8], is_wanted: impl Fn(&str) -> bool) -> Result<Value, String> {
    let mut map = Map::new();
    for (number, (name, value)) in (1..).zip(fields(raw)) {
        let decoded = |text: &[u8]| percent_decode(&spaces(text)).collect::<Vec<u8>>();
        let name = decoded(name);
        let shown = String::from_utf8_lossy(&name);
        if is_reserved_key(&shown) {
            return Err(format!("the name of field {number} begins with `{RESERVED_PREFIX}`, which is reserved"));
        }
        if !is_wanted(&shown) {
            continue;
        }
        let (Cow::Borrowed(name), Ok(value)) = (shown, String::from_utf8(decoded(value))) else {
            return Err(format!("field {number} is not UTF-8"));
        };
        map = add(map, name.to_owned(), value);
    }
    Ok(Value::Object(map))
}

/// The names and values, still encoded.
fn fields(raw: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    raw.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()).map(|pair| {
        let name_end = pair.iter().position(|byte| *byte == b'=');
        name_end.map_or((pair, &[][..]), |end| (&pair[..end], &pair[end + 1..]))
    })
}

fn spaces(text: &[u8]) -> Vec<u8> {
    text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect()
}

fn add(mut map: Map<String, Value>, name: String, value: String) -> Map<String, Value> {
    match map.get_mut(&name) {
        None => {
            map.insert(name, value.into());
        }
        Some(Value::Array(values)) => values.push(value.into()),
        Some(first) => *first = Value::Array(vec![first.take(), value.into()]),
    }
    map
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn repeated_names_are_lists() {
        let (text, map) = ("a=1&b=x+y%21&a=2&&c&a=3", json!({ "a": ["1", "2", "3"], "b": "x y!", "c": "" }));
        assert_eq!(parse_form(text), map);
        assert_eq!(parse_form_strictly(text.as_bytes()), Ok(map));
        assert_eq!((parse_form(""), parse_form_strictly(b"")), (json!({}), Ok(json!({}))));
    }

    #[test]
    fn a_strict_form_has_neither_replaced_bytes_nor_reserved_names() {
        assert_eq!(parse_form("a=%FC"), json!({ "a": "\u{fffd}" }));
        for (text, fault) in [
            (&b"a=1&b=%FC"[..], "field 2 is not UTF-8"),
            (b"a=1&b=\xfc", "field 2 is not UTF-8"),
            (b"%FF=1", "field 1 is not UTF-8"),
            (b"a=1&%24serde_json%3A%3Aprivate%3A%3ANumber=5", "the name of field 2 begins with"),
        ] {
            let why = parse_form_strictly(text).expect_err(fault);
            assert!(why.starts_with(fault), "{why}");
        }
        assert_eq!(parse_form_strictly(b"a=%C3%BC&b=\xc3\xbc").unwrap(), json!({ "a": "ü", "b": "ü" }));
    }

    #[test]
    fn fields_that_nobody_reads_need_not_be_utf8() {
        let text = b"a=1&b=%FC&%FF=2&a=3";
        assert_eq!(parse_fields_strictly(text, |name| name == "a"), Ok(json!({ "a": ["1", "3"] })));
        assert_eq!(parse_fields_strictly(text, |name| name == "b"), Err("field 2 is not UTF-8".to_owned()));
        assert_eq!(parse_fields_strictly(text, |name| name != "b"), Err("field 3 is not UTF-8".to_owned()));
    }
}
