//! Calls that have begun and not ended yet when the window of a request is over.

use super::*;

impl TestAttribution {
    /// A call begins; its body is still to come. Returns its number.
    fn begin(&self, sent: &[(&str, &str)], body: Option<Arc<Sending>>) -> u64 {
        let number = self.calls.fetch_add(1, Relaxed);
        self.attribution.begin(&head(number, sent, Body::TooLarge), body.map(|body| body as Arc<dyn SentBody>));
        number
    }
    fn end(&self, number: u64, sent: &[(&str, &str)], body: &str) {
        self.attribution.observe(head(number, sent, Body::Whole(body.to_owned().into())));
    }
}

fn head(number: u64, sent: &[(&str, &str)], body: Body) -> Effect {
    let url = "http://bank.test/charges".into();
    Effect {
        service: Some("bank".into()),
        method: Method::POST,
        url,
        headers: headers(sent),
        body,
        reply: None,
        number,
        replied_before: None,
    }
}

#[test]
fn a_call_that_is_under_way_when_the_window_is_over_counts_as_open() {
    let test = TestAttribution::new("");
    let (trace, other) = (TraceContext::random(true), TraceContext::random(true));
    let (watch, untouched) = (test.traced(trace), test.traced(other));
    let (effects, of_other) = (watch.effects(), untouched.effects());
    let sent = child(trace);
    let number = test.begin(&[("traceparent", &sent)], None);
    drop((watch, untouched));
    test.pass(Duration::from_secs(11));
    assert_eq!((effects.so_far().open, of_other.so_far().open), (1, 0));
    test.end(number, &[("traceparent", &sent)], "");
    assert_eq!((effects.so_far().open, test.outcomes()), (0, (0, 0, 1)), "too late");
    assert_eq!((effects.gaps(), of_other.gaps()), (1, 0), "its calls are not all known, whenever they are asked for");
    // One that ends in time is attributed, and not open any more.
    let trace = TraceContext::random(true);
    let (watch, sent) = (test.traced(trace), child(trace));
    let number = test.begin(&[("traceparent", &sent)], None);
    assert_eq!(watch.effects().so_far().open, 1);
    test.end(number, &[("traceparent", &sent)], "");
    let so_far = watch.effects().so_far();
    assert_eq!((so_far.open, so_far.calls.len()), (0, 1));
}

#[test]
fn an_open_call_is_only_for_requests_that_it_could_be_for() {
    let test = TestAttribution::new("${call.body.ref == request.body.ref}");
    let [first, second] = ["A", "B"].map(|value| test.with_body(&format!("{{\"ref\":\"{value}\"}}")));
    first.reply_passed_on();
    let open = || (first.effects().so_far().open, second.effects().so_far().open);
    let body = Arc::new(Sending::default());
    let number = test.begin(&[], Some(body.clone()));
    assert_eq!(open(), (1, 1), "its value is not known yet");
    body.end("{\"ref\":\"A\"}");
    assert_eq!(open(), (1, 0));
    let later = test.with_body("{\"ref\":\"A\"}");
    later.reply_passed_on();
    assert_eq!(later.effects().so_far().open, 0, "the call began before it");
    test.end(number, &[], "{\"ref\":\"A\"}");
    assert_eq!((open(), first.effects().len(), later.effects().len()), ((0, 0), 1, 0), "nor is it given to that one");
    let by_header = TestAttribution::new("header.x-id");
    let [first, second] = ["a", "b"].map(|id| by_header.watch(&[("x-id", id)], None).unwrap());
    by_header.begin(&[("x-id", "a")], None);
    assert_eq!((first.effects().so_far().open, second.effects().so_far().open), (1, 0));
}

#[test]
fn a_lost_call_counts_as_open_for_twice_the_window() {
    let test = TestAttribution::new("");
    let trace = TraceContext::random(true);
    let watch = test.traced(trace);
    let sent = child(trace);
    let number = test.begin(&[("traceparent", &sent)], None);
    test.attribution.lose(number);
    assert_eq!(watch.effects().so_far().open, 1);
    assert_eq!(test.uncompared_calls(ROUTE, UncomparedReason::NoKnownRequest), 1, "it will not be in a pair");
    // The window is 10 s.
    test.pass(Duration::from_secs(19));
    assert_eq!(watch.effects().so_far().open, 1);
    test.pass(Duration::from_secs(2));
    assert_eq!(watch.effects().so_far().open, 0);
}

#[test]
fn a_lost_call_that_found_no_room_is_in_no_pair() {
    let test = TestAttribution::new("");
    let _watch = test.traced(TraceContext::random(true));
    let numbers: Vec<u64> = (0..=EGRESS_OPEN_CALLS_MAX).map(|_| test.begin(&[], None)).collect();
    numbers.iter().rev().take(1).for_each(|last| test.attribution.lose(*last));
    assert_eq!(test.uncompared_calls(ROUTE, UncomparedReason::NoKnownRequest), 1);
}

#[test]
fn open_calls_are_bounded_and_beyond_that_nothing_is_known_of_any_request() {
    let test = TestAttribution::new("");
    let watch = test.traced(TraceContext::random(true));
    let numbers: Vec<u64> = (0..=EGRESS_OPEN_CALLS_MAX).map(|_| test.begin(&[], None)).collect();
    assert_eq!(watch.effects().so_far().open, 1);
    for number in numbers {
        test.end(number, &[], "");
    }
    assert_eq!(watch.effects().so_far().open, 0);
}
