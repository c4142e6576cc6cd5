//! Requests for which there is no room: they stay possible causes of calls.

use super::*;

/// An unwatched request, and the others that took the room.
struct Unwatched {
    test: TestAttribution,
    watch: Box<dyn EffectWatch>,
    others: Vec<Box<dyn EffectWatch>>,
    body: Arc<Sending>,
    trace: TraceContext,
}

impl Unwatched {
    /// A request with the id `a` is evicted by later ones, or refused.
    fn new(correlate: &str, is_evicted: bool) -> Self {
        let test = TestAttribution::with(correlate, Limits { egress_requests_max: 32, ..Limits::default() });
        let (trace, body) = (TraceContext::random(true), Arc::new(Sending::default()));
        let sent = value(trace);
        let announce = || test.announce(Some(ROUTE), &[("traceparent", &sent), ("x-id", "a")], Some(body.clone()));
        let other = |n: usize| {
            let (trace, body) = (value(TraceContext::random(true)), Arc::new(Sending::default()));
            body.end("{}");
            let id = format!("r{n}");
            let watch = test.announce(Some(ROUTE), &[("traceparent", &trace), ("x-id", &id)], Some(body));
            if is_evicted {
                test.outcomes();
            }
            watch
        };
        let first = is_evicted.then(announce);
        let others = (0..60).map(other).collect();
        let watch = first.unwrap_or_else(announce);
        let has_gap = watch.effects().map(|effects| effects.gaps() > 0);
        assert_eq!(has_gap, is_evicted.then_some(true), "it is unwatched");
        Self { test, watch, others, body, trace }
    }
}

#[test]
fn a_late_call_of_an_unwatched_request_is_not_given_to_a_later_one() {
    for is_evicted in [false, true] {
        let Unwatched { test, watch, others, body: _, trace } = Unwatched::new("header.x-id", is_evicted);
        drop((watch, others));
        test.pass(Duration::from_secs(60));
        let next = value(TraceContext { span_id: trace.span_id ^ 4, ..trace });
        let later = test.watch(&[("traceparent", &next), ("x-id", "a")], None).unwrap();
        let found = || (later.effects().len(), later.effects().gaps(), test.late_calls());
        test.call(&[("x-id", "a")], "of either");
        assert_eq!(found(), (0, 1, 0), "evicted: {is_evicted}");
        test.call(&[("traceparent", &child(trace))], "of either");
        assert_eq!(found(), (0, 2, 0), "evicted: {is_evicted}");
        test.call(&[("traceparent", &value(trace))], "of the unwatched one");
        assert_eq!(found(), (0, 2, 1), "evicted: {is_evicted}");
        test.call(&[("traceparent", &next)], "of the later one");
        assert_eq!(found(), (1, 2, 1), "evicted: {is_evicted}");
    }
}

#[test]
fn a_call_of_an_unwatched_request_is_late_only_once_its_window_is_over() {
    for is_evicted in [false, true] {
        let Unwatched { test, watch, others, body: _, trace } = Unwatched::new("header.x-id", is_evicted);
        let mut calls = 0;
        let mut late_after = |time: u64| {
            test.pass(Duration::from_secs(time));
            test.call(&[("traceparent", &value(trace))], "");
            test.call(&[("x-id", "a")], "");
            calls += 2;
            assert_eq!(test.outcomes(), (0, 0, calls), "of none that is known");
            test.late_calls()
        };
        assert_eq!(late_after(60), 0, "in flight");
        drop((watch, others));
        assert_eq!(late_after(9), 0, "its window is not over");
        assert_eq!(late_after(2), 2);
    }
}

/// Its body is sent only after there was no room for it.
#[test]
fn an_unwatched_request_is_known_by_its_value_too() {
    for is_evicted in [false, true] {
        let correlate = "${call.body.order_ref == request.body.ref}";
        let Unwatched { test, watch, others, body, .. } = Unwatched::new(correlate, is_evicted);
        test.outcomes();
        body.end("{\"ref\":\"A-1\"}");
        drop((watch, others));
        test.pass(Duration::from_secs(60));
        let later = test.with_body("{\"ref\":\"A-1\"}");
        let other = test.with_body("{\"ref\":\"B-2\"}");
        test.call(&[], "{\"order_ref\":\"A-1\"}");
        test.call(&[], "{\"order_ref\":\"B-2\"}");
        assert_eq!((later.effects().len(), later.effects().gaps()), (0, 1), "evicted: {is_evicted}");
        assert_eq!((other.effects().len(), other.effects().gaps()), (1, 0), "evicted: {is_evicted}");
        test.pass(Duration::from_secs(41));
        test.call(&[], "{\"order_ref\":\"A-1\"}");
        assert_eq!((later.effects().len(), later.effects().gaps()), (1, 1), "a follow-up has its value");
    }
}
