//! Captures of pairs full of secrets: nothing secret is in them, equal values stay equal, and they are read back.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use super::*;
use crate::compare::tests::rules;
use crate::compare::{Body, CompareBounds, Effect, EffectReply, Intent, Observation, Rules};
use crate::limits::Limits;
use crate::secret::{Detectors, QUOTED_SECRETS_MAX, REDACTED, RedactRules, RedactionKey};

const CARD: &str = "4111111111111111";

fn headers(fields: &[(&str, &str)]) -> HeaderMap {
    let parse =
        |(name, value): &(&str, &str)| -> (HeaderName, HeaderValue) { (name.parse().unwrap(), value.parse().unwrap()) };
    fields.iter().map(parse).collect()
}

fn json_headers() -> HeaderMap {
    headers(&[("content-type", "application/json")])
}

fn whole(value: &Value) -> Body {
    Body::Whole(value.to_string().into())
}

fn reply(status: u16, headers: HeaderMap, body: Body) -> Observation {
    Observation::new(StatusCode::from_u16(status).unwrap(), headers, body, Duration::ZERO, Vec::new())
}

fn intent(step: &str, method: Method, url: &str, body: Value) -> Intent {
    Intent {
        step: step.into(),
        item: None,
        method,
        url: url.into(),
        headers: vec![("content-type".into(), "application/json".into())],
        body,
        service: Some("bank".into()),
        bytes: None,
        taken_from: None,
    }
}

/// The parts of a pair.
struct Parts {
    path: &'static str,
    params: Vec<(Arc<str>, String)>,
    query: Option<&'static str>,
    headers: HeaderMap,
    body: Body,
    legacy: Observation,
    /// The value of `instance`, and the same with stars in place of its sensitive parts.
    instance: Option<(Value, Value)>,
    reads: Vec<AnsweredRead>,
    intents: Vec<Intent>,
    effects: Option<Vec<Arc<Effect>>>,
}

impl Parts {
    fn new(body: &Value, legacy: &Value) -> Self {
        Self {
            path: "/orders",
            params: Vec::new(),
            query: None,
            headers: json_headers(),
            body: whole(body),
            legacy: reply(201, json_headers(), whole(legacy)),
            instance: None,
            reads: Vec::new(),
            intents: Vec::new(),
            effects: None,
        }
    }

    fn captured(&self, redact: &RedactRules) -> Capture {
        self.captured_by(redact, &Rules::default())
    }

    fn captured_by(&self, redact: &RedactRules, rules: &Rules) -> Capture {
        self.try_capture(redact, rules).unwrap()
    }

    fn try_capture(&self, redact: &RedactRules, rules: &Rules) -> Result<Capture, NotCaptured> {
        self.try_capture_until(redact, rules, &|| false)
    }

    fn try_capture_until(
        &self,
        redact: &RedactRules,
        rules: &Rules,
        expired: &dyn Fn() -> bool,
    ) -> Result<Capture, NotCaptured> {
        let pair = CapturedPair {
            method: &Method::POST,
            path: self.path,
            params: &self.params,
            query: self.query,
            headers: &self.headers,
            body: &self.body,
            legacy: &self.legacy,
            started: None,
            instance: self.instance.as_ref().map(|(value, hidden)| InstanceOfPair { value, hidden: Some(hidden) }),
            reads: &self.reads,
            intents: &self.intents,
            effects: self.effects.as_deref(),
        };
        let context = CaptureContext {
            id: Uuid::nil(),
            route: &"orders".into(),
            at: Timestamp::UNIX_EPOCH,
            plan: None,
            outcome: "matched",
            rules,
            redact,
            key: &RedactionKey::derived_from(&[7; 32]),
            sensitive: None,
            bounds: &CompareBounds::of(&Limits::default()),
            expired,
        };
        capture(&pair, &context)
    }
}

fn text_of(body: &CapturedBody) -> Value {
    serde_json::from_str(body.text()).unwrap()
}

