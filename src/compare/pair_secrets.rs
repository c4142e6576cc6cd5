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
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;

use super::bounds::CompareBounds;
use super::capture::AnsweredRead;
use super::effect::{Effect, EffectReply};
use super::markup_secrets::named_secrets;
use super::multipart;
use super::observation::{Body, Intent, Observation};
use super::parsed_body::ParsedBody;
use super::secret_forms::{decoded_component, json_of, value_of_secret};
use super::structure::values_of_text;
use crate::secret::{QuotedSecrets, REDACTED, RedactRules, STARS, is_secret};

/// A shorter value that the files declare as secret is hidden only where it stands.
const DECLARED_BYTES_MIN: usize = 4;
/// The same for a value of which only a built-in name says that it is secret.
const NAMED_BYTES_MIN: usize = 6;
/// A value of nothing but letters, of which only a built-in name says that it is secret, is a word if it has fewer:
/// `{"auth": "required"}`.
const NAMED_LETTERS_MIN: usize = 12;
/// How the names of values end, as letters in lower case, that say of which kind a secret is: `token_type`,
/// `issued_token_type`.
const KIND_OF_TOKEN: &str = "tokentype";
/// What the names of passwords contain, as letters in lower case.
const PASSWORDS: [&str; 4] = ["passw", "passphrase", "pwd", "secret"];

/// The parts of one pair.
pub struct PairParts<'a> {
    /// The parameters of the route's template.
    pub params: &'a [(Arc<str>, String)],
    /// The query of the request.
    pub query: Option<&'a str>,
    /// The headers of the request.
    pub headers: &'a HeaderMap,
    /// The body of the request.
    pub body: &'a Body,
    /// What legacy answered.
    pub legacy: &'a Observation,
    /// What the engine answered, where that is shown.
    pub engine: Option<&'a Observation>,
    /// Of a follow-up: what the run knew of its instance.
    pub instance: Option<&'a Value>,
    /// What the reads of the run asked and were answered.
    pub reads: &'a [AnsweredRead],
    /// What the run would have sent.
    pub intents: &'a [Intent],
    /// The calls that legacy made.
    pub effects: &'a [Arc<Effect>],
    /// What the events of the run show, where these are shown.
    pub recorded: Vec<PairMessage<'a>>,
}

/// A message of a pair, or another document in it.
pub struct PairMessage<'a> {
    /// The URL of a request; empty if there is none.
    pub url: &'a str,
    /// The headers.
    pub headers: Cow<'a, HeaderMap>,
    /// The body.
    pub body: MessageBody<'a>,
    /// Whether it is a reply: the bodies of replies are read first.
    pub is_reply: bool,
}

/// The body of a message.
pub enum MessageBody<'a> {
    /// As it was sent.
    Sent(Body),
    /// A value that holds documents, each of which may be one to which the JSONPaths of `redact:` apply.
    Value(&'a Value),
}

impl<'a> PairMessage<'a> {
    /// A document that is no message.
    pub fn document(value: &'a Value) -> Self {
        Self { url: "", headers: Cow::Owned(HeaderMap::new()), body: MessageBody::Value(value), is_reply: false }
    }
    fn sent(url: &'a str, headers: &'a HeaderMap, body: &Body) -> Self {
        Self { url, headers: Cow::Borrowed(headers), body: MessageBody::Sent(body.clone()), is_reply: false }
    }
    fn answered(observation: &'a Observation) -> Self {
        Self { is_reply: true, ..Self::sent("", observation.headers(), observation.body()) }
    }
    fn reply(reply: &'a EffectReply) -> Self {
        Self { is_reply: true, ..Self::sent("", &reply.headers, &reply.body) }
    }
    fn intent(intent: &'a Intent) -> Self {
        let body = MessageBody::Sent(Body::Whole(body_of(intent)));
        Self { url: &intent.url, headers: Cow::Owned(headers_of(&intent.headers)), body, is_reply: false }
    }
}

