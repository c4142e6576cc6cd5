//! Tests of comparing legacy's calls with the engine's intents.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method, StatusCode};
use serde_json::{Value, json};

use super::*;
use crate::compare::tests::{BOUNDS, reply};
use crate::compare::{
    Body, BoundExceeded, CompareContext, Comparison, DifferenceKind, Effect, EffectReply, HidesSensitive, Intent,
    Observation, Pair, Rules, RulesDraft, Verdict, compare,
};
use crate::names::StepId;
use crate::problem::{Problems, Site};

pub(super) const STEPS: [&str; 7] = ["quote", "reserve", "charge", "mail", "charge.undo", "stock", "note"];

/// The calls of a workflow: it reads a quote and the stock, reserves each item, charges a card (which can be undone),
/// writes a private note and sends a mail; its child workflow writes an audit entry.
pub(super) fn templates() -> Vec<CallTemplate> {
    let of = |step: &str, service: &str, method: Method, path: &str, role| CallTemplate {
        step: Some(step.into()),
        service: service.into(),
        method,
        path: path.into(),
        role,
        takes_reply: false,
        after: BTreeSet::new(),
        fan_out: None,
    };
    let read = |is_recorded| CallRole::Read { is_recorded };
    vec![
        of("quote", "shop", Method::POST, "/quotes", read(false)),
        of("stock", "stock", Method::GET, "/levels/{}", read(true)),
        of("reserve", "stock", Method::POST, "/reservations", CallRole::Shared),
        of("charge", "bank", Method::POST, "/v1/charges", CallRole::Shared),
        of("note", "shop", Method::POST, "/notes", CallRole::Private),
        of("mail", "mailer", Method::POST, "/orders/{}/mails", CallRole::Shared),
        of("charge.undo", "bank", Method::DELETE, "/v1/charges/{}", CallRole::Shared),
        CallTemplate {
            step: None,
            service: "audit".into(),
            method: Method::POST,
            path: "/entries".into(),
            role: CallRole::NotCompared { is_effect: true },
            takes_reply: false,
            after: BTreeSet::new(),
            fan_out: None,
        },
    ]
}

/// The checked rules; or what the check says of them, warnings included.
pub(super) fn checked(draft: &Value) -> Result<Rules, Vec<String>> {
    let (rules, shown) = check(draft)?;
    rules.filter(|_| shown.is_empty()).ok_or(shown)
}

fn check(draft: &Value) -> Result<(Option<Rules>, Vec<String>), Vec<String>> {
    let draft: RulesDraft = serde_json::from_value(draft.clone()).map_err(|e| vec![e.to_string()])?;
    let mut problems = Problems::default();
    let (calls, services) = (&*templates(), &["shop", "stock", "bank", "mailer", "audit", "analytics"]);
    let context = CompareContext { has_workflow: true, intents: &STEPS, runs: &["pay"], calls, services, redact: None };
    let rules = Rules::check(&draft, &Site::file("r.yaml").key("compare"), &context, &mut problems);
    let shown = problems.iter().map(|p| format!("{} {} {:?}", p.site, p.message, p.hint)).collect::<Vec<_>>();
    Ok((rules, shown))
}

/// The checked rules, of which the check may warn.
pub(super) fn rules(draft: Value) -> Rules {
    let checked = check(&draft).and_then(|(rules, shown)| rules.ok_or(shown));
    checked.unwrap_or_else(|problems| panic!("{problems:?}"))
}

pub(super) const JSON: (&str, &str) = ("content-type", "application/json");
const TO: &str = "effects.mail.body.to.body";
const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

fn service_of(url: &str) -> &str {
    url.split_once("://").unwrap().1.split(['/', ':']).next().unwrap()
}

