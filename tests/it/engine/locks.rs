//! Named locks across runs: first come, first served; the holder and the waiters are shown; no run waits for ever.

use serde_json::{Value, json};

use super::{EngineTest, RUN, id, step};
use crate::support::step_service::ScriptedReply;
use crate::support::until;

fn workflow_with_lock(name: &str, busy: &str) -> String {
    format!(
        "workflow: {name}
steps:
  reserve: {{ call: 'POST ${{services.works}}/stock', undo: 'DELETE ${{services.works}}/stock/1' }}
  use:
    needs: [reserve]
    call: POST ${{services.works}}/uses
    body: {{ who: '${{request.body.who}}' }}
    lock: {{ key: 'sku:${{request.body.sku}}', busy: {busy} }}
    busy_on: [420]
respond: {{ status: 200, body: {{ used: '${{!steps.use.skipped}}' }} }}
"
    )
}

/// Starts a run that is in the queue or holds the lock.
async fn start_queued(test: &EngineTest, workflow: &str, who: u64) -> String {
    let run = test.start_run(workflow, json!({ "sku": "a", "who": who })).await;
    test.wait_for_events(&run, "lock_queued", 1).await;
    run
}

fn uses_in_order(test: &EngineTest) -> Vec<u64> {
    test.step_service.seen("POST /uses").iter().filter_map(|call| call.json()["who"].as_u64()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn first_come_is_first_served_over_pauses_and_a_kill() {
    let mut test = EngineTest::with(&[&workflow_with_lock("wait", "wait")]).await;
    test.step_service.hold("POST /uses");
    let mut runs = Vec::new();
    for who in 0..6 {
        runs.push(start_queued(&test, "wait", who).await);
    }
    test.wait_for_calls("POST /uses", 1).await;
    let explained = test.wait_for_explanation(&runs[3], "stands in the queue of the lock `sku:a`").await;
    assert!(explained.contains(&format!("`use` of {} has held it", id(&runs[0]))), "{explained}");
    assert!(explained.contains("2 are queued before it"), "{explained}");
    let explained = test.wait_for_explanation(&runs[0], "holds the lock `sku:a`").await;
    assert!(explained.contains("5 wait for it") && explained.contains(id(&runs[1])), "{explained}");
    // A paused run leaves the queue, and goes to the end of the queue when it continues.
    test.post_accepted(&format!("{}/pause", runs[2]), json!({})).await;
    test.wait_for_events(&runs[2], "lock_left", 1).await;
    test.step_service.release("POST /uses", 1);
    test.wait_for_status(&runs[0], "completed").await;
    test.wait_for_calls("POST /uses", 2).await;
    test.kill_and_restart().await;
    test.wait_for_calls("POST /uses", 3).await; // the holder's call again, with its key
    test.step_service.release("POST /uses", 1);
    test.wait_for_status(&runs[1], "completed").await;
    test.wait_for_calls("POST /uses", 4).await;
    test.post_accepted(&format!("{}/resume", runs[2]), json!({})).await;
    test.wait_for_events(&runs[2], "lock_queued", 2).await;
    test.step_service.release_all("POST /uses");
    for run in &runs {
        test.wait_for_status(run, "completed").await;
    }
    assert_eq!(uses_in_order(&test), [0, 1, 1, 3, 4, 5, 2], "in the order in which they came");
    test.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn busy_decides_whether_a_run_waits_skips_ends_or_asks() {
    let texts = ["wait", "skip", "cancel", "ask"].map(|busy| workflow_with_lock(busy, busy));
    let mut test = EngineTest::with(&texts.each_ref().map(String::as_str)).await;
    test.step_service.hold("POST /uses");
    let holder = start_queued(&test, "wait", 1).await;
    test.wait_for_calls("POST /uses", 1).await;
    let skips = start_queued(&test, "skip", 2).await;
    let data = test.wait_for_status(&skips, "completed").await;
    assert_eq!(
        (&data["output"], &step(&data, "use")["status"]),
        (&json!({ "used": false }), &json!("skipped")),
        "{data}"
    );
    let ends = start_queued(&test, "cancel", 3).await;
    let data = test.wait_for_status(&ends, "cancelled").await;
    assert!(data["run"]["note"].as_str().unwrap().contains(&format!("is held by {}", id(&holder))), "{data}");
    assert_eq!(data["undone"][0]["state"], "undone", "{data}");
    let mut asks = Vec::new();
    for choice in ["wait", "skip", "cancel"] {
        let run = start_queued(&test, "ask", 4).await;
        let conflict = test.wait_for_status(&run, "paused").await["conflicts"][0].clone();
        assert_eq!((&conflict["kind"], &conflict["choices"]), (&json!("busy"), &json!(["wait", "skip", "cancel"])));
        assert!(conflict["message"].as_str().unwrap().contains(id(&holder)), "{conflict}");
        asks.push((choice, run));
    }
    test.kill_and_restart().await;
    for (choice, run) in &asks {
        test.post_accepted(&format!("{run}/resolve"), json!({ "step": "use", "choice": choice })).await;
        match *choice {
            "skip" => drop(test.wait_for_status(run, "completed").await),
            "cancel" => drop(test.wait_for_status(run, "cancelled").await),
            _ => drop(test.wait_for_explanation(run, "stands in the queue").await),
        }
    }
    test.step_service.release_all("POST /uses");
    test.wait_for_status(&holder, "completed").await;
    let data = test.wait_for_status(&asks[0].1, "completed").await;
    assert_eq!(data["output"], json!({ "used": true }), "{data}");
    // A reply that says "locked" (423, or a status under `busy_on`) is handled by `busy:` too.
    for (workflow, status, end) in
        [("skip", 423, "completed"), ("cancel", 420, "cancelled"), ("ask", 423, "paused"), ("wait", 420, "completed")]
    {
        test.step_service.script("POST /uses", ScriptedReply::Refuse(status), 1);
        let run = test.start_run(workflow, json!({ "sku": "b", "who": 9 })).await;
        let data = test.wait_for_status(&run, end).await;
        match workflow {
            "skip" => assert_eq!(data["output"], json!({ "used": false }), "{data}"),
            "wait" => {
                assert_eq!(data["output"], json!({ "used": true }), "{data}");
                assert_eq!(
                    test.events_of_kind(&run, "retry_scheduled").await[0]["free"],
                    true,
                    "a busy lock uses up no attempt"
                );
            }
            "ask" => assert_eq!(data["conflicts"][0]["kind"], "busy", "{data}"),
            _ => {}
        }
        if end == "paused" {
            test.post_accepted(&format!("{run}/cancel"), json!({})).await;
            test.wait_for_status(&run, "cancelled").await;
        }
    }
    test.finish().await;
}

const OUTER: &str = "
workflow: outer
steps:
  below:
    run: inner
    lock: { key: '${request.body.first}' }
    input: { key: '${request.body.second}' }
respond: { status: 200, body: done }
";

const INNER: &str = "
workflow: inner
steps:
  ready: { call: 'POST ${services.works}/ready' }
  use: { needs: [ready], call: 'POST ${services.works}/uses', lock: { key: '${request.body.key}' } }
respond: { status: 200, body: '${!steps.use.skipped}' }
";

#[tokio::test(flavor = "multi_thread")]
async fn deadlocks_between_runs_are_found_and_named() {
    let test = EngineTest::with(&[OUTER, INNER]).await;
    test.step_service.hold("POST /ready");
    let one = test.start_run("outer", json!({ "first": "a", "second": "b" })).await;
    let two = test.start_run("outer", json!({ "first": "b", "second": "a" })).await;
    test.wait_for_calls("POST /ready", 2).await;
    test.step_service.release_all("POST /ready");
    let below = until("one of them to say so", || async {
        let list = test.pointsman.get("/api/v2/orchestrate/runs?workflow=inner&status=paused").await;
        let run = list["runs"][0]["run_id"].as_str()?.to_owned();
        Some(format!("{RUN}/{run}"))
    })
    .await;
    let conflict = test.data(&below).await["conflicts"][0].clone();
    assert_eq!(conflict["kind"], "deadlock", "{conflict}");
    let message = conflict["message"].as_str().unwrap();
    assert!(message.contains(id(&one)) && message.contains(id(&two)), "both are named: {message}");
    // A person decides the conflict; then both runs end.
    test.post_accepted(&format!("{below}/resolve"), json!({ "step": "use", "choice": "skip" })).await;
    let ended = until("both to end", || async {
        // If both runs detected the deadlock, the other one has a conflict too.
        let list = test.pointsman.get("/api/v2/orchestrate/runs?workflow=inner&status=paused").await;
        if let Some(run) = list["runs"][0]["run_id"].as_str() {
            let skip = json!({ "step": "use", "choice": "skip" });
            let _decided = test.post(&format!("{RUN}/{run}/resolve"), skip).await;
        }
        let (one, two) = (test.data(&one).await, test.data(&two).await);
        (one["status"] == "completed" && two["status"] == "completed").then_some(())
    });
    ended.await;
    test.finish().await;
}

const DARK: &str = "
workflow: dark
steps:
  use:
    effect: private
    call: POST ${services.works}/uses
    body: { who: '${request.body.who}' }
    lock: { key: 'sku:a' }
    rehearse: {}
respond: { status: 200, body: {} }
";

const ROUTE: &str = "
routes:
- id: dark
  match: { method: POST, path: /dark }
  legacy: plain
  workflow: dark
  state: dark
  force: { reason: a test }
";

#[tokio::test(flavor = "multi_thread")]
async fn dark_runs_have_locks_of_their_own() {
    let test = EngineTest::with_settings("", &[DARK], |flags| flags.write("routes/dark.yaml", ROUTE)).await;
    test.step_service.hold("POST /uses");
    let real = test.start_run("dark", json!({ "who": 1 })).await;
    test.wait_for_calls("POST /uses", 1).await;
    let url = format!("{}/dark", test.pointsman.url());
    let reply = test.client.json(http::Method::POST, &url, &[], &json!({ "who": 2 })).await.expect("legacy answers");
    assert!(reply.status.is_success(), "{}", reply.status);
    // The dark run holds its own lock while a real run holds the lock of the same name.
    test.wait_for_calls("POST /uses", 2).await;
    let list = test.pointsman.get("/api/v2/orchestrate/runs?mode=dark").await;
    let dark = format!("{RUN}/{}", list["runs"][0]["run_id"].as_str().expect("a dark run"));
    let locks: Vec<Value> = test.events_of_kind(&dark, "lock_taken").await;
    assert_eq!(locks[0]["name"], "dark:sku:a", "{locks:?}");
    test.step_service.release_all("POST /uses");
    test.wait_for_status(&dark, "completed").await;
    test.wait_for_status(&real, "completed").await;
    test.finish().await;
}
