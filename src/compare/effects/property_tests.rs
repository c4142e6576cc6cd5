//! Properties that hold for the calls of any pair.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::tests::{CHARGES, compared, found, intent, posted, rules};
use crate::compare::{Comparison, DifferenceKind, Effect, Intent, Rules, Verdict};

/// What one request does. It is the same for both arms, except for the ids that each arm generates.
#[derive(Clone, Debug)]
struct Order {
    lines: Vec<(u8, u32)>,
    amount: u32,
    mails: usize,
}

fn any_order() -> impl Strategy<Value = Order> {
    let lines = prop::collection::btree_map(any::<u8>(), 1u32..5, 0..6);
    (lines, 1u32..100_000, 0usize..3).prop_map(|(lines, amount, mails)| {
        let lines = lines.into_iter().collect();
        Order { lines, amount, mails }
    })
}

/// A call of either arm, with the step that makes it.
#[derive(Clone, Debug, PartialEq)]
struct Made {
    step: &'static str,
    url: String,
    body: Value,
}

impl Order {
    /// Returns the calls of the arm whose ids begin with `arm`.
    fn calls(&self, arm: &str) -> Vec<Made> {
        let order = format!("{arm}-order");
        let reference = |n: usize| format!("{arm}-ref-{n}");
        let mut calls: Vec<Made> = self
            .lines
            .iter()
            .enumerate()
            .map(|(n, (sku, qty))| Made {
                step: "reserve",
                url: "http://stock/reservations".into(),
                body: json!({"sku": sku, "qty": qty, "ref": reference(n), "order": order}),
            })
            .collect();
        let references: Vec<_> = (0..self.lines.len()).map(reference).collect();
        let body = json!({"amount": self.amount, "order": order, "reservations": references});
        calls.push(Made { step: "charge", url: CHARGES.into(), body });
        let mail = |n| Made {
            step: "mail",
            url: format!("http://mailer/orders/{order}/mails"),
            body: json!({"n": n, "text": format!("Order {order} is paid.")}),
        };
        calls.extend((0..self.mails).map(mail));
        calls
    }
}

fn order_rules() -> Rules {
    rules(json!({"ids": ["$.id"], "effects": {
        "reserve": {"ids": ["$.ref", "$.order"]},
        "charge": {"ids": ["$.reservations[*]", "$.order"], "unordered": {"$.reservations": "set"}},
    }}))
}

fn of_pair(legacy: &[Made], engine: &[Made]) -> Comparison {
    let effects: Vec<Effect> = legacy.iter().map(|call| posted(&call.url, call.body.clone())).collect();
    let intents: Vec<Intent> =
        (0..).zip(engine).map(|(n, call)| intent(call.step, Some(n), "POST", &call.url, call.body.clone())).collect();
    let ids = (json!("legacy-order"), json!("engine-order"));
    compared((&ids.0, &ids.1), effects, intents, &order_rules()).unwrap()
}

/// Changes one value of a call that is not an id.
fn change(call: &mut Made, which: prop::sample::Index) {
    let Value::Object(body) = &mut call.body else { return };
    let plain: Vec<String> =
        body.keys().filter(|key| ["sku", "qty", "amount", "n", "text"].contains(&key.as_str())).cloned().collect();
    let value = &mut body[&plain[which.index(plain.len())]];
    *value = match &*value {
        Value::String(text) => Value::from(format!("{text}!")),
        other => Value::from(other.as_u64().unwrap_or_default() + 1_000_000),
    };
}

