use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method, StatusCode};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;
use crate::compare::tests::{BOUNDS, found, json_reply, reply, rules};
use crate::compare::{
    Body, Comparison, EarlierIds, Effect, EffectReply, HidesSensitive, IdSubject, InstanceIds, Intent, Observation,
    Pair, Rules, Verdict, compare, compare_in_instance,
};

const BYTES_MAX: usize = 64 << 10;

fn pair<'a>(legacy: &'a Observation, engine: &'a Observation, request: &'a Value) -> Pair<'a> {
    Pair { legacy, engine, effects: None, request, instance: None, stale_reads: false, sensitive: None }
}

fn compared(pair: &Pair<'_>, rules: &Rules) -> Comparison {
    compare(pair, rules, &BOUNDS, &|| false).unwrap()
}

fn kept_with(pair: &Pair<'_>, rules: &Rules, sensitive: Option<&dyn SensitiveParts>, bytes_max: usize) -> PairRecord {
    keep(
        pair,
        &KeepContext {
            request: pair.request,
            earlier_ids: &[],
            rules,
            bounds: &BOUNDS,
            sensitive,
            bytes_max,
            expired: &|| false,
        },
    )
}

/// What is kept of a pair, as it is read from the store.
fn kept(pair: &Pair<'_>, rules: &Rules) -> KeptPair {
    let kept = kept_with(pair, rules, None, BYTES_MAX);
    match serde_json::from_str(&serde_json::to_string(&kept).unwrap()).unwrap() {
        PairRecord::Pair(read) => {
            assert_eq!(PairRecord::Pair(read.clone()), kept);
            *read
        }
        PairRecord::Not(why) => panic!("{why}"),
    }
}

fn tried(pair: &Pair<'_>, in_force: &Rules, trial: Value) -> Result<Rejudged, NotJudged> {
    let differences = compared(pair, in_force).differences;
    rejudge(&kept(pair, in_force), &differences, in_force, &rules(trial), &BOUNDS, &|| false)
}

#[test]
fn nothing_secret_is_kept_and_the_pair_is_judged_as_before() {
    let body = |id: &str, secret: &str| json!({"id": id, "total": 1.10, "auth": {"token": secret}, "next": format!("/x?api_key={secret}")});
    let headers = [("content-type", "application/json"), ("set-cookie", "sid=hunter2"), ("location", "/orders/7")];
    let legacy = reply(201, &headers, body("A-1", "hunter2").to_string());
    let engine = reply(201, &headers, body("B-1", "hunter2").to_string());
    let request = json!({"method": "POST", "path": "/orders", "query": {}, "headers": {"authorization": "Bearer hunter2"},
        "body": "hunter2"});
    let pair = pair(&legacy, &engine, &request);
    let in_force = Rules::default();
    let kept = kept(&pair, &in_force);
    let text = serde_json::to_string(&kept).unwrap();
    assert!(!text.contains("hunter2"), "{text}");
    assert!(text.contains("A-1") && text.contains("1.1") && text.contains("/orders/7"), "{text}");

    let rejudged = tried(&pair, &in_force, json!({"ids": ["$.id"]})).unwrap();
    assert_eq!((rejudged.comparison.verdict, rejudged.still.len(), rejudged.new.len()), (Verdict::Ignored, 0, 0));
    assert_eq!(rejudged.comparison.ignored_by[0].0, "ids $.id");
    let rejudged = tried(&pair, &in_force, json!({"ignore": ["$.total"], "headers": ["set-cookie"]})).unwrap();
    assert_eq!((rejudged.still[0].path.as_str(), rejudged.new.len()), ("$.id", 0));
}

