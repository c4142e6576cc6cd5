//! A store that an older version wrote is upgraded at the start. The upgrade shows its progress, and a kill between two
//! of its batches loses nothing: the next process continues.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use pointsman::limits::Limits;
use pointsman::names::{RunId, Seq};
use pointsman::store::{RunFilter, SqliteStore, Store, StoredEvent};
use pointsman::workflow::RunSummary;
use rusqlite::{Connection, params};
use serde_json::{Value, json};
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode};
use sqlx::{ConnectOptions, Connection as _, SqlSafeStr};
use tokio::process::{Child, Command};
use uuid::Uuid;

use super::{EngineTest, RUN, id};
use crate::support::process::BINARY;
use crate::support::until_true;

const WAITS: &str = "
workflow: waits
steps:
  first: { call: 'POST ${services.works}/firsts' }
  go: { needs: [first], wait: { signal: go } }
  last: { needs: [go], call: 'POST ${services.works}/lasts' }
respond: { status: 200, body: done }
";

/// The migrations up to the last version that had a row for each event.
const OLDER: [&str; 6] = [
    include_str!("../../../src/store/schema/0001_first.sql"),
    include_str!("../../../src/store/schema/0002_run_keys.sql"),
    include_str!("../../../src/store/schema/0003_work.sql"),
    include_str!("../../../src/store/schema/0004_carried.sql"),
    include_str!("../../../src/store/schema/0005_lists.sql"),
    include_str!("../../../src/store/schema/0006_births.sql"),
];

/// How many copies of the ended run the older store has: enough for many batches of 1,000 events.
const COPIES: u128 = 2_500;
/// For how long a process is suspended: longer than the interval of progress messages.
const SUSPENDED: Duration = Duration::from_millis(2_200);

/// The runs of a store that no process uses, with their events.
async fn read_runs(path: &Path) -> Vec<(RunSummary, Vec<StoredEvent>)> {
    let store = SqliteStore::open(path, &Limits::default()).await.expect("it opens");
    let mut runs = Vec::new();
    for run in store.runs(RunFilter { limit: 9, ..RunFilter::default() }).await.expect("runs") {
        let events = store.events(run.run_id, Seq::FIRST).await.expect("events");
        runs.push((run, events));
    }
    store.close().await;
    runs
}

/// Writes a store as the older version did: the plans and the secret of `from`, and these runs.
async fn write_older_store(path: &Path, from: &Path, runs: &[(RunSummary, Vec<StoredEvent>)]) {
    let migration = |(version, text): (i64, &'static str)| {
        Migration::new(version, "older".into(), MigrationType::Simple, text.into_sql_str(), false)
    };
    let options = SqliteConnectOptions::new().filename(path).create_if_missing(true);
    let mut conn = options.journal_mode(SqliteJournalMode::Wal).connect().await.expect("it is created");
    let migrations = (1..).zip(OLDER).map(migration).collect();
    Migrator::with_migrations(migrations).run_direct(None, &mut conn, false).await.expect("its tables");
    conn.close().await.expect("it closes");
    let mut conn = Connection::open(path).expect("it opens");
    conn.execute("ATTACH DATABASE ? AS newer", [from.to_str()]).expect("the newer store");
    let write = conn.transaction().expect("a transaction");
    write
        .execute_batch(
            "INSERT INTO plans SELECT id, source FROM newer.plans;
             INSERT INTO meta SELECT key, value FROM newer.meta WHERE key = 'secret';
             INSERT INTO meta VALUES ('event_version', '2');",
        )
        .expect("plans and secret");
    for (run, events) in runs {
        insert_run(&write, run, run.run_id, events);
        let copies = if run.status.is_final() { COPIES } else { 0 };
        (1..=copies).for_each(|n| insert_run(&write, run, RunId(Uuid::from_u128(run.run_id.0.as_u128() + n)), events));
    }
    write.commit().expect("it is written");
}

/// Writes a run under another id.
fn insert_run(conn: &Connection, run: &RunSummary, id: RunId, events: &[StoredEvent]) {
    let renamed = |text: String| {
        let text = text.replace(&run.run_id.0.to_string(), &id.0.to_string());
        text.replace(&run.run_id.0.simple().to_string(), &id.0.simple().to_string())
    };
    let bytes = id.0.as_bytes().as_slice();
    let nanos = |at: jiff::Timestamp| i64::try_from(at.as_nanosecond()).expect("a time");
    let text = "INSERT INTO events (run_id, seq, at, kind, version, batch, event) VALUES (?, ?, ?, 'kind', 2, ?, ?)";
    let mut insert = conn.prepare_cached(text).expect("a statement");
    for StoredEvent { seq, at, event } in events {
        let event = renamed(serde_json::to_string(event).expect("JSON"));
        // Two events with one `batch` were written by one append.
        let batch = Uuid::from_u64_pair(id.0.as_u128() as u64, seq.0 / 2);
        let row = params![bytes, seq.0 as i64, nanos(*at), batch.as_bytes().as_slice(), event.into_bytes()];
        insert.execute(row).expect("an event");
    }
    let text = "INSERT INTO runs (run_id, first, seq, ended, status, workflow, mode, summary, turn, updated) \
                VALUES (?, 1, ?, ?, ?, ?, 'real', ?, ?, ?)";
    let summary = renamed(serde_json::to_string(run).expect("JSON")).into_bytes();
    let (is_ended, turn) = (run.status.is_final(), (!run.status.is_final()).then_some(0));
    let (status, workflow) = (run.status.as_str(), run.workflow.as_str());
    let row = params![bytes, run.seq.0 as i64, is_ended, status, workflow, summary, turn, nanos(run.updated)];
    conn.prepare_cached(text).expect("a statement").execute(row).expect("a run");
}

