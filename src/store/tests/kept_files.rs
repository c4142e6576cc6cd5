//! The files beside a SQLite database, which a start on a full disk needs: reading, and a start that fails, leave them
//! as they were.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;
use crate::store::sqlite::Options;
use crate::store::{Store as _, StoreError};

const LOG_AND_INDEX: [&str; 2] = ["test.db-wal", "test.db-shm"];

/// The sizes of the log and of its index; `None` for a file that is not there.
fn sizes(dir: &Path) -> [Option<u64>; 2] {
    LOG_AND_INDEX.map(|name| std::fs::metadata(dir.join(name)).map(|found| found.len()).ok())
}

async fn open(dir: &Path) -> Result<SqliteStore, StoreError> {
    SqliteStore::open(dir.join("test.db"), &Limits::default()).await
}

/// A store in this directory whose process was stopped; returns its path.
async fn stopped_store(dir: &Path) -> PathBuf {
    let store = open(dir).await.unwrap();
    store.append(append(run_id(1), 1, 1).into()).await.unwrap();
    store.close().await;
    dir.join("test.db")
}

/// Everything that reads a store without starting a process with it.
async fn read_in_every_way(path: &Path) {
    let dir = tempfile::tempdir().unwrap();
    let checked = SqliteStore::check(path, Duration::from_secs(1)).await.unwrap();
    assert_eq!(checked.runs, 1);
    let copy = dir.path().join("copy.db");
    SqliteStore::back_up(path, &copy, Duration::from_secs(1), |_| Vec::new()).await.unwrap();
    let checked = SqliteStore::check_copy(&copy, Duration::from_secs(1)).await.unwrap();
    assert_eq!(checked.runs, 1);
    let names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["copy.db"], "the copy is one file");
    let store: StoreHandle = Arc::new(SqliteStore::open_for_reading(path, &Limits::default()).await.unwrap());
    assert!(!seqs(&store, run_id(1)).await.is_empty());
    store.close().await;
}

#[tokio::test]
async fn reading_leaves_the_files_beside_the_database_as_they_were() {
    let dir = tempfile::tempdir().unwrap();
    let path = stopped_store(dir.path()).await;
    let stopped = [Some(0), Some(32_768)];
    assert_eq!(sizes(dir.path()), stopped);
    read_in_every_way(&path).await;
    assert_eq!(sizes(dir.path()), stopped);

    // The database alone, as `cp` copies it.
    let alone = tempfile::tempdir().unwrap();
    std::fs::copy(&path, alone.path().join("test.db")).unwrap();
    read_in_every_way(&alone.path().join("test.db")).await;
    assert_eq!(sizes(alone.path()), [None, None]);

    // The files as a kill leaves them: the log has the only copy of a run.
    let (killed, store) = (tempfile::tempdir().unwrap(), open(alone.path()).await.unwrap());
    store.append(append(run_id(2), 1, 1).into()).await.unwrap();
    for name in ["test.db", LOG_AND_INDEX[0], LOG_AND_INDEX[1]] {
        std::fs::copy(alone.path().join(name), killed.path().join(name)).unwrap();
    }
    store.close().await;
    let before = sizes(killed.path());
    assert!(before[0].is_some_and(|bytes| bytes > 0), "{before:?}");
    let checked = SqliteStore::check(killed.path().join("test.db"), Duration::from_secs(1)).await.unwrap();
    assert_eq!(checked.runs, 2);
    assert_eq!(sizes(killed.path()), before);
}

/// A backup that is copied to the place of a store whose process was killed: SQLite would write the log of that store
/// into the backup.
#[tokio::test]
async fn a_backup_beside_the_log_of_another_store_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = stopped_store(dir.path()).await;
    let copy = dir.path().join("copy.db");
    SqliteStore::back_up(&path, &copy, Duration::from_secs(1), |_| Vec::new()).await.unwrap();
    let store = open(dir.path()).await.unwrap();
    store.append(append(run_id(2), 1, 1).into()).await.unwrap();
    let (killed, log) = (tempfile::tempdir().unwrap(), LOG_AND_INDEX[0]);
    std::fs::copy(dir.path().join(log), killed.path().join(log)).unwrap();
    store.close().await;
    let restored = killed.path().join("test.db");
    std::fs::copy(&copy, &restored).unwrap();
    let before = (std::fs::read(&restored).unwrap(), sizes(killed.path()));
    let (started, checked) = (open(killed.path()).await, SqliteStore::check(&restored, Duration::from_secs(1)).await);
    for why in [started.err().expect("it is refused").0, checked.expect_err("it is refused").0] {
        assert!(why.contains("test.db-wal has changes of the database that was in its place"), "{why}");
    }
    assert_eq!((std::fs::read(&restored).unwrap(), sizes(killed.path())), before);
    std::fs::remove_file(killed.path().join(log)).unwrap();
    let store = open(killed.path()).await.unwrap();
    assert!(store.run(run_id(1)).await.unwrap().is_some() && store.run(run_id(2)).await.unwrap().is_none());
    store.close().await;
}

