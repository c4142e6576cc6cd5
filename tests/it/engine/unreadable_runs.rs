//! Runs whose plan or events this process cannot read: they are shown as stuck, tried again at each reload, and can be
//! ended.

use std::path::PathBuf;

use serde_json::{Value, json};
use sqlx::ConnectOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use uuid::Uuid;

use super::{EngineTest, id};
use crate::support::until;

const WAITING: &str = "
workflow: waiting
steps:
  reserve: { call: 'POST ${services.works}/stock', undo: 'DELETE ${services.works}/stock/1' }
  go: { needs: [reserve], wait: { signal: go } }
  charge: { needs: [go], call: 'POST ${services.works}/charges' }
respond: { status: 200, body: paid }
";

const PARENT: &str = "
workflow: parent
steps: { sub: { run: waiting } }
respond: { status: 200 }
";

const MANY_CHILDREN: usize = 40;

/// Starts as many runs as its input has items.
const PARENT_OF_MANY: &str = "
workflow: parent
steps: { sub: { for_each: '${request.body.items}', concurrency: 100, run: waits } }
respond: { status: 200 }
";

const WAITS: &str = "
workflow: waits
steps: { go: { wait: { signal: go } } }
respond: { status: 200 }
";

async fn database(path: &PathBuf) -> SqliteConnection {
    SqliteConnectOptions::new().filename(path).connect().await.expect("it opens")
}

fn run_key(run: &str) -> Vec<u8> {
    let uuid: Uuid = id(run).trim_start_matches("run_").parse().expect("an id");
    uuid.as_bytes().to_vec()
}

