//! Tests of values that are not known to differ, because those of the capture are redacted.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};

use super::tests::{CHARGES, charge, checked, posted};
use crate::compare::tests::BOUNDS;
use crate::compare::{Body, Comparison, Observation, Pair, Verdict, compare};

const CARD: &str = "[redacted 0123456789abcdef]";
const OTHER: &str = "[redacted fedcba9876543210]";

fn reply(body: &Value) -> Observation {
    let headers = [(http::header::CONTENT_TYPE, "application/json".parse().unwrap())].into_iter().collect();
    Observation::new(StatusCode::OK, headers, Body::Whole(body.to_string().into()), Duration::ZERO, Vec::new())
}

/// Legacy answered and charged this, and the engine that.
fn compared(is_captured: bool, legacy: [Value; 2], engine: [Value; 2]) -> Comparison {
    let effects = [Arc::new(posted(CHARGES, legacy[1].clone()))];
    let of_legacy = reply(&legacy[0]);
    let of_legacy = if is_captured { of_legacy.of_capture() } else { of_legacy };
    let of_engine = reply(&engine[0]).with_intents(vec![charge(engine[1].clone())]);
    let pair = Pair {
        legacy: &of_legacy,
        engine: &of_engine,
        effects: Some(&effects),
        request: &Value::Null,
        instance: None,
        stale_reads: false,
        sensitive: None,
    };
    compare(&pair, &checked(&json!({})).unwrap(), &BOUNDS, &|| false).unwrap()
}

fn body(card: Value) -> [Value; 2] {
    [json!({ "paid": [{ "card": card }] }), json!({ "amount": 1, "card": card })]
}

#[test]
fn a_constant_in_place_of_a_redacted_value_is_counted_and_is_no_difference() {
    for constant in [json!("ok"), json!(4242), json!(true)] {
        let found = compared(true, body(json!(CARD)), body(constant.clone()));
        assert_eq!((found.verdict, &found.differences[..]), (Verdict::Ignored, &[][..]), "{constant}");
        let places = ["not known: $.paid[*].card", "not known: effects.charge.body.card"];
        let counted: Vec<_> = found.ignored_by.iter().map(|(what, n)| (what.as_str(), *n)).collect();
        assert_eq!(counted, places.map(|place| (place, 1)), "{constant}");
        let values: Vec<_> = found.not_known.iter().map(|values| (values.path.as_str(), values.legacy)).collect();
        assert_eq!(
            values.iter().map(|(path, _)| *path).collect::<Vec<_>>(),
            ["$.paid[*].card", "effects.charge.body.card"]
        );
        assert_eq!(values[0].1, values[1].1, "the same value of legacy");
    }
}

#[test]
fn what_is_certainly_different_is_a_difference() {
    let differ = |is_captured, legacy: Value, engine: Value| {
        let found = compared(is_captured, body(legacy.clone()), body(engine.clone()));
        let paths: Vec<_> = found.differences.iter().map(|found| found.path.as_str()).collect();
        assert_eq!(paths, ["$.paid[*].card", "effects.charge.body.card"], "{legacy} {engine}");
        assert_eq!(found.ignored_by, [], "{legacy} {engine}");
    };
    differ(false, json!(CARD), json!("ok"));
    differ(true, json!(CARD), json!(OTHER));
    differ(true, json!(CARD), json!(format!("with {OTHER}")));
    differ(true, json!(CARD), json!(null));
    differ(true, json!(CARD), json!({ "number": "ok" }));
    differ(true, json!("clear"), json!("ok"));
    differ(true, json!("clear"), json!(CARD));
    assert_eq!(compared(true, body(json!(CARD)), body(json!(CARD))).verdict, Verdict::Match);
}

#[test]
fn a_body_of_which_only_a_hash_is_known_differs_from_any_other() {
    for (legacy, engine) in [(json!(CARD), json!("ok")), (json!([CARD]), json!(["ok"]))] {
        let found = compared(true, [legacy, json!({ "amount": 1 })], [engine, json!({ "amount": 1 })]);
        assert_eq!((found.verdict, &found.ignored_by[..]), (Verdict::Mismatch, &[][..]));
    }
}
