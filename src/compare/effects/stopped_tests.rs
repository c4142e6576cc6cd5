//! Tests of comparing the calls of a run that could not go on.

use super::tests::*;
use crate::compare::tests::{BOUNDS, reply};
use crate::compare::*;
use crate::names::StepId;
use http::StatusCode;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// Compares what a run did until it could not go on with all that legacy did. The engine's reply says nothing.
fn compared_so_far(effects: Vec<Effect>, intents: Vec<Intent>, draft: Value) -> Comparison {
    let effects: Vec<Arc<Effect>> =
        (0..).zip(effects).map(|(number, effect)| Arc::new(Effect { number, ..effect })).collect();
    let legacy = reply(201, &[JSON], r#"{"id":1}"#);
    let body = Body::Whole(r#"{"title":"no"}"#.into());
    let seen = Observation::new(StatusCode::BAD_GATEWAY, http::HeaderMap::new(), body, Duration::ZERO, intents);
    let pair = Pair {
        legacy: &legacy,
        engine: &seen.of_stopped_run(),
        effects: Some(&effects),
        request: &Value::Null,
        stale_reads: false,
        instance: None,
        sensitive: None,
    };
    compare(&pair, &rules(draft), &BOUNDS, &|| false).unwrap()
}

#[test]
fn a_call_that_legacy_did_not_make_differs_and_what_would_have_followed_is_not_judged() {
    let mail = || posted("http://mailer/orders/7/mails", json!({}));
    let found_in = |effects| {
        let comparison = compared_so_far(effects, vec![charge(json!({"amount": 5}))], json!({}));
        let found: Vec<_> = found(&comparison).into_iter().map(|(path, kind)| (path.to_owned(), kind)).collect();
        (comparison.verdict, found)
    };
    let extra = ("effects.charge".to_owned(), DifferenceKind::EffectExtra);
    assert_eq!(
        found_in(vec![mail()]),
        (Verdict::Mismatch, vec![extra.clone()]),
        "the run may have sent the mail later"
    );
    let other_path = posted("http://bank/v2/charges", json!({"amount": 5}));
    let missing = ("effects.bank POST /v2/charges".to_owned(), DifferenceKind::EffectMissing);
    assert_eq!(found_in(vec![other_path, mail()]), (Verdict::Mismatch, vec![extra, missing]));
    assert_eq!(found_in(vec![posted(CHARGES, json!({"amount": 6})), mail()]), (Verdict::Match, vec![]));
}

#[test]
fn intents_of_a_stopped_run_do_not_count_as_compared() {
    let (call, intent) = (posted(CHARGES, json!({"amount": 5})), charge(json!({"amount": 5})));
    let comparison =
        compared_so_far(vec![call], vec![intent], json!({"assert": ["${intents.charge.body.amount == 5}"]}));
    let none = IntentCounts { intents: 1, compared: 0, asserted: 0 };
    assert_eq!(comparison.intents[&StepId::new("charge")], none);
}

#[test]
fn what_a_run_undoes_because_it_could_not_go_on_is_not_judged() {
    let undo = intent("charge.undo", None, "DELETE", "http://bank/v1/charges/1", Value::Null);
    let charged = || charge(json!({"amount": 5}));
    let made = |effects| compared_so_far(effects, vec![charged(), undo.clone()], json!({}));
    let right = made(vec![posted("http://bank/v1/charges", json!({"amount": 5}))]);
    assert_eq!((right.verdict, right.differences.len()), (Verdict::Match, 0), "{:?}", right.differences);
    assert_eq!(found(&made(Vec::new())), [("effects.charge", DifferenceKind::EffectExtra)]);
}
