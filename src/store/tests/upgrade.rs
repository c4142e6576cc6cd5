//! Tests that the upgrade of a store that an older version wrote loses no event, whatever interrupts it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection};

use super::*;
use crate::flag::RetryKey;
use crate::store::sqlite::{NEWEST_VERSION, migrate_to};
use crate::store::{AppendError, Store};

const DATABASE: &str = "POINTSMAN_TEST_UPGRADE_DATABASE";
/// The last version whose events had rows of their own.
const OLDER: i64 = 6;
const RUNS: u64 = 20;
const EVENTS: u64 = 1_000;

async fn connect(path: &Path) -> SqliteConnection {
    SqliteConnectOptions::new().filename(path).create_if_missing(true).connect().await.unwrap()
}

fn run_events(run: RunId, events: u64) -> Vec<Event> {
    let mut run_events = vec![run_started(run, at(0))];
    run_events.extend((1..events).map(test_event));
    run_events
}

/// A file as the older version left it: batches of three events, one payload that several events refer to.
async fn write_older_file(path: &Path, runs: u64, events: u64) {
    let options = crate::store::sqlite::setup_options(path);
    let mut conn = options.connect().await.unwrap();
    migrate_to(&mut conn, path, OLDER).await.unwrap();
    let mut write = conn.begin().await.unwrap();
    sqlx::query("INSERT INTO plans VALUES ('plan_1', '{}')").execute(&mut *write).await.unwrap();
    sqlx::query("INSERT INTO meta VALUES ('event_version', '2')").execute(&mut *write).await.unwrap();
    let large = serde_json::to_vec(&json!("x".repeat(20_000))).unwrap();
    let hash = *blake3::hash(&large).as_bytes();
    let payload = sqlx::query("INSERT INTO payloads (hash, body) VALUES (?, ?)").bind(hash.to_vec()).bind(large);
    payload.execute(&mut *write).await.unwrap();
    for n in 1..=runs {
        let run = run_id(n);
        let id = run.0.as_bytes().to_vec();
        let run_events = run_events(run, events);
        for (seq, event) in (1_i64..).zip(&run_events) {
            // Every hundredth event has its output in a row of payloads.
            let mut json = serde_json::to_vec(event).unwrap();
            if seq % 100 == 50 {
                json =
                    format!("{{\"step_computed\":{{\"step\":\"step-{}\",\n\"output\":null}}}}", seq - 1).into_bytes();
                let text = "INSERT INTO payload_refs VALUES (?, ?, '/step_computed/output', ?)";
                let put = sqlx::query(text).bind(id.clone()).bind(seq).bind(hash.to_vec());
                put.execute(&mut *write).await.unwrap();
            }
            let text = "INSERT INTO events (run_id, seq, at, kind, version, batch, event) VALUES (?, ?, ?, ?, 2, ?, ?)";
            let put = sqlx::query(text).bind(id.clone()).bind(seq).bind(seq * 7).bind(event.kind());
            let batch = Uuid::from_u64_pair(n, (seq as u64 - 1) / 3).as_bytes().to_vec();
            put.bind(batch).bind(json).execute(&mut *write).await.unwrap();
        }
        let summary = fold(&run_events).unwrap().summary(Timestamp::from_nanosecond(i128::from(events) * 7).unwrap());
        let text = "INSERT INTO runs (run_id, first, seq, ended, status, workflow, route, mode, summary, turn, updated) \
                    VALUES (?, 1, ?, 0, ?, 'create-order', 'orders.create', 'real', ?, 0, ?)";
        // Written after its events, because a trigger checks that the events of an existing run follow without a gap.
        let put = sqlx::query(text).bind(id).bind(events as i64).bind(summary.status.as_str());
        put.bind(serde_json::to_vec(&summary).unwrap()).bind(events as i64 * 7).execute(&mut *write).await.unwrap();
    }
    write.commit().await.unwrap();
    conn.close().await.unwrap();
}

fn expected(run: RunId, events: u64) -> Vec<(u64, i64, Event)> {
    let large = Arc::new(json!("x".repeat(20_000)));
    let event = |(seq, event): (u64, Event)| match event {
        Event::Step(StepEvent::Computed { step, .. }) if seq % 100 == 50 => {
            (seq, seq as i64 * 7, Event::Step(StepEvent::Computed { step, output: large.clone().into() }))
        }
        event => (seq, seq as i64 * 7, event),
    };
    (1..).zip(run_events(run, events)).map(event).collect()
}

