//! Runs that wait for people, signals and the end of a freeze, and what is said to them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};

use super::kit::{Bench, React, World, answer, checked, refused, request, start};
use super::through::counting;
use crate::engine::OrderError;
use crate::flag::{Freeze, RetryKey};
use crate::limits::Limits;
use crate::names::RunId;
use crate::workflow::{CheckpointAnswer, Event, Mode, Order, Plan, Refusal, RunStatus, WaitEvent};

fn asks(steps: Value, respond: Value) -> Arc<Plan> {
    checked(&json!({ "workflow": "w", "steps": steps, "respond": respond }), false)
}

fn plan() -> Arc<Plan> {
    let steps = json!({
        "ok": { "checkpoint": { "question": "Shall it go?" } },
        "go": { "needs": ["ok"], "call": "POST ${services.world}/go" },
    });
    asks(steps, json!({ "status": 201, "body": { "run": "${run.id}" } }))
}

async fn world() -> Arc<World> {
    World::new(|_, _| React::Json(200, json!({}))).await
}

/// Says yes to the one open question.
async fn yes(bench: &Bench, run: RunId) -> Result<crate::workflow::RunSummary, OrderError> {
    let (checkpoint, _) = bench.store.run(run).await.unwrap().unwrap().checkpoint.expect("it asks");
    let said = CheckpointAnswer { approve: true, values: None, approved: Vec::new(), struck: Vec::new(), note: None };
    bench.engine.order(run, Order::Answer { checkpoint, said }, "ann".into()).await
}

