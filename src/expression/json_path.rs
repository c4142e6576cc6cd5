//! JSONPaths (RFC 9535) from the files, parsed within bounds.
//!
//! The parser of the crate recurses for each open bracket, and parses a filter within a filter twice. A text without
//! bounds could exhaust the stack, or take for ever.

use serde_json_path::JsonPath;

/// The longest path, in bytes.
const BYTES_MAX: usize = 1_024;
/// The most brackets and parentheses that are open at once.
const OPEN_MAX: usize = 12;

/// Why a text is no JSONPath.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct JsonPathError {
    /// What is wrong.
    pub message: String,
    /// Where the error is: an offset in bytes.
    pub offset: usize,
}

/// Parses a JSONPath.
///
/// # Errors
/// It is no JSONPath, or it is too long or too deeply nested.
pub fn parse_json_path(text: &str) -> Result<JsonPath, JsonPathError> {
    if text.len() > BYTES_MAX {
        return Err(JsonPathError { message: format!("it is longer than {BYTES_MAX} bytes"), offset: 0 });
    }
    if let Some(offset) = too_deep(text) {
        let message = format!("more than {OPEN_MAX} brackets or parentheses are open here");
        return Err(JsonPathError { message, offset });
    }
    JsonPath::parse(text).map_err(|error| JsonPathError {
        message: error.message().to_owned(),
        offset: error.position().saturating_sub(1),
    })
}

/// The offset from which on too many brackets are open. Brackets within strings count too: a path has few of them.
fn too_deep(text: &str) -> Option<usize> {
    let mut open = 0_usize;
    text.bytes().position(|byte| {
        match byte {
            b'[' | b'(' => open += 1,
            b']' | b')' => open = open.saturating_sub(1),
            _ => {}
        }
        open > OPEN_MAX
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_parsed_within_bounds() {
        for text in ["$.id", "$['a'].b[0]", "$.items[?(@.qty > 1 && (@.sku == 'a' || !@.old))].sku", "$..[?@[?@.x]]"] {
            assert!(parse_json_path(text).is_ok(), "{text}");
        }
        assert!(parse_json_path("$.a[").unwrap_err().offset > 0);
        assert!(parse_json_path(&format!("$.{}", "a".repeat(BYTES_MAX))).unwrap_err().message.contains("longer"));
        // The deepest that are parsed, and deeper ones.
        for (begin, end) in [("[?@", "]"), ("[?(", ")]"), ("(", ")"), ("[?!(", ")]"), ("[?count(@", ")>1]")] {
            for depth in [OPEN_MAX / 2, OPEN_MAX, OPEN_MAX + 1, 100] {
                let prefix = if begin == "(" { "$[?" } else { "$" };
                let nested = format!("{prefix}{}@.a{}", begin.repeat(depth), end.repeat(depth));
                let _either = parse_json_path(&nested);
                let endless = format!("{prefix}{}", begin.repeat(depth));
                assert!(parse_json_path(&endless).is_err(), "{endless}");
            }
        }
        let deep = format!("$[?{}", "(".repeat(100));
        assert_eq!(parse_json_path(&deep).unwrap_err().offset, "$[?".len() + OPEN_MAX - 1);
    }
}
