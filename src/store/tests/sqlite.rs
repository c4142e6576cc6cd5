//! Tests that need a database file.

use serde_json::Value;

use super::*;
use crate::store::{AppendError, RunFilter, Store, StoreTime};
use crate::workflow::{CallRecord, Outcome, StepFinished, StepPart};

async fn open(dir: &tempfile::TempDir) -> Result<SqliteStore, crate::store::StoreError> {
    SqliteStore::open(dir.path().join("test.db"), &Limits::default()).await
}

/// Changes the rows of a database directly.
async fn edit(dir: &tempfile::TempDir, text: &'static str) {
    use sqlx::{Connection, Executor, SqlSafeStr};
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(dir.path().join("test.db"));
    let mut conn = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
    conn.execute(text.into_sql_str()).await.unwrap();
    conn.close().await.unwrap();
}

#[tokio::test]
async fn the_time_of_a_store_is_that_of_its_newest_event() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir).await.unwrap();
    assert_eq!(store.time().await.unwrap(), StoreTime::NewestEvent(None));
    store.append(append(run_id(1), 1, 5).into()).await.unwrap();
    let mut earlier = append(run_id(2), 1, 2);
    earlier.events[1].0 = at(3);
    store.append(earlier.into()).await.unwrap();
    assert_eq!(store.time().await.unwrap(), StoreTime::NewestEvent(Some(at(5))));
    store.close().await;
    let again = open(&dir).await.unwrap();
    assert_eq!(again.time().await.unwrap(), StoreTime::NewestEvent(Some(at(5))));
}

#[tokio::test]
async fn opening_an_open_file_is_refused_with_the_id_of_its_process() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(&dir).await.unwrap();
    let refused = open(&dir).await.map(|_| ()).unwrap_err().0;
    assert!(refused.contains(&format!("is in use by process {}", std::process::id())), "{refused}");
    first.close().await;
    open(&dir).await.unwrap().close().await;
}

#[tokio::test]
async fn a_store_of_a_newer_version_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    open(&dir).await.unwrap().close().await;
    edit(&dir, "UPDATE meta SET value = x'3939' WHERE key = 'event_version'").await;
    let refused = open(&dir).await.map(|_| ()).unwrap_err().0;
    assert!(refused.contains("events of version 99,"), "{refused}");
    edit(&dir, "UPDATE meta SET value = x'32' WHERE key = 'event_version'").await;
    let store = open(&dir).await.unwrap();
    store.append(append(run_id(1), 1, 3).into()).await.unwrap();
    store.close().await;
    // The versions of the rows count, whatever the recorded version says.
    edit(&dir, "UPDATE appends SET version = 98 WHERE first = 1").await;
    let refused = open(&dir).await.map(|_| ()).unwrap_err().0;
    assert!(refused.contains(&format!("events of version 98 (such as event 1 of {})", run_id(1))), "{refused}");
    edit(&dir, "UPDATE appends SET version = 2").await;
    edit(
        &dir,
        "UPDATE meta SET value = x'31' WHERE key = 'event_version'; \
         INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (77, 'later', true, x'00', 1)",
    )
    .await;
    let refused = open(&dir).await.map(|_| ()).unwrap_err().0;
    assert!(refused.contains("tables of version 77"), "{refused}");
    edit(&dir, "DELETE FROM _sqlx_migrations WHERE version = 77").await;
    open(&dir).await.unwrap().close().await;
}

