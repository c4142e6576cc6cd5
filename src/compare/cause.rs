//! Why two replies differ, as far as refusals (4xx, 5xx) among them say so.
//!
//! Always true: replies that were refused for the same reason have the same cause, however the texts name the things
//! that the refusal is about, so that the number of causes does not grow with the number of callers and orders; of a
//! cause only a hash is kept, which shows nothing.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::pair::Pair;
use super::parsed_body::ParsedBody;

/// The members that tell one refusal from another. Of those that a body has, the first one counts.
const CODES: [&str; 8] = ["type", "code", "error_code", "errorCode", "error", "reason", "title", "message"];
/// The most characters of a text that count.
const TEXT_CHARS_MAX: usize = 200;
/// How deep the members are looked for: `{"error": {"code": …}}`, `{"errors": [{"code": …}]}`.
const DEPTH_MAX: usize = 3;

/// The parts of a request that may name the things that a refusal is about.
const NAMING_PARTS: [&str; 4] = ["path", "params", "query", "body"];
/// The most words of a request that are looked for in a refusal.
const REQUEST_WORDS_MAX: usize = 1_000;

/// What each side that refused says, as a text that is equal for equal causes. `None` if no side says anything.
pub(super) fn of_refusals(pair: &Pair<'_>, legacy: &ParsedBody, engine: &ParsedBody) -> Option<String> {
    let names = Names::of_request(pair.request);
    let is_refusal = |status: http::StatusCode| status.is_client_error() || status.is_server_error();
    let legacy = is_refusal(pair.legacy.status()).then(|| names.cause_in(legacy)).flatten();
    let engine = is_refusal(pair.engine.status()).then(|| names.cause_in(engine)).flatten();
    match (legacy, engine) {
        (None, None) => None,
        (legacy, engine) => Some(format!("{}\0{}", legacy.unwrap_or_default(), engine.unwrap_or_default())),
    }
}

/// The words of a request: in a refusal they name the things that it is about.
struct Names<'r>(HashSet<&'r str>);

impl<'r> Names<'r> {
    fn of_request(request: &'r Value) -> Self {
        let mut words = HashSet::new();
        NAMING_PARTS.iter().filter_map(|part| request.get(*part)).for_each(|part| add_words(part, &mut words));
        Self(words)
    }

    /// What a refusal says of its cause; `None` if it says nothing.
    fn cause_in(&self, body: &ParsedBody) -> Option<String> {
        match body {
            ParsedBody::Json(value, _) => self.code(value, DEPTH_MAX),
            ParsedBody::Text(text) | ParsedBody::NotJson(text) => {
                text.lines().next().map(|line| self.without_names(line))
            }
            ParsedBody::Empty | ParsedBody::Bytes(_) => None,
        }
    }

    fn code(&self, value: &Value, depth: usize) -> Option<String> {
        let depth = depth.checked_sub(1)?;
        match value {
            Value::Object(members) => self.of_members(members, depth),
            Value::Array(items) => items.first().and_then(|item| self.code(item, depth)),
            Value::String(text) => Some(self.without_names(text)),
            Value::Number(number) => Some(number.to_string()),
            Value::Null | Value::Bool(_) => None,
        }
    }

    fn of_members(&self, members: &Map<String, Value>, depth: usize) -> Option<String> {
        let code_of = |name: &&str| match members.get(*name)? {
            Value::Number(number) => Some(number.to_string()),
            other => self.code(other, depth),
        };
        CODES.iter().find_map(code_of).or_else(|| members.get("errors").and_then(|errors| self.code(errors, depth)))
    }

    /// Removes quoted texts, words with digits and, of a sentence, words of the request: they name what the refusal is
    /// about.
    fn without_names(&self, text: &str) -> String {
        let mut out = String::new();
        let mut quote = None;
        let mut word = String::new();
        let is_sentence = text.contains(' ');
        let end_word = |word: &mut String, out: &mut String| {
            let is_name = word.contains(|c: char| c.is_ascii_digit()) || is_sentence && self.0.contains(word.as_str());
            out.push_str(if is_name { "#" } else { word });
            word.clear();
        };
        for c in text.chars().take(TEXT_CHARS_MAX) {
            match quote {
                Some(open) if c == open => quote = None,
                Some(_) => {}
                None if matches!(c, '"' | '`') || c == '\'' && word.is_empty() => {
                    end_word(&mut word, &mut out);
                    quote = Some(c);
                }
                None if is_word_char(c) => word.push(c),
                None => {
                    end_word(&mut word, &mut out);
                    out.push(c);
                }
            }
        }
        end_word(&mut word, &mut out);
        out
    }
}

