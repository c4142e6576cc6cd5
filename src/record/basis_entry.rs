//! What the entry for a change of the basis of evidence says: what changed, from what to what.
//!
//! Always true: an entry is of bounded size. A value that is cut ends with a note; of a long list only the elements
//! that are not on both sides are given, so that equal elements do not push a changed one beyond the cut.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::evidence::{BasisChange, PartChange, RULES, RejudgedOutcome, RouteEvidence};

/// How much of what changed is in an entry, on each side.
const SIDE_BYTES_MAX: usize = 8_192;
/// A list whose JSON is longer than this is shown without the elements that are on both sides.
const WHOLE_LIST_BYTES_MAX: usize = 1_024;
/// How many keys of the rules are named in an entry.
const KEYS_MAX: usize = 64;

/// The body of the entry for a change of a basis.
pub(super) fn of_change(change: &BasisChange) -> Value {
    let BasisChange { changed, parts, next, pairs_before, mismatched_before, evidence_before } = change;
    json!({
        "changed": changed,
        "changes": changes(parts),
        "evidence": next.as_str(),
        "pairs_before": pairs_before,
        "mismatched_before": mismatched_before,
        "evidence_before": summary(evidence_before),
    })
}

/// The body of the entry for pairs that were judged again, under other rules than before.
pub(super) fn of_rejudged(
    outcome: RejudgedOutcome,
    (before, after): (String, String),
    evidence_before: &RouteEvidence,
) -> Value {
    let evidence = match outcome {
        RejudgedOutcome::Judged { equal, differing } => {
            format!("goes on: of the pairs that differed, {equal} are equal under the new rules, {differing} differ")
        }
        RejudgedOutcome::FromZero => "starts from zero: not all differences could be judged again".to_owned(),
    };
    let rules = PartChange { part: RULES.to_owned(), before: Some(before), after: Some(after) };
    json!({
        "changed": RULES,
        "changes": changes(&[rules]),
        "evidence": evidence,
        "evidence_before": summary(evidence_before),
    })
}

/// The evidence without the fingerprints of its differences.
fn summary(evidence: &RouteEvidence) -> Value {
    let mut summary = serde_json::to_value(evidence).unwrap_or_default();
    if let Some(fields) = summary.as_object_mut() {
        fields.remove("seen");
    }
    summary
}

/// The changed parts as JSON: for the rules each key that differs, for any other part its text before and after.
fn changes(parts: &[PartChange]) -> Value {
    let (mut before_left, mut after_left) = (SIDE_BYTES_MAX, SIDE_BYTES_MAX);
    let mut of_part = |PartChange { part, before, after }: &PartChange| {
        let side = |text: &Option<String>, left: &mut usize| match text {
            Some(text) => bounded(Value::from(text.as_str()), left),
            None => Value::Null,
        };
        if part != RULES {
            let (before, after) = (side(before, &mut before_left), side(after, &mut after_left));
            return json!({ "part": part, "before": before, "after": after });
        }
        let differing = differing_keys(before.as_deref(), after.as_deref());
        let more = differing.len().saturating_sub(KEYS_MAX);
        let of_key = |(key, before, after): (String, Value, Value)| {
            let (before, after, note) = without_common(before, after);
            let (before, after) = (bounded(before, &mut before_left), bounded(after, &mut after_left));
            let mut found = json!({ "key": key, "before": before, "after": after });
            if let Some(note) = note {
                found["note"] = note.into();
            }
            found
        };
        let keys: Vec<Value> = differing.into_iter().take(KEYS_MAX).map(of_key).collect();
        match more {
            0 => json!({ "part": part, "keys": keys }),
            more => json!({ "part": part, "keys": keys, "more_keys": more }),
        }
    };
    parts.iter().map(&mut of_part).collect()
}

/// The keys of the rules whose values differ, with both values; nested keys are joined by dots (`tolerance.$.total`).
/// `null` stands for a key that is absent.
fn differing_keys(before: Option<&str>, after: Option<&str>) -> Vec<(String, Value, Value)> {
    let parsed =
        |text: Option<&str>| text.and_then(|text| serde_json::from_str::<Value>(text).ok()).unwrap_or_default();
    let mut found = Vec::new();
    add_differing("", &parsed(before), &parsed(after), &mut found);
    found
}

fn add_differing(key: &str, before: &Value, after: &Value, found: &mut Vec<(String, Value, Value)>) {
    if before == after {
        return;
    }
    let (none, is_map) = (serde_json::Map::new(), |value: &Value| value.is_object() || value.is_null());
    if !(is_map(before) && is_map(after)) {
        found.push((key.to_owned(), before.clone(), after.clone()));
        return;
    }
    let (before, after) = (before.as_object().unwrap_or(&none), after.as_object().unwrap_or(&none));
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    for name in names {
        let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
        let side = |map: &serde_json::Map<String, Value>| map.get(name).cloned().unwrap_or_default();
        let (before, after) = (side(before), side(after));
        // What is absent on one side is as good as empty or off there: `ignore: []`, `reads: false`.
        if !(is_unset(&before) && is_unset(&after)) {
            add_differing(&key, &before, &after, found);
        }
    }
}