#[test]
fn masked_values_are_judged_for_equality_only() {
    let (legacy, engine) = (json_reply(&json!({"card": 4111, "n": 1})), json_reply(&json!({"card": 4112, "n": 2})));
    let request = json!({});
    let pair = pair(&legacy, &engine, &request);
    let in_force = Rules::default();
    let rejudged = tried(&pair, &in_force, json!({"ignore": ["$.n"]}));
    assert_eq!(rejudged, Err(NotJudged::Redacted("$.card".to_owned())), "it is not known why the two differ");
    let rejudged = tried(&pair, &in_force, json!({"ignore": ["$.n"], "tolerance": {"$.card": 5}}));
    assert_eq!(rejudged, Err(NotJudged::Redacted("$.card".to_owned())));
    // Whether they correspond one to one is known.
    assert_eq!(tried(&pair, &in_force, json!({"ignore": ["$.n"], "ids": ["$.card"]})).unwrap().still, []);
    let rejudged = tried(&pair, &in_force, json!({"ignore": ["$.card"]})).unwrap();
    assert_eq!(rejudged.still[0].path, "$.n", "a difference that is seen counts");
    let asserts = json!({"ignore": ["$.n", "$.card"], "assert": ["${legacy.body.card != 4112}"]});
    assert_eq!(tried(&pair, &in_force, asserts), Err(NotJudged::Redacted("legacy.body.card".to_owned())));
    let asserts = json!({"ignore": ["$.n", "$.card"], "assert": ["${legacy.body.n == 1}"]});
    assert_eq!(tried(&pair, &in_force, asserts).unwrap().still, []);
}

/// An assert over what was masked says nothing, whether it holds for what is kept or not; one beside it is judged.
#[test]
fn an_assert_is_judged_where_nothing_that_it_reads_was_masked() {
    let body = |n: i32| json!({"n": n, "card": {"pan": 4111, "month": 12}});
    let (legacy, engine) = (json_reply(&body(1)), json_reply(&body(2)));
    let request = json!({});
    let pair = pair(&legacy, &engine, &request);
    let tried = |assert: &str| tried(&pair, &Rules::default(), json!({"ignore": ["$.n"], "assert": [assert]}));
    for masked in
        ["${legacy.body.card.month == 12}", "${legacy.body.card.month == 11}", "${size(legacy.body.card) == 9}"]
    {
        let path = if masked.contains("month") { "legacy.body.card.month" } else { "legacy.body.card" };
        assert_eq!(tried(masked), Err(NotJudged::Redacted(path.to_owned())), "{masked}");
    }
    // What is absent was not masked.
    assert_eq!(tried("${!has(legacy.body.note)}").unwrap().new, []);
    assert_eq!(tried("${legacy.body.n == 2}").unwrap().new.len(), 1);
}

#[test]
fn texts_are_kept_where_the_rules_show_their_lines() {
    let headers = [("content-type", "text/plain")];
    let (legacy, engine) = (
        reply(200, &headers, "total 5\nPassword: hunter2\ngenerated 17:01\n"),
        reply(200, &headers, "total 5\nPassword: hunter2\ngenerated 17:02\n"),
    );
    let request = json!({});
    let pair = pair(&legacy, &engine, &request);
    let ignored = json!({"text": {"ignore": ["^generated .*"]}});
    assert_eq!(tried(&pair, &Rules::default(), ignored.clone()), Err(NotJudged::Digest));
    let in_force = rules(json!({"text": {}}));
    assert!(!serde_json::to_string(&kept(&pair, &in_force)).unwrap().contains("hunter2"));
    assert_eq!(tried(&pair, &in_force, ignored).unwrap().comparison.verdict, Verdict::Ignored);
}