/// A call by legacy that was answered with 200. [`compared`] sets its number.
pub(super) fn effect(method: &str, url: &str, header: (&str, &str), body: impl Into<Bytes>) -> Effect {
    let headers: HeaderMap =
        [(header.0.parse::<HeaderName>().unwrap(), header.1.parse().unwrap())].into_iter().collect();
    let answer = EffectReply::new(StatusCode::OK, HeaderMap::new(), Body::Whole(Bytes::new()));
    Effect {
        service: Some(service_of(url).into()),
        method: method.parse().unwrap(),
        url: url.to_owned(),
        headers,
        body: Body::Whole(body.into()),
        reply: Some(answer),
        number: 0,
        replied_before: None,
    }
}

pub(super) fn posted(url: &str, body: Value) -> Effect {
    effect("POST", url, JSON, body.to_string())
}

pub(super) fn intent(step: &str, item: Option<u32>, method: &str, url: &str, body: Value) -> Intent {
    Intent {
        step: StepId::new(step),
        item,
        method: method.parse().unwrap(),
        url: url.to_owned(),
        headers: vec![(JSON.0.to_owned(), JSON.1.to_owned())],
        body,
        service: Some(service_of(url).into()),
        bytes: None,
        taken_from: None,
    }
}

pub(super) const CHARGES: &str = "http://bank/v1/charges";

pub(super) fn charge(body: Value) -> Intent {
    intent("charge", None, "POST", CHARGES, body)
}

/// Compares a pair whose replies have these ids.
pub(super) fn compared(
    ids: (&Value, &Value),
    effects: Vec<Effect>,
    intents: Vec<Intent>,
    rules: &Rules,
) -> Result<Comparison, BoundExceeded> {
    let effects: Vec<Arc<Effect>> =
        (0..).zip(effects).map(|(number, effect)| Arc::new(Effect { number, ..effect })).collect();
    let json = |id: &Value| reply(200, &[JSON], json!({ "id": id }).to_string());
    let (legacy, engine) = (json(ids.0), json(ids.1));
    let engine =
        Observation::new(engine.status(), engine.headers().clone(), engine.body().clone(), Duration::ZERO, intents);
    let pair = Pair {
        legacy: &legacy,
        engine: &engine,
        effects: Some(&effects),
        request: &Value::Null,
        stale_reads: false,
        instance: None,
        sensitive: None,
    };
    compare(&pair, rules, &BOUNDS, &|| false)
}

pub(super) fn found(comparison: &Comparison) -> Vec<(&str, DifferenceKind)> {
    comparison.differences.iter().map(|d| (d.path.as_str(), d.kind)).collect()
}

/// Compares a pair with equal replies.
fn differences(effects: Vec<Effect>, intents: Vec<Intent>, draft: Value) -> Comparison {
    compared((&json!(1), &json!(1)), effects, intents, &rules(draft)).unwrap()
}

#[test]
fn calls_that_were_not_watched_are_not_judged() {
    let (legacy, engine) = (reply(200, &[], ""), reply(200, &[], ""));
    let engine = Observation::new(
        engine.status(),
        HeaderMap::new(),
        engine.body().clone(),
        Duration::ZERO,
        vec![charge(json!({"amount": 1}))],
    );
    let pair = Pair {
        legacy: &legacy,
        engine: &engine,
        effects: None,
        request: &Value::Null,
        stale_reads: false,
        instance: None,
        sensitive: None,
    };
    let comparison = compare(&pair, &rules(json!({})), &BOUNDS, &|| false).unwrap();
    assert_eq!((comparison.verdict, &comparison.effects), (Verdict::Match, &None));
    let watched = compare(&Pair { effects: Some(&[]), ..pair }, &rules(json!({})), &BOUNDS, &|| false).unwrap();
    assert_eq!(found(&watched), [("effects.charge", DifferenceKind::EffectExtra)]);
}

