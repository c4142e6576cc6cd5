//! Tests of which rules for effects are refused, and of what the role of a step's call means for its comparison.

use serde_json::json;

use super::tests::{charge, checked, compared, found, intent, posted, rules};
use crate::compare::{DifferenceKind, Rules, Verdict};

#[test]
fn a_call_of_a_private_step_is_compared_if_legacy_makes_it_and_is_not_extra_if_not() {
    let note = |text: &str| intent("note", None, "POST", "http://shop/notes", json!({ "text": text }));
    let verdict = |effects, intents| compared((&json!(1), &json!(1)), effects, intents, &rules(json!({}))).unwrap();
    let alone = verdict(vec![], vec![note("a")]);
    assert_eq!(alone.verdict, Verdict::Match);
    assert_eq!(alone.effects.unwrap().steps["note"].unmatched, 1);
    let both = verdict(vec![posted("http://shop/notes", json!({"text": "b"}))], vec![note("a"), charge(json!({}))]);
    let expected =
        [("effects.note.body.text", DifferenceKind::EffectDiffers), ("effects.charge", DifferenceKind::EffectExtra)];
    assert_eq!(found(&both), expected);
}

/// There are more items than are scored by what they have in common.
#[test]
fn many_items_in_another_order_are_equal() {
    let body = |n: u32| json!({"sku": format!("s{n}"), "qty": n});
    let url = "http://stock/reservations";
    let effects = (0..100).rev().map(|n| posted(url, body(n))).collect();
    let intents = (0..100).map(|n| intent("reserve", Some(n), "POST", url, body(n))).collect();
    let comparison = compared((&json!(1), &json!(1)), effects, intents, &rules(json!({}))).unwrap();
    assert_eq!(comparison.verdict, Verdict::Match, "{comparison:?}");
}

#[test]
fn all_bad_rules_are_reported_with_their_positions() {
    let draft = json!({
        "effects": {
            "chrage": {},
            "charge": {"headers": ["a b"], "ignore": ["$.[", "header.x y", "amount"], "ids": ["$..["],
                "unordered": {"$.a": ""}, "tolerance": {"$.t": "soon"}, "unseen": " ", "reads": true},
            "quote": {"reads": true},
        },
        "ignore_calls": ["analitics", "post x"],
    });
    let problems = checked(&draft).err().unwrap();
    assert_eq!(problems.len(), 13, "{problems:#?}");
    for expected in [
        "r.yaml.compare.effects.chrage the workflow has no step `chrage` with a call Some(\"did you mean `charge`?\")",
        "r.yaml.compare.effects.charge.ignore[2] `amount` is no JSONPath",
        "r.yaml.compare.effects.quote.reads the step `quote` is sent in shadow and dark",
        "r.yaml.compare.ignore_calls[0] no service is called `analitics` Some(\"did you mean `analytics`?\")",
    ] {
        assert!(problems.iter().any(|problem| problem.starts_with(expected)), "{expected}: {problems:#?}");
    }
    let plain = rules(json!({}));
    assert_eq!(plain.hash(), Rules::default().hash(), "rules without effects keep the evidence of earlier versions");
    assert_ne!(rules(json!({"effects": {"charge": {}}})).hash(), plain.hash());
}
