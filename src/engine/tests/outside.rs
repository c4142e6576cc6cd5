//! What a run sees of the world beside it, and what it says of itself, while the store is slow.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::kit::{Bench, PATIENCE, React, World, checked, request, start};
use super::through;
use crate::engine::OrderError;
use crate::engine::Start;
use crate::exchange::ArmReply;
use crate::limits::Limits;
use crate::store::Work;
use crate::workflow::testing::PlanBuilder;
use crate::workflow::{AnswerEvent, Choice, Event, Mode, Order, Plan, RunStatus};

async fn soon(what: &str, mut is: impl AsyncFnMut() -> bool) {
    let look = async {
        while !is().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, look).await.unwrap_or_else(|_| panic!("{what}"));
}

/// One holds a lock in a plain call, and waits in another step: that is no reason for anybody to stop.
#[tokio::test]
async fn a_step_beside_the_one_that_waits_keeps_nobody_waiting_for_ever() {
    let inner = checked(
        &json!({
            "workflow": "inner",
            "steps": { "x": { "call": "POST ${services.world}/x", "lock": { "key": "${request.body.key}" } } },
            "respond": { "status": 200, "body": {} },
        }),
        false,
    );
    let one = checked(
        &json!({
            "workflow": "w",
            "steps": { "sub": { "run": "inner", "input": { "key": "two" }, "lock": { "key": "one" } } },
            "respond": { "status": 200, "body": {} },
        }),
        false,
    );
    let two = checked(
        &json!({
            "workflow": "other",
            "steps": {
                "hold": { "call": "POST ${services.world}/hold", "lock": { "key": "two" } },
                "go": { "wait": { "signal": "go" } },
                "sub": { "needs": ["go"], "run": "inner", "input": { "key": "one" } },
            },
            "respond": { "status": 200, "body": {} },
        }),
        false,
    );
    let world = World::new(|seen, _| match seen.path.as_str() {
        "/hold" => React::Gated(200, json!({})),
        _ => React::Json(200, json!({})),
    })
    .await;
    let bench = Bench::new(&world, one).await;
    bench.with(&[&inner, &two]);
    let ask = Start { workflow: "other".into(), input: json!({}), by: "test".into(), key: None };
    let second = bench.engine.start(ask).await.unwrap().run;
    world.has_seen(1).await;
    let first = start(&bench, json!({})).await.run;
    let queued = async |count| bench.store.locks(None, 10).await.unwrap().len() == count;
    soon("the first one's child stands in line", async || queued(3).await).await;
    let go = Order::Signal { name: "go".into(), payload: Arc::new(json!({})), id: None };
    bench.engine.order(second, go, "ann".into()).await.unwrap();
    soon("the second one's child stands in line", async || queued(4).await).await;
    soon("all rest", async || {
        bench.runs().await.iter().filter(|run| bench.engine.core.schedule.mailboxes.has_task(run.run_id)).count() == 1
    })
    .await;
    assert!(bench.runs().await.iter().all(|run| run.status != RunStatus::Paused), "{:#?}", bench.runs().await);
    world.open_gate();
    for run in [first, second] {
        assert_eq!(bench.ended(run).await.status, RunStatus::Completed);
    }
}

/// Somebody decides over a conflict tomorrow: whoever wants the same lock does not wait for that.
#[tokio::test]
async fn a_paused_run_lets_others_have_the_lock() {
    let plan = checked(
        &json!({
            "workflow": "w",
            "steps": {
                "a": { "call": "POST ${services.world}/a/${request.body.n}" },
                "b": { "call": "POST ${services.world}/b/${request.body.n}", "lock": { "key": "shelf" } },
            },
            "respond": { "status": 200, "body": {} },
        }),
        false,
    );
    let world = World::new(|seen, _| match seen.path.as_str() {
        "/a/2" => React::Json(409, json!({})),
        "/b/1" => React::Gated(200, json!({})),
        _ => React::Json(200, json!({})),
    })
    .await;
    let bench = Bench::new(&world, plan).await;
    let first = start(&bench, json!({ "n": 1 })).await.run;
    world.has_seen(2).await;
    let second = start(&bench, json!({ "n": 2 })).await.run;
    assert_eq!(bench.ended(second).await.status, RunStatus::Paused);
    let third = start(&bench, json!({ "n": 3 })).await.run;
    bench.rests(third).await;
    world.open_gate();
    assert_eq!(bench.ended(first).await.status, RunStatus::Completed);
    assert_eq!(bench.ended(third).await.status, RunStatus::Completed);
    let skip = Order::Resolve { step: "a".into(), item: None, choice: Choice::Skip, reason: None };
    bench.engine.order(second, skip, "ann".into()).await.unwrap();
    soon("the second one has its turn", async || {
        bench.store.run(second).await.unwrap().unwrap().status == RunStatus::Completed
    })
    .await;
}

