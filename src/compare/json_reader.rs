//! Reads most JSON texts in one pass, faster than the general parser and the scans before it.
//!
//! Always true: a text that is read here is JSON whose objects repeat no key and have no reserved one, whose depth is
//! within the bound, and whose value is the one that the general parser gives; whatever is not certainly so is left to
//! that parser, which also knows what is wrong with it.

use serde_json::Number;

use super::json_tree::{JsonTree, Span, TreeBuilder};
use crate::expression::is_reserved_key;

/// The document of a JSON text; `None` if the general parser has to decide. `depth_max`: the deepest nesting of
/// brackets, which bounds the recursion.
pub(super) fn read(text: &[u8], depth_max: usize) -> Option<JsonTree> {
    let text = std::str::from_utf8(text).ok()?;
    let tree = TreeBuilder::of(text)?;
    let mut reader = Reader { text, bytes: text.as_bytes(), at: 0, depth_left: depth_max, tree };
    reader.value(None)?;
    (reader.next_token().is_none()).then(|| reader.tree.finish())
}

struct Reader<'t> {
    text: &'t str,
    bytes: &'t [u8],
    at: usize,
    depth_left: usize,
    tree: TreeBuilder,
}

impl Reader<'_> {
    /// The first byte that is no white space, which is not consumed.
    fn next_token(&mut self) -> Option<u8> {
        loop {
            let byte = *self.bytes.get(self.at)?;
            if !matches!(byte, b' ' | b'\n' | b'\t' | b'\r') {
                return Some(byte);
            }
            self.at += 1;
        }
    }

    /// Reads the value that begins here, which has this key if it is a member of an object.
    fn value(&mut self, key: Option<Span>) -> Option<()> {
        match self.next_token()? {
            b'"' => {
                let text = self.string()?;
                self.tree.string(key, text);
            }
            b'{' => self.object(key)?,
            b'[' => self.array(key)?,
            b't' => {
                self.word("true")?;
                self.tree.bool(key, true);
            }
            b'f' => {
                self.word("false")?;
                self.tree.bool(key, false);
            }
            b'n' => {
                self.word("null")?;
                self.tree.null(key);
            }
            _ => {
                let text = self.number()?;
                self.tree.number(key, text);
            }
        }
        Some(())
    }

    fn word(&mut self, word: &str) -> Option<()> {
        let is_word = self.bytes[self.at..].starts_with(word.as_bytes());
        self.at += word.len();
        is_word.then_some(())
    }

    fn array(&mut self, key: Option<Span>) -> Option<()> {
        self.at += 1;
        self.depth_left = self.depth_left.checked_sub(1)?;
        let (array, mut count) = (self.tree.open(key), 0);
        if self.next_token()? != b']' {
            loop {
                self.value(None)?;
                count += 1;
                match self.next_token()? {
                    b',' => self.at += 1,
                    b']' => break,
                    _ => return None,
                }
            }
        }
        self.tree.close_array(&array, count);
        self.at += 1;
        self.depth_left += 1;
        Some(())
    }

    fn object(&mut self, key: Option<Span>) -> Option<()> {
        self.at += 1;
        self.depth_left = self.depth_left.checked_sub(1)?;
        let object = self.tree.open(key);
        if self.next_token()? != b'}' {
            loop {
                if self.next_token()? != b'"' {
                    return None;
                }
                let key = self.string()?;
                if is_reserved_key(self.tree.text(key)) || self.next_token()? != b':' {
                    return None;
                }
                self.at += 1;
                self.value(Some(key))?;
                match self.next_token()? {
                    b',' => self.at += 1,
                    b'}' => break,
                    _ => return None,
                }
            }
        }
        self.tree.close_object(&object)?;
        self.at += 1;
        self.depth_left += 1;
        Some(())
    }

    /// Reads the string that begins here.
    fn string(&mut self) -> Option<Span> {
        let start = self.at + 1;
        let mut end = start;
        let mut has_escapes = false;
        loop {
            end += plain_bytes(&self.bytes[end..]);
            match *self.bytes.get(end)? {
                b'"' => break,
                b'\\' => {
                    has_escapes = true;
                    end += 2;
                }
                // A control character.
                _ => return None,
            }
            // An escape at the end of the text.
            if end > self.bytes.len() {
                return None;
            }
        }
        self.at = end + 1;
        if has_escapes {
            let text: String = serde_json::from_str(&self.text[start - 1..=end]).ok()?;
            self.tree.other_text(&text)
        } else {
            Some(TreeBuilder::part(start, end))
        }
    }

    /// Reads the number that begins here, as the general parser keeps it.
    fn number(&mut self) -> Option<Span> {
        let start = self.at;
        let rest = &self.bytes[start..];
        let length = rest.iter().position(|byte| !matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E'));
        self.at += length.unwrap_or(rest.len());
        if is_plain_number(&self.bytes[start..self.at]) {
            return Some(TreeBuilder::part(start, self.at));
        }
        // A number with an exponent, whose form the general parser changes; or no number at all.
        let number: Number = self.text[start..self.at].parse().ok()?;
        self.tree.other_text(number.as_str())
    }
}

/// Whether a text is a number without an exponent.
fn is_plain_number(text: &[u8]) -> bool {
    let digits = |text: &[u8]| !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let text = text.strip_prefix(b"-").unwrap_or(text);
    let (whole, fraction) = match text.iter().position(|byte| *byte == b'.') {
        Some(point) => (&text[..point], Some(&text[point + 1..])),
        None => (text, None),
    };
    digits(whole) && (whole.len() == 1 || whole.first() != Some(&b'0')) && fraction.is_none_or(digits)
}

