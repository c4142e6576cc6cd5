//! Tests of finding the call by legacy that corresponds to a call of the engine.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};

use super::tests::{CHARGES, charge, checked, compared, intent, posted};
use super::{CorrespondingCall, corresponding_call};
use crate::compare::tests::BOUNDS;
use crate::compare::{Body, BoundExceeded, DifferenceKind, Effect, EffectReply, Intent, Rules};

const RESERVATIONS: &str = "http://stock/reservations";

/// Calls with these bodies, numbered from 0; each was answered with its own number.
fn calls(url: &str, bodies: &[Value]) -> Vec<Arc<Effect>> {
    let call = |(number, body): (u64, &Value)| {
        let body_of_reply = Body::Whole(Bytes::from(number.to_string()));
        let reply = EffectReply::new(StatusCode::OK, Default::default(), body_of_reply);
        Arc::new(Effect { number, reply: Some(reply), ..posted(url, body.clone()) })
    };
    (0..).zip(bodies).map(call).collect()
}

/// The number of the call that was found, or why none was.
fn found(calls: &[Arc<Effect>], intent: &Intent, assigned: &[u64], draft: Value) -> Result<u64, String> {
    found_beside(calls, (intent, &[]), assigned, draft)
}

/// The same for an item of a step whose other items would send these calls.
fn found_beside(
    calls: &[Arc<Effect>],
    (intent, siblings): (&Intent, &[Intent]),
    assigned: &[u64],
    draft: Value,
) -> Result<u64, String> {
    let rules: Rules = checked(&draft).unwrap();
    let assigned: BTreeSet<u64> = assigned.iter().copied().collect();
    match corresponding_call(&rules, calls, (intent, &|| siblings.to_vec()), &assigned, &BOUNDS, &|| false).unwrap() {
        CorrespondingCall::One { number, reply } => {
            assert_eq!(reply.unwrap().body, Body::Whole(Bytes::from(number.to_string())));
            Ok(number)
        }
        CorrespondingCall::Ambiguous(many) => Err(format!("{many} fit")),
        CorrespondingCall::None { nearest } => Err(nearest.unwrap_or_else(|| "none".to_owned())),
    }
}

#[test]
fn a_wrong_amount_does_not_keep_the_only_charge_from_corresponding() {
    let calls = calls(CHARGES, &[json!({"amount": 13})]);
    assert_eq!(found(&calls, &charge(json!({"amount": 12})), &[], json!({})), Ok(0));
    assert_eq!(
        found(&calls, &charge(json!({"amount": 12})), &[0], json!({})),
        Err("POST http://bank/v1/charges".into())
    );
}

#[test]
fn equal_calls_come_first_and_then_those_with_most_in_common() {
    let item = |n, sku: &str, qty: u64| {
        intent("reserve", Some(n), "POST", RESERVATIONS, json!({"sku": sku, "qty": qty, "of": 1}))
    };
    let of = |sku: &str, qty: u64| json!({"sku": sku, "qty": qty, "of": 1});
    let calls = calls(RESERVATIONS, &[of("a", 1), of("b", 2), of("c", 3)]);
    for (n, sku, qty, expected) in [(0, "c", 3, 2), (1, "b", 2, 1), (2, "a", 9, 0)] {
        assert_eq!(found(&calls, &item(n, sku, qty), &[], json!({})), Ok(expected), "{sku}");
    }
    assert_eq!(found(&calls, &item(0, "x", 9), &[], json!({})), Err("3 fit".into()), "nothing is guessed");
    // What a rule tolerates counts as equal.
    let rules = json!({"effects": {"reserve": {"tolerance": {"$.qty": 1}, "ignore": ["$.of"]}}});
    let calls =
        self::calls(RESERVATIONS, &[json!({"sku": "a", "qty": 5, "of": 1}), json!({"sku": "a", "qty": 2, "of": 1})]);
    assert_eq!(found(&calls, &item(0, "a", 2), &[], rules.clone()), Ok(1));
}

