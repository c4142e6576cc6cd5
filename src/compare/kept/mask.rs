//! Replaces secret values by placeholders that are equal for equal values.

use std::collections::HashMap;

use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde_json::Value;

use crate::secret::{STARS, is_secret, redact_line, with_distinct_keys};

/// How each placeholder begins.
const PLACEHOLDER: &str = "[redacted ";

/// Whether a text contains a placeholder, or stars in place of something secret.
pub(in crate::compare) fn is_masked(text: &str) -> bool {
    text.contains(PLACEHOLDER) || text.contains(STARS)
}

/// Whether a placeholder is anywhere in a value.
pub(in crate::compare) fn holds_masked(value: &Value) -> bool {
    match value {
        Value::String(text) => is_masked(text),
        Value::Array(items) => items.iter().any(holds_masked),
        Value::Object(members) => members.values().any(holds_masked),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// The placeholders of one pair, by the value that they stand for.
#[derive(Default)]
pub(super) struct Placeholders(HashMap<String, usize>);

impl Placeholders {
    /// The placeholder of a value.
    fn of(&mut self, value: &Value) -> String {
        let next = self.0.len() + 1;
        let number = *self.0.entry(value.to_string()).or_insert(next);
        format!("{PLACEHOLDER}{number}]")
    }

    /// Returns the original with a placeholder in place of each part in which `redacted` differs.
    pub(super) fn value(&mut self, original: &Value, redacted: &Value) -> Value {
        match (original, redacted) {
            (Value::Object(a), Value::Object(b)) if a.len() == b.len() && a.keys().all(|key| b.contains_key(key)) => {
                let part = |(key, value): (&String, &Value)| {
                    let redacted = b.get(key).unwrap_or(&Value::Null);
                    (key.clone(), self.value(value, redacted))
                };
                Value::Object(a.iter().map(part).collect())
            }
            // A name that is a secret itself is replaced too. Redaction keeps the order.
            (Value::Object(a), Value::Object(b)) if a.len() == b.len() => {
                let part = |((key, value), (shown, redacted)): ((&String, &Value), (&String, &Value))| {
                    let key = if key == shown { key.clone() } else { self.of(&Value::from(key.as_str())) };
                    (key, self.value(value, redacted))
                };
                Value::Object(with_distinct_keys(a.iter().zip(b).map(part)))
            }
            (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
                a.iter().zip(b).map(|(value, redacted)| self.value(value, redacted)).collect()
            }
            (Value::String(text), redacted) => match redacted.as_str() {
                Some(redacted) => self.text(text, redacted).into(),
                None => self.of(original).into(),
            },
            (value, redacted) if value == redacted => value.clone(),
            (value, _) => self.of(value).into(),
        }
    }

    /// Returns a text as it is, if `redacted` is the same text. Otherwise returns `redacted` with the text's
    /// placeholder in place of the stars, so that what is visible of the text is compared as any text. A text that
    /// looks like a placeholder is replaced by one.
    pub(super) fn text(&mut self, original: &str, redacted: &str) -> String {
        let pretends = original.contains(PLACEHOLDER);
        if original == redacted && !pretends {
            return original.to_owned();
        }
        let placeholder = self.of(&Value::from(original));
        if redacted.contains(STARS) && !pretends { redacted.replace(STARS, &placeholder) } else { placeholder }
    }

    /// Returns a URL with a placeholder for each secret parameter of its query; `None` if the rest of it has a secret.
    pub(super) fn url(&mut self, url: &str, hide: &dyn Fn(&str) -> String) -> Option<String> {
        let (base, query) = url.split_once('?').map_or((url, None), |(base, query)| (base, Some(query)));
        if redact_line(&hide(base)) != base || base.contains(PLACEHOLDER) {
            return None;
        }
        let Some(query) = query else { return Some(base.to_owned()) };
        let mut parameter = |parameter: &str| {
            let Some((name, value)) = parameter.split_once('=') else {
                return (redact_line(&hide(parameter)) == parameter).then(|| parameter.to_owned());
            };
            let plain = percent_decode_str(value).decode_utf8_lossy().replace('+', " ");
            let is_secret = is_secret(&percent_decode_str(name).decode_utf8_lossy());
            // Stars stand in place of what is filled in only when the call is sent.
            if plain.contains(STARS) {
                return Some(parameter.to_owned());
            }
            let redacted = if is_secret { STARS.to_owned() } else { redact_line(&hide(&plain)) };
            if redacted == plain && !plain.contains(PLACEHOLDER) {
                return Some(parameter.to_owned());
            }
            let placeholder = self.of(&Value::from(plain));
            Some(format!("{name}={}", utf8_percent_encode(&placeholder, NON_ALPHANUMERIC)))
        };
        let mut shown = format!("{base}?");
        for part in query.split_inclusive(['&', ';']) {
            let (part, sign) = part.split_at(part.trim_end_matches(['&', ';']).len());
            shown.push_str(&parameter(part)?);
            shown.push_str(sign);
        }
        Some(shown)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::compare::redact::redact;

    #[test]
    fn equal_secrets_have_equal_placeholders_and_others_do_not() {
        let body = json!({"password": "a", "again": {"token": "a", "card": "b"}, "n": 1.50, "list": ["x", {"k": "x"}]});
        let mut placeholders = Placeholders::default();
        let masked = placeholders.value(&body, &redact(&body));
        assert_eq!(
            masked,
            json!({"password": "[redacted 1]", "again": {"token": "[redacted 1]", "card": "[redacted 2]"},
                "n": 1.50, "list": ["x", {"k": "x"}]})
        );
        // Names that are secrets.
        let keys = json!({"4111111111111111": 1, "5500000000000004": 2});
        let masked = placeholders.value(&keys, &redact(&keys));
        assert_eq!(masked, json!({"[redacted 3]": 1, "[redacted 4]": 2}));
        let mut placeholders = Placeholders::default();
        placeholders.value(&body, &redact(&body));
        // A text without a key, one with credentials in it, and one that pretends to be a placeholder.
        let others = json!(["a", "hunter2", {"next": "/x?token=b"}, {"k": "[redacted 1]"}]);
        let masked = placeholders.value(&others, &redact(&others));
        assert_eq!(
            masked,
            json!(["[redacted 1]", "[redacted 3]", {"next": "/x?token=[redacted 4]"}, {"k": "[redacted 5]"}])
        );
    }

    #[test]
    fn a_url_keeps_what_is_no_secret() {
        let mut placeholders = Placeholders::default();
        let hide = |text: &str| text.replace("4711", STARS);
        let mut url = |url: &str| placeholders.url(url, &hide);
        assert_eq!(
            url("http://bank/charges?n=1&api_key=hunter2"),
            Some("http://bank/charges?n=1&api_key=%5Bredacted%201%5D".into())
        );
        assert_eq!(url("http://bank/charges?api_key=***"), Some("http://bank/charges?api_key=***".into()));
        assert_eq!(url("http://bank/cards/4711"), None);
        assert_eq!(url("http://u:p@bank/charges"), None);
        assert_eq!(url("http://bank/x?q=4711"), Some("http://bank/x?q=%5Bredacted%202%5D".into()));
    }
}
