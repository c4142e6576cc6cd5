//! Tests that a run's events hold neither a value declared `sensitive` nor quotes of it, whatever source the value came
//! from and in whatever form.

use http::{HeaderMap, HeaderName, HeaderValue};
use jiff::Timestamp;

use super::*;
use crate::workflow::{BytesMark, FirstValues, RunStarted, quotes_in_first_event};

fn plan(yaml: &str) -> Plan {
    let source: Value = serde_saphyr::from_str(yaml).unwrap_or_else(|error| panic!("{yaml}\n{error}"));
    let services = BTreeMap::from([(ServiceName::from("bank"), false)]);
    let known = DeclaredNames {
        services: &services,
        secrets: &BTreeSet::new(),
        has_store_key: true,
        limits: &Limits::default(),
    };
    Plan::from_source(&source, &known).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

/// The sealer of a new run; it knows nothing yet.
fn sealer_of(yaml: &str) -> EventSealer {
    EventSealer::new(&Arc::new(Sealer::new(Some(&Secret::new("k")))), RUN, Knowledge::for_test(plan(yaml)))
}

/// The event as it is stored; also checks that reading it gives the same event.
fn stored(sealer: &mut EventSealer, event: &Event) -> String {
    sealer.knowledge.learn(event);
    let sealed = sealed_event(sealer, event);
    assert_eq!(&opened_event(sealer, &sealed), event);
    serde_json::to_string(&sealed).unwrap()
}

fn event(kind: &str, content: Value) -> Event {
    serde_json::from_value(json!({ kind: content })).unwrap_or_else(|error| panic!("{kind}: {error}"))
}

fn started(request: Value, legacy: Option<Value>, sensitive_paths: Vec<SensitivePath>) -> Event {
    let started = json!({
        "run": RUN, "workflow": "w", "plan": "p", "mode": "real", "route": null, "started": Timestamp::UNIX_EPOCH,
        "request": request, "credentials": [], "sealed": null, "legacy": legacy, "instance": null, "creates": null,
        "traceparent": null, "sensitive": true, "sensitive_paths": sensitive_paths,
    });
    Event::RunStarted(Arc::new(serde_json::from_value::<RunStarted>(started).unwrap()))
}

fn done(output: Value) -> Event {
    let outcome = json!({ "done": { "status": 200, "headers": {}, "output": output } });
    event("step_finished", json!({ "step": "a", "item": null, "part": "do", "attempt": 1, "outcome": outcome }))
}

const HEADERS: &str = r#"
workflow: w
input: { sensitive_headers: [x-session] }
steps:
  a: { call: "POST ${services.bank}/a", body: "${request.body.note}", rehearse: { s: "${legacy.headers['x-session']}" } }
respond: { status: 200 }
"#;

#[test]
fn a_declared_header_of_the_reply_of_legacy_is_sealed_with_its_quotes() {
    let mut sealer = sealer_of(HEADERS);
    let legacy = json!({ "headers": { "x-session": "SESS-7", "x-other": "plain-text" } });
    let first = stored(&mut sealer, &started(json!({}), Some(legacy), Vec::new()));
    assert!(!first.contains("SESS-7") && first.contains("plain-text"), "{first}");
    let reply = stored(&mut sealer, &done(json!({ "m": "no session SESS-7 here" })));
    assert!(!reply.contains("SESS-7"), "{reply}");
    // The header itself is not kept where nothing reads it.
    let values = |value: &str| HeaderMap::from_iter([(HeaderName::from_static("x-session"), value.parse().unwrap())]);
    let (request, legacy, kept) = (values("REQ-44"), values("LEG-55"), json!({ "body": "REQ-44 or LEG-55" }));
    let first = FirstValues {
        body: &Value::Null,
        headers: &request,
        kept: &kept,
        legacy: Some(&kept),
        legacy_headers: Some(&legacy),
        instance: None,
    };
    let found: Vec<_> = quotes_in_first_event(&plan(HEADERS), &first).iter().map(ToString::to_string).collect();
    assert_eq!(found, ["$.request.body", "$.legacy.body"]);
}

#[test]
fn a_declared_header_that_is_not_ascii_is_found_in_the_first_event() {
    for header in ["sécret-8811-öö".as_bytes(), b"s\xe9cret-8811-\xf6\xf6"] {
        let value = HeaderValue::from_bytes(header).unwrap();
        let headers = HeaderMap::from_iter([(HeaderName::from_static("x-session"), value)]);
        let kept = json!({ "body": { "note": "my sécret-8811-öö ok" } });
        let first = FirstValues {
            body: &kept["body"],
            headers: &headers,
            kept: &kept,
            legacy: None,
            legacy_headers: None,
            instance: None,
        };
        let paths = quotes_in_first_event(&plan(HEADERS), &first);
        assert_eq!(paths.iter().map(ToString::to_string).collect::<Vec<_>>(), ["$.request.body.note"]);
        let first = stored(&mut sealer_of(HEADERS), &started(kept, None, paths));
        assert!(!first.contains("8811"), "{first}");
    }
}

const BODY: &str = r#"
workflow: w
input: { sensitive: [$.card.number] }
steps:
  a: { call: "POST ${services.bank}/a", body: "${request.body}", sensitive: [$.token] }
  go: { wait: { signal: go }, sensitive: [$.otp] }
  b: { call: "POST ${services.bank}/b", body: { all: "${steps.a.output}" } }
respond: { status: 200 }
"#;

/// JSON under another content type is a text or bytes.
#[test]
fn a_body_in_which_the_declared_parts_cannot_be_found_is_sealed_as_a_whole() {
    let mark = BytesMark::new(&[7; 32]);
    let card = r#"{"card":{"number":"4111-22"}}"#;
    for body in [json!(card), json!("card=4111-22"), mark.value(card.as_bytes(), Some("application/octet-stream"))] {
        let mut sealer = sealer_of(BODY);
        let first = stored(&mut sealer, &started(json!({ "body": body, "query": { "q": "plain" } }), None, Vec::new()));
        assert!(!first.contains("4111") && !first.contains("eyJjYXJk") && first.contains("plain"), "{first}");
        assert!(first.contains("«sealed:"));
    }
    // A declared value that can be read in the body is searched for in later events.
    let mut sealer = sealer_of(BODY);
    stored(&mut sealer, &started(json!({ "body": card }), None, Vec::new()));
    let reply = stored(&mut sealer, &done(json!({ "m": "no 4111-22 here", "n": 1 })));
    assert!(!reply.contains("4111") && reply.contains("here"), "{reply}");
    // Replies, signals, and a sent body that contains a text of a reply are sealed in the same way.
    let token = r#"{"token":"TOK-1"}"#;
    let otp = json!({ "name": "go", "payload": r#"{"otp":"TOK-1"}"#, "id": null, "by": "ann" });
    for event in [done(json!(token)), done(mark.value(token.as_bytes(), None)), event("signal_received", otp)] {
        let stored = stored(&mut sealer_of(BODY), &event);
        assert!(!stored.contains("TOK-1") && !stored.contains("eyJ0b2tl") && stored.contains("«sealed:"), "{stored}");
    }
    let request = json!({ "method": "POST", "url": "http://b/b", "headers": [],
        "body": { "text": json!({ "all": token }).to_string() } });
    let sent = json!({ "step": "b", "item": null, "part": "do", "attempt": 1, "key": null, "effect": "shared",
        "repeatable": false, "request": request });
    let sent = stored(&mut sealer_of(BODY), &event("step_started", sent));
    assert!(!sent.contains("TOK-1"), "{sent}");
}

const ASKS: &str = r#"
workflow: w
steps:
  ask: { checkpoint: { question: "Which code?", on_timeout: approve, timeout: 1h, default: { code: "DEF-66" } }, sensitive: [$.code] }
  go: { wait: { signal: go }, sensitive: [$.code] }
  a: { needs: [ask], call: "POST ${services.bank}/a", body: { code: "${steps.ask.output.code}" } }
respond: { status: 200 }
"#;

/// The codes have the 6 characters from which on a declared value is searched for within texts.
#[test]
fn a_declared_value_that_a_person_or_a_signal_gives_is_searched_for_like_one_of_a_service() {
    let mut sealer = sealer_of(ASKS);
    let asked = json!({ "checkpoint": "c", "step": "ask", "kind": "question", "risk": "high", "question": "Which code?",
        "who": [], "items": [], "at": Timestamp::UNIX_EPOCH, "until": null, "on_timeout": "approve",
        "default": { "code": "DEF-66" } });
    stored(&mut sealer, &event("checkpoint_opened", asked));
    let said = json!({ "approve": true, "values": { "code": "QX71-7" }, "approved": [], "struck": [], "note": null });
    let answered = json!({ "checkpoint": "c", "said": said, "by": "ann" });
    let answered = stored(&mut sealer, &event("checkpoint_answered", answered));
    assert!(!answered.contains("QX71"), "{answered}");
    let signal = json!({ "name": "go", "payload": { "code": "SIG-55" }, "id": null, "by": "ann" });
    stored(&mut sealer, &event("signal_received", signal));
    let reply = stored(&mut sealer, &done(json!({ "m": "no QX71-7, DEF-66 or SIG-55 here" })));
    assert!(!["QX71", "DEF-6", "SIG-5"].iter().any(|code| reply.contains(code)), "{reply}");
}

const RAW: &str = r#"
workflow: w
input: { sensitive: [$.card] }
steps: { a: { call: "POST ${services.bank}/a", raw: "${request.raw}", on_conflict: pause } }
respond: { status: 200 }
"#;

#[test]
fn what_people_type_for_a_call_that_sends_a_sensitive_body_as_it_came_is_sealed() {
    let resolved = json!({ "step": "a", "item": null, "part": "do", "by": "ann", "reason": "because TYPED-R",
        "choice": { "take": { "output": { "who": "TYPED-O" } } } });
    let taken = stored(&mut sealer_of(RAW), &event("resolved", resolved));
    assert!(!taken.contains("TYPED"), "{taken}");
}

#[test]
fn a_number_is_found_in_whatever_notation_and_a_short_one_as_a_whole() {
    let mut sealer = sealer_of(BODY);
    stored(&mut sealer, &started(json!({ "body": { "card": { "number": 71_234_567 } } }), None, Vec::new()));
    let reply: Value = serde_json::from_str(r#"{"a":71234567.0,"b":7.1234567e7,"c":[71234567],"d":7123456}"#).unwrap();
    let reply = stored(&mut sealer, &done(reply));
    assert!(!reply.contains("1234567") && reply.contains(r#""d":7123456"#), "{reply}");
    let mut sealer = sealer_of(BODY);
    stored(&mut sealer, &started(json!({ "body": { "card": { "number": 200 } } }), None, Vec::new()));
    let reply = stored(&mut sealer, &done(json!({ "a": 200, "b": 2001 })));
    assert!(reply.contains(r#""status":200"#) && !reply.contains(r#""a":200"#) && reply.contains("2001"), "{reply}");
    // The status of an answer is no value that was given to the run.
    let record = json!({ "status": 200, "headers": [], "body": { "text": "{\"a\":1}" } });
    stored(&mut sealer, &event("responded", json!({ "answer": record, "pin": null })));
}