/// Events as each version wrote them, and the status of their run.
const EVENTS_OF_VERSIONS: [(u16, RunStatus, &[&str]); 4] = [
    (
        1,
        RunStatus::Completed,
        &[
            r#"{"run_started":{"run":"RUN","workflow":"create-order","plan":"plan_1","mode":"real","route":"orders.create","started":"2027-01-15T08:00:00Z","request":{"body":{"items":[1]}},"credentials":["authorization"],"sealed":"c2VhbGVk","legacy":null,"instance":null,"creates":{"engine":{"family":"orders.create","path":"$.id"}},"traceparent":null}}"#,
            r#"{"step_computed":{"step":"a","output":{"n":12345678901234567890}}}"#,
            r#"{"step_skipped":{"step":"b","reason":"condition"}}"#,
            r#"{"step_started":{"step":"c","item":null,"attempt":1,"key":"k","effect":"shared","repeatable":true,"request":{"method":"POST","url":"http://h/","headers":[["content-type","application/json"]],"body":{"text":"{}"}}}}"#,
            r#"{"retry_scheduled":{"step":"c","item":null,"attempt":1,"unknown":false,"why":"429","at":"2027-01-15T08:00:01Z"}}"#,
            r#"{"step_started":{"step":"c","item":null,"attempt":2,"key":"k","effect":"shared","repeatable":true,"request":null}}"#,
            r#"{"step_finished":{"step":"c","item":null,"attempt":2,"outcome":{"done":{"status":200,"headers":{"a":"b"},"output":{"id":1}}}}}"#,
            r#"{"fan_out_opened":{"step":"d","items":[{"sku":"x"}]}}"#,
            r#"{"step_finished":{"step":"d","item":0,"attempt":0,"outcome":{"rehearsed":{"intent":{"method":"POST","url":"http://h/","headers":[],"body":"empty"},"output":null,"note":"none"}}}}"#,
            r#"{"responded":{"answer":{"status":201,"headers":[],"body":{"text":"{\"id\":17}"}},"pin":{"family":"orders.create","id":"17","twin":false}}}"#,
            r#"{"completed":{}}"#,
        ],
    ),
    (
        1,
        RunStatus::Paused,
        &[
            r#"{"run_started":{"run":"RUN","workflow":"create-order","plan":"plan_1","mode":"real","route":null,"started":"2027-01-15T08:00:00Z","request":{},"credentials":[],"sealed":null,"legacy":null,"instance":null,"creates":null,"traceparent":null}}"#,
            r#"{"step_started":{"step":"c","item":null,"attempt":1,"key":"k","effect":"shared","repeatable":false,"request":{"method":"POST","url":"http://h/","headers":[],"body":"empty"}}}"#,
            r#"{"paused":{"conflict":{"kind":"outcome_unknown","step":"c","item":null,"attempt":1,"message":"m","status":null,"request":null}}}"#,
        ],
    ),
    (
        2,
        RunStatus::Paused,
        &[
            r#"{"run_started":{"run":"RUN","workflow":"create-order","plan":"plan_1","mode":"real","route":null,"started":"2027-01-15T08:00:00Z","request":{},"credentials":[],"sealed":null,"legacy":null,"instance":null,"creates":null,"traceparent":null}}"#,
            r#"{"step_started":{"step":"c","item":null,"attempt":1,"key":"k","effect":"shared","repeatable":false,"request":{"method":"POST","url":"http://h/","headers":[],"body":"empty"}}}"#,
            r#"{"step_finished":{"step":"c","item":null,"attempt":1,"outcome":{"done":{"status":200,"headers":{},"output":{"id":1}}}}}"#,
            r#"{"cancel_ordered":{"by":"ann","compensate":true,"reason":null}}"#,
            r#"{"compensation_began":{"undo":[[["c",null]]]}}"#,
            r#"{"step_started":{"step":"c","item":null,"part":"undo","attempt":1,"key":"u","effect":"shared","repeatable":false,"request":{"method":"DELETE","url":"http://h/1","headers":[],"body":"empty"}}}"#,
            r#"{"paused":{"conflict":{"kind":"undo_failed","step":"c","item":null,"part":"undo","attempt":1,"message":"m","status":null,"request":null,"choices":["retry","skip","take","cancel"]}}}"#,
        ],
    ),
    (
        3,
        RunStatus::Paused,
        &[
            r#"{"run_started":{"run":"RUN","workflow":"create-order","plan":"plan_1","mode":"real","route":null,"started":"2027-01-15T08:00:00Z","request":{},"credentials":[],"sealed":null,"legacy":null,"instance":null,"creates":null,"traceparent":null}}"#,
            r#"{"step_started":{"step":"c","item":null,"attempt":1,"key":"k","effect":"shared","repeatable":false,"request":{"method":"POST","url":"http://h/","headers":[],"body":"empty"}}}"#,
            r#"{"step_finished":{"step":"c","item":null,"attempt":1,"outcome":{"done":{"status":200,"headers":{},"output":{"id":1}}}}}"#,
            r#"{"cancel_ordered":{"by":"ann","compensate":true,"reason":null}}"#,
            r#"{"compensation_began":{"undo":[[["c",null]]]}}"#,
            r#"{"step_started":{"step":"c","item":null,"part":"undo","attempt":1,"key":"u","effect":"shared","repeatable":false,"request":{"method":"DELETE","url":"http://h/1","headers":[],"body":"empty"}}}"#,
            r#"{"paused":{"conflict":{"kind":"undo_unknown","step":"c","item":null,"part":"undo","attempt":1,"message":"m","status":null,"request":null,"choices":["retry","skip","take","cancel"]}}}"#,
        ],
    ),
];