impl EngineTest {
    fn database_path(&self) -> PathBuf {
        self.dir.path().join("pointsman.db")
    }
    async fn waiting_run(&self) -> String {
        let run = self.start_run("waiting", json!({})).await;
        self.wait_for_status(&run, "waiting_signal").await;
        run
    }
    async fn check_stuck(&self, count: f64) {
        self.pointsman
            .until_metric("this many runs to be stuck", |metrics| metrics.sum("pointsman_runs_stuck", &[]) == count)
            .await;
    }
    /// Replaces a workflow's stored plan by one that cannot be read, and changes its file, so that the files do not
    /// have the plan either. The process must not run meanwhile. Returns the plan's id and source.
    async fn damage_plan(&self, workflow: &str, answer: (&str, &str)) -> (String, Vec<u8>) {
        let mut database = database(&self.database_path()).await;
        let like = format!("%\"workflow\":\"{workflow}\"%");
        let plan = sqlx::query_as("SELECT id, source FROM plans WHERE CAST(source AS TEXT) LIKE ?").bind(like);
        let (plan, source): (String, Vec<u8>) = plan.fetch_one(&mut database).await.expect("a plan");
        let damage = sqlx::query("UPDATE plans SET source = ? WHERE id = ?").bind(br#"{"workflow":7}"#.to_vec());
        let damaged = damage.bind(&plan).execute(&mut database).await.expect("it is damaged");
        assert_eq!(damaged.rows_affected(), 1);
        self.flags.edit(&format!("workflows/{workflow}.yaml"), |text| text.replace(answer.0, answer.1));
        (plan, source)
    }
    /// The open runs that this one started.
    async fn open_children(&self, parent: &str) -> usize {
        let list = self.pointsman.get(&format!("/api/v2/orchestrate/runs?parent={}&limit=100", id(parent))).await;
        let open = |run: &&Value| run["status"] != "cancelled";
        list["runs"].as_array().map(|runs| runs.iter().filter(open).count()).expect("a list")
    }
    /// Checks that the run is shown as stuck.
    async fn check_shown_as_stuck(&self, run: &str, why: &str) {
        let data = self.data(run).await;
        assert!(data["trouble"].as_str().is_some_and(|trouble| trouble.contains(why)), "{data}");
        let explained = self.pointsman.get(&format!("{run}/explain")).await;
        assert!(
            explained["stuck"] == true && explained["sentence"].as_str().unwrap().contains("--no-undo"),
            "{explained}"
        );
        let shown = self.cli(&["runs", "show", id(run)]).await;
        assert!(shown.contains("trouble: ") && shown.contains(why), "{shown}");
    }
    /// Checks that a cancel with undo is refused, and that one without undo ends the run.
    async fn cancel_unread(&self, run: &str) -> Value {
        let refused = self.post_refused(&format!("{run}/cancel"), json!({})).await;
        assert!(refused["detail"].as_str().unwrap().contains("--no-undo"), "{refused}");
        let other = self.post(&format!("{run}/signals/go"), json!({})).await;
        assert!(other.0 >= 409 && other.1["detail"].as_str().unwrap().contains("cannot be read"), "{other:?}");
        self.cli(&["runs", "cancel", id(run), "--no-undo", "--reason", "it is of no use"]).await;
        let data = self.data(run).await;
        let note = data["run"]["note"].as_str().unwrap_or_default();
        assert_eq!(data["status"], "cancelled", "{data}");
        assert!(note.contains("it is of no use") && note.contains("nothing was undone"), "{note}");
        assert_eq!(self.step_service.count("DELETE /stock"), 0, "nothing was undone");
        let again = self.post_refused(&format!("{run}/cancel"), json!({ "compensate": false })).await;
        assert_eq!(again["run_status"], "cancelled", "{again}");
        data
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_plan_cannot_be_read_is_shown_and_can_be_cancelled() {
    let mut test = EngineTest::with(&[WAITING, PARENT]).await;
    let (first, second) = (test.waiting_run().await, test.waiting_run().await);
    let parent = test.start_run("parent", json!({})).await;
    let child = until("the child to wait", || async {
        let list = test.pointsman.get(&format!("/api/v2/orchestrate/runs?parent={}", id(&parent))).await;
        let child = list["runs"].as_array().and_then(|runs| runs.first().cloned())?;
        (child["status"] == "waiting_signal").then(|| format!("{}/{}", super::RUN, child["run_id"].as_str().unwrap()))
    })
    .await;
    // The plan is replaced by one that this version cannot read.
    test.kill().await;
    let (plan, source) = test.damage_plan("waiting", ("body: paid", "body: done")).await;
    test.restart().await;
    test.check_stuck(3.0).await;
    let (status, list) = (test.cli(&["status"]).await, test.cli(&["runs", "list"]).await);
    for run in [&first, &second, &child] {
        assert!(status.contains(id(run)) && test.pointsman.log().contains(id(run)), "{status}");
        test.check_shown_as_stuck(run, &plan).await;
    }
    assert_eq!(list.matches("stuck: its plan").count(), 3, "{list}");

    let data = test.cancel_unread(&first).await;
    assert_eq!(data["undone"][0]["state"], "left", "{data}");
    test.check_stuck(2.0).await;
    // The parent learns that its child has ended.
    test.cancel_unread(&child).await;
    let data = test.wait_for_status(&parent, "failed").await;
    assert!(data["error"]["message"].as_str().unwrap().contains("cancelled"), "{data}");

    // The plan is restored: the next reload loads the run.
    let restore = sqlx::query("UPDATE plans SET source = ? WHERE id = ?").bind(source).bind(&plan);
    restore.execute(&mut database(&test.database_path()).await).await.expect("it is restored");
    test.flags.edit("workflows/parent.yaml", |text| text.replace("status: 200", "status: 201"));
    test.check_stuck(0.0).await;
    test.post_accepted(&format!("{second}/signals/go"), json!({})).await;
    test.wait_for_status(&second, "completed").await;
    test.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_events_cannot_be_read_is_shown_and_can_be_cancelled() {
    let mut test = EngineTest::with(&[WAITING]).await;
    let (garbled, contradicting) = (test.waiting_run().await, test.waiting_run().await);
    let undamaged = test.waiting_run().await;
    test.kill().await;
    let mut database = database(&test.database_path()).await;
    let mut before: Vec<(Vec<u8>, i64, Vec<u8>)> = Vec::new();
    for run in [&garbled, &contradicting] {
        let rows: Vec<(i64, Vec<u8>)> = sqlx::query_as("SELECT first, events FROM appends WHERE run_id = ?")
            .bind(run_key(run))
            .fetch_all(&mut database)
            .await
            .expect("its events");
        let (first, events) = rows.into_iter().max().expect("events");
        let text = String::from_utf8_lossy(&events).into_owned();
        let damaged = match run == &garbled {
            true => "0 {]".repeat(3),
            false => text.replace("\"step\":\"go\"", "\"step\":\"reserve\""),
        };
        assert_ne!(damaged, text);
        let damage = sqlx::query("UPDATE appends SET events = ? WHERE run_id = ? AND first = ?");
        let damage = damage.bind(damaged.into_bytes()).bind(run_key(run)).bind(first);
        damage.execute(&mut database).await.expect("it is damaged");
        before.push((run_key(run), first, events));
    }
    drop(database);
    test.restart().await;
    for run in [&garbled, &contradicting] {
        // The process has not tried to load the run yet.
        let explained = test.pointsman.get(&format!("{run}/explain")).await;
        assert!(explained["stuck"] == true, "{explained}");
        test.cancel_unread(run).await;
        let shown = test.cli(&["runs", "show", id(run)]).await;
        assert!(shown.contains("its events cannot be read"), "{shown}");
    }
    test.check_stuck(0.0).await;
    test.post_accepted(&format!("{undamaged}/signals/go"), json!({})).await;
    test.wait_for_status(&undamaged, "completed").await;

    // When the events are readable again, folding them gives the summary in the run's row.
    test.kill().await;
    let mut database = self::database(&test.database_path()).await;
    for (run, first, events) in before {
        let restore = sqlx::query("UPDATE appends SET events = ? WHERE run_id = ? AND first = ?");
        restore.bind(events).bind(run).bind(first).execute(&mut database).await.expect("it is restored");
    }
    drop(database);
    test.restart().await;
    for run in [&garbled, &contradicting] {
        let data = test.data(run).await;
        assert_eq!((&data["status"], &data["undone"][0]["state"]), (&json!("cancelled"), &json!("left")), "{data}");
    }
    test.finish().await;
}

/// The process is killed as soon as it has acknowledged the cancel of a run whose plan it cannot read: by then the
/// cancel has not been sent to all of its many children.
#[tokio::test(flavor = "multi_thread")]
async fn the_children_of_a_run_that_was_cancelled_unread_end_after_a_kill() {
    let mut test = EngineTest::with(&[WAITS, PARENT_OF_MANY]).await;
    let items: Vec<usize> = (0..MANY_CHILDREN).collect();
    let parent = test.start_run("parent", json!({ "items": items })).await;
    until("all children to begin", || async { (test.open_children(&parent).await == MANY_CHILDREN).then_some(()) })
        .await;
    test.kill().await;
    test.damage_plan("parent", ("status: 200", "status: 201")).await;
    test.restart().await;
    test.check_stuck(1.0).await;
    test.post_accepted(&format!("{parent}/cancel"), json!({ "compensate": false })).await;
    test.kill_and_restart().await;
    assert_eq!(test.data(&parent).await["status"], "cancelled");
    until("all children to end", || async { (test.open_children(&parent).await == 0).then_some(()) }).await;
    test.finish().await;
}
