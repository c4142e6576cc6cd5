//! Replaces secrets that a service quotes in its reply, before the reply is recorded.
//!
//! Always true: if a reply quotes a secret or credential of its call, plain, percent-encoded as in a URL or in
//! JSON-escaped form, as a number or within bytes, neither events nor expressions see it. A short secret is not
//! replaced: it could occur by chance in texts that do not quote it, and a later step would send stars instead of what
//! the service returned.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use bytes::Bytes;
use http::HeaderMap;
use serde_json::{Number, Value};

use crate::secret::{
    CUT, CanonicalNumber, LengthMax, STARS, forms_in_texts, is_quoted_in, masked_and_cut, quotes_and_cut_quotes_in,
    quotes_in, replaced,
};
use crate::workflow::{AttemptResult, BytesMark};

/// Shorter values are not looked for: they may occur by chance.
const BYTES_MIN: usize = 12;
/// How much of an unreadable body is shown.
const EXCERPT_CHARS_MAX: usize = 200;

/// The secrets and credentials that the URL and the headers of a call may contain.
#[derive(Default)]
pub(in crate::engine) struct EchoedSecrets {
    /// Each secret, in every form in which a text may quote it.
    forms: BTreeSet<String>,
    /// The secrets that are numbers.
    numbers: BTreeSet<CanonicalNumber>,
}

impl EchoedSecrets {
    /// The secrets and credentials of one call, among those that its plan may read.
    pub fn new(secrets: &Value, credentials: &BTreeMap<String, String>) -> Self {
        let secrets = secrets.as_object().into_iter().flat_map(|secrets| secrets.values()).filter_map(Value::as_str);
        let parts = credentials.iter().flat_map(|(name, value)| parts(name, value));
        let all = secrets.chain(credentials.values().map(String::as_str)).chain(parts);
        let all: BTreeSet<&str> = all.filter(|value| value.len() >= BYTES_MIN).collect();
        let numbers = all.iter().filter_map(|value| CanonicalNumber::parse(value)).collect();
        Self { forms: all.into_iter().flat_map(forms_in_texts).collect(), numbers }
    }

    fn forms(&self) -> impl Iterator<Item = &str> + Clone {
        self.forms.iter().map(String::as_str)
    }

    /// The beginning of an unreadable body, for people, without the secrets. With `continues`, these bytes are not the
    /// whole body.
    pub fn excerpt(&self, bytes: &[u8], continues: bool) -> String {
        let text = String::from_utf8_lossy(bytes);
        if !continues {
            return masked_and_cut(&text, |text| self.masked_text(text), LengthMax::Chars(EXCERPT_CHARS_MAX));
        }
        // The bytes end where reading stopped, perhaps within a secret or within a character.
        let text = format!("{}{CUT}", text.trim_end_matches(char::REPLACEMENT_CHARACTER));
        let mask = |text: &str| stars_at(text, &quotes_and_cut_quotes_in(text, self.forms()));
        masked_and_cut(&text, mask, LengthMax::Chars(EXCERPT_CHARS_MAX))
    }

    fn masked_text(&self, text: &str) -> String {
        let mut masked = text.to_owned();
        self.mask(&mut masked);
        masked
    }

    /// The result without the secrets. `mark` tells which values represent bytes.
    pub fn masked(&self, mut result: AttemptResult, mark: BytesMark) -> AttemptResult {
        if self.forms.is_empty() {
            return result;
        }
        match &mut result {
            AttemptResult::Reply { headers, output, .. } => {
                headers.values_mut().for_each(|value| self.mask(value));
                if let Some(masked) = self.masked_bytes(output, mark) {
                    *output = masked.into();
                } else if self.is_in(output) {
                    self.mask_value(std::sync::Arc::make_mut(output));
                }
            }
            // The excerpt of an unreadable body is masked already.
            AttemptResult::Unreadable { why, .. } => self.mask(why),
            _ => {}
        }
        result
    }