async fn assert_holds_all(store: &impl Store, runs: u64, events: u64) {
    for n in 1..=runs {
        let stored = store.events(run_id(n), Seq::FIRST).await.unwrap();
        let stored = stored.into_iter().map(|stored| {
            let at = stored.at.as_nanosecond() as i64;
            (stored.seq.0, at, stored.event)
        });
        assert!(stored.eq(expected(run_id(n), events)), "run {n}");
    }
}

/// The child process: opens the database and closes it. Does nothing without the variable.
#[tokio::test]
async fn child() {
    let Some(path) = std::env::var_os(DATABASE) else { return };
    SqliteStore::open(PathBuf::from(path), &Limits::default()).await.unwrap().close().await;
}

async fn rows(conn: &mut SqliteConnection, text: &'static str) -> Option<i64> {
    sqlx::query_as::<_, (i64,)>(text).fetch_one(conn).await.ok().map(|(count,)| count)
}

#[tokio::test]
async fn an_upgrade_of_a_file_survives_repeated_kills() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("test.db");
    write_older_file(&path, RUNS, EVENTS).await;
    let mut observer = connect(&path).await;
    let (mut kills, mut kill_after) = (0, 0);
    loop {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::tests::upgrade::child", "--test-threads=1"])
            .env(DATABASE, &path)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let ended = loop {
            let moved = rows(&mut observer, "SELECT sum(last - first + 1) FROM appends").await.unwrap_or(0);
            if moved > kill_after {
                child.kill().unwrap();
                child.wait().unwrap();
                break false;
            }
            if child.try_wait().unwrap().is_some() {
                break true;
            }
        };
        let moved = rows(&mut observer, "SELECT sum(last - first + 1) FROM appends").await.unwrap_or(0);
        let Some(left) = rows(&mut observer, "SELECT count(*) FROM events").await else { break };
        assert_eq!(moved + left, (RUNS * EVENTS) as i64, "every event is in one of the two tables");
        kills += i64::from(!ended && left > 0);
        kill_after = moved + 2_000;
    }
    assert!(kills >= 2, "it was killed during the upgrade {kills} times");
    observer.close().await.unwrap();

    let store = SqliteStore::open(&path, &Limits::default()).await.unwrap();
    assert_holds_all(&store, RUNS, EVENTS).await;
    assert_eq!(store.run(run_id(3)).await.unwrap().unwrap().seq, Seq(EVENTS));
    store.append(append(run_id(3), EVENTS + 1, 1).into()).await.unwrap();
    assert_eq!(seqs(&(Arc::new(store) as StoreHandle), run_id(3)).await.len() as u64, EVENTS + 1);
    let mut conn = connect(&path).await;
    // One row for each append, and one more where a batch of the upgrade ended within an append.
    let appends = rows(&mut conn, "SELECT count(*) FROM appends WHERE last <= 1000").await.unwrap();
    let whole = (RUNS * EVENTS.div_ceil(3)) as i64;
    assert!((whole..whole + 30).contains(&appends), "{appends} rows for {whole} appends");
    // A binary of the older version refuses the file.
    let refused = migrate_to(&mut conn, &path, OLDER).await.unwrap_err().0;
    assert!(refused.contains("has tables of version 7"), "{refused}");
}

#[tokio::test]
async fn an_older_file_can_be_backed_up_before_its_upgrade() {
    let dir = tempfile::tempdir().unwrap();
    let (path, copy) = (dir.path().join("test.db"), dir.path().join("before.db"));
    write_older_file(&path, 2, 120).await;
    let refused = SqliteStore::check(&path, Duration::ZERO).await.unwrap_err().0;
    assert!(refused.contains("make a copy by `pointsman store backup`"), "{refused}");
    back_up(&path, &copy).await.unwrap();
    let checked = SqliteStore::check_copy(&copy, Duration::ZERO).await.unwrap();
    assert_eq!((checked.runs, checked.events), (2, 240));
    let store = SqliteStore::open(&path, &Limits::default()).await.unwrap();
    assert_holds_all(&store, 2, 120).await;
    store.close().await;
    let checked = SqliteStore::check(&path, Duration::ZERO).await.unwrap();
    assert_eq!((checked.findings, checked.events, checked.payloads), (Vec::new(), 240, 1));
    // The copy is unchanged.
    let mut conn = connect(&copy).await;
    assert_eq!(rows(&mut conn, "SELECT count(*) FROM events").await, Some(240));
    migrate_to(&mut conn, &copy, OLDER).await.unwrap();
}

