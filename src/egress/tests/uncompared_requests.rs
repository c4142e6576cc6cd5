//! Requests that are not compared: their calls are told from those of compared ones.

use super::*;

impl TestAttribution {
    fn uncompared(&self, sent: &[(&str, &str)], body: Option<&str>) -> Option<TestWatch> {
        let body = body.map(|body| {
            let sending = Arc::new(Sending::default());
            sending.end(body.to_owned());
            sending as Arc<dyn SentBody>
        });
        self.watch_as(None, sent, body)
    }
    fn not_compared(&self) -> u64 {
        self.attribution.report(&ROUTE.into()).total.not_compared
    }
}

#[test]
fn a_call_that_an_uncompared_request_of_the_same_trace_could_have_caused_is_ambiguous() {
    let test = TestAttribution::new("");
    let trace = TraceContext::random(true);
    let other_span = TraceContext { span_id: trace.span_id ^ 4, ..trace };
    let compared = test.traced(trace);
    let uncompared = test.uncompared(&[("traceparent", &value(other_span))], None).unwrap();
    test.call(&[("traceparent", &child(trace))], "of either");
    assert_eq!((test.outcomes(), compared.effects().len(), compared.effects().gaps()), ((0, 1, 0), 0, 1));
    // A call with exactly the `traceparent` that one of them got is for that one.
    test.call(&[("traceparent", &value(trace))], "of the compared one");
    test.call(&[("traceparent", &value(other_span))], "of the uncompared request");
    assert_eq!((test.outcomes(), test.not_compared(), compared.effects().len()), ((1, 1, 0), 1, 1));
    drop(uncompared);
    test.pass(Duration::from_secs(11));
    test.call(&[("traceparent", &child(trace))], "of either, late");
    assert_eq!((test.outcomes(), compared.effects().len()), ((1, 2, 0), 1), "the uncompared request is over");
    test.call(&[("traceparent", &value(other_span))], "late");
    assert_eq!((test.outcomes(), compared.effects().len()), ((1, 2, 1), 1));
    test.call(&[("traceparent", &value(trace))], "of the compared one");
    assert_eq!((test.outcomes(), compared.effects().len()), ((2, 2, 1), 2));
}

#[test]
fn a_call_that_an_uncompared_request_of_the_same_value_could_have_caused_is_ambiguous() {
    let test = TestAttribution::new("${call.body.order_ref == request.body.ref}");
    assert!(test.attribution.body_bytes_max().is_some(), "their bodies have to be copied");
    let compared = test.with_body("{\"ref\":\"A-1\"}");
    let _same = test.uncompared(&[], Some("{\"ref\":\"A-1\"}")).unwrap();
    let _other = test.uncompared(&[], Some("{\"ref\":\"B-2\"}")).unwrap();
    test.call(&[], "{\"order_ref\":\"A-1\"}");
    assert_eq!((test.outcomes(), compared.effects().gaps()), ((0, 1, 0), 1));
    test.call(&[], "{\"order_ref\":\"B-2\"}");
    assert_eq!((test.outcomes(), test.not_compared(), compared.effects().gaps()), ((0, 1, 0), 1, 1));
    let test = TestAttribution::new("header.x-id");
    assert_eq!(test.attribution.body_bytes_max(), None);
    let compared = test.watch(&[("x-id", "a")], None).unwrap();
    let _same = test.uncompared(&[("x-id", "a")], None).unwrap();
    test.call(&[("x-id", "a")], "");
    assert_eq!((test.outcomes(), compared.effects().gaps()), ((0, 1, 0), 1));
}

#[test]
fn uncompared_requests_alone_cause_no_copy_and_no_ambiguous_call() {
    let test = TestAttribution::new("");
    let trace = TraceContext::random(true);
    let sent = value(trace);
    let _uncompared =
        [test.uncompared(&[("traceparent", &sent)], None), test.uncompared(&[("traceparent", &sent)], None)];
    assert!(!test.attribution.is_watching());
    let _compared = test.traced(TraceContext::random(true));
    assert!(test.attribution.is_watching());
    test.call(&[("traceparent", &child(trace))], "of one of the uncompared requests");
    assert_eq!((test.outcomes(), test.not_compared()), ((0, 0, 0), 1));
    let report = test.attribution.report(&ROUTE.into());
    assert_eq!((report.route.requests, report.listed.len()), (1, 0));
}

#[test]
fn uncompared_requests_are_bounded_apart_from_compared_requests_and_counted_when_they_are_unwatched() {
    let limits = Limits { egress_uncompared_requests_max: 32, ..Limits::default() };
    let test = TestAttribution::with("header.x-id", limits);
    let compared = test.watch(&[("x-id", "a")], None).unwrap();
    let known: Vec<_> = (0..100).filter_map(|_| test.uncompared(&[("x-id", "b")], None)).collect();
    assert_eq!(known.len(), 32, "before the index takes them");
    test.call(&[("x-id", "a")], "");
    let total = test.attribution.report(&ROUTE.into()).total;
    assert_eq!((total.uncompared_requests_left_out, total.requests_left_out), (68, 0));
    assert_eq!((test.outcomes(), compared.effects().gaps()), ((0, 1, 0), 1), "an unwatched one could have caused it");
    for _ in 0..20 {
        test.uncompared(&[("x-id", "b")], None);
        test.outcomes();
    }
    let total = test.attribution.report(&ROUTE.into()).total;
    assert!(total.uncompared_requests_left_out > 68, "{total:?}");
    assert_eq!(total.requests_left_out, 0, "no compared request makes room for an uncompared one");
    drop(known);
    test.pass(Duration::from_secs(11));
    test.call(&[("x-id", "a")], "");
    assert_eq!(test.outcomes().0, 1);
}
