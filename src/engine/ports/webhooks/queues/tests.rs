use std::collections::HashMap;

use proptest::prelude::*;
use serde_json::Value;
use uuid::Uuid;

use super::*;
use crate::names::RunId;

fn time(second: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_secs(second)
}

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn message(number: u64, destination: &str) -> WebhookMessage {
    WebhookMessage {
        number,
        run: RunId(Uuid::from_u128(number.into())),
        destination: destination.to_owned(),
        service: Some(ServiceName::new("ops")),
        by: None,
        path: Some("/hooks/17".into()),
        url: "http://ops:80/hooks/17".into(),
        body: Value::Null,
        at: time(0),
    }
}

fn bounds() -> QueueBounds {
    QueueBounds { waiting_max: 100, refusals_max: 3, age_max: SignedDuration::from_hours(24), in_flight_max: 64 }
}

fn numbers(messages: &[Arc<WebhookMessage>]) -> Vec<u64> {
    messages.iter().map(|message| message.number).collect()
}

fn failed() -> DeliveryResult {
    DeliveryResult::Failed("gone".into())
}

#[test]
fn a_destination_gets_its_messages_one_by_one_and_in_order() {
    let (mut queues, now) = (Queues::new(bounds()), Instant::now());
    for number in [3, 1, 2] {
        assert_eq!(queues.add(message(number, "a"), now), None);
    }
    for number in 1..=3 {
        assert_eq!(queues.next_due(now), Some(now));
        let started = queues.start_due(now);
        assert_eq!(numbers(&started), [number]);
        assert_eq!((queues.start_due(now).len(), queues.next_due(now)), (0, None), "one is in flight");
        assert_eq!(
            queues.record_result(&started[0], &DeliveryResult::Delivered, now, time(0)),
            AfterDelivery::default()
        );
    }
    assert_eq!(queues.next_due(now), None);
    assert!(queues.waiting().is_empty());
}

/// Failures may take long: a receiver that accepts a connection and does not answer.
#[test]
fn destinations_that_failed_leave_room_for_the_others() {
    let bounds = QueueBounds { in_flight_max: 8, ..bounds() };
    let (mut queues, begun) = (Queues::new(bounds), Instant::now());
    for number in 1..=8 {
        queues.add(message(number, &format!("hangs {number}")), begun);
    }
    let started = queues.start_due(begun);
    assert_eq!(started.len(), 8, "nothing is known of them yet");
    for message in &started {
        queues.record_result(message, &failed(), begun, time(0));
    }
    let now = begun + s(1);
    assert_eq!(queues.start_due(now).len(), 6);
    assert_eq!(queues.next_due(now), None, "the others that failed wait for a place");
    queues.add(message(9, "alive"), now);
    assert_eq!(queues.next_due(now), Some(now));
    assert_eq!(numbers(&queues.start_due(now)), [9]);
    queues.record_result(&started[0], &failed(), now, time(0));
    assert_eq!(queues.start_due(now).len(), 1, "a place is free again");
}

#[test]
fn a_dead_destination_delays_no_other_and_is_tried_less_and_less_often() {
    let (mut queues, begun) = (Queues::new(bounds()), Instant::now());
    queues.add(message(1, "dead"), begun);
    queues.add(message(2, "dead"), begun);
    let mut now = begun;
    for (failures, pause) in (1..).zip([1, 2, 4, 8, 16, 32, 60, 60]) {
        queues.add(message(100 + failures, "alive"), now);
        let started = queues.start_due(now);
        assert_eq!(numbers(&started), [1, 100 + failures], "the same message again, and the other at once");
        let after = queues.record_result(&started[0], &failed(), now, time(0));
        assert_eq!(after, AfterDelivery { pause: Some(s(pause)), ..AfterDelivery::default() });
        queues.record_result(&started[1], &DeliveryResult::Delivered, now, time(0));
        assert_eq!(queues.next_due(now), Some(now + s(pause)));
        now += s(pause);
    }
    // The receiver accepts messages again: the rest follows at once.
    let started = queues.start_due(now);
    let after = queues.record_result(&started[0], &DeliveryResult::Delivered, now, time(0));
    assert_eq!(after.recovered_after, Some(8));
    assert_eq!(numbers(&queues.start_due(now)), [2]);
}

