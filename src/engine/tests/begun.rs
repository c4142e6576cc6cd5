//! Runs that other runs begin, runs that take over from others, locks between runs, and webhooks.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::kit::{Bench, PATIENCE, React, World, checked, legacy, request, start};
use crate::exchange::{ArmReply, ArmRequest};
use crate::limits::Limits;
use crate::names::{JobId, RunId};
use crate::workflow::{AnswerEvent, Event, Mode, Order, Plan, RunStatus};

fn parent() -> Arc<Plan> {
    checked(
        &json!({
            "workflow": "w",
            "steps": {
                "sub": { "run": "child", "input": { "n": "${request.body.n}" }, "on_failure": "fail" },
                "last": { "needs": ["sub"], "call": "POST ${services.world}/last" },
            },
            "respond": { "status": 200, "body": "${steps.sub.output}" },
        }),
        false,
    )
}

fn child() -> Arc<Plan> {
    checked(
        &json!({
            "workflow": "child",
            "steps": {
                "read": { "call": "GET ${services.world}/child" },
                "a": { "needs": ["read"], "call": "POST ${services.world}/child", "rehearse": {} },
            },
            "respond": { "status": 200, "body": { "n": "${request.body.n + 1}" } },
        }),
        false,
    )
}

async fn family(script: impl Fn(&super::kit::Seen, usize) -> React + Send + Sync + 'static) -> (Arc<World>, Bench) {
    let world = World::new(script).await;
    let bench = Bench::new(&world, parent()).await;
    bench.with(&[&child()]);
    (world, bench)
}

