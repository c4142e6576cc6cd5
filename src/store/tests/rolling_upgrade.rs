//! An upgrade of the tables while processes of the version before use them, and numbers of flips that are not given
//! again.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

use super::cluster::{Database, shared};
use super::*;
use crate::store::{ProcessRecord, PutFlips, RunCoordination as _, Store as _};

const INDEX: &str = "SELECT indisvalid FROM pg_index WHERE indexrelid = 'pointsman.retry_keys_of_runs'::regclass";

async fn session(database: &Database) -> PgConnection {
    PgConnection::connect(&database.url()).await.unwrap()
}

/// The index of the retry keys of runs waits for a transaction that writes to the table, and nobody waits for it.
#[tokio::test]
async fn an_index_is_made_while_older_processes_write() {
    let Some(database) = StoreKind::Postgres.is_installed().then(|| shared().unwrap().database()) else { return };
    let url = Secret::new(database.url());
    PostgresStore::create_older_tables(&url, 21).await;
    let key = |n: u32| {
        let columns = "INSERT INTO pointsman.retry_keys (key, arm, at, run_id)";
        AssertSqlSafe(format!("{columns} VALUES (sha256('{n}'), 'engine', 1, '\\x01')"))
    };
    let mut older = session(&database).await;
    older.execute("BEGIN").await.unwrap();
    older.execute(key(1)).await.unwrap();
    let upgrading = tokio::spawn(async move { PostgresStore::open(&url, None, &Limits::default()).await });
    let making = "SELECT count(*) FROM pg_stat_progress_create_index WHERE phase LIKE 'waiting%'";
    while database.query(making).trim() != "1" {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut other = session(&database).await;
    other.execute("SET lock_timeout = 1000").await.unwrap();
    other.execute(key(2)).await.expect("keys are taken meanwhile");
    let lease =
        "INSERT INTO pointsman.workers (worker, name, alive_until) VALUES ('\\x02', 'older', clock_timestamp())";
    other.execute(lease).await.expect("leases are renewed meanwhile");
    older.execute("COMMIT").await.unwrap();
    let store = upgrading.await.unwrap().unwrap();
    assert_eq!(database.query(INDEX).trim(), "t");
    store.close().await;
}

/// The first form of migration 22 made the index itself; an upgrade that was interrupted leaves one that is not valid.
#[tokio::test]
async fn an_index_that_is_there_is_kept_or_made_again() {
    for is_valid in [true, false] {
        let Some(database) = StoreKind::Postgres.is_installed().then(|| shared().unwrap().database()) else { return };
        let url = Secret::new(database.url());
        PostgresStore::create_older_tables(&url, 22).await;
        database.query(&format!(
            "SET search_path = pointsman; UPDATE _sqlx_migrations SET checksum = '\\x01' WHERE version = 22; \
             CREATE INDEX retry_keys_of_runs ON retry_keys (at, key) WHERE run_id IS NOT NULL; \
             UPDATE pg_index SET indisvalid = {is_valid} WHERE indexrelid = 'retry_keys_of_runs'::regclass"
        ));
        let store = PostgresStore::open(&url, None, &Limits::default()).await.unwrap();
        assert_eq!(database.query(INDEX).trim(), "t", "it was valid: {is_valid}");
        store.close().await;
    }
}

/// A standby that took over lacks flips that processes have in force.
#[tokio::test]
async fn no_flip_gets_the_number_of_one_that_a_process_has_in_force() {
    let Some(database) = StoreKind::Postgres.is_installed().then(|| shared().unwrap().database()) else { return };
    let store = PostgresStore::open(&Secret::new(database.url()), None, &Limits::default()).await.unwrap();
    let put = async |after: u64| {
        let put = PutFlips {
            flips: vec![super::records::flip(None, "effects")],
            declared: None,
            after,
            ..PutFlips::default()
        };
        store.put_flips(put).await.unwrap().map(|numbers| numbers[0])
    };
    assert_eq!(put(0).await, Some(1));
    assert_eq!(put(0).await, None, "a newer one is there");
    assert_eq!(put(4).await, Some(5), "the caller has flip 4 in force");
    store.heartbeat(worker(1), "one".into(), Duration::from_secs(60)).await.unwrap();
    store.exchange_processes(worker(1), ProcessRecord { flips: Some(8), ..ProcessRecord::default() }).await.unwrap();
    assert_eq!(put(5).await, Some(9), "a process has flip 8 in force");
    store.close().await;
}
