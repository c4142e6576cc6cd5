//! Takes everything secret out of a pair.
//!
//! A value is secret if its name is (of a header, a parameter, a key; built in, or declared by `redact:`), if a
//! JSONPath of `redact:` names it, if the run's workflow declares it as sensitive, if it looks like a secret
//! (`secret::detect`), or if it has no name at all. The secrets of the pair (`pair_secrets`) are then replaced wherever
//! else in it they are quoted.

use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde_json::Value;

use crate::compare::kept::SensitiveParts;
use crate::secret::{
    FoundSecret, QuotedSecrets, RedactRules, RedactionKey, STARS, are_name_value_pairs, decoded_component,
    is_field_name, is_hidden, is_redacted, is_secret, is_secret_segment, parse_json_container, private_key_items,
    replace_secrets, singular, value_of_pair, values_of_secrets, with_distinct_keys,
};

/// Headers that describe the transfer of a body: of a redacted one they would be wrong.
const TRANSFER_HEADERS: [&str; 4] = ["content-encoding", "content-length", "transfer-encoding", "content-md5"];

/// The keys of `instance` whose values are bodies: of the request that created it, and of the answer to that.
pub(super) const BODIES_OF_INSTANCE: [&str; 2] = ["input", "output"];

/// Which body of a pair.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyOf {
    Request,
    Reply,
    Call,
    ReplyToCall,
}

/// Replaces the secrets of one pair.
pub(super) struct Redactor<'a> {
    pub key: &'a RedactionKey,
    pub rules: &'a RedactRules,
    pub sensitive: Option<&'a dyn SensitiveParts>,
    /// The secrets that are replaced wherever they are quoted.
    pub quoted: QuotedSecrets,
    /// Whether the time for the pair is over. Then texts are hidden whole, and the capture is of no use.
    pub expired: &'a dyn Fn() -> bool,
}

