//! What a wait means, and whose it is.

use crate::limits::Limits;
use crate::proxy::clock::{Bounds, Clock, NEVER, Overdue, Phase, now};

#[test]
fn a_late_body_of_an_earlier_exchange_changes_nothing() {
    let clock = Clock::new();
    let (first, _) = clock.begin(1, false);
    clock.sending();
    let (second, _) = clock.begin(1, false);
    clock.sending();
    clock.request_ended(first);
    assert!(!clock.is_request_done());
    assert_eq!(clock.phase(), Phase::Upload);
    clock.request_ended(second);
    assert_eq!(clock.phase(), Phase::FirstByte);
}

#[test]
fn who_is_waited_for_is_who_is_blamed() {
    let limits = Limits { client_half_close_ms: 5, ..Limits::default() };
    let bounds = Bounds::new(&limits);
    let clock = Clock::new();
    let (turn, _) = clock.begin(bounds.first_byte, false);
    assert_eq!(clock.due(&bounds).0, NEVER, "an arm with its own deadline has none here");
    clock.sending();
    assert_eq!(clock.due(&bounds).1, Overdue::Upload);
    clock.client_is_slow(turn);
    assert_eq!(clock.due(&bounds).1, Overdue::Client);
    clock.request_ended(turn);
    assert_eq!(clock.due(&bounds).1, Overdue::FirstByte);
    clock.saw_fin();
    let (due, why) = clock.due(&bounds);
    assert_eq!(why, Overdue::Cut);
    assert!(due <= now() + 5_000);
}
