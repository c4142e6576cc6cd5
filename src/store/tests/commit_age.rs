//! Commits that take long.

use super::*;
use crate::store::{CommitAge, Store};

/// A commit that does not end is no error of the disk: only its age shows it.
#[tokio::test]
async fn a_commit_that_does_not_end_counts_as_stalled_until_it_ends() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("test.db");
    let limits = Limits { store_stall_ms: 20, ..Limits::default() };
    let store = SqliteStore::open(&path, &limits).await.unwrap();
    store.append(append(run_id(0), 1, 1).into()).await.unwrap();
    let until_stalled = async |is_stalled: bool| {
        while store.stalled_for().is_some() != is_stalled {
            tokio::task::yield_now().await;
        }
    };
    until_stalled(false).await;
    assert!(store.healthy() && store.write_failure().is_none());
    // While another connection writes, the writer waits as it would for a sync, for less than SQLite's 5 s.
    use sqlx::{ConnectOptions, Executor};
    let mut other = sqlx::sqlite::SqliteConnectOptions::new().filename(&path).connect().await.unwrap();
    other.execute("BEGIN IMMEDIATE").await.unwrap();
    let waiting = store.append(append(run_id(1), 1, 1).into());
    until_stalled(true).await;
    assert!(!store.healthy(), "a start would wait");
    let trouble = store.write_failure().unwrap_or_default();
    assert!(trouble.contains("store_stall_ms"), "{trouble}");
    let before = store.stalled_for();
    assert!(store.commit_age().and_then(CommitAge::get) >= before, "the age grows");
    other.execute("ROLLBACK").await.unwrap();
    waiting.await.unwrap();
    until_stalled(false).await;
    assert_eq!((store.healthy(), store.write_failure()), (true, None));
    store.close().await;
}
