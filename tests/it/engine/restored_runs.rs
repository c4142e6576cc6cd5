//! Runs that were open when a backup was made are paused when it is restored: it does not have what they did since.

use serde_json::json;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};

use super::child_effects::child_of;
use super::{EngineTest, id};
use crate::support::process::{cli, output_text};
use crate::support::seed::report_violations;
use crate::support::step_service::ScriptedReply;
use crate::support::until;

const BILL: &str = "
workflow: bill
steps:
  go: { wait: { signal: go } }
  bill: { needs: [go], call: 'POST ${services.plain}/bills', body: { amount: 1 } }
respond: { status: 200, body: {} }
";
const PARENT: &str = "
workflow: parent
steps:
  kid: { run: bill }
respond: { status: 200, body: {} }
";
const PACK: &str = "
workflow: pack
steps:
  pack: { call: 'POST ${services.works}/packs', body: { box: small }, retry: { attempts: 1 } }
respond: { status: 200, body: {} }
";
const LOOK: &str = "
workflow: look
steps:
  look: { call: 'GET ${services.works}/stock' }
respond: { status: 200, body: {} }
";

const RETURNS: &str = "
workflow: returns
steps:
  charge: { call: 'POST ${services.plain}/charges', undo: 'POST ${services.plain}/refunds' }
  reserve: { needs: [charge], call: 'POST ${services.works}/reserves', undo: 'DELETE ${services.works}/reserves' }
  bad: { needs: [reserve], call: 'POST ${services.works}/bads' }
respond: { status: 200, body: {} }
";

const KID: &str = "
workflow: kid
steps:
  reserve: { call: 'POST ${services.works}/reserves', undo: 'DELETE ${services.works}/reserves' }
  go: { needs: [reserve], wait: { signal: go } }
respond: { status: 200, body: {} }
";
const ABOVE: &str = "
workflow: above
steps:
  kid: { run: kid }
  bad: { call: 'POST ${services.works}/bads' }
respond: { status: 200, body: {} }
";

impl EngineTest {
    /// Replaces the store of a killed process by a backup.
    fn replace_store(&self, backup: &str) {
        let store = self.dir.path().join("pointsman.db");
        for end in ["", "-wal", "-shm", ".keys", ".evidence"] {
            let _ = std::fs::remove_file(format!("{}{end}", store.display())); // may not exist
        }
        std::fs::rename(self.dir.path().join(backup), store).expect("moved");
    }

