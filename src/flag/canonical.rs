//! PURE. The only spelling of a path that a strict route accepts.
//!
//! Always true: the canonical spelling is that of RFC 3986: bytes that need no encoding (letters, digits, `-`, `.`,
//! `_`, `~`) are not encoded, the hexadecimal digits of encoded bytes are upper case, and bytes beyond ASCII are
//! encoded. A literal segment of the template is written exactly in this way; in the value of a parameter, other
//! characters (`:`, `@`, `+` and the like) may be encoded or not, since clients differ in that.

use std::borrow::Cow;
use std::fmt::Write as _;

use super::path::encoded;

/// Whether a path that matches a template is in its canonical spelling.
pub(super) fn is_canonical(path: &str, template: &str) -> bool {
    if !has_canonical_encodings(path) {
        return false;
    }
    let mut segments = path.split('/').zip(template.split('/'));
    segments.all(|(segment, template)| template.starts_with('{') || segment == canonical(template))
}

fn has_canonical_encodings(path: &str) -> bool {
    let bytes = path.as_bytes();
    path.is_ascii()
        && bytes.iter().enumerate().filter(|(_, byte)| **byte == b'%').all(|(at, _)| {
            let has_upper_digits = !bytes[at + 1..].iter().take(2).any(u8::is_ascii_lowercase);
            has_upper_digits && encoded(bytes, at).is_none_or(|byte| !needs_no_encoding(byte))
        })
}

fn needs_no_encoding(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// The canonical spelling of a segment of a template.
fn canonical(segment: &str) -> Cow<'_, str> {
    if segment.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'%') {
        return Cow::Borrowed(segment);
    }
    let (bytes, mut text, mut at) = (segment.as_bytes(), String::new(), 0);
    while let Some(&byte) = bytes.get(at) {
        let decoded = (byte == b'%').then(|| encoded(bytes, at)).flatten();
        at += if decoded.is_some() { 3 } else { 1 };
        match decoded.unwrap_or(byte) {
            plain if needs_no_encoding(plain) => text.push(char::from(plain)),
            other if decoded.is_none() && other.is_ascii_graphic() => text.push(char::from(other)),
            other => _ = write!(text, "%{other:02X}"), // writing to a `String` does not fail
        }
    }
    Cow::Owned(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_has_one_spelling_apart_from_the_values_of_parameters() {
        for (template, path) in [
            ("/orders/{id}/items", "/orders/17/items"),
            ("/orders/{id}", "/orders/a%20b"),
            ("/orders/{id}", "/orders/a:b@c"),
            ("/orders/{id}", "/orders/a%3Ab%40c"),
            ("/caf\u{e9}/{id}", "/caf%C3%A9/%C3%BC"),
            ("/caf%c3%a9", "/caf%C3%A9"),
            ("/%6Frders/a:b", "/orders/a:b"),
        ] {
            assert!(is_canonical(path, template), "{path}");
        }
        for (template, path) in [
            ("/orders/{id}", "/%6Frders/17"),
            ("/orders/{id}", "/%6frders/17"),
            ("/orders/{id}", "/orders/%31%37"),
            ("/orders/{id}", "/orders/a%7Eb"),
            ("/orders/{id}", "/orders/a%3ab"),
            ("/caf\u{e9}/{id}", "/caf\u{e9}/1"),
            ("/caf\u{e9}/{id}", "/caf%c3%a9/1"),
            ("/a:b", "/a%3Ab"),
        ] {
            assert!(!is_canonical(path, template), "{path}");
        }
    }
}