    /// A value that represents bytes, without the secrets that the bytes quote; `None` where they quote none.
    fn masked_bytes(&self, value: &Value, mark: BytesMark) -> Option<Value> {
        let (payload, content_type) = mark.bytes(value)?;
        let bytes = payload.bytes();
        // A secret is UTF-8, so it lies within one chunk of valid UTF-8.
        if !bytes.utf8_chunks().any(|chunk| is_quoted_in(chunk.valid(), self.forms())) {
            return None;
        }
        Some(mark.value(&self.masked_chunks(&bytes), content_type.as_deref()))
    }

    /// Replaces the secrets that a reply's header fields quote.
    pub fn mask_headers(&self, headers: &mut HeaderMap) {
        for value in headers.values_mut() {
            let quotes = value.to_str().is_ok_and(|text| is_quoted_in(text, self.forms()));
            if quotes && let Ok(masked) = self.masked_text(value.to_str().unwrap_or_default()).parse() {
                *value = masked;
            }
        }
    }

    /// A body, without the secrets that it quotes.
    pub fn masked_body(&self, body: Bytes) -> Bytes {
        if !body.utf8_chunks().any(|chunk| is_quoted_in(chunk.valid(), self.forms())) {
            return body;
        }
        self.masked_chunks(&body).into()
    }

    fn masked_chunks(&self, bytes: &[u8]) -> Vec<u8> {
        let mut masked = Vec::with_capacity(bytes.len());
        for chunk in bytes.utf8_chunks() {
            masked.extend_from_slice(self.masked_text(chunk.valid()).as_bytes());
            masked.extend_from_slice(chunk.invalid());
        }
        masked
    }

    /// Whether a number is a secret, in whatever notation, or its digits contain one.
    fn is_secret_number(&self, number: &Number) -> bool {
        let written = number.to_string();
        self.forms().any(|secret| written.contains(secret))
            || (!self.numbers.is_empty()
                && CanonicalNumber::parse(&written).is_some_and(|number| self.numbers.contains(&number)))
    }

    fn is_in(&self, value: &Value) -> bool {
        let quotes = |text: &str| is_quoted_in(text, self.forms());
        match value {
            Value::String(text) => quotes(text),
            Value::Array(items) => items.iter().any(|item| self.is_in(item)),
            Value::Object(members) => members.iter().any(|(name, member)| quotes(name) || self.is_in(member)),
            Value::Number(number) => self.is_secret_number(number),
            Value::Null | Value::Bool(_) => false,
        }
    }