#[test]
fn after_a_service_has_moved_its_messages_are_due_at_once_and_those_to_others_are_not() {
    let (mut queues, now) = (Queues::new(bounds()), Instant::now());
    queues.add(message(1, "a"), now);
    queues.add(WebhookMessage { service: Some(ServiceName::new("other")), ..message(2, "b") }, now);
    for started in queues.start_due(now) {
        queues.record_result(&started, &DeliveryResult::Refused("it answered 404".into()), now, time(0));
    }
    assert_eq!(queues.start_due(now).len(), 0, "both pause");
    queues.retry_now(|service| service.as_str() == "ops");
    let started = queues.start_due(now);
    assert_eq!(numbers(&started), [1]);
    let refused = DeliveryResult::Refused("it answered 404".into());
    let after = queues.record_result(&started[0], &refused, now, time(0));
    assert_eq!(after, AfterDelivery { pause: Some(s(1)), ..AfterDelivery::default() }, "the pauses begin again");
    let again = queues.start_due(now + s(1));
    assert_eq!(numbers(&again), [1, 2]);
    let after = queues.record_result(&again[0], &refused, now, time(0));
    assert!(after.given_up.is_empty(), "refusals at the address before do not count: this is the second");
}

#[test]
fn refused_and_too_old_messages_are_given_up() {
    let (mut queues, mut now) = (Queues::new(bounds()), Instant::now());
    for number in 1..=3 {
        queues.add(message(number, "a"), now);
    }
    for refusal in 1..=3 {
        let started = queues.start_due(now);
        assert_eq!(numbers(&started), [1]);
        let after = queues.record_result(&started[0], &DeliveryResult::Refused("it answered 404".into()), now, time(0));
        assert_eq!(numbers(&after.given_up), if refusal == 3 { vec![1] } else { vec![] });
        now += s(60);
    }
    // Failures of the receiver are retried without a limit of attempts, until the message is a day old.
    for _ in 0..20 {
        let started = queues.start_due(now);
        assert_eq!(numbers(&started), [2]);
        assert_eq!(queues.record_result(&started[0], &failed(), now, time(80_000)).given_up, []);
        now += s(60);
    }
    let started = queues.start_due(now);
    assert_eq!(numbers(&queues.record_result(&started[0], &failed(), now, time(86_401)).given_up), [2, 3]);
    assert!(queues.waiting().is_empty() && queues.next_due(now).is_none());
}

#[test]
fn beyond_the_bound_the_oldest_message_that_is_not_in_flight_is_dropped() {
    let (mut queues, now) = (Queues::new(QueueBounds { waiting_max: 3, ..bounds() }), Instant::now());
    queues.add(message(1, "a"), now);
    let started = queues.start_due(now);
    for number in 2..=3 {
        assert_eq!(queues.add(message(number, "a"), now), None);
    }
    assert_eq!(queues.add(message(4, "b"), now), None, "each destination has its own bound");
    assert_eq!(queues.add(message(5, "a"), now).map(|dropped| dropped.number), Some(2));
    assert_eq!(queues.add(message(5, "a"), now), None, "it is queued already");
    queues.record_result(&started[0], &DeliveryResult::Delivered, now, time(0));
    assert_eq!(queues.waiting()[&Some(ServiceName::new("ops"))], 3);
}

#[test]
fn messages_in_flight_are_bounded_and_the_longest_due_goes_first() {
    let (mut queues, now) = (Queues::new(QueueBounds { in_flight_max: 2, ..bounds() }), Instant::now());
    for (number, destination) in (1..).zip(["a", "b", "c"]) {
        queues.add(message(number, destination), now);
    }
    let started = queues.start_due(now);
    assert_eq!(numbers(&started), [1, 2]);
    assert_eq!(queues.next_due(now), None, "only a result makes room");
    queues.record_result(&started[0], &failed(), now, time(0));
    assert_eq!(numbers(&queues.start_due(now + s(2))), [3]);
}

