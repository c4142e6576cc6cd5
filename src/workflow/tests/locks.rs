//! Locks: queueing, holding, releasing, and deadlocks.

use super::harness::plan;
use super::people_harness::items;
use super::*;
use crate::workflow::{Choice, ConflictKind, LockSeen, Order, WaitLink};

fn locked(busy: &str) -> Plan {
    plan(&format!(
        "
workflow: w
steps:
  take:
    for_each: ${{request.body.items}}
    concurrency: 2
    call: POST ${{services.stock}}/take
    body: {{ n: '${{item}}' }}
    retry: {{ attempts: 1, base: 1s, max: 1s }}
    lock: {{ key: 'sku:${{item}}', busy: {busy} }}
respond: {{ status: 200, body: '${{default(steps.take.output, null)}}' }}
"
    ))
}

fn behind() -> LockSeen {
    LockSeen::Behind { holder: RunId(uuid::Uuid::from_u128(9)) }
}

pub(super) fn wait_link(holder: RunId, waiter: RunId) -> WaitLink {
    WaitLink { holder, holds: "a".into(), waiter, wants: "b".into() }
}

fn left(harness: &Harness<'_>) -> usize {
    harness.kinds().iter().filter(|kind| **kind == "lock_left").count()
}

#[test]
fn a_step_begins_when_it_holds_its_lock_and_releases_it_when_it_ends() {
    let plan = locked("wait");
    let mut harness = Harness::of_api(&plan);
    harness.rest();
    assert_eq!(harness.locks(), [("sku:1".to_owned(), Some(0)), ("sku:2".to_owned(), Some(1))]);
    assert_eq!(harness.causes(), ["lock", "lock"]);
    assert!(harness.lock("take", Some(0), behind()).is_err());
    harness.lock("take", Some(1), LockSeen::First).unwrap();
    assert_eq!(harness.in_flight_names(), ["take[1]"], "a later item need not wait for an earlier one");
    harness.replies("take", Some(1), ok(json!(2)));
    assert_eq!((left(&harness), harness.locks().len()), (1, 2));
    harness.lock("take", Some(0), LockSeen::First).unwrap();
    harness.order_by("ann", Order::Pause { reason: None }).unwrap();
    assert_eq!(left(&harness), 2, "one that does not hold its lock leaves the queue");
    harness.order_by("ann", Order::Resume { reason: None }).unwrap();
    harness.lock("take", Some(2), LockSeen::First).unwrap();
    harness.replies("take", Some(0), ok(json!(1)));
    harness.replies("take", Some(2), ok(json!(3)));
    assert_eq!((harness.status(), left(&harness)), (RunStatus::Completed, 4));
    let mut harness = Harness::of_api(&plan);
    harness.rest();
    harness.lock("take", Some(0), LockSeen::First).unwrap();
    harness.replies("take", Some(0), status(404));
    assert_eq!((harness.status(), left(&harness)), (RunStatus::Failed, 2), "nothing is held beyond the end");
}

#[test]
fn a_lock_that_is_held_skips_cancels_or_asks() {
    let skip = locked("skip");
    let mut harness = Harness::of_api(&skip);
    harness.rest();
    harness.lock("take", Some(0), behind()).unwrap();
    harness.lock("take", Some(1), LockSeen::First).unwrap();
    harness.replies("take", Some(1), ok(json!(2)));
    harness.lock("take", Some(2), behind()).unwrap();
    assert_eq!(harness.run.answer().unwrap().body.value(), json!([null, 2, null]));
    let cancel = locked("cancel");
    let mut harness = Harness::of_api(&cancel);
    harness.rest();
    harness.lock("take", Some(0), behind()).unwrap();
    assert_eq!((harness.status(), left(&harness)), (RunStatus::Cancelled, 2));
    let ask = locked("ask");
    let mut harness = Harness::of_api(&ask);
    harness.rest();
    harness.lock("take", Some(0), behind()).unwrap();
    assert_eq!(harness.run.conflict().unwrap().choices, ["wait", "skip", "cancel"]);
    let resolve = |choice| Order::Resolve { step: "take".into(), item: Some(0), choice, reason: None };
    harness.order_by("ann", resolve(Choice::Wait)).unwrap();
    assert!(harness.lock("take", Some(0), behind()).is_err(), "nobody is asked twice");
    harness.lock("take", Some(0), LockSeen::First).unwrap();
    assert_eq!(harness.in_flight_names(), ["take[0]"]);
    let mut harness = Harness::of_api(&ask);
    harness.rest();
    let links = vec![wait_link(RunId(uuid::Uuid::from_u128(9)), harness.run.id())];
    harness.lock("take", Some(1), LockSeen::Deadlock { links: links.clone() }).unwrap();
    let conflict = harness.run.conflict().unwrap();
    assert_eq!(conflict.kind, ConflictKind::Deadlock);
    let order_by =
        format!("{} holds `a`, and {}, which it began, wants `b`", RunId(uuid::Uuid::from_u128(9)), harness.run.id());
    assert!(conflict.message.contains(&order_by), "{}", conflict.message);
    let resolve = |choice| Order::Resolve { step: "take".into(), item: Some(1), choice, reason: None };
    harness.order_by("ann", resolve(Choice::Wait)).unwrap();
    assert_eq!((harness.status(), harness.locks().len()), (RunStatus::Running, 2), "both queue again");
    harness.lock("take", Some(1), LockSeen::Deadlock { links }).unwrap();
    assert_eq!(harness.status(), RunStatus::Paused, "the deadlock is still there: waiting silently would hide it");
    harness
        .order_by("ann", Order::Resolve { step: "take".into(), item: Some(1), choice: Choice::Skip, reason: None })
        .unwrap();
    assert_eq!((left(&harness), harness.status()), (4, RunStatus::Running));
}

