//! Attribution, with requests and calls that the tests make, on a clock that they set.

mod open_calls;
mod properties;
mod rules;
mod uncompared_calls;
mod uncompared_requests;
mod unwatched_requests;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::{Attribution, AttributionSettings, Correlate, EffectOutcome};
use crate::compare::{Body, Effect};
use crate::exchange::{
    EffectObserver, EffectRegistry, EffectWatch, RequestCopy, RequestEffects, RequestToWatch, SentBody,
    UncomparedCalls, UncomparedReason,
};
use crate::limits::{EGRESS_CALLS_PER_REQUEST_MAX, EGRESS_LISTED_CALLS_MAX, EGRESS_OPEN_CALLS_MAX, Limits};
use crate::names::RouteId;
use crate::traces::TraceContext;

/// A body that a test sends when it likes.
#[derive(Default)]
struct Sending(Mutex<Option<Bytes>>);

impl Sending {
    fn end(&self, body: impl Into<Bytes>) {
        *self.0.lock().unwrap() = Some(body.into());
    }
}

impl SentBody for Sending {
    fn whole(&self) -> Option<Bytes> {
        self.0.lock().unwrap().clone()
    }
}

/// A request for which there was room.
struct TestWatch(Box<dyn EffectWatch>);

impl TestWatch {
    fn effects(&self) -> RequestEffects {
        self.0.effects().expect("there was room")
    }
    fn reply_passed_on(&self) {
        self.0.reply_passed_on();
    }
}

struct TestAttribution {
    attribution: Attribution,
    now_us: Arc<AtomicU64>,
    calls: AtomicU64,
    /// What was taken so far of the calls that are in no compared pair.
    taken: Mutex<Vec<UncomparedCalls>>,
}

const ROUTE: &str = "orders.create";

impl TestAttribution {
    fn new(correlate: &str) -> Self {
        Self::with(correlate, Limits::default())
    }
    fn with(correlate: &str, limits: Limits) -> Self {
        let correlate = if correlate.is_empty() { Correlate::Trace } else { Correlate::parse(correlate).unwrap() };
        let settings = AttributionSettings { correlate, ..AttributionSettings::default() };
        let now_us = Arc::new(AtomicU64::new(1));
        let clock = now_us.clone();
        let attribution = Attribution::with_clock(settings, &limits, move || clock.load(Relaxed));
        Self { attribution, now_us, calls: AtomicU64::new(0), taken: Mutex::default() }
    }
    fn pass(&self, time: Duration) {
        self.now_us.fetch_add(u64::try_from(time.as_micros()).unwrap(), Relaxed);
    }
    /// `None` if there is no room; its exchange has ended then.
    fn watch(&self, sent: &[(&str, &str)], body: Option<Arc<dyn SentBody>>) -> Option<TestWatch> {
        self.watch_as(Some(ROUTE), sent, body)
    }
    /// A request of this route, or one that is not compared.
    fn watch_as(
        &self,
        route: Option<&str>,
        sent: &[(&str, &str)],
        body: Option<Arc<dyn SentBody>>,
    ) -> Option<TestWatch> {
        let watch = self.announce(route, sent, body);
        watch.effects().is_some().then_some(TestWatch(watch))
    }
    fn announce(
        &self,
        route: Option<&str>,
        sent: &[(&str, &str)],
        body: Option<Arc<dyn SentBody>>,
    ) -> Box<dyn EffectWatch> {
        let sent = headers(sent);
        let request = RequestCopy {
            method: Method::POST,
            path: "/orders".into(),
            query: None,
            params: Vec::new(),
            headers: sent.clone(),
            traceparent: None,
            body: Bytes::new(),
            peer: "127.0.0.1".parse().unwrap(),
        };
        let route = route.map(RouteId::from);
        let request = || request.clone();
        self.attribution.watch(RequestToWatch { compared: route.as_ref(), request: &request, sent: &sent, body })
    }
    /// A request in this trace.
    fn traced(&self, trace: TraceContext) -> TestWatch {
        self.watch(&[("traceparent", &value(trace))], None).unwrap()
    }
    /// A request with this JSON, sent whole, in a trace that no call carries.
    fn with_body(&self, json: &str) -> TestWatch {
        let sending = Arc::new(Sending::default());
        sending.end(json.to_owned());
        self.watch(&[("traceparent", &value(TraceContext::random(true)))], Some(sending)).unwrap()
    }
    fn call(&self, sent: &[(&str, &str)], body: &str) {
        self.attribution.observe(Effect {
            service: Some("bank".into()),
            method: Method::POST,
            url: "http://bank.test/charges?token=hunter2&page=2".into(),
            headers: headers(sent),
            body: Body::Whole(body.to_owned().into()),
            reply: None,
            number: self.calls.fetch_add(1, Relaxed),
            replied_before: None,
        });
    }
    /// Attributed, ambiguous, unattributed.
    fn outcomes(&self) -> (u64, u64, u64) {
        let total = self.attribution.report(&ROUTE.into()).total;
        (total.attributed, total.ambiguous, total.unattributed)
    }
}

