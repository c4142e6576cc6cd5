//! Parses JSON from outside to the value that expressions see.
//!
//! Always true: no object of the value has a key that the JSON parser reserves for itself. To keep every digit of a
//! number, the parser represents the number internally as an object with the key `$serde_json::private::Number`, and
//! it reads an object with such a key in a text as a number, too: `{"$serde_json::private::Number": "5"}` would become
//! 5, and an object that is made in memory could be stored and never be read back. So an object with a reserved key is
//! refused wherever a text, a form or an expression makes a value.

use serde::de::Error as _;
use serde_json::{Error, Value};

/// What the reserved keys begin with.
pub const RESERVED_PREFIX: &str = "$serde_json::private::";

/// Whether an object may not have this key.
pub fn is_reserved_key(key: &str) -> bool {
    key.starts_with(RESERVED_PREFIX)
}

/// A byte order mark in UTF-8, which some writers put before a JSON text.
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// Parses a JSON text. A byte order mark before it is ignored, as RFC 8259 (8.1) allows.
///
/// # Errors
/// It is not JSON, or an object in it has a reserved key.
pub fn parse_json(text: &[u8]) -> Result<Value, Error> {
    let text = without_byte_order_mark(text);
    refuse_reserved_keys(text)?;
    serde_json::from_slice(text)
}

/// A text without the byte order mark before it.
pub fn without_byte_order_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text)
}

/// Checks a JSON text that is parsed elsewhere. For a text that is not JSON the result has no meaning.
///
/// # Errors
/// An object in it has a reserved key.
pub fn refuse_reserved_keys(text: &[u8]) -> Result<(), Error> {
    let Some(at) = reserved_key_at(text) else { return Ok(()) };
    let line_start = text[..at].iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let line = text[..at].iter().filter(|byte| **byte == b'\n').count() + 1;
    let column = at - line_start + 1;
    Err(Error::custom(format!(
        "a key begins with `{RESERVED_PREFIX}`, which is reserved, at line {line} column {column}"
    )))
}

/// The position of the first reserved key.
fn reserved_key_at(text: &[u8]) -> Option<usize> {
    // Most texts have neither `$s` (the prefix) nor `\u` (which may hide the prefix), and are not scanned further.
    if !text.windows(2).any(|pair| pair == b"$s" || pair == b"\\u") {
        return None;
    }
    let mut from = 0;
    while let Some(start) = text[from..].iter().position(|byte| *byte == b'"').map(|at| from + at) {
        let end = string_end(text, start)?;
        let is_key = text[end..].iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b':');
        if is_key && is_reserved_string(&text[start..end]) {
            return Some(start);
        }
        from = end;
    }
    None
}

/// The end of the string whose opening quotation mark is at `start`; `None` where it has no end.
fn string_end(text: &[u8], start: usize) -> Option<usize> {
    let mut at = start + 1;
    loop {
        match text.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// Whether a JSON string, with its quotation marks, is a reserved key.
fn is_reserved_string(string: &[u8]) -> bool {
    match string.contains(&b'\\') {
        true => serde_json::from_slice::<String>(string).is_ok_and(|key| is_reserved_key(&key)),
        false => string[1..].starts_with(RESERVED_PREFIX.as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_reserved_key_is_refused_wherever_it_is_and_however_it_is_written() {
        for (text, place) in [
            (r#"{"$serde_json::private::Number":"5"}"#, "line 1 column 2"),
            (r#"{"a":[{"$serde_json::private::RawValue" : "[1,2]"}]}"#, "line 1 column 8"),
            ("{\n \"b\": 1,\n \"$serde_json::private::Number\"\t:\n\"abc\"}", "line 3 column 2"),
            (r#"{"\u0024serde_json::private::Number":"5"}"#, "line 1 column 2"),
            (r#"{"a\\":1,"$\u0073erde_json\u003A:private::Number":"5"}"#, "line 1 column 10"),
            (r#"{"$serde_json::private::Later":1}"#, "line 1 column 2"),
        ] {
            let error = parse_json(text.as_bytes()).expect_err(text).to_string();
            assert!(error.contains("reserved") && error.ends_with(place), "{text}: {error}");
        }
    }

    #[test]
    fn a_byte_order_mark_before_a_text_is_ignored() {
        assert_eq!(parse_json(b"\xEF\xBB\xBF{\"a\":1}").unwrap(), json!({ "a": 1 }));
        assert!(parse_json(b"{\"a\":\xEF\xBB\xBF1}").is_err(), "only before it");
        assert!(
            parse_json(b"\xEF\xBB\xBF{\"$serde_json::private::Number\":\"5\"}").is_err(),
            "it hides no reserved key"
        );
    }

    #[test]
    fn what_only_looks_like_a_reserved_key_is_kept() {
        for text in [
            r#"{"a":"$serde_json::private::Number"}"#,
            r#"["$serde_json::private::Number",":"]"#,
            r#"{"a":"\"$serde_json::private::Number\":"}"#,
            r#"{"$serde":1,"x$serde_json::private::Number":2,"\\u0024serde_json::private::Number":3}"#,
            r#"{"$schema":"\u00fc","n":1.2300e+5}"#,
        ] {
            assert_eq!(parse_json(text.as_bytes()).expect(text).to_string(), text.replace("\\u00fc", "ü"));
        }
        for broken in [&b"\"$s"[..], b"\"\\u", b"{\"$serde_json::private::Number", b"\"\\", b"\\u\"\xff\":"] {
            assert!(parse_json(broken).is_err(), "{broken:?}");
        }
    }

    proptest! {
        /// Each character of the key is written as it is or escaped.
        #[test]
        fn no_escape_hides_a_reserved_key(escaped in proptest::collection::vec(any::<bool>(), RESERVED_PREFIX.len())) {
            let write = |(c, escaped): (char, bool)| {
                if escaped { format!("\\u{:04X}", u32::from(c)) } else { c.to_string() }
            };
            let key: String = RESERVED_PREFIX.chars().zip(escaped).map(write).collect();
            let text = format!("{{\"{key}Number\":\"5\"}}");
            prop_assert!(parse_json(text.as_bytes()).is_err(), "{text}");
            let text = format!("{{\"n\":\"{key}Number\"}}");
            let value = json!({ "n": "$serde_json::private::Number" });
            prop_assert_eq!(parse_json(text.as_bytes()).unwrap(), value);
        }
    }
}