/// Others need not wait until a person has decided over something else.
#[test]
fn a_run_that_pauses_over_a_conflict_leaves_its_lock_queues() {
    let plan = plan(
        "
workflow: w
steps:
  a: { call: 'POST ${services.stock}/a' }
  b: { call: 'POST ${services.stock}/b', lock: { key: x } }
respond: { status: 200 }
",
    );
    let mut harness = Harness::of_api(&plan);
    harness.rest();
    assert_eq!((harness.locks().len(), harness.in_flight_names()), (1, vec!["a".to_owned()]));
    harness.replies("a", None, status(409));
    assert_eq!((harness.status(), left(&harness)), (RunStatus::Paused, 1));
    let resolve = Order::Resolve { step: "a".into(), item: None, choice: Choice::Skip, reason: None };
    harness.order_by("ann", resolve).unwrap();
    assert_eq!(harness.locks(), [("x".to_owned(), None)], "it queues again");
    let note = |harness: &Harness<'_>| {
        let seen = crate::workflow::view(harness.events.iter().map(|event| (harness.now, event))).unwrap();
        seen.steps.into_iter().find(|step| step.step.as_str() == "b").unwrap().note
    };
    assert_eq!(note(&harness).as_deref(), Some("it waits for the lock `x`"));
    harness.lock("b", None, LockSeen::First).unwrap();
    assert_eq!(note(&harness), None, "it has it");
    harness.replies("b", None, ok(json!(1)));
    assert_eq!(harness.status(), RunStatus::Completed);
    // The run keeps the lock that it holds: its call is under way.
    let mut harness = Harness::of_api(&plan);
    harness.rest();
    harness.lock("b", None, LockSeen::First).unwrap();
    harness.replies("a", None, status(409));
    assert_eq!(
        (harness.status(), left(&harness), harness.in_flight_names()),
        (RunStatus::Paused, 0, vec!["b".to_owned()])
    );
}

/// A read of the queue that began before a pause may end after the run has queued again, behind others.
#[test]
fn what_was_seen_for_an_earlier_queue_entry_is_ignored() {
    let plan = locked("wait");
    let mut harness = Harness::of_api(&plan);
    harness.rest();
    let place = |harness: &Harness<'_>| harness.run.interactions.queue_entry(&"take".into(), Some(0)).unwrap().queued;
    let before = place(&harness);
    harness.order_by("ann", Order::Pause { reason: None }).unwrap();
    harness.order_by("ann", Order::Resume { reason: None }).unwrap();
    let (step, queued) = (harness.plan.step(&"take".into()).unwrap().0, place(&harness));
    assert_ne!(before, queued);
    let seen = |queued| Command::LockSeen { step, item: Some(0), queued, seen: LockSeen::First };
    assert!(harness.ask(seen(before)).is_err());
    assert!(harness.in_flight_names().is_empty());
    harness.ask(seen(queued)).unwrap();
}