#[test]
fn lines_that_are_secret_because_of_others_are_kept_as_placeholders() {
    let text = |secret: &str, total: u8| {
        let key = format!("-----BEGIN PRIVATE KEY-----\n{secret}\n-----END PRIVATE KEY-----");
        let body = format!("{key}\nPassword:\n  {secret}\ntotal {total}\nsecrets:\n  - a\n  - {secret}\nbye");
        reply(200, &[("content-type", "text/plain")], body)
    };
    let (legacy, engine, request) = (text("hunter2", 1), text("hunter2", 2), json!({}));
    let pair = pair(&legacy, &engine, &request);
    let in_force = rules(json!({ "text": {} }));
    let kept = serde_json::to_string(&kept(&pair, &in_force)).unwrap();
    assert!(!kept.contains("hunter2") && kept.contains("total 1") && kept.contains("bye"), "{kept}");
    let rejudged = tried(&pair, &in_force, json!({ "text": { "ignore": ["^total"] } })).unwrap();
    assert_eq!((rejudged.comparison.verdict, rejudged.new.len()), (Verdict::Ignored, 0));
}

#[test]
fn structures_are_kept_as_texts_of_their_format() {
    let request = json!({});
    for (kind, legacy, engine, secret, ignored) in [
        ("text/csv", "sku,token,n\n\"A,1\",hunter2,1\n", "sku,token,n\n\"A,1\",hunter2,2\n", true, "$.rows[*].n"),
        ("text/csv; header=absent", "1,2\n", "1,3\n", false, "$.rows[*][1]"),
        ("application/x-www-form-urlencoded", "a=x%26+y&pin=hunter2&b=1", "a=x%26+y&pin=hunter2&b=2", true, "$.b"),
        ("application/x-ndjson", "{\"a\":1.10}\n{\"a\":2}\n", "{\"a\":1.10}\n{\"a\":3}\n", false, "$[1].a"),
        (
            "application/xml",
            "<o id='1'><b>x</b><a k='&lt;\"'/><b>y</b><token>hunter2</token></o>",
            "<o id='1'><b>x</b><a k='&lt;\"'/><b>z</b><token>hunter2</token></o>",
            true,
            "$.o.b[1]",
        ),
    ] {
        let headers = [("content-type", kind)];
        let (legacy, engine) = (reply(200, &headers, legacy), reply(200, &headers, engine));
        let pair = pair(&legacy, &engine, &request);
        let text = serde_json::to_string(&kept(&pair, &Rules::default())).unwrap();
        assert_eq!((text.contains("hunter2"), text.contains("redacted")), (false, secret), "{kind}: {text}");
        let rejudged = tried(&pair, &Rules::default(), json!({"ignore": [ignored]}));
        assert_eq!(rejudged.unwrap().comparison.verdict, Verdict::Ignored, "{kind}");
    }
}

/// A call that legacy made to the bank.
fn call(number: u64, url: &str, body: &Value) -> Arc<Effect> {
    let headers = HeaderMap::from_iter([
        (http::header::CONTENT_TYPE, "application/json".parse().unwrap()),
        (http::header::AUTHORIZATION, "Bearer hunter2".parse().unwrap()),
    ]);
    Arc::new(Effect {
        service: Some("bank".into()),
        method: Method::POST,
        url: url.to_owned(),
        headers,
        body: Body::Whole(body.to_string().into()),
        reply: Some(EffectReply::new(StatusCode::CREATED, HeaderMap::new(), Body::TooLarge)),
        number,
        replied_before: None,
    })
}

fn intent(url: &str, body: Value) -> Intent {
    Intent {
        step: "charge".into(),
        item: None,
        method: Method::POST,
        url: url.to_owned(),
        headers: vec![("authorization".to_owned(), "Bearer ***".to_owned())],
        body,
        service: Some("bank".into()),
        bytes: None,
        taken_from: None,
    }
}

fn with_intents(intents: Vec<Intent>) -> Observation {
    let headers = HeaderMap::from_iter([(http::header::CONTENT_TYPE, "application/json".parse().unwrap())]);
    Observation::new(StatusCode::OK, headers, Body::Whole("{}".into()), Duration::ZERO, intents)
}