#[test]
fn the_same_card_has_the_same_text_everywhere() {
    let note = format!("paid with {CARD}");
    let card: Value = serde_json::from_str(CARD).unwrap();
    let mut parts = Parts::new(&json!({"card": card, "total": 5}), &json!({"note": note, "card": CARD}));
    parts.query = Some("page=2&card=4111+1111+1111+1111");
    parts.intents = vec![intent("charge", Method::POST, "http://bank/charges/4111111111111111", json!({"pan": CARD}))];
    parts.effects = Some(vec![Arc::new(Effect {
        service: Some("bank".into()),
        method: Method::POST,
        url: "http://bank/charges".into(),
        headers: headers(&[("content-type", "application/x-www-form-urlencoded"), ("x-ref", CARD)]),
        body: Body::Whole("amount=5&number=4111111111111111".into()),
        reply: Some(EffectReply::new(StatusCode::OK, json_headers(), whole(&json!({"a": CARD})))),
        number: 3,
        replied_before: Some(4),
    })]);
    let capture = parts.captured(&RedactRules::default());
    let shown = serde_json::to_string(&capture).unwrap();
    assert!(!shown.contains("4111"), "{shown}");
    let request = text_of(&capture.request.body);
    let hash = request["card"].as_str().unwrap();
    assert!(hash.starts_with(REDACTED) && request["total"] == 5, "{request}");
    let legacy = text_of(&capture.legacy.body);
    assert_eq!((&legacy["card"], &legacy["note"]), (&json!(hash), &json!(format!("paid with {hash}"))));
    assert_eq!(text_of(&capture.intents[0].body)["pan"], hash);
    let calls = capture.calls.as_ref().unwrap();
    assert_eq!(calls[0].headers.iter().find(|(name, _)| name == "x-ref").unwrap().1, hash);
    assert_eq!(text_of(&calls[0].reply.as_ref().unwrap().body)["a"], hash);
    let encoded = percent_encoding::utf8_percent_encode(hash, percent_encoding::NON_ALPHANUMERIC).to_string();
    assert_eq!(capture.intents[0].url, format!("http://bank/charges/{encoded}"));
    assert!(capture.request.query.as_ref().unwrap().starts_with("page=2&card=%5Bredacted"), "{:?}", capture.request);
    assert!(matches!(&calls[0].body, CapturedBody::Text(text) if text.contains("amount=5")), "{:?}", calls[0].body);
}

#[test]
fn secrets_are_known_by_name_by_path_and_where_they_are_quoted() {
    let body = json!({
        "customer": {"name": "Jane Roe", "ref": "c-99001"}, "session": {"id": "sess-4711", "list": ["hunter2x", 7]},
        "mail": "jane@example.com", "echo": "my token is tok-31337", "n": serde_json::from_str::<Value>("1.50").unwrap(),
    });
    let mut parts = Parts::new(&body, &json!({"hello": "Jane Roe", "ref": "c-99001", "by": "jane@example.com"}));
    parts.headers = headers(&[
        ("content-type", "application/json"),
        ("authorization", "Bearer tok-31337"),
        ("cookie", "a=cookie-1; b=cookie-2"),
        ("content-length", "99"),
    ]);
    parts.path = "/orders/p-2222222/items";
    parts.params = vec![("token".into(), "p-2222222".to_owned())];
    parts.legacy = reply(
        200,
        headers(&[("content-type", "application/json"), ("x-echo", "cookie-2"), ("location", "/orders/p-2222222")]),
        parts.legacy.body().clone(),
    );
    let paths = vec![serde_json_path::JsonPath::parse("$.customer.name").unwrap()];
    let rules = RedactRules::new(["ref".to_owned()], paths, Detectors { email: true });
    let capture = parts.captured(&rules);
    let shown = serde_json::to_string(&capture).unwrap();
    for secret in
        ["Jane", "c-99001", "sess-4711", "hunter2x", "example.com", "tok-31337", "cookie-1", "cookie-2", "p-2222222"]
    {
        assert!(!shown.contains(secret), "{secret}: {shown}");
    }
    let request = text_of(&capture.request.body);
    assert_eq!(request["customer"]["name"], text_of(&capture.legacy.body)["hello"], "equal values stay equal");
    assert!(request["session"]["list"].is_array() && request["session"]["id"].is_string(), "{request}");
    assert_eq!(capture.request.body.text().matches("1.50").count(), 1, "numbers keep their form");
    assert!(capture.request.path.starts_with("/orders/%5Bredacted") && capture.request.path.ends_with("/items"));
    assert!(!capture.request.headers.iter().any(|(name, _)| name == "content-length"));
    let without_rules = serde_json::to_string(&parts.captured(&RedactRules::default())).unwrap();
    assert!(without_rules.contains("Jane Roe") && without_rules.contains("jane@example.com"), "only where asked for");
}

