//! Locks: who stands in line, who holds, who gives up.

use super::kit::plan;
use super::*;
use crate::workflow::{Choice, ConflictKind, Knot, LockSeen, Order};

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

pub(super) fn knot(holder: RunId, waiter: RunId) -> Knot {
    Knot { holder, holds: "a".into(), waiter, wants: "b".into() }
}

fn left(bench: &Bench<'_>) -> usize {
    bench.kinds().iter().filter(|kind| **kind == "lock_left").count()
}

#[test]
fn a_step_begins_when_it_holds_its_lock_and_leaves_it_when_it_ends() {
    let plan = locked("wait");
    let mut bench = Bench::of_api(&plan);
    bench.rest();
    assert_eq!(bench.locks(), [("sku:1".to_owned(), Some(0)), ("sku:2".to_owned(), Some(1))]);
    assert_eq!(bench.causes(), ["lock", "lock"]);
    assert!(bench.lock("take", Some(0), behind()).is_err());
    bench.lock("take", Some(1), LockSeen::First).unwrap();
    assert_eq!(bench.flying(), ["take[1]"], "a later item need not wait for an earlier one");
    bench.replies("take", Some(1), ok(json!(2)));
    assert_eq!((left(&bench), bench.locks().len()), (1, 2));
    bench.lock("take", Some(0), LockSeen::First).unwrap();
    bench.says("ann", Order::Pause { reason: None }).unwrap();
    assert_eq!(left(&bench), 2, "one that does not hold its lock leaves the queue");
    bench.says("ann", Order::Resume { reason: None }).unwrap();
    bench.lock("take", Some(2), LockSeen::First).unwrap();
    bench.replies("take", Some(0), ok(json!(1)));
    bench.replies("take", Some(2), ok(json!(3)));
    assert_eq!((bench.status(), left(&bench)), (RunStatus::Completed, 4));
    let mut bench = Bench::of_api(&plan);
    bench.rest();
    bench.lock("take", Some(0), LockSeen::First).unwrap();
    bench.replies("take", Some(0), status(404));
    assert_eq!((bench.status(), left(&bench)), (RunStatus::Failed, 2), "nothing is held beyond the end");
}

#[test]
fn a_lock_that_is_held_skips_cancels_or_asks() {
    let skip = locked("skip");
    let mut bench = Bench::of_api(&skip);
    bench.rest();
    bench.lock("take", Some(0), behind()).unwrap();
    bench.lock("take", Some(1), LockSeen::First).unwrap();
    bench.replies("take", Some(1), ok(json!(2)));
    bench.lock("take", Some(2), behind()).unwrap();
    assert_eq!(bench.run.answer().unwrap().body.value(), json!([null, 2, null]));
    let cancel = locked("cancel");
    let mut bench = Bench::of_api(&cancel);
    bench.rest();
    bench.lock("take", Some(0), behind()).unwrap();
    assert_eq!((bench.status(), left(&bench)), (RunStatus::Cancelled, 2));
    let ask = locked("ask");
    let mut bench = Bench::of_api(&ask);
    bench.rest();
    bench.lock("take", Some(0), behind()).unwrap();
    assert_eq!(bench.run.conflict().unwrap().choices, ["wait", "skip", "cancel"]);
    let resolve = |choice| Order::Resolve { step: "take".into(), item: Some(0), choice, reason: None };
    bench.says("ann", resolve(Choice::Wait)).unwrap();
    assert!(bench.lock("take", Some(0), behind()).is_err(), "nobody is asked twice");
    bench.lock("take", Some(0), LockSeen::First).unwrap();
    assert_eq!(bench.flying(), ["take[0]"]);
    let mut bench = Bench::of_api(&ask);
    bench.rest();
    let knots = vec![knot(RunId(uuid::Uuid::from_u128(9)), bench.run.id())];
    bench.lock("take", Some(1), LockSeen::Deadlock { knots: knots.clone() }).unwrap();
    let conflict = bench.run.conflict().unwrap();
    assert_eq!(conflict.kind, ConflictKind::Deadlock);
    let says =
        format!("{} holds `a`, and {}, which it began, wants `b`", RunId(uuid::Uuid::from_u128(9)), bench.run.id());
    assert!(conflict.message.contains(&says), "{}", conflict.message);
    let resolve = |choice| Order::Resolve { step: "take".into(), item: Some(1), choice, reason: None };
    bench.says("ann", resolve(Choice::Wait)).unwrap();
    assert_eq!((bench.status(), bench.locks().len()), (RunStatus::Running, 2), "both stand in line anew");
    bench.lock("take", Some(1), LockSeen::Deadlock { knots }).unwrap();
    assert_eq!(bench.status(), RunStatus::Paused, "it is still so: to wait for it silently would hide it");
    bench
        .says("ann", Order::Resolve { step: "take".into(), item: Some(1), choice: Choice::Skip, reason: None })
        .unwrap();
    assert_eq!((left(&bench), bench.status()), (4, RunStatus::Running));
}