#[test]
fn calls_are_kept_and_judged_again() {
    let effects = [call(1, "http://bank/charges?key=1&api_key=hunter2", &json!({"amount": 5, "card": "hunter2"}))];
    let url = "http://bank/charges?key=1&api_key=***";
    let engine = with_intents(vec![intent(url, json!({"amount": 6, "card": "hunter2"}))]);
    let (legacy, request) = (json_reply(&json!({})), json!({}));
    let pair = Pair { effects: Some(&effects), ..pair(&legacy, &engine, &request) };
    let in_force = Rules::default();
    assert_eq!(found(&compared(&pair, &in_force))[0].0, "effects.charge.body.amount");
    let text = serde_json::to_string(&kept(&pair, &in_force)).unwrap();
    assert!(!text.contains("hunter2"), "{text}");
    let rejudged = tried(&pair, &in_force, json!({"effects": {"charge": {"tolerance": {"$.amount": 1}}}})).unwrap();
    assert_eq!(rejudged.comparison.verdict, Verdict::Ignored);
    let rejudged = tried(&pair, &in_force, json!({"assert": ["${intents.charge.body.amount == 5}"]})).unwrap();
    assert_eq!((rejudged.still.len(), rejudged.new.len()), (1, 1));
}

#[test]
fn calls_are_shown_side_by_side_although_only_the_digest_of_a_reply_is_kept() {
    let effects = [call(1, "http://bank/charges", &json!({"amount": 5}))];
    let engine = with_intents(vec![intent("http://bank/charges", json!({"amount": 5}))]);
    let request = json!({});
    let legacy = reply(200, &[("content-type", "text/plain")], "booking=BK-1".to_owned());
    let pair = Pair { effects: Some(&effects), ..pair(&legacy, &engine, &request) };
    let in_force = Rules::default();
    let calls = kept(&pair, &in_force).calls(&in_force, &BOUNDS, &|| false);
    let [call] = &calls[..] else { panic!("{calls:?}") };
    assert_eq!((call.compared_to, call.legacy.is_some(), call.engine.is_some()), (ComparedTo::Legacy, true, true));
}

/// Beside a call that the engine lacks, a read looks like one too.
#[test]
fn a_read_by_legacy_is_told_from_a_call_that_the_engine_does_not_make() {
    let read = Effect { method: Method::GET, ..Effect::clone(&call(1, "http://bank/rates", &Value::Null)) };
    let effects = [Arc::new(read), call(2, "http://bank/refunds", &json!({"amount": 5}))];
    let engine = with_intents(Vec::new());
    let (legacy, request) = (json_reply(&json!({})), json!({}));
    let pair = Pair { effects: Some(&effects), ..pair(&legacy, &engine, &request) };
    let in_force = Rules::default();
    let paths: Vec<_> = compared(&pair, &in_force).differences.into_iter().map(|found| found.path).collect();
    assert!(paths.iter().all(|path| !path.contains("rates")) && !paths.is_empty(), "{paths:?}");
    let calls = kept(&pair, &in_force).calls(&in_force, &BOUNDS, &|| false);
    let against: Vec<_> = calls.iter().map(|call| call.compared_to).collect();
    assert_eq!(against, [ComparedTo::Read, ComparedTo::Legacy]);
}

/// The route compares no texts, and a step does: its mails can be judged again.
#[test]
fn the_lines_of_calls_are_kept_where_a_step_compares_texts() {
    let printed = |second: u8| format!("total 5\nPassword: hunter2\ngenerated 17:0{second}\n");
    let headers = HeaderMap::from_iter([(http::header::CONTENT_TYPE, "text/plain".parse().unwrap())]);
    let of_legacy = Effect {
        headers,
        body: Body::Whole(printed(1).into()),
        ..Effect::clone(&call(1, "http://bank/charges", &Value::Null))
    };
    let of_engine = Intent {
        headers: vec![("content-type".to_owned(), "text/plain".to_owned())],
        bytes: Some(printed(2).into()),
        ..intent("http://bank/charges", Value::from(printed(2)))
    };
    let (effects, engine) = ([Arc::new(of_legacy)], with_intents(vec![of_engine]));
    let (legacy, request) = (json_reply(&json!({})), json!({}));
    let pair = Pair { effects: Some(&effects), ..pair(&legacy, &engine, &request) };
    let of_step = |text: Value| json!({"effects": {"charge": {"text": text}}});
    assert!(matches!(kept_with(&pair, &Rules::default(), None, BYTES_MAX), PairRecord::Not(NotKept::Unreadable)));
    let in_force = rules(of_step(json!({})));
    let kept = serde_json::to_string(&kept(&pair, &in_force)).unwrap();
    assert!(kept.contains("generated 17:02") && !kept.contains("hunter2"), "{kept}");
    let tried = tried(&pair, &in_force, of_step(json!({"ignore": ["^generated .*"]}))).unwrap();
    assert_eq!(tried.comparison.verdict, Verdict::Ignored);
}

