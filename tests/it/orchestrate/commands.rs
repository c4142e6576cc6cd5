//! The CLI commands for runs.

use serde_json::{Value, json};

use super::BankTest;
use crate::support::origin::OriginReply;
use crate::support::process::{cli, output_text};

fn lines_after(text: &str, start: &str) -> Vec<String> {
    text.lines().filter_map(|line| Some(line.trim().strip_prefix(start)?.trim().to_owned())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_started_shown_and_replayed() {
    let mut test = BankTest::open().await;
    let done = test.pointsman.cli(&["runs", "start", "order", "--input", r#"{"sku":"a"}"#, "--json"]).await;
    assert!(done.status.success(), "{}", output_text(&done));
    let envelope: Value = serde_json::from_slice(&done.stdout).expect("JSON on stdout");
    let run = envelope["data"]["run_id"].as_str().unwrap();
    let followed = test.pointsman.cli(&["runs", "start", "order", "--input", r#"{"sku":"a"}"#, "--follow"]).await;
    let talk = String::from_utf8_lossy(&followed.stderr).into_owned();
    assert!(
        followed.status.success() && talk.contains("step_started") && talk.contains("end"),
        "{}",
        output_text(&followed)
    );
    assert!(!String::from_utf8_lossy(&followed.stdout).contains("step_started"), "stdout is data");
    let shown = test.pointsman.cli(&["runs", "show", run]).await;
    assert!(
        output_text(&shown).contains("charge") && output_text(&shown).contains("step_finished"),
        "{}",
        output_text(&shown)
    );
    let replayed = test.pointsman.cli(&["replay", run, "--json"]).await;
    let states: Value = serde_json::from_slice(&replayed.stdout).expect("JSON on stdout");
    assert_eq!(states["states"].as_array().unwrap().last().unwrap()["status"], "completed", "{states}");
    let explained = test.pointsman.cli(&["explain", run]).await;
    assert!(!output_text(&explained).trim().is_empty(), "{}", output_text(&explained));
    let store = test.start.store.clone();
    assert_eq!(test.pointsman.stop().await, Some(0));
    let from_store = cli(&["replay", run, "--store", &store, "--json"], &[]).await;
    let again: Value =
        serde_json::from_slice(&from_store.stdout).unwrap_or_else(|_| panic!("{}", output_text(&from_store)));
    assert_eq!(again, states);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shown_command_resolves_a_conflict() {
    let test = BankTest::open().await;
    test.bank.script(OriginReply::Status(409), 1);
    let run = test.start_run("order", json!({ "sku": "a" })).await;
    test.wait_for_status(&run, "paused").await;
    let id = run.rsplit('/').next().unwrap();
    let shown = output_text(&test.pointsman.cli(&["runs", "show", id]).await);
    let commands = lines_after(&shown, "pointsman runs resolve");
    let retry = commands.iter().find(|command| command.contains(" retry ")).unwrap_or_else(|| panic!("{shown}"));
    let words: Vec<&str> = ["runs", "resolve"].into_iter().chain(retry.split(' ')).collect();
    let resolved = test.pointsman.cli(&words).await;
    assert!(resolved.status.success(), "{}", output_text(&resolved));
    test.wait_for_status(&run, "completed").await;
    let refused = test.pointsman.cli(&words).await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(refused.stdout.is_empty() && output_text(&refused).contains("refused"), "{}", output_text(&refused));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shown_command_answers_a_checkpoint() {
    let test = BankTest::open().await;
    let run = test.start_run("pick", json!({})).await;
    test.wait_for_status(&run, "waiting_checkpoint").await;
    let id = run.rsplit('/').next().unwrap();
    let shown = output_text(&test.pointsman.cli(&["runs", "show", id]).await);
    let command = lines_after(&shown, "pointsman runs answer").into_iter().next().unwrap_or_else(|| panic!("{shown}"));
    let command = command.replace("JSON", r#"{"selected_asset_id":"a"}"#);
    let words: Vec<&str> = ["runs", "answer"].into_iter().chain(command.split(' ')).collect();
    let answered = test.pointsman.cli(&words).await;
    assert!(answered.status.success(), "{}", output_text(&answered));
    test.wait_for_status(&run, "completed").await;
    let run = test.start_run("payment", json!({})).await;
    test.wait_for_status(&run, "waiting_signal").await;
    let id = run.rsplit('/').next().unwrap();
    let sent = test.pointsman.cli(&["runs", "signal", id, "paid", "--payload", r#"{"amount":5}"#]).await;
    assert!(sent.status.success(), "{}", output_text(&sent));
    test.wait_for_status(&run, "completed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_usage_exits_with_2_and_a_refusal_with_1() {
    let test = BankTest::open().await;
    let usage = test.pointsman.cli(&["runs", "resolve", "run_1", "charge", "guess"]).await;
    assert_eq!(usage.status.code(), Some(2));
    let nothing = test.pointsman.cli(&["runs", "start", "ordr"]).await;
    assert_eq!(nothing.status.code(), Some(1));
    assert!(output_text(&nothing).contains("did you mean `order`?"), "{}", output_text(&nothing));
    let no_json = test.pointsman.cli(&["runs", "start", "order", "--input", "{nope"]).await;
    assert_eq!(no_json.status.code(), Some(1));
    let key = test.new_key();
    let start = ["runs", "start", "order", "--input", r#"{"sku":"a"}"#, "--key", key.as_str()];
    assert!(test.pointsman.cli(&start).await.status.success());
    assert!(test.pointsman.cli(&start).await.status.success());
    assert_eq!(test.bank.count(), 1, "one run for one key");
}

#[tokio::test(flavor = "multi_thread")]
async fn replay_shows_what_changed_files_would_have_decided() {
    let mut test = BankTest::open().await;
    let (_, envelope) = test.run("order", json!({ "sku": "a" })).await;
    let done = envelope["data"]["run_id"].as_str().unwrap().to_owned();
    let open = test.start_run("pick", json!({})).await;
    test.wait_for_status(&open, "waiting_checkpoint").await;
    let open = open.rsplit('/').next().unwrap();
    // The changed workflow is in a file beside the files in force.
    let other = tempfile::tempdir().expect("a directory");
    let order = other.path().join("order.yaml");
    std::fs::write(&order, super::WORKFLOWS[0].1.replace("/charges", "/payments")).expect("written");
    let flags = test.flags.path().display().to_string();
    let order = order.display().to_string();
    let arguments = ["replay", &done, "--with", &order, "--flags", &flags, "--json"];
    let replayed = test.pointsman.cli(&arguments).await;
    assert!(replayed.status.success(), "{}", output_text(&replayed));
    let found: Value = serde_json::from_slice(&replayed.stdout).expect("JSON on stdout");
    let first = &found["divergences"][0];
    assert_eq!((&first["step_id"], &first["kind"]), (&json!("charge"), &json!("request")), "{found}");
    let check = ["check", &flags, "--against-open-runs"];
    let same = test.pointsman.cli(&check).await;
    assert!(same.status.success(), "{}", output_text(&same));
    let store = test.start.store.clone();
    assert_eq!(test.pointsman.stop().await, Some(0));
    test.flags.edit("workflows/pick.yaml", |text| text.replace("Which one?", "Which of them?"));
    let otherwise = cli(&["check", &flags, "--against-open-runs", "--store", &store], &[]).await;
    let text = output_text(&otherwise);
    assert_eq!(otherwise.status.code(), Some(1), "{text}");
    assert!(text.contains(open) && text.contains("Which of them?"), "{text}");
}