fn is_word_char(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '-')
}

/// Adds the words of the texts in a value. Recursion is bounded by the depth of the request's body.
fn add_words<'v>(value: &'v Value, words: &mut HashSet<&'v str>) {
    match value {
        Value::Object(members) => members.values().for_each(|member| add_words(member, words)),
        Value::Array(items) => items.iter().for_each(|item| add_words(item, words)),
        Value::String(text) => {
            let new = text.split(|c| !is_word_char(c)).filter(|word| !word.is_empty());
            words.extend(new.take(REQUEST_WORDS_MAX.saturating_sub(words.len())));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::{json_reply, reply, rules};
    use super::super::{Observation, compare};
    use super::*;
    use crate::compare::tests::BOUNDS;

    fn fingerprint_of(legacy: &Observation, engine: &Observation, request: &Value) -> String {
        let pair = Pair { legacy, engine, request, effects: None, instance: None, stale_reads: false, sensitive: None };
        compare(&pair, &rules(json!({})), &BOUNDS, &|| false).unwrap().fingerprint
    }

    fn fingerprint(engine: &Observation) -> String {
        fingerprint_of(&json_reply(&json!({"id": 1})), engine, &Value::Null)
    }

    fn refusal(status: u16, body: &Value) -> Observation {
        reply(status, &[("content-type", "application/json")], body.to_string())
    }

    #[test]
    fn two_refusals_with_one_status_are_two_groups() {
        let of = |body: Value| fingerprint(&reply(422, &[("content-type", "application/json")], body.to_string()));
        let stock = of(json!({"type": "urn:out-of-stock", "detail": "no A-17"}));
        assert_eq!(stock, of(json!({"type": "urn:out-of-stock", "detail": "no B-9"})));
        assert_ne!(stock, of(json!({"type": "urn:card-refused", "detail": "no A-17"})));
        let nested = of(json!({"error": {"code": 17, "message": "x"}}));
        assert_ne!(nested, of(json!({"error": {"code": 18, "message": "x"}})));
        assert_eq!(of(json!({"errors": [{"code": "A"}, {"code": "B"}]})), of(json!({"errors": [{"code": "A"}]})));
        let said = |text: &str| fingerprint(&reply(500, &[("content-type", "text/plain")], text.to_owned()));
        assert_eq!(said("order 17 of 'ada' is gone"), said("order 4-b of 'bob' is gone"));
        assert_ne!(said("order 17 is gone"), said("order 17 is paid"));
        // Without a refusal nothing but the places counts.
        assert_eq!(fingerprint(&reply(202, &[], "x")), fingerprint(&reply(203, &[], "y")));
    }

    #[test]
    fn two_bodies_of_refusals_with_the_same_status_are_two_groups() {
        let of = |legacy: &Value, engine: &Value, request: &Value| {
            fingerprint_of(&refusal(402, legacy), &refusal(402, engine), request)
        };
        let other = json!({"error": "other"});
        let groups: HashSet<_> = ["declined", "expired", "fraud"]
            .map(|error| of(&json!({ "error": error }), &other, &Value::Null))
            .into_iter()
            .collect();
        assert_eq!(groups.len(), 3);
        // The number of groups does not grow with that of customers.
        let missing = |name: &str| {
            let legacy = json!({ "message": format!("no customer {name} here") });
            of(&legacy, &json!({"message": "unknown"}), &json!({"method": "GET", "params": { "name": name }}))
        };
        assert_eq!(missing("ada"), missing("bob"));
        // What refusals with equal bodies say is not why the calls of their pair differ.
        let (a, b) = (refusal(402, &other), refusal(402, &json!({"error": "declined"})));
        assert_eq!(fingerprint_of(&a, &a, &Value::Null), fingerprint_of(&b, &b, &Value::Null));
    }
}