#[test]
fn the_ids_of_an_instance_are_kept() {
    let (legacy, engine) =
        (json_reply(&json!({"order": "ord_17", "n": 1})), json_reply(&json!({"order": "ord_17", "n": 2})));
    let (request, ids) = (json!({}), InstanceIds { legacy: "ord_17".to_owned(), engine: "run_18".to_owned() });
    let pair = Pair { instance: Some(&ids), ..pair(&legacy, &engine, &request) };
    let in_force = rules(json!({"ids": ["$.id"]}));
    assert_eq!(found(&compared(&pair, &in_force)).len(), 2, "the engine names another order");
    let rejudged = tried(&pair, &in_force, json!({"ids": ["$.id"], "ignore": ["$.n"]})).unwrap();
    assert_eq!(rejudged.still[0].path, "$.order");
}

struct Hides(&'static str);

impl HidesSensitive for Hides {
    fn hide_in_value(&self, _: &mut Value) {}
    fn hide_in_text(&self, text: &str) -> String {
        text.to_owned()
    }
}

impl SensitiveParts for Hides {
    fn hide_in_request_body(&self, body: &mut Value) {
        *body = "***".into();
    }
    fn hide_in_reply_body(&self, body: &mut Value) {
        if let Some(hidden) = body.get_mut("declared") {
            *hidden = "***".into();
        }
    }
    fn hides_at(&self, path: &str) -> bool {
        path.starts_with(self.0)
    }
}

#[test]
fn sensitive_values_and_calls_are_not_kept() {
    let body = json!({"declared": "hunter2", "n": 1});
    let headers = [("content-type", "application/json"), ("x-code", "hunter2")];
    let (legacy, engine) =
        (reply(200, &headers, body.to_string()), with_intents(vec![intent("http://bank/", json!({}))]));
    let request = json!({"body": {"declared": "hunter2"}});
    let pair = pair(&legacy, &engine, &request);
    let of = |hides: &'static str, max| kept_with(&pair, &Rules::default(), Some(&Hides(hides)), max);
    let kept = serde_json::to_string(&of("headers.x-code", BYTES_MAX)).unwrap();
    assert!(!kept.contains("hunter2"), "{kept}");
    assert_eq!(of("effects", BYTES_MAX), PairRecord::Not(NotKept::SensitiveCalls));
    assert_eq!(of("headers.x-code", 100), PairRecord::Not(NotKept::TooLarge));
    let engine = with_intents(vec![intent("http://u:hunter2@bank/", json!({}))]);
    let pair = Pair { engine: &engine, ..pair };
    assert_eq!(kept_with(&pair, &Rules::default(), None, BYTES_MAX), PairRecord::Not(NotKept::SecretAddress));
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        (0i64..4).prop_map(Value::from),
        prop::sample::select(vec!["x", "y", "***", "[redacted 1]", "/a?token=s1", "/a?token=s2", "Bearer s1", "7001"])
            .prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        let key = prop::sample::select(vec!["a", "b", "token", "id"]).prop_map(str::to_owned);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((key, inner), 0..4).prop_map(|entries| {
                // A secret is no id, and has none in it.
                let secret = |value: Value| Value::from(format!("s{}", value.to_string().len()));
                let entry =
                    |(key, value): (String, Value)| (key.clone(), if key == "token" { secret(value) } else { value });
                Value::Object(entries.into_iter().map(entry).collect::<Map<_, _>>())
            }),
        ]
    })
}