impl Redactor<'_> {
    fn is_secret(&self, name: &str) -> bool {
        is_secret(name) || self.rules.has_name(name)
    }

    /// Redacts a text whose name is not that of a secret.
    pub fn text(&self, text: &str) -> String {
        if (self.expired)() {
            return STARS.to_owned();
        }
        let hidden = self.sensitive.map_or_else(|| text.to_owned(), |parts| parts.hide_in_text(text));
        let shown = self.in_place_of_stars(text, &hidden);
        let shown = self.quoted.hide(&shown, &|secret| self.key.redacted(secret));
        let mut hash = |found: FoundSecret<'_>| (!is_hidden(found.value)).then(|| self.key.redacted(found.value));
        replace_secrets(&shown, &|name| self.is_secret(name), self.rules.detectors(), &mut hash).unwrap_or(shown)
    }

    /// Replaces the stars that stand in `hidden` in place of secrets by hashes. Stars that `original` has too stay: a
    /// secret of the configuration is recorded as stars.
    fn in_place_of_stars(&self, original: &str, hidden: &str) -> String {
        match hidden.contains(STARS) && !original.contains(STARS) {
            true => hidden.replace(STARS, &self.key.redacted(original)),
            false => hidden.to_owned(),
        }
    }

    /// Redacts a body by its structure.
    pub fn body(&self, of: BodyOf, body: &Value) -> Value {
        let mut hidden = body.clone();
        if let Some(parts) = self.sensitive {
            match of {
                BodyOf::Request => parts.hide_in_request_body(&mut hidden),
                BodyOf::Reply => parts.hide_in_reply_body(&mut hidden),
                BodyOf::Call | BodyOf::ReplyToCall => {}
            }
        }
        self.hidden_body(body, hidden)
    }

    /// What is known of an instance. `hidden` is the same with stars in place of what is sensitive in it.
    pub fn instance(&self, value: &Value, hidden: Option<&Value>) -> Value {
        let Value::Object(parts) = value else { return self.value(value, false) };
        let part = |(name, part): (&String, &Value)| {
            let hidden = hidden.and_then(|hidden| hidden.get(name)).unwrap_or(part);
            let shown = if BODIES_OF_INSTANCE.contains(&name.as_str()) {
                self.hidden_body(part, hidden.clone())
            } else {
                part.as_str().map_or_else(|| self.value(part, false), |text| self.text(text).into())
            };
            (name.clone(), shown)
        };
        Value::Object(parts.iter().map(part).collect())
    }

    /// A body of which a part is hidden already.
    fn hidden_body(&self, body: &Value, mut hidden: Value) -> Value {
        if let Some(parts) = self.sensitive {
            parts.hide_in_value(&mut hidden);
        }
        let mut shown = self.merged(body, &hidden);
        for pointer in self.rules.located_in(body) {
            if let (Some(secret), Some(place)) = (body.pointer(&pointer), shown.pointer_mut(&pointer)) {
                *place = self.secret_value(secret);
            }
        }
        self.value(&shown, false)
    }

    /// The original, with a hash in place of each part in which `hidden` differs.
    fn merged(&self, original: &Value, hidden: &Value) -> Value {
        match (original, hidden) {
            (a, b) if a == b => a.clone(),
            (Value::Object(a), Value::Object(b)) if a.len() == b.len() && a.keys().all(|key| b.contains_key(key)) => {
                let part = |(key, value): (&String, &Value)| {
                    (key.clone(), self.merged(value, b.get(key).unwrap_or(&Value::Null)))
                };
                Value::Object(a.iter().map(part).collect())
            }
            (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
                a.iter().zip(b).map(|(value, hidden)| self.merged(value, hidden)).collect()
            }
            (Value::String(text), Value::String(hidden)) => self.in_place_of_stars(text, hidden).into(),
            (value, _) => self.secret_value(value),
        }
    }

    fn value(&self, value: &Value, has_key: bool) -> Value {
        match value {
            Value::Object(members) => {
                let named = values_of_secrets(members, |name| self.is_secret(name));
                let shown = members.iter().map(|(key, value)| {
                    let is_secret = named.is_whole(key) || self.is_secret(key);
                    let value = match value {
                        value if is_secret => self.secret_value(value),
                        Value::Array(items) if named.has_items(key) => {
                            let shown = items.iter().enumerate().map(|(index, item)| match named.is_item(key, index) {
                                true => self.secret_value(item),
                                false => self.value(item, true),
                            });
                            shown.collect()
                        }
                        Value::Array(items) if singular(key).is_some_and(|name| self.is_secret(name)) => {
                            items.iter().map(|item| self.value_in_list_of_secrets(item)).collect()
                        }
                        value => self.value(value, true),
                    };
                    (self.text(key), value)
                });
                Value::Object(with_distinct_keys(shown))
            }
            Value::Array(items) if are_name_value_pairs(items) => items.iter().map(|pair| self.pair(pair)).collect(),
            Value::Array(items) => {
                let parts = private_key_items(items).unwrap_or_default();
                let is_part = |n: usize| parts.get(n).is_some_and(|is_part| *is_part);
                let shown = items.iter().enumerate();
                shown
                    .map(|(n, item)| if is_part(n) { self.secret_value(item) } else { self.value(item, has_key) })
                    .collect()
            }
            Value::Null | Value::Bool(_) => value.clone(),
            Value::String(text) if is_redacted(text) || text == STARS => value.clone(),
            Value::String(text) if has_key => {
                let json = parse_json_container(text).map(|json| (self.value(&json, true), json));
                match json.filter(|(redacted, json)| redacted != json) {
                    Some((redacted, _)) => redacted.to_string().into(),
                    None => self.text(text).into(),
                }
            }
            Value::Number(number) if has_key => match self.text(number.as_str()) {
                same if same == number.as_str() => value.clone(),
                redacted => redacted.into(),
            },
            // A value without any name may be anything, and counts as secret.
            Value::String(_) | Value::Number(_) => self.key.redacted_value(value).into(),
        }
    }

    /// A pair of name and value in a list of such.
    fn pair(&self, pair: &Value) -> Value {
        match value_of_pair(pair, |name| self.is_secret(name)) {
            Some((name, value)) => Value::Array(vec![name.into(), self.secret_value(value)]),
            None => self.value(pair, true),
        }
    }

    /// An element of a list whose name is the plural of that of a secret: `pins`.
    fn value_in_list_of_secrets(&self, value: &Value) -> Value {
        match value {
            Value::String(_) | Value::Number(_) => self.secret_value(value),
            Value::Object(_) | Value::Array(_) | Value::Null | Value::Bool(_) => self.value(value, true),
        }
    }

    /// What stands in place of a secret value. Lists and maps keep their form, so that a workflow that reads a part of
    /// them goes the same way.
    fn secret_value(&self, value: &Value) -> Value {
        match value {
            Value::Object(members) => {
                let shown = members.iter().map(|(key, value)| {
                    let key = if is_field_name(key) { self.text(key) } else { self.key.redacted(key) };
                    (key, self.secret_value(value))
                });
                Value::Object(with_distinct_keys(shown))
            }
            Value::Array(items) => items.iter().map(|item| self.secret_value(item)).collect(),
            Value::Null => Value::Null,
            Value::String(text) if text == STARS => value.clone(),
            Value::Bool(_) | Value::Number(_) | Value::String(_) => self.key.redacted_value(value).into(),
        }
    }

    /// Redacts headers, and leaves out those that describe the transfer.
    pub fn headers<'h>(&self, headers: impl Iterator<Item = (&'h str, &'h [u8])>) -> Vec<(String, String)> {
        let kept = headers.filter(|(name, _)| !TRANSFER_HEADERS.iter().any(|other| name.eq_ignore_ascii_case(other)));
        kept.map(|(name, value)| (name.to_owned(), self.header(name, value))).collect()
    }

    fn header(&self, name: &str, value: &[u8]) -> String {
        let Ok(value) = std::str::from_utf8(value) else {
            return self.key.redacted(&String::from_utf8_lossy(value));
        };
        let hides = |parts: &dyn SensitiveParts| parts.hides_at(&format!("headers.{}", name.to_ascii_lowercase()));
        // Stars stand in place of what is filled in only when a call is sent; nothing else of such a value is secret.
        if value.contains(STARS) {
            return self.text(value);
        }
        match self.is_secret(name) || self.sensitive.is_some_and(hides) {
            true => self.key.redacted(value),
            false => self.text(value),
        }
    }

    /// Redacts a query or a form.
    pub fn query(&self, query: &str) -> String {
        let parameter = |parameter: &str| {
            let (name, value) = match parameter.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (parameter, None),
            };
            let plain_name = decoded_component(name);
            let shown_name = self.component(name, &plain_name, false);
            match value {
                None => shown_name,
                Some(value) => {
                    let value = self.component(value, &decoded_component(value), self.is_secret(&plain_name));
                    format!("{shown_name}={value}")
                }
            }
        };
        // Some services read `;` like `&`; elsewhere it is part of a value, and stays what it was.
        let parts = query.split_inclusive(['&', ';']).map(|part| {
            let (shown, sign) = part.split_at(part.trim_end_matches(['&', ';']).len());
            format!("{}{sign}", parameter(shown))
        });
        parts.collect()
    }

    /// Redacts a path: its segments, and the parameters of the route's template by name.
    pub fn path(&self, path: &str, params: &[(&str, &str)]) -> String {
        let segment = |segment: &str| {
            let plain = percent_decode_str(segment).decode_utf8_lossy().into_owned();
            self.component(segment, &plain, is_secret_segment(segment, params, |name| self.is_secret(name)))
        };
        path.split('/').map(segment).collect::<Vec<_>>().join("/")
    }

    /// Redacts a component of a URL. Returns it as it was sent if nothing of it is secret.
    fn component(&self, sent: &str, plain: &str, is_secret: bool) -> String {
        let shown = match is_secret && !plain.is_empty() && !plain.contains(STARS) {
            true => self.key.redacted(plain),
            false => self.text(plain),
        };
        if shown == plain { sent.to_owned() } else { utf8_percent_encode(&shown, NON_ALPHANUMERIC).to_string() }
    }

    /// Redacts a whole URL.
    pub fn url(&self, url: &str) -> String {
        let (base, query) = url.split_once('?').map_or((url, None), |(base, query)| (base, Some(query)));
        let (scheme, rest) = base.split_once("://").unwrap_or(("", base));
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let host = authority.rsplit('@').next().unwrap_or_default();
        let scheme = if scheme.is_empty() { String::new() } else { format!("{scheme}://") };
        let query = query.map(|query| format!("?{}", self.query(query))).unwrap_or_default();
        format!("{scheme}{host}{}{query}", self.path(path, &[]))
    }

    /// What stands in place of a whole text or of bytes.
    pub fn opaque(&self, bytes: &[u8]) -> String {
        match std::str::from_utf8(bytes) {
            Ok(text) => self.key.redacted(text),
            Err(_) => self.key.redacted(blake3::hash(bytes).to_hex().as_str()),
        }
    }
}
