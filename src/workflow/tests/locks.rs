//! Locks: queueing, holding, releasing, and deadlocks.

use super::harness::plan;
use super::people_harness::review;
use super::*;
use crate::workflow::ControlCommand::{Adjust, Resolve};
use crate::workflow::{Choice, ConflictKind, ControlCommand, LockPosition, StepPart, StepStatus, WaitLink};

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

fn held_by_other() -> LockPosition {
    LockPosition::Behind { holder: RunId(uuid::Uuid::from_u128(9)) }
}

pub(super) fn wait_link(holder: RunId, waiter: RunId) -> WaitLink {
    WaitLink { holder, holds: "a".into(), waiter, wants: "b".into() }
}

fn left_events(harness: &Harness<'_>) -> usize {
    harness.kinds().iter().filter(|kind| **kind == "lock_left").count()
}

#[test]
fn a_step_begins_when_it_holds_its_lock_and_releases_it_when_it_ends() {
    let plan = locked("wait");
    let mut harness = Harness::of_api(&plan);
    harness.perform_due();
    assert_eq!(harness.awaited_locks(), [("sku:1".to_owned(), Some(0)), ("sku:2".to_owned(), Some(1))]);
    assert_eq!(harness.causes(), ["lock", "lock"]);
    assert!(harness.see_lock("take", Some(0), held_by_other()).is_err());
    harness.see_lock("take", Some(1), LockPosition::First).unwrap();
    assert_eq!(harness.in_flight_names(), ["take[1]"], "a later item need not wait for an earlier one");
    harness.replies("take", Some(1), ok(json!(2)));
    assert_eq!((left_events(&harness), harness.awaited_locks().len()), (1, 2));
    harness.see_lock("take", Some(0), LockPosition::First).unwrap();
    harness.give_command_by("ann", ControlCommand::Pause { reason: None }).unwrap();
    assert_eq!(left_events(&harness), 2, "a step that does not hold its lock leaves the queue");
    harness.give_command_by("ann", ControlCommand::Resume { reason: None }).unwrap();
    harness.see_lock("take", Some(2), LockPosition::First).unwrap();
    harness.replies("take", Some(0), ok(json!(1)));
    harness.replies("take", Some(2), ok(json!(3)));
    assert_eq!((harness.status(), left_events(&harness)), (RunStatus::Completed, 4));
    let mut harness = Harness::of_api(&plan);
    harness.perform_due();
    harness.see_lock("take", Some(0), LockPosition::First).unwrap();
    harness.replies("take", Some(0), status(404));
    assert_eq!((harness.status(), left_events(&harness)), (RunStatus::Failed, 2), "a run that has ended holds no lock");
}

#[test]
fn a_lock_that_is_held_skips_cancels_or_asks() {
    let skip = locked("skip");
    let mut harness = Harness::of_api(&skip);
    harness.perform_due();
    harness.see_lock("take", Some(0), held_by_other()).unwrap();
    harness.see_lock("take", Some(1), LockPosition::First).unwrap();
    harness.replies("take", Some(1), ok(json!(2)));
    harness.see_lock("take", Some(2), held_by_other()).unwrap();
    assert_eq!(harness.run.answer().unwrap().body.value(), json!([null, 2, null]));
    let cancel = locked("cancel");
    let mut harness = Harness::of_api(&cancel);
    harness.perform_due();
    harness.see_lock("take", Some(0), held_by_other()).unwrap();
    assert_eq!((harness.status(), left_events(&harness)), (RunStatus::Cancelled, 2));
    let ask = locked("ask");
    let mut harness = Harness::of_api(&ask);
    harness.perform_due();
    harness.see_lock("take", Some(0), held_by_other()).unwrap();
    assert_eq!(harness.run.conflict().unwrap().choices, ["wait", "skip", "cancel"]);
    let resolve = |choice| Resolve { step: "take".into(), item: Some(0), attempt: None, choice, reason: None };
    harness.give_command_by("ann", resolve(Choice::Wait)).unwrap();
    assert!(harness.see_lock("take", Some(0), held_by_other()).is_err(), "a person has decided that the step waits");
    harness.see_lock("take", Some(0), LockPosition::First).unwrap();
    assert_eq!(harness.in_flight_names(), ["take[0]"]);
    let mut harness = Harness::of_api(&ask);
    harness.perform_due();
    let links = vec![wait_link(RunId(uuid::Uuid::from_u128(9)), harness.run.id())];
    harness.see_lock("take", Some(1), LockPosition::Deadlock { links: links.clone() }).unwrap();
    let conflict = harness.run.conflict().unwrap();
    assert_eq!(conflict.kind, ConflictKind::Deadlock);
    let link =
        format!("{} holds `a`, and {}, which it began, wants `b`", RunId(uuid::Uuid::from_u128(9)), harness.run.id());
    assert!(conflict.message.contains(&link), "{}", conflict.message);
    let resolve = |choice| Resolve { step: "take".into(), item: Some(1), attempt: None, choice, reason: None };
    harness.give_command_by("ann", resolve(Choice::Wait)).unwrap();
    assert_eq!((harness.status(), harness.awaited_locks().len()), (RunStatus::Running, 2), "both items queue again");
    harness.see_lock("take", Some(1), LockPosition::Deadlock { links }).unwrap();
    assert_eq!(harness.status(), RunStatus::Paused, "the deadlock is still there: a person is asked again");
    harness.give_command_by("ann", resolve(Choice::Skip)).unwrap();
    assert_eq!((left_events(&harness), harness.status()), (4, RunStatus::Running));
}

