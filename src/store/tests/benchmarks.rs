//! Benchmarks, run by hand.
//!
//! Events per second of the store, and of bare SQLite with the same batches: `cargo test --release --lib
//! store::tests::benchmarks -- --ignored --nocapture`, or `tests/bench/store_alone.py`, which keeps the rows. The
//! database is in a temporary folder: where that is in memory, set TMPDIR to a folder on a disk.
//!
//! The time to read and fold the longest run of a store, from its events and from its snapshot:
//! `POINTSMAN_STORE=FILE cargo test --release --lib read_and_fold -- --ignored --nocapture`.
//!
//! Two controls write the same bytes of events, in batches as large as the store's were on average, on one connection
//! (WAL, `synchronous=FULL`), and nothing else: no runs, no checks of the order, no callers that wait. One writes a row
//! for each event, with one multi-row INSERT for each batch, as a simple store of events does; the other writes a row
//! for each append, with the store's own statement and connection settings, in one transaction. A run has as many
//! events as a run of ten steps. Rounds alternate, so that a change of the machine's speed affects all equally. The
//! processor time is that of the whole process.

use std::fmt::Write;
use std::time::{Duration, Instant};

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, SqlSafeStr};

use super::*;
use crate::store::Store;
use crate::store::codec::encode_line;
use crate::store::sqlite::Options;
use crate::workflow::Run;

/// How long one measurement takes.
const MEASURED_FOR: Duration = Duration::from_secs(2);
/// Measurements of each combination; `POINTSMAN_ROUNDS` sets another number.
const ROUNDS: usize = 3;
/// Events of one run.
const RUN_EVENTS: u64 = 24;

/// The result of one measurement.
struct Measured {
    rate: f64,
    cpu_us: f64,
    p50: Duration,
    p99: Duration,
}

fn measured(mut latencies: Vec<Duration>, events: f64, took: Duration, cpu: Duration) -> Measured {
    latencies.sort();
    let percentile = |percent: usize| latencies[(latencies.len() * percent / 100).min(latencies.len() - 1)];
    let (rate, cpu_us) = (events / took.as_secs_f64(), cpu.as_secs_f64() * 1e6 / events);
    Measured { rate, cpu_us, p50: percentile(50), p99: percentile(99) }
}

/// The processor time that the process has used, in steps of 10 ms.
fn cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    Duration::from_millis(10 * (fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()))
}

/// Measures the store; also returns how many events one commit had on average.
async fn ours(which: StoreKind, callers: u64, events: u64) -> (Measured, f64) {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    let fixture = {
        let _here = metrics::set_default_local_recorder(&recorder);
        StoreFixture::new(which).await
    };
    let (begin, used) = (Instant::now(), cpu());
    let tasks: Vec<_> = (0..callers)
        .map(|n| {
            let store = fixture.store.clone();
            tokio::spawn(async move {
                let (mut run, mut first, mut latencies) = (n, 1, Vec::new());
                while begin.elapsed() < MEASURED_FOR {
                    if first > RUN_EVENTS {
                        (run, first) = (run + callers, 1);
                    }
                    let append = append(run_id(run), first, events);
                    let sent_at = Instant::now();
                    store.append(append.into()).await.unwrap();
                    latencies.push(sent_at.elapsed());
                    first += events;
                }
                latencies
            })
        })
        .collect();
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await.unwrap());
    }
    let (took, used) = (begin.elapsed(), cpu() - used);
    fixture.store.close().await;
    let total = latencies.len() as f64 * events as f64;
    (measured(latencies, total, took, used), total / commits(&handle))
}

fn commits(handle: &PrometheusHandle) -> f64 {
    let text = handle.render();
    let line = text.lines().find_map(|line| line.strip_prefix("pointsman_append_batch_events_count "));
    line.and_then(|count| count.parse().ok()).expect("the writer counts its commits")
}

