//! What is told of a run afterwards and meanwhile: replay, explanations, and runs that nothing would move.

use serde_json::{Value, json};
use sqlx::ConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;

use super::{Plant, id};
use crate::support::process::{cli, said};
use crate::support::until;
use crate::support::works::Say;

const LONG: &str = "
workflow: long
steps:
  charge:
    call: POST ${services.works}/charges
    body: { amount: '${request.body.amount}' }
    retry: { attempts: 2, base: 1ms, max: 2ms }
  ask: { needs: [charge], checkpoint: { question: Ship it? } }
  ship: { needs: [ask], call: 'POST ${services.works}/ships' }
respond: { status: 200, body: shipped }
";

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_replayed_state_by_state_and_under_another_plan() {
    let mut plant = Plant::with(&[LONG]).await;
    plant.works.next("POST /charges", Say::Refuse(503), 1);
    let run = plant.begun("long", json!({ "amount": 5 })).await;
    let pending = plant.comes_to(&run, "waiting_checkpoint").await["pending_checkpoint"].clone();
    let said_so = plant.cli(&["explain", id(&run)]).await;
    assert!(said_so.contains("Ship it?") && said_so.contains("since") && said_so.contains("answer chk_"), "{said_so}");
    plant.taken(pending["answer"].as_str().unwrap(), json!({ "approve": true, "as": "ada" })).await;
    let data = plant.comes_to(&run, "completed").await;
    let replayed = plant.cli(&["replay", id(&run), "--json"]).await;
    let replayed: Value = serde_json::from_str(&replayed).expect("stdout is data");
    let states = replayed["states"].as_array().unwrap();
    let events = plant.events(&run).await;
    assert_eq!(states.len(), events.len(), "every state on the way");
    let statuses: Vec<&str> = states.iter().map(|state| state["status"].as_str().unwrap()).collect();
    assert!(statuses.contains(&"running") && statuses.contains(&"waiting_checkpoint"), "{statuses:?}");
    assert_eq!(statuses.last(), Some(&"completed"));
    assert_eq!(states.last().unwrap()["seq"], data["run"]["seq"]);
    // Under another plan: where it would have decided differently.
    let other = tempfile::tempdir().expect("a directory");
    let file = other.path().join("long.yaml");
    let changed = LONG.replace("attempts: 2", "attempts: 1").replace("amount: '${request.body.amount}'", "amount: 6");
    std::fs::write(&file, changed.trim_start()).expect("written");
    let (file, flags) = (file.display().to_string(), plant.flags.path().display().to_string());
    let text = plant.cli(&["replay", id(&run), "--with", &file, "--flags", &flags]).await;
    assert!(text.contains("charge") && text.contains('6'), "{text}");
    let same = plant.flags.file("workflows/long.yaml").display().to_string();
    let text = plant.cli(&["replay", id(&run), "--with", &same, "--flags", &flags]).await;
    assert!(text.contains("the same"), "{text}");
    // The store of a stopped process tells the same; a run that is not there is no run.
    let ended = plant.cli(&["explain", id(&run)]).await;
    assert!(ended.contains("It has ended: completed"), "{ended}");
    let refused = plant.cli_refused(&["explain", &format!("run_{}", "0".repeat(32))]).await;
    assert!(refused.contains("no run"), "{refused}");
    let store = plant.start.store.clone();
    assert_eq!(plant.pointsman.stop().await, Some(0));
    let again = cli(&["replay", id(&run), "--store", &store, "--json"], &[]).await;
    let again: Value = serde_json::from_slice(&again.stdout).unwrap_or_else(|_| panic!("{}", said(&again)));
    assert_eq!(again, replayed);
    plant.back().await;
    plant.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_nothing_would_move_is_counted_logged_and_shown() {
    let mut plant = Plant::made("limits: { watchdog_ms: 100 }", &[LONG], |_| {}).await;
    plant.works.hold("POST /charges");
    let stuck = plant.begun("long", json!({ "amount": 1 })).await;
    plant.arrives("POST /charges", 1).await;
    plant.kill().await;
    // Its plan is lost: no process could move it.
    let path = plant.dir.path().join("pointsman.db");
    let mut store = SqliteConnectOptions::new().filename(&path).connect().await.expect("it opens");
    let (plan, source): (String, Vec<u8>) =
        sqlx::query_as("SELECT id, source FROM plans").fetch_one(&mut store).await.expect("a plan");
    sqlx::query("DELETE FROM plans").execute(&mut store).await.expect("it is gone");
    drop(store);
    plant.flags.edit("workflows/long.yaml", |text| text.replace("Ship it?", "Ship this?"));
    plant.back().await;
    plant
        .pointsman
        .until_metric("it is counted", |metrics| metrics.sum("pointsman_runs_stuck", &[("workflow", "long")]) == 1.0)
        .await;
    let shown = plant.cli(&["status"]).await;
    assert!(shown.contains("stuck") && shown.contains(id(&stuck)), "{shown}");
    let told = plant.pointsman.get(&format!("{stuck}/explain")).await;
    assert!(told["stuck"] == true && told["sentence"].as_str().unwrap().contains("cannot be moved"), "{told}");
    assert!(plant.pointsman.log().contains("the run is stuck"), "{}", plant.pointsman.log());
    // Others go on beside it; and so does it, once it can.
    plant.works.open("POST /charges");
    let other = plant.begun("long", json!({ "amount": 2 })).await;
    plant.comes_to(&other, "waiting_checkpoint").await;
    plant.kill().await;
    let mut store = SqliteConnectOptions::new().filename(&path).connect().await.expect("it opens");
    let put = sqlx::query("INSERT INTO plans (id, source) VALUES (?, ?)").bind(plan).bind(source);
    put.execute(&mut store).await.expect("it is back");
    drop(store);
    plant.back().await;
    plant.comes_to(&stuck, "waiting_checkpoint").await;
    until("it is no longer counted", || async {
        let metrics = plant.pointsman.metrics().await;
        (metrics.sum("pointsman_runs_stuck", &[]) == 0.0).then_some(())
    })
    .await;
    plant.finish().await;
}