impl<'a> PairParts<'a> {
    fn messages(self) -> Vec<PairMessage<'a>> {
        let mut messages = vec![PairMessage::answered(self.legacy)];
        messages.extend(self.engine.map(PairMessage::answered));
        messages.push(PairMessage::sent("", self.headers, self.body));
        let of_instance = |name| self.instance.and_then(|instance| instance.get(name)).map(PairMessage::document);
        messages.extend(of_instance("output").map(|output| PairMessage { is_reply: true, ..output }));
        messages.extend(of_instance("input"));
        for AnsweredRead { asked, reply } in self.reads {
            messages.push(PairMessage::intent(asked));
            messages.extend(reply.as_ref().map(PairMessage::reply));
        }
        messages.extend(self.intents.iter().map(PairMessage::intent));
        for effect in self.effects {
            messages.push(PairMessage::sent(&effect.url, &effect.headers, &effect.body));
            messages.extend(effect.reply.as_ref().map(PairMessage::reply));
        }
        messages.extend(self.recorded);
        messages
    }
}

/// The secrets of a pair: what its names, or these rules, say is secret.
pub fn quoted_secrets(rules: &RedactRules, parts: PairParts<'_>, bounds: &CompareBounds) -> QuotedSecrets {
    let mut learning = Learning { rules, bounds, quoted: QuotedSecrets::default() };
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

/// Headers by name and value; those that are none in HTTP are left out.
pub fn headers_of<N: AsRef<str>, V: AsRef<str>>(fields: &[(N, V)]) -> HeaderMap {
    let field = |(name, value): &(N, V)| {
        let name = HeaderName::from_bytes(name.as_ref().as_bytes()).ok()?;
        Some((name, HeaderValue::from_bytes(value.as_ref().as_bytes()).ok()?))
    };
    fields.iter().filter_map(field).fold(HeaderMap::new(), |mut headers, (name, value)| {
        headers.append(name, value);
        headers
    })
}

/// The body of an intent as it would have been sent.
pub(super) fn body_of(intent: &Intent) -> Bytes {
    match (&intent.bytes, &intent.body) {
        (Some(bytes), _) => bytes.clone(),
        (None, Value::Null) => Bytes::new(),
        (None, Value::String(text)) => text.clone().into(),
        (None, value) => value.to_string().into(),
    }
}

/// What declares a value secret.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum ToldBy {
    /// Only its name, by what is built in.
    Name,
    /// Only its name too, which is that of a password: words are passwords.
    PasswordName,
    /// The files.
    Rules,
}

struct Learning<'a> {
    rules: &'a RedactRules,
    bounds: &'a CompareBounds,
    quoted: QuotedSecrets,
}

