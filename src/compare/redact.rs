//! Redacts values before they are shown or stored.
//!
//! Always true: a value under a key that names a secret (`secret` knows which) is replaced by asterisks; a string or
//! number without any key, which may be anything, by its digest; credentials within strings (queries, bearer tokens) by
//! asterisks.
//! Nothing is stored before it is redacted.

use std::borrow::Cow;

use serde_json::Value;

use super::digest::digest;
use super::line_secrets::secret_from;
use super::value_path::ValuePath;
use crate::secret::{
    Detectors, LengthMax, STARS, are_name_value_pairs, is_secret, masked_and_cut, private_key_items, redact_line,
    replace_detected, singular, value_of_pair, values_of_secrets, with_distinct_keys,
};

/// A number of at least so many digits, also with blanks or dashes between them, may be that of a card or an account.
const LONG_NUMBER_DIGITS: usize = 12;
/// The most bytes of a line that are searched for secrets; what is shown of it is much shorter.
const LINE_BYTES_MAX: usize = 16 << 10;

/// Returns a value with everything secret replaced. A string or number without a key becomes its digest.
pub fn redact(value: &Value) -> Value {
    match value {
        Value::Object(_) => redact_under_key(value),
        Value::Array(items) if are_name_value_pairs(items) => items.iter().map(redact_pair).collect(),
        Value::Array(items) => Value::Array(items.iter().map(redact).collect()),
        Value::Null | Value::Bool(_) => value.clone(),
        Value::String(text) if text == STARS => value.clone(),
        Value::Number(_) | Value::String(_) => Value::String(digest(scalar(value).as_bytes())),
    }
}

/// Redacts a value under a key that names no secret.
fn redact_under_key(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let secrets = values_of_secrets(map, is_secret);
            let shown = map.iter().map(|(key, value)| {
                let is_hidden = (is_secret(key) || secrets.is_whole(key)) && !value.is_null();
                let value = match value {
                    _ if is_hidden => STARS.into(),
                    Value::Array(items) if secrets.has_items(key) => {
                        let shown = items.iter().enumerate().map(|(index, item)| match secrets.is_item(key, index) {
                            true => STARS.into(),
                            false => redact_under_key(item),
                        });
                        shown.collect()
                    }
                    Value::Array(items) if singular(key).is_some_and(is_secret) => {
                        items.iter().map(redact_in_list_of_secrets).collect()
                    }
                    value => redact_under_key(value),
                };
                (detected(key).into_owned(), value)
            });
            Value::Object(with_distinct_keys(shown))
        }
        Value::Array(items) if are_name_value_pairs(items) => items.iter().map(redact_pair).collect(),
        Value::Array(items) => match private_key_items(items) {
            Some(parts) => {
                let shown = items.iter().zip(parts);
                shown.map(|(item, is_part)| if is_part { STARS.into() } else { redact_under_key(item) }).collect()
            }
            None => Value::Array(items.iter().map(redact_under_key).collect()),
        },
        Value::String(text) => Value::String(redact_line(text)),
        Value::Number(number) if detected(number.as_str()) != number.as_str() => Value::from(STARS),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}

/// Redacts a pair of name and value in a list of such.
fn redact_pair(pair: &Value) -> Value {
    match value_of_pair(pair, is_secret) {
        Some((name, _)) => Value::Array(vec![name.into(), STARS.into()]),
        None => redact_under_key(pair),
    }
}

/// Redacts an element of a list whose name is the plural of that of a secret: `pins`.
fn redact_in_list_of_secrets(value: &Value) -> Value {
    match value {
        Value::String(_) | Value::Number(_) => STARS.into(),
        Value::Object(_) | Value::Array(_) | Value::Null | Value::Bool(_) => redact_under_key(value),
    }
}

/// A text with stars in place of what looks like a secret.
fn detected(text: &str) -> Cow<'_, str> {
    replace_detected(text, Detectors::default(), &mut |_| STARS.to_owned())
}

/// Returns the value at this path as a difference shows it, but not yet cut ([`Difference::mask_and_cut`]).
///
/// [`Difference::mask_and_cut`]: super::Difference::mask_and_cut
pub(super) fn show(path: &ValuePath<'_>, value: &Value) -> String {
    ShownAs::at(path).show(value)
}

/// How values at one path are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ShownAs {
    /// As asterisks: a key of the path names a secret, or the value beside a value on the path does, as in
    /// `{"name": "pin", "value": …}`.
    Stars,
    /// A text or number as asterisks: the path is that of an element in a list of secrets.
    InListOfSecrets,
    /// With everything secret in them replaced.
    UnderKey,
    /// As digests: the path has no key.
    WithoutKey,
}

impl ShownAs {
    /// How a value at this path is shown.
    pub(super) fn at(path: &ValuePath<'_>) -> Self {
        let mut shown_as = ShownAs::WithoutKey;
        for key in path.keys() {
            if is_secret(key) {
                return ShownAs::Stars;
            }
            shown_as = ShownAs::UnderKey;
        }
        match shown_as {
            _ if path.is_named_as_secret() => ShownAs::Stars,
            _ if path.is_in_list_of_secrets() => ShownAs::InListOfSecrets,
            shown_as => shown_as,
        }
    }
    /// A value as it is shown.
    pub(super) fn show(self, value: &Value) -> String {
        match self {
            ShownAs::Stars => STARS.to_owned(),
            ShownAs::InListOfSecrets => redact_in_list_of_secrets(value).to_string(),
            ShownAs::UnderKey => redact_under_key(value).to_string(),
            ShownAs::WithoutKey => redact(value).to_string(),
        }
    }
}