/// A step that waits for a lock must not block other runs while a person decides about something else.
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
    harness.perform_due();
    assert_eq!((harness.awaited_locks().len(), harness.in_flight_names()), (1, vec!["a".to_owned()]));
    harness.replies("a", None, status(409));
    assert_eq!((harness.status(), left_events(&harness)), (RunStatus::Paused, 1));
    let resolve = Resolve { step: "a".into(), item: None, attempt: None, choice: Choice::Skip, reason: None };
    harness.give_command_by("ann", resolve).unwrap();
    assert_eq!(harness.awaited_locks(), [("x".to_owned(), None)], "the step queues again");
    let note = |harness: &Harness<'_>| {
        let seen = crate::workflow::view(harness.events.iter().map(|event| (harness.now, event))).unwrap();
        seen.steps.into_iter().find(|step| step.step.as_str() == "b").unwrap().note
    };
    assert_eq!(note(&harness).as_deref(), Some("it waits for the lock `x`"));
    harness.see_lock("b", None, LockPosition::First).unwrap();
    assert_eq!(note(&harness), None, "the step holds the lock");
    harness.replies("b", None, ok(json!(1)));
    assert_eq!(harness.status(), RunStatus::Completed);
    // The run keeps the lock of a step whose call is under way.
    let mut harness = Harness::of_api(&plan);
    harness.perform_due();
    harness.see_lock("b", None, LockPosition::First).unwrap();
    harness.replies("a", None, status(409));
    assert_eq!(
        (harness.status(), left_events(&harness), harness.in_flight_names()),
        (RunStatus::Paused, 0, vec!["b".to_owned()])
    );
}

/// The run waits for its child to end, perhaps for days. Other runs that want the lock must not wait as long.
#[test]
fn a_run_that_fails_leaves_the_lock_queues_of_steps_that_have_not_begun() {
    let plan = plan(
        "
workflow: w
steps:
  a: { run: child }
  b: { call: 'POST ${services.stock}/b', lock: { key: x } }
  c: { call: 'POST ${services.stock}/c' }
  d: { call: 'POST ${services.stock}/d', lock: { key: other } }
respond: { status: 200 }
",
    );
    let begun = || {
        let mut harness = Harness::started_with(&plan, |started| {
            started.route = None;
            started.until = Some(Timestamp::UNIX_EPOCH + SignedDuration::from_secs(10));
        });
        harness.perform_due();
        harness.see_lock("d", None, LockPosition::First).unwrap();
        assert_eq!(harness.in_flight_names(), ["c", "d"]);
        harness
    };
    let mut failed = begun();
    failed.replies("c", None, status(400));
    let mut out_of_time = begun();
    out_of_time.advance_seconds(10);
    let mut cancelled = begun();
    cancelled.cancel(true).unwrap();
    for mut harness in [failed, out_of_time, cancelled] {
        assert!(harness.run.is_ending() && harness.children().len() == 1, "{:?}", harness.kinds());
        assert_eq!((left_events(&harness), harness.awaited_locks().len()), (1, 0));
        assert_eq!(
            harness.run.held_lock(&"d".into(), None),
            Some("other"),
            "the call that holds this lock is under way"
        );
        harness.replies("d", None, ok(json!({})));
        assert_eq!(left_events(&harness), 2);
    }
}