#[test]
fn equal_calls_match_and_are_counted_as_compared() {
    let body = json!({"amount": 1250, "currency": "EUR"});
    let comparison = differences(vec![posted(CHARGES, body.clone())], vec![charge(body)], json!({}));
    assert_eq!(comparison.verdict, Verdict::Match);
    let coverage = comparison.effects.unwrap();
    assert_eq!(coverage.steps[&StepId::new("charge")], StepCoverage { compared: 1, unmatched: 0 });
    assert_eq!(coverage.calls_not_judged, 0);
}

#[test]
fn a_wrong_amount_shows_at_its_path() {
    let legacy = posted(CHARGES, json!({"amount": 1250, "card": {"number": "4111"}}));
    let engine = charge(json!({"amount": 125_000, "card": {"number": "4222"}}));
    let comparison = differences(vec![legacy], vec![engine], json!({}));
    let paths = [("effects.charge.body.amount", DifferenceKind::EffectDiffers)];
    assert_eq!(found(&comparison)[0], paths[0]);
    let values = &comparison.differences[0];
    assert_eq!((values.legacy.as_deref(), values.engine.as_deref()), (Some("1250"), Some("125000")));
    assert!(!format!("{comparison:?}").contains("4222"), "{comparison:?}");
}

#[test]
fn every_form_of_difference_in_a_call_is_named() {
    let url = "http://mailer/orders/a/mails?lang=de&page=1";
    let mail = |header: (&str, &str), url: &str, body: &str| effect("POST", url, header, body.to_owned());
    let engine = |headers: &[(&str, &str)], url: &str, body: &str| Intent {
        headers: headers.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        bytes: Some(body.to_owned().into()),
        body: Value::String(body.to_owned()),
        ..intent("mail", None, "POST", url, Value::Null)
    };
    let text = ("content-type", "text/plain");
    let parts =
        |b: &str, to: &str| format!("--{b}\r\nContent-Disposition: form-data; name=to\r\n\r\n{to}\r\n--{b}--\r\n");
    let [in_a, in_b] = ["multipart/form-data; boundary=a", "multipart/form-data; boundary=b"].map(|of| (JSON.0, of));
    for (legacy, engine, draft, expected) in [
        (mail(in_a, url, &parts("a", "an")), engine(&[in_b], url, &parts("b", "an")), json!({}), vec![]),
        (mail(in_a, url, &parts("a", "an")), engine(&[in_b], url, &parts("b", "bo")), json!({}), vec![TO]),
        (mail(text, url, "a"), engine(&[text], url, "b"), json!({}), vec!["effects.mail.text"]),
        (mail(JSON, url, "{\"a\":1}"), engine(&[JSON], url, "{\"a\":1.0}"), json!({}), vec![]),
        (
            mail(JSON, url, "{\"a\":1}"),
            engine(&[JSON], url, "{\"b\":1}"),
            json!({}),
            vec!["effects.mail.body.a", "effects.mail.body.b"],
        ),
        (mail(JSON, url, "{}"), engine(&[FORM], url, "a=1"), json!({}), vec!["effects.mail.body"]),
        (mail(FORM, url, "a=1&b=x+y"), engine(&[FORM], url, "b=x%20y&a=1"), json!({}), vec![]),
        (
            mail(FORM, url, "amount=10&b=1"),
            engine(&[FORM], url, "amount=1000&b=1"),
            json!({}),
            vec!["effects.mail.body.amount"],
        ),
        (
            mail(text, url, "a"),
            engine(&[text], "http://mailer/orders/b/mails?lang=de&page=1", "a"),
            json!({}),
            vec!["effects.mail.path"],
        ),
        (
            mail(text, url, "a"),
            engine(&[text], "http://mailer/orders/b/mails?lang=de&page=1", "a"),
            json!({"ignore": ["path"]}),
            vec![],
        ),
        (
            mail(text, url, "a"),
            engine(&[text], "http://mailer/orders/a/mails?page=1&lang=en", "a"),
            json!({}),
            vec!["effects.mail.query.lang"],
        ),
        (
            mail(text, url, "a"),
            engine(&[text], "http://mailer/orders/a/mails?page=1", "a"),
            json!({"ignore": ["query.lang"]}),
            vec![],
        ),
        (mail(text, url, "a"), engine(&[("content-type", "text/html")], url, "a"), json!({}), vec![]),
        (
            mail(text, url, "a"),
            engine(&[("content-type", "text/html"), ("x-tenant", "t")], url, "a"),
            json!({"headers": ["content-type", "x-tenant"]}),
            vec!["effects.mail.headers.content-type", "effects.mail.headers.x-tenant"],
        ),
        (
            mail(text, url, "a"),
            engine(&[("content-type", "text/html")], url, "a"),
            json!({"headers": ["content-type"], "ignore": ["header.content-type"]}),
            vec![],
        ),
        (
            mail(("content-type", "image/png"), url, "a"),
            engine(&[("content-type", "image/png")], url, "b"),
            json!({}),
            vec!["effects.mail.body"],
        ),
        (mail(text, url, "a"), engine(&[text], url, "b"), json!({"ignore": ["$"]}), vec![]),
        (
            mail(JSON, url, "{\"a\":1.00,\"at\":1}"),
            engine(&[JSON], url, "{\"a\":1.01,\"at\":2}"),
            json!({"tolerance": {"$.a": 0.01}, "ignore": ["$.at"]}),
            vec![],
        ),
        (
            mail(JSON, url, "{\"to\":[1,2]}"),
            engine(&[JSON], url, "{\"to\":[2,1]}"),
            json!({"unordered": {"$.to": "set"}}),
            vec![],
        ),
        (
            mail(JSON, url, "{\"to\":[1,2]}"),
            engine(&[JSON], url, "{\"to\":[2,1]}"),
            json!({}),
            vec!["effects.mail.body.to"],
        ),
    ] {
        let draft = json!({"effects": {"mail": draft}});
        let shown = format!("{legacy:?}\n{engine:?}\n{draft}");
        let comparison = differences(vec![legacy], vec![engine], draft);
        let expected: Vec<_> = expected.into_iter().map(|path| (path, DifferenceKind::EffectDiffers)).collect();
        assert_eq!(found(&comparison), expected, "{shown}\n{comparison:?}");
    }
}

