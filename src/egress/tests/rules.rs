//! Tests of declared rules: headers and values.

use super::*;

const BY_REF: &str = "${call.body.order_ref == request.body.ref}";

#[test]
fn a_header_that_is_handed_on_names_the_request() {
    let test = TestAttribution::new("header.x-request-id");
    let watch = |id: &str| {
        let trace = value(TraceContext::random(true));
        test.watch(&[("traceparent", &trace), ("x-request-id", id)], None).unwrap()
    };
    let (one, other) = (watch("a"), watch("b"));
    let _without = test.traced(TraceContext::random(true));
    test.call(&[("x-request-id", "a")], "");
    test.call(&[("x-request-id", "c")], "");
    test.call(&[], "");
    assert_eq!((one.effects().len(), other.effects().len()), (1, 0));
    assert_eq!(test.outcomes(), (1, 0, 2));
    let again = watch("a");
    test.call(&[("x-request-id", "a")], "");
    assert_eq!((test.outcomes(), one.effects().gaps(), again.effects().gaps()), ((1, 1, 2), 1, 1));
    assert_eq!(test.attribution.report(&ROUTE.into()).route.by_header, 1);
}

#[test]
fn a_call_whose_trace_and_header_name_different_requests_is_ambiguous() {
    let test = TestAttribution::new("header.x-request-id");
    let [a, b] = ["a", "b"].map(|id| {
        let trace = TraceContext::random(true);
        (trace, test.watch(&[("traceparent", &value(trace)), ("x-request-id", id)], None).unwrap())
    });
    test.call(&[("traceparent", &child(a.0)), ("x-request-id", "b")], "");
    assert_eq!((test.outcomes(), a.1.effects().len(), b.1.effects().len()), ((0, 1, 0), 0, 0));
    test.call(&[("traceparent", &child(a.0)), ("x-request-id", "a")], "");
    test.call(&[("traceparent", &child(a.0))], "");
    assert_eq!(a.1.effects().len(), 2);
}

/// Trace Context allows one field.
#[test]
fn a_call_with_different_traceparents_is_ambiguous() {
    let test = TestAttribution::new("");
    let [a, b] = [7, 8].map(|trace_id| {
        let trace = TraceContext { trace_id, span_id: 1, is_sampled: true };
        (trace, test.traced(trace))
    });
    let stranger = value(TraceContext::random(true));
    for (n, other) in (1..).step_by(2).zip([&value(b.0), &child(b.0), &stranger, "unreadable"]) {
        test.call(&[("traceparent", &value(a.0)), ("traceparent", other)], "");
        assert_eq!(test.outcomes(), (0, n, 0), "{other}");
        test.call(&[("traceparent", other), ("traceparent", &value(a.0))], "");
        assert_eq!(test.outcomes(), (0, n + 1, 0), "{other}");
        assert_eq!(a.1.effects().gaps(), n + 1, "the call may be its own");
    }
    test.call(&[("traceparent", &value(a.0)), ("traceparent", &value(a.0))], "");
    assert_eq!(a.1.effects().len(), 1, "the same field twice");
}

#[test]
fn a_late_call_with_different_traceparents_is_late_for_the_request_of_any() {
    for is_first in [true, false] {
        let test = TestAttribution::new("");
        let trace = TraceContext::random(true);
        drop(test.traced(trace));
        test.pass(Duration::from_secs(60));
        let (own, other) = (value(trace), value(TraceContext::random(true)));
        let fields = if is_first { [&own, &other] } else { [&other, &own] };
        test.call(&fields.map(|field| ("traceparent", field.as_str())), "");
        assert_eq!(test.late_calls(), 1, "its own field is the first one: {is_first}");
    }
}

#[test]
fn requests_of_one_trace_are_told_apart_by_the_rule() {
    let test = TestAttribution::new("header.x-request-id");
    let trace = TraceContext::random(true);
    let [a, b] =
        ["a", "b"].map(|id| test.watch(&[("traceparent", &value(trace)), ("x-request-id", id)], None).unwrap());
    test.call(&[("traceparent", &child(trace)), ("x-request-id", "b")], "");
    assert_eq!((a.effects().len(), b.effects().len()), (0, 1));
    let stranger = value(TraceContext::random(true));
    let _c = test.watch(&[("traceparent", &stranger), ("x-request-id", "c")], None).unwrap();
    test.call(&[("traceparent", &child(trace)), ("x-request-id", "c")], "");
    assert_eq!(test.outcomes(), (1, 1, 0), "the header names a request of another trace");
}

#[test]
fn a_value_names_the_request() {
    let test = TestAttribution::new(BY_REF);
    let (one, other) = (test.with_body("{\"ref\":\"A-1\"}"), test.with_body("{\"ref\":17}"));
    let (empty, absent) = (test.with_body("{\"ref\":\"\"}"), test.with_body("{}"));
    test.call(&[("content-type", "application/json")], "{\"order_ref\":\"A-1\"}");
    test.call(&[("content-type", "application/json")], "{\"order_ref\":17.0}");
    for nothing in ["{\"order_ref\":\"\"}", "{\"order_ref\":null}", "{}", "no JSON", ""] {
        test.call(&[], nothing);
    }
    assert_eq!(test.outcomes(), (2, 0, 5));
    let counts = [&one, &other, &empty, &absent].map(|watch| watch.effects().len());
    assert_eq!(counts, [1, 1, 0, 0]);
    let _same = test.with_body("{\"ref\":\"A-1\"}");
    test.call(&[], "{\"order_ref\":\"A-1\"}");
    assert_eq!((test.outcomes(), one.effects().gaps()), ((2, 1, 5), 1));
}

