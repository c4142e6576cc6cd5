//! What is hidden in a sample: the secrets of all parts of the pair, wherever it quotes them.

use std::sync::LazyLock;

use jiff::Timestamp;

use super::*;
use crate::compare::{
    AnsweredRead, CompareBounds, Difference, DifferenceKind, Effect, EffectReply, HidesSensitive, Intent,
    SensitiveParts,
};
use crate::evidence::Sample;
use crate::secret::{Detectors, QUOTED_SECRETS_MAX, RedactRules, STARS};
use crate::shadow::redaction::{PairRedaction, PairToRedact};
use crate::shadow::sample::shown;
use crate::workflow::Event;

pub(super) static BOUNDS: LazyLock<CompareBounds> = LazyLock::new(|| CompareBounds::of(&Limits::default()));

pub(super) fn report_with(events: &[Value]) -> RunReport {
    let mut report = RunReport::default();
    for event in events {
        let event: Event = serde_json::from_str(&event.to_string()).expect("an event");
        report.events.push(Timestamp::UNIX_EPOCH, event);
    }
    report
}

pub(super) fn finished(headers: &Value, output: &Value) -> Value {
    let outcome = json!({"done": {"status": 200, "headers": headers, "output": output}});
    json!({"step_finished": {"step": "look", "item": null, "attempt": 1, "outcome": outcome}})
}

fn started(url: &str, headers: &Value, body: &Value) -> Value {
    let request = json!({"method": "POST", "url": url, "headers": headers, "body": body});
    json!({"step_started": {"step": "look", "item": null, "attempt": 1, "key": null, "effect": "read",
        "repeatable": true, "request": request}})
}

/// The sample of a pair that differs, whose run had these events.
async fn sample_of(legacy: &Value, answered_by_engine: Value, events: Vec<Value>) -> Sample {
    let reply = move |_: ArmRequest| {
        let (reply, report) = (answered_by_engine.clone(), report_with(&events));
        async move { answer(&reply, report) }
    };
    let rig = TestShadow::new(engine(reply), limits(), json!({})).await;
    rig.offer(answered(Mode::Rehearse, legacy, 0));
    assert_eq!(rig.settled(1).await.mismatched, 1);
    testing::samples(&rig.evidence, &rig.store, &id()).await.remove(0)
}

#[tokio::test]
async fn a_secret_in_the_reply_to_a_read_is_hidden_wherever_the_pair_quotes_it() {
    let events = vec![
        finished(&json!({}), &json!({"session": {"id": "sess-4711"}, "total": 5})),
        finished(&json!({}), &json!("<a><password>of-xml-1</password></a>")),
        finished(&json!({"x-token": "of-head-1"}), &json!({"total": 5})),
        started(
            "http://bank/x?api_key=of-url-1",
            &json!([["x-secret", "of-call-1"]]),
            &json!({"text": "said of-url-1"}),
        ),
    ];
    let said = json!({
        "one": "/s/sess-4711", "two": "of-xml-1!", "three": "of-head-1", "four": "of-url-1", "five": "of-call-1",
        "total": 17,
    });
    let sample = sample_of(&json!({"total": 18}), said, events).await;
    let text = format!("{sample:?}");
    for secret in ["sess-4711", "of-xml-1", "of-head-1", "of-url-1", "of-call-1", "hunter2"] {
        assert!(!text.contains(secret), "{secret}: {text}");
    }
    assert!(sample.engine.contains("/s/***") && sample.engine.contains("17"), "{}", sample.engine);
}

#[tokio::test]
async fn bodies_without_names_are_hidden_in_the_events_and_others_are_shown() {
    let answer =
        json!({"status": 200, "headers": [["content-type", "text/plain"]], "body": {"text": "the-plain-text"}});
    let events = vec![
        started("http://bank/x", &json!([["content-type", "text/plain"]]), &json!({"text": "k=the-plain-text"})),
        started("http://bank/x", &json!([]), &json!({"text": "\n{\"a\":\"shown-1\",\"password\":\"the-plain-text\"}"})),
        started("http://bank/x", &json!([]), &json!({"base64": "dGhlLXBsYWlu"})),
        finished(&json!({}), &json!("the-plain-text")),
        finished(
            &json!({}),
            &json!({"request": {"url": "http://a/", "body": {"text": "shown-2"}}, "b": {"$bytes": "dGhlLXBsYWlu"}}),
        ),
        json!({"responded": {"answer": answer, "pin": {"family": "orders", "id": "shown-3", "twin": false}}}),
    ];
    let sample = sample_of(&json!({"n": 1}), json!({"n": 2}), events).await;
    let text = format!("{:?}", sample.events);
    assert!(!text.contains("the-plain-text") && !text.contains("dGhlLXBsYWlu"), "{text}");
    for shown in ["shown-1", "shown-2"] {
        assert!(text.contains(shown), "{shown}: {text}");
    }
    assert_eq!(sample.events.len(), 6);
}

