//! The CLI commands for runs.

use serde_json::{Value, json};

use super::Desk;
use crate::support::origin::OriginReply;
use crate::support::process::{cli, output_text};

fn lines(text: &str, start: &str) -> Vec<String> {
    text.lines().filter_map(|line| Some(line.trim().strip_prefix(start)?.trim().to_owned())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_started_shown_and_replayed() {
    let mut desk = Desk::open().await;
    let done = desk.pointsman.cli(&["runs", "start", "order", "--input", r#"{"sku":"a"}"#, "--json"]).await;
    assert!(done.status.success(), "{}", output_text(&done));
    let envelope: Value = serde_json::from_slice(&done.stdout).expect("stdout is data");
    let run = envelope["data"]["run_id"].as_str().unwrap();
    let followed = desk.pointsman.cli(&["runs", "start", "order", "--input", r#"{"sku":"a"}"#, "--follow"]).await;
    let talk = String::from_utf8_lossy(&followed.stderr).into_owned();
    assert!(
        followed.status.success() && talk.contains("step_started") && talk.contains("end"),
        "{}",
        output_text(&followed)
    );
    assert!(!String::from_utf8_lossy(&followed.stdout).contains("step_started"), "stdout is data");
    let shown = desk.pointsman.cli(&["runs", "show", run]).await;
    assert!(
        output_text(&shown).contains("charge") && output_text(&shown).contains("step_finished"),
        "{}",
        output_text(&shown)
    );
    let replayed = desk.pointsman.cli(&["replay", run, "--json"]).await;
    let states: Value = serde_json::from_slice(&replayed.stdout).expect("stdout is data");
    assert_eq!(states["states"].as_array().unwrap().last().unwrap()["status"], "completed", "{states}");
    let explained = desk.pointsman.cli(&["explain", run]).await;
    assert!(!output_text(&explained).trim().is_empty(), "{}", output_text(&explained));
    let store = desk.start.store.clone();
    assert_eq!(desk.pointsman.stop().await, Some(0));
    let from_store = cli(&["replay", run, "--store", &store, "--json"], &[]).await;
    let again: Value =
        serde_json::from_slice(&from_store.stdout).unwrap_or_else(|_| panic!("{}", output_text(&from_store)));
    assert_eq!(again, states);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shown_command_resolves_a_conflict() {
    let desk = Desk::open().await;
    desk.bank.next(OriginReply::Status(409), 1);
    let run = desk.begun("order", json!({ "sku": "a" })).await;
    desk.comes_to(&run, "paused").await;
    let id = run.rsplit('/').next().unwrap();
    let shown = output_text(&desk.pointsman.cli(&["runs", "show", id]).await);
    let commands = lines(&shown, "pointsman runs resolve");
    let retry = commands.iter().find(|command| command.ends_with("retry")).unwrap_or_else(|| panic!("{shown}"));
    let words: Vec<&str> = ["runs", "resolve"].into_iter().chain(retry.split(' ')).collect();
    let resolved = desk.pointsman.cli(&words).await;
    assert!(resolved.status.success(), "{}", output_text(&resolved));
    desk.comes_to(&run, "completed").await;
    let refused = desk.pointsman.cli(&words).await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(refused.stdout.is_empty() && output_text(&refused).contains("refused"), "{}", output_text(&refused));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shown_command_answers_a_checkpoint() {
    let desk = Desk::open().await;
    let run = desk.begun("pick", json!({})).await;
    desk.comes_to(&run, "waiting_checkpoint").await;
    let id = run.rsplit('/').next().unwrap();
    let shown = output_text(&desk.pointsman.cli(&["runs", "show", id]).await);
    let command = lines(&shown, "pointsman runs answer").into_iter().next().unwrap_or_else(|| panic!("{shown}"));
    let command = command.replace("JSON", r#"{"selected_asset_id":"a"}"#);
    let words: Vec<&str> = ["runs", "answer"].into_iter().chain(command.split(' ')).collect();
    let answered = desk.pointsman.cli(&words).await;
    assert!(answered.status.success(), "{}", output_text(&answered));
    desk.comes_to(&run, "completed").await;
    let run = desk.begun("payment", json!({})).await;
    desk.comes_to(&run, "waiting_signal").await;
    let id = run.rsplit('/').next().unwrap();
    let sent = desk.pointsman.cli(&["runs", "signal", id, "paid", "--payload", r#"{"amount":5}"#]).await;
    assert!(sent.status.success(), "{}", output_text(&sent));
    desk.comes_to(&run, "completed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_usage_exits_with_2_and_a_refusal_with_1() {
    let desk = Desk::open().await;
    let usage = desk.pointsman.cli(&["runs", "resolve", "run_1", "charge", "guess"]).await;
    assert_eq!(usage.status.code(), Some(2));
    let nothing = desk.pointsman.cli(&["runs", "start", "ordr"]).await;
    assert_eq!(nothing.status.code(), Some(1));
    assert!(output_text(&nothing).contains("did you mean `order`?"), "{}", output_text(&nothing));
    let no_json = desk.pointsman.cli(&["runs", "start", "order", "--input", "{nope"]).await;
    assert_eq!(no_json.status.code(), Some(1));
    let key = desk.fresh();
    let start = ["runs", "start", "order", "--input", r#"{"sku":"a"}"#, "--key", key.as_str()];
    assert!(desk.pointsman.cli(&start).await.status.success());
    assert!(desk.pointsman.cli(&start).await.status.success());
    assert_eq!(desk.bank.count(), 1, "one run for one key");
}

#[tokio::test(flavor = "multi_thread")]
async fn replay_shows_what_changed_files_would_have_decided() {
    let mut desk = Desk::open().await;
    let (_, envelope) = desk.run("order", json!({ "sku": "a" })).await;
    let done = envelope["data"]["run_id"].as_str().unwrap().to_owned();
    let open = desk.begun("pick", json!({})).await;
    desk.comes_to(&open, "waiting_checkpoint").await;
    let open = open.rsplit('/').next().unwrap();
    // The changed workflow is in a file beside the files in force.
    let other = tempfile::tempdir().expect("a directory");
    let order = other.path().join("order.yaml");
    std::fs::write(&order, super::WORKFLOWS[0].1.replace("/charges", "/payments")).expect("written");
    let flags = desk.flags.path().display().to_string();
    let order = order.display().to_string();
    let asked = ["replay", &done, "--with", &order, "--flags", &flags, "--json"];
    let replayed = desk.pointsman.cli(&asked).await;
    assert!(replayed.status.success(), "{}", output_text(&replayed));
    let found: Value = serde_json::from_slice(&replayed.stdout).expect("stdout is data");
    let first = &found["divergences"][0];
    assert_eq!((&first["step_id"], &first["kind"]), (&json!("charge"), &json!("request")), "{found}");
    let check = ["check", &flags, "--against-open-runs"];
    let same = desk.pointsman.cli(&check).await;
    assert!(same.status.success(), "{}", output_text(&same));
    let store = desk.start.store.clone();
    assert_eq!(desk.pointsman.stop().await, Some(0));
    desk.flags.edit("workflows/pick.yaml", |text| text.replace("Which one?", "Which of them?"));
    let otherwise = cli(&["check", &flags, "--against-open-runs", "--store", &store], &[]).await;
    let text = output_text(&otherwise);
    assert_eq!(otherwise.status.code(), Some(1), "{text}");
    assert!(text.contains(open) && text.contains("Which of them?"), "{text}");
}