impl Learning<'_> {
    /// Who says that the value under this name is secret; `None`: nobody.
    fn told_by(&self, name: &str) -> Option<ToldBy> {
        match self.rules.has_name(name) {
            true => Some(ToldBy::Rules),
            false if is_secret(name) && is_password(name) => Some(ToldBy::PasswordName),
            false => (is_secret(name) && !is_kind_of_token(name)).then_some(ToldBy::Name),
        }
    }

    fn add(&mut self, secret: &str, told_by: ToldBy) {
        // Where the whole secret is hidden already, what stands beside the stars is none: `Bearer ***`.
        let shown = secret.replace(STARS, "");
        let shown = shown.trim();
        let is_word = || shown.chars().all(char::is_alphabetic) && shown.chars().count() < NAMED_LETTERS_MIN;
        let is_learned = match told_by {
            ToldBy::Rules => shown.len() >= DECLARED_BYTES_MIN,
            ToldBy::Name => shown.len() >= NAMED_BYTES_MIN && !is_word(),
            ToldBy::PasswordName => shown.len() >= NAMED_BYTES_MIN,
        };
        if is_learned && !shown.contains(REDACTED) {
            self.quoted.add(secret);
        }
    }

    fn named(&mut self, name: &str, value: &str) {
        if let Some(told_by) = self.told_by(name) {
            self.add(value, told_by);
        }
    }

    /// A query.
    fn query(&mut self, query: &str) {
        for (name, value) in query.split('&').filter_map(|parameter| parameter.split_once('=')) {
            self.named(&decoded_component(name), &decoded_component(value));
        }
    }

    /// Headers: the whole value, the credentials behind its scheme, and each cookie's value without its attributes; of
    /// one whose name is no secret, the parameters of URLs.
    fn headers(&mut self, headers: &HeaderMap) {
        for (name, value) in headers {
            let Ok(value) = std::str::from_utf8(value.as_bytes()) else { continue };
            let Some(told_by) = self.told_by(name.as_str()) else {
                // A URL: `location`, `link`.
                value.split(['?', '#', '<', '>']).for_each(|part| self.query(part));
                continue;
            };
            self.add(value, told_by);
            let cookies = match name.as_str() {
                name if name.starts_with("set-cookie") => 1,
                name if name.contains("cookie") => usize::MAX,
                _ => 0,
            };
            for (_, cookie) in value.split(';').take(cookies).filter_map(|part| part.split_once('=')) {
                self.add(cookie.trim(), told_by);
            }
            if let Some((_, credentials)) = value.split_once(' ').filter(|_| cookies == 0) {
                self.add(credentials.trim(), told_by);
            }
        }
    }

    fn body(&mut self, message: &PairMessage<'_>) {
        match &message.body {
            MessageBody::Sent(body) => self.sent_body(&message.headers, body),
            // A text is what a body of that type was read as.
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
            Ok(ParsedBody::Text(text)) => Cow::Owned(text),
            Ok(ParsedBody::Bytes(bytes)) => match multipart::document(headers, &bytes, self.bounds) {
                Ok(Some(parts)) => return self.parts(&parts),
                Ok(None) | Err(_) => String::from_utf8(bytes.to_vec()).map_or(Cow::Borrowed(""), Cow::Owned),
            },
            // Of a body that cannot be read within the bounds, nothing is shown either.
            Ok(ParsedBody::Empty) | Err(_) => return,
        };
        match values_of_text(headers, &text, self.bounds).or_else(|| json_of(&text)) {
            Some(document) => self.document(&document),
            None => self.markup(&text),
        }
    }

    /// XML or HTML that has no document, or is quoted in a text.
    fn markup(&mut self, text: &str) {
        let named = named_secrets(text, &|name| self.told_by(name).is_some());
        for (name, content) in named {
            self.named(name.rsplit(':').next().unwrap_or(name), &content);
        }
    }

    /// A body of several parts. A JSONPath may name a part, or what is in its body as rules of `compare:` do.
    fn parts(&mut self, parts: &Value) {
        self.document(&multipart::bodies(parts));
        for pointer in self.rules.located_in(parts).iter().filter(|pointer| pointer.contains("/body")) {
            parts.pointer(pointer).into_iter().for_each(|located| self.values(located, Some(ToldBy::Rules)));
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
                self.values(located, Some(ToldBy::Rules));
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

    /// Adds the texts and numbers in a value that are declared secret; `told_by`: what declares the whole value.
    fn values(&mut self, value: &Value, told_by: Option<ToldBy>) {
        match value {
            Value::Object(members) => {
                let declared = value_of_secret(members, |name| self.rules.has_name(name));
                let named = value_of_secret(members, |name| self.told_by(name).is_some());
                let of_pair = |key: &str| match (declared == Some(key), named == Some(key)) {
                    (true, _) => Some(ToldBy::Rules),
                    (false, true) => Some(ToldBy::Name),
                    (false, false) => None,
                };
                for (key, value) in members {
                    let of_member = told_by.max(self.told_by(key)).max(of_pair(key));
                    if of_member == Some(ToldBy::Rules) || !is_kind_of_token(key) {
                        self.values(value, of_member);
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| self.values(item, told_by)),
            Value::String(text) => match told_by {
                Some(told_by) => self.add(text, told_by),
                None => match json_of(text) {
                    Some(json) => self.document(&json),
                    None => self.markup(text),
                },
            },
            Value::Number(number) => told_by.into_iter().for_each(|told_by| self.add(number.as_str(), told_by)),
            Value::Null | Value::Bool(_) => {}
        }
    }
}

/// Whether a name is that of a kind of tokens, which is no secret: `token_type`.
fn is_kind_of_token(name: &str) -> bool {
    plain(name).ends_with(KIND_OF_TOKEN)
}

/// Whether a secret name is that of a password.
fn is_password(name: &str) -> bool {
    let plain = plain(name);
    PASSWORDS.iter().any(|word| plain.contains(word))
}

fn plain(name: &str) -> String {
    name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}
