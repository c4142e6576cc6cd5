//! How steps hang together: branches, waits, fan-outs, runs below runs, schemas, and the plan that a run keeps.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Plant, RUN, id, path, step};
use crate::support::until;
use crate::support::works::Say;

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
    let plant = Plant::with(&[BRANCHES]).await;
    for (by, afters) in [("card", 1), ("cash", 2), ("none", 2)] {
        let data = plant.run("branches", json!({ "by": by })).await;
        let wanted = if by == "none" { Value::Null } else { json!(by) };
        assert_eq!((&data["status"], &data["output"]), (&json!("completed"), &wanted), "{data}");
        assert_eq!(plant.works.count("POST /afters"), afters, "what needs a skipped step is skipped");
    }
    assert_eq!((plant.works.count("POST /cards"), plant.works.count("POST /cash")), (1, 1));
    plant.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_waits_for_durations_times_and_signals_over_a_kill() {
    let mut plant = Plant::with(&[WAITS]).await;
    let soon = jiff::Timestamp::now() + Duration::from_millis(1_500);
    let input = |must: bool| json!({ "id": 7, "until": soon.to_string(), "must": must });
    let (run, fails) = (plant.begun("waits", input(false)).await, plant.begun("waits", input(true)).await);
    // Before it waits for it: kept, and counted once.
    for _ in 0..2 {
        let early = json!({ "payload": { "id": 8, "amount": 1 }, "id": "d1" });
        plant.taken(&format!("{run}/signals/paid"), early).await;
    }
    plant.taken(&format!("{fails}/signals/paid"), json!({ "payload": { "id": 7, "amount": 2 } })).await;
    plant.until_told(&run, "wait_began", 1).await;
    plant.killed_and_back().await;
    plant.comes_to(&run, "waiting_signal").await;
    assert!(jiff::Timestamp::now() >= soon, "not early");
    assert_eq!(plant.told(&run, "signal_received").await.len(), 1);
    let explained = plant.explained(&run).await;
    assert!(
        explained.contains("`paid` waits for the signal `paid`") && explained.contains("send that signal"),
        "{explained}"
    );
    plant.cli(&["runs", "signal", id(&run), "paid", "--payload", r#"{"id":7,"amount":5}"#]).await;
    let data = plant.comes_to(&run, "completed").await;
    assert_eq!(data["output"], json!({ "amount": 5, "more": true }), "{data}");
    let data = plant.comes_to(&fails, "failed").await;
    assert_eq!((&step(&data, "paid")["status"], &data["error"]["step_id"]), (&json!("done"), &json!("must")), "{data}");
    plant.finish().await;
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
    let plant = Plant::with(&[EACH, &fast]).await;
    plant.works.hold("POST /takes");
    let run = plant.begun("each", json!({ "items": (0..1_000).collect::<Vec<_>>() })).await;
    plant.arrives("POST /takes", 8).await;
    plant.works.next("POST /takes", Say::Refuse(400), 3);
    plant.works.open("POST /takes");
    let data = plant.comes_to(&run, "completed").await;
    assert_eq!((&data["output"]["taken"], step(&data, "take")["items"].clone()), (&json!(997), json!(1_000)), "{data}");
    assert_eq!(data["output"]["lost"].as_array().unwrap().len(), 3, "{}", data["output"]);
    assert_eq!(
        (plant.works.count("POST /takes"), plant.works.at_once("POST /takes")),
        (1_000, 8),
        "never more at a time"
    );
    plant.works.next("POST /takes", Say::Refuse(400), 1);
    let data = plant.run("fast", json!({ "items": [1, 2, 3, 4, 5, 6, 7, 8, 9] })).await;
    assert_eq!((&data["status"], &data["error"]["step_id"]), (&json!("failed"), &json!("take")), "{data}");
    assert!(plant.works.count("POST /takes") < 1_009, "no more is begun");
    plant.finish().await;
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
async fn runs_below_are_paused_cancelled_and_survive_with_theirs_above() {
    let mut plant = Plant::with(&[ABOVE, BELOW]).await;
    plant.works.hold("POST /takes");
    let run = plant.begun("above", json!({ "items": [1, 2] })).await;
    plant.arrives("POST /takes", 2).await;
    let below = async |plant: &Plant, run: &str| {
        let list = plant.pointsman.get(&format!("/api/v2/orchestrate/runs?parent={}", id(run))).await;
        let rows = list["runs"].as_array().unwrap().iter();
        rows.map(|row| format!("{RUN}/{}", row["run_id"].as_str().unwrap())).collect::<Vec<_>>()
    };
    let both = below(&plant, &run).await;
    let data = plant.data(&both[0]).await;
    assert_eq!(
        (&data["run"]["parent"], &data["audit_receipt"]["auth_mode"]),
        (&json!(id(&run)), &json!("run")),
        "{data}"
    );
    plant.taken(&format!("{run}/pause"), json!({})).await;
    for child in &both {
        plant.comes_to(child, "paused").await;
    }
    plant.killed_and_back().await;
    plant.works.open("POST /takes");
    until("what was under way to end", || async {
        let data = plant.data(&both[1]).await;
        (step(&data, "take")["status"] == "done").then_some(())
    })
    .await;
    assert_eq!(plant.works.count("POST /lasts"), 0, "nothing begins below a paused run");
    plant.taken(&format!("{run}/resume"), json!({})).await;
    let data = plant.comes_to(&run, "completed").await;
    assert_eq!((&data["output"], plant.works.done("POST /takes")), (&json!([1, 2]), 2), "{data}");

    plant.works.hold("POST /lasts");
    let run = plant.begun("above", json!({ "items": [3] })).await;
    plant.arrives("POST /lasts", 3).await;
    plant.taken(&format!("{run}/cancel"), json!({})).await;
    plant.works.open("POST /lasts");
    let data = plant.comes_to(&run, "cancelled").await;
    assert_eq!(data["undone"][0]["state"], "undone", "{data}");
    plant.comes_to(&below(&plant, &run).await[0], "cancelled").await;
    assert_eq!((plant.works.done("DELETE /takes"), plant.works.done("DELETE /firsts")), (1, 1));
    // What a run below does not take fails the step; here that ends the run.
    let data = plant.run("above", json!({ "items": ["x"] })).await;
    let data = plant.comes_to(&path(&data), "failed").await;
    assert!(data["error"]["message"].as_str().unwrap().contains("does not take this input: /item"), "{data}");
    plant.finish().await;
}

const KEEPS: &str = "
workflow: keeps
steps:
  ask: { checkpoint: { question: Go on? } }
  use: { needs: [ask], call: 'POST ${services.works}/olds' }
respond: { status: 200, body: old }
";

#[tokio::test(flavor = "multi_thread")]
async fn a_run_keeps_the_plan_that_it_began_with() {
    let mut plant = Plant::with(&[KEEPS]).await;
    let old = plant.begun("keeps", json!({})).await;
    let before = plant.comes_to(&old, "waiting_checkpoint").await;
    let flags = plant.flags.path().display().to_string();
    let changed = KEEPS.replace("/olds", "/news").replace("body: old", "body: new").replace("Go on?", "Shall it?");
    plant.flags.write("workflows/keeps.yaml", changed.trim_start());
    let new = until("a run of the new plan", || async {
        let run = plant.begun("keeps", json!({})).await;
        let data = plant.comes_to(&run, "waiting_checkpoint").await;
        if data["plan_id"] != before["plan_id"] {
            return Some(run);
        }
        plant.taken(&format!("{run}/cancel"), json!({})).await;
        None
    })
    .await;
    // Which open runs could these files not have produced?
    let said = plant.cli_said(&["check", &flags, "--against-open-runs"]).await;
    assert!(said.1.contains(id(&old)) && !said.1.contains(id(&new)) && said.1.contains("Shall it?"), "{}", said.1);
    assert_eq!(said.0, Some(1), "{}", said.1);
    plant.killed_and_back().await;
    for (run, output) in [(&old, "old"), (&new, "new")] {
        let pending = plant.data(run).await["pending_checkpoint"].clone();
        plant.taken(pending["answer"].as_str().unwrap(), json!({ "approve": true })).await;
        assert_eq!(plant.comes_to(run, "completed").await["output"], json!(output));
    }
    assert_eq!((plant.works.count("POST /olds"), plant.works.count("POST /news")), (1, 1));
    plant.finish().await;
}
