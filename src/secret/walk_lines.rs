//! Finds the secrets in the lines of a text without markup: in URLs, after names, in parts that are JSON, and in what
//! is percent-encoded.
//!
//! Always true: a part that is JSON is read as JSON, wherever in a line it begins, unless it belongs to the value
//! of a secret name. Bytes that were parsed and turned out to be no JSON count against the bound of
//! [`super::walk`] too: in a text of nothing but `{"a":` every one of them is tried.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::assignments::Assignments;
use super::forms::{decoded_component, json_at_start};
use super::walk::{Edited, SecretWalk, USER_INFO};

/// What stays as it is when a nested text is encoded again.
const ENCODED: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'/').remove(b':').remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'*');
/// A longer part of a text is not read as one JSON document; the documents nested in it are read.
const JSON_BYTES_MAX: usize = 64 << 10;
/// This many bytes that turn out to be no JSON count as one byte that is read, because no value is made of them.
const SKIPPED_PER_READ: usize = 2;

/// A part of a text that is JSON.
struct JsonPart {
    start: usize,
    end: usize,
    value: Value,
}

/// Each method that returns a text returns it with its secrets replaced, or `None` if it stays.
impl SecretWalk<'_, '_> {
    /// Replaces the secrets in a text without markup.
    pub(super) fn replace_in_lines(&mut self, text: &str) -> Option<String> {
        let mut last = None;
        for step in
            [Self::replace_in_columns, Self::replace_user_info, Self::replace_assigned, Self::replace_in_encoded]
        {
            let shown = step(self, last.as_deref().unwrap_or(text));
            last = shown.or(last);
        }
        last
    }

    /// Replaces the `user:password@` of each URL.
    fn replace_user_info(&mut self, text: &str) -> Option<String> {
        let mut edited = Edited::of(text);
        let starts: Vec<usize> = text.match_indices("://").map(|(at, delimiter)| at + delimiter.len()).collect();
        for (n, start) in starts.iter().enumerate() {
            let end = starts.get(n + 1).map_or(text.len(), |next| next - "://".len());
            if let Some(at) = user_info_end(&text[*start..end])
                && let Some(shown) = self.replacement(USER_INFO, &decoded_component(&text[*start..start + at]), false)
            {
                edited.replace(*start..start + at, &shown);
            }
        }
        edited.changed()
    }

    /// Replaces the values after secret names, and the secrets in parts that are JSON.
    fn replace_assigned(&mut self, text: &str) -> Option<String> {
        let (mut edited, mut at) = (Edited::of(text), 0);
        let is_secret = self.is_secret;
        let mut assignments = Assignments::of(text, is_secret);
        let mut json = self.next_json(text, 0);
        loop {
            if json.as_ref().is_some_and(|json| json.start < at) {
                json = self.next_json(text, at);
            }
            if let Some(assignment) = assignments.next_before(json.as_ref().map_or(text.len(), |json| json.start)) {
                at = assignment.value.end;
                if let Some(shown) = self.replacement(&assignment.name, &assignment.plain(text), assignment.is_line()) {
                    edited.replace(assignment.value, &shown);
                }
                continue;
            }
            let Some(JsonPart { start, end, mut value }) = json.take() else { break };
            if self.replace_in_json(&mut value) {
                edited.replace(start..end, &value.to_string());
            }
            assignments.skip_to(end);
            at = end;
            json = self.next_json(text, at);
        }
        edited.changed()
    }

    /// The next part that is an object of JSON, or a list of objects or lists.
    fn next_json(&mut self, text: &str, from: usize) -> Option<JsonPart> {
        let mut at = from;
        while let Some(start) = text[at..].find(['{', '[']).map(|start| at + start) {
            at = start + 1;
            if !may_be_json(&text[start..]) {
                continue;
            }
            let part = &text[start..text.floor_char_boundary(start + JSON_BYTES_MAX)];
            match json_at_start(part) {
                Ok((value, bytes)) => return Some(JsonPart { start, end: start + bytes, value }),
                Err(bytes) => match self.bytes_left.checked_sub(bytes / SKIPPED_PER_READ) {
                    Some(left) => self.bytes_left = left,
                    None => {
                        self.is_exceeded = true;
                        return None;
                    }
                },
            }
        }
        None
    }

    /// Replaces the secrets in percent-encoded parts of a text, such as a URL within a query.
    fn replace_in_encoded(&mut self, text: &str) -> Option<String> {
        if !has_encoded_delimiters(text) {
            return None;
        }
        let (mut edited, mut start) = (Edited::of(text), 0);
        let ends_part = |c: char| c.is_whitespace() || "?&;#=\"'<>".contains(c);
        while start < text.len() {
            let end = text[start..].find(ends_part).map_or(text.len(), |end| start + end);
            let part = &text[start..end];
            if has_encoded_delimiters(part) {
                let plain = decoded_component(part);
                let shown = if plain == part { None } else { self.replace_in_text(&plain) };
                if let Some(shown) = shown {
                    edited.replace(start..end, &utf8_percent_encode(&shown, ENCODED).to_string());
                }
            }
            start = end + text[end..].chars().next().map_or(0, char::len_utf8);
        }
        edited.changed()
    }
}

/// Whether a text may begin with an object that is not empty, or with a list of objects or lists.
fn may_be_json(text: &str) -> bool {
    let inner = text[1..].trim_start_matches([' ', '\t', '\n', '\r']);
    match text.starts_with('{') {
        true => inner.starts_with('"'),
        false => inner.starts_with(['{', '[']),
    }
}

/// Where the `user:password` ends in what follows the `://` of a URL, before the next URL. Everything up to the last
/// `@` before the path counts as user and password, so that too much may be replaced if a URL is a value in a query.
fn user_info_end(url: &str) -> Option<usize> {
    let end = url.find(['/', '?', '#']).unwrap_or(url.len());
    if let Some(at) = url[..end].rfind('@') {
        return Some(at);
    }
    // The password may have a delimiter that is not encoded: then what follows the colon is no port.
    let (host, port) = url[..end].split_once(':')?;
    let after_port = port.trim_start_matches(|c: char| c.is_ascii_digit());
    let is_port = after_port.len() < port.len() && !after_port.starts_with(char::is_alphanumeric);
    let after = &url[end..];
    let at = after.find(|c: char| c == '@' || c.is_whitespace() || "\"'<>".contains(c))?;
    if is_port || port.is_empty() || host.starts_with('[') || url[..end].contains(char::is_whitespace) {
        return None;
    }
    let at = end + after[at..].starts_with('@').then_some(at)?;
    let rest = &url[at..];
    rest[..rest.find(|c: char| "/?#\"'<>".contains(c) || c.is_whitespace()).unwrap_or(rest.len())]
        .rfind('@')
        .map(|last| at + last)
}

/// Whether a text has one of the delimiters `"%&:<=[{` percent-encoded. Without them, no percent-encoded text has
/// names.
fn has_encoded_delimiters(text: &str) -> bool {
    let is_delimiter = |rest: &[u8]| {
        matches!(
            rest,
            [b'2', b'2' | b'5' | b'6', ..]
                | [b'3', b'a' | b'A' | b'c' | b'C' | b'd' | b'D', ..]
                | [b'5' | b'7', b'b' | b'B', ..]
        )
    };
    text.match_indices('%').any(|(at, _)| is_delimiter(&text.as_bytes()[at + 1..]))
}
