//! A SQLite file or its log that is removed, replaced or truncated while it is open.

use std::path::Path;

use super::*;
use crate::flag::RetryKey;
use crate::store::sqlite::Options;
use crate::store::{AppendError, RunCoordination, Store};

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
    assert!(store.put_flips(Default::default()).await.is_err(), "other writes are refused too");
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
    let again: StoreHandle = Arc::new(open(&dir).await.unwrap());
    let found = [seqs(&again, run_id(1)).await, seqs(&again, run_id(2)).await, seqs(&again, run_id(3)).await];
    assert_eq!(found.map(|seqs| !seqs.is_empty()), [true, false, true]);
    again.close().await;
}

#[tokio::test]
async fn the_removal_of_the_log_loses_nothing_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir).await.unwrap();
    store.append(append(run_id(1), 1, 1).into()).await.unwrap();
    std::fs::remove_file(dir.path().join("test.db-wal")).unwrap();
    let refused = store.append(append(run_id(2), 1, 1).into()).await;
    let expected = "test.db-wal was removed";
    assert!(matches!(&refused, Err(AppendError::Refused(why)) if why.contains(expected)), "{refused:?}");
    assert!(!store.healthy() && store.write_failure().is_some_and(|why| why.contains("SIGTERM")));
    store.close().await;
    let again: StoreHandle = Arc::new(open(&dir).await.unwrap());
    assert!(!seqs(&again, run_id(1)).await.is_empty(), "it was acknowledged");
    again.append(append(run_id(2), 1, 1).into()).await.unwrap();
    again.close().await;
}

/// The runs that a new process would find after a kill at this moment, if only the database itself were left.
async fn runs_after_a_kill(path: &Path) -> Vec<u64> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(path, dir.path().join("test.db")).unwrap();
    let store: StoreHandle = Arc::new(open(&dir).await.unwrap());
    let mut found = Vec::new();
    for n in 1..=3 {
        if !seqs(&store, run_id(n)).await.is_empty() {
            found.push(n);
        }
    }
    store.close().await;
    found
}

#[tokio::test]
async fn a_log_that_is_removed_is_copied_as_soon_as_nobody_reads_an_older_state() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("test.db");
    let store = open(&dir).await.unwrap();
    store.append(append(run_id(1), 1, 1).into()).await.unwrap();
    let reader = Options::new(&path).open().unwrap();
    reader.execute_batch("BEGIN; SELECT count(*) FROM runs").unwrap();
    store.append(append(run_id(2), 1, 1).into()).await.unwrap();
    std::fs::remove_file(dir.path().join("test.db-wal")).unwrap();
    let refused = store.append(append(run_id(3), 1, 1).into()).await;
    let expected = "pages are not, because something still reads an older state";
    assert!(matches!(&refused, Err(AppendError::Refused(why)) if why.contains(expected)), "{refused:?}");
    assert!(store.write_failure().is_some_and(|why| why.contains("a kill before that loses events")));
    drop(reader);
    let copied = async {
        while !store.write_failure().is_some_and(|why| why.ends_with("all that was acknowledged is in the database")) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), copied).await.expect("the log is copied");
    assert_eq!(runs_after_a_kill(&path).await, [1, 2]);
    store.close().await;
}