fn is_unset(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Bool(true) | Value::Number(_) | Value::String(_) => false,
    }
}

/// Long lists without the elements that both have, with a note that says so.
fn without_common(before: Value, after: Value) -> (Value, Value, Option<&'static str>) {
    match (before, after) {
        (Value::Array(before), Value::Array(after)) if is_long(&before) || is_long(&after) => {
            let without = |list: &[Value], other: &[Value]| {
                list.iter().filter(|element| !other.contains(element)).cloned().collect::<Vec<_>>()
            };
            let (old, new) = (without(&before, &after), without(&after, &before));
            (old.into(), new.into(), Some("without the elements that are in both lists"))
        }
        (before, after) => (before, after, None),
    }
}

fn is_long(list: &[Value]) -> bool {
    list.iter().map(|element| element.to_string().len()).sum::<usize>() > WHOLE_LIST_BYTES_MAX
}

/// The value if its JSON has room in what is `left`; else the beginning of its JSON, with a note.
fn bounded(value: Value, left: &mut usize) -> Value {
    let text = value.to_string();
    if text.len() <= *left {
        *left -= text.len();
        return value;
    }
    let shown = &text[..text.floor_char_boundary(*left)];
    *left = 0;
    format!("{shown}… (cut: {} bytes in all)", text.len()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_rules(before: &str, after: &str) -> Value {
        let side = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        changes(&[PartChange { part: RULES.to_owned(), before: side(before), after: side(after) }])[0].take()
    }

    #[test]
    fn the_keys_of_the_rules_that_differ_have_their_old_and_new_values() {
        let before = r#"{"status":"exact","ignore":["$.at"],"ids":["$.id"],"tolerance":{"$.total":1,"$.tax":2}}"#;
        let after =
            r#"{"status":"exact","ignore":["$.at","$.total"],"ids":["$.id"],"tolerance":{"$.total":5,"$.tax":2}}"#;
        let expected = json!({ "part": RULES, "keys": [
            { "key": "ignore", "before": ["$.at"], "after": ["$.at", "$.total"] },
            { "key": "tolerance.$.total", "before": 1, "after": 5 },
        ] });
        assert_eq!(of_rules(before, after), expected);
        // The route had no rules that are known, or an earlier version stored its evidence.
        let expected = json!({ "part": RULES, "keys": [{ "key": "ignore", "before": null, "after": ["$.total"] }] });
        assert_eq!(of_rules("", r#"{"ignore":["$.total"],"ids":[],"unordered":{}}"#), expected);
        // The rules of a step's calls that are new: each has all its keys.
        let step = |ids: &str| {
            let keys = r#""ignore":[],"unordered":{},"any_order":false,"reads":false"#;
            format!(r#"{{"effects":{{"charge":{{{keys},"ids":{ids}}}}}}}"#)
        };
        let expected = json!({ "part": RULES, "keys": [
            { "key": "effects.charge.ids", "before": null, "after": ["$.ref"] },
        ] });
        assert_eq!(of_rules(r#"{"effects":{}}"#, &step(r#"["$.ref"]"#)), expected);
        let turned_off = of_rules(r#"{"effects":{"a":{"reads":true}}}"#, r#"{"effects":{"a":{"reads":false}}}"#);
        assert_eq!(turned_off["keys"][0]["after"], false, "{turned_off}");
        let workflow = PartChange {
            part: "the workflow `w`".to_owned(),
            before: Some("plan_1".to_owned()),
            after: Some("plan_2".to_owned()),
        };
        let expected = json!([{ "part": "the workflow `w`", "before": "plan_1", "after": "plan_2" }]);
        assert_eq!(changes(&[workflow]), expected);
    }

    #[test]
    fn an_entry_is_bounded_and_a_rule_is_not_hidden_behind_a_long_list() {
        let many: Vec<String> = (0..5_000).map(|n| format!("$.value_{n}")).collect();
        let mut more = many.clone();
        more.push("$.total".to_owned());
        let rules = |ignore: &[String]| json!({ "ignore": ignore }).to_string();
        let key = of_rules(&rules(&many), &rules(&more))["keys"][0].take();
        assert_eq!((&key["before"], &key["after"]), (&json!([]), &json!(["$.total"])));
        assert!(key["note"].is_string(), "{key}");
        let found = of_rules(&rules(&[]), &rules(&many)).to_string();
        assert!(found.len() < 10_000 && found.contains("bytes in all)"), "{}", found.len());
        let tolerances = |value: u32| {
            let map: serde_json::Map<_, _> = many.iter().map(|path| (path.clone(), value.into())).collect();
            json!({ "tolerance": map }).to_string()
        };
        let found = of_rules(&tolerances(1), &tolerances(2));
        assert_eq!((found["keys"].as_array().map(Vec::len), &found["more_keys"]), (Some(KEYS_MAX), &json!(4_936)));
        assert!(found.to_string().len() < 20_000);
    }
}
