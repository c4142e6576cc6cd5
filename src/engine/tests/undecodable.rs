//! Bodies, queries and headers that cannot be decoded, or that could be stored and not be read back: no run begins for
//! a request with such a part if the workflow reads the part.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use serde_json::{Value, json};

use super::harness::{Harness, ServiceReply, StepService, answer, request};
use crate::exchange::ArmRequest;
use crate::workflow::Mode;
use crate::workflow::testing::PlanBuilder;

const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";

/// A request with this body.
fn with_body(content_type: &str, body: impl Into<Bytes>) -> ArmRequest {
    let mut request = request("w", Mode::Real, &Value::Null);
    let copy = Arc::make_mut(&mut request.request);
    copy.headers.insert(CONTENT_TYPE, content_type.parse().unwrap());
    copy.body = body.into();
    request
}

/// Bodies that cannot be decoded, each with what the caller is told.
fn undecodable() -> Vec<(&'static str, Bytes, &'static str)> {
    let nested = |levels| Bytes::from("[".repeat(levels) + &"]".repeat(levels));
    vec![
        (JSON, nested(101), "output_depth_max (100)"),
        (JSON, nested(1_000), "output_depth_max (100)"),
        (JSON, Bytes::from(format!("[{}1]", "1,".repeat(200_000))), "output_values_max (200000)"),
        (JSON, Bytes::from_static(b"{\"a\": 1,\n \"b\": }"), "at line 2 column 7"),
        (JSON, Bytes::from_static(b"{\"a\": \"\xfc\"}"), "at line 1 column 8"),
        ("application/problem+json; charset=utf-8", Bytes::from_static(b"{"), "cannot be read as JSON"),
        (
            JSON,
            Bytes::from_static(br#"{"a":{"\u0024serde_json::private::Number":"5"}}"#),
            "reserved, at line 1 column 7",
        ),
        (JSON, Bytes::from_static(br#"{"$serde_json::private::RawValue":"[1,1]"}"#), "reserved"),
        (FORM, Bytes::from_static(b"a=1&b=%FC"), "field 2 is not UTF-8"),
        (FORM, Bytes::from_static(b"a=1&b=\xfc"), "field 2 is not UTF-8"),
        (FORM, Bytes::from_static(b"%24serde_json%3A%3Aprivate%3A%3ANumber=5"), "field 1"),
        (FORM, Bytes::from("a&".repeat(200_000)), "output_values_max (200000)"),
    ]
}

#[tokio::test]
async fn a_body_that_cannot_be_decoded_is_refused_before_a_run_is_created() {
    let step_service = StepService::new(|_, _| ServiceReply::Json(200, json!({}))).await;
    let reads = PlanBuilder::new().respond(200, json!("${request.body}")).build("w");
    let checks = PlanBuilder::new().schema(json!({})).respond(200, json!("done")).build("w");
    for plan in [reads, checks] {
        let harness = Harness::new(&step_service, plan).await;
        for (content_type, body, told) in undecodable() {
            let mut request = with_body(content_type, body);
            request.may_fall_back = true;
            let (status, problem, report) = answer(harness.send(request).await);
            assert_eq!((status, report.run), (422, None), "{told}: {problem}");
            assert!(problem["detail"].as_str().unwrap().contains(told), "{told}: {problem}");
        }
        let mut packed = with_body(JSON, Bytes::from_static(b"\x28\xb5\x2f\xfd"));
        Arc::make_mut(&mut packed.request).headers.insert(CONTENT_ENCODING, "zstd".parse().unwrap());
        let (status, problem, _) = answer(harness.send(packed).await);
        assert!(status == 422 && problem["detail"].as_str().unwrap().contains("content-encoding"), "{problem}");
        assert!(harness.runs().await.is_empty());
    }
}

#[tokio::test]
async fn respond_may_answer_about_a_body_that_cannot_be_decoded() {
    let step_service = StepService::new(|_, _| ServiceReply::Json(200, json!({}))).await;
    let plan = PlanBuilder::new()
        .respond(400, json!({ "why": "${input_error}", "body": "${request.body}" }))
        .respond_when("input_error != null")
        .build("w");
    let harness = Harness::new(&step_service, plan).await;
    let (status, body, _) = answer(harness.send(with_body(JSON, "{")).await);
    assert_eq!((status, &body["body"]), (400, &Value::Null), "{body}");
    assert!(body["why"].as_str().unwrap().starts_with("the body cannot be read as JSON: "), "{body}");
}

/// The time is known although no run begins; what the workflow's steps would have answered is not.
#[tokio::test]
async fn the_answer_about_a_refused_body_may_read_the_time_and_one_without_a_value_says_why() {
    let step_service = StepService::new(|_, _| ServiceReply::Json(200, json!({}))).await;
    let answers_with = |body: Value| {
        let call = PlanBuilder::new().call("price", &[], "GET /price", Value::Null).schema(json!({"type": "object"}));
        call.respond(400, body).respond_when("input_error != null").respond(200, json!("done")).build("w")
    };
    let harness = Harness::new(&step_service, answers_with(json!({ "at": "${now}", "begun": "${run.started}" }))).await;
    let (status, body, report) = answer(harness.send(with_body(JSON, "[]")).await);
    assert_eq!((status, report.run), (400, None), "{body}");
    assert_eq!((&body["at"], body["at"].is_string()), (&body["begun"], true), "{body}");

    let harness = Harness::new(&step_service, answers_with(json!({ "price": "${steps.price.output}" }))).await;
    let (status, problem, report) = answer(harness.send(with_body(JSON, "[]")).await);
    assert!(status == 422 && report.refused_by_schema, "{problem}");
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("; the answer that `respond` declares for this has no value: `respond`: "), "{detail}");
    assert!(detail.contains("`steps.price"), "{detail}");
}

#[tokio::test]
async fn a_workflow_that_does_not_read_the_body_is_not_concerned_by_it() {
    let step_service = StepService::new(|_, _| ServiceReply::Json(200, json!({}))).await;
    let plan = PlanBuilder::new().respond(200, json!("${request.method}")).build("w");
    let harness = Harness::new(&step_service, plan).await;
    for (content_type, body, told) in undecodable() {
        let (status, body, _) = answer(harness.send(with_body(content_type, body)).await);
        assert_eq!((status, body), (200, json!("POST")), "{told}");
    }
}

#[tokio::test]
async fn a_query_with_a_reserved_name_is_refused_where_the_workflow_reads_the_query() {
    let step_service = StepService::new(|_, _| ServiceReply::Json(200, json!({}))).await;
    for (reads, status) in [("${request.query}", 422), ("${request.method}", 200)] {
        let plan = PlanBuilder::new().respond(200, json!(reads)).build("w");
        let harness = Harness::new(&step_service, plan).await;
        let mut request = with_body(JSON, "{}");
        Arc::make_mut(&mut request.request).query = Some("%24serde_json%3A%3Aprivate%3A%3ANumber=5".into());
        let (given, body, _) = answer(harness.send(request).await);
        assert_eq!(given, status, "{reads}: {body}");
    }
}

/// No text in which bytes were replaced is sent on. Parts that the workflow does not read may contain any bytes.
#[tokio::test]
async fn a_head_that_is_not_utf8_is_refused_where_the_workflow_reads_it() {
    let step_service = StepService::new(|_, _| ServiceReply::Json(200, json!({}))).await;
    let body = json!(["${request.query.a}", "${request.params.id}", "${request.headers[\"x-name\"]}"]);
    let plan = PlanBuilder::new().call("send", &[], "POST /send", body).respond(200, json!("done")).build("w");
    let harness = Harness::new(&step_service, plan).await;
    let head = |query: &str, id: &str, header: &'static [u8]| {
        let mut request = request("w", Mode::Real, &Value::Null);
        let copy = Arc::make_mut(&mut request.request);
        copy.query = Some(query.to_owned());
        copy.params = vec![("id".into(), id.to_owned()), ("other".into(), crate::flag::exact_text(b"\xfc"))];
        copy.headers.insert("x-name", http::HeaderValue::from_bytes(header).unwrap());
        copy.headers.insert("x-other", http::HeaderValue::from_bytes(b"\xfc").unwrap());
        request
    };
    let raw = crate::flag::exact_text(b"\xfc");
    for (request, told) in [
        (head("b=1&a=%FC", "1", b"n"), "the query cannot be read: field 2 is not UTF-8"),
        (head("a=1&a=%FC", "1", b"n"), "the query cannot be read: field 2 is not UTF-8"),
        (
            head("a=1&%24serde_json%3A%3Aprivate%3A%3ANumber=5", "1", b"n"),
            "the query cannot be read: the name of field 2",
        ),
        (head("a=1", &raw, b"n"), "the part of the path that is `id` is not UTF-8"),
        (head("a=1", "1", b"M\xfcller"), "the header `x-name` is not UTF-8"),
    ] {
        let (status, problem, report) = answer(harness.send(request).await);
        assert_eq!((status, report.run), (422, None), "{told}: {problem}");
        assert!(problem["detail"].as_str().unwrap().contains(told), "{told}: {problem}");
    }
    assert!(harness.runs().await.is_empty() && step_service.paths().is_empty());
    let (status, ..) = answer(harness.send(head("a=%C3%BC&b=%FC", "ü", "ü".as_bytes())).await);
    assert_eq!((status, step_service.paths()), (200, vec!["POST /send".to_owned()]));
}