proptest! {
    /// What is judged again as equal is equal, and what is judged again under the same rules differs as it did.
    #[test]
    fn a_pair_is_never_judged_as_more_equal_than_it_is(
        a in any_json(), b in any_json(), header in any::<bool>(), in_force in 0usize..3, trial in 0usize..6,
    ) {
        let drafts = [
            json!({}),
            json!({"ids": ["$..id"]}),
            json!({"unordered": {"$.*": "set", "$": "set"}}),
            json!({"ignore": ["$..a"], "ids": ["$..token", "$..id"]}),
            json!({"tolerance": {"$..*": 3}, "unordered": {"$..*": "id"}}),
            json!({"ignore": ["$..b"], "assert": ["${legacy.body == engine.body}"]}),
        ];
        // Values without a key are redacted too.
        let (a, b) = (json!({"a": a}), json!({"a": b}));
        let headers = [("content-type", "application/json"), ("location", if header { "/a?token=s1" } else { "/a" })];
        let (legacy, engine) =
            (reply(200, &headers, a.to_string()), reply(200, &headers[..1], b.to_string()));
        let request = json!({"body": a});
        let pair = pair(&legacy, &engine, &request);
        let (in_force, trial) = (rules(drafts[in_force].clone()), rules(drafts[trial].clone()));
        let before = compared(&pair, &in_force);
        prop_assume!(before.verdict == Verdict::Mismatch);
        let kept = kept(&pair, &in_force);
        let judge = |rules: &Rules| rejudge(&kept, &before.differences, &in_force, rules, &BOUNDS, &|| false);
        if let Ok(rejudged) = judge(&in_force) {
            prop_assert_eq!(found(&rejudged.comparison), found(&before));
        }
        let truth = compared(&pair, &trial);
        if let Ok(rejudged) = judge(&trial) && rejudged.comparison.differences.is_empty() {
            prop_assert!(truth.differences.is_empty(), "{:?} {}", truth, serde_json::to_string(&kept).unwrap());
        }
    }
}

#[test]
fn the_ids_that_earlier_pairs_bound_are_kept() {
    let earlier = [EarlierIds {
        of: IdSubject::Name("payment_id".to_owned()),
        path: "$.payment_id".to_owned(),
        legacy: "p-1".to_owned(),
        engine: "q-1".to_owned(),
        is_secret: false,
    }];
    let of = |payment: &str| json_reply(&json!({"payment_id": payment, "n": payment.len()}));
    let (legacy, engine, request) = (of("p-1"), of("q-22"), json!({}));
    let (pair, in_force) = (pair(&legacy, &engine, &request), rules(json!({"ids": ["$.payment_id"]})));
    let found = compare_in_instance(&pair, &earlier, &in_force, &BOUNDS, &|| false).unwrap().0.differences;
    assert_eq!(found.len(), 2, "{found:?}");
    let context = KeepContext {
        request: &request,
        earlier_ids: &earlier,
        expired: &|| false,
        rules: &in_force,
        bounds: &BOUNDS,
        sensitive: None,
        bytes_max: BYTES_MAX,
    };
    let PairRecord::Pair(kept) = keep(&pair, &context) else { panic!("not kept") };
    let trial = rules(json!({"ids": ["$.payment_id"], "ignore": ["$.n"]}));
    let rejudged = rejudge(&kept, &found, &in_force, &trial, &BOUNDS, &|| false).unwrap();
    assert_eq!((rejudged.still.len(), rejudged.still[0].path.as_str()), (1, "$.payment_id"));
}
