//! Learns the secrets of one pair from all its parts, so that they are found wherever else the pair quotes them.
//!
//! The question it answers: "which values must not be shown, although nothing beside them says so?" A value is a secret
//! if its name says so (of a header, a parameter, a key), or if the files declare it (`redact:`), by a name or a
//! JSONPath.
//!
//! Always true: samples and captures learn from the same kinds of parts, because both use [`quoted_secrets`]. First the
//! parameters, the query and all heads are read, then the bodies of replies, then those of requests: so a caller cannot
//! fill the set before the secrets of others are in it. If there are more than the set holds, no text may be shown
//! ([`QuotedSecrets::is_full`]).
//!
//! Not learned is what would be found in texts by chance: short values, and, unless the files declare them, words,
//! kinds of tokens and the attributes of cookies.

use std::borrow::Cow;

use bytes::Bytes;
use http::HeaderMap;
use serde_json::Value;

use super::bounds::CompareBounds;
use super::multipart;
use super::observation::Body;
use super::pair_parts::{MessageBody, PairMessage, PairParts};
use super::parsed_body::ParsedBody;
use super::secret_lines::{SecretLine, SecretLines};
use super::secret_source::{SecretSource, is_kind_of_token};
use super::structure::values_of_text;
use crate::secret::{
    Detectors, FoundSecret, QuotedSecrets, RedactRules, USER_INFO, are_name_value_pairs, decoded_component,
    has_alternating_names, is_children_order, is_weakly_secret, parse_json_container, private_key_items,
    replace_secrets, secret_name_before_value, singular, value_of_pair, values_of_secrets,
};

/// The secrets of a pair: what its names, or these rules, say is secret. If the time is over before all parts are read,
/// or there are more secrets than the set holds, the secrets are unknown, and no text may be shown.
pub fn quoted_secrets(
    rules: &RedactRules,
    parts: PairParts<'_>,
    bounds: &CompareBounds,
    expired: &dyn Fn() -> bool,
) -> QuotedSecrets {
    let mut learning = Learning { rules, bounds, expired, quoted: QuotedSecrets::default() };
    for (name, value) in parts.params {
        learning.named(name, value);
    }
    learning.query(parts.query.unwrap_or_default());
    let messages = parts.messages();
    for message in &messages {
        learning.query(message.url.split_once('?').map_or("", |(_, query)| query));
        learning.headers(&message.headers);
    }
    let (replies, requests): (Vec<_>, Vec<_>) = messages.iter().partition(|message| message.is_reply);
    replies.into_iter().chain(requests).for_each(|message| learning.body(message));
    learning.quoted
}

struct Learning<'a> {
    rules: &'a RedactRules,
    bounds: &'a CompareBounds,
    expired: &'a dyn Fn() -> bool,
    quoted: QuotedSecrets,
}

