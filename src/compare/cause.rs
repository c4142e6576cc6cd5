//! Why two replies have different statuses, as far as the refusals say so.
//!
//! Always true: replies that were refused for the same reason have the same cause, however the texts name the things
//! that the refusal is about; a cause is a hash, so that it shows nothing.

use serde_json::{Map, Value};

use super::observation::Observation;
use super::parsed_body::ParsedBody;

/// The members that tell one refusal from another, the first that a body has.
const CODES: [&str; 8] = ["type", "code", "error_code", "errorCode", "error", "reason", "title", "message"];
/// The longest text that counts.
const TEXT_CHARS_MAX: usize = 200;
/// How deep the members are looked for: `{"error": {"code": …}}`, `{"errors": [{"code": …}]}`.
const DEPTH_MAX: usize = 3;

/// The cause of a difference in status: what each side that refused says, as a text that is equal for equal causes.
/// `None` if no side says anything.
pub(super) fn of_statuses(legacy: (&Observation, &ParsedBody), engine: (&Observation, &ParsedBody)) -> Option<String> {
    let of = |(seen, body): (&Observation, &ParsedBody)| {
        let status = seen.status();
        (status.is_client_error() || status.is_server_error()).then(|| said(body)).flatten()
    };
    match (of(legacy), of(engine)) {
        (None, None) => None,
        (legacy, engine) => Some(format!("{}\0{}", legacy.unwrap_or_default(), engine.unwrap_or_default())),
    }
}

/// What a refusal says.
fn said(body: &ParsedBody) -> Option<String> {
    match body {
        ParsedBody::Json(value, _) => code(value, DEPTH_MAX),
        ParsedBody::Text(text) => text.lines().next().map(without_names),
        ParsedBody::Empty | ParsedBody::Bytes(_) => None,
    }
}

fn code(value: &Value, depth: usize) -> Option<String> {
    let depth = depth.checked_sub(1)?;
    match value {
        Value::Object(members) => of_members(members, depth),
        Value::Array(items) => items.first().and_then(|item| code(item, depth)),
        Value::String(text) => Some(without_names(text)),
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Bool(_) => None,
    }
}

fn of_members(members: &Map<String, Value>, depth: usize) -> Option<String> {
    let code_of = |name: &&str| match members.get(*name)? {
        Value::Number(number) => Some(number.to_string()),
        other => code(other, depth),
    };
    CODES.iter().find_map(code_of).or_else(|| members.get("errors").and_then(|errors| code(errors, depth)))
}

/// A text without what it quotes, and without words that have digits: those name the things that it is about.
fn without_names(text: &str) -> String {
    let mut out = String::new();
    let mut quote = None;
    let mut word = String::new();
    let end_word = |word: &mut String, out: &mut String| {
        out.push_str(if word.contains(|c: char| c.is_ascii_digit()) { "#" } else { word });
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
            None if c.is_alphanumeric() || matches!(c, '_' | '-') => word.push(c),
            None => {
                end_word(&mut word, &mut out);
                out.push(c);
            }
        }
    }
    end_word(&mut word, &mut out);
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::{json_reply, reply, rules};
    use super::super::{Pair, compare};
    use super::*;
    use crate::compare::tests::BOUNDS;

    fn fingerprint(engine: &Observation) -> String {
        let legacy = json_reply(&json!({"id": 1}));
        let request = Value::Null;
        let pair = Pair {
            legacy: &legacy,
            engine,
            request: &request,
            effects: None,
            instance: None,
            stale_reads: false,
            sensitive: None,
        };
        compare(&pair, &rules(json!({})), &BOUNDS, &|| false).unwrap().fingerprint
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
}
