//! JSONPaths (RFC 9535) from the files, parsed within bounds.
//!
//! The parser of the crate recurses for each open bracket, and parses a filter within a filter twice. A text without
//! bounds could exhaust the stack, or take for ever. So could the search: a second `..` finds a value once for each
//! value around it, and a bracket with several parts doubles what the next one doubles again. It cannot be interrupted,
//! so a path is refused unless its search visits each value of a document only a few times. `match()` and `search()`
//! are refused too: the crate compiles the pattern anew for each value.

use serde_json_path::JsonPath;

/// The longest path, in bytes.
const BYTES_MAX: usize = 1_024;
/// The most brackets and parentheses that are open at once.
const OPEN_MAX: usize = 12;
/// How often `..` may stand in a path.
const DESCENDANTS_MAX: usize = 1;
/// How many combinations the brackets with several parts (`['a','b']`) of one path may have.
const COMBINATIONS_MAX: usize = 64;

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
    let path = JsonPath::parse(text).map_err(|error| JsonPathError {
        message: message_of(text, &error),
        offset: error.position().saturating_sub(1),
    })?;
    match too_costly(text) {
        Some((offset, message)) => Err(JsonPathError { message, offset }),
        None => Ok(path),
    }
}

/// The parser's message, or a clearer one.
fn message_of(text: &str, error: &serde_json_path::ParseError) -> String {
    if !text.starts_with('$') {
        return "it does not begin with `$`".to_owned();
    }
    match misplaced_name(text) {
        Some(name) if name.chars().all(|c| c.is_ascii_digit()) => {
            format!("`.{name}` names no element of a list: that is written `[{name}]`")
        }
        Some(name) => format!(
            "`{name}` cannot stand after a dot; a name with other characters than letters, digits and `_`, or with a \
             digit at its beginning, is written in brackets: `['{name}']`"
        ),
        None => error.message().to_owned(),
    }
}

/// The first name after a dot that can only be written in brackets.
fn misplaced_name(text: &str) -> Option<&str> {
    let (mut open, mut quote) = (0_usize, None);
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match (quote, c) {
            (Some(_), '\\') => {
                chars.next();
            }
            (Some(begun), c) => quote = Some(begun).filter(|begun| *begun != c),
            (None, '\'' | '"') => quote = Some(c),
            (None, '[') => open += 1,
            (None, ']') => open = open.saturating_sub(1),
            (None, '.') if open == 0 => {
                let name = text[at + 1..].split(['.', '[', ']']).next().unwrap_or_default();
                let is_name = |c: char| c == '_' || c.is_ascii_alphanumeric() || !c.is_ascii();
                let is_plain = name.chars().all(is_name) && !name.starts_with(|c: char| c.is_ascii_digit());
                if !is_plain && name != "*" {
                    return Some(name.char_indices().nth(40).map_or(name, |(end, _)| &name[..end]));
                }
            }
            (None, _) => {}
        }
    }
    None
}

/// The last name in a path: `token` in `$.user.token` and in `$['token'][0]`.
pub fn last_name(path: &JsonPath) -> Option<String> {
    let text = path.to_string();
    let mut rest = text.as_str();
    loop {
        if let Some(quoted) = rest.strip_suffix("']") {
            return quoted.rfind("['").map(|at| quoted[at + 2..].to_owned());
        }
        let (before, name) = match rest.strip_suffix(']') {
            Some(inside) => (&inside[..inside.rfind('[')?], ""),
            None => rest.rsplit_once('.')?,
        };
        match name {
            "" | "*" => rest = before,
            name => return Some(name.to_owned()),
        }
    }
}

/// Where and why the search for a valid path may visit values too often.
fn too_costly(text: &str) -> Option<(usize, String)> {
    let (mut descendants, mut combinations) = (0_usize, 1_usize);
    // For each open bracket or parenthesis: whether it is in a filter, and how many parts it has so far.
    let mut open: Vec<(bool, usize)> = Vec::new();
    let mut quote: Option<u8> = None;
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let in_filter = open.last().is_some_and(|(in_filter, _)| *in_filter);
        match (quote, byte) {
            (Some(_), b'\\') => at += 1,
            (Some(open), byte) => quote = Some(open).filter(|open| open != byte),
            (None, b'\'' | b'"') => quote = Some(*byte),
            (None, b'[' | b'(') => open.push((in_filter, 1)),
            (None, b']' | b')') => {
                let (_, parts) = open.pop().unwrap_or((false, 1));
                combinations = combinations.saturating_mul(if *byte == b']' { parts } else { 1 });
                if combinations > COMBINATIONS_MAX {
                    let message =
                        format!("its brackets with several parts have more than {COMBINATIONS_MAX} combinations");
                    return Some((at, message));
                }
            }
            (None, b'?') => {
                if let Some(filter) = open.last_mut() {
                    filter.0 = true;
                }
            }
            (None, b',') => {
                if let Some((_, parts)) = open.last_mut() {
                    *parts += 1;
                }
            }
            (None, b'.') if bytes.get(at + 1) == Some(&b'.') => {
                descendants += 1;
                if in_filter {
                    return Some((at, "`..` within a filter would search each value again and again".to_owned()));
                }
                if descendants > DESCENDANTS_MAX {
                    let message = format!(
                        "`..` may stand in it only {}: with more, a value is found once for each value around it",
                        if DESCENDANTS_MAX == 1 { "once".to_owned() } else { format!("{DESCENDANTS_MAX} times") },
                    );
                    return Some((at, message));
                }
                at += 1;
            }
            (None, b'm' | b's') if in_filter && compiles_pattern(&text[at..]) => {
                let message = "`match()` and `search()` compile their pattern anew for each value, which takes too \
                               long; compare with `==` or `<`";
                return Some((at, message.to_owned()));
            }
            (None, b'$') if in_filter && !is_singular(&text[at + 1..]) => {
                let message = "within a filter, `$` may only be followed by names and indexes: the search would be made \
                               again for each value";
                return Some((at, message.to_owned()));
            }
            (None, _) => {}
        }
        at += 1;
    }
    None
}