#[test]
fn a_message_of_another_process_is_left_to_it_for_a_while_and_removed_when_sent() {
    let (mut queues, now) = (Queues::new(bounds()), Instant::now());
    queues.add(message(1, "a"), now + s(60));
    queues.add(message(2, "a"), now);
    let started = queues.start_due(now);
    assert_eq!(numbers(&started), [2], "its own message first");
    queues.keep_only(&BTreeSet::from([1]));
    queues.record_result(&started[0], &DeliveryResult::Delivered, now, time(0));
    assert_eq!(queues.next_due(now), Some(now + s(60)));
    assert_eq!(numbers(&queues.start_due(now + s(60))), [1]);
    queues.add(message(3, "a"), now);
    queues.keep_only(&BTreeSet::new());
    assert_eq!(queues.waiting().values().sum::<usize>(), 1, "a message in flight stays until its result is recorded");
}

/// A message of an older version has no destination.
#[test]
fn the_destination_of_an_older_message_is_the_origin_of_its_url() {
    let (mut queues, now) = (Queues::new(bounds()), Instant::now());
    for (number, url) in (1..).zip(["http://a:80/hooks/1", "http://a:80/hooks/2", "http://b:80/hooks"]) {
        queues.add(WebhookMessage { service: None, url: url.into(), ..message(number, "") }, now);
    }
    assert_eq!(numbers(&queues.start_due(now)), [1, 3]);
}

proptest! {
    /// Whatever receivers do: each message ends once, those of a destination are delivered in order, and at most one of
    /// them is in flight.
    #[test]
    fn every_message_ends_once_and_in_order(
        actions in prop::collection::vec((0_usize..4, 0_u8..10, 0_u64..40), 1..200),
    ) {
        let names = ["a", "b", "c", "d"];
        let (mut queues, mut now) = (Queues::new(QueueBounds { waiting_max: 20, ..bounds() }), Instant::now());
        let (mut ends, mut delivered) = (HashMap::<u64, u32>::new(), HashMap::<String, u64>::new());
        let mut added = 0;
        let mut in_flight: Vec<Arc<WebhookMessage>> = Vec::new();
        let mut all = actions.into_iter();
        for step in 0..10_000 {
            match all.next() {
                Some((which, what, wait)) => {
                    if what < 6 {
                        added += 1;
                        if let Some(dropped) = queues.add(message(added, names[which]), now) {
                            *ends.entry(dropped.number).or_default() += 1;
                        }
                    }
                    if let Some(sent) = (!in_flight.is_empty()).then(|| in_flight.swap_remove(which % in_flight.len())) {
                        let attempt = match what {
                            0..=4 => DeliveryResult::Delivered,
                            5..=7 => failed(),
                            _ => DeliveryResult::Refused("no".into()),
                        };
                        if attempt == DeliveryResult::Delivered {
                            *ends.entry(sent.number).or_default() += 1;
                            let last = delivered.insert(sent.destination.clone(), sent.number).unwrap_or(0);
                            prop_assert!(last < sent.number, "{} after {last}", sent.number);
                        }
                        for given_up in queues.record_result(&sent, &attempt, now, time(0)).given_up {
                            *ends.entry(given_up.number).or_default() += 1;
                        }
                    }
                    now += Duration::from_millis(wait * 100);
                }
                // All receivers accept messages again.
                None => {
                    for sent in std::mem::take(&mut in_flight) {
                        *ends.entry(sent.number).or_default() += 1;
                        queues.record_result(&sent, &DeliveryResult::Delivered, now, time(0));
                    }
                    now += s(60);
                }
            }
            let started = queues.start_due(now);
            for one in &started {
                prop_assert!(!in_flight.iter().any(|other| other.destination == one.destination));
            }
            in_flight.extend(started);
            if step > 0 && all.len() == 0 && in_flight.is_empty() && queues.waiting().is_empty() {
                break;
            }
        }
        prop_assert!(queues.waiting().is_empty() && in_flight.is_empty());
        prop_assert_eq!(ends.len() as u64, added);
        prop_assert!(ends.values().all(|times| *times == 1), "{ends:?}");
    }
}