fn headers(fields: &[(&str, &str)]) -> HeaderMap {
    let field = |(name, value): &(&str, &str)| {
        (HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap())
    };
    fields.iter().map(field).collect()
}

fn value(trace: TraceContext) -> String {
    String::from_utf8(trace.to_traceparent().to_vec()).unwrap()
}

fn child(trace: TraceContext) -> String {
    value(TraceContext { span_id: trace.span_id ^ 1 | 2, ..trace })
}

#[test]
fn a_call_belongs_to_the_request_whose_trace_it_is_in() {
    let test = TestAttribution::new("");
    let traces = [TraceContext::random(true), TraceContext::random(true)];
    let watches = traces.map(|trace| test.traced(trace));
    test.call(&[("traceparent", &child(traces[0]))], "second");
    test.call(&[("traceparent", &child(traces[0]))], "third");
    test.call(&[("traceparent", &child(TraceContext::random(true)))], "of no known request");
    test.call(&[], "without a trace");
    let effects = watches[0].effects().so_far();
    assert_eq!((effects.calls.len(), effects.gaps), (2, 0));
    assert!(effects.calls[0].number < effects.calls[1].number);
    assert!(watches[1].effects().is_empty());
    assert_eq!(test.outcomes(), (2, 0, 2));
    let report = test.attribution.report(&ROUTE.into());
    assert_eq!((report.route.requests, report.route.by_traceparent, report.route.closed), (2, 2, 0));
}

#[test]
fn calls_of_one_trace_are_told_apart_only_by_an_unchanged_traceparent() {
    let test = TestAttribution::new("");
    let first = TraceContext::random(true);
    let second = TraceContext { span_id: first.span_id ^ 4, ..first };
    let (one, other) = (test.traced(first), test.traced(second));
    test.call(&[("traceparent", &child(first))], "");
    assert_eq!(test.outcomes(), (0, 1, 0));
    assert_eq!((one.effects().gaps(), other.effects().gaps()), (1, 1));
    test.call(&[("traceparent", &value(second))], "");
    assert_eq!((one.effects().len(), other.effects().len()), (0, 1));
}

#[test]
fn calls_are_attributed_until_the_window_after_the_end_is_over() {
    let test = TestAttribution::new("");
    let trace = TraceContext::random(true);
    let watch = test.traced(trace);
    test.pass(Duration::from_secs(3_600));
    test.call(&[("traceparent", &child(trace))], "in flight");
    let effects = watch.effects();
    drop(watch);
    test.pass(Duration::from_secs(10));
    test.call(&[("traceparent", &child(trace))], "within the window");
    test.pass(Duration::from_micros(1));
    test.call(&[("traceparent", &child(trace))], "after it");
    assert_eq!(test.outcomes(), (2, 0, 1));
    assert_eq!(effects.len(), 2);
    let idle = test.traced(TraceContext::random(true));
    drop(idle);
    test.pass(Duration::from_secs(11));
    let route = test.attribution.report(&ROUTE.into()).route;
    assert_eq!((route.requests, route.closed, route.without_call), (2, 2, 1));
    assert!(test.attribution.is_watching(), "a call may be late");
    test.pass(Duration::from_secs(600));
    assert!(!test.attribution.is_watching(), "nobody is left whose call it could be");
}