fn flags_with(of_creator: RedactRules, of_follower: RedactRules) -> (Arc<FlagSet>, Arc<RouteFlag>) {
    let shop = Arc::new(Service::at("shop", [http::Uri::from_static("http://127.0.0.1:9")]));
    let route = |id: &str, instance, redact| {
        let matches = RouteMatch { method: Method::POST, path: format!("/{id}/{{id}}"), host: None };
        let route = Route::without_workflow(RouteId::new(id), matches, shop.clone());
        Arc::new(Route { instance: Some(instance), redact, declared: State::Shadow, ..route })
    };
    let creates = Instance::Creates { id: serde_json_path::JsonPath::parse("$.id").unwrap().into() };
    let follows =
        Instance::Follows { creator: RouteId::new("create"), key: crate::flag::InstanceKeySource::Path("id".into()) };
    let routes = vec![route("create", creates, of_creator), route("follow", follows, of_follower)];
    let set = FlagSet::new(1, routes, &BTreeMap::new(), shop.clone(), BTreeMap::new(), Freeze::No, [7; 32]);
    let flag = set.route(&RouteId::new("follow")).unwrap().clone();
    (Arc::new(set), flag)
}

fn declared(name: &str) -> RedactRules {
    RedactRules::new([name.to_owned()], Vec::new(), Detectors::default())
}

/// Hides in a text what is secret in the pair of this request and this reply, with these calls by legacy.
fn hidden_with(
    answered: &Answered,
    reply: &Value,
    effects: &[Arc<Effect>],
    intents: Vec<Intent>,
    text: &str,
) -> String {
    let engine =
        Observation::new(StatusCode::OK, headers(), Body::Whole(reply.to_string().into()), Duration::ZERO, intents);
    let (report, effects) = (RunReport::default(), Some(effects));
    let pair = PairToRedact {
        answered,
        engine: &engine,
        report: &report,
        effects,
        recorded: None,
        bounds: *BOUNDS,
        expired: &|| false,
    };
    PairRedaction::of(pair).hide_in_text(text)
}

