//! Named locks across runs: first come, first served; who holds one and who waits is said; nobody waits for ever.

use serde_json::{Value, json};

use super::{Plant, RUN, id, step};
use crate::support::until;
use crate::support::works::Say;

fn taking(name: &str, busy: &str) -> String {
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

/// A run that stands in the queue, or holds the lock.
async fn queued(plant: &Plant, workflow: &str, who: u64) -> String {
    let run = plant.begun(workflow, json!({ "sku": "a", "who": who })).await;
    plant.until_told(&run, "lock_queued", 1).await;
    run
}

fn users(plant: &Plant) -> Vec<u64> {
    plant.works.seen("POST /uses").iter().filter_map(|call| call.json()["who"].as_u64()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn first_come_is_first_served_over_pauses_and_a_kill() {
    let mut plant = Plant::with(&[&taking("wait", "wait")]).await;
    plant.works.hold("POST /uses");
    let mut runs = Vec::new();
    for who in 0..6 {
        runs.push(queued(&plant, "wait", who).await);
    }
    plant.arrives("POST /uses", 1).await;
    let explained = plant.explains(&runs[3], "stands in the queue of the lock `sku:a`").await;
    assert!(explained.contains(&format!("`use` of {} holds it", id(&runs[0]))), "{explained}");
    assert!(explained.contains("2 stand before it"), "{explained}");
    let explained = plant.explains(&runs[0], "holds the lock `sku:a`").await;
    assert!(explained.contains("5 wait for it") && explained.contains(id(&runs[1])), "{explained}");
    // Whoever is paused holds nobody up, and stands in line anew when it goes on.
    plant.taken(&format!("{}/pause", runs[2]), json!({})).await;
    plant.until_told(&runs[2], "lock_left", 1).await;
    plant.works.let_go("POST /uses", 1);
    plant.comes_to(&runs[0], "completed").await;
    plant.arrives("POST /uses", 2).await;
    plant.killed_and_back().await;
    plant.arrives("POST /uses", 3).await; // the holder's call again, with its key
    plant.works.let_go("POST /uses", 1);
    plant.comes_to(&runs[1], "completed").await;
    plant.arrives("POST /uses", 4).await;
    plant.taken(&format!("{}/resume", runs[2]), json!({})).await;
    plant.until_told(&runs[2], "lock_queued", 2).await;
    plant.works.open("POST /uses");
    for run in &runs {
        plant.comes_to(run, "completed").await;
    }
    assert_eq!(users(&plant), [0, 1, 1, 3, 4, 5, 2], "in the order in which they came");
    plant.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_it_is_held_a_run_waits_skips_ends_or_asks() {
    let texts = ["wait", "skip", "cancel", "ask"].map(|busy| taking(busy, busy));
    let mut plant = Plant::with(&texts.each_ref().map(String::as_str)).await;
    plant.works.hold("POST /uses");
    let holder = queued(&plant, "wait", 1).await;
    plant.arrives("POST /uses", 1).await;
    let skips = queued(&plant, "skip", 2).await;
    let data = plant.comes_to(&skips, "completed").await;
    assert_eq!(
        (&data["output"], &step(&data, "use")["status"]),
        (&json!({ "used": false }), &json!("skipped")),
        "{data}"
    );
    let ends = queued(&plant, "cancel", 3).await;
    let data = plant.comes_to(&ends, "cancelled").await;
    assert!(data["run"]["note"].as_str().unwrap().contains(&format!("is held by {}", id(&holder))), "{data}");
    assert_eq!(data["undone"][0]["state"], "undone", "{data}");
    let mut asks = Vec::new();
    for choice in ["wait", "skip", "cancel"] {
        let run = queued(&plant, "ask", 4).await;
        let conflict = plant.comes_to(&run, "paused").await["conflicts"][0].clone();
        assert_eq!((&conflict["kind"], &conflict["choices"]), (&json!("busy"), &json!(["wait", "skip", "cancel"])));
        assert!(conflict["message"].as_str().unwrap().contains(id(&holder)), "{conflict}");
        asks.push((choice, run));
    }
    plant.killed_and_back().await;
    for (choice, run) in &asks {
        plant.taken(&format!("{run}/resolve"), json!({ "step": "use", "choice": choice })).await;
        match *choice {
            "skip" => drop(plant.comes_to(run, "completed").await),
            "cancel" => drop(plant.comes_to(run, "cancelled").await),
            _ => drop(plant.explains(run, "stands in the queue").await),
        }
    }
    plant.works.open("POST /uses");
    plant.comes_to(&holder, "completed").await;
    let data = plant.comes_to(&asks[0].1, "completed").await;
    assert_eq!(data["output"], json!({ "used": true }), "{data}");
    // A service that says that something is locked there takes the same ways.
    for (workflow, says, end) in
        [("skip", 423, "completed"), ("cancel", 420, "cancelled"), ("ask", 423, "paused"), ("wait", 420, "completed")]
    {
        plant.works.next("POST /uses", Say::Refuse(says), 1);
        let run = plant.begun(workflow, json!({ "sku": "b", "who": 9 })).await;
        let data = plant.comes_to(&run, end).await;
        match workflow {
            "skip" => assert_eq!(data["output"], json!({ "used": false }), "{data}"),
            "wait" => {
                assert_eq!(data["output"], json!({ "used": true }), "{data}");
                assert_eq!(plant.told(&run, "retry_scheduled").await[0]["free"], true, "it costs no attempt");
            }
            "ask" => assert_eq!(data["conflicts"][0]["kind"], "busy", "{data}"),
            _ => {}
        }
        if end == "paused" {
            plant.taken(&format!("{run}/cancel"), json!({})).await;
            plant.comes_to(&run, "cancelled").await;
        }
    }
    plant.finish().await;
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
async fn runs_that_wait_for_each_other_are_found_and_named() {
    let plant = Plant::with(&[OUTER, INNER]).await;
    plant.works.hold("POST /ready");
    let one = plant.begun("outer", json!({ "first": "a", "second": "b" })).await;
    let two = plant.begun("outer", json!({ "first": "b", "second": "a" })).await;
    plant.arrives("POST /ready", 2).await;
    plant.works.open("POST /ready");
    let below = until("one of them to say so", || async {
        let list = plant.pointsman.get("/api/v2/orchestrate/runs?workflow=inner&status=paused").await;
        let run = list["runs"][0]["run_id"].as_str()?.to_owned();
        Some(format!("{RUN}/{run}"))
    })
    .await;
    let conflict = plant.data(&below).await["conflicts"][0].clone();
    assert_eq!(conflict["kind"], "deadlock", "{conflict}");
    let message = conflict["message"].as_str().unwrap();
    assert!(message.contains(id(&one)) && message.contains(id(&two)), "both are named: {message}");
    // Somebody decides; then both come to their ends.
    plant.taken(&format!("{below}/resolve"), json!({ "step": "use", "choice": "skip" })).await;
    let ended = until("both to end", || async {
        // Where both had seen it, the other one is asked too.
        let list = plant.pointsman.get("/api/v2/orchestrate/runs?workflow=inner&status=paused").await;
        if let Some(run) = list["runs"][0]["run_id"].as_str() {
            let skip = json!({ "step": "use", "choice": "skip" });
            let _decided = plant.post(&format!("{RUN}/{run}/resolve"), skip).await;
        }
        let (one, two) = (plant.data(&one).await, plant.data(&two).await);
        (one["status"] == "completed" && two["status"] == "completed").then_some(())
    });
    ended.await;
    plant.finish().await;
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
    let plant = Plant::made("", &[DARK], |flags| flags.write("routes/dark.yaml", ROUTE)).await;
    plant.works.hold("POST /uses");
    let real = plant.begun("dark", json!({ "who": 1 })).await;
    plant.arrives("POST /uses", 1).await;
    let url = format!("{}/dark", plant.pointsman.url());
    let reply = plant.client.json(http::Method::POST, &url, &[], &json!({ "who": 2 })).await.expect("legacy answers");
    assert!(reply.status.is_success(), "{}", reply.status);
    // It holds its own lock while a real run holds the one of that name.
    plant.arrives("POST /uses", 2).await;
    let list = plant.pointsman.get("/api/v2/orchestrate/runs?mode=dark").await;
    let dark = format!("{RUN}/{}", list["runs"][0]["run_id"].as_str().expect("a dark run"));
    let told: Vec<Value> = plant.told(&dark, "lock_taken").await;
    assert_eq!(told[0]["name"], "dark:sku:a", "{told:?}");
    plant.works.open("POST /uses");
    plant.comes_to(&dark, "completed").await;
    plant.comes_to(&real, "completed").await;
    plant.finish().await;
}