/// A queue of legacy is slower than the window, and the next request is in the same trace, or has the same key.
#[test]
fn a_late_call_is_not_given_to_a_later_request() {
    let trace = TraceContext::random(true);
    let next_span = TraceContext { span_id: trace.span_id ^ 4, ..trace };
    for correlate in ["", "header.x-id", "${call.headers[\"x-id\"] == request.headers[\"x-id\"]}"] {
        let test = TestAttribution::new(correlate);
        let [sent, next] = [trace, next_span].map(value);
        drop(test.watch(&[("traceparent", &sent), ("x-id", "a")], None).unwrap());
        test.pass(Duration::from_secs(11));
        let later = test.watch(&[("traceparent", &next), ("x-id", "a")], None).unwrap();
        let late = || test.late_calls();
        test.call(&[("traceparent", &sent)], "it hands on the field of the first request");
        assert_eq!((later.effects().len(), later.effects().gaps(), late()), (0, 0, 1), "{correlate}");
        test.call(&[("traceparent", &child(trace))], "of either");
        assert_eq!((later.effects().len(), later.effects().gaps(), late()), (0, 1, 1), "{correlate}");
        test.call(&[("traceparent", &next)], "it hands on the field of the later request");
        assert_eq!((later.effects().len(), later.effects().gaps(), late()), (1, 1, 1), "{correlate}");
        if !correlate.is_empty() {
            test.call(&[("x-id", "a")], "of either");
            assert_eq!((later.effects().len(), later.effects().gaps(), late()), (1, 2, 1), "{correlate}");
        }
    }
    // By value a request counts for nine windows after its own: a follow-up often has the value of what it follows.
    let test = TestAttribution::new("${call.headers[\"x-id\"] == request.headers[\"x-id\"]}");
    drop(test.watch(&[("x-id", "a")], None).unwrap());
    test.pass(Duration::from_secs(101));
    let later = test.watch(&[("x-id", "a")], None).unwrap();
    test.call(&[("x-id", "a")], "");
    assert_eq!((later.effects().len(), later.effects().gaps()), (1, 0));
}

/// A queue of legacy is slower than the window.
#[test]
fn a_call_that_names_a_request_whose_window_is_over_counts_as_late_for_its_route() {
    for correlate in ["", "header.x-id"] {
        let test = TestAttribution::new(correlate);
        let trace = TraceContext::random(true);
        let names = if correlate.is_empty() { ("traceparent", child(trace)) } else { ("x-id", "a".to_owned()) };
        let sent = value(trace);
        drop(test.watch(&[("traceparent", &sent), ("x-id", "a")], None).unwrap());
        test.pass(Duration::from_secs(10));
        test.call(&[(names.0, &names.1)], "in time");
        assert_eq!(test.late_calls(), 0);
        test.pass(Duration::from_secs(1));
        test.call(&[(names.0, &names.1)], "late");
        test.pass(Duration::from_secs(60));
        test.call(&[(names.0, &names.1)], "later");
        test.call(&[], "of no known request");
        assert_eq!(test.late_calls(), 2, "{correlate}");
        assert_eq!(test.taken.lock().unwrap()[0].to.as_ref().unwrap().to_string(), "POST bank/charges");
        assert_eq!(test.outcomes(), (1, 0, 3), "all of them are counted and listed");
        assert_eq!(test.uncompared_calls("other", UncomparedReason::Late), 0);
        let wider = AttributionSettings { window: Duration::from_secs(90), ..AttributionSettings::default() };
        test.attribution.set(wider);
        let of_no_known_request = || test.uncompared_calls(ROUTE, UncomparedReason::NoKnownRequest);
        assert_eq!(of_no_known_request(), 1);
        test.call(&[(names.0, &names.1)], "with another window it may be in time");
        assert_eq!((test.late_calls(), of_no_known_request()), (2, 2));
    }
}

#[test]
fn secrets_of_a_listed_call_are_not_shown_and_the_list_is_bounded() {
    let test = TestAttribution::new("");
    let _watch = test.traced(TraceContext::random(true));
    for _ in 0..EGRESS_LISTED_CALLS_MAX + 5 {
        test.call(&[("authorization", "Bearer hunter2")], "{\"card\": \"hunter2\"}");
    }
    let listed = test.attribution.report(&ROUTE.into()).listed;
    assert_eq!(listed.len(), EGRESS_LISTED_CALLS_MAX);
    assert_eq!(listed[0].url, "http://bank.test/charges");
    assert_eq!(listed[0].outcome, EffectOutcome::Unattributed);
    assert!(!format!("{listed:?}").contains("hunter2"));
}