/// A wrong quantity that another item has: one call has the article in common, the other one the quantity.
#[test]
fn a_call_that_equals_that_of_another_item_is_left_to_it() {
    let of = |sku: &str, qty: u64| json!({"sku": sku, "qty": qty, "of": 1});
    let item = |n, sku: &str, qty: u64| intent("reserve", Some(n), "POST", RESERVATIONS, of(sku, qty));
    let calls = calls(RESERVATIONS, &[of("a", 1), of("b", 2), of("c", 2), of("d", 4)]);
    let wrong = item(0, "a", 2);
    assert_eq!(found(&calls, &wrong, &[], json!({})), Err("3 fit".into()), "without the others it is not known");
    let others = [item(1, "b", 2), item(2, "c", 2), item(3, "d", 4)];
    let beside = |siblings: &[Intent], assigned: &[u64]| found_beside(&calls, (&wrong, siblings), assigned, json!({}));
    assert_eq!(beside(&others, &[]), Ok(0));
    assert_eq!(beside(&others[..2], &[3]), Ok(0), "the last one has its call");
    assert_eq!(beside(&others[..1], &[3]), Err("2 fit".into()), "of the third one nothing is known");
    assert_eq!(beside(&others, &[0]), Err("POST http://stock/reservations".into()), "legacy made three calls");
    // A sibling that equals no call takes none.
    assert_eq!(beside(&[item(1, "b", 7), others[1].clone(), others[2].clone()], &[]), Err("2 fit".into()));
    // What a rule tolerates counts as equal, for the siblings too.
    let rules = json!({"effects": {"reserve": {"ids": ["$.of"]}}});
    let drawn = others.map(|other| {
        let mut body = other.body.clone();
        body["of"] = json!(9);
        Intent { body, ..other }
    });
    assert_eq!(found_beside(&calls, (&wrong, &drawn), &[], rules), Ok(0));
}

#[test]
fn one_of_several_equal_calls_is_taken_only_if_it_does_not_matter_which() {
    let twice = calls(CHARGES, &[json!({"amount": 12}), json!({"amount": 12})]);
    // The step makes one charge only: legacy made it twice, which the comparison reports, also if the amount is wrong.
    for amount in [12, 13] {
        assert_eq!(found(&twice, &charge(json!({"amount": amount})), &[], json!({})), Ok(0));
    }
    let two = calls(CHARGES, &[json!({"amount": 11}), json!({"amount": 13})]);
    assert_eq!(found(&two, &charge(json!({"amount": 12})), &[], json!({})), Err("2 fit".into()));
    let item = intent("reserve", Some(0), "POST", RESERVATIONS, json!({"sku": "a"}));
    let equal = calls(RESERVATIONS, &[json!({"sku": "a"}), json!({"sku": "a"})]);
    assert_eq!(found(&equal, &item, &[], json!({})), Err("2 fit".into()), "their replies differ");
    let reply = equal[0].reply.clone();
    let same: Vec<_> = equal.iter().map(|call| Arc::new(Effect { reply: reply.clone(), ..(**call).clone() })).collect();
    assert_eq!(found(&same, &item, &[], json!({})), Ok(0), "their replies are equal");
}

/// An order with two equal lines: legacy reserves the first, then the second.
#[test]
fn equal_items_have_equal_calls_in_turn_if_legacy_made_them_one_after_the_other() {
    let of = |sku: &str| json!({ "sku": sku });
    let item = |n: u32, sku: &str| intent("reserve", Some(n), "POST", RESERVATIONS, of(sku));
    let items = [item(0, "a"), item(1, "b"), item(2, "a"), item(3, "a")];
    let replied = |after: u64| {
        let calls = calls(RESERVATIONS, &[of("a"), of("b"), of("a"), of("a")]).into_iter();
        let replied = move |call: Arc<Effect>| Effect { replied_before: Some(call.number + after), ..(*call).clone() };
        calls.map(|call| Arc::new(replied(call))).collect::<Vec<_>>()
    };
    let take = |calls: &[Arc<Effect>], n: usize, taken: &[(usize, u64)]| {
        let others = (0..items.len()).filter(|other| *other != n && taken.iter().all(|(item, _)| item != other));
        let siblings: Vec<Intent> = others.map(|other| items[other].clone()).collect();
        let assigned: Vec<u64> = taken.iter().map(|(_, number)| *number).collect();
        found_beside(calls, (&items[n], &siblings), &assigned, json!({}))
    };
    for order in [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]] {
        let (calls, mut taken) = (replied(1), Vec::new());
        for n in order {
            let number = take(&calls, n, &taken).unwrap();
            assert_eq!(number, n as u64, "{order:?}");
            taken.push((n, number));
        }
    }
    assert_eq!(take(&replied(3), 0, &[]), Err("3 fit".into()), "they were under way at the same time");
    let fewer: Vec<_> = replied(1).into_iter().take(3).collect();
    assert_eq!(take(&fewer, 0, &[]), Err("2 fit".into()), "legacy made one call less");
}

