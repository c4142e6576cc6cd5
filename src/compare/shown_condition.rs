//! What is shown and kept of the conditions of rules (`when:`, `assert:`): their text. One that may compare with a
//! secret is shown and kept without its literals.

use std::borrow::Cow;

use serde_json::Value;

use super::draft::RulesDraft;
use super::rules::Rules;
use crate::expression::{Expression, without_literals};
use crate::secret::{RedactRules, STARS};

/// What is shown of the text of a condition.
pub(super) fn shown<'a>(source: &'a str, redact: &RedactRules) -> Cow<'a, str> {
    match may_hold_secret(source, redact) {
        true => Cow::Owned(without_literals(source)),
        false => Cow::Borrowed(source),
    }
}

/// Whether a literal of the text may be a secret: it looks like one, or the expression reads what may be secret.
fn may_hold_secret(source: &str, redact: &RedactRules) -> bool {
    let mut names =
        source.split(|c: char| !c.is_alphanumeric() && c != '-' && c != '_').filter(|name| !name.is_empty());
    if names.any(|name| redact.is_secret(name)) || redact.finds_secret_in(source) {
        return true;
    }
    let expression = source.trim().strip_prefix("${").and_then(|text| text.strip_suffix('}')).unwrap_or(source);
    // A text that does not parse may read anything.
    let Ok(expression) = Expression::parse(expression) else { return true };
    expression.reads().iter().any(|read| {
        let last = read.0.last().map_or("", |last| last);
        // It reads all of them, or one whose name is computed.
        let is_any_name = ["headers", "query", "params"].contains(&last);
        is_any_name || redact.has_paths() && read.0.iter().any(|part| &**part == "body")
    })
}

impl Rules {
    /// The rules as JSON, as they were written, but for the literals of conditions that may be secret.
    pub fn shown_draft(&self) -> String {
        let mut draft = serde_json::to_value(self.draft()).unwrap_or_default();
        mask(&mut draft, self.texts.redact());
        draft.to_string()
    }
}

impl RulesDraft {
    /// The draft that [`Rules::shown_draft`] wrote; `None` if something is masked in it, so that it is not known what
    /// the rules say, or if it is no draft.
    pub fn of_shown(json: &str) -> Option<Self> {
        serde_json::from_str(json).ok().filter(|_| !json.contains(STARS))
    }
}

fn mask(value: &mut Value, redact: &RedactRules) {
    match value {
        Value::Object(members) => members.values_mut().for_each(|value| mask(value, redact)),
        Value::Array(items) => items.iter_mut().for_each(|item| mask(item, redact)),
        Value::String(text) if text.trim_start().starts_with("${") => {
            if let Cow::Owned(masked) = shown(text, redact) {
                *text = masked;
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::compare::CompareContext;
    use crate::problem::{Problems, Site};
    use crate::secret::Detectors;

    fn redact() -> RedactRules {
        RedactRules::new(["x-staff".to_owned()], Vec::new(), Detectors::default())
    }

    #[test]
    fn literals_are_masked_where_the_condition_may_compare_with_a_secret() {
        for (source, expected) in [
            (r#"request.headers["x-api-key"] == "k3y""#, r#"request.headers["x-api-key"] == "***""#),
            (r#"request.headers["x-staff"] == "k3y""#, r#"request.headers["x-staff"] == "***""#),
            (r#"legacy.body.users[0].password == "k3y""#, r#"legacy.body.users[0].password == "***""#),
            (r#"request.headers.exists(h, h == "k3y")"#, r#"request.headers.exists(h, h == "***")"#),
            (r#"request.headers["x-a"] == "Bearer sk12345secret9""#, r#"request.headers["x-a"] == "***""#),
            (r#"request.query.kind == "gift""#, r#"request.query.kind == "gift""#),
            ("legacy.status < 400", "legacy.status < 400"),
            ("${intents.charge.body.amount == 7}", "${intents.charge.body.amount == 7}"),
        ] {
            assert_eq!(shown(source, &redact()), expected);
        }
        let of_paths = redact().and(&RedactRules::new([], vec!["$.iban".parse().unwrap()], Detectors::default()));
        assert_eq!(shown(r#"request.body.iban == "k3y""#, &of_paths), r#"request.body.iban == "***""#);
        assert_eq!(shown("legacy.status < 400", &of_paths), "legacy.status < 400");
    }

    #[test]
    fn neither_the_texts_of_rules_nor_their_draft_have_a_secret() {
        let secret = r#"${request.headers["x-staff"] == "k3y"}"#;
        let draft = json!({
            "ignore": [{ "path": "$.a", "when": secret }, { "path": "$.b", "when": "${legacy.status < 400}" }],
            "ids": [{ "path": "$.id", "when": secret }],
            "tolerance": { "$.t": { "by": 1, "when": secret } },
            "unordered": { "$.u": { "by": "set", "when": secret } },
            "assert": [
                r#"${request.headers["x-staff"] != "k3y" || legacy.body.a == engine.body.a}"#,
                { "that": "${legacy.body.a == engine.body.a}", "when": secret },
            ],
        });
        let draft: RulesDraft = serde_json::from_value(draft).unwrap();
        let (mut problems, redact) = (Problems::default(), redact());
        let context = CompareContext { redact: Some(&redact), ..CompareContext::default() };
        let rules = Rules::check(&draft, &Site::file("r.yaml"), &context, &mut problems).expect("valid rules");
        let shown = rules.shown_draft();
        for text in rules.texts.iter().chain(rules.asserts.iter().map(|assert| &assert.source)).chain([&shown]) {
            assert!(!text.contains("k3y"), "{text}");
        }
        assert!(shown.contains("legacy.status < 400") && RulesDraft::of_shown(&shown).is_none());
        let open = Rules::check(&RulesDraft::default(), &Site::file("r.yaml"), &context, &mut problems).unwrap();
        assert_eq!(RulesDraft::of_shown(&open.shown_draft()).as_ref(), Some(open.draft()));
    }
}
