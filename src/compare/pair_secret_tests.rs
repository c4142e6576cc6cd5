//! Which values of a pair are learned as secrets, of which parts of it.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};

use super::bounds::CompareBounds;
use super::capture::AnsweredRead;
use super::effect::{Effect, EffectReply};
use super::observation::{Body, Intent, Observation};
use super::pair_parts::{PairMessage, PairParts, headers_of};
use super::pair_secrets::quoted_secrets;
use crate::limits::Limits;
use crate::secret::{Detectors, QUOTED_SECRETS_MAX, QuotedSecrets, RedactRules, STARS};

fn reply(headers: HeaderMap, body: &str) -> EffectReply {
    EffectReply::new(StatusCode::OK, headers, Body::Whole(body.to_owned().into()))
}

fn observed(reply: EffectReply) -> Observation {
    Observation::new(reply.status, reply.headers, reply.body, Duration::ZERO, Vec::new())
}

fn intent(url: &str, headers: &[(&str, &str)], body: Value) -> Intent {
    Intent {
        step: "charge".into(),
        item: None,
        method: Method::POST,
        url: url.into(),
        headers: headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        body,
        service: None,
        bytes: None,
        taken_from: None,
    }
}

fn rules() -> RedactRules {
    let paths = vec!["$.customer.name".parse().unwrap()];
    RedactRules::new(["nick".to_owned(), "x-nick".to_owned()], paths, Detectors::default())
}

/// What is learned of a request with these headers and this body, and legacy's reply.
fn learned(headers: &[(&str, &str)], body: &str, legacy: EffectReply) -> QuotedSecrets {
    let parts = PairParts {
        params: &[],
        query: None,
        headers: &headers_of(headers),
        body: &Body::Whole(body.to_owned().into()),
        legacy: &observed(legacy),
        engine: None,
        instance: None,
        reads: &[],
        intents: &[],
        effects: &[],
        recorded: Vec::new(),
    };
    quoted_secrets(&rules(), parts, &CompareBounds::of(&Limits::default()), &|| false)
}

fn of_body(body: &Value) -> QuotedSecrets {
    learned(&[], &body.to_string(), reply(HeaderMap::new(), "{}"))
}