#[tokio::test]
async fn a_file_that_is_only_read_is_not_changed() {
    let dir = tempfile::tempdir().unwrap();
    let (path, copy) = (dir.path().join("test.db"), dir.path().join("copy.db"));
    write_older_file(&path, 2, 120).await;
    let open_for_reading = async |path: &Path| SqliteStore::open_for_reading(path, &Limits::default()).await;
    let refused = open_for_reading(&path).await.map(drop).unwrap_err().0;
    assert!(refused.contains("has tables of version 6"), "{refused}");
    assert!(refused.contains("make a copy by `pointsman store backup`"), "{refused}");
    let mut conn = connect(&path).await;
    assert_eq!(rows(&mut conn, "SELECT count(*) FROM events").await, Some(240));
    migrate_to(&mut conn, &path, OLDER).await.unwrap();
    conn.close().await.unwrap();

    // With the tables of this version. After a backup is only read, the first start from it still counts as a restore.
    SqliteStore::open(&path, &Limits::default()).await.unwrap().close().await;
    back_up(&path, &copy).await.unwrap();
    let before = std::fs::read(&copy).unwrap();
    let store = open_for_reading(&copy).await.unwrap();
    assert_holds_all(&store, 2, 120).await;
    assert!(store.restored().is_none() && !store.is_new() && !store.healthy());
    assert!(matches!(store.append(append(run_id(9), 1, 1).into()).await, Err(AppendError::Refused(_))));
    let busy = open_for_reading(&copy).await.map(drop).unwrap_err().0;
    assert!(busy.contains("is in use by"), "{busy}");
    store.close().await;
    assert!(std::fs::read(&copy).unwrap() == before);
    assert!(SqliteStore::open(&copy, &Limits::default()).await.unwrap().restored().is_some());
}

#[tokio::test]
async fn a_database_that_is_only_read_is_not_changed() {
    if !StoreKind::Postgres.is_installed() {
        return;
    }
    let database = super::cluster::shared().unwrap().database();
    let url = Secret::new(database.url());
    // A refused write is tried again for as long as a statement may take.
    let limits = Limits { store_statement_ms: 100, ..Limits::default() };
    let refused = PostgresStore::open_for_reading(&url, None, &limits).await.err().unwrap().0;
    assert!(refused.contains("no store"), "{refused}");
    let store = PostgresStore::open(&url, None, &Limits::default()).await.unwrap();
    store.append(append(run_id(1), 1, 3).into()).await.unwrap();
    store.close().await;
    // The tables are those of this version, and the processes that use them write older events.
    database.query("UPDATE pointsman.meta SET value = '1' WHERE key = 'event_version'");
    let meta = || database.query("SELECT key, encode(value, 'hex') FROM pointsman.meta ORDER BY key");
    let before = meta();
    let store: StoreHandle = Arc::new(PostgresStore::open_for_reading(&url, None, &limits).await.unwrap());
    assert_eq!(seqs(&store, run_id(1)).await, [1, 2, 3]);
    assert!(!store.is_new() && !store.healthy());
    assert!(matches!(store.append(append(run_id(9), 1, 1).into()).await, Err(AppendError::Refused(_))));
    let refused = store.put_plan("plan_9".into(), json!({})).await.unwrap_err().0;
    assert!(refused.contains("read-only transaction"), "{refused}");
    store.close().await;
    assert_eq!(meta(), before);
    database.query("UPDATE pointsman.meta SET value = '99' WHERE key = 'event_version'");
    let refused = PostgresStore::open_for_reading(&url, None, &limits).await.err().unwrap().0;
    assert!(refused.contains("events of version 99,"), "{refused}");
}

#[tokio::test]
async fn a_store_whose_first_start_was_interrupted_is_new() {
    for version in [1, 4, NEWEST_VERSION] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("test.db");
        let mut conn = crate::store::sqlite::setup_options(&path).connect().await.unwrap();
        migrate_to(&mut conn, &path, version).await.unwrap();
        conn.close().await.unwrap();
        for is_new in [true, false] {
            let store = SqliteStore::open(&path, &Limits::default()).await.unwrap();
            let found = (store.is_new(), store.default_retention());
            assert_eq!(found, (is_new, Some(crate::store::NEW_STORE_RETENTION)), "version {version}");
            store.close().await;
        }
    }
}