impl Learning<'_> {
    /// Whether nothing more is to be read.
    fn has_ended(&mut self) -> bool {
        if !self.quoted.is_full() && (self.expired)() {
            self.quoted = QuotedSecrets::of_unknown();
        }
        self.quoted.is_full()
    }

    fn source_of(&self, name: &str) -> Option<SecretSource> {
        SecretSource::of_name(name, self.rules)
    }

    fn add(&mut self, secret: &str, source: SecretSource) {
        if source.is_searched_in_texts(secret) {
            self.quoted.add(secret);
        }
    }

    fn named(&mut self, name: &str, value: &str) {
        if let Some(source) = self.source_of(name) {
            self.add(value, source);
        }
    }

    /// A query. A value of which the name tells nothing may be a text with secrets.
    fn query(&mut self, query: &str) {
        for (name, value) in query.split(['&', ';']).filter_map(|parameter| parameter.split_once('=')) {
            let (name, value) = (decoded_component(name), decoded_component(value));
            match self.source_of(&name) {
                Some(source) => self.add(&value, source),
                None => self.text(&value),
            }
        }
    }

    /// A text that may have secrets, in whatever format it names them.
    fn text(&mut self, text: &str) {
        let mut found = Vec::new();
        let mut note = |FoundSecret { name, value, is_line }: FoundSecret<'_>| {
            found.push((name.to_owned(), value.to_owned(), is_line));
            None
        };
        replace_secrets(text, &|name| self.source_of(name).is_some(), Detectors::default(), &mut note);
        found.extend(self.on_next_lines(text));
        for (name, value, is_line) in found {
            match (name == USER_INFO, is_line) {
                (true, _) => {
                    let password = value.split_once(':').map_or(&*value, |(_, password)| password);
                    self.add(password, SecretSource::PasswordName);
                }
                // Not learned: after such a name an ordinary sentence may follow.
                (false, true) if is_weakly_secret(&name) => {}
                (false, true) => {
                    self.named(&name, &value);
                    // The first word alone too: a sentence may go on after the secret. One without a digit is an
                    // ordinary word.
                    let first = value.split_whitespace().next().unwrap_or_default().trim_end_matches([',', ';', '.']);
                    if first.bytes().any(|byte| byte.is_ascii_digit()) {
                        self.named(&name, first);
                    }
                }
                (false, false) => self.named(&name, &value),
            }
        }
    }

    /// The values that stand on the lines after their names, each with its name.
    fn on_next_lines(&self, text: &str) -> Vec<(String, String, bool)> {
        if !text.contains('\n') {
            return Vec::new();
        }
        let is_secret = |name: &str| self.source_of(name).is_some();
        let mut lines = SecretLines::of(&is_secret);
        let value = |line: &str| {
            let SecretLine { name, is_assigned } = lines.next(line)?;
            let (name, line) = (name?, line.split_once('=').filter(|_| is_assigned).map_or(line, |(_, value)| value));
            let item = line.trim().trim_start_matches("- ");
            Some((name, item.trim_matches(['"', '\'', ',', ' ']).to_owned(), true))
        };
        text.lines().filter_map(value).collect()
    }

    /// Headers. If the name is secret: the whole value, the credentials after its scheme, and each cookie's value
    /// without its attributes. Otherwise: the parameters of URLs in it, and secrets that the value itself names.
    fn headers(&mut self, headers: &HeaderMap) {
        for (name, value) in headers {
            let Ok(value) = std::str::from_utf8(value.as_bytes()) else { continue };
            let Some(source) = self.source_of(name.as_str()) else {
                // A URL: `location`, `link`.
                value.split(['?', '#', '<', '>']).for_each(|part| self.query(part));
                self.text(value);
                continue;
            };
            self.add(value, source);
            let cookies = match name.as_str() {
                name if name.starts_with("set-cookie") => 1,
                name if name.contains("cookie") => usize::MAX,
                _ => 0,
            };
            for (_, cookie) in value.split(';').take(cookies).filter_map(|part| part.split_once('=')) {
                self.add(cookie.trim(), source);
            }
            if let Some((_, credentials)) = value.split_once(' ').filter(|_| cookies == 0) {
                self.add(credentials.trim(), source);
            }
        }
    }

    fn body(&mut self, message: &PairMessage<'_>) {
        match &message.body {
            _ if self.has_ended() => {}
            MessageBody::Sent(body) => self.sent_body(&message.headers, body),
            // A body that was recorded as a text: read by its type, like one that was sent.
            MessageBody::Value(Value::String(text)) => {
                self.sent_body(&message.headers, &Body::Whole(Bytes::copy_from_slice(text.as_bytes())));
            }
            MessageBody::Value(value) => {
                self.document(value);
                self.paths_below(value);
            }
        }
    }

    fn sent_body(&mut self, headers: &HeaderMap, body: &Body) {
        let text = match ParsedBody::of_parts(headers, body, self.bounds) {
            Ok(ParsedBody::Json(value, _)) => return self.document(&value),
            Ok(ParsedBody::Text(text) | ParsedBody::NotJson(text)) => Cow::Owned(text),
            Ok(ParsedBody::Bytes(bytes)) => match multipart::document(headers, &bytes, self.bounds) {
                Ok(Some(parts)) => return self.parts(&parts),
                Ok(None) | Err(_) => String::from_utf8(bytes.to_vec()).map_or(Cow::Borrowed(""), Cow::Owned),
            },
            // Of a body that cannot be read within the bounds, nothing is shown either.
            Ok(ParsedBody::Empty) | Err(_) => return,
        };
        match values_of_text(headers, &text, self.bounds).or_else(|| parse_json_container(&text)) {
            Some(document) => self.document(&document),
            None => self.text(&text),
        }
    }

    /// A body of several parts. A JSONPath may name a part, or what is in its body as rules of `compare:` do.
    fn parts(&mut self, parts: &Value) {
        self.document(&multipart::bodies(parts));
        for pointer in self.rules.located_in(parts).iter().filter(|pointer| pointer.contains("/body")) {
            parts.pointer(pointer).into_iter().for_each(|located| self.values(located, Some(SecretSource::Rules)));
        }
    }

    /// A body, read by its type.
    fn document(&mut self, document: &Value) {
        self.paths(document);
        self.values(document, None);
    }

    /// What the JSONPaths locate in a document.
    fn paths(&mut self, document: &Value) {
        for pointer in self.rules.located_in(document) {
            if let Some(located) = document.pointer(&pointer) {
                self.values(located, Some(SecretSource::Rules));
            }
        }
    }

    /// What the JSONPaths locate in the parts of a value.
    fn paths_below(&mut self, value: &Value) {
        let parts: Box<dyn Iterator<Item = &Value>> = match value {
            Value::Object(members) => Box::new(members.values()),
            Value::Array(items) => Box::new(items.iter()),
            Value::String(_) | Value::Number(_) | Value::Null | Value::Bool(_) => return,
        };
        for part in parts.filter(|part| part.is_object() || part.is_array()) {
            self.paths(part);
            self.paths_below(part);
        }
    }

    /// Adds the texts and numbers in a value that are declared secret; `source`: what declares the whole value.
    fn values(&mut self, value: &Value, source: Option<SecretSource>) {
        if self.has_ended() {
            return;
        }
        match value {
            Value::Object(members) => {
                let (rules, told) = (self.rules, |name: &str| SecretSource::of_name(name, self.rules));
                let declared = values_of_secrets(members, |name| rules.has_name(name));
                let named = values_of_secrets(members, |name| told(name).is_some());
                let of = |is_declared: bool, is_named: bool| match (is_declared, is_named) {
                    (true, _) => Some(SecretSource::Rules),
                    (false, true) => Some(SecretSource::Name),
                    (false, false) => None,
                };
                let of_pair = |key: &str| of(declared.is_whole(key), named.is_whole(key));
                let of_item = |key: &str, n: usize| of(declared.is_item(key, n), named.is_item(key, n));
                // The member that lists the order of an element's children is no value.
                for (key, value) in members.iter().filter(|(key, _)| !is_children_order(members, key)) {
                    let of_member = source.max(self.source_of(key)).max(of_pair(key));
                    let of_each = singular(key).and_then(|name| self.source_of(name));
                    match value {
                        Value::Array(items) if of_member.is_none() && named.has_items(key) => {
                            items.iter().enumerate().for_each(|(n, item)| self.values(item, of_item(key, n)));
                        }
                        Value::Array(items) if of_member.is_none() && of_each.is_some() => {
                            for item in items {
                                let is_value = matches!(item, Value::String(_) | Value::Number(_));
                                self.values(item, of_each.filter(|_| is_value));
                            }
                        }
                        value if of_member == Some(SecretSource::Rules) || !is_kind_of_token(key) => {
                            self.values(value, of_member);
                        }
                        _ => {}
                    }
                }
            }
            Value::Array(items) if source.is_none() => {
                let parts = private_key_items(items).unwrap_or_default();
                let of_keys = items.iter().zip(&parts).filter(|(_, is_part)| **is_part);
                of_keys.for_each(|(item, _)| self.values(item, Some(SecretSource::Name)));
                self.list(items);
            }
            Value::Array(items) => items.iter().for_each(|item| self.values(item, source)),
            Value::String(text) => match source {
                Some(source) => self.add(text, source),
                None => match parse_json_container(text) {
                    Some(json) => self.document(&json),
                    None => self.text(text),
                },
            },
            Value::Number(number) => source.into_iter().for_each(|source| self.add(number.as_str(), source)),
            Value::Null | Value::Bool(_) => {}
        }
    }

    /// A list that no name says to be secret: one of pairs, one in which names and values alternate, or another one.
    fn list(&mut self, items: &[Value]) {
        if are_name_value_pairs(items) {
            for pair in items {
                match value_of_pair(pair, |name| self.source_of(name).is_some()) {
                    Some((name, value)) => self.values(value, self.source_of(name.trim_start_matches('-'))),
                    None => self.values(pair, None),
                }
            }
        } else if has_alternating_names(items) {
            for pair in items.chunks_exact(2) {
                let name = secret_name_before_value(&pair[0], |name| self.source_of(name).is_some());
                self.values(&pair[1], name.and_then(|name| self.source_of(name.trim_start_matches('-'))));
                self.values(&pair[0], None);
            }
        } else {
            items.iter().for_each(|item| self.values(item, None));
        }
    }
}