#[test]
fn a_busy_status_of_a_service_is_treated_as_a_held_lock() {
    for (busy, then) in [("skip", "skipped"), ("cancel", "cancelled"), ("wait", "waits"), ("ask", "asked")] {
        let plan = locked(busy);
        let mut harness = Harness::of_api(&plan);
        harness.rest();
        harness.lock("take", Some(0), LockSeen::First).unwrap();
        harness.replies("take", Some(0), status(423));
        match then {
            "skipped" => assert!(harness.kinds().contains(&"step_skipped")),
            "cancelled" => assert_eq!(harness.status(), RunStatus::Cancelled),
            "waits" => {
                for _ in 0..5 {
                    harness.seconds(2);
                    assert_eq!(harness.in_flight_names(), ["take[0]"], "no attempt is used up");
                    harness.replies("take", Some(0), status(423));
                }
                harness.seconds(2);
                harness.replies("take", Some(0), ok(json!(1)));
                assert_ne!(harness.status(), RunStatus::Failed);
            }
            _ => {
                assert_eq!(harness.run.conflict().map(|c| c.kind), Some(ConflictKind::Busy));
                let wait = Order::Resolve { step: "take".into(), item: Some(0), choice: Choice::Wait, reason: None };
                harness.order_by("ann", wait).unwrap();
                harness.seconds(2);
                assert_eq!(harness.in_flight_names(), ["take[0]"]);
            }
        }
    }
}

#[test]
fn locks_of_rehearsed_and_dark_runs_have_separate_names() {
    let yaml = "
workflow: w
steps: { a: { call: 'POST ${services.stock}/a', effect: private, lock: { key: x } } }
respond: { status: 200 }
";
    let plan = plan(yaml);
    let mut dark = Harness::new(&plan, Mode::Dark, json!({}));
    dark.rest();
    assert_eq!(dark.locks(), [("dark:x".to_owned(), None)]);
    // A real run whose lock's name is computed cannot choose the name of a dark run's lock. Nor can it choose a name
    // that looks like the hash of a sensitive name.
    let (hash, escaped) = (format!("sensitive:{}", "0a".repeat(32)), format!("real:sensitive:{}", "0a".repeat(32)));
    for (name, held) in
        [("dark:x", "real:dark:x"), ("real:dark:x", "real:real:dark:x"), (&*hash, &*escaped), ("x", "x")]
    {
        let plan = self::plan(&yaml.replace("key: x", &format!("key: '{name}'")));
        let mut real = Harness::of_api(&plan);
        real.rest();
        assert_eq!(real.locks(), [(held.to_owned(), None)]);
    }
    let mut rehearsed = Harness::new(&plan, Mode::Rehearse, json!({}));
    rehearsed.rest();
    assert_eq!((rehearsed.status(), rehearsed.locks().len()), (RunStatus::Completed, 0));
}

#[test]
fn an_item_that_is_struck_out_while_it_waits_for_its_lock_leaves_the_queue_and_never_begins() {
    let plan = plan(
        "
workflow: w
steps:
  take:
    for_each: ${request.body.items}
    concurrency: 2
    call: POST ${services.stock}/take
    body: { n: '${item}' }
    risk: high
    retry: { attempts: 1, base: 1s, max: 1s }
    lock: { key: 'sku:${item}', busy: wait }
respond: { status: 200 }
",
    );
    let mut harness = Harness::of_api(&plan);
    harness.rest();
    harness.answers("ann", items(&[0, 1, 2], &[])).unwrap();
    assert_eq!(harness.locks(), [("sku:1".to_owned(), Some(0)), ("sku:2".to_owned(), Some(1))]);
    // Nothing has begun, so all items are asked about again before the first. Item 1 is still in a queue.
    let input = Arc::new(json!({ "n": 7 }));
    harness.order_by("ann", Order::Adjust { step: "take".into(), item: Some(0), input, reason: None }).unwrap();
    harness.lock("take", Some(0), LockSeen::First).unwrap();
    assert!(harness.sent.is_empty());
    harness.answers("ann", items(&[0, 2], &[1])).unwrap();
    assert_eq!(left(&harness), 1);
    harness.replies("take", Some(0), ok(json!(1)));
    harness.lock("take", Some(2), LockSeen::First).unwrap();
    harness.replies("take", Some(2), ok(json!(3)));
    assert_eq!((harness.status(), left(&harness)), (RunStatus::Completed, 3));
    assert_eq!(harness.sent.iter().map(|sent| sent.1).collect::<Vec<_>>(), [Some(0), Some(2)]);
}