/// A file with tables of this version: an open run, its retry key, and an expired one of legacy.
async fn write_file_of_version(path: &Path, version: i64) {
    let mut conn = crate::store::sqlite::setup_options(path).connect().await.unwrap();
    migrate_to(&mut conn, path, version).await.unwrap();
    let mut write = conn.begin().await.unwrap();
    let run = run_id(1);
    let id = run.0.as_bytes().to_vec();
    let started = run_started(run, at(0));
    let mut event = serde_json::to_vec(&started).unwrap();
    let text = match version < 8 {
        true => "INSERT INTO events (run_id, seq, at, kind, version, batch, event) VALUES (?1, 1, 7, 'k', 2, ?1, ?2)",
        false => {
            event.splice(..0, *b"7 ");
            "INSERT INTO appends (run_id, first, last, at, version, batch, parts, events) VALUES (?1, 1, 1, 7, 2, ?1, 0, ?2)"
        }
    };
    sqlx::query(text).bind(id.clone()).bind(event).execute(&mut *write).await.unwrap();
    let summary = fold([&started]).unwrap().summary(Timestamp::from_nanosecond(7).unwrap());
    let text = "INSERT INTO runs (run_id, first, seq, ended, status, workflow, route, mode, summary) \
                VALUES (?, 1, 1, 0, ?, 'create-order', 'orders.create', 'real', ?)";
    let put = sqlx::query(text).bind(id.clone()).bind(summary.status.as_str());
    put.bind(serde_json::to_vec(&summary).unwrap()).execute(&mut *write).await.unwrap();
    if version >= 3 {
        sqlx::query("UPDATE runs SET updated = 7").execute(&mut *write).await.unwrap();
    }
    // The second one expired while processes ran: it is two days older than the newest event.
    for (key, arm, run, at) in [(1, "engine", Some(id), 1), (2, "legacy", None, -172_800_000_000_000_i64)] {
        let text = "INSERT INTO retry_keys (key, arm, run_id, request, at) VALUES (?, ?, ?, x'00', ?)";
        let put = sqlx::query(text).bind(vec![key; 32]).bind(arm).bind(run).bind(at);
        put.execute(&mut *write).await.unwrap();
    }
    sqlx::query("INSERT INTO meta VALUES ('secret', zeroblob(32))").execute(&mut *write).await.unwrap();
    write.commit().await.unwrap();
    conn.close().await.unwrap();
}

#[tokio::test]
async fn a_file_of_every_version_can_be_backed_up_with_the_keys_that_wait_beside_it() {
    for version in 1..=NEWEST_VERSION {
        let dir = tempfile::tempdir().unwrap();
        let (path, copy) = (dir.path().join("test.db"), dir.path().join("copy.db"));
        write_file_of_version(&path, version).await;
        let window = Duration::from_secs(86_400);
        let key = |n: u8| RetryKey([n; 32]);
        let waiting = |_: &[_]| (1..=3).map(|n| (key(n), crate::clock::now())).collect();
        let copied = SqliteStore::back_up(&path, &copy, window, waiting).await;
        // The keys are read before and after the copy, and each counts once. The first is not added: a run has it.
        assert_eq!(copied.map(|copied| copied.waiting_keys), Ok(2), "version {version}");
        let checked = SqliteStore::check_copy(&copy, window).await.unwrap();
        let listed: Vec<_> = checked.findings.iter().filter(|finding| !finding.what.contains("plan")).collect();
        assert_eq!((checked.runs, checked.events), (1, 1), "version {version}");
        assert!(listed.is_empty(), "version {version}: {listed:?}");
        let store = SqliteStore::open(&copy, &Limits::default()).await.unwrap();
        for (n, run) in [(1, Some(run_id(1))), (2, None), (3, None)] {
            let first = store.first_try(key(n)).await.unwrap().unwrap();
            assert_eq!((first.arm == Arm::Engine, first.run), (run.is_some(), run), "version {version}, key {n}");
        }
        assert_eq!(store.restored().map(|restored| restored.open_runs), Some(1), "version {version}");
        assert_eq!(store.events(run_id(1), Seq::FIRST).await.unwrap().len(), 1, "version {version}");
        store.close().await;
    }
}