#[test]
fn what_has_no_name_is_replaced() {
    let mut parts = Parts::new(&json!(["hunter2", 42, {"n": 1}]), &json!("hunter2"));
    let capture = parts.captured(&RedactRules::default());
    let (request, legacy) = (text_of(&capture.request.body), text_of(&capture.legacy.body));
    assert_eq!((&request[0], &request[2]), (&legacy, &json!({"n": 1})));
    assert!(!request.to_string().contains("hunter2") && !request.to_string().contains("42,"), "{request}");
    // A text without a structure, bytes, and what only claims to be JSON.
    for (content_type, body) in
        [("text/plain", "hunter2 says"), ("image/png", "hunter2"), ("application/json", "{\"password\": \"hunter2\"")]
    {
        parts.headers = headers(&[("content-type", content_type)]);
        parts.body = Body::Whole(body.into());
        let capture = parts.captured(&RedactRules::default());
        assert!(capture.request.body.text().starts_with(REDACTED), "{:?}", capture.request.body);
    }
    parts.headers = headers(&[("content-type", "application/xml")]);
    parts.body = Body::Whole("<a><password>hunter2</password><n>7</n></a>".into());
    let capture = parts.captured(&RedactRules::default());
    let text = capture.request.body.text();
    assert!(!text.contains("hunter2") && text.contains("<n>7</n>"), "{text}");
}

#[test]
fn a_capture_is_read_back_and_a_newer_one_is_refused() {
    let mut parts = Parts::new(&json!({"a": 1}), &json!({"b": 2}));
    parts.effects = Some(Vec::new());
    let capture = parts.captured(&RedactRules::default());
    let mut line = serde_json::to_value(&capture).unwrap();
    assert_eq!(Capture::read(&line.to_string()).unwrap(), capture);
    let legacy = capture.legacy().unwrap();
    assert_eq!((legacy.status().as_u16(), legacy.body()), (201, &whole(&json!({"b": 2}))));
    assert!(capture.effects().unwrap().unwrap().is_empty());
    line["version"] = 2.into();
    line["request"] = Value::Null;
    let error = Capture::read(&line.to_string()).unwrap_err().to_string();
    assert!(error.contains("version 2"), "{error}");
    assert!(Capture::read("{}").is_err() && Capture::read("x").is_err());
    let mut invalid = capture;
    invalid.legacy.status = 1_000;
    assert!(invalid.legacy().unwrap_err().to_string().contains("status"));
}

fn read(url: &str, body: Value, answer: &Value) -> AnsweredRead {
    let reply = EffectReply::new(StatusCode::OK, json_headers(), whole(answer));
    AnsweredRead { asked: intent("look", Method::GET, url, body), reply: Some(reply) }
}