/// Whether a call of a function begins here that compiles a pattern.
fn compiles_pattern(text: &str) -> bool {
    let rest = text.strip_prefix("match").or_else(|| text.strip_prefix("search"));
    rest.is_some_and(|rest| rest.trim_start().starts_with('('))
}

/// Whether a query in a filter, of which this is the text from its `$` on, has only names and indexes.
fn is_singular(mut rest: &str) -> bool {
    loop {
        rest = rest.trim_start();
        if let Some(name) = rest.strip_prefix('.') {
            let end = name.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(name.len());
            if end == 0 {
                return false;
            }
            rest = &name[end..];
        } else if let Some(inner) = rest.strip_prefix('[') {
            let inner = inner.trim_start();
            let end = match inner.chars().next() {
                Some(quote @ ('\'' | '"')) => inner[1..].find(quote).map(|at| at + 2),
                Some('0'..='9' | '-') => inner.find(|c: char| !(c.is_ascii_digit() || c == '-')),
                _ => None,
            };
            let Some(after) = end.and_then(|end| inner.get(end..)?.trim_start().strip_prefix(']')) else {
                return false;
            };
            rest = after;
        } else {
            return true;
        }
    }
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
    fn a_path_whose_search_may_take_for_ever_is_refused() {
        for (text, why) in [
            ("$..a..a", "`..` may stand in it only once"),
            ("$.a[?@..b]", "`..` within a filter"),
            ("$[?count($.*) > 1]", "within a filter, `$`"),
            ("$[?$['a'][*]]", "within a filter, `$`"),
            ("$[0,0][0,0][0,0][0,0][0,0][0,0][0,0]", "more than 64 combinations"),
            ("$[?@[0,0][0,0][0,0][0,0][0,0][0,0][0,0]]", "more than 64 combinations"),
            ("$.a[?@.b == 1 && match(@.c, 'x.*')]", "compile their pattern"),
            ("$[?(!search(@.b, @.c))]", "compile their pattern"),
        ] {
            let refused = parse_json_path(text).unwrap_err();
            assert!(refused.message.contains(why), "{text}: {refused}");
        }
        for text in [
            "$..a[?@.b == $.main['x'][0].id]",
            "$['a','b']['c','d'].e",
            "$['..', '..']['?', '$..*']",
            "$.a[?@.t == '..' && @.b == 'search(a..b)']",
            "$.match[?@.search == 1 && length(@.match) > 2]",
            "$[?(@.a == 1 || @.b == 2)]",
        ] {
            assert!(parse_json_path(text).is_ok(), "{text}: {:?}", parse_json_path(text));
        }
    }

    #[test]
    fn a_path_that_cannot_be_parsed_is_explained() {
        let of = |text: &str| parse_json_path(text).unwrap_err().message;
        assert!(of("created_at").contains("does not begin with `$`"));
        for (text, advice) in [
            ("$.order-id", "`['order-id']`"),
            ("$.a.order-id[0]", "`['order-id']`"),
            ("$.2a", "`['2a']`"),
            ("$.a.0.id", "`.0` names no element of a list: that is written `[0]`"),
            ("$['x-y'].0", "`[0]`"),
        ] {
            assert!(of(text).contains(advice), "{text}: {}", of(text));
        }
        assert!(!of("$.a[x-y]").contains("after a dot"), "{}", of("$.a[x-y]"));
    }

    #[test]
    fn the_last_name_of_a_path_is_found_behind_its_indexes() {
        for (text, name) in [
            ("$.user.token", Some("token")),
            ("$['user']['access-token'][0]", Some("access-token")),
            ("$.tokens[*]", Some("tokens")),
            ("$.a.*", Some("a")),
            ("$['a.b']", Some("a.b")),
            ("$[0]", None),
            ("$", None),
        ] {
            assert_eq!(last_name(&parse_json_path(text).unwrap()).as_deref(), name, "{text}");
        }
    }

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
