//! Information about runs: replay, explanations, and stuck runs.

use serde_json::{Value, json};
use sqlx::ConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;

use super::{EngineTest, id};
use crate::support::process::{cli, output_text};
use crate::support::step_service::ScriptedReply;
use crate::support::until;

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
    let mut test = EngineTest::with(&[LONG]).await;
    test.step_service.script("POST /charges", ScriptedReply::Refuse(503), 1);
    let run = test.start_run("long", json!({ "amount": 5 })).await;
    let pending = test.wait_for_status(&run, "waiting_checkpoint").await["pending_checkpoint"].clone();
    let explained = test.cli(&["explain", id(&run)]).await;
    assert!(
        explained.contains("Ship it?") && explained.contains("since") && explained.contains("answer chk_"),
        "{explained}"
    );
    test.post_accepted(pending["answer"].as_str().unwrap(), json!({ "approve": true, "as": "ada" })).await;
    let data = test.wait_for_status(&run, "completed").await;
    let replayed = test.cli(&["replay", id(&run), "--json"]).await;
    let replayed: Value = serde_json::from_str(&replayed).expect("JSON on stdout");
    let states = replayed["states"].as_array().unwrap();
    let events = test.events(&run).await;
    assert_eq!(states.len(), events.len(), "every state on the way");
    let statuses: Vec<&str> = states.iter().map(|state| state["status"].as_str().unwrap()).collect();
    assert!(statuses.contains(&"running") && statuses.contains(&"waiting_checkpoint"), "{statuses:?}");
    assert_eq!(statuses.last(), Some(&"completed"));
    assert_eq!(states.last().unwrap()["seq"], data["run"]["seq"]);
    // A replay with another plan shows the decisions that differ.
    let other = tempfile::tempdir().expect("a directory");
    let file = other.path().join("long.yaml");
    let changed = LONG.replace("attempts: 2", "attempts: 1").replace("amount: '${request.body.amount}'", "amount: 6");
    std::fs::write(&file, changed.trim_start()).expect("written");
    let (file, flags) = (file.display().to_string(), test.flags.path().display().to_string());
    let text = test.cli(&["replay", id(&run), "--with", &file, "--flags", &flags]).await;
    assert!(text.contains("charge") && text.contains('6'), "{text}");
    let same = test.flags.file("workflows/long.yaml").display().to_string();
    let text = test.cli(&["replay", id(&run), "--with", &same, "--flags", &flags]).await;
    assert!(text.contains("the same"), "{text}");
    // A replay from the store of a stopped process shows the same; an unknown run is an error.
    let ended = test.cli(&["explain", id(&run)]).await;
    assert!(ended.contains("It has ended: completed"), "{ended}");
    let refused = test.cli_refused(&["explain", &format!("run_{}", "0".repeat(32))]).await;
    assert!(refused.contains("no run"), "{refused}");
    let store = test.start.store.clone();
    assert_eq!(test.pointsman.stop().await, Some(0));
    let again = cli(&["replay", id(&run), "--store", &store, "--json"], &[]).await;
    let again: Value = serde_json::from_slice(&again.stdout).unwrap_or_else(|_| panic!("{}", output_text(&again)));
    assert_eq!(again, replayed);
    test.restart().await;
    test.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stuck_run_is_counted_logged_and_shown() {
    let mut test = EngineTest::with_settings("limits: { watchdog_ms: 100 }", &[LONG], |_| {}).await;
    test.step_service.hold("POST /charges");
    let stuck = test.start_run("long", json!({ "amount": 1 })).await;
    test.wait_for_calls("POST /charges", 1).await;
    test.kill().await;
    // The run's plan is deleted: no process can execute the run.
    let path = test.dir.path().join("pointsman.db");
    let mut store = SqliteConnectOptions::new().filename(&path).connect().await.expect("it opens");
    let (plan, source): (String, Vec<u8>) =
        sqlx::query_as("SELECT id, source FROM plans").fetch_one(&mut store).await.expect("a plan");
    sqlx::query("DELETE FROM plans").execute(&mut store).await.expect("they are deleted");
    drop(store);
    test.flags.edit("workflows/long.yaml", |text| text.replace("Ship it?", "Ship this?"));
    test.restart().await;
    test.pointsman
        .until_metric("it is counted", |metrics| metrics.sum("pointsman_runs_stuck", &[("workflow", "long")]) == 1.0)
        .await;
    let shown = test.cli(&["status"]).await;
    assert!(shown.contains("stuck") && shown.contains(id(&stuck)), "{shown}");
    let explained = test.pointsman.get(&format!("{stuck}/explain")).await;
    assert!(
        explained["stuck"] == true && explained["sentence"].as_str().unwrap().contains("cannot execute it"),
        "{explained}"
    );
    assert!(test.pointsman.log().contains("the run is stuck"), "{}", test.pointsman.log());
    // Other runs continue meanwhile, and the stuck run continues once its plan is back.
    test.step_service.release_all("POST /charges");
    let other = test.start_run("long", json!({ "amount": 2 })).await;
    test.wait_for_status(&other, "waiting_checkpoint").await;
    test.kill().await;
    let mut store = SqliteConnectOptions::new().filename(&path).connect().await.expect("it opens");
    let put = sqlx::query("INSERT INTO plans (id, source) VALUES (?, ?)").bind(plan).bind(source);
    put.execute(&mut store).await.expect("it is back");
    drop(store);
    test.restart().await;
    test.wait_for_status(&stuck, "waiting_checkpoint").await;
    until("it is no longer counted", || async {
        let metrics = test.pointsman.metrics().await;
        (metrics.sum("pointsman_runs_stuck", &[]) == 0.0).then_some(())
    })
    .await;
    test.finish().await;
}
