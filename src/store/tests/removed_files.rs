//! A SQLite file or its log that is removed or replaced while it is open.

use super::*;
use crate::store::{AppendError, Store};

async fn open(dir: &tempfile::TempDir) -> Result<SqliteStore, crate::store::StoreError> {
    SqliteStore::open(dir.path().join("test.db"), &Limits::default()).await
}

async fn wait_for_health(store: &SqliteStore, expected: bool) {
    let changed = async {
        while store.healthy() != expected {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), changed).await.expect("the store's health changes");
}

#[tokio::test]
async fn a_database_that_is_moved_away_takes_no_writes_until_it_is_back() {
    let dir = tempfile::tempdir().unwrap();
    let (path, away) = (dir.path().join("test.db"), dir.path().join("away.db"));
    let store = open(&dir).await.unwrap();
    store.append(append(run_id(1), 1, 1).into()).await.unwrap();
    std::fs::rename(&path, &away).unwrap();
    let refused = store.append(append(run_id(2), 1, 1).into()).await;
    assert!(matches!(&refused, Err(AppendError::Refused(why)) if why.contains("test.db was removed")), "{refused:?}");
    let why = store.write_failure().unwrap_or_default();
    assert!(!store.healthy() && why.contains("move it back") && why.contains("restore a backup"), "{why}");
    assert!(store.put_flips(Vec::new(), Some(Vec::new())).await.is_err(), "other writes are refused too");
    std::fs::rename(&away, &path).unwrap();
    wait_for_health(&store, true).await;
    assert_eq!(store.write_failure(), None);
    store.append(append(run_id(3), 1, 1).into()).await.unwrap();
    // Without a write it is noticed too, also if another file takes the place.
    std::fs::rename(&path, &away).unwrap();
    std::fs::write(&path, "another file").unwrap();
    wait_for_health(&store, false).await;
    std::fs::rename(&away, &path).unwrap();
    wait_for_health(&store, true).await;
    store.close().await;
    let again: SharedStore = Arc::new(open(&dir).await.unwrap());
    let found = [seqs(&again, run_id(1)).await, seqs(&again, run_id(2)).await, seqs(&again, run_id(3)).await];
    assert_eq!(found.map(|seqs| !seqs.is_empty()), [true, false, true]);
    again.close().await;
}

#[tokio::test]
async fn a_log_that_is_removed_takes_nothing_acknowledged_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir).await.unwrap();
    store.append(append(run_id(1), 1, 1).into()).await.unwrap();
    std::fs::remove_file(dir.path().join("test.db-wal")).unwrap();
    let refused = store.append(append(run_id(2), 1, 1).into()).await;
    let expected = "test.db-wal was removed";
    assert!(matches!(&refused, Err(AppendError::Refused(why)) if why.contains(expected)), "{refused:?}");
    assert!(!store.healthy() && store.write_failure().is_some_and(|why| why.contains("SIGTERM")));
    store.close().await;
    let again: SharedStore = Arc::new(open(&dir).await.unwrap());
    assert!(!seqs(&again, run_id(1)).await.is_empty(), "it was acknowledged");
    again.append(append(run_id(2), 1, 1).into()).await.unwrap();
    again.close().await;
}