/// The lock was taken just before the run paused, so its step has not begun.
#[test]
fn a_run_that_fails_gives_up_a_lock_whose_step_has_not_begun() {
    let plan = plan(
        "
workflow: w
steps:
  a: { run: child }
  b: { call: 'POST ${services.stock}/b', lock: { key: x } }
respond: { status: 200 }
",
    );
    let mut harness = Harness::of_api(&plan);
    harness.perform_due();
    let (step, queued) = (plan.step(&"b".into()).unwrap().0, harness.run.interactions.queue_entries.values().next());
    let queued = queued.unwrap().queued;
    harness.command(Command::LockSeen { step, item: None, queued, seen: LockPosition::First }).unwrap();
    harness.give_command_by("ann", ControlCommand::Pause { reason: None }).unwrap();
    assert_eq!((left_events(&harness), harness.run.held_lock(&"b".into(), None)), (0, Some("x")));
    harness.cancel(true).unwrap();
    assert_eq!((left_events(&harness), harness.children().len()), (1, 1));
}

/// A read of the queue that began before a pause may end after the run has queued again, behind others.
#[test]
fn a_reading_of_the_queue_for_an_earlier_entry_is_ignored() {
    let plan = locked("wait");
    let mut harness = Harness::of_api(&plan);
    harness.perform_due();
    let queued_at =
        |harness: &Harness<'_>| harness.run.interactions.queue_entry(&"take".into(), Some(0)).unwrap().queued;
    let before = queued_at(&harness);
    harness.give_command_by("ann", ControlCommand::Pause { reason: None }).unwrap();
    harness.give_command_by("ann", ControlCommand::Resume { reason: None }).unwrap();
    let (step, queued) = (harness.plan.step(&"take".into()).unwrap().0, queued_at(&harness));
    assert_ne!(before, queued);
    let seen = |queued| Command::LockSeen { step, item: Some(0), queued, seen: LockPosition::First };
    assert!(harness.command(seen(before)).is_err());
    assert!(harness.in_flight_names().is_empty());
    harness.command(seen(queued)).unwrap();
}

/// A 503 may come from a proxy after the service has received the request.
#[test]
fn a_status_after_which_the_outcome_is_unknown_is_not_a_held_lock() {
    let pay = |more: &str| {
        plan(&format!(
            "{{ workflow: w, steps: {{ pay: {{ call: 'POST ${{services.bank}}/pay', busy_on: [503], {more} }} }}, respond: {{ status: 200 }} }}"
        ))
    };
    for busy in ["wait", "skip", "cancel"] {
        let plan = pay(&format!("lock: {{ busy: {busy} }}"));
        let mut harness = Harness::of_api(&plan);
        harness.perform_due();
        harness.replies("pay", None, status(503));
        assert_eq!(harness.run.conflict().map(|open| open.kind), Some(ConflictKind::OutcomeUnknown), "{busy}");
    }
    for more in ["not_done: [503], retry: { attempts: 1 }", "effect: read, retry: { attempts: 1 }"] {
        let plan = pay(more);
        let mut harness = Harness::of_api(&plan);
        harness.perform_due();
        for _ in 0..3 {
            harness.replies("pay", None, status(503));
            harness.advance_seconds(2);
            assert_eq!(harness.in_flight_names(), ["pay"], "{more}: the step waits, and no attempt is used up");
        }
    }
}

#[test]
fn a_busy_status_of_a_service_is_treated_as_a_held_lock() {
    for (busy, expected) in [("skip", "skipped"), ("cancel", "cancelled"), ("wait", "waits"), ("ask", "asked")] {
        let plan = locked(busy);
        let mut harness = Harness::of_api(&plan);
        harness.perform_due();
        harness.see_lock("take", Some(0), LockPosition::First).unwrap();
        harness.replies("take", Some(0), status(423));
        match expected {
            "skipped" => assert!(harness.kinds().contains(&"step_skipped")),
            "cancelled" => assert_eq!(harness.status(), RunStatus::Cancelled),
            "waits" => {
                for _ in 0..5 {
                    harness.advance_seconds(2);
                    assert_eq!(harness.in_flight_names(), ["take[0]"], "no attempt is used up");
                    harness.replies("take", Some(0), status(423));
                }
                harness.advance_seconds(2);
                harness.replies("take", Some(0), ok(json!(1)));
                assert_ne!(harness.status(), RunStatus::Failed);
            }
            _ => {
                assert_eq!(harness.run.conflict().map(|c| c.kind), Some(ConflictKind::Busy));
                let (step, choice) = ("take".into(), Choice::Wait);
                let wait = Resolve { step, item: Some(0), attempt: None, choice, reason: None };
                harness.give_command_by("ann", wait).unwrap();
                harness.advance_seconds(2);
                assert_eq!(harness.in_flight_names(), ["take[0]"]);
            }
        }
    }
}