/// Starts a process, and does not wait until it listens.
fn spawn(test: &EngineTest) -> Child {
    let log = std::fs::OpenOptions::new().append(true).open(&test.start.log).expect("the log");
    Command::new(BINARY)
        .args(["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--store", &test.start.store, "--flags"])
        .arg(&test.start.flags)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .expect("the binary starts")
}

/// How many events are in rows of appends, and how many still have a row each.
fn counts(observer: &Connection) -> (i64, i64) {
    let count = |text: &str| observer.query_row(text, [], |row| row.get(0)).unwrap_or(0);
    (count("SELECT coalesce(sum(last - first + 1), 0) FROM appends"), count("SELECT count(*) FROM events"))
}

fn signal(process: &Child, signal: rustix::process::Signal) {
    let pid = process.id().and_then(|pid| i32::try_from(pid).ok()).and_then(rustix::process::Pid::from_raw);
    rustix::process::kill_process(pid.expect("it runs"), signal).expect("the signal is sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_upgrade_of_an_older_store_shows_progress_and_survives_kills() {
    let mut test = EngineTest::with(&[WAITS]).await;
    let open = test.start_run("waits", json!({})).await;
    let ended = test.start_run("waits", json!({})).await;
    test.wait_for_status(&open, "waiting_signal").await;
    test.post_accepted(&format!("{ended}/signals/go"), json!({})).await;
    test.wait_for_status(&ended, "completed").await;
    let trail = test.events(&ended).await;
    assert_eq!(test.pointsman.stop().await, Some(0));
    let path = test.dir.path().join("pointsman.db");
    let older = test.dir.path().join("older.db");
    write_older_store(&older, &path, &read_runs(&path).await).await;
    for end in ["", "-wal", "-shm", ".keys", ".evidence", ".lock"] {
        let _ = std::fs::remove_file(format!("{}{end}", path.display())); // may not exist
    }
    std::fs::rename(older, &path).expect("renamed");
    let observer = Connection::open(&path).expect("it opens");
    let (_, total) = counts(&observer);

    let mut process = spawn(&test);
    until_true("the first batch", || counts(&observer).0 > 0).await;
    process.kill().await.expect("it is killed");
    let (moved, left) = counts(&observer);
    assert!(moved + left == total && left > 0, "{moved} moved, {left} left of {total}");

    // The next process is suspended for longer than the interval of progress messages, continued, and killed.
    let mut process = spawn(&test);
    until_true("a further batch", || counts(&observer).0 > moved).await;
    signal(&process, rustix::process::Signal::STOP);
    assert!(counts(&observer).1 > 2_000, "at least two batches are left: {:?}", counts(&observer));
    tokio::time::sleep(SUSPENDED).await;
    signal(&process, rustix::process::Signal::CONT);
    until_true("the progress", || test.pointsman.log().contains(" events moved (")).await;
    process.kill().await.expect("it is killed");
    let (moved, left) = counts(&observer);
    assert_eq!(moved + left, total);
    drop(observer);

    test.allowed.crashes += 2;
    test.restart().await;
    let log = test.pointsman.log();
    assert!(log.contains("the store has tables of version 6 and is upgraded to version 19 now: about"), "{log}");
    assert!(log.contains(&format!("about {total} events are moved")), "{log}");
    let checked = test.cli(&["store", "check", "--store", &test.start.store, "--json"]).await;
    let checked: Value = serde_json::from_str(&checked).expect("JSON");
    assert_eq!((&checked["fine"], &checked["runs"]), (&json!(true), &json!(COPIES as u64 + 2)), "{checked}");
    assert_eq!(test.events(&ended).await, trail);
    let ended_id = id(&ended).trim_start_matches("run_");
    let copy = Uuid::from_u128(ended_id.parse::<Uuid>().expect("an id").as_u128() + COPIES);
    assert_eq!(test.events(&format!("{RUN}/run_{}", copy.simple())).await.len(), trail.len());
    test.post_accepted(&format!("{open}/signals/go"), json!({})).await;
    test.wait_for_status(&open, "completed").await;
    assert_eq!(test.step_service.effects("POST /lasts"), 2);
    test.finish().await;
}