/// Returns a header's value as a difference shows it.
pub(super) fn header(name: &str, value: &str) -> String {
    if is_secret(name) { STARS.to_owned() } else { redact_line(value) }
}

/// Redacts a line of a text whose credentials are replaced already: hides also what follows the name of a secret
/// (`line_secrets`), and numbers as long as those of cards. Only the beginning of a long line is returned.
pub(super) fn line(text: &str) -> String {
    let text = &text[..text.floor_char_boundary(LINE_BYTES_MAX)];
    let end = secret_from(text, &is_secret);
    let shown = end.map_or_else(|| text.to_owned(), |end| format!("{} {STARS}", &text[..end]));
    let mut out = String::with_capacity(shown.len());
    let mut rest = shown.as_str();
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        out.push_str(&rest[..start]);
        rest = &rest[start..];
        let run = rest.find(|c: char| !(c.is_ascii_digit() || matches!(c, ' ' | '-'))).unwrap_or(rest.len());
        let is_long = rest[..run].bytes().filter(u8::is_ascii_digit).count() >= LONG_NUMBER_DIGITS;
        out.push_str(if is_long { STARS } else { &rest[..run] });
        rest = &rest[run..];
    }
    out.push_str(rest);
    out
}

/// Returns at most `bytes_max` bytes of a text that is already masked; of a cut text at least `…`.
pub fn shorten(text: &str, bytes_max: usize) -> String {
    masked_and_cut(text, str::to_owned, LengthMax::Bytes(bytes_max))
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn nothing_secret_is_left() {
        let body = json!({"a": {"password": {"deep": "hunter2"}}, "items": [{"token": "hunter2", "n": 1}],
            "next": "https://u:hunter2@x/y?api_key=hunter2&page=2", "auth_header": "x", "h": "Bearer hunter2"});
        let shown = redact(&body).to_string();
        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(shown.contains("page=2") && shown.contains("\"n\":1"));
        let card: Value = serde_json::from_str(r#"{"a": 4111111111111111, "4111111111111111": 1, "n": 4111}"#).unwrap();
        assert_eq!(redact(&card), json!({"a": "***", "***": 1, "n": 4111}), "cards are known whatever their name");
        assert_eq!(redact(&json!(["***"])), json!(["***"]), "a value that was hidden before gets no digest");
        assert!(!redact(&json!(["hunter2", 42, ["hunter2"]])).to_string().contains("hunter2"));
    }

    #[test]
    fn a_secret_in_a_pair_of_name_and_value_or_in_json_within_a_text_is_hidden() {
        let body = json!({
            "fields": [{ "name": "password", "value": "hunter2" }, { "name": "colour", "value": "red" }],
            "payload": "{\"order\": {\"api_key\": \"hunter2\", \"n\": 1}}",
            "note": "{not JSON}",
            "xml": "<a><password><![CDATA[hunter2]]></password><n>1</n></a>",
        });
        let shown = redact(&body);
        assert_eq!(
            shown["fields"],
            json!([{ "name": "password", "value": "***" }, { "name": "colour", "value": "red" }])
        );
        assert_eq!(shown["payload"], json!("{\"order\":{\"api_key\":\"***\",\"n\":1}}"));
        assert_eq!(shown["note"], body["note"]);
        assert_eq!(shown["xml"], "<a><password>***</password><n>1</n></a>");
    }

    #[test]
    fn numbers_in_a_list_of_secrets_are_hidden_as_texts_are_and_keys_that_are_secrets_stay_apart() {
        let body = json!({ "pins": [1234, "5678", null, { "n": 1 }], "items": [1234] });
        assert_eq!(redact(&body), json!({ "pins": ["***", "***", null, { "n": 1 }], "items": [1234] }));
        let keys = json!({ "cards": { "4111111111111111": { "n": 1 }, "5500000000000004": { "n": 2 } } });
        assert_eq!(redact(&keys), json!({ "cards": { "***": { "n": 1 }, "*** (2)": { "n": 2 } } }));
    }

    #[test]
    fn a_private_key_whose_lines_are_the_elements_of_a_list_is_hidden() {
        let lines = ["-----BEGIN PRIVATE KEY-----", "MHcC", "IBk=", "-----END PRIVATE KEY-----", "b"];
        let shown = ["-----BEGIN PRIVATE KEY-----", STARS, STARS, "-----END PRIVATE KEY-----", "b"];
        assert_eq!(redact(&json!({ "data": lines })), json!({ "data": shown }));
        let (text, shown) = (json!({ "data": lines }).to_string(), json!({ "data": shown }).to_string());
        assert_eq!(redact_line(&text), shown, "also in JSON within a text");
    }

    #[test]
    fn lines_show_no_secret_that_has_a_name_and_no_long_number() {
        for (text, shown) in [
            ("Your password: hunter2 (keep it)", "Your password: ***"),
            ("api_key=hunter2", "api_key= ***"),
            ("Card 4111 1111 1111 1111, total 17.50", "Card ***"),
            ("No. 4111 1111 1111 1111, total 17.50", "No. ***, total 17.50"),
            ("due 2026-11-17 at 10:00", "due 2026-11-17 at 10:00"),
            ("ä: 1 - 2", "ä: 1 - 2"),
        ] {
            assert_eq!(line(text), shown);
        }
    }

    #[test]
    fn shortening_cuts_between_characters() {
        assert_eq!(shorten("äöü", 100), "äöü");
        assert!(shorten("ääääääääää", 8).len() <= 8);
        assert_eq!(shorten("abc", 0), "…");
    }
}