#[tokio::test]
async fn nothing_is_read_from_a_file_that_replaced_the_database() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = open(&dir).await.unwrap();
    store.append(append(run_id(1), 1, 1).into()).await.unwrap();
    open(&other).await.unwrap().close().await;
    let of = |dir: &tempfile::TempDir, name: &str| dir.path().join(name);
    let files = ["test.db", "test.db-wal", "test.db-shm"];
    files.iter().for_each(|name| std::fs::rename(of(&dir, name), of(&dir, &format!("away-{name}"))).unwrap());
    std::fs::copy(of(&other, "test.db"), of(&dir, "test.db")).unwrap();
    // More reads at once than connections are open already, so that new ones are opened.
    let reads = futures_util::future::join_all((0..4).map(|_| store.run(run_id(1)))).await;
    let refused = |read: Result<(), crate::store::StoreError>| {
        assert!(matches!(&read, Err(why) if why.0.contains("test.db was removed or replaced")), "{read:?}");
    };
    reads.into_iter().for_each(|read| refused(read.map(|found| assert!(found.is_none()))));
    refused(store.first_try(RetryKey([1; 32])).await.map(drop));
    refused(store.pinned(0, 9).await.map(drop));
    refused(store.run_snapshot(run_id(1)).await.map(drop));
    for end in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(of(&dir, &format!("test.db{end}"))); // not all of them exist
    }
    files.iter().for_each(|name| std::fs::rename(of(&dir, &format!("away-{name}")), of(&dir, name)).unwrap());
    let reads = futures_util::future::join_all((0..4).map(|_| store.run(run_id(1)))).await;
    assert!(reads.into_iter().all(|read| read.unwrap().is_some()));
    store.close().await;
}

#[tokio::test]
async fn a_log_that_is_truncated_stops_the_writes() {
    for is_emptied in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("test.db-wal");
        let store = open(&dir).await.unwrap();
        for n in 1..=3 {
            store.append(append(run_id(n), 1, 1).into()).await.unwrap();
        }
        let whole = std::fs::metadata(&log).unwrap().len();
        let truncated = std::fs::File::options().write(true).open(&log).unwrap();
        truncated.set_len(if is_emptied { 0 } else { whole / 2 }).unwrap();
        wait_for_health(&store, false).await;
        let refused = store.append(append(run_id(4), 1, 1).into()).await;
        let expected = "test.db-wal was truncated while it is open";
        assert!(matches!(&refused, Err(AppendError::Refused(why)) if why.contains(expected)), "{refused:?}");
        let why = store.write_failure().unwrap_or_default();
        assert!(why.contains("acknowledged events are lost") && why.contains("restore a backup"), "{why}");
        store.close().await;
    }
}

#[tokio::test]
async fn a_log_that_another_program_empties_by_a_checkpoint_does_not_count_as_truncated() {
    let dir = tempfile::tempdir().unwrap();
    let (path, log) = (dir.path().join("test.db"), dir.path().join("test.db-wal"));
    let store = open(&dir).await.unwrap();
    for n in 1..=3 {
        store.append(append(run_id(n), 1, 1).into()).await.unwrap();
        let other = Options::new(&path).open().unwrap();
        let busy: i64 = other.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0)).unwrap();
        assert_eq!((busy, std::fs::metadata(&log).unwrap().len()), (0, 0));
    }
    store.append(append(run_id(4), 1, 1).into()).await.unwrap();
    assert!(store.healthy(), "{:?}", store.write_failure());
    store.close().await;
    let again: StoreHandle = Arc::new(open(&dir).await.unwrap());
    for n in 1..=4 {
        assert!(!seqs(&again, run_id(n)).await.is_empty(), "run {n}");
    }
    again.close().await;
}

/// Opening a database takes room on the disk for the file `-shm`, unless it is there already.
#[tokio::test]
async fn a_closed_store_keeps_the_files_for_its_next_opening_and_has_everything_in_the_database() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("test.db");
    let size = |name: &str| std::fs::metadata(dir.path().join(name)).map(|found| found.len()).ok();
    for n in 1..=2 {
        let store = open(&dir).await.unwrap();
        store.append(append(run_id(n), 1, 1).into()).await.unwrap();
        store.run(run_id(n)).await.unwrap();
        store.close().await;
        assert_eq!((size("test.db-shm"), size("test.db-wal")), (Some(32_768), Some(0)));
        let expected: Vec<u64> = (1..=n).collect();
        assert_eq!(runs_after_a_kill(&path).await, expected, "the database has everything");
    }
}