#[test]
fn secrets_in_nested_and_quoted_formats_are_learned() {
    let nested = |text: &str| json!({ "raw": json!({ "raw": text }).to_string() });
    let quoted = json!({
        "json": nested(r#"{"password":"s3cr3t-1"}"#), "xml": nested("<a token=\"s3cr3t-2\"><pin>s3cr3t-3</pin></a>"),
        "url": nested("/x?to=%2Fb%3Ftoken%3Ds3cr3t-4"), "log": "x-api-key: s3cr3t-5", "info": "http://jo:s3cr3t-6@a/",
        "sentence": "the password: s3cr3t-7, is yours", "pins": [100_008], "html": "{&quot;otp&quot;:&quot;s3cr3t-8&quot;}",
    });
    let headers = [("x-meta", r#"{"password":"s3cr3t-9"}"#)];
    let known = learned(&headers, &quoted.to_string(), reply(HeaderMap::new(), "{}"));
    for n in 1..=9 {
        assert!(known.contains(&format!("s3cr3t-{n}")), "{n}");
    }
    assert!(known.contains("100008"));
    // Any sentence may stand behind such a word.
    let words =
        of_body(&json!({ "a": "Session: 2026-11-17 opening", "b": "token: see page twelve", "counts": [100_009] }));
    assert!(!["2026-11-17", "see", "page", "100009"].iter().any(|word| words.contains(word)));
}

#[test]
fn what_is_found_in_texts_by_chance_is_not_learned() {
    let headers = [
        ("set-cookie", "sid=c00kie-1; Path=/orders; HttpOnly; SameSite=Strict; Max-Age=3600000"),
        ("set-cookie", "b=c00kie-2"),
        ("cookie", "theme=dark; sid=c00kie-3"),
        ("authorization", "Bearer ***"),
    ];
    let body = json!({
        "token_type": "urn:x:Bearer-1", "auth": "required", "pin": "12345", "card": {"brand": "Mastercard"},
        "session": {"token_type": "DPoP-1", "id": 4_711_000}, "token": "abcdefghijkl", "otp": "s3cret", "userPassword": "swordfish",
    });
    let known = learned(&headers, &body.to_string(), reply(HeaderMap::new(), "{}"));
    for learned in ["c00kie-1", "c00kie-2", "c00kie-3", "4711000", "abcdefghijkl", "s3cret", "swordfish"] {
        assert!(known.contains(learned), "{learned}");
    }
    for not in [
        "/orders",
        "Strict",
        "3600000",
        "dark",
        "Bearer ***",
        "urn:x:Bearer-1",
        "required",
        "12345",
        "Mastercard",
        "DPoP-1",
    ] {
        assert!(!known.contains(not), "{not}");
    }
}

#[test]
fn what_the_files_declare_is_learned_also_if_it_is_short_or_a_word() {
    let known = of_body(&json!({
        "nick": "Jane", "list": [{"key": "nick", "value": "Anna"}], "customer": {"name": "Smith"},
        "x": {"nick": "abc"}, "text": "{\"customer\": {\"name\": \"Miller\"}}",
    }));
    for learned in ["Jane", "Anna", "Smith", "Miller"] {
        assert!(known.contains(learned), "{learned}");
    }
    assert!(!known.contains("abc"));
    assert!(learned(&[("x-nick", "Zoey")], "", reply(HeaderMap::new(), "")).contains("Zoey"));
}

/// Each part of a pair tells one secret.
#[test]
fn every_part_of_a_pair_is_read() {
    let xml = headers_of(&[("content-type", "application/xml")]);
    let csv = headers_of(&[("content-type", "text/csv")]);
    let lines = headers_of(&[("content-type", "application/x-ndjson")]);
    let form = [("content-type", "application/x-www-form-urlencoded"), ("x-token", "of-call-head")];
    let engine = observed(reply(HeaderMap::new(), "{\"password\":\"of-engine-1\"}"));
    let instance = json!({"id": "7", "input": {"otp": "of-input-1"}, "output": {"otp": "of-output-1"}});
    let read = AnsweredRead {
        asked: intent("http://a/x?token=of-read-url", &[("x-api-key", "of-read-head")], json!({"otp": "of-read-1"})),
        reply: Some(reply(
            xml,
            "<a xmlns='urn:a'><b x='1'/><password>of-xml-1</password><pin a='n-1'><c/><d-e/></pin></a>",
        )),
    };
    let effect = Effect {
        service: None,
        method: Method::POST,
        url: "http://a/x?api_key=of-call-url".into(),
        headers: headers_of(&form),
        body: Body::Whole("a=1&password=of+form%2F1".into()),
        reply: Some(reply(csv, "sku,password\na,of-csv-1\n")),
        number: 1,
        replied_before: None,
    };
    let recorded = json!({"anything": {"customer": {"name": "of-document"}}});
    let of_recorded = PairMessage {
        url: "http://a/?secret=of-recorded-url",
        headers: Cow::Owned(headers_of(&[("x-secret", "of-recorded-head")])),
        ..PairMessage::document(&recorded)
    };
    let parts = PairParts {
        params: &[("token".into(), "of-path-1".to_owned())],
        query: Some("a=1&card%5Bno%5D=of+query"),
        headers: &headers_of(&[("authorization", "Basic of-head-1")]),
        body: &Body::Whole("{\"password\": \"of-body-1\"}".into()),
        legacy: &observed(reply(lines, "{\"password\":\"of-lines-1\"}\n{\"a\":1}\n")),
        engine: Some(&engine),
        instance: Some(&instance),
        reads: &[read],
        intents: &[intent(
            "http://a/?jwt=of-intent-url",
            &[("x-pin", "of-intent-head")],
            json!({"pan": "of-intent-1"}),
        )],
        effects: &[Arc::new(effect)],
        recorded: vec![of_recorded],
    };
    let known = quoted_secrets(&rules(), parts, &CompareBounds::of(&Limits::default()), &|| false);
    for learned in [
        "of-path-1",
        "of query",
        "of-head-1",
        "of-body-1",
        "of-lines-1",
        "of-engine-1",
        "of-input-1",
        "of-output-1",
        "of-read-url",
        "of-read-head",
        "of-read-1",
        "of-xml-1",
        "of-call-url",
        "of-call-head",
        "of form/1",
        "of-csv-1",
        "of-intent-url",
        "of-intent-head",
        "of-intent-1",
        "of-recorded-url",
        "of-recorded-head",
        "of-document",
    ] {
        assert!(known.contains(learned), "{learned}");
    }
    assert!(!known.contains("c d-e") && !known.contains("urn:a"), "the form of an XML document is no secret");
}

#[test]
fn the_parts_of_a_body_are_read_by_their_names() {
    let head = [("content-type", "multipart/form-data; boundary=x")];
    let part = |head: &str, body: &str| format!("--x\r\nContent-Disposition: form-data; {head}\r\n\r\n{body}\r\n");
    let body = [
        part("name=password\r\nContent-Type: text/plain", "of-part-1"),
        part("name=otp; filename=scan-of-it.txt", "of-part-2"),
        part("name=otp", "of-part-3"),
        part("name=note", "{\"token\": \"of-part-4\"}"),
        part("name=customer\r\nContent-Type: application/json", "{\"name\": \"of-part-5\"}"),
        "--x--".to_owned(),
    ];
    let known = learned(&head, &body.concat(), reply(HeaderMap::new(), "{}"));
    for learned in ["of-part-1", "of-part-2", "of-part-3", "of-part-4", "of-part-5"] {
        assert!(known.contains(learned), "{learned}");
    }
    assert!(!known.contains("text/plain") && !known.contains("scan-of-it.txt"));
}

#[test]
fn markup_without_a_document_and_the_urls_of_headers_are_read() {
    let head =
        [("location", "https://a/cb?n=1&token=of-url-1#access_token=of-url-2"), ("link", "</x?otp=of%2Furl>; rel=a")];
    let body = json!({"xml": "<p>a <password><![CDATA[of<xml>1]]></password></p>", "n": "<n>shown-1</n>"});
    let known = learned(&head, &body.to_string(), reply(HeaderMap::new(), "<p>a <pin>of&#45;text-1</pin></p>"));
    for learned in ["of-url-1", "of-url-2", "of/url", "of<xml>1", "of-text-1"] {
        assert!(known.contains(learned), "{learned}");
    }
    assert!(!known.contains("shown-1"));
}

#[test]
fn the_element_behind_a_secret_name_is_learned() {
    let xml = || headers_of(&[("content-type", "application/xml")]);
    let dict = "<dict><key>a</key><string>shown-11</string><key>password</key><string>hunter22</string></dict>";
    let known = learned(&[], "", reply(xml(), dict));
    assert!(known.contains("hunter22") && !known.contains("shown-11") && !known.contains("key string key string"));
    let item = "<Item><Name>password</Name><N>1</N><Value>hunter22</Value></Item>";
    assert!(learned(&[], "", reply(xml(), item)).contains("hunter22"));
}

#[test]
fn with_more_secrets_than_are_looked_for_no_text_is_shown() {
    let tokens = |count| (0..count).map(|n| json!({"token": format!("token-{n:05}")})).collect::<Value>();
    assert!(!of_body(&tokens(QUOTED_SECRETS_MAX)).is_full());
    let known = of_body(&tokens(QUOTED_SECRETS_MAX + 1));
    assert_eq!((known.is_full(), known.hide("plain", &|_| STARS.to_owned()).as_str()), (true, STARS));
}