/// Others need not wait until a person has decided over something else.
#[test]
fn a_run_that_pauses_over_a_conflict_stands_in_nobodys_way() {
    let plan = plan(
        "
workflow: w
steps:
  a: { call: 'POST ${services.stock}/a' }
  b: { call: 'POST ${services.stock}/b', lock: { key: x } }
respond: { status: 200 }
",
    );
    let mut bench = Bench::of_api(&plan);
    bench.rest();
    assert_eq!((bench.locks().len(), bench.flying()), (1, vec!["a".to_owned()]));
    bench.replies("a", None, status(409));
    assert_eq!((bench.status(), left(&bench)), (RunStatus::Paused, 1));
    let resolve = Order::Resolve { step: "a".into(), item: None, choice: Choice::Skip, reason: None };
    bench.says("ann", resolve).unwrap();
    assert_eq!(bench.locks(), [("x".to_owned(), None)], "it stands in line anew");
    let note = |bench: &Bench<'_>| {
        let seen = crate::workflow::view(bench.events.iter().map(|event| (bench.now, event))).unwrap();
        seen.steps.into_iter().find(|step| step.step.as_str() == "b").unwrap().note
    };
    assert_eq!(note(&bench).as_deref(), Some("it waits for the lock `x`"));
    bench.lock("b", None, LockSeen::First).unwrap();
    assert_eq!(note(&bench), None, "it has it");
    bench.replies("b", None, ok(json!(1)));
    assert_eq!(bench.status(), RunStatus::Completed);
    // What it holds it keeps: its call is under way.
    let mut bench = Bench::of_api(&plan);
    bench.rest();
    bench.lock("b", None, LockSeen::First).unwrap();
    bench.replies("a", None, status(409));
    assert_eq!((bench.status(), left(&bench), bench.flying()), (RunStatus::Paused, 0, vec!["b".to_owned()]));
}

/// A look that began before a pause may end after the run has stood in line anew, behind others.
#[test]
fn what_was_seen_of_an_earlier_place_in_a_queue_gives_no_lock() {
    let plan = locked("wait");
    let mut bench = Bench::of_api(&plan);
    bench.rest();
    let place = |bench: &Bench<'_>| bench.run.interactions.place(&"take".into(), Some(0)).unwrap().queued;
    let before = place(&bench);
    bench.says("ann", Order::Pause { reason: None }).unwrap();
    bench.says("ann", Order::Resume { reason: None }).unwrap();
    let (step, queued) = (bench.plan.step(&"take".into()).unwrap().0, place(&bench));
    assert_ne!(before, queued);
    let seen = |queued| Command::LockSeen { step, item: Some(0), queued, seen: LockSeen::First };
    assert!(bench.ask(seen(before)).is_err());
    assert!(bench.flying().is_empty());
    bench.ask(seen(queued)).unwrap();
}

#[test]
fn a_service_that_says_locked_is_treated_as_a_lock() {
    for (busy, then) in [("skip", "skipped"), ("cancel", "cancelled"), ("wait", "waits"), ("ask", "asked")] {
        let plan = locked(busy);
        let mut bench = Bench::of_api(&plan);
        bench.rest();
        bench.lock("take", Some(0), LockSeen::First).unwrap();
        bench.replies("take", Some(0), status(423));
        match then {
            "skipped" => assert!(bench.kinds().contains(&"step_skipped")),
            "cancelled" => assert_eq!(bench.status(), RunStatus::Cancelled),
            "waits" => {
                for _ in 0..5 {
                    bench.seconds(2);
                    assert_eq!(bench.flying(), ["take[0]"], "no attempt is used up");
                    bench.replies("take", Some(0), status(423));
                }
                bench.seconds(2);
                bench.replies("take", Some(0), ok(json!(1)));
                assert_ne!(bench.status(), RunStatus::Failed);
            }
            _ => {
                assert_eq!(bench.run.conflict().map(|c| c.kind), Some(ConflictKind::Busy));
                let wait = Order::Resolve { step: "take".into(), item: Some(0), choice: Choice::Wait, reason: None };
                bench.says("ann", wait).unwrap();
                bench.seconds(2);
                assert_eq!(bench.flying(), ["take[0]"]);
            }
        }
    }
}

#[test]
fn locks_beside_legacy_have_names_of_their_own() {
    let yaml = "
workflow: w
steps: { a: { call: 'POST ${services.stock}/a', effect: private, lock: { key: x } } }
respond: { status: 200 }
";
    let plan = plan(yaml);
    let mut dark = Bench::new(&plan, Mode::Dark, json!({}));
    dark.rest();
    assert_eq!(dark.locks(), [("dark:x".to_owned(), None)]);
    let mut rehearsed = Bench::new(&plan, Mode::Rehearse, json!({}));
    rehearsed.rest();
    assert_eq!((rehearsed.status(), rehearsed.locks().len()), (RunStatus::Completed, 0));
}