#[test]
fn a_wrong_reference_shows_and_the_right_one_does_not() {
    let ids =
        json!({"ids": ["$.id"], "effects": {"charge": {"ids": ["$.order", "$.key"]}, "mail": {"ids": ["$.key"]}}});
    let rules = rules(ids);
    let legacy = |order: Value, mailed: &str| {
        vec![
            posted(CHARGES, json!({"order": order, "key": "k-legacy", "note": "order ord-4012 paid"})),
            posted("http://mailer/orders/ord-4012/mails", json!({"key": mailed})),
        ]
    };
    let engine = |order: Value, path: &str, note: &str, mailed: &str| {
        vec![
            charge(json!({"order": order, "key": "k-engine", "note": note})),
            intent("mail", None, "POST", path, json!({"key": mailed})),
        ]
    };
    let verdict = |intents| {
        let ids = (json!("ord-4012"), json!("run-9001"));
        compared((&ids.0, &ids.1), legacy(json!("ord-4012"), "k-legacy"), intents, &rules).unwrap()
    };
    let (path, note) = ("http://mailer/orders/run-9001/mails", "order run-9001 paid");
    let right = verdict(engine(json!("run-9001"), path, note, "k-engine"));
    assert_eq!(right.verdict, Verdict::Ignored, "{right:?}");
    for (intents, expected) in [
        (engine(json!("run-9002"), path, note, "k-engine"), "effects.charge.body.order"),
        (engine(json!("ord-4012"), path, note, "k-engine"), "effects.charge.body.order"),
        (engine(json!("run-9001"), "http://mailer/orders/run-9002/mails", note, "k-engine"), "effects.mail.path"),
        (engine(json!("run-9001"), path, "order run-9002 paid", "k-engine"), "effects.charge.body.note"),
        (engine(json!("run-9001"), path, note, "k-other"), "effects.mail.body.key"),
        (engine(json!("run-9001"), path, note, "k-legacy"), "effects.mail.body.key"),
    ] {
        assert_eq!(found(&verdict(intents)), [(expected, DifferenceKind::EffectDiffers)]);
    }
}