#[tokio::test]
async fn events_of_a_newer_version_stop_the_upgrade() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("test.db");
    write_older_file(&path, 1, 20).await;
    let mut conn = connect(&path).await;
    sqlx::query("UPDATE events SET version = 98 WHERE seq = 7").execute(&mut conn).await.unwrap();
    conn.close().await.unwrap();
    let refused = SqliteStore::open(&path, &Limits::default()).await.map(|_| ()).unwrap_err().0;
    assert!(refused.contains(&format!("events of version 98 (such as event 7 of {})", run_id(1))), "{refused}");
}

#[tokio::test]
async fn an_older_database_is_upgraded_and_older_processes_are_refused() {
    if !StoreKind::Postgres.is_installed() {
        return;
    }
    let database = super::cluster::shared().unwrap().database();
    let url = Secret::new(database.url());
    PostgresStore::create_older_tables(&url, 4).await;
    let run = run_id(1);
    let run_events = run_events(run, 150);
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let id = hex(run.0.as_bytes());
    let large = serde_json::to_vec(&json!("x".repeat(20_000))).unwrap();
    let mut text = String::from("SET search_path = pointsman; INSERT INTO plans VALUES ('plan_1', '{}');");
    text +=
        &format!("INSERT INTO payloads VALUES ('\\x{}', '\\x{}');", hex(blake3::hash(&large).as_bytes()), hex(&large));
    for (seq, event) in (1..).zip(&run_events) {
        let mut json = serde_json::to_vec(event).unwrap();
        let parts = i32::from(seq % 100 == 50);
        if parts > 0 {
            json = format!("{{\"step_computed\":{{\"step\":\"step-{}\",\n\"output\":null}}}}", seq - 1).into_bytes();
            let hash = hex(blake3::hash(&large).as_bytes());
            text +=
                &format!("INSERT INTO payload_refs VALUES ('\\x{id}', {seq}, '/step_computed/output', '\\x{hash}');");
        }
        text += &format!(
            "INSERT INTO events VALUES ('\\x{id}', {seq}, {}, 'k', 2, '\\x{:032x}', '\\x{}', {parts});",
            seq * 7,
            seq / 3,
            hex(&json)
        );
    }
    let summary = fold(&run_events).unwrap().summary(Timestamp::from_nanosecond(150 * 7).unwrap());
    text += &format!(
        "INSERT INTO runs (run_id, seq, ended, updated, status, workflow, mode, summary, fence, pinned) \
         VALUES ('\\x{id}', 150, false, 7, 'running', 'create-order', 'real', '\\x{}', 1, false); \
         INSERT INTO workers VALUES ('\\x01', 'the older one', now() + interval '1 hour')",
        hex(&serde_json::to_vec(&summary).unwrap())
    );
    database.query(&text);
    let limits = Limits { lease_ms: 100, ..Limits::default() };
    let refused = PostgresStore::open(&url, None, &limits).await.err().unwrap().0;
    assert!(refused.contains("still use (the older one)") && refused.contains("pg_dump"), "{refused}");
    assert_eq!(database.query("SELECT count(*) FROM pointsman.events").trim(), "150", "nothing was changed");
    // The older process has ended, and a process that upgraded the tables was killed halfway.
    database.query("DELETE FROM pointsman.workers");
    PostgresStore::create_older_tables(&url, 5).await;
    assert_eq!(database.query("SET search_path = pointsman; SELECT move_events(70)").trim(), "70");
    let store = PostgresStore::open(&url, None, &limits).await.unwrap();
    assert_holds_all(&store, 1, 150).await;
    assert_eq!(store.run(run).await.unwrap().unwrap(), summary);
    store.append(append(run, 151, 1).into()).await.unwrap();
    let (checked, _) = PostgresStore::check(&url, None, &limits).await.unwrap();
    assert!(checked.findings.iter().all(|finding| finding.what.contains("summary")), "{:?}", checked.findings);
    assert_eq!(checked.events, 151);
    // Statements that an older process which still runs would execute.
    let nulls = vec!["NULL"; 54].join(", ");
    let statements = [format!("PERFORM append_batch({nulls})"), "PERFORM seq FROM events".to_owned()];
    for statement in statements {
        let answer = database.query(&format!(
            "SET search_path = pointsman; SET client_min_messages = warning; \
             CREATE OR REPLACE FUNCTION try_it() RETURNS text LANGUAGE plpgsql AS $$ BEGIN {statement}; RETURN 'done'; \
             EXCEPTION WHEN SQLSTATE 'PM002' THEN RETURN SQLERRM; END $$; SELECT try_it()"
        ));
        assert!(answer.contains("an older pointsman than the tables of its database"), "{statement}: {answer}");
    }
    store.close().await;
}
