//! `effects("STEP")` in asserts: a step's calls as a list, in the order of time.

use std::time::Duration;

use serde_json::{Value, json};

use super::tests::{BOUNDS, found, reply, rules};
use super::{
    AwaitedIntents, CompareContext, Comparison, DifferenceKind, Intent, Observation, Pair, Rules, RulesDraft, Verdict,
    compare,
};
use crate::problem::{Problems, Site};

fn call(step: &str, item: Option<u32>, body: Value) -> Intent {
    Intent {
        step: step.into(),
        item,
        method: http::Method::POST,
        url: format!("http://bank/{step}"),
        headers: vec![("X-Tenant".into(), "t1".into())],
        body,
        service: None,
        bytes: None,
        taken_from: None,
    }
}

fn compared(assert: &str, calls: &[Intent]) -> Comparison {
    let legacy = reply(200, &[("content-type", "application/json")], json!({"total": 5}).to_string());
    let (headers, body) = (legacy.headers().clone(), legacy.body().clone());
    let engine = Observation::new(legacy.status(), headers, body, Duration::ZERO, calls.to_vec());
    let pair = Pair {
        legacy: &legacy,
        engine: &engine,
        request: &Value::Null,
        effects: None,
        stale_reads: false,
        instance: None,
        sensitive: None,
    };
    compare(&pair, &rules(json!({"assert": [assert]})), &BOUNDS, &|| false).unwrap()
}

#[test]
fn an_assert_can_require_exactly_one_call_of_a_step() {
    let charge = || call("charge", None, json!({"amount": 5}));
    let once = "${once(effects(\"charge\"))}";
    assert_eq!(compared(once, &[charge()]).verdict, Verdict::Match);
    for calls in [vec![], vec![charge(), charge()], vec![call("mail", None, Value::Null)]] {
        let differs = compared(once, &calls);
        assert_eq!(found(&differs), [(format!("assert {once}").as_str(), DifferenceKind::Assert)], "{calls:?}");
        assert_eq!(differs.differences[0].engine.as_deref(), Some("does not hold"), "an absent call is no error");
    }
    let amount = "${effects('charge').all(e, e.body.amount == legacy.body.total)}";
    assert_eq!(compared(amount, &[charge()]).verdict, Verdict::Match);
    assert_eq!(compared(amount, &[charge(), call("charge", None, json!({"amount": 6}))]).verdict, Verdict::Mismatch);
    let header = "${effects(\"charge\")[0].headers[\"X-TENANT\"] == \"t1\"}";
    assert_eq!(compared(header, &[charge()]).verdict, Verdict::Match);
}

#[test]
fn effects_are_in_chronological_order() {
    let calls = [
        call("price", Some(1), json!(1)),
        call("price", Some(0), json!(0)),
        call("charge", None, Value::Null),
        call("mail", None, Value::Null),
    ];
    for holds in [
        "${effects().map(e, e.step) == [\"price\", \"price\", \"charge\", \"mail\"]}",
        "${effects(\"price\").map(e, e.item) == [1, 0]}",
        "${effects(\"price\")[1].body == 0 && effects(\"price\")[1].url == \"http://bank/price\"}",
        "${effects(\"charge.undo\") == []}",
    ] {
        assert_eq!(compared(holds, &calls).verdict, Verdict::Match, "{holds}");
    }
    assert_eq!(compared("${size(effects()) == 0}", &[]).verdict, Verdict::Match);
}

#[test]
fn the_calls_that_it_names_are_awaited_and_counted_as_asserted() {
    let awaited = |assert: &str| rules(json!({"assert": [assert]})).awaited_intents();
    assert_eq!(awaited("${once(effects(\"charge\"))}"), AwaitedIntents::OfSteps(["charge".into()].into()));
    assert_eq!(awaited("${size(effects()) == 1}"), AwaitedIntents::All);
    assert_eq!(awaited("${size(effects(\"charge.undo\")) == 0}"), AwaitedIntents::All);
    let asserted = |assert: &str| {
        let calls = [call("charge", None, json!({"amount": 5})), call("mail", None, Value::Null)];
        let counts = compared(assert, &calls).intents;
        counts.into_iter().filter(|(_, n)| n.asserted > 0).map(|(step, _)| step.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(asserted("${effects(\"charge\")[0].body.amount == legacy.body.total}"), ["charge"]);
    assert_eq!(asserted("${size(effects()) == 2 && legacy.body.total == 5}"), ["charge", "mail"]);
    assert!(asserted("${once(effects(\"charge\"))}").is_empty(), "held against nothing of legacy");
}

#[test]
fn a_wrong_name_is_an_error_that_says_what_was_meant() {
    for (assert, said) in [
        ("${once(effects(\"chrage\"))}", "did you mean `effects(\"charge\")`?"),
        ("${once(effects(legacy.body.step))}", "takes the name of a step in quotes"),
        ("${once(effects(\"charge\", \"mail\"))}", "the name of one step"),
        ("${once(efects(\"charge\"))}", "did you mean `effects`?"),
    ] {
        let draft: RulesDraft = serde_json::from_value(json!({"assert": [assert]})).unwrap();
        let mut problems = Problems::default();
        let context = CompareContext { intents: &["charge"], ..CompareContext::default() };
        assert!(Rules::check(&draft, &Site::file("routes.yaml"), &context, &mut problems).is_none(), "{assert}");
        let texts = problems.iter().flat_map(|problem| [Some(&problem.message), problem.hint.as_ref()]).flatten();
        let texts: Vec<&String> = texts.collect();
        assert!(texts.iter().any(|text| text.contains(said)), "{assert}: {texts:?}");
    }
}