#[test]
fn what_is_known_of_an_instance_has_no_secret_and_the_hashes_of_the_pair() {
    let known = json!({
        "id": "7", "legacy_id": "a-7", "status": "completed",
        "input": {"card": CARD, "customer": {"name": "Ann Example"}, "note": "said Ann Example", "amount": 5},
        "output": {"id": "7", "pay_ref": "by-the-workflow", "state": "open"},
    });
    let mut hidden = known.clone();
    hidden["output"]["pay_ref"] = "***".into();
    let mut parts = Parts::new(&json!({}), &json!({"paid": CARD, "customer": {"name": "Ann Example"}}));
    parts.instance = Some((known.clone(), hidden));
    let redact = RedactRules::new([], vec!["$.customer.name".parse().unwrap()], Detectors::default());
    let capture = parts.captured(&redact);
    let found = capture.instance.clone().unwrap();
    let text = serde_json::to_string(&capture).unwrap();
    for secret in [CARD, "Ann Example", "by-the-workflow"] {
        assert!(!text.contains(secret), "{secret}: {text}");
    }
    let legacy = text_of(&capture.legacy.body);
    assert_eq!(found["input"]["card"], legacy["paid"], "{found}");
    assert_eq!(found["input"]["customer"]["name"], legacy["customer"]["name"], "{found}");
    assert_eq!(found["output"]["state"], "open");
    for plain in ["id", "legacy_id", "status"] {
        assert_eq!(found[plain], known[plain]);
    }
    assert_eq!(found["input"]["amount"], 5);
    assert!(capture.legacy.body.text().contains(REDACTED));
}

