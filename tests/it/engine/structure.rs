//! The structure of workflows: branches, waits, fan-outs, child runs, schemas, and the plan that a run keeps.

use std::time::Duration;

use serde_json::{Value, json};

use super::{EngineTest, RUN, id, path, step};
use crate::support::step_service::ScriptedReply;
use crate::support::until;

const BRANCHES: &str = "
workflow: branches
steps:
  card: { if: '${request.body.by == \"card\"}', call: 'POST ${services.works}/cards' }
  cash: { if: '${request.body.by == \"cash\"}', call: 'POST ${services.works}/cash' }
  paid: { needs: [card, cash], needs_any: true, set: '${steps.card.skipped ? (steps.cash.skipped ? \"-\" : \"cash\") : \"card\"}' }
  after: { needs: [paid], call: 'POST ${services.works}/afters' }
respond: { status: 200, body: '${steps.paid.skipped ? null : steps.paid.output}' }
";

const WAITS: &str = "
workflow: waits
steps:
  pause: { wait: 300ms }
  until: { needs: [pause], wait: { until: '${request.body.until}' } }
  paid: { needs: [until], wait: { signal: paid, where: '${signal.id == request.body.id}', timeout: 1d } }
  maybe: { needs: [paid], wait: { signal: more, timeout: 200ms, on_timeout: continue } }
  must: { needs: [maybe], if: '${request.body.must}', wait: { signal: more, timeout: 200ms } }
respond: { status: 200, body: { amount: '${steps.paid.output.amount}', more: '${steps.maybe.timed_out}' } }
";

