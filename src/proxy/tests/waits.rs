//! The limits of waits, and which side is overdue.

use crate::limits::Limits;
use crate::proxy::monotonic::{NEVER, now};
use crate::proxy::wait::{ConnectionWait, Overdue, Phase};
use crate::proxy::wait_limits::WaitLimits;

#[test]
fn updates_from_an_earlier_exchange_are_ignored() {
    let wait = ConnectionWait::new();
    let limits = WaitLimits::new(&Limits::default()).exchange;
    let (first, _) = wait.begin(limits, false);
    wait.start_sending(now());
    let (second, _) = wait.begin(limits, false);
    wait.start_sending(now());
    wait.request_ended(first);
    assert!(!wait.is_request_done());
    assert_eq!(wait.phase(), Phase::Upload);
    wait.request_ended(second);
    assert_eq!(wait.phase(), Phase::FirstByte);
}

#[test]
fn the_side_that_is_waited_for_is_overdue() {
    let limits = Limits { client_half_close_ms: 5, ..Limits::default() };
    let wait_limits = WaitLimits::new(&limits);
    let wait = ConnectionWait::new();
    let (exchange_number, _) = wait.begin(wait_limits.exchange, false);
    assert_eq!(wait.due(&wait_limits).0, NEVER, "an arm with its own deadline has none here");
    wait.start_sending(now());
    assert_eq!(wait.due(&wait_limits).1, Overdue::Upload);
    wait.set_waits_for_client(exchange_number);
    assert_eq!(wait.due(&wait_limits).1, Overdue::Client);
    wait.request_ended(exchange_number);
    assert_eq!(wait.due(&wait_limits).1, Overdue::FirstByte);
    wait.on_fin();
    let (due, why) = wait.due(&wait_limits);
    assert_eq!(why, Overdue::Cut);
    assert!(due <= now() + 5_000);
}