#[test]
fn a_step_whose_items_were_all_skipped_is_not_shown_as_waiting_for_its_lock() {
    let plan = locked("skip");
    let mut harness = Harness::of_api(&plan);
    harness.perform_due();
    let step = |harness: &Harness<'_>| {
        let seen = crate::workflow::view(harness.events.iter().map(|event| (harness.now, event))).unwrap();
        seen.steps.into_iter().find(|step| step.step.as_str() == "take").map(|step| (step.status, step.note)).unwrap()
    };
    assert!(step(&harness).1.is_some_and(|note| note.contains("it waits for the lock")));
    for item in 0..3 {
        harness.see_lock("take", Some(item), held_by_other()).unwrap();
    }
    assert_eq!((harness.status(), step(&harness)), (RunStatus::Completed, (StepStatus::Done, None)));
}

#[test]
fn locks_of_dark_runs_have_separate_names_and_rehearsed_runs_take_none() {
    let yaml = "
workflow: w
steps: { a: { call: 'POST ${services.stock}/a', effect: private, lock: { key: x } } }
respond: { status: 200 }
";
    let plan = plan(yaml);
    let mut dark = Harness::new(&plan, Mode::Dark, json!({}));
    dark.perform_due();
    assert_eq!(dark.awaited_locks(), [("dark:x".to_owned(), None)]);
    // A real run whose lock's name is computed cannot choose the name of a dark run's lock. Nor can it choose a name
    // that looks like the hash of a sensitive name.
    let (hash, escaped) = (format!("sensitive:{}", "0a".repeat(32)), format!("real:sensitive:{}", "0a".repeat(32)));
    for (name, held) in
        [("dark:x", "real:dark:x"), ("real:dark:x", "real:real:dark:x"), (&*hash, &*escaped), ("x", "x")]
    {
        let plan = self::plan(&yaml.replace("key: x", &format!("key: '{name}'")));
        let mut real = Harness::of_api(&plan);
        real.perform_due();
        assert_eq!(real.awaited_locks(), [(held.to_owned(), None)]);
    }
    let mut rehearsed = Harness::new(&plan, Mode::Rehearse, json!({}));
    rehearsed.perform_due();
    assert_eq!((rehearsed.status(), rehearsed.awaited_locks().len()), (RunStatus::Completed, 0));
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
    harness.perform_due();
    harness.answers("ann", review(&[0, 1, 2], &[])).unwrap();
    assert_eq!(harness.awaited_locks(), [("sku:1".to_owned(), Some(0)), ("sku:2".to_owned(), Some(1))]);
    // Nothing has begun, so people are asked about all items again. Item 1 is still in its lock's queue.
    let input = Arc::new(json!({ "n": 7 }));
    harness.give_command_by("ann", Adjust { step: "take".into(), item: Some(0), input, reason: None }).unwrap();
    harness.see_lock("take", Some(0), LockPosition::First).unwrap();
    assert!(harness.sent.is_empty());
    harness.answers("ann", review(&[0, 2], &[1])).unwrap();
    assert_eq!(left_events(&harness), 1);
    harness.replies("take", Some(0), ok(json!(1)));
    harness.see_lock("take", Some(2), LockPosition::First).unwrap();
    harness.replies("take", Some(2), ok(json!(3)));
    assert_eq!((harness.status(), left_events(&harness)), (RunStatus::Completed, 3));
    assert_eq!(harness.sent.iter().map(|sent| sent.1).collect::<Vec<_>>(), [Some(0), Some(2)]);
}

/// To find out whether a failure fails the run, the run is copied. This would take long for each of thousands of items.
#[test]
fn an_item_that_cannot_make_the_run_fail_does_not_copy_it() {
    for (failures, copies) in [("collect", 0), ("stop", 1)] {
        let collects = if failures == "collect" { "failures: collect" } else { "" };
        let plan = plan(&format!(
            "
workflow: w
steps:
  take:
    for_each: ${{request.body.items}}
    concurrency: 3
    {collects}
    call: POST ${{services.stock}}/take
    retry: {{ attempts: 1 }}
    lock: {{ key: all, busy: wait }}
respond: {{ status: 200 }}
"
        ));
        let mut harness = Harness::of_route(&plan);
        harness.perform_due();
        harness.see_lock("take", Some(0), LockPosition::First).unwrap();
        let step = plan.step(&"take".into()).unwrap().0;
        let (item, part, result) = (Some(0), StepPart::Do, status(404));
        let command = Command::Record { step, item, part, attempt: 1, result, may_be_repeat: false, jitter: 0.5 };
        super::super::work_count::take_work();
        decide(&harness.run, &plan, &harness.inputs, command, harness.now).unwrap();
        assert_eq!(super::super::work_count::take_work(), copies, "{failures}");
    }
}