#[tokio::test(flavor = "multi_thread")]
async fn branches_are_taken_by_condition_and_joined_by_any() {
    let test = EngineTest::with(&[BRANCHES]).await;
    for (by, afters) in [("card", 1), ("cash", 2), ("none", 2)] {
        let data = test.run("branches", json!({ "by": by })).await;
        let wanted = if by == "none" { Value::Null } else { json!(by) };
        assert_eq!((&data["status"], &data["output"]), (&json!("completed"), &wanted), "{data}");
        assert_eq!(test.step_service.count("POST /afters"), afters, "what needs a skipped step is skipped");
    }
    assert_eq!((test.step_service.count("POST /cards"), test.step_service.count("POST /cash")), (1, 1));
    test.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_waits_for_durations_times_and_signals_over_a_kill() {
    let mut test = EngineTest::with(&[WAITS]).await;
    let soon = jiff::Timestamp::now() + Duration::from_millis(1_500);
    let input = |must: bool| json!({ "id": 7, "until": soon.to_string(), "must": must });
    let (run, fails) = (test.start_run("waits", input(false)).await, test.start_run("waits", input(true)).await);
    // A signal that comes before the step waits is kept; a repeated delivery counts once.
    for _ in 0..2 {
        let early = json!({ "payload": { "id": 8, "amount": 1 }, "id": "d1" });
        test.post_accepted(&format!("{run}/signals/paid"), early).await;
    }
    test.post_accepted(&format!("{fails}/signals/paid"), json!({ "payload": { "id": 7, "amount": 2 } })).await;
    test.wait_for_events(&run, "wait_began", 1).await;
    test.kill_and_restart().await;
    test.wait_for_status(&run, "waiting_signal").await;
    assert!(jiff::Timestamp::now() >= soon, "not early");
    assert_eq!(test.events_of_kind(&run, "signal_received").await.len(), 1);
    let explained = test.explanation(&run).await;
    assert!(
        explained.contains("`paid` waits for the signal `paid`") && explained.contains("send that signal"),
        "{explained}"
    );
    test.cli(&["runs", "signal", id(&run), "paid", "--payload", r#"{"id":7,"amount":5}"#]).await;
    let data = test.wait_for_status(&run, "completed").await;
    assert_eq!(data["output"], json!({ "amount": 5, "more": true }), "{data}");
    let data = test.wait_for_status(&fails, "failed").await;
    assert_eq!((&step(&data, "paid")["status"], &data["error"]["step_id"]), (&json!("done"), &json!("must")), "{data}");
    test.finish().await;
}

const EACH: &str = "
workflow: each
steps:
  take:
    for_each: ${request.body.items}
    concurrency: 8
    failures: collect
    call: POST ${services.works}/takes
    body: { item: '${item}', index: '${index}' }
respond:
  status: 200
  body: { taken: '${size(steps.take.output.filter(o, o != null))}', lost: '${steps.take.errors.map(e, e.index)}' }
";

#[tokio::test(flavor = "multi_thread")]
async fn a_fan_out_is_bounded_and_fails_fast_or_collects() {
    let fast = EACH.replace("workflow: each", "workflow: fast").replace("failures: collect", "failures: fail_fast");
    let fast =
        fast.replace("concurrency: 8", "concurrency: 2").replace("${steps.take.errors.map(e, e.index)}", "${[]}");
    let test = EngineTest::with(&[EACH, &fast]).await;
    test.step_service.hold("POST /takes");
    let run = test.start_run("each", json!({ "items": (0..1_000).collect::<Vec<_>>() })).await;
    test.wait_for_calls("POST /takes", 8).await;
    test.step_service.script("POST /takes", ScriptedReply::Refuse(400), 3);
    test.step_service.release_all("POST /takes");
    let data = test.wait_for_status(&run, "completed").await;
    assert_eq!((&data["output"]["taken"], step(&data, "take")["items"].clone()), (&json!(997), json!(1_000)), "{data}");
    assert_eq!(data["output"]["lost"].as_array().unwrap().len(), 3, "{}", data["output"]);
    assert_eq!(
        (test.step_service.count("POST /takes"), test.step_service.concurrent_max("POST /takes")),
        (1_000, 8),
        "never more at a time"
    );
    test.step_service.script("POST /takes", ScriptedReply::Refuse(400), 1);
    let data = test.run("fast", json!({ "items": [1, 2, 3, 4, 5, 6, 7, 8, 9] })).await;
    assert_eq!((&data["status"], &data["error"]["step_id"]), (&json!("failed"), &json!("take")), "{data}");
    assert!(test.step_service.count("POST /takes") < 1_009, "no more is begun");
    test.finish().await;
}

const ABOVE: &str = "
workflow: above
steps:
  first: { call: 'POST ${services.works}/firsts', undo: 'DELETE ${services.works}/firsts/1' }
  each:
    needs: [first]
    for_each: ${request.body.items}
    run: below
    input: { item: '${item}' }
respond: { status: 200, body: '${steps.each.output.map(o, o.item)}' }
";

const BELOW: &str = "
workflow: below
input: { schema: { type: object, properties: { item: { type: integer } } } }
steps:
  take: { call: 'POST ${services.works}/takes', undo: 'DELETE ${services.works}/takes/1' }
  last: { needs: [take], call: 'POST ${services.works}/lasts' }
respond: { status: 200, body: { item: '${request.body.item}' } }
";

#[tokio::test(flavor = "multi_thread")]
async fn child_runs_are_paused_cancelled_and_recovered_with_their_parents() {
    let mut test = EngineTest::with(&[ABOVE, BELOW]).await;
    test.step_service.hold("POST /takes");
    let run = test.start_run("above", json!({ "items": [1, 2] })).await;
    test.wait_for_calls("POST /takes", 2).await;
    let below = async |test: &EngineTest, run: &str| {
        let list = test.pointsman.get(&format!("/api/v2/orchestrate/runs?parent={}", id(run))).await;
        let rows = list["runs"].as_array().unwrap().iter();
        rows.map(|row| format!("{RUN}/{}", row["run_id"].as_str().unwrap())).collect::<Vec<_>>()
    };
    let both = below(&test, &run).await;
    let data = test.data(&both[0]).await;
    assert_eq!(
        (&data["run"]["parent"], &data["audit_receipt"]["auth_mode"]),
        (&json!(id(&run)), &json!("run")),
        "{data}"
    );
    test.post_accepted(&format!("{run}/pause"), json!({})).await;
    for child in &both {
        test.wait_for_status(child, "paused").await;
    }
    test.kill_and_restart().await;
    test.step_service.release_all("POST /takes");
    until("what was under way to end", || async {
        let data = test.data(&both[1]).await;
        (step(&data, "take")["status"] == "done").then_some(())
    })
    .await;
    assert_eq!(test.step_service.count("POST /lasts"), 0, "nothing begins below a paused run");
    test.post_accepted(&format!("{run}/resume"), json!({})).await;
    let data = test.wait_for_status(&run, "completed").await;
    assert_eq!((&data["output"], test.step_service.effects("POST /takes")), (&json!([1, 2]), 2), "{data}");

    test.step_service.hold("POST /lasts");
    let run = test.start_run("above", json!({ "items": [3] })).await;
    test.wait_for_calls("POST /lasts", 3).await;
    test.post_accepted(&format!("{run}/cancel"), json!({})).await;
    test.step_service.release_all("POST /lasts");
    let data = test.wait_for_status(&run, "cancelled").await;
    assert_eq!(data["undone"][0]["state"], "undone", "{data}");
    test.wait_for_status(&below(&test, &run).await[0], "cancelled").await;
    assert_eq!((test.step_service.effects("DELETE /takes"), test.step_service.effects("DELETE /firsts")), (1, 1));
    // A workflow that refuses the input of a child run: the child is not started, and a person decides.
    let data = test.run("above", json!({ "items": ["x"] })).await;
    let run = path(&data);
    let data = test.wait_for_status(&run, "paused").await;
    let message = data["conflicts"][0]["message"].as_str().unwrap();
    assert!(message.contains("does not take this input: /item") && !message.contains("run_"), "{data}");
    test.post_accepted(&format!("{run}/cancel"), json!({})).await;
    test.wait_for_status(&run, "cancelled").await;
    test.finish().await;
}

const KEEPS: &str = "
workflow: keeps
steps:
  ask: { checkpoint: { question: Go on? } }
  use: { needs: [ask], call: 'POST ${services.works}/olds' }
respond: { status: 200, body: old }
";

#[tokio::test(flavor = "multi_thread")]
async fn a_run_keeps_the_plan_that_it_started_with() {
    let mut test = EngineTest::with(&[KEEPS]).await;
    let old = test.start_run("keeps", json!({})).await;
    let before = test.wait_for_status(&old, "waiting_checkpoint").await;
    let flags = test.flags.path().display().to_string();
    let changed = KEEPS.replace("/olds", "/news").replace("body: old", "body: new").replace("Go on?", "Shall it?");
    test.flags.write("workflows/keeps.yaml", changed.trim_start());
    let new = until("a run of the new plan", || async {
        let run = test.start_run("keeps", json!({})).await;
        let data = test.wait_for_status(&run, "waiting_checkpoint").await;
        if data["plan_id"] != before["plan_id"] {
            return Some(run);
        }
        test.post_accepted(&format!("{run}/cancel"), json!({})).await;
        None
    })
    .await;
    // The check lists the open run that does not fit these files.
    let output = test.cli_output(&["check", &flags, "--against-open-runs"]).await;
    assert!(
        output.1.contains(id(&old)) && !output.1.contains(id(&new)) && output.1.contains("Shall it?"),
        "{}",
        output.1
    );
    assert_eq!(output.0, Some(1), "{}", output.1);
    test.kill_and_restart().await;
    for (run, output) in [(&old, "old"), (&new, "new")] {
        let pending = test.data(run).await["pending_checkpoint"].clone();
        test.post_accepted(pending["answer"].as_str().unwrap(), json!({ "approve": true })).await;
        assert_eq!(test.wait_for_status(run, "completed").await["output"], json!(output));
    }
    assert_eq!((test.step_service.count("POST /olds"), test.step_service.count("POST /news")), (1, 1));
    test.finish().await;
}