#[test]
fn a_secret_is_hidden_in_every_encoding() {
    let pair = answered(Mode::Rehearse, &json!({"token": "a/b+c=\"1 é"}), 0);
    let hidden = |text: &str| hidden_with(&pair, &json!({}), &[], Vec::new(), text);
    let quoted = json!({"said": "a/b+c=\"1 é"}).to_string();
    assert_eq!(hidden(&quoted), r#"{"said":"***"}"#);
    assert_eq!(hidden(&json!({"said": quoted}).to_string()), r#"{"said":"{\"said\":\"***\"}"}"#);
    assert_eq!(hidden("/x/a%2Fb%2bc%3D%221%20%C3%A9?q=a%2Fb%2Bc%3D%221+%C3%A9"), "/x/***?q=***");
}

#[test]
fn the_calls_of_both_arms_tell_secrets() {
    let pair = answered(Mode::Rehearse, &json!({}), 0);
    let fields = |name: &'static str, value: &'static str| {
        [(http::HeaderName::from_static(name), http::HeaderValue::from_static(value))].into_iter().collect()
    };
    let effect = Effect {
        service: None,
        method: Method::POST,
        url: "http://bank/x?api_key=of-url-1".into(),
        headers: fields("x-token", "of-head-1"),
        body: Body::Whole("{\"otp\": \"of-body-1\"}".into()),
        reply: Some(EffectReply::new(
            StatusCode::OK,
            fields("content-type", "text/csv"),
            Body::Whole("sku,password\na,of-csv-1\n".into()),
        )),
        number: 1,
        replied_before: None,
    };
    let intent = Intent {
        step: "charge".into(),
        item: None,
        method: Method::POST,
        url: "http://bank/x?jwt=of-intent-1".into(),
        headers: vec![("x-pin".into(), "of-intent-2".into())],
        body: Value::Null,
        service: None,
        bytes: None,
        taken_from: None,
    };
    let text = "of-url-1 of-head-1 of-body-1 of-csv-1 of-intent-1 of-intent-2 shown";
    let shown = hidden_with(&pair, &json!({}), &[Arc::new(effect)], vec![intent], text);
    assert_eq!(shown, "*** *** *** *** *** *** shown");
}

#[test]
fn the_rules_of_the_creator_hold_for_a_follower_too() {
    let mut pair = answered(Mode::Rehearse, &json!({"nick": "Jane Roe", "alias": "Joe Roe"}), 0);
    let text = "of Jane Roe and Joe Roe";
    (pair.flags, pair.flag) = flags_with(declared("nick"), RedactRules::default());
    assert_eq!(hidden_with(&pair, &json!({}), &[], Vec::new(), text), "of *** and Joe Roe");
    (pair.flags, pair.flag) = flags_with(declared("nick"), declared("alias"));
    assert_eq!(hidden_with(&pair, &json!({}), &[], Vec::new(), text), "of *** and ***");
    (pair.flags, pair.flag) = flags_with(RedactRules::default(), declared("alias"));
    assert_eq!(hidden_with(&pair, &json!({}), &[], Vec::new(), text), "of Jane Roe and ***");
}

#[test]
fn what_an_assert_says_is_shown_where_the_files_declare_secrets() {
    let mut answered = answered(Mode::Rehearse, &json!({"nick": "Jane Roe"}), 0);
    (answered.flags, answered.flag) = flags_with(RedactRules::default(), declared("nick"));
    let engine = Observation::new(StatusCode::OK, headers(), Body::Whole("{}".into()), Duration::ZERO, Vec::new());
    let (report, answered) = (RunReport::default(), &answered);
    let parts = PairToRedact {
        answered,
        engine: &engine,
        report: &report,
        effects: None,
        recorded: None,
        bounds: *BOUNDS,
        expired: &|| false,
    };
    let redaction = PairRedaction::of(parts);
    let said = |source: &str, error: &str| {
        let (path, kind) = (format!("assert {source}"), DifferenceKind::Assert);
        let (legacy, engine, contradicts) = (Some("holds".into()), Some(error.to_owned()), Vec::new());
        shown(Difference { path, kind, legacy, engine, contradicts }, &redaction).engine.unwrap_or_default()
    };
    let absent = "cannot be evaluated: `legacy.body.absent` is absent";
    assert_eq!(said("${legacy.body.absent == 1}", absent), absent);
    assert_eq!(said("${legacy.body.nick == ''}", "does not hold"), "does not hold", "the name of a secret is no value");
    let quoted = "cannot be evaluated: `legacy.body[\"Jane Roe\"]` is absent";
    assert_eq!(said("${legacy.body[legacy.body.nick] == 1}", quoted), "cannot be evaluated: `***` is absent");
}

#[test]
fn with_more_secrets_than_are_looked_for_every_text_is_hidden() {
    let tokens: Vec<Value> = (0..=QUOTED_SECRETS_MAX).map(|n| json!({"token": format!("token-{n:05}")})).collect();
    let pair = answered(Mode::Rehearse, &json!({"list": tokens}), 0);
    assert_eq!(hidden_with(&pair, &json!({}), &[], Vec::new(), "anything"), STARS);
    let engine = Observation::new(StatusCode::OK, headers(), Body::TooLarge, Duration::ZERO, Vec::new());
    let report = RunReport::default();
    let pair = PairToRedact {
        answered: &pair,
        engine: &engine,
        report: &report,
        effects: None,
        recorded: None,
        bounds: *BOUNDS,
        expired: &|| false,
    };
    let mut body = json!({"a": "text", "n": [1], "yes": true});
    PairRedaction::of(pair).hide_in_reply_body(&mut body);
    assert_eq!(body, json!({"a": STARS, "n": [STARS], "yes": true}));
}

#[tokio::test]
async fn a_secret_that_is_a_key_is_hidden() {
    let legacy = json!({"session": {"id": "tok_live_abc1"}, "by": {"tok_live_abc1": 1, "shown": 1}});
    let said = json!({"session": {"id": "tok_live_abc1"}, "by": {"tok_live_abc1": 2, "shown": 1}});
    let event = finished(&json!({}), &json!({"by": {"tok_live_abc1": 3}}));
    let sample = sample_of(&legacy, said, vec![event]).await;
    let text = format!("{sample:?}");
    assert!(!text.contains("tok_live_abc1") && sample.engine.contains("shown"), "{text}");
}

#[tokio::test]
async fn secrets_in_replies_to_the_reads_of_a_dark_run_are_hidden() {
    let ask = |size: usize| {
        engine(move |request: ArmRequest| {
            let body = json!({"otp": "of-dark-1", "x": "x".repeat(size)}).to_string();
            let asked = Intent {
                step: "look".into(),
                item: None,
                method: Method::GET,
                url: "http://bank/x".into(),
                headers: Vec::new(),
                body: Value::Null,
                service: None,
                bytes: None,
                taken_from: None,
            };
            let reply = Some(EffectReply::new(StatusCode::OK, headers(), Body::Whole(body.into())));
            request.reads.expect("they are recorded").record(AnsweredRead { asked, reply });
            async move { answer(&json!({"n": 2, "said": "not of-dark-1"}), RunReport::default()) }
        })
    };
    for (size, shows) in [(0, true), (1 << 20, false)] {
        let rig = TestShadow::new(ask(size), limits(), json!({})).await;
        rig.offer(answered(Mode::Dark, &json!({"n": 1}), 0));
        assert_eq!(rig.settled(1).await.mismatched, 1);
        let sample = testing::samples(&rig.evidence, &rig.store, &id()).await.remove(0);
        assert!(!format!("{sample:?}").contains("of-dark-1"), "{sample:?}");
        // Where not all that was read is known, no text is shown.
        assert_eq!(sample.engine.contains("\"n\": 2"), shows, "{}", sample.engine);
    }
}
