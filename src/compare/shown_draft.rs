//! The rules as they were written, without what may be secret in them: the record shows them, and a later process reads
//! them to see whether a change of them only allows more.

use serde_json::Value;

use super::draft::RulesDraft;
use super::rules::Rules;
use super::shown_condition::{Mask, masked, shown_call, shown_condition, shown_path, shown_pattern};
use crate::secret::{RedactRules, STARS, with_distinct_keys};

impl Rules {
    /// The rules as JSON, as they were written, but for what may be secret in conditions, paths and patterns.
    pub fn shown_draft(&self) -> String {
        let mut draft = serde_json::to_value(self.draft()).unwrap_or_default();
        mask(&mut draft, self.texts.redact());
        draft.to_string()
    }

    /// The texts of the rules and of the notes on them, in a fixed order. The same rules, checked with another hash for
    /// masked texts, have their texts in the same order.
    pub fn counted_texts(&self) -> impl Iterator<Item = &str> {
        self.texts.iter().map(String::as_str)
    }

    /// Whether something is masked in a text of the rules, so that its hash depends on a key.
    pub fn have_masked_texts(&self) -> bool {
        self.texts.has_masked()
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
        Value::Object(members) => {
            let masked = std::mem::take(members).into_iter().map(|(key, mut value)| {
                match (&mut value, &*key) {
                    (Value::Array(calls), "ignore_calls") => calls.iter_mut().for_each(|call| mask_call(call, redact)),
                    (value, _) => mask(value, redact),
                }
                // Paths and patterns are keys too.
                (masked_text(&key, redact).unwrap_or(key), value)
            });
            *members = with_distinct_keys(masked);
        }
        Value::Array(items) => items.iter_mut().for_each(|item| mask(item, redact)),
        Value::String(text) => {
            if let Some(masked) = masked_text(text, redact) {
                *text = masked;
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn mask_call(call: &mut Value, redact: &RedactRules) {
    if let Value::String(text) = call {
        *text = masked(text, shown_call, redact);
    }
}

/// A text of a rule with stars in place of what may be secret; `None` if nothing is masked.
fn masked_text(text: &str, redact: &RedactRules) -> Option<String> {
    let mask: Mask = match text.trim_start() {
        trimmed if trimmed.starts_with("${") => shown_condition,
        trimmed if trimmed.starts_with('$') => shown_path,
        _ => shown_pattern,
    };
    Some(masked(text, mask, redact)).filter(|shown| shown != text)
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

    #[test]
    fn neither_paths_nor_patterns_of_rules_nor_their_draft_have_a_secret() {
        let path = "$.users[?@.api_key == 'k3y'].seen";
        let draft = json!({
            "ignore": [path, { "path": path, "when": "${legacy.status < 400}" }],
            "ids": [path, { "keys": path }],
            "tolerance": { path: 1 },
            "unordered": { path: "set" },
            "text": { "ignore": ["^token: k3y-1"], "ids": ["password=k3y-2"], "times": { "pin: k3y-3": "2s" } },
        });
        let draft: RulesDraft = serde_json::from_value(draft).unwrap();
        let (mut problems, redact) = (Problems::default(), redact());
        let context = CompareContext { redact: Some(&redact), ..CompareContext::default() };
        let rules = Rules::check(&draft, &Site::file("r.yaml"), &context, &mut problems).expect("valid rules");
        let shown = rules.shown_draft();
        for text in rules.texts.iter().chain([&shown]) {
            assert!(!text.contains("k3y"), "{text}");
        }
        assert!(RulesDraft::of_shown(&shown).is_none() && shown.contains("api_key == '***'"), "{shown}");
    }
}
