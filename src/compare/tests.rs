use std::cell::Cell;
use std::io::Write;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use super::*;
use crate::names::StepId;
use crate::problem::{Problems, Site};

pub(super) const BOUNDS: CompareBounds = CompareBounds { differences: 64, depth: 128, bytes: 8 << 20, effects: 1_000 };

pub(super) fn rules(draft: Value) -> Rules {
    let draft: RulesDraft = serde_json::from_value(draft).unwrap();
    let mut problems = Problems::default();
    let context = CompareContext { intents: &["price", "charge", "mail", "charge.undo"], ..CompareContext::default() };
    let rules = Rules::check(&draft, &Site::file("routes.yaml"), &context, &mut problems);
    rules.unwrap_or_else(|| panic!("{problems:?}"))
}

pub(super) fn reply(status: u16, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Observation {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(name.parse::<http::HeaderName>().unwrap(), value.parse().unwrap());
    }
    let status = StatusCode::from_u16(status).unwrap();
    Observation::new(status, map, Body::Whole(body.into()), Duration::ZERO, Vec::new())
}

pub(super) fn json_reply(body: &Value) -> Observation {
    reply(200, &[("content-type", "application/json")], body.to_string())
}

pub(super) fn compared(legacy: &Observation, engine: &Observation, rules: &Rules) -> Result<Comparison, BoundExceeded> {
    let pair = Pair {
        legacy,
        engine,
        request: &Value::Null,
        effects: None,
        stale_reads: false,
        instance: None,
        sensitive: None,
    };
    compare(&pair, rules, &BOUNDS, &|| false)
}

pub(super) fn bodies(legacy: Value, engine: Value, draft: Value) -> Comparison {
    compared(&json_reply(&legacy), &json_reply(&engine), &rules(draft)).unwrap()
}

pub(super) fn found(comparison: &Comparison) -> Vec<(&str, DifferenceKind)> {
    comparison.differences.iter().map(|d| (d.path.as_str(), d.kind)).collect()
}

fn raw(legacy: &str, engine: &str) -> Verdict {
    let of = |body: &str| reply(200, &[("content-type", "application/json")], body.to_owned());
    compared(&of(legacy), &of(engine), &Rules::default()).unwrap().verdict
}