#[test]
fn reads_are_answered_in_their_order_and_whatever_the_host() {
    let mut parts = Parts::new(&json!({}), &json!({}));
    parts.reads = vec![
        read("http://bank/prices/1?a=1&b=2", Value::Null, &json!(1)),
        read("http://bank/prices/1?a=1&b=2", Value::Null, &json!(2)),
        read("http://bank/quotes", json!({"x": 1, "y": 2}), &json!({"q": 3})),
    ];
    let capture = parts.captured(&RedactRules::default());
    let reads = CapturedReads::of(&capture).unwrap();
    let answer = |url: &str, body: Value| {
        let reply = reads.answer(&intent("s", Method::GET, url, body))?;
        match reply.body {
            Body::Whole(bytes) => Ok::<_, String>(String::from_utf8(bytes.to_vec()).unwrap()),
            Body::TooLarge => panic!("captured whole"),
        }
    };
    let first = answer("https://elsewhere:1/prices/1?b=2&a=1", Value::Null).unwrap();
    let second = answer("http://bank/prices/1?a=1&b=2", Value::Null).unwrap();
    assert_ne!(first, second, "in their order");
    assert_eq!(answer("http://bank/prices/1?a=1&b=2", Value::Null).unwrap(), second, "the last one again");
    assert_eq!(answer("http://bank/quotes", json!({"y": 2, "x": 1})).unwrap(), r#"{"q":3}"#);
    let error = answer("http://bank/prices/2?a=1&b=2", Value::Null).unwrap_err();
    assert!(error.contains("GET bank/prices/2") && error.contains("the nearest is `GET bank/prices/1"), "{error}");
    assert!(answer("http://bank/prices%2F1?a=1&b=2", Value::Null).is_err(), "an encoded slash separates no segments");
    assert_eq!(answer("http://bank/%70rices/1?a=1&b=2", Value::Null).unwrap(), second);
    let mut other = intent("s", Method::GET, "http://bank/prices/1?a=1&b=2", Value::Null);
    other.service = Some("shop".into());
    assert!(reads.answer(&other).unwrap_err().contains("none of that service"));
}

#[test]
fn a_secret_is_replaced_in_every_encoding_by_one_hash() {
    let secret = "a/b+c=\"1 é";
    let within = json!({"said": secret}).to_string();
    let mut parts = Parts::new(&json!({"token": secret}), &json!({"echo": format!("not JSON: {within}")}));
    parts.intents = vec![intent("look", Method::GET, "http://bank/x?q=say+a%2Fb%2Bc%3D%221+%C3%A9", Value::Null)];
    parts.path = "/orders/a%2Fb+c=%221%20%C3%A9";
    let capture = parts.captured(&RedactRules::default());
    let hash = text_of(&capture.request.body)["token"].as_str().unwrap().to_owned();
    let echo = text_of(&capture.legacy.body)["echo"].clone();
    assert_eq!(echo, format!("not JSON: {{\"said\":\"{hash}\"}}"));
    let encoded =
        |text: &str| percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string();
    assert_eq!(capture.intents[0].url, format!("http://bank/x?q={}", encoded(&format!("say {hash}"))));
    assert_eq!(capture.request.path, format!("/orders/{}", encoded(&hash)));
}

#[test]
fn a_token_of_a_location_and_one_in_markup_are_replaced_wherever_they_are() {
    let mut parts = Parts::new(&json!({"n": 1}), &json!({"xml": "<a><pin><![CDATA[4711]]></pin></a>"}));
    let location = headers(&[("location", "https://a/cb?token=of%2Flocation-1&n=1")]);
    parts.reads = vec![AnsweredRead {
        asked: intent("look", Method::GET, "http://a/start", Value::Null),
        reply: Some(EffectReply::new(StatusCode::FOUND, location, Body::Whole("".into()))),
    }];
    let mut call = intent("charge", Method::POST, "http://a/charges", json!("state=of%2Flocation-1&n=3"));
    call.headers = vec![("content-type".into(), "application/x-www-form-urlencoded".into())];
    parts.intents = vec![call];
    let capture = parts.captured(&RedactRules::default());
    let text = serde_json::to_string(&capture).unwrap();
    assert!(!text.contains("location-1") && text.contains("n=3"), "{text}");
    assert!(!text.contains("4711") && text.contains("<pin>[redacted "), "{text}");
}

#[test]
fn what_the_files_declare_is_replaced_also_if_it_is_short() {
    let mut parts = Parts::new(&json!({"nick": "Jane", "note": "of Jane", "auth": "none-1"}), &json!({"n": "no Ann"}));
    parts.headers =
        headers(&[("content-type", "application/json"), ("set-cookie", "s=c00kie-1; Path=/x; SameSite=Strict")]);
    parts.legacy = reply(200, json_headers(), whole(&json!({"note": "Jane goes Strict to /x, says c00kie-1"})));
    let redact = RedactRules::new(["nick".to_owned()], Vec::new(), Detectors::default());
    let capture = parts.captured(&redact);
    let hash = text_of(&capture.request.body)["nick"].as_str().unwrap().to_owned();
    assert_eq!(text_of(&capture.request.body)["note"], format!("of {hash}"));
    let note = text_of(&capture.legacy.body)["note"].as_str().unwrap().to_owned();
    assert!(note.starts_with(&format!("{hash} goes Strict to /x, says {REDACTED}")), "{note}");
}

#[test]
fn a_pair_with_more_secrets_than_are_looked_for_is_not_captured() {
    let tokens = |count| (0..count).map(|n| json!({"token": format!("token-{n:05}")})).collect::<Value>();
    let captured = |count| {
        let parts = Parts::new(&json!({"list": tokens(count)}), &json!({}));
        parts.try_capture(&RedactRules::default(), &Rules::default()).map(drop)
    };
    assert_eq!(captured(QUOTED_SECRETS_MAX), Ok(()));
    assert_eq!(captured(QUOTED_SECRETS_MAX + 1), Err(NotCaptured::TooManySecrets));
}

#[test]
fn lines_that_are_secret_because_of_others_are_replaced() {
    let key = "-----BEGIN PRIVATE KEY-----\nMHcC5ecret\nQWE5ecret\n-----END PRIVATE KEY-----";
    let text = format!(
        "{key}\nDear Bob\nPassword:\n5ecret-1\ncustomer_ref:\r\n  5ecret-2\r\ntokens:\n  - name: a\n    value: 5ecret-3\n\
         Authorization: Bearer\n 5ecret-4\nbye\n\"password\": {{\n \"v\": \"5ecret-5\"\n}}\n"
    );
    let plain = || (headers(&[("content-type", "text/plain")]), Body::Whole(text.clone().into()));
    let key_lines: Vec<&str> = key.lines().collect();
    let mut parts = Parts::new(
        &json!({ "key": key_lines, "said": "so: 5ecret-2", "mail": "Passcode token:\n5ecret-6" }),
        &json!({}),
    );
    parts.legacy = reply(201, plain().0, plain().1);
    parts.effects = Some(vec![Arc::new(Effect {
        service: None,
        method: Method::POST,
        url: "http://bank/".into(),
        headers: plain().0,
        body: plain().1,
        reply: Some(EffectReply::new(StatusCode::OK, plain().0, plain().1)),
        number: 1,
        replied_before: None,
    })]);
    let redact = RedactRules::new(["customer_ref".to_owned()], Vec::new(), Detectors::default());
    let captured = parts.captured_by(&redact, &rules(json!({ "text": {} })));
    let shown = serde_json::to_string(&captured).unwrap();
    assert!(!shown.contains("5ecret"), "{shown}");
    let lines: Vec<&str> = captured.legacy.body.text().split('\n').collect();
    assert_eq!(
        (lines.len(), lines[0], lines[4], lines[14]),
        (text.split('\n').count(), key_lines[0], "Dear Bob", "bye")
    );
    assert!(lines[1].starts_with(REDACTED) && lines[6].starts_with(REDACTED) && lines[1] != lines[2], "{lines:?}");
}

#[test]
fn of_a_har_file_the_entries_of_routes_are_taken() {
    let entry = |method: &str, url: &str, status: u16| {
        json!({
            "startedDateTime": "2026-11-26T05:00:00.000Z",
            "request": {"method": method, "url": url, "headers": [{"name": ":path", "value": "/"}, {"name": "X-A", "value": "1"}],
                "postData": {"mimeType": "application/json", "text": "{\"a\":1}"}},
            "response": {"status": status, "headers": [{"name": "Content-Encoding", "value": "gzip"}],
                "content": {"mimeType": "application/json", "text": "eyJiIjoyfQ==", "encoding": "base64"}}
        })
    };
    let har = json!({"log": {"version": "1.2", "entries": [
        entry("GET", "https://shop.example/logo.png", 200),
        entry("POST", "https://shop.example:8443/orders?x=1#top", 201),
        entry("POST", "https://shop.example/orders", 0),
    ]}});
    let route_of = |method: &str, host: Option<&str>, path: &str| {
        assert!(host.is_some_and(|host| host.starts_with("shop.example")));
        (method == "POST" && path == "/orders").then(|| "orders".into())
    };
    let found = pairs_of_har(&har.to_string(), &route_of).unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    let pair = &found[0];
    assert_eq!((pair.request.query.as_deref(), pair.request.body.text()), (Some("x=1"), r#"{"a":1}"#));
    assert_eq!(pair.request.headers, [("x-a".into(), "1".into()), ("content-type".into(), "application/json".into())]);
    assert_eq!((pair.legacy.status, pair.legacy.body.text()), (201, r#"{"b":2}"#));
    assert_eq!(pair.legacy.headers, [("content-type".to_owned(), "application/json".to_owned())]);
    assert!(pairs_of_har("{\"log\": 1}", &route_of).is_err());
}

#[test]
fn what_cannot_be_redacted_in_time_is_not_captured() {
    let parts = Parts::new(&json!({"card": CARD}), &json!({"note": format!("paid with {CARD}"), "n": [1, 2, 3]}));
    let checks = std::cell::Cell::new(0);
    let until = |max: u32| {
        checks.set(0);
        let expired = || {
            checks.set(checks.get() + 1);
            checks.get() > max
        };
        parts.try_capture_until(&RedactRules::default(), &Rules::default(), &expired)
    };
    let whole = until(u32::MAX).unwrap();
    let all = checks.get();
    assert!(all > 10, "{all}");
    for max in 0..all {
        assert_eq!(until(max).unwrap_err(), NotCaptured::Time, "{max} of {all}");
    }
    assert_eq!(serde_json::to_value(until(all).unwrap()).unwrap(), serde_json::to_value(whole).unwrap());
}