#[tokio::test]
async fn a_start_that_fails_leaves_the_files_beside_the_database_as_they_were() {
    let dir = tempfile::tempdir().unwrap();
    let path = stopped_store(dir.path()).await;
    let edit = |text: &str| {
        let other = Options::new(&path).open().unwrap();
        other.execute_batch(text).unwrap();
        drop(other);
        // The last connection has removed both.
        std::fs::write(dir.path().join(LOG_AND_INDEX[0]), "").unwrap();
        std::fs::write(dir.path().join(LOG_AND_INDEX[1]), [0; 32_768]).unwrap();
    };
    for (text, expected) in [
        ("UPDATE meta SET value = x'3939' WHERE key = 'event_version'", "newer"),
        ("UPDATE meta SET value = x'00' WHERE key = 'secret'", "wrong length"),
    ] {
        let meta = "CREATE TABLE meta_before AS SELECT * FROM meta;";
        edit(&format!("{meta} {text}"));
        let before = sizes(dir.path());
        let why = open(dir.path()).await.err().expect("it is refused").0;
        assert!(why.contains(expected), "{why}");
        assert_eq!(sizes(dir.path()), before, "{why}");
        edit("INSERT OR REPLACE INTO meta SELECT * FROM meta_before; DROP TABLE meta_before");
    }
    // A process that has opened the store and cannot go on drops it.
    drop(open(dir.path()).await.unwrap());
    let store = open(dir.path()).await.unwrap();
    assert_eq!(sizes(dir.path())[1], Some(32_768));
    store.close().await;
    assert_eq!(sizes(dir.path()), [Some(0), Some(32_768)]);
}

/// A process that was killed while it wrote without a log, as the first start of all does, leaves a journal. The
/// database is damaged until a connection that may write has rolled it back.
#[tokio::test]
async fn a_journal_beside_an_index_of_the_log_is_rolled_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = stopped_store(dir.path()).await;
    let other = Options::new(&path).pragma("journal_mode", "DELETE").pragma("cache_size", "1").open().unwrap();
    other.execute_batch("BEGIN; DELETE FROM meta; CREATE TABLE filler AS SELECT zeroblob(1000000) AS x").unwrap();
    for is_started in [false, true] {
        let killed = tempfile::tempdir().unwrap();
        for name in ["test.db", "test.db-journal"] {
            std::fs::copy(dir.path().join(name), killed.path().join(name)).unwrap();
        }
        let killed = killed.path();
        std::fs::write(killed.join(LOG_AND_INDEX[1]), "").unwrap();
        match is_started {
            false => {
                let checked = SqliteStore::check(killed.join("test.db"), Duration::from_secs(1)).await;
                assert_eq!(checked.map(|checked| checked.runs).map_err(|error| error.0), Ok(1));
            }
            true => {
                let store = open(killed).await.unwrap();
                assert!(store.run(run_id(1)).await.unwrap().is_some());
                store.close().await;
            }
        }
        assert!(!killed.join("test.db-journal").exists(), "started: {is_started}");
    }
}

/// Takes 5 s: so long SQLite waits for the lock.
#[tokio::test]
async fn a_store_that_another_program_has_locked_for_itself_is_refused_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let path = stopped_store(dir.path()).await;
    let other = Options::new(&path).pragma("locking_mode", "EXCLUSIVE").open().unwrap();
    other.execute_batch("BEGIN IMMEDIATE; UPDATE meta SET value = value; COMMIT").unwrap();
    let (started, checked) = tokio::join!(open(dir.path()), SqliteStore::check(&path, Duration::from_secs(1)));
    for why in [started.err().expect("it is refused").0, checked.expect_err("it is refused").0] {
        assert!(why.contains("test.db") && why.contains("another program holds the database"), "{why}");
        assert!(why.contains("`fuser`"), "{why}");
    }
    drop(other);
    open(dir.path()).await.unwrap().close().await;
}