#[test]
fn ids_of_calls_hold_for_the_reply_too() {
    let rules = rules(json!({"effects": {"charge": {"ids": ["$.order"]}}}));
    let verdict = |engine: &str| {
        let of = |order: &str| json!({ "order": order });
        let effects = vec![posted(CHARGES, of("ord-4012"))];
        compared((&json!("ord-4012"), &json!(engine)), effects, vec![charge(of("run-9001"))], &rules).unwrap()
    };
    assert_eq!(verdict("run-9001").verdict, Verdict::Ignored);
    assert_eq!(found(&verdict("run-9002")), [("$.id", DifferenceKind::Value)]);
}

#[test]
fn a_missing_call_is_named_by_service_method_and_template() {
    let mail = "http://mailer/orders/4012/mails";
    let comparison = differences(vec![posted(mail, json!({"to": "ada@example.org"}))], vec![], json!({}));
    assert_eq!(found(&comparison), [("effects.mailer POST /orders/{}/mails", DifferenceKind::EffectMissing)]);
    let other = posted("http://analytics/v2/events/4012?token=hunter2", json!({}));
    let comparison = differences(vec![other.clone()], vec![], json!({}));
    assert_eq!(found(&comparison), [("effects.analytics POST /v2/events/{}", DifferenceKind::EffectMissing)]);
    assert!(!format!("{comparison:?}").contains("hunter2"), "{comparison:?}");
    for ignored in ["analytics", "POST analytics/v2/events/*"] {
        let comparison = differences(vec![other.clone()], vec![], json!({"ignore_calls": [ignored]}));
        assert_eq!(comparison.verdict, Verdict::Ignored);
        assert_eq!(comparison.ignored_by, [(format!("ignore_calls {ignored}"), 1)]);
    }
    let charges = [7, 5].map(|n| posted(CHARGES, json!({ "amount": n }))); // a step makes such calls
    let comparison =
        differences(charges.to_vec(), vec![charge(json!({"amount": 5}))], json!({"ignore_calls": ["bank"]}));
    assert_eq!(found(&comparison), [("effects.bank POST /v1/charges", DifferenceKind::EffectMissing)]);
    let unknown = Effect { service: None, ..posted("https://Other.example:443/a", json!({})) };
    let comparison = differences(vec![unknown.clone()], vec![], json!({}));
    assert_eq!(found(&comparison), [("effects.other.example POST /a", DifferenceKind::EffectMissing)]);
    let comparison = differences(vec![unknown], vec![], json!({"ignore_calls": ["other.example"]}));
    assert_eq!(comparison.verdict, Verdict::Ignored);
}

#[test]
fn reads_and_calls_of_which_no_intent_is_recorded_are_not_missed() {
    let calls = vec![
        effect("GET", "http://shop/orders/7", JSON, ""),
        effect("GET", "http://stock/levels/a", JSON, ""),
        posted("http://shop/quotes", json!({"items": []})),
        posted("http://audit/entries", json!({})),
    ];
    let comparison = differences(calls.clone(), vec![], json!({}));
    assert_eq!((comparison.verdict, comparison.effects.unwrap().calls_not_judged), (Verdict::Match, 4));
    let counted = differences(calls, vec![], json!({"effects": {"stock": {"reads": true}}}));
    assert_eq!(found(&counted), [("effects.stock GET /levels/{}", DifferenceKind::EffectMissing)]);
    let read = |level: &str| intent("stock", None, "GET", &format!("http://stock/levels/{level}"), Value::Null);
    assert_eq!(differences(vec![], vec![read("a")], json!({})).verdict, Verdict::Match);
    let reads = json!({"effects": {"stock": {"reads": true}}});
    let wrong = differences(vec![effect("GET", "http://stock/levels/a", JSON, "")], vec![read("b")], reads);
    assert_eq!(found(&wrong), [("effects.stock.path", DifferenceKind::EffectDiffers)]);
}