    fn mask_value(&self, value: &mut Value) {
        match value {
            Value::String(text) => self.mask(text),
            Value::Array(items) => items.iter_mut().for_each(|item| self.mask_value(item)),
            Value::Object(members) => {
                let masked = std::mem::take(members).into_iter().map(|(mut name, mut member)| {
                    self.mask(&mut name);
                    self.mask_value(&mut member);
                    (name, member)
                });
                *members = masked.collect();
            }
            Value::Number(number) if self.is_secret_number(number) => *value = Value::from(STARS),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn mask(&self, text: &mut String) {
        let quotes = quotes_in(text, self.forms());
        if !quotes.is_empty() {
            *text = stars_at(text, &quotes);
        }
    }
}

fn stars_at(text: &str, places: &[Range<usize>]) -> String {
    replaced(text, places, &|_| Some(STARS.to_owned())).unwrap_or_else(|| STARS.to_owned())
}

/// The parts of a credential that a service may quote alone: the token of `Bearer TOKEN`, the value of each cookie.
fn parts<'a>(name: &str, value: &'a str) -> Vec<&'a str> {
    match name {
        "authorization" => value.split_once(' ').map(|(_, token)| token.trim()).into_iter().collect(),
        "cookie" => value.split(';').filter_map(|cookie| Some(cookie.split_once('=')?.1.trim())).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const MARK_SECRET: [u8; 32] = [7; 32];

    #[test]
    fn a_reply_that_quotes_the_secrets_of_its_call_is_recorded_with_stars() {
        let credentials = BTreeMap::from([("authorization".to_owned(), "Bearer of-one-caller-17".to_owned())]);
        let sent = EchoedSecrets::new(&json!({"bank": "k-1234567890", "pin": "1234"}), &credentials);
        let output = json!({
            "error": "bad token of-one-caller-17", "sent": {"x-k-1234567890": ["key k-1234567890", 1234]}, "pin": "1234",
        });
        let reply = AttemptResult::Reply {
            status: 401,
            headers: BTreeMap::from([("x-echo".to_owned(), "Bearer of-one-caller-17".to_owned())]),
            output: output.into(),
            retry_after_ms: None,
        };
        let AttemptResult::Reply { headers, output, .. } = sent.masked(reply, BytesMark::new(&MARK_SECRET)) else {
            panic!("it stays a reply")
        };
        assert_eq!(headers["x-echo"], "***");
        assert_eq!(
            *output,
            json!({"error": "bad token ***", "sent": {"x-***": ["key ***", 1234]}, "pin": "1234"}),
            "a secret of four characters is not replaced"
        );
        // A secret in JSON that is itself quoted in JSON, and a secret with all non-ASCII characters escaped.
        let sent_quoted = EchoedSecrets::new(&json!({"bank": "k-\"12é45\\678"}), &BTreeMap::new());
        let inner = json!({"key": "k-\"12é45\\678"}).to_string();
        let output =
            json!({"sent": inner.clone(), "log": json!(inner).to_string(), "raw": r#"{"key":"k-\"12\u00e945\\678"}"#});
        let reply =
            AttemptResult::Reply { status: 200, headers: BTreeMap::new(), output: output.into(), retry_after_ms: None };
        let AttemptResult::Reply { output, .. } = sent_quoted.masked(reply, BytesMark::new(&MARK_SECRET)) else {
            panic!("it stays a reply")
        };
        let stars = r#"{"key":"***"}"#;
        assert_eq!(*output, json!({"sent": stars, "log": json!(stars).to_string(), "raw": stars}));
        // The reply quotes the URL that contained the secret.
        let sent_in_url = EchoedSecrets::new(&json!({"bank": "k+12/45=67&89"}), &BTreeMap::new());
        let output =
            json!({"error": "nothing at /e?key=k%2B12%2F45%3D67%2689", "form": "k%2b12%2f45%3d67%2689"}).into();
        let reply = AttemptResult::Reply { status: 404, headers: BTreeMap::new(), output, retry_after_ms: None };
        let AttemptResult::Reply { output, .. } = sent_in_url.masked(reply, BytesMark::new(&MARK_SECRET)) else {
            panic!("it stays a reply")
        };
        assert_eq!(*output, json!({"error": "nothing at /e?key=***", "form": "***"}));
        // In a cookie only values long enough to be session ids are replaced, and not short ones such as `en`.
        let credentials = BTreeMap::from([("cookie".to_owned(), "sid=Zq81-4b7c-99ab; locale=en".to_owned())]);
        let sent_cookie = EchoedSecrets::new(&json!({}), &credentials);
        let output = json!({"next": "/list?locale=en", "error": "no session Zq81-4b7c-99ab"}).into();
        let reply = AttemptResult::Reply { status: 200, headers: BTreeMap::new(), output, retry_after_ms: None };
        let AttemptResult::Reply { output, .. } = sent_cookie.masked(reply, BytesMark::new(&MARK_SECRET)) else {
            panic!("it stays a reply")
        };
        assert_eq!(*output, json!({"next": "/list?locale=en", "error": "no session ***"}));
        let why = "its body `k-1234567890` is not JSON".into();
        let unreadable = AttemptResult::Unreadable { status: 200, why, body_start: String::new() };
        assert!(
            matches!(sent.masked(unreadable, BytesMark::new(&MARK_SECRET)), AttemptResult::Unreadable { why, .. } if why.contains("`***`"))
        );
    }

    #[test]
    fn no_part_of_a_secret_stands_before_the_cut_of_an_excerpt() {
        let secret = "banktoken-AABBCCDD-11223344";
        let sent = EchoedSecrets::new(&json!({ "bank": secret }), &BTreeMap::new());
        assert_eq!(sent.excerpt(b"<banktoken-AABBCCDD-11223344>", false), "<***>");
        for filled in 170..=205 {
            let body = format!("{}{secret} and more{}", "z".repeat(filled), "y".repeat(300));
            for continues in [false, true] {
                let shown = sent.excerpt(body.as_bytes(), continues);
                assert!(!shown.contains('b') && shown.ends_with('…'), "{filled}: {shown}");
                assert_eq!(shown.chars().count(), 201, "{filled}");
            }
        }
        // The bytes that were read end within the secret, or within a character.
        for bytes in 5..secret.len() {
            let body = format!("<{}", &secret[..bytes]);
            assert_eq!(sent.excerpt(body.as_bytes(), true), "<***…", "{bytes}");
        }
        assert_eq!(sent.excerpt(b"<banktoken-AAB\xe2\x82", true), "<***…");
        assert_eq!(sent.excerpt(b"<bank-note\xe2\x82", true), "<bank-note…", "another text");
        assert_eq!(sent.excerpt("äö".as_bytes(), false), "äö");
    }
    fn masked_output(sent: &EchoedSecrets, output: Value) -> Value {
        let reply =
            AttemptResult::Reply { status: 200, headers: BTreeMap::new(), output: output.into(), retry_after_ms: None };
        match sent.masked(reply, BytesMark::new(&MARK_SECRET)) {
            AttemptResult::Reply { output, .. } => (*output).clone(),
            _ => panic!("it stays a reply"),
        }
    }

    #[test]
    fn a_secret_is_found_in_a_reply_of_bytes() {
        let (secret, mark) = ("banktoken-é-AABB/11", BytesMark::new(&MARK_SECRET));
        let credentials = BTreeMap::from([("authorization".to_owned(), "Bearer of-one-caller-17".to_owned())]);
        let sent = EchoedSecrets::new(&json!({ "bank": secret }), &credentials);
        let bytes = |quotes: [&str; 3]| {
            let [plain, escaped, token] = quotes.map(str::as_bytes);
            let body = [b"\x01\xff", plain, b"\xe2\x82", escaped, b"\x80 ", token, b"\xf0"].concat();
            mark.value(&body, Some("application/octet-stream"))
        };
        let quotes = [secret, "banktoken-%C3%A9-AABB%2F11", "of-one-caller-17"];
        assert_eq!(masked_output(&sent, bytes(quotes)), bytes(["***"; 3]));
        let other = bytes(["banktoken-e", "x", "of-one-caller-18"]);
        assert_eq!(masked_output(&sent, other.clone()), other);
        let text = mark.value(format!("auth was {secret}").as_bytes(), None);
        assert_eq!(masked_output(&sent, text), mark.value(b"auth was ***", None));
        let looks = json!({ "$bytes": "AQ==", "content_type": secret, "$mark": "0" });
        assert_eq!(masked_output(&sent, looks)["content_type"], "***", "it is no value of bytes");
    }

    #[test]
    fn a_secret_of_digits_is_found_as_a_number() {
        let sent = EchoedSecrets::new(&json!({ "pin": "918273645566" }), &BTreeMap::new());
        let output: Value = serde_json::from_str(
            r#"[918273645566, 918273645566.0, 9.18273645566e11, 19182736455660, "x918273645566y", 918273645567]"#,
        )
        .unwrap();
        assert_eq!(masked_output(&sent, output), json!(["***", "***", "***", "***", "x***y", 918273645567_u64]));
    }

    #[test]
    fn a_secret_is_found_whichever_of_its_characters_a_url_escapes() {
        let sent = EchoedSecrets::new(&json!({ "bank": "p@ss!word (12345) x" }), &BTreeMap::new());
        for quoted in [
            "p%40ss!word%20(12345)%20x",
            "p@ss!word%20(12345)%20x",
            "p@ss%21word%20%2812345%29%20x",
            "p%40ss%21word+%2812345%29+x",
        ] {
            assert_eq!(masked_output(&sent, json!(format!("/e?key={quoted}"))), "/e?key=***", "{quoted}");
        }
    }
}