/// How many bytes from the first on are neither a quotation mark nor a backslash nor a control character.
fn plain_bytes(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGH: u64 = ONES << 7;
    let mut at = 0;
    // Eight bytes at a time, until one of them is such a character. In `(x - ONES) & !x` the high bit of a byte is set
    // if the byte of `x` is zero; because of the borrow it may also be set in a byte after a zero one.
    while let Some(chunk) = bytes.get(at..).and_then(<[u8]>::first_chunk::<8>) {
        let word = u64::from_le_bytes(*chunk);
        let zero = |x: u64| x.wrapping_sub(ONES) & !x;
        let below_space = word.wrapping_sub(ONES * 0x20) & !word;
        let ends =
            (zero(word ^ (ONES * u64::from(b'"'))) | zero(word ^ (ONES * u64::from(b'\\'))) | below_space) & HIGH;
        if ends != 0 {
            // The first marked byte is such a character: only bytes after one may be marked wrongly.
            return at + ends.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    let rest = bytes.get(at..).unwrap_or_default();
    at + rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20)).unwrap_or(rest.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::compare::parsed_body::general_json;
    use crate::compare::tests::BOUNDS;

    /// What is read is what the general parser gives; `is_read` tells whether the text must be read.
    fn agree(text: &[u8], is_read: Option<bool>) {
        let shown = String::from_utf8_lossy(text);
        let value = read(text, 127).map(|tree| tree.root().to_value());
        if let Some(is_read) = is_read {
            assert_eq!(value.is_some(), is_read, "{shown}");
        }
        if let Some(value) = value {
            let (general, repeated) = general_json(text, &BOUNDS).expect("within the bounds").expect(&shown);
            // The order of members too, and how each number is written.
            assert_eq!((value.to_string(), repeated), (general.to_string(), Vec::new()), "{shown}");
        }
    }

    #[test]
    fn plain_texts_are_read_and_others_are_left_to_the_general_parser() {
        let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let plain = [
            " {\"a\" : [1,2.50,-0,-7,0,1E5,1e-5,0.0,123456789012345678901] , \"b\":{\"\":null,\"a\":true}}\r\n",
            r#"["\u00e9\n\"\\","é","\ud83d\ude00",false,{},[ ],{"a":1},{"b":2,"c":3}]"#,
            "\"$serde_json::private::Number\"",
            "12",
            &deep(127),
        ];
        plain.iter().for_each(|text| agree(text.as_bytes(), Some(true)));
        let others = [
            "",
            " ",
            "[1,]",
            "[,1]",
            "{\"a\":1,}",
            "{\"a\"}",
            "{a:1}",
            "01",
            "-",
            "1.",
            ".5",
            "1e",
            "+1",
            "-01",
            "nul",
            "tru e",
            "[1 2]",
            "\"a",
            "\"a\\",
            "\"\\x\"",
            "\"\\ud800\"",
            "\"\t\"",
            "[1]x",
            "{\"a\":1,\"a\":1}",
            "{\"a\":1,\"\\u0061\":1}",
            "{\"$serde_json::private::Number\":\"5\"}",
            "{\"\\u0024serde_json::private::Number\":\"5\"}",
            "\u{feff}1",
            &deep(128),
        ];
        others.iter().for_each(|text| agree(text.as_bytes(), Some(false)));
        agree(b"\"\xff\"", Some(false));
    }

    #[test]
    fn a_string_ends_at_the_same_place_however_long_it_is() {
        for length in 0..40 {
            for end in ["\"", "\\\"", "\u{1}", "\u{1f}", " ", "\u{7f}", "é", "!", "#", "]", "["] {
                agree(format!("[\"{}{end}\",\"{end}\"]", "x".repeat(length)).as_bytes(), None);
                let text = format!("{}{end}yyyyyyyyy", "ä".repeat(length));
                let plain = text.bytes().position(|byte| byte < 0x20 || byte == b'"' || byte == b'\\');
                assert_eq!(plain_bytes(text.as_bytes()), plain.unwrap_or(text.len()), "{text:?}");
            }
        }
    }

    proptest! {
        /// Each part may make the text invalid.
        #[test]
        fn what_is_read_is_what_the_general_parser_gives(
            parts in proptest::collection::vec(
                prop_oneof![
                    r"-?[0-9]{0,22}(\.[0-9]{0,3})?([eE][+-]?[0-9]{0,3})?",
                    r#""([a-z é\t]|\\["\\/bfnrtux]|\\u[dD][89a-fA-F00][0-9]{2}){0,9}""#,
                    r#"\{("[ab]":[0-9],){0,2}"[abc]" ?: ?[0-9]\}"#,
                    r"(true|null|false|\[\]|\{\}|\[1,?\]|,|nul|\{1\}|[ \n]{0,3})",
                ],
                0..5,
            ),
            cut in any::<prop::sample::Index>(), is_cut in any::<bool>(),
        ) {
            let text = format!("[{}]", parts.join(","));
            let bytes = text.as_bytes();
            agree(if is_cut { &bytes[..cut.index(bytes.len())] } else { bytes }, None);
            agree(text.replace('a', "\u{0}").as_bytes(), None);
        }

        #[test]
        fn bytes_that_end_a_string_are_found(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let plain = bytes.iter().position(|byte| *byte < 0x20 || matches!(byte, b'"' | b'\\'));
            prop_assert_eq!(plain_bytes(&bytes), plain.unwrap_or(bytes.len()));
        }
    }
}