fn two_steps() -> Arc<Plan> {
    PlanBuilder::new()
        .call("a", &[], "POST /a", json!({}))
        .call("b", &["a"], "POST /b", json!({}))
        .respond(200, json!({}))
        .build("w")
}

/// A second thing is asked while the first one is being read.
#[tokio::test]
async fn what_is_asked_while_others_are_read_is_read_too() {
    let world = World::new(|_, _| React::Gated(200, json!({}))).await;
    let store = through::shared();
    let limits = Limits { sweep_ms: 60_000, order_wait_ms: 3_000, ..Limits::default() };
    let mover = Bench::over(&world, two_steps(), store.clone(), limits.clone(), None).await;
    let other = Bench::over(&world, two_steps(), store.clone(), limits, None).await;
    mover.recover().await;
    other.recover().await;
    let run = start(&mover, json!({})).await.run;
    world.has_seen(1).await;
    store.orders.shut();
    let other = Arc::new(other);
    let ask = |order: Order| {
        let other = other.clone();
        tokio::spawn(async move { other.engine.order(run, order, "ann".into()).await })
    };
    let first = ask(Order::Pause { reason: None });
    store.orders.came(1).await;
    let second = ask(Order::Signal { name: "go".into(), payload: Arc::default(), id: None });
    soon("the second is asked", async || {
        // Read beside the gate.
        let asked = store.look(run).await;
        asked == 2
    })
    .await;
    tokio::time::sleep(Duration::from_millis(50)).await; // the mover has heard that there is something
    store.orders.pass(1_000);
    assert_eq!(first.await.unwrap().map(|run| run.status), Ok(RunStatus::Paused));
    let second = second.await.unwrap();
    assert!(!matches!(second, Err(OrderError::Store { .. })), "{second:?}");
}

/// A run's pause is on its way to the disk when its time is over: nobody hears of an answer that is not there.
#[tokio::test]
async fn nobody_is_told_what_is_not_on_disk() {
    let plan = checked(
        &json!({
            "workflow": "w",
            "deadline": "200ms",
            "steps": { "a": { "call": "POST ${services.world}/a", "on_conflict": "pause" } },
            "respond": [{ "status": 200, "body": {} }, { "when": "${failed != null}", "status": 504, "body": { "late": true } }],
        }),
        false,
    );
    let world = World::new(|_, _| React::Gated(409, json!({}))).await;
    let store = through::gated();
    let bench = Bench::over(&world, plan, store.clone(), Limits::default(), None).await;
    let asked = bench.ask(request("w", Mode::Real, &json!({})));
    let script = async {
        world.has_seen(1).await;
        store.appends.shut();
        world.open_gate();
        store.appends.came(1).await;
        tokio::time::sleep(Duration::from_millis(400)).await; // its deadline passes
        store.appends.pass(1);
        store.appends.came(2).await; // what came of that
        tokio::time::sleep(Duration::from_millis(50)).await;
        let run = bench.runs().await[0].run_id;
        let known = bench.events(run).await;
        store.appends.pass(1_000);
        known
    };
    let told = async {
        let reply = asked.await;
        (reply, bench.runs().await[0].run_id)
    };
    let ((reply, run), _) = tokio::join!(told, script);
    let events = bench.events(run).await;
    let answered = events.iter().any(|event| matches!(event, Event::Answer(AnswerEvent::Responded { .. })));
    match reply {
        ArmReply::Answer(answer) => assert!(answered, "{} is told and not written: {events:?}", answer.status),
        ArmReply::Refused(problem, _) => assert_eq!(problem.kind, "run-paused"),
        other => panic!("{other:?}"),
    }
}