    async fn back_up(&self, name: &str) {
        let copy = self.dir.path().join(name);
        let done = cli(&["store", "backup", copy.to_str().expect("a path"), "--store", &self.start.store], &[]).await;
        assert!(done.status.success(), "{}", output_text(&done));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn open_runs_of_a_restored_backup_are_paused_unless_they_only_read() {
    let mut test = EngineTest::with(&[BILL, PARENT, PACK, LOOK]).await;
    for endpoint in ["POST /packs", "GET /stock"] {
        test.step_service.hold(endpoint);
    }
    let (bill, parent) = (test.start_run("bill", json!({})).await, test.start_run("parent", json!({})).await);
    let (pack, look) = (test.start_run("pack", json!({})).await, test.start_run("look", json!({})).await);
    let kid = child_of(&test, &parent).await;
    for waiting in [&bill, &kid] {
        test.wait_for_status(waiting, "waiting_signal").await;
    }
    test.wait_for_calls("POST /packs", 1).await;
    test.wait_for_calls("GET /stock", 1).await;
    test.back_up("copy.db").await;

    // Events after the backup was made.
    for waiting in [&bill, &kid] {
        test.post_accepted(&format!("{waiting}/signals/go"), json!({})).await;
    }
    test.step_service.release_all("POST /packs");
    for run in [&bill, &kid, &parent, &pack] {
        test.wait_for_status(run, "completed").await;
    }
    assert_eq!(test.step_service.count("POST /bills"), 2);
    test.kill().await;
    test.replace_store("copy.db");
    test.step_service.release_all("GET /stock");
    test.restart().await;

    for run in [&bill, &kid, &parent, &pack] {
        test.wait_for_status(run, "paused").await;
        let ordered = test.events_of_kind(run, "pause_ordered").await;
        assert!(
            ordered[0]["reason"].as_str().is_some_and(|why| why.contains("such as a restored backup")),
            "{ordered:?}"
        );
    }
    test.wait_for_status(&look, "completed").await;
    let listed = test.cli(&["runs", "list", "--status", "paused"]).await;
    for run in [&bill, &kid, &parent, &pack] {
        assert!(listed.contains(id(run)), "{run} is in: {listed}");
    }
    let status = test.pointsman.get("/api/v2/status").await.to_string();
    assert!(status.contains("5 runs were open in it"), "{status}");
    let explained = test.explanation(&bill).await;
    assert!(explained.contains("pointsman paused it") && explained.contains("resume it"), "{explained}");

    // The signal comes again, and a person decides: the bill is not sent again, and the kid is cancelled.
    test.post_accepted(&format!("{bill}/signals/go"), json!({})).await;
    test.cli(&["runs", "skip", id(&bill), "bill", "--reason", "it is sent"]).await;
    test.cli(&["runs", "resume", id(&bill)]).await;
    test.wait_for_status(&bill, "completed").await;
    test.cli(&["runs", "resume", id(&parent)]).await;
    test.wait_for_status(&kid, "waiting_signal").await;
    test.kill_and_restart().await;
    assert_eq!(test.data(&kid).await["status"], "waiting_signal", "a run that was resumed is not paused again");
    test.cli(&["runs", "cancel", id(&parent), "--no-undo"]).await;
    test.wait_for_status(&kid, "cancelled").await;
    // The call that was in flight is sent again, with its key, only after the resume; this takes no second attempt.
    assert_eq!(test.step_service.count("POST /packs"), 1);
    test.cli(&["runs", "resume", id(&pack)]).await;
    test.wait_for_status(&pack, "completed").await;
    let keys: Vec<_> = test.step_service.seen("POST /packs").into_iter().map(|call| call.key).collect();
    assert!(keys.len() == 2 && keys[0] == keys[1] && keys[0].is_some(), "{keys:?}");
    assert_eq!(test.step_service.count("POST /bills"), 2, "none is sent again");
    test.finish().await;
    let name = "engine::restored_runs::open_runs_of_a_restored_backup_are_paused_unless_they_only_read";
    report_violations(name, None, "5 runs, 1 backup, 2 kills", &[]);
}

/// The process ends normally while a run waits, and other tools copy its files. The original store is then used again,
/// and is not removed.
#[tokio::test(flavor = "multi_thread")]
async fn open_runs_of_a_copy_beside_the_original_are_paused() {
    let mut test = EngineTest::with(&[BILL]).await;
    let bill = test.start_run("bill", json!({})).await;
    test.wait_for_status(&bill, "waiting_signal").await;
    assert_eq!(test.pointsman.stop().await, Some(0), "{}", test.pointsman.log());
    let path = |name: &str| test.dir.path().join(name);
    let copy = path("copy.db");
    for end in ["", ".keys"] {
        std::fs::copy(path(&format!("pointsman.db{end}")), path(&format!("copy.db{end}"))).expect("copied");
    }
    test.restart().await;
    test.post_accepted(&format!("{bill}/signals/go"), json!({})).await;
    test.wait_for_status(&bill, "completed").await;
    test.kill().await;
    test.start.store = format!("sqlite:{}", copy.display());
    test.restart().await;

    test.wait_for_status(&bill, "paused").await;
    let status = test.pointsman.get("/api/v2/status").await.to_string();
    assert!(status.contains("a copy of another one"), "{status}");
    test.cli(&["runs", "cancel", id(&bill)]).await;
    test.wait_for_status(&bill, "cancelled").await;
    assert_eq!(test.step_service.count("POST /bills"), 1);
    test.finish().await;
    let name = "engine::restored_runs::open_runs_of_a_copy_beside_the_original_are_paused";
    report_violations(name, None, "1 run, 1 copy", &[]);
}

/// The state between the two appends of a rerun: the first run has ended and names the second, which has no events.
const NOT_BEGUN: &str = "
CREATE TEMP TABLE second AS SELECT run_id FROM runs WHERE ended = 0;
DELETE FROM appends WHERE run_id IN second;
DELETE FROM runs WHERE run_id IN second;
DELETE FROM retry_keys WHERE run_id IN second;
INSERT INTO births (run_id, parent, at, record)
    SELECT (SELECT run_id FROM second), run_id, updated, CAST('{\"kind\":\"heir\",\"from\":\"go\"}' AS BLOB) FROM runs;
";

#[tokio::test(flavor = "multi_thread")]
async fn a_rerun_that_had_not_begun_when_a_backup_was_made_is_paused() {
    let mut test = EngineTest::with(&[BILL]).await;
    let first = test.start_run("bill", json!({})).await;
    test.wait_for_status(&first, "waiting_signal").await;
    test.cli(&["runs", "pause", id(&first)]).await;
    test.wait_for_status(&first, "paused").await;
    let (status, rerun) = test.post(&format!("{first}/rerun"), json!({ "from": "go" })).await;
    assert_eq!(status, 202, "{rerun}");
    let second = super::path(&rerun["data"]);
    test.wait_for_status(&second, "waiting_signal").await;
    test.back_up("copy.db").await;
    let copy = SqliteConnectOptions::new().filename(test.dir.path().join("copy.db"));
    let mut copy = copy.connect().await.expect("it opens");
    sqlx::raw_sql(NOT_BEGUN).execute(&mut copy).await.expect("it is changed");
    copy.close().await.expect("it closes");

    // Events after the backup was made.
    test.post_accepted(&format!("{second}/signals/go"), json!({})).await;
    test.wait_for_status(&second, "completed").await;
    test.kill().await;
    test.replace_store("copy.db");
    test.restart().await;

    until("the second run to begin again", || async {
        let listed = test.cli(&["runs", "list", "--status", "paused"]).await;
        listed.contains(id(&second)).then_some(())
    })
    .await;
    let told = test.events_of_kind(&second, "pause_ordered").await;
    assert!(told[0]["reason"].as_str().is_some_and(|why| why.contains("such as a restored backup")), "{told:?}");
    test.kill_and_restart().await;
    test.wait_for_status(&second, "paused").await;
    test.cli(&["runs", "resume", id(&second)]).await;
    test.wait_for_status(&second, "waiting_signal").await;
    test.cli(&["runs", "cancel", id(&second)]).await;
    test.wait_for_status(&second, "cancelled").await;
    assert_eq!(test.step_service.count("POST /bills"), 1, "it is not sent again");
    test.finish().await;
    let name = "engine::restored_runs::a_rerun_that_had_not_begun_when_a_backup_was_made_is_paused";
    report_violations(name, None, "2 runs, 1 backup, 2 kills", &[]);
}

/// The run goes on to undo its steps after the backup was made, and the restored store does not know that.
#[tokio::test(flavor = "multi_thread")]
async fn undos_of_a_run_that_was_ending_in_the_backup_are_held() {
    let mut test = EngineTest::with(&[RETURNS]).await;
    test.step_service.set_default("POST /bads", ScriptedReply::Done(400, json!({})));
    test.step_service.hold("DELETE /reserves");
    let run = test.start_run("returns", json!({})).await;
    test.wait_for_calls("DELETE /reserves", 1).await;
    test.back_up("copy.db").await;
    test.step_service.release_all("DELETE /reserves");
    test.wait_for_status(&run, "failed").await;
    assert_eq!(test.step_service.count("POST /refunds"), 1);
    test.kill().await;
    test.replace_store("copy.db");
    test.restart().await;

    test.wait_for_status(&run, "paused").await;
    let listed = test.cli(&["runs", "list", "--status", "paused"]).await;
    assert!(listed.contains(id(&run)), "{listed}");
    let explained = test.explanation(&run).await;
    assert!(explained.contains("its undos are held") && explained.contains("--no-undo"), "{explained}");
    test.cli(&["runs", "cancel", id(&run), "--no-undo", "--reason", "it is refunded"]).await;
    test.wait_for_status(&run, "cancelled").await;
    let undone = ["DELETE /reserves", "POST /refunds"].map(|endpoint| test.step_service.count(endpoint));
    assert_eq!(undone, [1, 1], "nothing is undone a second time");
    test.finish().await;
    let name = "engine::restored_runs::undos_of_a_run_that_was_ending_in_the_backup_are_held";
    report_violations(name, None, "1 run, 1 backup, 1 kill", &[]);
}

/// The parent fails, and its child undoes what it did. Both are paused in the copy, and a person resumes the parent.
#[tokio::test(flavor = "multi_thread")]
async fn a_child_that_was_ending_in_the_backup_is_resumed_with_its_parent() {
    let mut test = EngineTest::with(&[KID, ABOVE]).await;
    test.step_service.set_default("POST /bads", ScriptedReply::Done(400, json!({})));
    test.step_service.hold("POST /bads");
    test.step_service.hold("DELETE /reserves");
    let parent = test.start_run("above", json!({})).await;
    let kid = child_of(&test, &parent).await;
    test.wait_for_calls("POST /reserves", 1).await; // the store has the child by then
    test.wait_for_status(&kid, "waiting_signal").await;
    test.step_service.release_all("POST /bads");
    test.wait_for_calls("DELETE /reserves", 1).await;
    test.back_up("copy.db").await;
    test.step_service.release_all("DELETE /reserves");
    test.wait_for_status(&parent, "failed").await;
    test.kill().await;
    test.replace_store("copy.db");
    test.restart().await;

    for run in [&parent, &kid] {
        test.wait_for_status(run, "paused").await;
    }
    assert_eq!(test.step_service.count("DELETE /reserves"), 1, "its undo is held");
    test.cli(&["runs", "resume", id(&parent)]).await;
    test.wait_for_status(&kid, "cancelled").await;
    test.wait_for_status(&parent, "failed").await;
    assert_eq!(test.step_service.count("DELETE /reserves"), 2);
    test.finish().await;
    let name = "engine::restored_runs::a_child_that_was_ending_in_the_backup_is_resumed_with_its_parent";
    report_violations(name, None, "2 runs, 1 backup, 1 kill", &[]);
}