#[test]
fn a_request_whose_body_is_not_known_yet_could_have_caused_a_call() {
    let test = TestAttribution::new(BY_REF);
    let sent = value(TraceContext::random(true));
    let sending = Arc::new(Sending::default());
    let slow = test.watch(&[("traceparent", &sent)], Some(sending.clone())).unwrap();
    let one = test.with_body("{\"ref\":\"A-1\"}");
    test.call(&[], "{\"order_ref\":\"A-1\"}");
    assert_eq!((test.outcomes(), one.effects().gaps(), slow.effects().gaps()), ((0, 1, 0), 1, 1));
    sending.end("{\"ref\":\"B-2\"}");
    test.call(&[], "{\"order_ref\":\"A-1\"}");
    test.call(&[], "{\"order_ref\":\"B-2\"}");
    assert_eq!((one.effects().len(), slow.effects().len()), (1, 1));
}

#[test]
fn what_is_too_large_to_be_read_is_not_guessed() {
    let large =
        |ref_: &str| format!("{{\"order_ref\":\"{ref_}\",\"ref\":\"{ref_}\",\"x\":\"{}\"}}", "x".repeat(300 << 10));
    let test = TestAttribution::new(BY_REF);
    let one = test.with_body("{\"ref\":\"A-1\"}");
    test.call(&[], &large("A-1"));
    assert_eq!((test.outcomes(), one.effects().gaps()), ((0, 1, 0), 1), "a call that is too large is not attributed");
    let other = test.with_body(&large("B-2"));
    test.call(&[], "{\"order_ref\":\"A-1\"}");
    assert_eq!((test.outcomes(), other.effects().gaps()), ((0, 2, 0), 1), "a request that is too large gets no call");
}

#[test]
fn a_body_is_read_after_the_end_too_and_then_dropped() {
    let test = TestAttribution::new(BY_REF);
    let sending = Arc::new(Sending::default());
    sending.end("{\"ref\":\"A-1\"}");
    let watch = test.watch(&[], Some(sending.clone())).unwrap();
    let effects = watch.effects();
    drop(watch);
    assert_eq!(test.attribution.memory_used(), "{\"ref\":\"A-1\"}".len() as u64);
    test.call(&[], "{\"order_ref\":\"A-1\"}");
    assert_eq!(effects.len(), 1);
    assert_eq!(Arc::strong_count(&sending), 1);
}

#[test]
fn values_stand_in_queries_headers_and_paths_too() {
    for (rule, sent) in [
        ("${call.headers[\"x-ref\"] == request.headers[\"x-id\"]}", ("x-ref", "r-1")),
        ("${request.headers[\"x-id\"] == default(call.query.ref, call.headers[\"x-ref\"])}", ("x-ref", "r-1")),
        ("${request.headers[\"x-id\"] == \"r-\" + string(size(call.query.page))}", ("x-other", "r-1")),
        ("${call.service + call.method == request.headers[\"x-service\"] + request.method}", ("x-other", "r-1")),
    ] {
        let test = TestAttribution::new(rule);
        let watch = test.watch(&[("x-id", "r-1"), ("x-service", "bank")], None).unwrap();
        let _other = test.watch(&[("x-id", "r-2"), ("x-service", "stock")], None).unwrap();
        test.call(&[sent], "");
        assert_eq!(watch.effects().len(), 1, "{rule}");
    }
}

#[test]
fn another_rule_applies_to_requests_that_come_after_it() {
    let test = TestAttribution::new("header.x-id");
    let old = test.watch(&[("x-id", "a")], None).unwrap();
    test.outcomes();
    let correlate = Correlate::parse("header.x-other").unwrap();
    test.attribution.set(AttributionSettings { correlate, ..AttributionSettings::default() });
    let new = test.watch(&[("x-other", "a"), ("x-id", "b")], None).unwrap();
    test.call(&[("x-other", "a")], "");
    assert_eq!((test.outcomes(), new.effects().len(), old.effects().gaps()), ((0, 1, 0), 0, 1));
    drop(old);
    test.pass(Duration::from_secs(11));
    test.call(&[("x-other", "a")], "");
    assert_eq!((test.outcomes(), new.effects().len()), ((1, 1, 0), 1));
}

#[test]
fn a_rule_that_does_not_say_what_is_equal_is_refused() {
    for (rule, message) in [
        ("x-request-id", "is neither a header nor an expression"),
        ("header.a b", "is no header name"),
        ("${call.body.ref == }", ""),
        ("${call.body.ref == legacy.body.ref}", "cannot read `legacy`"),
        ("${call.url == request.path}", "`call` has no `url`"),
        ("${call.path == request.path.id}", "is a text and has no `id`"),
        ("${call.body.ref == request.body.ref && true}", "does not say which value"),
        ("${call.body.ref != request.body.ref}", "does not say which value"),
        ("${call.body.ref == call.body.id}", "does not say which value"),
        ("${call.body.ref == 'a'}", "does not say which value"),
        ("${call.body.ref + request.body.a == request.body.b}", "does not say which value"),
    ] {
        let error = Correlate::parse(rule).expect_err(rule);
        assert!(error.message.contains(message), "{rule}: {error:?}");
        assert!(!error.hint.is_empty(), "{rule}");
    }
    for rule in ["header.X-Request-Id", BY_REF, " ${request.body.a[0] == call.body['==']} "] {
        assert!(Correlate::parse(rule).is_ok(), "{rule}: {:?}", Correlate::parse(rule));
    }
}
