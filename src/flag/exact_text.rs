//! PURE. Converts bytes of a request to text, so that different bytes give different texts.
//!
//! UTF-8 stays as it is. Each other byte becomes one of the last 256 characters of Unicode (from `RAW_FIRST`), which
//! are for private use. If the bytes themselves are such a character in UTF-8, each of these bytes is replaced too, so
//! that no other bytes give the same text. In a path, an encoded slash or backslash becomes the character of its byte
//! too: decoded to `/` it would look like a separator, and kept as `%2F` it would equal the decoded `%252F`.
//!
//! Earlier versions gave equal texts for some different bytes; the `replaced` functions return these texts, under which
//! first tries were recorded before an upgrade.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

/// How bytes that are not UTF-8 appear in a template.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ByteForm {
    /// They are replaced, so that different bytes may give the same text. This is the form of scopes that older
    /// versions stored. A route without `retry_key:` also has it, where it changes nothing: its key is the bytes of a
    /// header.
    #[default]
    Replaced,
    /// Different bytes give different texts.
    Exact,
}

impl ByteForm {
    /// Whether this is the form of older versions, which is the default.
    pub(super) fn is_replaced(&self) -> bool {
        *self == ByteForm::Replaced
    }
}

/// The character that stands for the byte 0.
const RAW_FIRST: u32 = 0x10_FF00;

/// The character that stands for a byte.
pub(super) fn raw_byte(byte: u8) -> char {
    char::from_u32(RAW_FIRST + u32::from(byte)).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// The byte for which a character stands; `None` if [`raw_byte`] does not return this character.
fn byte_of(character: char) -> Option<u8> {
    u32::from(character).checked_sub(RAW_FIRST).and_then(|byte| u8::try_from(byte).ok())
}

/// Converts bytes to text; different bytes give different texts.
pub fn exact_text(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        // ASCII characters never stand for a byte.
        if chunk.valid().is_ascii() {
            text.push_str(chunk.valid());
            text.extend(chunk.invalid().iter().copied().map(raw_byte));
            continue;
        }
        for valid in chunk.valid().chars() {
            match byte_of(valid) {
                None => text.push(valid),
                Some(_) => text.extend(valid.encode_utf8(&mut [0; 4]).bytes().map(raw_byte)),
            }
        }
        text.extend(chunk.invalid().iter().copied().map(raw_byte));
    }
    text
}

/// Whether a text has a character that stands for a byte (see the top of this file).
pub fn has_raw_bytes(text: &str) -> bool {
    text.chars().any(|character| byte_of(character).is_some())
}

/// The text that earlier versions made of the bytes of a header or a query value.
pub(super) fn replaced(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The text that earlier versions made of a path parameter whose text is now `text`: bytes that are not UTF-8, slashes
/// and backslashes stayed encoded.
pub(super) fn replaced_parameter(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    for character in text.chars() {
        match byte_of(character) {
            Some(b'/') => bytes.extend_from_slice(b"%2F"),
            Some(b'\\') => bytes.extend_from_slice(b"%5C"),
            Some(byte) => bytes.push(byte),
            None => bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            // Writing to a string does not fail.
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn different_bytes_are_different_texts() {
        let all: [&[u8]; 9] = [
            b"M\xfcller",
            b"M\xf6ller",
            "Müller".as_bytes(),
            "M\u{FFFD}ller".as_bytes(),
            "M\u{10FFFC}ller".as_bytes(),
            b"M\xf4\x8f\xbfller",
            b"M%FCller",
            b"\xfc",
            b"\xfc\xfc",
        ];
        for (n, bytes) in all.iter().enumerate() {
            for other in &all[..n] {
                assert_ne!(exact_text(bytes), exact_text(other), "{bytes:?} and {other:?}");
            }
        }
        assert_eq!(exact_text("Müller, \u{10FEFF}".as_bytes()), "Müller, \u{10FEFF}");
        assert!(has_raw_bytes(&exact_text(b"\xfc")) && !has_raw_bytes("Müller %FC \u{FFFD}"));
    }

    #[test]
    fn parameters_have_the_texts_of_earlier_versions() {
        for (bytes, earlier) in [
            (&b"M\xfcller"[..], "M%FCller"),
            ("Müller".as_bytes(), "Müller"),
            ("M\u{10FFFC}ller".as_bytes(), "M\u{10FFFC}ller"),
            (b"M%FCller", "M%FCller"),
        ] {
            assert_eq!(replaced_parameter(&exact_text(bytes)), earlier, "{bytes:?}");
        }
        assert_eq!(replaced_parameter(&format!("a{}b{}", raw_byte(b'/'), raw_byte(b'\\'))), "a%2Fb%5C");
    }
}
