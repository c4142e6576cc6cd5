//! Rules and asserts that apply only in some pairs.

use serde_json::{Value, json};

use super::tests::{compared, found, json_reply, reply, rules};
use super::{Comparison, DifferenceKind, Pair, Verdict, compare};

fn pair(status: u16, legacy: &Value, engine: &Value, request: &Value, draft: Value) -> Comparison {
    let of = |body: &Value| reply(status, &[("content-type", "application/json")], body.to_string());
    let (legacy, engine) = (of(legacy), of(engine));
    let pair = Pair {
        legacy: &legacy,
        engine: &engine,
        request,
        effects: None,
        stale_reads: false,
        instance: None,
        sensitive: None,
    };
    compare(&pair, &rules(draft), &super::tests::BOUNDS, &|| false).unwrap()
}

#[test]
fn a_rule_with_a_condition_applies_only_where_it_holds() {
    let on_errors = "${legacy.status >= 400}";
    let of = |n: u32| json!({"at": n, "ids": [n], "list": [1, n], "n": n});
    for (rule, differs) in [
        (json!({"ignore": [{"path": "$.at", "when": on_errors}]}), "$.at"),
        (json!({"ids": [{"path": "$.ids[*]", "when": on_errors}]}), "$.ids[*]"),
        (json!({"tolerance": {"$.n": {"by": 5, "when": on_errors}}}), "$.n"),
    ] {
        let mut all = json!({"ignore": ["$.at", "$.ids", "$.list", "$.n"]});
        let rest: Vec<&str> =
            ["$.at", "$.ids", "$.list", "$.n"].into_iter().filter(|path| !differs.starts_with(path)).collect();
        all["ignore"] = json!(rest);
        for (key, value) in rule.as_object().unwrap() {
            match (&mut all[key], value) {
                (Value::Array(list), Value::Array(more)) => list.extend(more.iter().cloned()),
                (slot, value) => *slot = value.clone(),
            }
        }
        let refused = pair(404, &of(1), &of(2), &Value::Null, all.clone());
        assert_eq!(refused.verdict, Verdict::Ignored, "{refused:?}");
        assert!(refused.ignored_by.iter().any(|(rule, _)| rule.ends_with("when ${legacy.status >= 400}")));
        let served = pair(200, &of(1), &of(2), &Value::Null, all);
        assert_eq!(found(&served), [(differs, DifferenceKind::Value)]);
    }
    let unordered = json!({"unordered": {"$": {"by": "set", "when": "${request.path == '/a'}"}}});
    let of_path = |path: &str| pair(200, &json!([1, 2]), &json!([2, 1]), &json!({"path": path}), unordered.clone());
    assert_eq!(of_path("/a").verdict, Verdict::Ignored);
    assert_eq!(found(&of_path("/b")), [("$", DifferenceKind::Order)]);
    let header = json!({"headers": ["x"], "ignore": [{"path": "header.x", "when": "${request.nothing == 1}"}]});
    let with = |x: &str| reply(200, &[("x", x)], "");
    let differs = super::tests::compared(&with("1"), &with("2"), &rules(header)).unwrap();
    assert_eq!(found(&differs), [("headers.x", DifferenceKind::Header)], "an error is no match");
}

#[test]
fn an_assert_is_skipped_and_counted_where_legacy_refused_unless_it_says_when() {
    let that = "${legacy.body.total == engine.body.total}";
    let (refusal, skipped) =
        (json!({"error": "sold out"}), format!("assert {that} (not evaluated: legacy answered 4xx or 5xx)"));
    let alone = json!({"assert": [that]});
    for status in [400, 422, 500] {
        let comparison = pair(status, &refusal, &refusal, &Value::Null, alone.clone());
        assert_eq!((comparison.verdict, comparison.ignored_by), (Verdict::Ignored, vec![(skipped.clone(), 1)]));
    }
    assert_eq!(pair(200, &refusal, &refusal, &Value::Null, alone).verdict, Verdict::Mismatch, "absent operands");
    let when = |when: &str| json!({"assert": [{"that": "${legacy.body.error == 'x'}", "when": when}]});
    let refused = |draft: Value| pair(422, &refusal, &refusal, &Value::Null, draft);
    assert_eq!(refused(when("${legacy.status == 422}")).verdict, Verdict::Mismatch);
    let not = refused(when("${legacy.status == 404}"));
    assert_eq!((not.verdict, not.ignored_by.len()), (Verdict::Match, 0), "its own condition is no omission");
}

