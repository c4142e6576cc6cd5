//! Tests that pinned runs whose events cannot be read do not keep other runs from being purged.

use std::time::Duration;

use sqlx::postgres::PgConnection;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};

use super::purge::past;
use super::*;
use crate::store::{Purged, RunCoordination, Store};

/// As if a newer version had written the events of the two runs that ended first.
const DAMAGE: &str =
    "UPDATE appends SET version = 99 WHERE run_id IN (SELECT run_id FROM runs ORDER BY updated LIMIT 2)";

/// Four runs that ended long ago; the first three are pinned.
async fn put_runs(store: &impl Store) {
    for n in 1..=4 {
        let pins = if n < 4 { vec![pin(&n.to_string(), Arm::Engine)] } else { Vec::new() };
        store.append(Append { pins, ..completed_run(run_id(n), past(n)) }.into()).await.unwrap();
    }
}

async fn purge(store: &impl RunCoordination) -> Purged {
    store.purge(RunStatus::Completed, at(0), 2).await.unwrap()
}

/// The first page holds only runs that cannot be read.
async fn assert_readable_runs_are_purged(store: &impl Store) {
    assert_eq!(purge(store).await, Purged { runs: 2, pinned: 1, payloads: 0 });
    assert_eq!(purge(store).await, Purged::default());
    assert!(store.purged_run_bodies(run_id(3)).await.unwrap().is_some());
    for n in [1, 2] {
        assert!(store.events(run_id(n), Seq::FIRST).await.is_err(), "run {n} stays as it is");
    }
}

/// Legacy's three keys have expired, and the first of them has a wrong length.
const DAMAGE_KEY: &str = "UPDATE retry_keys SET key = substr(key, 2) WHERE arm = 'legacy' AND at = \
                          (SELECT min(at) FROM retry_keys)";

async fn put_keys(store: &impl Store) {
    let keys = (1..=3).map(|n| (RetryKey([n; 32]), past(4 - u64::from(n))));
    store.note_legacy_tries(keys.collect()).await.unwrap();
}

/// The page has only one key, so that the damaged one would be a page of its own.
async fn assert_readable_keys_are_removed(store: &impl RunCoordination) {
    let first = store.prune_retry_keys(None, 1).await.unwrap();
    let second = store.prune_retry_keys(first.next, 1).await.unwrap();
    let third = store.prune_retry_keys(second.next, 1).await.unwrap();
    assert_eq!((first.result, second.result, third.result, third.next), (1, 1, 0, None));
    assert_eq!(store.long_bound_keys(Duration::ZERO, None, 9).await.unwrap().result, []);
}

#[tokio::test]
async fn a_retry_key_that_cannot_be_read_keeps_no_other_from_being_removed() {
    let limits = Limits { retry_window_s: 0, ..Limits::default() };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("test.db");
    let store = SqliteStore::open(&path, &limits).await.unwrap();
    put_keys(&store).await;
    let mut other = SqliteConnectOptions::new().filename(&path).connect().await.unwrap();
    sqlx::query(DAMAGE_KEY).execute(&mut other).await.unwrap();
    assert_readable_keys_are_removed(&store).await;
    let kept: i64 = sqlx::query_scalar("SELECT count(*) FROM retry_keys").fetch_one(&mut other).await.unwrap();
    assert_eq!(kept, 1);
    if StoreKind::Postgres.is_installed() {
        let database = super::cluster::shared().unwrap().database();
        let store = PostgresStore::open(&Secret::new(database.url()), None, &limits).await.unwrap();
        put_keys(&store).await;
        database.query(&format!("SET search_path = pointsman; {DAMAGE_KEY}"));
        assert_readable_keys_are_removed(&store).await;
        store.close().await;
    }
}

#[tokio::test]
async fn unreadable_runs_of_a_file_are_left_out_until_the_next_process() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("test.db");
    let store = SqliteStore::open(&path, &Limits::default()).await.unwrap();
    put_runs(&store).await;
    let mut other = SqliteConnectOptions::new().filename(&path).connect().await.unwrap();
    sqlx::query(DAMAGE).execute(&mut other).await.unwrap();
    assert_readable_runs_are_purged(&store).await;
    sqlx::query("UPDATE appends SET version = 1").execute(&mut other).await.unwrap();
    other.close().await.unwrap();
    assert_eq!(purge(&store).await, Purged::default(), "they are not read again");
    store.close().await;
    drop(store);
    let store = SqliteStore::open(&path, &Limits::default()).await.unwrap();
    assert_eq!(purge(&store).await, Purged { runs: 2, pinned: 2, payloads: 0 });
}

#[tokio::test]
async fn unreadable_runs_of_a_database_are_left_out_and_none_are_while_it_does_not_answer() {
    if !StoreKind::Postgres.is_installed() {
        return;
    }
    let database = super::cluster::shared().unwrap().database();
    let limits = Limits { store_lock_ms: 100, ..Limits::default() };
    let store = PostgresStore::open(&Secret::new(database.url()), None, &limits).await.unwrap();
    put_runs(&store).await;
    let mut other = PgConnection::connect(&database.url()).await.unwrap();
    let mut lock = other.begin().await.unwrap();
    sqlx::query("LOCK TABLE pointsman.appends IN ACCESS EXCLUSIVE MODE").execute(&mut *lock).await.unwrap();
    let busy = store.purge(RunStatus::Completed, at(0), 2).await.unwrap_err().0;
    assert!(busy.contains("the store did not answer") && busy.contains("lock timeout"), "{busy}");
    lock.rollback().await.unwrap();
    database.query(&format!("SET search_path = pointsman; {DAMAGE}"));
    assert_readable_runs_are_purged(&store).await;
    database.query("UPDATE pointsman.appends SET version = 1");
    store.close().await;
    let store = PostgresStore::open(&Secret::new(database.url()), None, &limits).await.unwrap();
    assert_eq!(purge(&store).await, Purged { runs: 2, pinned: 2, payloads: 0 });
    store.close().await;
}