#[test]
fn numbers_keep_their_precision() {
    assert_eq!(raw(r#"{"a":1.0}"#, r#"{ "a" : 1.00 }"#), Verdict::Match);
    assert_eq!(raw("[9007199254740993]", "[9007199254740992]"), Verdict::Mismatch);
    assert_eq!(raw("[0.1]", "[0.10000000000000000000001]"), Verdict::Mismatch);
    assert_eq!(raw("[123456789012345678901234567890]", "[123456789012345678901234567890.0]"), Verdict::Match);
}

#[test]
fn each_kind_of_difference_has_its_label_and_path() {
    let legacy = json!({"a": 1, "b": [{"p": 1}, {"p": 2}], "c": "x", "gone": true, "o": [1, 2, 3]});
    let engine = json!({"a": "1", "b": [{"p": 1}, {"p": 3}], "c": "y", "new": true, "o": [3, 1, 2]});
    let comparison = bodies(legacy, engine, json!({}));
    assert_eq!(
        found(&comparison),
        [
            ("$.a", DifferenceKind::Type),
            ("$.b[*].p", DifferenceKind::Value),
            ("$.c", DifferenceKind::Value),
            ("$.gone", DifferenceKind::Missing),
            ("$.o", DifferenceKind::Order),
            ("$.new", DifferenceKind::Extra),
        ]
    );
}

#[test]
fn an_element_put_in_front_is_one_extra() {
    let comparison = bodies(json!({"a": [1, 2, 3]}), json!({"a": [0, 1, 2, 3]}), json!({}));
    assert_eq!(found(&comparison), [("$.a[*]", DifferenceKind::Extra)]);
}

#[test]
fn status_is_exact_or_by_class() {
    let (a, b, c) = (reply(200, &[], ""), reply(201, &[], ""), reply(404, &[], "other"));
    assert_eq!(found(&compared(&a, &b, &Rules::default()).unwrap()), [("status", DifferenceKind::Status)]);
    let by_class = rules(json!({"status": "class"}));
    let comparison = compared(&a, &b, &by_class).unwrap();
    assert_eq!((comparison.verdict, comparison.ignored_by), (Verdict::Ignored, vec![("status class".into(), 1)]));
    assert_eq!(found(&compared(&a, &c, &by_class).unwrap()), [("status", DifferenceKind::Status)]);
}

#[test]
fn only_listed_headers_count() {
    let a = reply(200, &[("content-type", "application/json; charset=utf-8"), ("date", "x")], "{}");
    let b = reply(200, &[("content-type", "application/JSON"), ("location", "/a")], "{}");
    let comparison = compared(&a, &b, &Rules::default()).unwrap();
    assert_eq!(found(&comparison), [("headers.location", DifferenceKind::Header)]);
    let without = rules(json!({"headers": ["content-type"]}));
    assert_eq!(compared(&a, &b, &without).unwrap().verdict, Verdict::Match);
    let ignoring = rules(json!({"ignore": ["header.location"]}));
    assert_eq!(compared(&a, &b, &ignoring).unwrap().verdict, Verdict::Ignored);
}

#[test]
fn ignored_is_counted_by_rule() {
    let draft = json!({"ignore": ["$.at", "$.gone"]});
    let comparison = bodies(json!({"at": 1, "x": 1, "gone": 1}), json!({"at": 2, "x": 1}), draft.clone());
    assert_eq!(comparison.verdict, Verdict::Ignored);
    assert_eq!(comparison.ignored_by, [("ignore $.at".into(), 1), ("ignore $.gone".into(), 1)]);
    assert_eq!(bodies(json!({"at": 1}), json!({"at": 1.0}), draft).verdict, Verdict::Match);
}

#[test]
fn ids_are_renamed_one_to_one_everywhere() {
    let draft = json!({"ids": ["$.id", "$.lines[*].order"]});
    let of = |id: &str, location: &str, refers: &str, link: &str| {
        let body = json!({"self": link, "id": id, "lines": [{"order": refers}]}).to_string();
        reply(201, &[("content-type", "application/json"), ("location", location)], body)
    };
    let legacy = of("17", "/orders/17", "17", "/orders/17/self");
    let rules = rules(draft);
    let verdict = |engine: Observation| compared(&legacy, &engine, &rules).unwrap();
    assert_eq!(verdict(of("run_9", "/orders/run_9", "run_9", "/orders/run_9/self")).verdict, Verdict::Ignored);
    assert_eq!(verdict(legacy.clone()).verdict, Verdict::Match);
    let wrong = verdict(of("run_9", "/orders/17", "run_9", "/orders/run_9/self"));
    assert_eq!(found(&wrong), [("headers.location", DifferenceKind::Header)]);
    let wrong = verdict(of("run_9", "/orders/run_9", "run_8", "/orders/run_9/self"));
    assert_eq!(found(&wrong), [("$.lines[*].order", DifferenceKind::Value)]);
    let wrong = verdict(of("run_9", "/orders/run_9", "run_9", "/orders/run_8/self"));
    assert_eq!(found(&wrong), [("$.self", DifferenceKind::Value)]);
}

#[test]
fn a_difference_of_ids_says_which_earlier_pairing_it_contradicts() {
    let draft = json!({"ids": ["$.id", "$.lines[*].order", "$.token"]});
    let (legacy, line) =
        (|link: &str| json!({"id": "ord_A", "lines": [{"order": "ord_A"}], "next": link}), "$.lines[*].order");
    let engine = |order: &str, link: &str| json!({"id": "run_X", "lines": [{"order": order}], "next": link});
    let pairings = |comparison: &Comparison| -> Vec<(String, String, String, String)> {
        let all = comparison
            .differences
            .iter()
            .flat_map(|found| found.contradicts.iter().map(move |earlier| (found, earlier)));
        all.map(|(found, EarlierPairing { path, legacy, engine })| {
            (found.path.clone(), path.clone(), legacy.clone(), engine.clone())
        })
        .collect()
    };
    let of = |path: &str| vec![(path.to_owned(), "$.id".to_owned(), "\"ord_A\"".to_owned(), "\"run_X\"".to_owned())];
    let wrong = bodies(legacy("/next/ord_A"), engine("ord_A", "/next/run_X"), draft.clone());
    assert_eq!(wrong.differences[0].legacy, wrong.differences[0].engine, "two equal values");
    assert_eq!(pairings(&wrong), of(line));
    let wrong = bodies(legacy("/next/ord_A"), engine("run_X", "/next/ord_A"), draft.clone());
    assert_eq!(pairings(&wrong), of("$.next"), "an id within a text");
    // The engine's id is taken.
    let wrong = bodies(
        json!({"id": "ord_A", "lines": [{"order": "ord_B"}]}),
        json!({"id": "run_X", "lines": [{"order": "run_X"}]}),
        draft.clone(),
    );
    assert_eq!(pairings(&wrong), of(line));
    let fine = bodies(json!({"id": "ord_A", "n": 1}), json!({"id": "run_X", "n": 2}), draft.clone());
    assert_eq!(pairings(&fine), [], "another difference contradicts nothing");
    // What is redacted in a reply is redacted here.
    let wrong = bodies(json!({"token": "ord_A", "id": "ord_A"}), json!({"token": "run_X", "id": "ord_A"}), draft);
    let shown = serde_json::to_string(&wrong.differences).unwrap();
    assert!(!shown.contains("run_X"), "{shown}");
}

#[test]
fn headers_that_say_how_a_body_is_sent_are_not_compared() {
    for name in ["content-length", "Transfer-Encoding"] {
        for draft in [json!({"headers": [name]}), json!({"effects": {"charge": {"headers": [name]}}})] {
            let draft: RulesDraft = serde_json::from_value(draft).unwrap();
            let mut problems = Problems::default();
            let context = CompareContext { intents: &["charge"], ..CompareContext::default() };
            let refused = Rules::check(&draft, &Site::file("routes.yaml"), &context, &mut problems).is_none();
            let said = format!("{problems:?}");
            assert!(refused && said.contains("cannot be compared") && said.contains("remove it"), "{said}");
        }
    }
    rules(json!({"headers": ["etag"], "ignore": ["header.content-length"]}));
}

#[test]
fn an_id_may_be_a_number_here_and_text_there() {
    let of = |id: Value, location: &str| {
        let body = json!({"id": id}).to_string();
        reply(201, &[("content-type", "application/json"), ("location", location)], body)
    };
    let draft = json!({"ids": [{"path": "$.id", "any_type": true}]});
    let (legacy, rules) = (of(json!(17), "/orders/17"), rules(draft));
    let renamed = compared(&legacy, &of(json!("0190f5d3"), "/orders/0190f5d3"), &rules).unwrap();
    assert_eq!((renamed.verdict, &*renamed.ignored_by), (Verdict::Ignored, &[("ids $.id".into(), 2)][..]));
    let wrong = compared(&legacy, &of(json!("0190f5d3"), "/orders/17"), &rules).unwrap();
    assert_eq!(found(&wrong), [("headers.location", DifferenceKind::Header)]);
    let none = compared(&legacy, &of(json!(null), "/orders/17"), &rules).unwrap();
    assert_eq!(found(&none), [("$.id", DifferenceKind::Type)]);
}

#[test]
fn a_small_number_in_a_query_is_an_id_only_if_its_parameter_takes_an_id() {
    let rules = rules(json!({"ids": ["$.lines[*].no"]}));
    let of = |no: u32, location: &str| {
        let body = json!({"lines": [{"no": no}]}).to_string();
        reply(201, &[("content-type", "application/json"), ("location", location)], body)
    };
    let verdict = |legacy, engine| compared(&of(2, legacy), &of(1, engine), &rules).unwrap().verdict;
    assert_eq!(verdict("/charges?no=2", "/charges?no=1"), Verdict::Ignored);
    assert_eq!(verdict("/charges?amount=2", "/charges?amount=1"), Verdict::Mismatch);
}

#[test]
fn unordered_arrays_match_as_sets_or_by_key() {
    let legacy = json!({"r": [{"sku": "a", "n": 1, "id": 1}, {"sku": "b", "n": 2, "id": 2}]});
    let engine = json!({"r": [{"sku": "b", "n": 2, "id": 7}, {"sku": "a", "n": 1, "id": 9}]});
    for how in ["set", "sku"] {
        let draft = json!({"unordered": {"$.r": how}, "ids": ["$.r[*].id"]});
        let comparison = bodies(legacy.clone(), engine.clone(), draft);
        assert_eq!(comparison.verdict, Verdict::Ignored, "{how}: {comparison:?}");
    }
    let wrong = json!({"r": [{"sku": "b", "n": 2, "id": 7}, {"sku": "a", "n": 3, "id": 9}]});
    let keyed = bodies(legacy.clone(), wrong.clone(), json!({"unordered": {"$.r": "sku"}, "ids": ["$.r[*].id"]}));
    assert_eq!(found(&keyed), [("$.r[*].n", DifferenceKind::Value)]);
    let fewer = bodies(legacy, json!({"r": [{"sku": "b", "n": 2, "id": 2}]}), json!({"unordered": {"$.r": "sku"}}));
    assert_eq!(found(&fewer), [("$.r[*]", DifferenceKind::Missing)]);
}

#[test]
fn ids_bound_elsewhere_pair_the_elements_of_a_set() {
    let draft = json!({"ids": ["$.main", "$.all[*].id"], "unordered": {"$.all": "set"}});
    let legacy = json!({"all": [{"id": 1}, {"id": 2}], "main": 2});
    let engine = json!({"all": [{"id": 8}, {"id": 9}], "main": 8});
    assert_eq!(bodies(legacy, engine, draft).verdict, Verdict::Ignored);
}

#[test]
fn tolerance_holds_for_numbers_and_times() {
    let draft = json!({"tolerance": {"$.total": 0.005, "$.at": "2s"}});
    let legacy = json!({"total": 10.005, "at": "2026-01-02T03:04:05Z"});
    let near = bodies(legacy.clone(), json!({"total": 10, "at": "2026-01-02T03:04:07Z"}), draft.clone());
    assert_eq!(near.verdict, Verdict::Ignored);
    let as_text = |total: &str| json!({"total": total, "at": 0});
    assert_eq!(bodies(as_text("10.00"), as_text("10.005"), draft.clone()).verdict, Verdict::Ignored);
    assert_eq!(bodies(as_text("10.00"), as_text("10.006"), draft.clone()).verdict, Verdict::Mismatch);
    let far = bodies(legacy, json!({"total": 9.99, "at": "2026-01-02T03:04:08Z"}), draft);
    assert_eq!(found(&far), [("$.total", DifferenceKind::Value), ("$.at", DifferenceKind::Value)]);
}

#[test]
fn stale_reads_have_a_kind_of_their_own() {
    let (legacy, engine) = (json_reply(&json!({"a": 1})), json_reply(&json!({"a": 2})));
    let pair = Pair {
        legacy: &legacy,
        engine: &engine,
        request: &Value::Null,
        effects: None,
        stale_reads: true,
        instance: None,
        sensitive: None,
    };
    let comparison = compare(&pair, &Rules::default(), &BOUNDS, &|| false).unwrap();
    assert_eq!(found(&comparison), [("$.a", DifferenceKind::StaleRead)]);
}

#[test]
fn asserts_read_the_intents_of_an_undo_and_of_a_step_without_items() {
    let rules = rules(json!({"assert": [
        "${size(intents.mail) == 0}",
        "${intents[\"charge.undo\"].url == 'http://bank/charges/1'}",
    ]}));
    let undo = Intent {
        step: StepId::new("charge.undo"),
        item: None,
        method: http::Method::DELETE,
        url: "http://bank/charges/1".into(),
        headers: Vec::new(),
        body: Value::Null,
        service: None,
        bytes: None,
        taken_from: None,
    };
    let engine = Observation::new(StatusCode::OK, HeaderMap::new(), Body::Whole("".into()), Duration::ZERO, vec![undo]);
    let legacy = reply(200, &[], "");
    let without_mail = compared(&legacy, &engine, &rules).unwrap();
    assert_eq!((without_mail.verdict, without_mail.differences.len()), (Verdict::Mismatch, 1), "`mail` did not run");
    let engine = engine.with_steps_without_items(vec![StepId::new("mail")]);
    assert_eq!(compared(&legacy, &engine, &rules).unwrap().verdict, Verdict::Match);
    assert_eq!(
        rules.awaited_intents(),
        AwaitedIntents::All,
        "which steps are undone is known only when the run has ended"
    );
}

#[test]
fn asserts_read_replies_and_intents() {
    let rules = rules(json!({"assert": [
        "${intents.charge.body.amount == legacy.body.total}",
        "${request.body.n == 1}",
    ]}));
    let with = |amount: Value, steps: &[&str]| {
        let intents = steps.iter().map(|step| Intent {
            step: StepId::new(*step),
            item: None,
            method: http::Method::POST,
            url: "http://bank/charges".into(),
            headers: Vec::new(),
            body: json!({"amount": amount}),
            service: None,
            bytes: None,
            taken_from: None,
        });
        let body = json!({"total": 5}).to_string();
        let headers: HeaderMap =
            [(http::header::CONTENT_TYPE, "application/json".parse().unwrap())].into_iter().collect();
        Observation::new(StatusCode::OK, headers, Body::Whole(body.into()), Duration::ZERO, intents.collect())
    };
    let request = json!({"body": {"n": 1}});
    let verdict = |engine: &Observation| {
        let legacy = json_reply(&json!({"total": 5}));
        let pair = Pair {
            legacy: &legacy,
            engine,
            request: &request,
            effects: None,
            stale_reads: false,
            instance: None,
            sensitive: None,
        };
        compare(&pair, &rules, &BOUNDS, &|| false).unwrap()
    };
    assert_eq!(verdict(&with(json!(5), &["charge"])).verdict, Verdict::Match);
    let path = "assert ${intents.charge.body.amount == legacy.body.total}";
    assert_eq!(found(&verdict(&with(json!(6), &["charge"]))), [(path, DifferenceKind::Assert)]);
    let absent = verdict(&with(json!(5), &[]));
    assert_eq!(found(&absent), [(path, DifferenceKind::Assert)]);
    assert!(absent.differences[0].engine.as_ref().unwrap().contains("cannot be evaluated"));
}

#[test]
fn secrets_do_not_show_in_differences() {
    let comparison = bodies(
        json!({"card": {"number": "4111"}, "u": {"password": "a"}, "n": "x"}),
        json!({"card": {"number": "4222"}, "u": {}, "n": {"token": "4333"}}),
        json!({}),
    );
    let text = format!("{comparison:?}");
    for secret in ["4111", "4222", "4333", "\"a\""] {
        assert!(!text.contains(secret), "{text}");
    }
    let bare = bodies(json!(["hunter2"]), json!(["hunter3"]), json!({}));
    assert!(!format!("{bare:?}").contains("hunter"));
    // Another value says that it is a secret.
    for [legacy, engine] in [
        [json!({"name": "cvv", "value": "737"}), json!({"name": "cvv", "value": "738"})],
        [json!([{"name": "cvv", "value": {"n": [737]}}]), json!([{"name": "cvv", "value": {"n": [738, 739]}}])],
        [json!({"headers": [["pin", "737"]]}), json!({"headers": [["pin", "738"]]})],
        [json!({"headers": [["pin", "737"]]}), json!({"headers": [["pin", "737", "738"]]})],
        [json!({"pins": [737]}), json!({"pins": [738]})],
        [json!({"string": ["pin", "737"]}), json!({"string": ["pin", "738"]})],
        [json!({"raw": ["password", "737"]}), json!({"raw": ["password", "738"]})],
    ] {
        let of = bodies(legacy.clone(), engine, json!({}));
        let text = format!("{of:?}");
        assert!(!of.differences.is_empty() && !text.contains("\"73") && text.contains("***"), "{legacy}: {text}");
    }
    let named = |value: &str| json!({"all": [{"name": "n", "value": value}], "headers": [["n", value]], "ns": [value]});
    assert_eq!(format!("{:?}", bodies(named("737"), named("738"), json!({}))).matches("738").count(), 3);
}

#[test]
fn encodings_are_decoded_and_bombs_are_too_large() {
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let deflate = |bytes: &[u8]| {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let brotli = |mut bytes: &[u8]| {
        let mut out = Vec::new();
        brotli::BrotliCompress(&mut bytes, &mut out, &Default::default()).unwrap();
        out
    };
    let json = br#"{"a": [1, 2, 3]}"#;
    let plain = reply(200, &[("content-type", "application/json")], &json[..]);
    for (name, packed) in [("gzip", gzip(json)), ("deflate", deflate(json)), ("br", brotli(json))] {
        let packed = reply(200, &[("content-type", "application/json"), ("content-encoding", name)], packed);
        assert_eq!(compared(&plain, &packed, &Rules::default()).unwrap().verdict, Verdict::Match, "{name}");
    }
    let bomb = gzip(&vec![b' '; 64 << 20]);
    let bomb = reply(200, &[("content-type", "application/json"), ("content-encoding", "gzip")], bomb);
    assert_eq!(compared(&plain, &bomb, &Rules::default()), Err(BoundExceeded::Size));
    let lie = reply(200, &[("content-type", "application/json"), ("content-encoding", "gzip")], "no gzip");
    assert_eq!(compared(&plain, &lie, &Rules::default()).unwrap().verdict, Verdict::Mismatch);
}

#[test]
fn depth_is_checked_before_parsing() {
    let of = |text: String| reply(200, &[("content-type", "application/json")], text);
    let deep = |n: usize| of("[".repeat(n) + &"]".repeat(n));
    assert_eq!(compared(&deep(100_000), &deep(100_001), &Rules::default()), Err(BoundExceeded::Depth));
    let open = |n: usize| of("{\"a\":".repeat(n));
    assert_eq!(compared(&open(100_000), &open(100_001), &Rules::default()), Err(BoundExceeded::Depth));
    // Bodies that are equal byte for byte are equal without being read, unless a rule depends on what is in them.
    assert_eq!(compared(&deep(100_000), &deep(100_000), &Rules::default()).unwrap().verdict, Verdict::Match);
    for draft in [json!({"ids": ["$.id"]}), json!({"assert": ["${legacy.status == 200}"]})] {
        assert_eq!(compared(&deep(100_000), &deep(100_000), &rules(draft)), Err(BoundExceeded::Depth));
    }
}

#[test]
fn texts_are_compared_by_line_within_a_bound() {
    let text = |body: String| reply(200, &[("content-type", "text/plain")], body);
    let near = compared(&text("a\nb\nc\n".into()), &text("a\nx\nc\n".into()), &Rules::default()).unwrap();
    assert_eq!(found(&near), [("text", DifferenceKind::Value)]);
    assert!(!near.truncated);
    let lines = |seed: u32| {
        (0..200_000u32).map(|n| format!("{:024x}\n", u64::from(n) << 8 | u64::from(seed))).collect::<String>()
    };
    let far = compared(&text(lines(1)), &text(lines(2)), &Rules::default()).unwrap();
    assert_eq!((far.verdict, far.truncated), (Verdict::Mismatch, true));
    let one_line = |c: &str| text(c.repeat(5 << 20));
    assert_eq!(compared(&one_line("a"), &one_line("b"), &Rules::default()).unwrap().verdict, Verdict::Mismatch);
}

#[test]
fn a_comparison_out_of_time_is_no_match() {
    let many: Vec<u32> = (0..10_000).collect();
    let legacy = json_reply(&json!({"many": many}));
    let engine = reply(200, &[("content-type", "application/json")], format!("{} ", json!({"many": many})));
    let checks = Cell::new(0);
    let expired = || {
        checks.set(checks.get() + 1);
        checks.get() > 3
    };
    let pair = Pair {
        legacy: &legacy,
        engine: &engine,
        request: &Value::Null,
        effects: None,
        stale_reads: false,
        instance: None,
        sensitive: None,
    };
    assert_eq!(compare(&pair, &Rules::default(), &BOUNDS, &expired), Err(BoundExceeded::Time));
    let other = json_reply(&json!({"a": 0, "many": many}));
    let pair = Pair { legacy: &other, engine: &json_reply(&json!({"a": 1, "many": many})), ..pair };
    checks.set(0);
    let comparison = compare(&pair, &Rules::default(), &BOUNDS, &expired).unwrap();
    assert_eq!((comparison.verdict, comparison.truncated), (Verdict::Mismatch, true));
}

#[test]
fn an_assert_about_an_undo_that_a_step_does_not_have_is_refused_with_that_reason() {
    let draft = serde_json::from_value(json!({"assert": ["${intents['mail.undo'].url == ''}"]})).unwrap();
    let mut problems = Problems::default();
    assert!(
        Rules::check(
            &draft,
            &Site::file("r.yaml"),
            &CompareContext { intents: &["mail"], ..CompareContext::default() },
            &mut problems
        )
        .is_none()
    );
    let all: Vec<_> = problems.iter().map(|problem| &*problem.message).collect();
    assert_eq!(all, ["the step `mail` has no `undo:`, so there are no intents of one"]);
}

#[test]
fn an_assert_about_a_step_that_nothing_has_says_whether_there_is_a_workflow() {
    for (has_workflow, hint) in [(true, "the workflow makes no calls of its own"), (false, "the route has no workflow")]
    {
        let draft = serde_json::from_value(json!({"assert": ["${intents.charge.url == ''}"]})).unwrap();
        let (mut problems, context) = (Problems::default(), CompareContext { has_workflow, ..Default::default() });
        assert!(Rules::check(&draft, &Site::file("r.yaml"), &context, &mut problems).is_none());
        let said = problems.iter().next().and_then(|problem| problem.hint.as_deref());
        assert!(said.is_some_and(|said| said.starts_with(hint)), "{said:?}");
    }
}

#[test]
fn too_many_differences_are_truncated() {
    let of = |seed: u32| json_reply(&Value::Object((0..100).map(|n| (format!("k{n}x"), json!(n + seed))).collect()));
    let comparison = compared(&of(0), &of(1), &Rules::default()).unwrap();
    assert_eq!((comparison.differences.len(), comparison.truncated), (64, true));
}

#[test]
fn all_bad_rules_are_reported_with_their_positions() {
    let draft: RulesDraft = serde_json::from_value(json!({
        "headers": ["content type"],
        "ignore": ["$.[", "header.x y", "created_at"],
        "ids": ["$..["],
        "unordered": {"$.a": "", "$$": "set"},
        "tolerance": {"$.t": "soon", "$.u": -1, "$.v": true},
        "assert": ["true", "${intents.chrage.body == 1}", "${steps.charge.output == 1}", "${1 +}", "${effects == []}"],
    }))
    .unwrap();
    let mut problems = Problems::default();
    let context = CompareContext { intents: &["price", "charge"], ..CompareContext::default() };
    assert!(Rules::check(&draft, &Site::file("r.yaml").key("compare"), &context, &mut problems).is_none());
    let all: Vec<String> = problems.iter().map(|p| format!("{} {} {:?}", p.site, p.message, p.hint)).collect();
    assert_eq!(all.len(), 15, "{all:#?}");
    assert!(all.iter().any(|p| p.contains("`effects` has to be called")), "{all:#?}");
    assert!(all.iter().any(|p| p.contains("r.yaml.compare.ignore[2]") && p.contains("$.created_at")), "{all:#?}");
    assert!(all.iter().any(|p| p.contains("did you mean `intents.charge`?")), "{all:#?}");
    assert!(all.iter().any(|p| p.contains("an assert cannot read `steps`")), "{all:#?}");
}

#[test]
fn different_rules_have_different_hashes() {
    assert_eq!(rules(json!({})).hash(), Rules::default().hash());
    assert_ne!(rules(json!({"ids": ["$.id"]})).hash(), Rules::default().hash());
    assert_eq!(rules(json!({"ids": ["$.id"]})).hash(), rules(json!({"ids": ["$.id"]})).hash());
}

#[test]
fn a_time_in_another_form_differs_within_a_tolerance_too() {
    let draft = json!({"tolerance": {"$.at": "2s"}});
    let of = |at: Value| json!({"at": at});
    let legacy = of(json!(1_767_323_045));
    assert_eq!(bodies(legacy.clone(), of(json!(1_767_323_046)), draft.clone()).verdict, Verdict::Ignored);
    assert_eq!(bodies(legacy, of(json!(1_767_323_045_000_i64)), draft.clone()).verdict, Verdict::Mismatch);
    let zone = bodies(of(json!("2026-01-02T03:04:05Z")), of(json!("2026-01-02T03:04:05")), draft);
    assert_eq!(found(&zone), [("$.at", DifferenceKind::Value)]);
}

#[test]
fn an_amount_that_is_written_as_text_is_no_id() {
    let draft = json!({"ids": ["$.id"]});
    let of = |id: &str, amount: &str| json!({"id": id, "amount": amount, "note": format!("{amount}.00 EUR")});
    let hidden = bodies(of("4000", "4000"), of("5000", "5000"), draft);
    assert_eq!(found(&hidden), [("$.amount", DifferenceKind::Value), ("$.note", DifferenceKind::Value)]);
}
