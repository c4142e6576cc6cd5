//! Calls that may have changed something and that are in no compared pair, also while no request is under way.

use super::*;
use crate::exchange::CallTarget;

impl TestAttribution {
    /// How many calls for a route are in no pair for this reason, so far.
    pub(super) fn uncompared_calls(&self, route: &str, reason: UncomparedReason) -> u64 {
        let mut taken = self.taken.lock().unwrap();
        taken.extend(self.attribution.take_uncompared());
        taken.iter().filter(|of| of.route == RouteId::from(route) && of.reason == reason).map(|of| of.calls).sum()
    }
    pub(super) fn late_calls(&self) -> u64 {
        self.uncompared_calls(ROUTE, UncomparedReason::Late)
    }
}

fn tunnel(test: &TestAttribution) -> Box<dyn Send> {
    let (authority, path) = ("bank.test:443".to_owned(), String::new());
    test.attribution.tunnel(CallTarget { service: None, authority, method: Method::CONNECT, path })
}

const OF_NO_KNOWN_REQUEST: UncomparedReason = UncomparedReason::NoKnownRequest;

/// A queue of legacy sends mails some time after the last request, without a trace.
#[test]
fn a_call_of_no_known_request_may_be_for_each_route_that_had_a_request_before_it() {
    let test = TestAttribution::new("");
    test.call(&[], "before any request");
    assert_eq!(test.uncompared_calls(ROUTE, OF_NO_KNOWN_REQUEST), 0);
    drop(test.traced(TraceContext::random(true)));
    drop(test.watch_as(Some("orders.cancel"), &[], None).unwrap());
    drop(test.watch_as(None, &[], None).unwrap());
    test.outcomes(); // it indexes the requests
    test.pass(Duration::from_secs(60));
    for _ in 0..3 {
        test.call(&[], "a mail");
    }
    for route in [ROUTE, "orders.cancel"] {
        assert_eq!(
            (test.uncompared_calls(route, OF_NO_KNOWN_REQUEST), test.uncompared_calls(route, UncomparedReason::Late)),
            (3, 0)
        );
    }
    test.pass(Duration::from_secs(300));
    drop(test.traced(TraceContext::random(true)));
    test.outcomes();
    test.pass(Duration::from_secs(300));
    test.call(&[], "too late for the other route");
    assert_eq!(
        (
            test.uncompared_calls(ROUTE, OF_NO_KNOWN_REQUEST),
            test.uncompared_calls("orders.cancel", OF_NO_KNOWN_REQUEST)
        ),
        (4, 3)
    );
    test.pass(Duration::from_secs(301));
    test.call(&[], "too late for both");
    assert_eq!(test.uncompared_calls(ROUTE, OF_NO_KNOWN_REQUEST), 4);
}

#[test]
fn a_call_that_names_a_request_that_was_not_compared_is_for_no_route() {
    let test = TestAttribution::new("");
    let (compared, other) = (TraceContext::random(true), TraceContext::random(true));
    drop(test.traced(compared));
    drop(test.watch_as(None, &[("traceparent", &value(other))], None).unwrap());
    for pause in [Duration::from_secs(11), Duration::from_secs(60)] {
        test.pass(pause);
        test.call(&[("traceparent", &child(other))], "");
    }
    assert_eq!((test.uncompared_calls(ROUTE, OF_NO_KNOWN_REQUEST), test.late_calls()), (0, 0));
    test.call(&[("traceparent", &child(compared))], "");
    test.call(&[("traceparent", &value(TraceContext::random(true)))], "of a trace that is not known");
    assert_eq!((test.uncompared_calls(ROUTE, OF_NO_KNOWN_REQUEST), test.late_calls()), (1, 1));
}

#[test]
fn a_tunnel_may_be_for_requests_before_it_and_while_it_is_open() {
    let test = TestAttribution::new("");
    let open = tunnel(&test);
    assert_eq!(test.attribution.take_uncompared(), []);
    drop(test.traced(TraceContext::random(true)));
    let taken = || test.attribution.take_uncompared().into_iter().map(|of| (of.route, of.calls)).collect::<Vec<_>>();
    assert_eq!(taken(), [(ROUTE.into(), 0)], "it was opened before");
    drop(open);
    assert_eq!(taken(), []);
    test.pass(Duration::from_secs(30));
    drop(tunnel(&test));
    assert_eq!(taken(), [(ROUTE.into(), 1)]);
    test.pass(Duration::from_secs(600));
    drop(tunnel(&test));
    assert_eq!(taken(), []);
}