/// A call waits for its turn at a service while the store hears nothing of this process: by then the run may be moved by
/// another one, which asks and sends too.
#[tokio::test]
async fn a_call_whose_turn_comes_after_the_lease_does_not_leave() {
    let plan = checked(
        &json!({
            "workflow": "w",
            "steps": { "a": { "call": "POST ${services.world}/a/${request.body.n}", "timeout": "9s" } },
            "respond": { "status": 200, "body": {} },
        }),
        false,
    );
    let world = World::new(|seen, _| match seen.path.as_str() {
        "/a/1" => React::Gated(200, json!({})),
        _ => React::Json(200, json!({})),
    })
    .await;
    let store = through::shared();
    let limits = Limits { lease_ms: 300, sweep_ms: 60_000, ..Limits::default() };
    let bench = Bench::over(&world, plan, store.clone(), limits, None).await;
    bench.calls_max(1);
    bench.recover().await;
    let first = start(&bench, json!({ "n": 1 })).await.run;
    world.has_seen(1).await;
    let second = start(&bench, json!({ "n": 2 })).await.run;
    let begun = |events: &[Event]| events.iter().filter(|event| matches!(event, Event::StepStarted(_))).count();
    soon("the second waits for its turn", async || begun(&bench.events(second).await) == 1).await;
    store.beats.shut();
    tokio::time::sleep(Duration::from_millis(450)).await; // longer than its lease
    world.open_gate();
    assert_eq!(bench.ended(first).await.status, RunStatus::Completed);
    soon("it says so", async || {
        bench.events(second).await.iter().any(|event| matches!(event, Event::RetryScheduled(_)))
    })
    .await;
    assert_eq!(world.paths(), ["POST /a/1"], "the second never left");
    store.beats.pass(1_000);
    assert_eq!(bench.ended(second).await.status, RunStatus::Completed, "no attempt was used up");
    assert_eq!(world.paths(), ["POST /a/1", "POST /a/2"]);
}

/// Another process took a run and is gone, and this one takes it back while its own task still waits for a reply: what
/// that task would append is refused, so the run is read anew and goes on at once.
#[tokio::test]
async fn a_run_that_comes_back_is_not_left_to_the_task_that_lost_it() {
    let plan = PlanBuilder::new().call("a", &[], "GET /a", json!({})).respond(200, json!({})).build("w");
    let world =
        World::new(|_, nth| if nth == 0 { React::Gated(200, json!({})) } else { React::Json(200, json!({})) }).await;
    let store = through::shared();
    let limits = Limits { lease_ms: 120_000, sweep_ms: 20, ..Limits::default() };
    let bench = Bench::over(&world, plan, store.clone(), limits, None).await;
    bench.recover().await;
    let run = start(&bench, json!({})).await.run;
    world.has_seen(1).await;
    store.dies(bench.engine.core.schedule.worker);
    let taken = store.take(crate::names::WorkerId(uuid::Uuid::from_u128(7)), run).await.unwrap();
    assert!(matches!(taken, crate::store::TakeResult::Taken(_)), "{taken:?}");
    assert_eq!(bench.ended(run).await.status, RunStatus::Completed, "the first reply never comes");
    assert_eq!(world.paths(), ["GET /a", "GET /a"]);
}

/// Who asks something of a run whose last event was lost hears so at once, and does not wait for a mover that cannot be.
#[tokio::test]
async fn a_run_whose_last_event_is_lost_says_so() {
    let plan = checked(
        &json!({
            "workflow": "w",
            "steps": { "a": { "wait": { "signal": "go" } } },
            "respond": { "status": 200, "body": {} },
        }),
        false,
    );
    let world = World::new(|_, _| React::Json(200, json!({}))).await;
    let store = through::gated();
    let bench = Bench::over(&world, plan, store.clone(), Limits::default(), None).await;
    let run = start(&bench, json!({})).await.run;
    bench.rests(run).await;
    store.forgets.store(true, std::sync::atomic::Ordering::SeqCst);
    let go = Order::Signal { name: "go".into(), payload: Arc::default(), id: None };
    let said = bench.engine.order(run, go, "ann".into()).await;
    let Err(OrderError::Unreadable(why)) = said else { panic!("{said:?}") };
    assert!(why.contains("its row says that it has 2 events; there are 1") && why.contains("store check"), "{why}");
    assert_eq!(bench.engine.stuck().len(), 1);
}