#[tokio::test]
async fn events_of_every_version_are_read() {
    let versions = EVENTS_OF_VERSIONS.map(|(version, ..)| version);
    assert_eq!(versions.last(), Some(&Event::VERSION), "add events of the newest version");
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir).await.unwrap();
    for (n, (.., events)) in (1..).zip(EVENTS_OF_VERSIONS) {
        store.append(append(run_id(n), 1, events.len() as u64).into()).await.unwrap();
    }
    store.close().await;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(dir.path().join("test.db"));
    let mut conn = sqlx::ConnectOptions::connect(&options).await.unwrap();
    for (n, (version, _, events)) in (1..).zip(EVENTS_OF_VERSIONS) {
        let lines = events.iter().map(|event| format!("0 {}", event.replace("RUN", &run_id(n).0.to_string())));
        sqlx::query("UPDATE appends SET version = ?, events = ? WHERE run_id = ?")
            .bind(version)
            .bind(lines.collect::<Vec<_>>().join("\n").into_bytes())
            .bind(run_id(n).0.as_bytes().as_slice())
            .execute(&mut conn)
            .await
            .unwrap();
    }
    sqlx::Connection::close(conn).await.unwrap();
    edit(&dir, "UPDATE meta SET value = x'31' WHERE key = 'event_version'").await;
    let store = open(&dir).await.unwrap();
    for (n, (version, status, _)) in (1..).zip(EVENTS_OF_VERSIONS) {
        let events = store.events(run_id(n), Seq::FIRST).await.unwrap();
        let run = fold(events.iter().map(|stored| &stored.event)).unwrap();
        assert_eq!(run.status(), status, "version {version}");
        // What is written today is read again.
        for stored in &events {
            let text = serde_json::to_string(&stored.event).unwrap();
            assert_eq!(serde_json::from_str::<Event>(&text).unwrap(), stored.event);
        }
    }
    store.close().await;
}

#[tokio::test]
async fn a_null_output_is_read_back_as_null_and_a_missing_one_as_missing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir).await.unwrap();
    let (url, headers, secrets) = ("http://h/".into(), Vec::new(), Default::default());
    let intent = CallRecord { method: "POST".into(), url, headers, body: Payload::Empty, secrets };
    let rehearsed = |output: Option<Value>| {
        let (output, note, taken) = (output.map(Into::into), None, None);
        let outcome = Outcome::Rehearsed { intent: intent.clone().into(), output, note, taken };
        Event::StepFinished(StepFinished { step: "a".into(), item: None, part: StepPart::Do, attempt: 1, outcome })
    };
    let all = [rehearsed(None), rehearsed(Some(Value::Null)), rehearsed(Some(json!(7)))];
    let mut first = append(run_id(1), 1, 4);
    for (slot, event) in first.events[1..].iter_mut().zip(&all) {
        slot.1 = event.clone();
    }
    store.append(first.into()).await.unwrap();
    store.close().await;
    let store = open(&dir).await.unwrap();
    let read: Vec<Event> =
        store.events(run_id(1), Seq(2)).await.unwrap().into_iter().map(|stored| stored.event).collect();
    assert_eq!(read, all);
    store.close().await;
}

#[tokio::test]
async fn the_database_of_another_program_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    open(&dir).await.unwrap().close().await;
    edit(&dir, "DROP TABLE _sqlx_migrations").await;
    let refused = open(&dir).await.map(|_| ()).unwrap_err().0;
    assert!(refused.contains("of another program"), "{refused}");
}

#[test]
fn the_database_is_opened_with_full_sync_secure_deletion_and_a_write_ahead_log() {
    let dir = tempfile::tempdir().unwrap();
    let conn = super::super::sqlite::Options::new(&dir.path().join("x.db")).open().unwrap();
    let number = |name: &str| conn.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(number("synchronous"), 2, "FULL");
    assert_eq!(number("secure_delete"), 1);
    let mode = conn.pragma_query_value(None, "journal_mode", |row| row.get::<_, String>(0)).unwrap();
    assert_eq!(mode, "wal");
}

#[tokio::test]
async fn the_write_ahead_log_is_checkpointed_as_it_grows() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir).await.unwrap();
    let size = |name: &str| std::fs::metadata(dir.path().join(name)).unwrap().len();
    let page = 4_096 + 24;
    for n in 1..=1_500 {
        store.append(append(run_id(n), 1, 1).into()).await.unwrap();
    }
    // Each append takes three pages of the log or more.
    let log = size("test.db-wal");
    assert!(log < 1_100 * page, "{log} bytes in the log");
    assert!(size("test.db") > 100 * 4_096, "{} bytes in the database", size("test.db"));
    store.close().await;
}