#[test]
fn a_call_that_only_the_engine_would_make_is_extra() {
    let comparison = differences(vec![], vec![charge(json!({"amount": 1}))], json!({}));
    assert_eq!(found(&comparison), [("effects.charge", DifferenceKind::EffectExtra)]);
    assert_eq!(comparison.differences[0].engine.as_deref(), Some("POST http://bank/v1/charges"));
    let coverage = comparison.effects.unwrap();
    assert_eq!(coverage.steps[&StepId::new("charge")], StepCoverage { compared: 0, unmatched: 1 });
    let unseen = json!({"effects": {"charge": {"unseen": "goes over a message broker"}}});
    let comparison = differences(vec![], vec![charge(json!({"amount": 1}))], unseen);
    assert_eq!(
        (comparison.verdict, comparison.ignored_by),
        (Verdict::Ignored, vec![("effects.charge unseen".into(), 1)],)
    );
}

#[test]
fn a_doubled_charge_shows_on_either_side() {
    let body = json!({"amount": 1250});
    let of_legacy = |count| vec![posted(CHARGES, body.clone()); count];
    let of_engine = |count: u32| (0..count).map(|_| charge(body.clone())).collect::<Vec<_>>();
    for (legacy, engine, shown) in [(2, 1, ("2 equal calls", "1 call")), (1, 2, ("1 call", "2 equal calls"))] {
        let comparison = differences(of_legacy(legacy), of_engine(engine), json!({}));
        assert_eq!(found(&comparison), [("effects.charge", DifferenceKind::EffectDoubled)]);
        let values = &comparison.differences[0];
        assert_eq!((values.legacy.as_deref(), values.engine.as_deref()), (Some(shown.0), Some(shown.1)));
    }
    assert_eq!(differences(of_legacy(2), of_engine(2), json!({})).verdict, Verdict::Match);
    // A call with another amount does not count as equal.
    let other = vec![posted(CHARGES, body.clone()), posted(CHARGES, json!({"amount": 7}))];
    let comparison = differences(other, of_engine(1), json!({}));
    assert_eq!(found(&comparison), [("effects.bank POST /v1/charges", DifferenceKind::EffectMissing)]);
}

#[test]
fn another_attempt_of_a_failed_call_is_no_second_call() {
    let body = json!({"amount": 1250});
    let of_status =
        |status| EffectReply::new(StatusCode::from_u16(status).unwrap(), HeaderMap::new(), Body::Whole(Bytes::new()));
    let replied = |reply| Effect { reply, ..posted(CHARGES, body.clone()) };
    let unread = EffectReply { may_be_unread: true, ..of_status(201) };
    let failed = [None, Some(of_status(503)), Some(of_status(401)), Some(unread)].map(|first| (first, Verdict::Match));
    let done = [Some(of_status(402)), Some(of_status(201))].map(|first| (first, Verdict::Mismatch));
    for (first, verdict) in failed.into_iter().chain(done) {
        let calls = vec![replied(first), replied(Some(of_status(201)))];
        let comparison = differences(calls, vec![charge(body.clone())], json!({}));
        assert_eq!(comparison.verdict, verdict, "{comparison:?}");
    }
}

