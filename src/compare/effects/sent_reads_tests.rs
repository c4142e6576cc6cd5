//! Tests of telling legacy's reads from its other calls to the same address.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};

use super::tests::*;
use super::{CallRole, CallTemplate};
use crate::compare::tests::{BOUNDS, reply};
use crate::compare::*;
use crate::secret::STARS;

const QUOTES: &str = "http://shop/quotes";
const RPC: &str = "http://bank/rpc";

/// The rules of a workflow that also reads and charges at one address.
fn rules_with_rpc(draft: Value) -> Rules {
    let mut rules = rules(draft);
    let of = |step: &str, role| CallTemplate {
        step: Some(step.into()),
        service: "bank".into(),
        method: Method::POST,
        path: "/rpc".into(),
        role,
        takes_reply: false,
        after: Default::default(),
        fan_out: None,
    };
    let read = CallRole::Read { is_recorded: false };
    rules.effects.templates.extend([of("rate", read), of("bill", CallRole::Shared)]);
    rules
}

fn asked(url: &str, body: Value) -> Intent {
    intent(if url == RPC { "rate" } else { "quote" }, None, "POST", url, body)
}

/// Compares equal replies; `reads`: those of the run.
fn compared_with(reads: Option<Vec<Intent>>, effects: Vec<Effect>, intents: Vec<Intent>, rules: &Rules) -> Comparison {
    let effects: Vec<Arc<Effect>> =
        (0..).zip(effects).map(|(number, effect)| Arc::new(Effect { number, ..effect })).collect();
    let legacy = reply(201, &[JSON], r#"{"id":1}"#);
    let body = Body::Whole(r#"{"id":1}"#.into());
    let headers: HeaderMap = legacy.headers().clone();
    let engine = Observation::new(StatusCode::CREATED, headers, body, Duration::ZERO, intents).with_sent_reads(reads);
    let (effects, request) = (Some(&effects[..]), &Value::Null);
    let (stale_reads, instance, sensitive) = (false, None, None);
    let pair = Pair { legacy: &legacy, engine: &engine, effects, request, stale_reads, instance, sensitive };
    compare(&pair, rules, &BOUNDS, &|| false).unwrap()
}

fn missing(path: &str) -> Vec<(&str, DifferenceKind)> {
    vec![(path, DifferenceKind::EffectMissing)]
}

#[test]
fn a_call_to_where_a_step_reads_passes_only_if_the_run_made_an_equal_read() {
    let of = |reads: Option<Vec<Value>>, calls: &[Value], draft: Value| {
        let reads = reads.map(|reads| reads.into_iter().map(|body| asked(QUOTES, body)).collect());
        let calls = calls.iter().map(|body| posted(QUOTES, body.clone())).collect();
        compared_with(reads, calls, Vec::new(), &rules(draft))
    };
    let (quote, fee) = (json!({"method": "quote", "sku": "a"}), json!({"method": "fee"}));
    let none = json!({});
    let equal = of(Some(vec![quote.clone()]), &[quote.clone(), quote.clone()], none.clone());
    assert_eq!(equal.verdict, Verdict::Match, "{:?}", equal.differences);
    assert_eq!(equal.effects.unwrap().calls_not_judged, 2);
    let other = of(Some(vec![quote.clone()]), &[quote.clone(), fee.clone()], none.clone());
    assert_eq!(found(&other), missing("effects.shop POST /quotes"));
    let without = of(Some(Vec::new()), std::slice::from_ref(&fee), none.clone());
    assert_eq!(found(&without), missing("effects.shop POST /quotes"), "the run read nothing");
    let unknown = of(None, std::slice::from_ref(&fee), none);
    assert_eq!((unknown.verdict, unknown.effects.unwrap().calls_not_judged), (Verdict::Match, 1));
    let ignored = json!({ "effects": { "quote": { "ignore": ["$.at"] } } });
    let at = |at: u32| json!({"method": "quote", "at": at});
    let by_rule = of(Some(vec![at(1)]), &[at(2)], ignored);
    assert_eq!((by_rule.verdict, by_rule.differences.len()), (Verdict::Ignored, 0));
    assert!(by_rule.ignored_by.iter().any(|(rule, _)| rule.contains("$.at")), "{:?}", by_rule.ignored_by);
    let listed = of(Some(Vec::new()), &[fee], json!({ "ignore_calls": ["POST shop/quotes"] }));
    assert_eq!(listed.verdict, Verdict::Ignored);
}

#[test]
fn a_call_with_a_safe_method_is_a_read_whatever_the_run_read() {
    let mut rules = rules_with_rpc(json!({}));
    let get = |step: &CallTemplate| CallTemplate { method: Method::GET, path: "/account".into(), ..step.clone() };
    let read = rules.effects.templates.iter().find(|template| template.reads()).map(get).expect("a read");
    rules.effects.templates.push(read);
    let call = || Effect { method: Method::GET, ..posted("http://bank/account", Value::Null) };
    for reads in [None, Some(Vec::new()), Some(vec![asked(RPC, json!({"method": "rate"}))])] {
        let comparison = compared_with(reads, vec![call()], Vec::new(), &rules);
        assert_eq!(comparison.verdict, Verdict::Match, "{:?}", comparison.differences);
        assert_eq!(comparison.effects.unwrap().calls_not_judged, 1);
    }
}

#[test]
fn a_read_and_an_effect_at_one_address_are_told_apart() {
    let rate = || json!({"method": "rate", "currency": "EUR", "for": "order"});
    let charge = |amount: u32| json!({"method": "charge", "amount": amount});
    let of = |calls: Vec<Value>, amount: u32| {
        let calls = calls.into_iter().map(|body| posted(RPC, body)).collect();
        let intents = vec![intent("bill", None, "POST", RPC, charge(amount))];
        compared_with(Some(vec![asked(RPC, rate())]), calls, intents, &rules_with_rpc(json!({})))
    };
    assert_eq!(of(vec![rate(), charge(5)], 5).verdict, Verdict::Match);
    let wrong = of(vec![rate(), charge(5)], 7);
    assert_eq!(found(&wrong), [("effects.bill.body.amount", DifferenceKind::EffectDiffers)]);
    // The read is not taken for the charge that legacy did not make.
    let extra = of(vec![rate()], 5);
    assert_eq!(found(&extra), [("effects.bill", DifferenceKind::EffectExtra)]);
    let fee = of(vec![rate(), json!({"method": "fee"}), charge(5)], 5);
    assert_eq!(found(&fee), missing("effects.bank POST /rpc"));
}

/// A comparison with a read that is not equal is rolled back, and so is what it added to the fingerprint.
#[test]
fn reads_that_are_not_equal_change_no_fingerprint() {
    let text = |text: &str| Body::Whole(text.to_owned().into_bytes().into());
    let called = |body: &str| {
        let call = Effect { body: text(body), ..posted(QUOTES, Value::Null) };
        let reads = Some(vec![Intent { bytes: Some("quote a".into()), ..asked(QUOTES, Value::Null) }]);
        let comparison = compared_with(reads, vec![call], Vec::new(), &rules(json!({})));
        assert_eq!(found(&comparison), missing("effects.shop POST /quotes"));
        comparison.fingerprint
    };
    assert_eq!(called("one more thing"), called("something else"));
}

#[test]
fn a_secret_in_the_address_of_a_read_may_be_anything() {
    let of = |legacy: &str, engine: &str| {
        let at = |query: &str| format!("{QUOTES}?{query}");
        let calls = vec![posted(&at(legacy), json!({"sku": 1}))];
        let reads = Some(vec![asked(&at(engine), json!({"sku": 1}))]);
        compared_with(reads, calls, Vec::new(), &rules(json!({}))).differences.len()
    };
    let masked = format!("key={STARS}&lang=de");
    assert_eq!(of("key=k-17&lang=de", &masked), 0);
    assert_eq!(of("key=k-17&lang=fr", &masked), 1);
}

#[test]
fn the_reads_of_a_sample_are_kept_and_judged_again() {
    let (quote, fee) = (json!({"method": "quote", "sku": "a"}), json!({"method": "fee"}));
    let effects: Vec<Arc<Effect>> = vec![Arc::new(posted(QUOTES, quote.clone())), Arc::new(posted(QUOTES, fee))];
    let legacy = reply(201, &[JSON], r#"{"id":1}"#);
    let engine = reply(201, &[JSON], r#"{"id":1}"#).with_sent_reads(Some(vec![asked(QUOTES, quote)]));
    let (effects, request) = (Some(&effects[..]), &Value::Null);
    let (stale_reads, instance, sensitive) = (false, None, None);
    let pair = Pair { legacy: &legacy, engine: &engine, effects, request, stale_reads, instance, sensitive };
    let in_force = rules(json!({}));
    let context = KeepContext {
        request: &Value::Null,
        earlier_ids: &[],
        rules: &in_force,
        bounds: &BOUNDS,
        sensitive: None,
        bytes_max: 1 << 20,
        expired: &|| false,
    };
    let PairRecord::Pair(kept) = keep(&pair, &context) else { panic!("it is not kept") };
    let kept: KeptPair = serde_json::from_str(&serde_json::to_string(&kept).unwrap()).unwrap();
    let differences = compare(&pair, &in_force, &BOUNDS, &|| false).unwrap().differences;
    assert_eq!(differences.len(), 1);
    let looser = rules(json!({ "ignore_calls": ["POST shop/quotes"] }));
    let again = rejudge(&kept, &differences, &in_force, &looser, &BOUNDS, &|| false).unwrap();
    assert_eq!(again.comparison.verdict, Verdict::Ignored);
}