/// Measures bare SQLite with a row for each event.
async fn control(batch: u64) -> Measured {
    let dir = tempfile::tempdir().unwrap();
    let mut conn = SqliteConnectOptions::new()
        .filename(dir.path().join("control.db"))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .disable_statement_logging()
        .connect()
        .await
        .unwrap();
    sqlx::query(
        "CREATE TABLE events (pos INTEGER PRIMARY KEY, run_id BLOB NOT NULL, seq INTEGER NOT NULL, at INTEGER NOT NULL, \
         kind TEXT NOT NULL, version INTEGER NOT NULL, batch BLOB NOT NULL, event BLOB NOT NULL, UNIQUE (run_id, seq))",
    )
    .execute(&mut conn)
    .await
    .unwrap();
    let mut text = String::from("INSERT INTO events (run_id, seq, at, kind, version, batch, event) VALUES ");
    for n in 0..batch {
        write!(text, "{}(?,?,?,?,?,?,?)", if n == 0 { "" } else { "," }).unwrap();
    }
    let text: std::sync::Arc<str> = text.into();
    let (begin, used, mut latencies, mut sent) = (Instant::now(), cpu(), Vec::new(), 0_u64);
    while begin.elapsed() < MEASURED_FOR {
        let sent_at = Instant::now();
        let mut query = sqlx::query(AssertSqlSafe(text.clone()).into_sql_str());
        let id = Uuid::now_v7();
        let (run, seq) = (sent / RUN_EVENTS * batch, sent % RUN_EVENTS + 1);
        sent += 1;
        for n in 0..batch {
            let event = test_event(seq);
            query = query
                .bind(run_id(run + n).0.as_bytes().to_vec())
                .bind(seq.cast_signed())
                .bind(1_800_000_000_000_000_000_i64)
                .bind(event.kind())
                .bind(i64::from(Event::VERSION))
                .bind(id.as_bytes().to_vec())
                .bind(serde_json::to_vec(&event).unwrap());
        }
        query.execute(&mut conn).await.unwrap();
        latencies.push(sent_at.elapsed());
    }
    let (took, used) = (begin.elapsed(), cpu() - used);
    conn.close().await.unwrap();
    let total = latencies.len() as f64 * batch as f64;
    measured(latencies, total, took, used)
}

/// Measures bare SQLite with a row for each append of this many events, and `batch` appends in one transaction.
fn control_by_append(batch: u64, events: u64) -> Measured {
    let dir = tempfile::tempdir().unwrap();
    let conn = Options::new(&dir.path().join("control.db")).open().unwrap();
    conn.execute_batch(
        "CREATE TABLE appends (pos INTEGER PRIMARY KEY, run_id BLOB NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL, \
         at INTEGER NOT NULL, version INTEGER NOT NULL, batch BLOB NOT NULL, events BLOB NOT NULL, UNIQUE (run_id, first))",
    )
    .unwrap();
    let insert = "INSERT INTO appends (run_id, first, last, at, version, batch, events) VALUES (?, ?, ?, ?, ?, ?, ?)";
    let (begin, used, mut latencies, mut sent) = (Instant::now(), cpu(), Vec::new(), 0_u64);
    while begin.elapsed() < MEASURED_FOR {
        let sent_at = Instant::now();
        let (run, first) = (sent / (RUN_EVENTS / events) * batch, sent % (RUN_EVENTS / events) * events + 1);
        sent += 1;
        conn.prepare_cached("BEGIN IMMEDIATE").unwrap().execute([]).unwrap();
        for n in 0..batch {
            let mut lines = Vec::new();
            for seq in first..first + events {
                encode_line(&mut lines, 1_800_000_000_000_000_000, &test_event(seq), usize::MAX).unwrap();
            }
            let (id, last) = (Uuid::now_v7(), first + events - 1);
            let run = run_id(run + n);
            let (run, id) = (run.0.as_bytes().as_slice(), id.as_bytes().as_slice());
            let values = rusqlite::params![
                run,
                first.cast_signed(),
                last.cast_signed(),
                1_800_000_000_000_000_000_i64,
                Event::VERSION,
                id,
                lines
            ];
            conn.prepare_cached(insert).unwrap().execute(values).unwrap();
        }
        conn.prepare_cached("COMMIT").unwrap().execute([]).unwrap();
        latencies.push(sent_at.elapsed());
    }
    let (took, used) = (begin.elapsed(), cpu() - used);
    let total = latencies.len() as f64 * (batch * events) as f64;
    measured(latencies, total, took, used)
}

/// A line that `tests/bench/store_alone.py` reads.
fn row(row: serde_json::Value) {
    println!("ROW {row}");
}