#[tokio::test]
async fn the_cache_of_runs_is_checked_against_the_database() {
    // With appends of one event, and of several.
    check_cache(1).await;
    check_cache(5).await;
}

async fn check_cache(events: u64) {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir).await.unwrap();
    for n in 1..=3 {
        store.append(append(run_id(n), 1, 1).into()).await.unwrap();
        store.append(append(run_id(n), 2, 1).into()).await.unwrap();
    }
    edit(
        &dir,
        "DELETE FROM appends WHERE first = 2; DELETE FROM runs WHERE pos = 1; UPDATE runs SET seq = 1 WHERE pos = 2; \
                UPDATE runs SET turn = 0, owner = NULL WHERE pos = 3; INSERT INTO appends SELECT 99, run_id, 2, 2, at, \
                version, batch, parts, events FROM appends WHERE pos = 5",
    )
    .await;
    let appends = (1..=3).map(|n| store.append(append(run_id(n), 3, events).into()));
    let done = futures_util::future::join_all(appends).await;
    let conflict = |stored| Err(AppendError::Conflict(crate::store::AppendConflict::Seq { stored: Seq(stored) }));
    assert_eq!(done, [conflict(0), conflict(1), Ok(())]);
    store.append(append(run_id(2), 2, 1).into()).await.unwrap();
    store.append(append(run_id(3), 3 + events, 1).into()).await.unwrap();
    assert_eq!(store.run(run_id(3)).await.unwrap().map(|run| run.seq), Some(Seq(3 + events)));
    store.close().await;
    use sqlx::ConnectOptions;
    let mut conn = super::super::sqlite::setup_options(&dir.path().join("test.db")).connect().await.unwrap();
    let rows: Vec<(i64, Option<i64>, bool)> =
        sqlx::query_as("SELECT pos, turn, owner IS NULL FROM runs ORDER BY pos").fetch_all(&mut conn).await.unwrap();
    assert_eq!(rows, [(2, None, false), (3, None, false)]);
}

#[tokio::test]
async fn a_full_queue_refuses_at_once() {
    let limits = Limits { append_queue_max: 4, ..Limits::default() };
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(dir.path().join("test.db"), &limits).await.unwrap();
    store.pause_writer(true);
    let waiting: Vec<_> = (0..5).map(|n| store.append(append(run_id(n), 1, 1).into())).collect();
    // Other writes wait in a queue of their own.
    let plan = store.put_plan("plan_1".into(), json!({}));
    store.pause_writer(false);
    let done = futures_util::future::join_all(waiting).await;
    assert_eq!(done.iter().filter(|done| done.is_ok()).count(), 4);
    assert!(matches!(&done[4], Err(AppendError::Refused(why)) if why.contains("append_queue_max")), "{done:?}");
    plan.await.unwrap();
}

#[tokio::test]
async fn submitted_appends_are_stored_before_the_store_closes() {
    let dir = tempfile::tempdir().unwrap();
    for n in 0..20 {
        let store = open(&dir).await.unwrap();
        store.pause_writer(true);
        let waiting: Vec<_> = (0..3).map(|of| store.append(append(run_id(n * 3 + of), 1, 1).into())).collect();
        let closing = store.close();
        store.pause_writer(false);
        closing.await;
        let done = futures_util::future::join_all(waiting).await;
        assert!(done.iter().all(Result::is_ok), "{done:?}");
        let late = store.append(append(run_id(99), 1, 1).into()).await;
        assert!(matches!(&late, Err(AppendError::Refused(why)) if why.contains("closed")), "{late:?}");
        store.close().await;
    }
    let store = open(&dir).await.unwrap();
    assert_eq!(store.runs(RunFilter { limit: 100, ..RunFilter::default() }).await.unwrap().len(), 60);
}

#[tokio::test]
async fn an_append_whose_caller_is_dropped_is_stored() {
    let fixture = StoreFixture::new(StoreKind::Sqlite).await;
    for n in 0..50 {
        drop(fixture.store.append(append(run_id(n), 1, 2).into()));
    }
    fixture.store.append(append(run_id(50), 1, 1).into()).await.unwrap();
    assert_eq!(fixture.store.runs(RunFilter { limit: 100, ..RunFilter::default() }).await.unwrap().len(), 51);
}