#[test]
fn a_call_that_a_child_workflow_may_have_made_corresponds_only_if_it_is_equal() {
    let note = |body: Value| intent("entry", None, "POST", "http://audit/entries", body);
    let calls = calls("http://audit/entries", &[json!({"text": "a"})]);
    // The rules know no step `entry`, as where a plan changed; the child's template fits.
    assert_eq!(found(&calls, &note(json!({"text": "a"})), &[], json!({})), Ok(0));
    assert_eq!(found(&calls, &note(json!({"text": "b"})), &[], json!({})), Err("1 fit".into()));
}

#[test]
fn the_nearest_call_is_named_without_its_values() {
    let mut calls = calls("http://bank/v1/charges/ch_Secret77/void?token=abc", &[json!({"amount": 12})]);
    calls.extend(self::calls("http://mailer/orders/7/mails", &[json!({"amount": 12})]));
    let nearest = found(&calls, &charge(json!({"amount": 12})), &[], json!({})).unwrap_err();
    assert_eq!(nearest, "POST http://bank/v1/charges/{}/void");
    assert_eq!(found(&[], &charge(json!({})), &[], json!({})), Err("none".into()));
}

#[test]
fn an_attempt_that_legacy_repeated_is_left_out_and_the_bounds_hold() {
    let mut calls = calls(CHARGES, &[json!({"amount": 12}), json!({"amount": 12})]);
    let failed = EffectReply { status: StatusCode::SERVICE_UNAVAILABLE, ..calls[0].reply.clone().unwrap() };
    calls[0] = Arc::new(Effect { reply: Some(failed), ..(*calls[0]).clone() });
    assert_eq!(found(&calls, &charge(json!({"amount": 12})), &[], json!({})), Ok(1));
    let rules = checked(&json!({})).unwrap();
    let search = |bounds, expired| {
        let (intent, assigned) = (charge(json!({})), BTreeSet::new());
        corresponding_call(&rules, &calls, (&intent, &Vec::new), &assigned, &bounds, &|| expired).map(|_| ())
    };
    assert_eq!(search(crate::compare::CompareBounds { effects: 1, ..BOUNDS }, false), Err(BoundExceeded::Effects));
    assert_eq!(search(BOUNDS, true), Err(BoundExceeded::Time));
}

#[test]
fn a_comparison_keeps_the_assignment_that_the_run_made() {
    let calls = vec![posted(CHARGES, json!({"amount": 13})), posted(CHARGES, json!({"amount": 12}))];
    let differences = |taken_from| {
        let intent = Intent { taken_from, ..charge(json!({"amount": 12})) };
        let ids = (json!(1), json!(1));
        let comparison =
            compared((&ids.0, &ids.1), calls.clone(), vec![intent], &checked(&json!({})).unwrap()).unwrap();
        comparison.differences.iter().map(|found| (found.path.clone(), found.kind)).collect::<Vec<_>>()
    };
    let missing = ("effects.bank POST /v1/charges".to_owned(), DifferenceKind::EffectMissing);
    let differs = ("effects.charge.body.amount".to_owned(), DifferenceKind::EffectDiffers);
    assert_eq!(differences(None), std::slice::from_ref(&missing), "the equal call is its own");
    assert_eq!(differences(Some(1)), std::slice::from_ref(&missing));
    assert_eq!(differences(Some(0)), [differs, missing], "the step went on with the reply to the first");
}
