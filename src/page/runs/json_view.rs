//! JSON that was recorded, as people read it: indented, and within a bound.

use std::io::{self, Write};

use maud::{Markup, html};
use serde_json::Value;

use crate::page::recorded_text::clean;

/// How much of a value is shown.
const JSON_BYTES_MAX: usize = 16 * 1_024;

/// A value in a box. `label` says what it is, for those who do not see the heading above it.
pub(in crate::page) fn json_view(label: &str, value: &Value) -> Markup {
    let (text, is_cut) = match value {
        // A text is shown as it is, without the quotes and escapes of JSON.
        Value::String(text) => bounded(text.as_bytes()),
        _ => indented(value),
    };
    html! {
        pre.json tabindex="0" role="group" aria-label=(label) { (clean(&text)) @if is_cut { "…" } }
        @if is_cut {
            p.hint { "Only the first " (JSON_BYTES_MAX / 1_024) " KiB are shown." }
        }
    }
}

/// The value with indents, and whether it was cut. What is beyond the bound is not written.
fn indented(value: &Value) -> (String, bool) {
    let mut writer = Bounded(Vec::new());
    // The only possible error is that the bound was reached.
    let is_cut = serde_json::to_writer_pretty(&mut writer, value).is_err();
    (String::from_utf8_lossy(&writer.0).trim_end_matches('\u{fffd}').to_owned(), is_cut)
}

fn bounded(bytes: &[u8]) -> (String, bool) {
    let is_cut = bytes.len() > JSON_BYTES_MAX;
    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(JSON_BYTES_MAX)]);
    // A character in the middle of which the text was cut.
    let shown = if is_cut { shown.trim_end_matches('\u{fffd}') } else { &shown };
    (shown.to_owned(), is_cut)
}

/// Takes so many bytes and refuses more.
struct Bounded(Vec<u8>);

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = JSON_BYTES_MAX - self.0.len();
        if room == 0 && !bytes.is_empty() {
            return Err(io::ErrorKind::WriteZero.into());
        }
        let taken = bytes.len().min(room);
        self.0.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A recorded body as a value: JSON in a text is read; of bytes only the size is told.
pub(in crate::page) fn body(recorded: &Value) -> Value {
    if let Some(text) = recorded.get("text").and_then(Value::as_str) {
        return serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()));
    }
    match recorded.get("base64").and_then(Value::as_str) {
        Some(encoded) => Value::String(format!("({} bytes that are no text)", encoded.len() / 4 * 3)),
        None if recorded.as_str() == Some("empty") => Value::Null,
        None => recorded.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_value_is_indented_and_escaped() {
        let shown = json_view("The output", &json!({ "a": "<script>" })).into_string();
        assert!(shown.contains("{\n  &quot;a&quot;: &quot;&lt;script&gt;&quot;\n}"), "{shown}");
        assert!(!shown.contains('…'));
    }

    #[test]
    fn a_large_value_is_cut_and_says_so() {
        for value in [json!(vec!["漢字"; 9_000]), json!("漢".repeat(9_000))] {
            let shown = json_view("The output", &value).into_string();
            assert!(shown.len() < 2 * JSON_BYTES_MAX + 500 && shown.contains("…</pre>"), "{} bytes", shown.len());
            assert!(shown.contains("Only the first 16 KiB") && !shown.contains('\u{fffd}'));
        }
    }

    #[test]
    fn ciphertext_is_never_shown_even_where_it_is_cut() {
        let sealed = format!("{}«sealed:{}»", "x".repeat(JSON_BYTES_MAX - 100), "A".repeat(500));
        let shown = json_view("The output", &json!({ "token": sealed })).into_string();
        assert!(!shown.contains("AAA") && shown.contains("***"), "{}", &shown[shown.len() - 300..]);
    }

    #[test]
    fn a_recorded_body_is_read_as_json_where_it_is_json() {
        assert_eq!(body(&json!({ "text": "{\"a\": 1.50}" })).to_string(), "{\"a\":1.50}");
        assert_eq!(body(&json!({ "text": "plain" })), json!("plain"));
        assert_eq!(body(&json!("empty")), Value::Null);
        assert_eq!(body(&json!({ "base64": "AAAA" })), json!("(3 bytes that are no text)"));
    }
}