proptest! {
    #[test]
    fn clean_pairs_with_renamed_ids_do_not_differ(order in any_order(), swaps in any::<prop::sample::Index>()) {
        let mut legacy = order.calls("legacy");
        if !order.lines.is_empty() {
            // The items of a step are independent, and so are the elements of a set.
            legacy[..order.lines.len()].rotate_left(swaps.index(order.lines.len()));
            let charge = &mut legacy[order.lines.len()].body["reservations"];
            charge.as_array_mut().unwrap().rotate_left(swaps.index(order.lines.len()));
        }
        let comparison = of_pair(&legacy, &order.calls("engine"));
        prop_assert_eq!(comparison.verdict, Verdict::Ignored, "{:?}", comparison);
        let coverage = comparison.effects.unwrap();
        let compared: u32 = coverage.steps.values().map(|step| step.compared).sum();
        prop_assert_eq!(compared as usize, legacy.len());
    }

    #[test]
    fn a_changed_call_differs_and_is_named(
        order in any_order(), which in any::<prop::sample::Index>(), value in any::<prop::sample::Index>(),
    ) {
        let mut engine = order.calls("engine");
        let which = which.index(engine.len());
        change(&mut engine[which], value);
        let comparison = of_pair(&order.calls("legacy"), &engine);
        let start = format!("effects.{}.body.", engine[which].step);
        prop_assert!(!comparison.differences.is_empty());
        prop_assert!(comparison.differences.iter().all(|d| d.path.starts_with(&start)), "{:?}", comparison);
        prop_assert!(comparison.differences.iter().all(|d| d.kind == DifferenceKind::EffectDiffers));
    }

    #[test]
    fn a_reference_to_another_object_differs(order in any_order(), which in any::<prop::sample::Index>()) {
        let mut engine = order.calls("engine");
        let which = which.index(engine.len());
        let wrong = |text: &str| text.replace("engine-order", "engine-other");
        let call = &mut engine[which];
        call.url = wrong(&call.url);
        call.body = serde_json::from_str(&wrong(&call.body.to_string())).unwrap();
        let comparison = of_pair(&order.calls("legacy"), &engine);
        let start = format!("effects.{}.", engine[which].step);
        prop_assert!(!comparison.differences.is_empty());
        prop_assert!(comparison.differences.iter().all(|d| d.path.starts_with(&start)), "{:?}", comparison);
    }

    #[test]
    fn a_call_that_is_left_out_or_made_twice_is_named(
        order in any_order(), which in any::<prop::sample::Index>(), is_twice in any::<bool>(), by_legacy in any::<bool>(),
    ) {
        let (mut legacy, mut engine) = (order.calls("legacy"), order.calls("engine"));
        let changed = if by_legacy { &mut legacy } else { &mut engine };
        let which = which.index(changed.len());
        let call = changed[which].clone();
        if is_twice { changed.insert(which, call.clone()) } else { drop(changed.remove(which)) }
        let comparison = of_pair(&legacy, &engine);
        let kind = match (is_twice, by_legacy) {
            (true, _) => DifferenceKind::EffectDoubled,
            (false, true) => DifferenceKind::EffectExtra,
            (false, false) => DifferenceKind::EffectMissing,
        };
        let of_step = match call.step {
            "reserve" => "effects.stock POST /reservations",
            "charge" => "effects.bank POST /v1/charges",
            _ => "effects.mailer POST /orders/{}/mails",
        };
        let step = format!("effects.{}", call.step);
        let expected = if kind == DifferenceKind::EffectMissing { of_step } else { &*step };
        prop_assert_eq!(found(&comparison), [(expected, kind)], "{:?}", comparison);
    }

    #[test]
    fn calls_in_any_order_are_at_most_an_effect_order(
        (order, calls) in any_order().prop_flat_map(|order| (Just(order.clone()), Just(order.calls("legacy")).prop_shuffle()))
    ) {
        let comparison = of_pair(&calls, &order.calls("engine"));
        let ordered = comparison.differences.iter().all(|d| d.kind == DifferenceKind::EffectOrder);
        prop_assert!(ordered, "{:?}", comparison);
        let steps = |calls: &[Made]| calls.iter().map(|call| call.step).collect::<Vec<_>>();
        let is_same_order = steps(&calls) == steps(&order.calls("engine"));
        prop_assert_eq!(comparison.verdict == Verdict::Mismatch, !is_same_order, "{:?}", comparison);
    }

    #[test]
    fn a_comparison_never_panics_whatever_the_calls(
        calls in prop::collection::vec(("[ -~]{0,24}", "[ -~]{0,24}", any::<bool>()), 0..8),
    ) {
        let effects = calls.iter().map(|(url, body, named)| {
            let call = posted("http://bank/v1/charges", json!(body));
            Effect { url: url.clone(), service: call.service.clone().filter(|_| *named), ..call }
        });
        let intents = calls.iter().map(|(body, url, _)| Intent {
            url: url.clone(),
            ..intent("charge", None, "POST", "http://bank/v1/charges", json!(body))
        });
        let ids = (json!(1), json!(2));
        let rules = rules(json!({"effects": {"charge": {
            "ids": ["$", "$..*"], "ignore": ["query.a"], "unordered": {"$..*": "set"}, "tolerance": {"$": 5},
        }}}));
        let _ = compared((&ids.0, &ids.1), effects.collect(), intents.collect(), &rules);
    }
}

#[test]
fn the_work_of_the_largest_pair_is_bounded() {
    let calls = |seed: usize| -> Vec<Made> {
        let body = |n: usize| json!({"values": (0..40).map(|k| n * 1_000 + k * 7 + seed).collect::<Vec<_>>()});
        (0..1_000).map(|n| Made { step: "charge", url: CHARGES.into(), body: body(n) }).collect()
    };
    let legacy = calls(0);
    let effects = legacy
        .iter()
        .enumerate()
        .map(|(n, call)| std::sync::Arc::new(Effect { number: n as u64, ..posted(&call.url, call.body.clone()) }));
    let effects: Vec<_> = effects.collect();
    let intents = calls(3).iter().map(|call| intent(call.step, None, "POST", &call.url, call.body.clone())).collect();
    let reply = crate::compare::tests::reply(200, &[], "");
    let engine = crate::compare::Observation::new(
        reply.status(),
        reply.headers().clone(),
        reply.body().clone(),
        std::time::Duration::ZERO,
        intents,
    );
    let pair = crate::compare::Pair {
        legacy: &reply,
        engine: &engine,
        effects: Some(&effects),
        request: &Value::Null,
        stale_reads: false,
        instance: None,
        sensitive: None,
    };
    // The time is checked once for every 256 values or calls that are visited, and before each body is parsed.
    let checks = std::cell::Cell::new(0u32);
    let count = || {
        checks.set(checks.get() + 1);
        false
    };
    let whole = crate::compare::compare(&pair, &rules(json!({})), &crate::compare::tests::BOUNDS, &count).unwrap();
    assert_eq!(found(&whole), [("effects.charge.body.values[*]", DifferenceKind::EffectDiffers)]);
    assert!(checks.get() < 4_000, "{} checks of the time", checks.get());
    checks.set(0);
    let expire = || {
        checks.set(checks.get() + 1);
        checks.get() > 1_500
    };
    let ended = crate::compare::compare(&pair, &rules(json!({})), &crate::compare::tests::BOUNDS, &expire);
    assert_eq!(ended, Err(crate::compare::BoundExceeded::Time));
}