#[test]
fn calls_in_another_order_are_named_once() {
    let mail = "http://mailer/orders/7/mails";
    let legacy = || vec![posted(mail, json!({})), posted(CHARGES, json!({}))];
    let engine = || vec![charge(json!({})), intent("mail", None, "POST", mail, json!({}))];
    let comparison = differences(legacy(), engine(), json!({}));
    assert_eq!(found(&comparison), [("effects.mail, effects.charge", DifferenceKind::EffectOrder)]);
    let values = &comparison.differences[0];
    assert_eq!(values.legacy.as_deref(), Some("mail, then charge"));
    let comparison = differences(legacy(), engine(), json!({"effects": {"mail": {"any_order": true}}}));
    assert_eq!(
        (comparison.verdict, comparison.ignored_by),
        (Verdict::Ignored, vec![("effects.mail any_order".into(), 1)],)
    );
}

#[test]
fn the_items_of_a_step_are_paired_by_content_and_the_wrong_one_is_named() {
    let reserve = "http://stock/reservations";
    let body = |sku: &str, qty: u32| json!({"sku": sku, "qty": qty});
    let item = |n, sku, qty| intent("reserve", Some(n), "POST", reserve, body(sku, qty));
    let legacy = || vec![posted(reserve, body("c", 3)), posted(reserve, body("a", 1)), posted(reserve, body("b", 2))];
    let engine = vec![item(0, "a", 1), item(1, "b", 2), item(2, "c", 3)];
    assert_eq!(differences(legacy(), engine, json!({})).verdict, Verdict::Match);
    let engine = vec![item(0, "a", 1), item(1, "b", 20), item(2, "c", 3)];
    let comparison = differences(legacy(), engine, json!({}));
    assert_eq!(found(&comparison), [("effects.reserve.body.qty", DifferenceKind::EffectDiffers)]);
    let engine = vec![item(0, "b", 20), item(1, "a", 10), item(2, "c", 3)];
    let comparison = differences(legacy(), engine, json!({}));
    assert_eq!(found(&comparison), [("effects.reserve.body.qty", DifferenceKind::EffectDiffers)], "by sku");
    let comparison = differences(legacy(), vec![item(0, "a", 1), item(1, "c", 3)], json!({}));
    assert_eq!(found(&comparison), [("effects.stock POST /reservations", DifferenceKind::EffectMissing)]);
}

#[test]
fn a_secret_of_the_engine_may_be_anything_in_legacys_call() {
    let legacy = |key: &str| Effect {
        headers: [("authorization", key), JSON]
            .into_iter()
            .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap()))
            .collect(),
        ..posted("http://bank/v1/charges?key=k1", json!({"a": 1}))
    };
    let engine = Intent {
        headers: vec![("authorization".into(), "Bearer ***".into()), (JSON.0.into(), JSON.1.into())],
        url: "http://bank/v1/charges?key=***".into(),
        ..charge(json!({"a": 1}))
    };
    let draft = json!({"effects": {"charge": {"headers": ["authorization"]}}});
    assert_eq!(differences(vec![legacy("Bearer s3cret")], vec![engine.clone()], draft.clone()).verdict, Verdict::Match);
    let comparison = differences(vec![legacy("Basic s3cret")], vec![engine], draft);
    assert_eq!(found(&comparison), [("effects.charge.headers.authorization", DifferenceKind::EffectDiffers)]);
    assert!(!format!("{comparison:?}").contains("s3cret"), "{comparison:?}");
}

#[test]
fn a_secret_in_a_url_does_not_hide_which_calls_belong_together() {
    let delete = |id: &str| effect("DELETE", &format!("http://bank/v1/charges/{id}?key=s3cret"), JSON, "");
    let undo = |item, id: &str| {
        intent("charge.undo", Some(item), "DELETE", &format!("http://bank/v1/charges/{id}?key=***"), Value::Null)
    };
    let legacy = || vec![delete("b"), delete("a"), delete("c")];
    let comparison = differences(legacy(), vec![undo(0, "a"), undo(1, "b"), undo(2, "c")], json!({}));
    assert_eq!(comparison.verdict, Verdict::Match, "{comparison:?}");
    let comparison = differences(legacy(), vec![undo(0, "a"), undo(1, "b")], json!({}));
    assert_eq!(found(&comparison), [("effects.bank DELETE /v1/charges/{}", DifferenceKind::EffectMissing)]);
}

