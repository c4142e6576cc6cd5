//! Tests of which rules for effects are refused, and of what the role of a step's call means for its comparison.

use http::Method;
use serde_json::json;

use super::tests::{charge, checked, compared, effect, found, intent, posted, rules, templates};
use crate::compare::{CallTemplate, DifferenceKind, Intent, Rules, Verdict};

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
                "unordered": {"$.a": ""}, "tolerance": {"$.t": "soon"}, "unseen": " ", "made_by_both": " ", "reads": true},
            "quote": {"reads": true},
        },
        "ignore_calls": ["analitics", "post x"],
    });
    let problems = checked(&draft).err().unwrap();
    assert_eq!(problems.len(), 15, "{problems:#?}");
    for expected in [
        "r.yaml.compare.effects.chrage the workflow has no step `chrage` with a call Some(\"did you mean `charge`?\")",
        "r.yaml.compare.effects.charge.ignore[2] `amount` is no JSONPath",
        "r.yaml.compare.effects.quote.reads the step `quote` is sent in shadow and dark",
        "r.yaml.compare.effects.charge.made_by_both `made_by_both` gives no reason",
        "r.yaml.compare.effects.charge.made_by_both the step `charge` is neither private nor a read that is sent",
        "r.yaml.compare.ignore_calls[0] no service is called `analitics` Some(\"did you mean `analytics`?\")",
    ] {
        assert!(problems.iter().any(|problem| problem.starts_with(expected)), "{expected}: {problems:#?}");
    }
    let plain = rules(json!({}));
    assert_eq!(plain.hash(), Rules::default().hash(), "rules without effects keep the evidence of earlier versions");
    assert_ne!(rules(json!({"effects": {"charge": {}}})).hash(), plain.hash());
}

#[test]
fn private_steps_are_listed_unless_both_arms_may_make_their_calls() {
    let names = |draft: serde_json::Value| -> Vec<String> {
        rules(draft).private_steps_of_one_arm().iter().map(ToString::to_string).collect()
    };
    assert_eq!(names(json!({})), ["note"]);
    assert_eq!(names(json!({"effects": {"note": {"made_by_both": "each has its own"}}})), Vec::<String>::new());
    let expects = |draft: serde_json::Value, method: &str, path: &str| {
        rules(draft).is_expected_call(Some(&"shop".into()), "shop", &method.parse().unwrap(), path)
    };
    // A charge that legacy makes without saying for whom may be this private note.
    assert!(!expects(json!({}), "POST", "/notes"));
    let by_both = json!({"effects": {"note": {"made_by_both": "each has its own"}}});
    assert!(expects(by_both.clone(), "POST", "/notes") && !expects(by_both.clone(), "POST", "/notes/7"));
    assert!(!expects(by_both, "POST", "/fetch/https://shop/notes"));
    assert!(!expects(json!({}), "PUT", "/notes"));
    assert!(!expects(json!({"ignore_calls": ["analytics"]}), "PUT", "/notes"));
}

/// Nobody sees which calls legacy makes in a tunnel.
#[test]
fn in_a_tunnel_to_its_service_a_call_of_a_step_may_have_been_made() {
    let rules = rules(json!({}));
    let may_be = |step: &str, service: &str, method: &str, path: &str| {
        rules.is_judged_call_of(&step.into(), Some(&service.into()), &method.parse().unwrap(), path)
    };
    assert!(may_be("charge", "bank", "CONNECT", "") && may_be("charge", "bank", "POST", "/v1/charges"));
    assert!(!may_be("charge", "mailer", "CONNECT", "") && !may_be("charge", "bank", "POST", "/v1/refunds"));
    assert!(!may_be("note", "shop", "CONNECT", ""), "legacy makes no private call");
}

#[test]
fn a_text_that_a_step_sends_is_compared_by_the_rules_for_lines() {
    let receipt = |at: &str, order: &str, total: &str| {
        format!("Receipt\ngenerated {at}\nOrder {order}\nplaced 2026-11-26T10:00:0{at}Z\nTotal {total}\n")
    };
    let text = ("content-type", "text/plain");
    let url = "http://shop/notes";
    let legacy = |text_: String| effect("POST", url, text, text_);
    let engine = |text_: String| Intent {
        headers: vec![(text.0.to_owned(), text.1.to_owned())],
        ..intent("note", None, "POST", url, json!(text_))
    };
    let of = |draft: serde_json::Value, a: Vec<String>, b: Vec<String>| {
        let (a, b) = (a.into_iter().map(legacy).collect(), b.into_iter().map(engine).collect());
        compared((&json!("A-4711"), &json!("B-1234")), a, b, &rules(draft)).unwrap()
    };
    let draft = json!({
        "ids": ["$.id"],
        "effects": {"note": {"text": {"ignore": ["^generated "], "times": "2s", "ids": ["^Order (\\S+)$"]}}},
    });
    let one = |order: &str, total: &str| {
        of(draft.clone(), vec![receipt("1", "A-4711", "12.50")], vec![receipt("2", order, total)])
    };
    assert_eq!(one("B-1234", "12.50").verdict, Verdict::Ignored);
    assert_eq!(found(&one("B-1234", "12.60")), [("effects.note.text", DifferenceKind::EffectDiffers)]);
    assert_eq!(found(&one("B-9999", "12.50")), [("effects.note.text", DifferenceKind::EffectDiffers)], "another order");
    let used = one("B-1234", "12.50").ignored_by;
    assert!(used.iter().any(|(rule, _)| rule == "effects.note text.times"), "{used:?}");
    let without = of(json!({"ids": ["$.id"]}), vec![receipt("1", "A-4711", "1")], vec![receipt("2", "B-1234", "1")]);
    assert_eq!(without.verdict, Verdict::Mismatch, "the generated line and the time differ");
    // Of several texts, those belong together that have the most lines in common.
    let two = of(
        draft.clone(),
        vec![receipt("1", "A-4711", "1.00"), receipt("1", "A-4711", "2.00")],
        vec![receipt("2", "B-1234", "2.00"), receipt("2", "B-1234", "1.00")],
    );
    assert_eq!(two.verdict, Verdict::Ignored, "{two:?}");
}

/// Of a template such as `POST ${services.bank}/${request.body.kind}` it is not known where the engine calls.
#[test]
fn a_template_that_fits_any_path_makes_no_call_an_expected_one() {
    let of = |path: &str| CallTemplate { path: path.to_owned(), ..templates()[3].clone() };
    assert!(["/{}", "/{}/{}"].iter().all(|path| of(path).fits_any_path()));
    assert!(["/", "/charges", "/orders/{}"].iter().all(|path| !of(path).fits_any_path()));
    let mut rules = rules(json!({}));
    let mut expects = |path: &str| {
        rules.effects.templates = vec![of(path)];
        rules.is_expected_call(Some(&"bank".into()), "bank", &Method::POST, "/points")
    };
    assert_eq!((expects("/{}"), expects("/points")), (false, true));
}