#[tokio::test]
async fn a_run_that_asks_rests_and_goes_on_with_the_answer_in_the_next_process_too() {
    let (world, (store, asked)) = (world().await, counting());
    let mut bench = Bench::over(&world, plan(), store, Limits::default(), None).await;
    for restart in [false, true] {
        let run = start(&bench, json!({})).await.run;
        assert_eq!(bench.ended(run).await.status, RunStatus::WaitingCheckpoint);
        bench.rests(run).await;
        if restart {
            bench.crash().await;
            assert_eq!(bench.recover().await.resumed, 0);
        }
        assert!(!bench.engine.core.schedule.timers.will_wake(run), "nothing of it is kept in memory");
        let explained = bench.engine.explain(run).await.unwrap();
        assert!(!explained.stuck && explained.sentence.contains("Shall it go?"), "{explained:?}");
        tokio::time::sleep(Duration::from_millis(50)).await; // what is looked at once, at the start
        let before = asked.load(Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(asked.load(Ordering::SeqCst), before);
        let after = yes(&bench, run).await.unwrap();
        assert_ne!(after.status, RunStatus::WaitingCheckpoint);
        assert_eq!(bench.ended(run).await.status, RunStatus::Completed);
    }
    assert_eq!(world.seen().len(), 2);
    assert!(bench.engine.stuck().is_empty());
}

#[tokio::test]
async fn of_many_answers_one_counts_and_the_others_hear_of_it() {
    let world = world().await;
    let bench = Bench::new(&world, plan()).await;
    let run = start(&bench, json!({})).await.run;
    bench.ended(run).await;
    let all = futures_util::future::join_all((0..20).map(|_| yes(&bench, run))).await;
    assert_eq!(all.iter().filter(|said| said.is_ok()).count(), 1, "{all:?}");
    let others = all.iter().filter_map(|said| said.as_ref().err());
    for other in others {
        let OrderError::Refused { refusal, .. } = other else { panic!("{other:?}") };
        assert!(matches!(refusal, Refusal::AnsweredBefore { .. } | Refusal::Ended), "{refusal:?}");
    }
    assert_eq!(bench.ended(run).await.status, RunStatus::Completed);
    assert_eq!(world.seen().len(), 1);
}

#[tokio::test]
async fn a_caller_does_not_wait_for_a_person_and_its_retry_gets_the_answer() {
    let world = world().await;
    let bench = Bench::new(&world, plan()).await;
    let mut asked = request("w", Mode::Real, &json!({}));
    asked.retry_key = Some(RetryKey([4; 32]));
    let (problem, report) = refused(bench.ask(asked.clone()).await);
    assert_eq!((problem.status, problem.shared_step_begun), (503, Some(false)));
    let run = report.run.unwrap();
    bench.rests(run).await;
    assert_eq!(refused(bench.ask(asked.clone()).await).0.run, Some(run), "a retry while it waits");
    yes(&bench, run).await.unwrap();
    bench.ended(run).await;
    let (status, body, _) = answer(bench.ask(asked).await);
    assert_eq!((status, &body["run"]), (201, &json!(run.0.simple().to_string())));
}

#[tokio::test]
async fn a_run_is_paused_in_flight_and_goes_on_from_there() {
    let world = World::new(|seen, _| match seen.path.as_str() {
        "/a" => React::Gated(200, json!({})),
        _ => React::Json(200, json!({})),
    })
    .await;
    let steps = json!({
        "a": { "call": "POST ${services.world}/a" },
        "b": { "needs": ["a"], "call": "POST ${services.world}/b" },
    });
    let mut bench = Bench::new(&world, asks(steps, json!({ "status": 200 }))).await;
    let run = start(&bench, json!({})).await.run;
    world.has_seen(1).await;
    let paused = bench.engine.order(run, Order::Pause { reason: None }, "ann".into()).await.unwrap();
    assert_eq!(paused.status, RunStatus::Paused);
    let again = bench.engine.order(run, Order::Pause { reason: None }, "bob".into()).await;
    assert!(matches!(again, Err(OrderError::Refused { refusal: Refusal::NotApplicable(_), .. })), "{again:?}");
    world.open_gate();
    bench.rests(run).await;
    assert_eq!(world.paths(), ["POST /a"], "what is under way ends, and nothing begins");
    bench.crash().await;
    assert_eq!(bench.recover().await.resumed, 0);
    bench.engine.order(run, Order::Resume { reason: None }, "ann".into()).await.unwrap();
    assert_eq!(bench.ended(run).await.status, RunStatus::Completed);
    assert_eq!(world.paths(), ["POST /a", "POST /b"]);
}

#[tokio::test]
async fn a_signal_finds_a_run_that_waits_for_it() {
    let world = world().await;
    let steps = json!({ "paid": { "wait": { "signal": "paid", "where": "${signal.sum >= 7}", "timeout": "1h" } } });
    let bench = Bench::new(&world, asks(steps, json!({ "status": 200, "body": "${steps.paid.output}" }))).await;
    let run = start(&bench, json!({})).await.run;
    assert_eq!(bench.ended(run).await.status, RunStatus::WaitingSignal);
    bench.rests(run).await;
    for sum in [1, 7] {
        let order = Order::Signal { name: "paid".into(), payload: Arc::new(json!({ "sum": sum })), id: None };
        bench.engine.order(run, order, "bank".into()).await.unwrap();
        bench.rests(run).await;
    }
    assert_eq!(bench.ended(run).await.status, RunStatus::Completed);
}

#[tokio::test]
async fn a_freeze_holds_effects_without_a_task_and_its_end_lets_them_go() {
    let world = world().await;
    let bench =
        Bench::new(&world, asks(json!({ "a": { "call": "POST ${services.world}/a" } }), json!({ "status": 200 })))
            .await;
    bench.engine.freeze(1, Freeze::Effects).await;
    let run = start(&bench, json!({})).await.run;
    bench.rests(run).await;
    assert!(bench.engine.stuck().is_empty() && world.seen().is_empty());
    let explained = bench.engine.explain(run).await.unwrap();
    assert!(!explained.stuck && explained.waits.iter().any(|wait| wait.contains("froz")), "{explained:?}");
    bench.engine.freeze(2, Freeze::No).await;
    assert_eq!(bench.ended(run).await.status, RunStatus::Completed);
}

#[tokio::test]
async fn a_long_wait_is_a_time_in_the_store_and_a_short_one_is_over_soon() {
    let world = world().await;
    let steps = json!({ "short": { "wait": "30ms" }, "long": { "needs": ["short"], "wait": "1h" } });
    let bench = Bench::new(&world, asks(steps, json!({ "status": 200 }))).await;
    let run = start(&bench, json!({})).await.run;
    let look = async {
        let began = |events: Vec<Event>| {
            events.iter().filter(|event| matches!(event, Event::Wait(WaitEvent::Began { .. }))).count()
        };
        while began(bench.events(run).await) < 2 || bench.engine.core.schedule.mailboxes.has_task(run) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(super::kit::PATIENCE, look).await.unwrap();
    assert_eq!(bench.engine.core.schedule.timers.len(), 1);
    let wake = bench.store.run(run).await.unwrap().unwrap().wake.unwrap();
    assert!(wake.duration_since(jiff::Timestamp::now()).as_secs() > 3_500);
}