#[test]
fn the_calls_that_are_kept_are_bounded_and_the_rest_is_a_gap() {
    let limits = Limits { egress_bytes_max: 9_000, ..Limits::default() };
    let test = TestAttribution::with("", limits);
    let trace = TraceContext::random(true);
    let watch = test.traced(trace);
    let sent = child(trace);
    for _ in 0..10 {
        test.call(&[("traceparent", &sent)], &"x".repeat(2_000));
    }
    let effects = watch.effects();
    assert_eq!((effects.len(), effects.gaps()), (3, 7), "each takes its body and its head");
    assert_eq!(test.attribution.report(&ROUTE.into()).total.not_kept, 7);
    assert!(test.attribution.memory_used() > 6_000);
    drop(watch);
    test.pass(Duration::from_secs(11));
    // A report first removes the requests that are not current any more.
    test.outcomes();
    drop(effects);
    assert_eq!(test.attribution.memory_used(), 0);

    let test = TestAttribution::with("", Limits { egress_bytes_max: 9_000, ..Limits::default() });
    let watch = test.traced(trace);
    test.call(&[("traceparent", &sent), ("cookie", &"c".repeat(9_000))], "");
    assert_eq!((watch.effects().len(), watch.effects().gaps()), (0, 1), "a large head counts as one");

    let test = TestAttribution::new("");
    let watch = test.traced(trace);
    for _ in 0..=EGRESS_CALLS_PER_REQUEST_MAX {
        test.call(&[("traceparent", &sent)], "");
    }
    assert_eq!((watch.effects().len(), watch.effects().gaps()), (EGRESS_CALLS_PER_REQUEST_MAX, 1));
}

#[test]
fn requests_are_bounded_and_the_oldest_that_have_ended_go_first() {
    let limits = Limits { egress_requests_max: 64, ..Limits::default() };
    let test = TestAttribution::with("header.x-id", limits);
    let watch = |n: usize| {
        let trace = value(TraceContext::random(true));
        test.watch(&[("traceparent", &trace), ("x-id", &format!("r{n}"))], None)
    };
    let open = watch(0).unwrap();
    let mut ended = Vec::new();
    for n in 1..200 {
        ended.extend(watch(n).map(|watch| watch.effects()));
        test.outcomes();
    }
    let report = test.attribution.report(&ROUTE.into());
    assert!(report.total.requests_left_out >= 200 - 64, "{:?}", report.total);
    assert!(ended[0].gaps() > 0, "its calls are not seen any more");
    assert!(open.effects().gaps() == 0, "one in flight is kept longest");
    // An unwatched one could have had the same value.
    test.call(&[("x-id", "r0")], "");
    assert_eq!((test.outcomes(), open.effects().gaps()), ((0, 1, 0), 1));
    test.pass(Duration::from_secs(11));
    test.call(&[("x-id", "r0")], "");
    assert_eq!((test.outcomes().0, open.effects().len()), (1, 1));
}

/// Whether it was refused at first or evicted later, and however long its exchange takes.
#[test]
fn a_request_without_room_counts_as_a_possible_cause_until_its_window_is_over() {
    let limits = Limits { egress_requests_max: 32, ..Limits::default() };
    for is_evicted in [false, true] {
        let test = TestAttribution::with("header.x-id", limits.clone());
        let announce = |id: &str| test.announce(Some(ROUTE), &[("x-id", id)], None);
        // Refused without the index; evicted by it.
        let mut unwatched = Vec::new();
        for n in 0..33 {
            unwatched.push(announce(&format!("r{n}")));
            if is_evicted {
                test.outcomes();
            }
        }
        assert_eq!(unwatched.iter().all(|watch| watch.effects().is_some()), is_evicted);
        unwatched.retain(|watch| watch.effects().is_none_or(|effects| effects.gaps() > 0));
        assert!(!unwatched.is_empty());
        test.pass(Duration::from_secs(60));
        test.outcomes();

        let other = announce("other");
        let call = || {
            test.call(&[("x-id", "other")], "");
            let effects = other.effects().expect("the others are over");
            (effects.len(), effects.gaps())
        };
        assert_eq!(call(), (0, 1), "in flight for a minute");
        drop(unwatched);
        test.pass(Duration::from_secs(9));
        assert_eq!(call(), (0, 2), "its window is not over");
        test.pass(Duration::from_secs(2));
        assert_eq!(call(), (1, 2));
    }
}

#[test]
fn without_calls_and_settled_requests_the_lists_are_bounded_too() {
    let limits = Limits { egress_requests_max: 32, ..Limits::default() };
    let test = TestAttribution::with("", limits);
    let taken = (0..100).filter(|_| test.watch(&[], None).is_some()).count();
    assert_eq!(taken, 32);
    test.pass(Duration::from_secs(11));
    let _last = test.watch(&[], None).expect("those that are not current any more make room");
    let route = test.attribution.report(&ROUTE.into()).route;
    assert_eq!((route.requests, route.closed, route.without_call), (33, 32, 32), "they are counted all the same");
}