#[test]
fn the_function_once_holds_if_exactly_one_element_fits() {
    let holds = |body: Value| {
        pair(200, &body, &body, &Value::Null, json!({"assert": ["${once(legacy.body.charge)}"]})).verdict
            == Verdict::Match
    };
    assert!(holds(json!({"charge": [1]})) && holds(json!({"charge": {"amount": 1}})));
    for none in [json!({}), json!({"charge": null}), json!({"charge": []}), json!({"charge": [1, 2]})] {
        assert!(!holds(none.clone()), "{none}");
    }
    let absent = json!({"assert": ["${once(legacy.body.charge)}"]});
    let said = pair(200, &json!({}), &json!({}), &Value::Null, absent).differences[0].engine.clone();
    assert_eq!(said.as_deref(), Some("does not hold"), "and not that it cannot be evaluated");
}

#[test]
fn an_assert_that_was_not_evaluated_compared_no_intent() {
    let intent = super::Intent {
        step: "charge".into(),
        item: None,
        method: http::Method::POST,
        url: "http://bank/charges".into(),
        headers: Vec::new(),
        body: Value::Null,
        service: None,
        bytes: None,
        taken_from: None,
    };
    let draft = rules(json!({"assert": ["${once(intents.charge) && legacy.status == 201}"]}));
    let asserted = |status: u16| {
        let (legacy, reply) = (reply(status, &[], ""), reply(status, &[], ""));
        let latency = std::time::Duration::ZERO;
        let (headers, body) = (reply.headers().clone(), reply.body().clone());
        let engine = super::Observation::new(reply.status(), headers, body, latency, vec![intent.clone()]);
        let pair = Pair {
            legacy: &legacy,
            engine: &engine,
            request: &Value::Null,
            effects: None,
            stale_reads: false,
            instance: None,
            sensitive: None,
        };
        let comparison = compare(&pair, &draft, &super::tests::BOUNDS, &|| false).unwrap();
        comparison.intents.values().map(|counts| counts.asserted).sum::<u32>()
    };
    assert_eq!((asserted(201), asserted(422)), (1, 0));
}

#[test]
fn a_condition_that_cannot_be_evaluated_does_not_hold_and_is_counted_by_rule() {
    let when = "${request.headers['x-mobile'] == '1'}";
    let draft = json!({
        "ignore": [{"path": "$.at", "when": when}],
        "assert": [{"that": "${legacy.body.n == 2}", "when": when}],
    });
    let (rules, equal) = (rules(draft), json_reply(&json!({"at": 1, "n": 1})));
    let comparison = compared(&equal, &equal, &rules).unwrap();
    let notes = [
        "ignore $.at when ${request.headers['x-mobile'] == '1'} (condition failed: the rule did not apply)",
        "assert ${legacy.body.n == 2} (condition failed: it was not evaluated)",
    ];
    // It made nothing equal.
    assert_eq!(
        (comparison.verdict, &comparison.ignored_by),
        (Verdict::Match, &notes.map(|n| (n.to_owned(), 1)).to_vec())
    );
    assert!(notes.iter().all(|note| super::is_rule_note(note)));
    assert!(rules.names().all(|name| !name.contains("condition failed")), "a note is no rule that may be dead");
    let differs = compared(&equal, &json_reply(&json!({"at": 2, "n": 1})), &rules).unwrap();
    assert_eq!(differs.verdict, Verdict::Mismatch);
}