/// Hides `CARD-4111` wherever it stands.
struct HidesCard;

impl HidesSensitive for HidesCard {
    fn hide_in_value(&self, value: &mut Value) {
        if let Value::String(text) = value {
            *text = self.hide_in_text(text);
        }
    }
    fn hide_in_text(&self, text: &str) -> String {
        text.replace("CARD-4111", "***")
    }
}

#[test]
fn what_is_sensitive_is_hidden_wherever_a_call_shows_it() {
    let (legacy, engine) = (reply(200, &[], ""), reply(200, &[], ""));
    let mailed = |text: &str| posted("http://mailer/orders/7/mails?c=CARD-4111", json!({ "note": text }));
    let effects = [
        mailed("CARD-4111"),
        posted("http://bank/v1/cards/CARD-4111", json!({})),
        Effect {
            headers: [("x-card".parse::<HeaderName>().unwrap(), "CARD-4111".parse().unwrap())].into_iter().collect(),
            ..posted(CHARGES, json!({}))
        },
    ];
    let effects: Vec<_> = effects.into_iter().map(Arc::new).collect();
    let intents = vec![
        intent("mail", None, "POST", "http://mailer/orders/8/mails?c=x", json!({"note": "x CARD-4111"})),
        charge(json!({})),
        intent("charge.undo", None, "DELETE", "http://bank/v1/charges/CARD-4111", Value::Null),
    ];
    let headers = engine.headers().clone();
    let engine = Observation::new(engine.status(), headers, engine.body().clone(), Duration::ZERO, intents);
    let pair = Pair {
        legacy: &legacy,
        engine: &engine,
        effects: Some(&effects),
        request: &Value::Null,
        stale_reads: false,
        instance: None,
        sensitive: Some(&HidesCard),
    };
    let rules = rules(json!({"effects": {"charge": {"headers": ["x-card"]}}}));
    let comparison = compare(&pair, &rules, &BOUNDS, &|| false).unwrap();
    let shown = format!("{comparison:?}");
    assert!(comparison.differences.len() >= 5 && !shown.contains("4111"), "{shown}");
}

#[test]
fn a_body_that_was_not_captured_or_too_many_calls_end_without_a_verdict() {
    let too_large = || Effect { body: Body::TooLarge, ..posted(CHARGES, json!({})) };
    let compare = |effects, draft| compared((&json!(1), &json!(1)), effects, vec![charge(json!({}))], &rules(draft));
    assert_eq!(compare(vec![too_large()], json!({})), Err(BoundExceeded::Size));
    let unread = compare(vec![too_large()], json!({"effects": {"charge": {"ignore": ["$"]}}})).unwrap();
    assert_eq!(unread.intents[&StepId::new("charge")].compared, 0, "nothing but its address was compared");
    assert_eq!(unread.verdict, Verdict::Ignored);
    let many = vec![posted(CHARGES, json!({})); BOUNDS.effects + 1];
    assert_eq!(compare(many, json!({})), Err(BoundExceeded::Effects));
}

#[test]
fn calls_are_also_judged_where_the_statuses_are_of_different_classes() {
    let of = |status: u16, body: &str| reply(status, &[("content-type", "text/plain")], body.to_owned());
    let (legacy, engine) = (of(200, "a"), of(402, "declined"));
    let effects = [Arc::new(posted(CHARGES, json!({})))];
    let pair = Pair {
        legacy: &legacy,
        engine: &engine,
        effects: Some(&effects),
        request: &Value::Null,
        stale_reads: false,
        instance: None,
        sensitive: None,
    };
    let comparison = compare(&pair, &rules(json!({})), &BOUNDS, &|| false).unwrap();
    let missing = ("effects.bank POST /v1/charges", DifferenceKind::EffectMissing);
    assert_eq!(found(&comparison), [("status", DifferenceKind::Status), missing]);
}