async fn child_of(bench: &Bench, run: RunId) -> RunId {
    let look = async {
        loop {
            if let Some(child) = bench.runs().await.iter().find(|other| other.parent == Some(run)) {
                return child.run_id;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, look).await.expect("it begins a run")
}

fn gated(seen: &super::kit::Seen, _: usize) -> React {
    match (seen.method.as_str(), seen.path.as_str()) {
        ("POST", "/child") => React::Gated(200, json!({})),
        _ => React::Json(200, json!({})),
    }
}

#[tokio::test]
async fn a_parent_rests_until_its_child_has_ended() {
    let (world, bench) = family(gated).await;
    let run = start(&bench, json!({ "n": 1 })).await.run;
    let child = child_of(&bench, run).await;
    bench.rests(run).await;
    assert!(bench.engine.stuck().is_empty());
    world.open_gate();
    assert_eq!(bench.ended(run).await.status, RunStatus::Completed);
    assert_eq!(bench.ended(child).await.status, RunStatus::Completed);
    let events = bench.events(run).await;
    let answered = events
        .iter()
        .any(|event| matches!(event, Event::Answer(AnswerEvent::Responded { answer, .. }) if answer.body.value() == json!({"n": 2})));
    assert!(answered, "{events:?}");
    assert_eq!(world.paths(), ["GET /child", "POST /child", "POST /last"]);
}

#[tokio::test]
async fn a_family_goes_on_in_the_next_process() {
    let (world, mut bench) = family(|seen, before| match (seen.method.as_str(), seen.path.as_str(), before) {
        ("GET", _, 0) => React::Hang,
        _ => React::Json(200, json!({})),
    })
    .await;
    let run = start(&bench, json!({ "n": 1 })).await.run;
    world.has_seen(1).await;
    bench.rests(run).await;
    bench.crash().await;
    bench.with(&[&child()]);
    assert_eq!(bench.recover().await.resumed, 2);
    assert_eq!(bench.ended(run).await.status, RunStatus::Completed);
    assert_eq!(bench.runs().await.len(), 2, "the child was born once");
}

#[tokio::test]
async fn pause_and_cancel_reach_the_child() {
    let (world, bench) = family(gated).await;
    let run = start(&bench, json!({ "n": 1 })).await.run;
    let child = child_of(&bench, run).await;
    world.has_seen(2).await;
    let until = async |wanted: RunStatus| {
        let look = async {
            while bench.store.run(child).await.unwrap().unwrap().status != wanted {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(PATIENCE, look).await.unwrap_or_else(|_| panic!("the child is not {wanted:?}"));
    };
    bench.engine.order(run, Order::Pause { reason: None }, "ann".into()).await.unwrap();
    until(RunStatus::Paused).await;
    bench.engine.order(run, Order::Resume { reason: None }, "ann".into()).await.unwrap();
    until(RunStatus::Running).await;
    bench.engine.order(run, Order::Cancel { compensate: true, reason: None }, "ann".into()).await.unwrap();
    world.open_gate();
    assert_eq!(bench.ended(run).await.status, RunStatus::Cancelled);
    assert_eq!(bench.ended(child).await.status, RunStatus::Cancelled);
    assert!(!world.paths().contains(&"POST /last".to_owned()));
}

/// What a child did is undone by what its step says, with the child's output.
#[tokio::test]
async fn a_child_that_completed_is_undone_by_its_step() {
    let world = World::new(|seen, _| match seen.path.as_str() {
        "/last" => React::Json(400, json!({})),
        _ => React::Json(200, json!({})),
    })
    .await;
    let plan = checked(
        &json!({
            "workflow": "w",
            "steps": {
                "sub": { "run": "child", "input": { "n": 6 }, "undo": "DELETE ${services.world}/undo/${output.n}" },
                "last": { "needs": ["sub"], "call": "POST ${services.world}/last" },
            },
            "respond": { "status": 200, "body": {} },
        }),
        false,
    );
    let bench = Bench::new(&world, plan).await;
    bench.with(&[&child()]);
    let run = start(&bench, json!({})).await.run;
    let ended = bench.ended(run).await;
    assert_eq!(ended.status, RunStatus::Failed);
    assert!(ended.note.unwrap().ends_with("; undone: `sub`"));
    assert_eq!(world.paths(), ["DELETE /undo/7", "GET /child", "POST /child", "POST /last"]);
}

#[tokio::test]
async fn a_child_whose_workflow_is_not_there_is_waited_for() {
    let world = World::new(|_, _| React::Json(200, json!({}))).await;
    let bench = Bench::new(&world, parent()).await; // there is no workflow `child`
    let run = start(&bench, json!({ "n": 1 })).await.run;
    let paused = bench.ended(run).await;
    assert_eq!(paused.status, RunStatus::Paused);
    assert!(paused.note.unwrap().contains("the workflow `child`, which is not in the files"));
    bench.with(&[&child()]);
    bench.until(run, |view| view.status == RunStatus::Completed).await;
}

/// A workflow that begins itself ends at a bound, in a rehearsal as in earnest.
#[tokio::test]
async fn runs_begin_each_other_only_so_deep() {
    let plan = checked(
        &json!({
            "workflow": "w",
            "steps": { "again": { "run": "w", "on_failure": "fail" } },
            "respond": { "status": 200, "body": {} },
        }),
        false,
    );
    let world = World::new(|_, _| React::Json(200, json!({}))).await;
    let limits = Limits { run_depth_max: 4, ..Limits::default() };
    let bench = Bench::over(&world, plan, Arc::new(crate::store::MemoryStore::new()), limits, None).await;
    let run = start(&bench, json!({})).await.run;
    let ended = bench.ended(run).await;
    assert_eq!(ended.status, RunStatus::Failed);
    assert!(ended.note.as_ref().unwrap().contains("run_depth_max"), "{ended:?}");
    assert!(bench.runs().await.len() <= 6);
    let reply = bench.ask(request("w", Mode::Rehearse, &json!({}))).await;
    assert!(matches!(&reply, ArmReply::Refused(problem, _) if problem.detail.contains("run_depth_max")), "{reply:?}");
}

#[tokio::test]
async fn the_child_of_a_rehearsal_is_part_of_it() {
    let (world, bench) = family(gated).await;
    let asked =
        ArmRequest { legacy: Some(legacy(200, &json!({}))), ..request("w", Mode::Rehearse, &json!({ "n": 1 })) };
    let (status, body, _) = super::kit::answer(bench.ask(asked).await);
    assert_eq!((status, body), (200, json!({ "n": 2 })));
    assert_eq!(world.paths(), ["GET /child"], "reads are sent, and nothing else");
    assert!(bench.runs().await.is_empty());
}

fn locked(busy: &str) -> Arc<Plan> {
    checked(
        &json!({
            "workflow": "w",
            "steps": {
                "a": { "call": "POST ${services.world}/a/${request.body.n}", "lock": { "key": "shelf", "busy": busy } },
            },
            "respond": { "status": 200, "body": {} },
        }),
        false,
    )
}

#[tokio::test]
async fn a_lock_is_held_by_one_and_the_others_rest_and_come_in_order() {
    let world = World::new(|_, _| React::Gated(200, json!({}))).await;
    let bench = Bench::new(&world, locked("wait")).await;
    let mut runs = Vec::new();
    for n in 0..4 {
        runs.push(start(&bench, json!({ "n": n })).await.run);
        world.has_seen(1).await;
        if n > 0 {
            bench.rests(runs[n]).await;
        }
    }
    assert_eq!(world.seen().len(), 1, "one holds it");
    assert!(bench.engine.stuck().is_empty());
    let explained = bench.engine.explain(runs[3]).await.unwrap();
    let names_holder =
        explained.waits.iter().any(|wait| wait.contains("`shelf`") && wait.contains(&runs[0].to_string()));
    assert!(names_holder, "{explained:?}");
    world.open_gate();
    for run in &runs {
        assert_eq!(bench.ended(*run).await.status, RunStatus::Completed);
    }
    let order: Vec<_> = world.seen().into_iter().map(|seen| seen.path).collect();
    assert_eq!(order, ["/a/0", "/a/1", "/a/2", "/a/3"]);
    assert!(bench.store.locks(None, 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn who_waits_for_a_lock_waits_on_in_the_next_process() {
    let world = World::new(|seen, before| match (seen.path.as_str(), before) {
        ("/a/0", 0) => React::Hang,
        _ => React::Json(200, json!({})),
    })
    .await;
    let plan = checked(
        &json!({
            "workflow": "w",
            "steps": { "a": { "call": "PUT ${services.world}/a/${request.body.n}", "lock": { "key": "shelf" } } },
            "respond": { "status": 200, "body": {} },
        }),
        false,
    );
    let mut bench = Bench::new(&world, plan).await;
    let first = start(&bench, json!({ "n": 0 })).await.run;
    world.has_seen(1).await;
    let second = start(&bench, json!({ "n": 1 })).await.run;
    bench.rests(second).await;
    bench.crash().await;
    bench.recover().await;
    assert_eq!(bench.ended(first).await.status, RunStatus::Completed);
    assert_eq!(bench.ended(second).await.status, RunStatus::Completed);
    let order: Vec<_> = world.seen().into_iter().map(|seen| seen.path).collect();
    assert_eq!(order, ["/a/0", "/a/0", "/a/1"]);
}

/// Each holds what the other's child waits for.
#[tokio::test]
async fn runs_that_wait_for_each_other_are_named() {
    let outer = checked(
        &json!({
            "workflow": "w",
            "steps": {
                "sub": {
                    "run": "inner", "lock": { "key": "${request.body.mine}" }, "on_failure": "fail",
                    "input": { "other": "${request.body.other}", "n": "${request.body.n}" },
                },
            },
            "respond": { "status": 200, "body": {} },
        }),
        false,
    );
    let inner = checked(
        &json!({
            "workflow": "inner",
            "steps": {
                "first": { "call": "GET ${services.world}/first/${request.body.n}" },
                "a": {
                    "needs": ["first"],
                    "call": "POST ${services.world}/a", "lock": { "key": "${request.body.other}", "busy": "wait" },
                },
            },
            "respond": { "status": 200, "body": {} },
        }),
        false,
    );
    let world = World::new(|seen, _| match seen.path.as_str() {
        path if path.starts_with("/first") => React::Gated(200, json!({})),
        _ => React::Json(200, json!({})),
    })
    .await;
    let bench = Bench::new(&world, outer).await;
    bench.with(&[&inner]);
    let one = start(&bench, json!({ "n": 1, "mine": "x", "other": "y" })).await.run;
    let two = start(&bench, json!({ "n": 2, "mine": "y", "other": "x" })).await.run;
    world.has_seen(2).await;
    world.open_gate();
    let paused = async {
        loop {
            let all = bench.runs().await;
            if let Some(run) = all.iter().find(|run| run.status == RunStatus::Paused) {
                return run.clone();
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let paused = tokio::time::timeout(PATIENCE, paused).await.expect("the deadlock is found");
    let note = paused.note.unwrap();
    assert!(note.contains("wait for each other"), "{note}");
    assert!(note.contains(&one.to_string()) && note.contains(&two.to_string()), "{note}");
}

#[tokio::test]
async fn a_webhook_is_told_again_until_it_hears_also_by_the_next_process() {
    let world = World::new(|seen, before| match (seen.path.as_str(), before) {
        ("/hooks", 0) => React::Json(500, json!({})),
        _ => React::Json(200, json!({})),
    })
    .await;
    let plan = checked(
        &json!({
            "workflow": "w",
            "notify": "${services.world}/hooks",
            "steps": { "ok": { "checkpoint": { "question": "Shall it go?" } } },
            "respond": { "status": 200, "body": {} },
        }),
        false,
    );
    let mut bench = Bench::new(&world, plan).await;
    let run = start(&bench, json!({})).await.run;
    world.has_seen(1).await;
    bench.crash().await;
    bench.recover().await;
    world.has_seen(2).await;
    let told: Vec<Value> = world.seen().iter().map(|seen| serde_json::from_slice(&seen.body).unwrap()).collect();
    assert_eq!(told[0], told[1], "the same message, by its id");
    assert_eq!(
        (&told[0]["event"], &told[0]["run_id"], &told[0]["question"]),
        (&json!("checkpoint_opened"), &json!(run.to_string()), &json!("Shall it go?"))
    );
    let gone = async {
        while !bench.store.webhook_messages(0, 10).await.unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("a delivered message goes");
}

#[tokio::test]
async fn a_rerun_takes_over_what_was_finished() {
    let world = World::new(|seen, before| match (seen.path.as_str(), before) {
        ("/b", 0) => React::Json(400, json!({})),
        _ => React::Json(200, json!({ "id": 7 })),
    })
    .await;
    let plan = checked(
        &json!({
            "workflow": "w",
            "steps": {
                "a": { "call": "POST ${services.world}/a" },
                "b": { "call": "POST ${services.world}/b", "body": { "id": "${steps.a.output.id}" } },
            },
            "respond": { "status": 200, "body": {} },
        }),
        false,
    );
    let bench = Bench::new(&world, plan).await;
    let run = start(&bench, json!({})).await.run;
    assert_eq!(bench.ended(run).await.status, RunStatus::Failed);
    let again = bench.engine.rerun(run, "b".into(), "ann".into()).await.unwrap();
    assert_eq!((again.job, again.fresh), (JobId(run.0), true));
    assert_eq!(bench.ended(again.run).await.status, RunStatus::Completed);
    assert_eq!(world.paths(), ["POST /a", "POST /b", "POST /b"]);
    assert!(bench.engine.rerun(run, "nobody".into(), "ann".into()).await.is_err());
}