fn rounds() -> usize {
    std::env::var("POINTSMAN_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(ROUNDS)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn events_a_second() {
    let us = |wait: Duration| (wait.as_secs_f64() * 1e7).round() / 10.0;
    for (callers, events) in [(1, 1), (1, 4), (32, 1), (128, 1), (128, 4)] {
        for round in 0..rounds() {
            let (mine, batch) = ours(StoreKind::Sqlite, callers, events).await;
            let by_event = control((batch.round() as u64).max(1)).await;
            let appends = ((batch / events as f64).round() as u64).max(1);
            let by_append = tokio::task::spawn_blocking(move || control_by_append(appends, events)).await.unwrap();
            for (who, seen) in [("ours", &mine), ("row per event", &by_event), ("row per append", &by_append)] {
                row(json!({
                    "work": "appends", "callers": callers, "events": events, "round": round, "who": who,
                    "events_per_s": seen.rate.round(), "p50_us": us(seen.p50), "p99_us": us(seen.p99),
                    "cpu_us_per_event": (seen.cpu_us * 100.0).round() / 100.0, "events_per_commit": (batch * 10.0).round() / 10.0,
                    "ours_against_it": (mine.rate / seen.rate * 1000.0).round() / 1000.0,
                }));
            }
        }
    }
}

/// Measures bare PostgreSQL: the same batches by one `INSERT … SELECT … FROM UNNEST` each, on one connection.
async fn postgres_control(batch: u64) -> Measured {
    let database = cluster::shared().unwrap().database();
    let mut conn = sqlx::PgConnection::connect(&database.url()).await.unwrap();
    sqlx::query(
        "CREATE TABLE events (run_id bytea, seq bigint, at bigint, kind text, version smallint, batch bytea, event bytea, \
         PRIMARY KEY (run_id, seq))",
    )
    .execute(&mut conn)
    .await
    .unwrap();
    let text = "INSERT INTO events (run_id, seq, at, kind, version, batch, event) \
                SELECT e.run_id, e.seq, e.at, e.kind, 1, e.batch, e.event FROM UNNEST($1, $2, $3, $4, $5, $6) \
                AS e(run_id, seq, at, kind, batch, event)";
    let (begin, used, mut latencies, mut sent) = (Instant::now(), cpu(), Vec::new(), 0_u64);
    while begin.elapsed() < MEASURED_FOR {
        let sent_at = Instant::now();
        let id = Uuid::now_v7();
        let (run, seq) = (sent / RUN_EVENTS * batch, sent % RUN_EVENTS + 1);
        sent += 1;
        let runs: Vec<_> = (0..batch).map(|n| run_id(run + n).0.as_bytes().to_vec()).collect();
        let events: Vec<_> = (0..batch).map(|_| serde_json::to_vec(&test_event(seq)).unwrap()).collect();
        let count = events.len();
        let query = sqlx::query(text).bind(runs).bind(vec![seq.cast_signed(); count]);
        let query = query.bind(vec![1_800_000_000_000_000_000_i64; count]).bind(vec![test_event(seq).kind(); count]);
        query.bind(vec![id.as_bytes().to_vec(); count]).bind(events).execute(&mut conn).await.unwrap();
        latencies.push(sent_at.elapsed());
    }
    let (took, used) = (begin.elapsed(), cpu() - used);
    conn.close().await.unwrap();
    let total = latencies.len() as f64 * batch as f64;
    measured(latencies, total, took, used)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn events_a_second_on_postgresql() {
    if !StoreKind::Postgres.is_installed() {
        return;
    }
    for (callers, events) in [(1, 1), (32, 1), (128, 1), (128, 4)] {
        let (mine, batch) = ours(StoreKind::Postgres, callers, events).await;
        let bare = postgres_control((batch.round() as u64).max(1)).await;
        println!(
            "PostgreSQL, callers {callers}, events an append {events}: {:.0} events/s (append p50 {:?}, p99 {:?}), \
             {batch:.1} a commit; PostgreSQL itself {:.0} events/s (p50 {:?}, p99 {:?}); ratio {:.2}",
            mine.rate,
            mine.p50,
            mine.p99,
            bare.rate,
            bare.p50,
            bare.p99,
            mine.rate / bare.rate
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn read_and_fold() {
    let path = std::env::var("POINTSMAN_STORE").expect("POINTSMAN_STORE names a store's file");
    let store = SqliteStore::open(path, &Limits::default()).await.unwrap();
    let filter = crate::store::RunFilter { limit: 1_000, ..Default::default() };
    let runs = Store::runs(&store, filter).await.unwrap();
    let longest = runs.iter().max_by_key(|run| run.seq).expect("a store with a run").run_id;
    let ms = |spent: Duration| (spent.as_secs_f64() * 1e5).round() / 100.0;
    for round in 0..rounds().max(10) {
        let began = Instant::now();
        let events = Store::events(&store, longest, Seq::FIRST).await.unwrap();
        let read = began.elapsed();
        let run = crate::workflow::fold(events.iter().map(|stored| &stored.event)).unwrap();
        let (events, read, whole) = (run.seq().0, ms(read), ms(began.elapsed()));
        row(json!({ "work": "read and fold", "from": "events", "round": round, "events": events, "folded": events,
            "read_ms": read, "ms": whole }));
        let began = Instant::now();
        let Some(snapshot) = crate::store::RunCoordination::run_snapshot(&store, longest).await.unwrap() else {
            continue;
        };
        let mut decoded = Run::from_snapshot(&snapshot.body).unwrap();
        let read = began.elapsed();
        let after = Store::events(&store, longest, snapshot.seq.next()).await.unwrap();
        after.iter().for_each(|stored| decoded.evolve_in_place(&stored.event).unwrap());
        let whole = ms(began.elapsed());
        assert_eq!(decoded, run);
        row(
            json!({ "work": "read and fold", "from": "snapshot", "round": round, "events": events, "folded": after.len(),
            "read_ms": ms(read), "ms": whole, "snapshot_bytes": snapshot.body.len() }),
        );
    }
    Store::close(&store).await;
}