#[tokio::test]
async fn live_appends_are_stored_before_dark_ones() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { append_dark_batch_events_max: 2, ..Limits::default() };
    let store = SqliteStore::open(dir.path().join("test.db"), &limits).await.unwrap();
    store.pause_writer(true);
    let dark = |n| store.append(Arc::new(Append { priority: Priority::Dark, ..append(run_id(n), 1, 1) }));
    let waiting: Vec<_> = (0..6).map(dark).collect();
    let live = store.append(append(run_id(6), 1, 1).into());
    store.pause_writer(false);
    live.await.unwrap();
    futures_util::future::join_all(waiting).await.into_iter().collect::<Result<Vec<_>, _>>().unwrap();
    store.close().await;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(dir.path().join("test.db"));
    let mut conn = sqlx::ConnectOptions::connect(&options).await.unwrap();
    let order: Vec<(Vec<u8>,)> =
        sqlx::query_as("SELECT run_id FROM appends ORDER BY pos").fetch_all(&mut conn).await.unwrap();
    let order: Vec<u64> =
        order.iter().map(|(run,)| (0..7).find(|n| run_id(*n).0.as_bytes() == run.as_slice()).unwrap()).collect();
    assert_eq!(order, [6, 0, 1, 2, 3, 4, 5]);
}

#[tokio::test]
async fn a_full_disk_refuses_appends_and_the_store_recovers_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("test.db");
    // At its own bound on pages SQLite returns the same error as on a full disk.
    let options = super::super::sqlite::Options::new(&path).pragma("max_page_count", "60");
    let store = SqliteStore::open_with(&path, &Limits::default(), options).await.unwrap();
    let big = |n| {
        let mut append = append(run_id(n), 1, 1);
        append.summary.note = Some("x".repeat(50_000));
        append
    };
    let mut acknowledged = 0;
    let refused = loop {
        match store.append(big(acknowledged).into()).await {
            Ok(()) => acknowledged += 1,
            Err(error) => break error,
        }
        assert!(acknowledged < 100);
    };
    assert!(matches!(refused, AppendError::Refused(_)), "{refused}");
    assert!(!store.healthy());
    let found = store.runs(RunFilter { limit: 100, ..RunFilter::default() }).await.unwrap();
    assert_eq!(found.len() as u64, acknowledged, "all acknowledged appends are stored, and the refused one is not");
    // The writer's probe still fits into the file, and its commit makes the store healthy again. A small append fits.
    tokio::time::timeout(std::time::Duration::from_secs(20), async {
        while !store.healthy() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("a probe makes the store healthy again");
    store.append(append(run_id(acknowledged), 1, 1).into()).await.unwrap();
    store.close().await;
}

#[tokio::test]
async fn an_append_is_one_row_and_a_summary_is_written_when_listings_change() {
    let fixture = StoreFixture::new(StoreKind::Sqlite).await;
    let one = run_id(1);
    let with_note = |append: Append, note: Option<&str>| Append {
        summary: RunSummary { note: note.map(str::to_owned), ..append.summary },
        ..append
    };
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(fixture.file().unwrap());
    let mut conn = sqlx::ConnectOptions::connect(&options).await.unwrap();
    let mut written = Vec::new();
    for (first, note) in [(1, None), (4, None), (7, None), (10, Some("why")), (13, Some("why")), (16, None)] {
        fixture.store.append(with_note(append(one, first, 3), note).into()).await.unwrap();
        let (json,): (Vec<u8>,) = sqlx::query_as("SELECT summary FROM runs").fetch_one(&mut conn).await.unwrap();
        written.push(serde_json::from_slice::<RunSummary>(&json).unwrap().seq.0);
        let mut expected = summary(one, first + 2);
        expected.note = note.map(str::to_owned);
        assert_eq!(fixture.store.run(one).await.unwrap().unwrap(), expected);
        let listed = fixture.store.runs(RunFilter { limit: 9, ..RunFilter::default() }).await.unwrap();
        assert_eq!(listed, [expected]);
    }
    assert_eq!(written, [3, 3, 3, 12, 12, 18]);
    let (rows,): (i64,) = sqlx::query_as("SELECT count(*) FROM appends").fetch_one(&mut conn).await.unwrap();
    assert_eq!(rows, 6);
    // Reads from a seq within an append, at its beginning, and after the last event.
    for (from, count) in [(1, 18), (8, 11), (10, 9), (18, 1), (19, 0)] {
        let events = fixture.store.events(one, Seq(from)).await.unwrap();
        assert_eq!((events.len(), events.first().map_or(from, |event| event.seq.0)), (count, from));
    }
}
