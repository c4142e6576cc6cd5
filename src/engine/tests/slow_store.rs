//! Locks, commands, answers and leases while the store is slow or has lost events, and calls that wait for their turn.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;

use super::harness::{Harness, ServiceReply, StepService, TIMEOUT, checked_plan, request, start};
use super::test_stores;
use crate::engine::{AdoptionStart, CommandError, Start, StartError};
use crate::exchange::ArmReply;
use crate::flag::Freeze;
use crate::limits::Limits;
use crate::names::RunId;
use crate::store::RunCoordination;
use crate::workflow::testing::PlanBuilder;
use crate::workflow::{Adoption, AnswerEvent, Choice, ControlCommand, Event, Mode, Plan, RunStatus};

async fn wait_for(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let poll = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(TIMEOUT, poll).await.unwrap_or_else(|_| panic!("{what}"));
}

/// A run holds a lock in a plain call, and in an independent step it waits for a child that waits for a lock. The call
/// will end, so this is not a deadlock.
#[tokio::test]
async fn waiting_in_a_step_that_holds_no_lock_is_not_a_deadlock() {
    let inner = checked_plan(
        &json!({
            "workflow": "inner",
            "steps": { "x": { "call": "POST ${services.world}/x", "lock": { "key": "${request.body.key}" } } },
            "respond": { "status": 200, "body": {} },
        }),
        false,
    );
    let one = checked_plan(
        &json!({
            "workflow": "w",
            "steps": { "sub": { "run": "inner", "input": { "key": "two" }, "lock": { "key": "one" } } },
            "respond": { "status": 200, "body": {} },
        }),
        false,
    );
    let two = checked_plan(
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
    let step_service = StepService::new(|seen, _| match seen.path.as_str() {
        "/hold" => ServiceReply::Gated(200, json!({})),
        _ => ServiceReply::Json(200, json!({})),
    })
    .await;
    let harness = Harness::new(&step_service, one).await;
    harness.load_plans(&[&inner, &two]);
    let ask = Start { workflow: "other".into(), input: json!({}), by: "test".into(), key: None };
    let second = harness.engine.start(ask).await.unwrap().run;
    step_service.wait_for_calls(1).await;
    let first = start(&harness, json!({})).await.run;
    let queued = async |count| harness.store.locks(None, 10).await.unwrap().len() == count;
    wait_for("the child of the first run queues for the lock", async || queued(3).await).await;
    let go = ControlCommand::Signal { name: "go".into(), payload: Arc::new(json!({})), id: None };
    harness.engine.give_command(second, go, "ann".into()).await.unwrap();
    wait_for("the child of the second run queues for the lock", async || queued(4).await).await;
    wait_for("all other runs to be suspended", async || {
        harness.runs().await.iter().filter(|run| harness.engine.core.schedule.mailboxes.has_task(run.run_id)).count()
            == 1
    })
    .await;
    assert!(harness.runs().await.iter().all(|run| run.status != RunStatus::Paused), "{:#?}", harness.runs().await);
    step_service.open_gate();
    for run in [first, second] {
        assert_eq!(harness.wait_until_ended_or_awaits_input(run).await.status, RunStatus::Completed);
    }
}

/// A run that is paused by a conflict does not keep others waiting for the lock of its next step.
#[tokio::test]
async fn a_paused_run_does_not_queue_for_a_lock() {
    let plan = checked_plan(
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
    let step_service = StepService::new(|seen, _| match seen.path.as_str() {
        "/a/2" => ServiceReply::Json(409, json!({})),
        "/b/1" => ServiceReply::Gated(200, json!({})),
        _ => ServiceReply::Json(200, json!({})),
    })
    .await;
    let harness = Harness::new(&step_service, plan).await;
    let first = start(&harness, json!({ "n": 1 })).await.run;
    step_service.wait_for_calls(2).await;
    let second = start(&harness, json!({ "n": 2 })).await.run;
    assert_eq!(harness.wait_until_ended_or_awaits_input(second).await.status, RunStatus::Paused);
    let third = start(&harness, json!({ "n": 3 })).await.run;
    harness.wait_until_idle(third).await;
    step_service.open_gate();
    assert_eq!(harness.wait_until_ended_or_awaits_input(first).await.status, RunStatus::Completed);
    assert_eq!(harness.wait_until_ended_or_awaits_input(third).await.status, RunStatus::Completed);
    let skip =
        ControlCommand::Resolve { step: "a".into(), item: None, attempt: None, choice: Choice::Skip, reason: None };
    harness.engine.give_command(second, skip, "ann".into()).await.unwrap();
    wait_for("the second run gets the lock", async || {
        harness.store.run(second).await.unwrap().unwrap().status == RunStatus::Completed
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

/// A second command is stored while the first one is being read.
#[tokio::test]
async fn a_command_that_is_stored_while_commands_are_read_is_read_too() {
    let step_service = StepService::new(|_, _| ServiceReply::Gated(200, json!({}))).await;
    let store = test_stores::shared();
    let limits = Limits { sweep_ms: 60_000, command_wait_ms: 3_000, ..Limits::default() };
    let owner = Harness::with_store(&step_service, two_steps(), store.clone(), limits.clone(), None).await;
    let other = Harness::with_store(&step_service, two_steps(), store.clone(), limits, None).await;
    owner.recover().await;
    other.recover().await;
    let run = start(&owner, json!({})).await.run;
    let later = start(&owner, json!({})).await.run;
    step_service.wait_for_calls(2).await;
    store.commands.shut();
    let other = Arc::new(other);
    let send = |run, command: ControlCommand| {
        let other = other.clone();
        tokio::spawn(async move { other.engine.give_command(run, command, "ann".into()).await })
    };
    let first = send(run, ControlCommand::Pause { reason: None });
    store.commands.wait_for_arrivals(1).await;
    let second = send(run, ControlCommand::Signal { name: "go".into(), payload: Arc::default(), id: None });
    wait_for("the second command is stored", async || store.count_commands_without_gate(run).await == 2).await;
    // Notifications are handled in order. When the engine reads the commands to the later run, it has received the
    // notification of the second command.
    let third = send(later, ControlCommand::Pause { reason: None });
    store.commands.wait_for_arrivals(2).await;
    store.commands.pass(1_000);
    assert_eq!(first.await.unwrap().map(|run| run.status), Ok(RunStatus::Paused));
    let second = second.await.unwrap();
    assert!(!matches!(second, Err(CommandError::Store { .. })), "{second:?}");
    assert_eq!(third.await.unwrap().map(|run| run.status), Ok(RunStatus::Paused));
}

const DEADLINE: Duration = Duration::from_millis(200);
const OBSERVED: Duration = Duration::from_millis(50);

/// The deadline of a run passes while its pause is being appended: the caller gets no answer that is not durable.
#[tokio::test]
async fn no_answer_is_given_before_it_is_durable() {
    let plan = checked_plan(
        &json!({
            "workflow": "w",
            "deadline": format!("{}ms", DEADLINE.as_millis()),
            "steps": { "a": { "call": "POST ${services.world}/a", "on_conflict": "pause" } },
            "respond": [{ "status": 200, "body": {} }, { "when": "${failed != null}", "status": 504, "body": { "late": true } }],
        }),
        false,
    );
    let step_service = StepService::new(|_, _| ServiceReply::Gated(409, json!({}))).await;
    let store = test_stores::gated();
    let harness = Harness::with_store(&step_service, plan, store.clone(), Limits::default(), None).await;
    let script = async {
        step_service.wait_for_calls(1).await;
        let called = Instant::now();
        store.appends.shut();
        step_service.open_gate();
        store.appends.wait_for_arrivals(1).await;
        wait_for("the run's deadline passes", async || called.elapsed() > DEADLINE).await;
        store.appends.pass(1);
        store.appends.wait_for_arrivals(2).await; // the append that follows the deadline
        tokio::time::sleep(OBSERVED).await; // an answer that does not wait for this append comes now
        store.appends.pass(1_000);
    };
    let answered = async {
        let reply = harness.send(request("w", Mode::Real, &json!({}))).await;
        // What is durable at the moment of the reply.
        let run = harness.runs().await[0].run_id;
        (reply, harness.events(run).await)
    };
    let ((reply, events), ()) = tokio::join!(answered, script);
    let answered = events.iter().any(|event| matches!(event, Event::Answer(AnswerEvent::Responded { .. })));
    match reply {
        ArmReply::Answer(answer) => assert!(answered, "{} is answered and not stored: {events:?}", answer.status),
        ArmReply::Refused(problem, _) => assert_eq!(problem.kind, "run-paused"),
        other => panic!("{other:?}"),
    }
}

/// The lease of the process lapses while a call waits for its permit: another process may own the run by then and send
/// the same call.
#[tokio::test]
async fn a_call_whose_permit_comes_after_the_lease_has_lapsed_is_not_sent() {
    let plan = checked_plan(
        &json!({
            "workflow": "w",
            "steps": { "a": { "call": "POST ${services.world}/a/${request.body.n}", "timeout": "9s" } },
            "respond": { "status": 200, "body": {} },
        }),
        false,
    );
    let step_service = StepService::new(|seen, _| match seen.path.as_str() {
        "/a/1" => ServiceReply::Gated(200, json!({})),
        _ => ServiceReply::Json(200, json!({})),
    })
    .await;
    let store = test_stores::shared();
    let limits = Limits { lease_ms: 300, sweep_ms: 60_000, ..Limits::default() };
    let harness = Harness::with_store(&step_service, plan, store.clone(), limits, None).await;
    harness.set_calls_max(1);
    harness.recover().await;
    let first = start(&harness, json!({ "n": 1 })).await.run;
    step_service.wait_for_calls(1).await;
    let second = start(&harness, json!({ "n": 2 })).await.run;
    let started_attempts =
        |events: &[Event]| events.iter().filter(|event| matches!(event, Event::StepStarted(_))).count();
    wait_for("the second call waits for its permit", async || started_attempts(&harness.events(second).await) == 1)
        .await;
    store.heartbeats.shut();
    let proof = harness.engine.core.schedule.lease.proof();
    wait_for("the lease lapses", async || !proof.is_valid()).await;
    step_service.open_gate();
    assert_eq!(harness.wait_until_ended_or_awaits_input(first).await.status, RunStatus::Completed);
    wait_for("the call is withheld", async || {
        harness.events(second).await.iter().any(|event| matches!(event, Event::RetryScheduled(_)))
    })
    .await;
    assert_eq!(step_service.paths(), ["POST /a/1"], "the second call was not sent");
    store.heartbeats.pass(1_000);
    assert_eq!(
        harness.wait_until_ended_or_awaits_input(second).await.status,
        RunStatus::Completed,
        "a withheld call does not count as an attempt"
    );
    assert_eq!(step_service.paths(), ["POST /a/1", "POST /a/2"]);
}

/// Another process took a run over and is gone. This process reacquires the run while its own task still waits for a
/// reply. The store would refuse that task's appends, so the run is loaded again and continues at once.
#[tokio::test]
async fn a_run_that_is_reacquired_is_loaded_again_while_its_old_task_still_waits() {
    let plan = PlanBuilder::new().call("a", &[], "GET /a", json!({})).respond(200, json!({})).build("w");
    let step_service = StepService::new(|_, nth| {
        if nth == 0 { ServiceReply::Gated(200, json!({})) } else { ServiceReply::Json(200, json!({})) }
    })
    .await;
    let store = test_stores::shared();
    let limits = Limits { lease_ms: 120_000, sweep_ms: 20, ..Limits::default() };
    let harness = Harness::with_store(&step_service, plan, store.clone(), limits, None).await;
    harness.recover().await;
    let run = start(&harness, json!({})).await.run;
    step_service.wait_for_calls(1).await;
    store.expire_lease(harness.engine.core.schedule.worker);
    let taken = store.acquire(crate::names::WorkerId(uuid::Uuid::from_u128(7)), run).await.unwrap();
    assert!(matches!(taken, crate::store::AcquireResult::Acquired(_)), "{taken:?}");
    assert_eq!(
        harness.wait_until_ended_or_awaits_input(run).await.status,
        RunStatus::Completed,
        "the first reply never comes"
    );
    assert_eq!(step_service.paths(), ["GET /a", "GET /a"]);
}

/// A run whose last event was lost cannot be loaded: a command gets that error at once instead of timing out.
#[tokio::test]
async fn a_command_to_a_run_whose_last_event_is_lost_is_refused_at_once() {
    let plan = checked_plan(
        &json!({
            "workflow": "w",
            "steps": { "a": { "wait": { "signal": "go" } } },
            "respond": { "status": 200, "body": {} },
        }),
        false,
    );
    let step_service = StepService::new(|_, _| ServiceReply::Json(200, json!({}))).await;
    let store = test_stores::gated();
    let harness = Harness::with_store(&step_service, plan, store.clone(), Limits::default(), None).await;
    let run = start(&harness, json!({})).await.run;
    harness.wait_until_idle(run).await;
    store.omits_last_event.store(true, std::sync::atomic::Ordering::SeqCst);
    let go = ControlCommand::Signal { name: "go".into(), payload: Arc::default(), id: None };
    let result = harness.engine.give_command(run, go, "ann".into()).await;
    let Err(CommandError::Unreadable(why)) = result else { panic!("{result:?}") };
    assert!(why.contains("its row says that it has 2 events; there are 1") && why.contains("store check"), "{why}");
    assert_eq!(harness.engine.stuck(9).len(), 1);
}

#[tokio::test]
async fn a_call_whose_deadline_is_shorter_than_its_timeout_still_waits_for_its_turn() {
    let plan = checked_plan(
        &json!({
            "workflow": "w",
            "steps": {
                "a": {
                    "call": "POST ${services.world}/a/${request.body.n}",
                    "timeout": "30s", "deadline": "20s", "retry": { "attempts": 1 },
                },
            },
            "respond": { "status": 200, "body": {} },
        }),
        false,
    );
    let step_service = StepService::new(|seen, _| match seen.path.as_str() {
        "/a/1" => ServiceReply::Gated(200, json!({})),
        _ => ServiceReply::Json(200, json!({})),
    })
    .await;
    let harness = Harness::new(&step_service, plan).await;
    harness.set_calls_max(1);
    let first = start(&harness, json!({ "n": 1 })).await.run;
    step_service.wait_for_calls(1).await;
    let second = start(&harness, json!({ "n": 2 })).await.run;
    harness.wait_until(second, |view| !view.steps.is_empty()).await;
    step_service.open_gate();
    for run in [first, second] {
        assert_eq!(harness.wait_until(run, |view| view.status.is_final()).await.status, RunStatus::Completed);
    }
}

fn adopting_plan() -> Arc<Plan> {
    let plan = PlanBuilder::new().call("a", &[], "GET /a", json!({})).respond(200, json!({})).build("w");
    let mut plan = Arc::into_inner(plan).unwrap();
    plan.adoption = Some(Adoption::LegacyPassive("it only lists orders".into()));
    Arc::new(plan)
}

fn adoption(run: RunId) -> AdoptionStart {
    AdoptionStart { run, workflow: "w".into(), route: "orders".into(), id: "7".into(), by: "ann".into() }
}

/// Whoever adopts an instance must not give it back to legacy because a second start is refused: the first one may
/// still be stored, and then tells legacy to release the instance.
#[tokio::test]
async fn a_late_start_of_an_adoption_has_its_task_and_goes_on_when_a_second_start_is_refused() {
    let step_service = StepService::new(|_, _| ServiceReply::Json(200, json!({}))).await;
    let store = test_stores::gated();
    let limits = Limits { command_wait_ms: 50, ..Limits::default() };
    let harness = Harness::with_store(&step_service, adopting_plan(), store.clone(), limits, None).await;
    let run = RunId(uuid::Uuid::from_u128(8));
    let begin = || harness.engine.begin_adoption(adoption(run));
    store.appends.shut();
    let late = begin().await;
    assert!(matches!(late, Err(StartError::Store { unknown: true, .. })), "{late:?}");
    assert_eq!(harness.engine.adoption_progress(run).await.unwrap(), None);
    harness.engine.reload(0, &BTreeMap::new(), &BTreeMap::new(), &BTreeMap::new());
    let refused = begin().await;
    assert!(refused.is_err() && !matches!(refused, Err(StartError::Store { .. })), "{refused:?}");
    assert!(harness.engine.has_task(run));
    store.appends.pass(1_000);
    wait_for("the first start is stored", async || harness.engine.adoption_progress(run).await.unwrap().is_some())
        .await;
}

#[tokio::test]
async fn no_adoption_begins_once_new_instances_are_frozen() {
    let step_service = StepService::new(|_, _| ServiceReply::Json(200, json!({}))).await;
    let harness = Harness::new(&step_service, adopting_plan()).await;
    let run = RunId(uuid::Uuid::from_u128(8));
    let begin = || harness.engine.begin_adoption(adoption(run));
    harness.engine.freeze(1, Freeze::Instances).await;
    let frozen = begin().await;
    assert!(matches!(&frozen, Err(StartError::Unavailable(why)) if why.contains("frozen")), "{frozen:?}");
    assert!(harness.engine.adoption_progress(run).await.unwrap().is_none() && step_service.paths().is_empty());
    harness.engine.freeze(2, Freeze::No).await;
    begin().await.unwrap();
    assert_eq!(harness.wait_until_ended_or_awaits_input(run).await.status, RunStatus::Completed);
}
