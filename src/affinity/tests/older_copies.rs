//! Older copies of a store, put in its place, and stores that only look like one.

use std::path::{Path, PathBuf};

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _};

use super::*;
use crate::store::SqliteStore;

/// A store with its file of retry keys, and a copy of the store.
struct Files {
    dir: tempfile::TempDir,
    /// The directory of the files of retry keys, if it is not beside the store.
    keys_in: Option<PathBuf>,
}

/// A process, as far as it concerns the files of retry keys.
struct Process {
    store: StoreHandle,
    affinity: Arc<StoreAffinity>,
}

fn limits() -> Limits {
    Limits { retry_keys_file_bytes_max: 65_536, ..Limits::default() }
}

impl Files {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), keys_in: None }
    }
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
    fn copy(&self, from: &str, to: &str) {
        std::fs::copy(self.path(from), self.path(to)).unwrap();
    }
    fn remove_store(&self) {
        for end in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(self.path(&format!("a.db{end}"))); // not all of them exist
        }
    }
    /// Puts the copy `old.db` in the place of the store, whose file of retry keys stays.
    fn restore_copy(&self) {
        self.remove_store();
        self.copy("old.db", "a.db");
    }
    async fn open(&self) -> Result<Process, KeyFileError> {
        let store: StoreHandle = Arc::new(SqliteStore::open(&self.path("a.db"), &limits()).await.unwrap());
        let beside = KeyFileLocation::File(self.path("a.db.keys"));
        let location = self.keys_in.clone().map_or(beside, KeyFileLocation::Dir);
        match open_key_log(&store, &location, &limits()).await {
            Ok(log) => {
                Ok(Process { affinity: StoreAffinity::open(store.clone(), &limits(), log).await.unwrap(), store })
            }
            Err(error) => {
                store.close().await;
                Err(error)
            }
        }
    }
    async fn start(&self) -> Process {
        self.open().await.unwrap()
    }
    /// Runs one process from start to end.
    async fn run_once(&self) {
        let process = self.start().await;
        process.begin_generation().await;
        process.end().await;
    }
    /// Starts a process that does not begin a generation. Returns since when that process counts the store as a copy.
    async fn copy_started(&self) -> Option<Timestamp> {
        let process = self.start().await;
        let started = process.affinity.copy_started();
        process.end().await;
        started
    }
}

impl Process {
    async fn store_generation(&self) -> u64 {
        let mut times = self.store.running_times().await.unwrap().unwrap();
        let generation = times.begin_generation(self.affinity.generation_in_files());
        self.store.put_running_times(times).await.unwrap();
        generation
    }
    async fn begin_generation(&self) {
        let generation = self.store_generation().await;
        self.affinity.write_generation(generation);
        self.affinity.keys.wait_until_written().await;
    }
    /// Ends the process as `kill -9` does.
    async fn end(self) {
        self.affinity.keys.kill();
        self.store.close().await;
        let weak = Arc::downgrade(&self.affinity.keys);
        drop(self);
        while weak.strong_count() > 0 {
            tokio::task::yield_now().await;
        }
    }
}

async fn query(database: &Path, text: &'static str) {
    let mut conn = SqliteConnectOptions::new().filename(database).connect().await.unwrap();
    sqlx::raw_sql(text).execute(&mut conn).await.unwrap();
    conn.close().await.unwrap();
}

#[tokio::test]
async fn a_store_that_is_older_than_its_file_of_keys_is_a_copy() {
    let files = Files::new();
    files.run_once().await;
    files.copy("a.db", "old.db");
    assert_eq!(files.copy_started().await, None);
    files.run_once().await;
    assert_eq!(files.copy_started().await, None);
    files.restore_copy();
    // Killed before it began a generation.
    let first = files.copy_started().await;
    assert!(first.is_some());
    let process = files.start().await;
    let since = process.affinity.copy_started();
    assert!(since >= first);
    let why = process.affinity.unread_key_files()[0].0.clone();
    assert!(why.contains("a.db.keys was written after this store: the store is an older copy"), "{why}");
    process.begin_generation().await;
    process.end().await;
    for _ in 0..2 {
        assert_eq!(files.copy_started().await, since, "it stays a copy, and does not become one again");
        files.run_once().await;
    }
    // The copy is put in the place of the store once more: it does not have what was done since.
    files.restore_copy();
    assert!(files.copy_started().await > since);
}

#[tokio::test]
async fn a_process_that_was_killed_at_any_point_leaves_no_copy() {
    let files = Files::new();
    for _ in 0..2 {
        let process = files.start().await;
        process.end().await;
        assert_eq!(files.copy_started().await, None, "killed before the store had its generation");
        let process = files.start().await;
        process.store_generation().await;
        process.end().await;
        assert_eq!(files.copy_started().await, None, "killed before the file had it");
        files.run_once().await;
    }
}

#[tokio::test]
async fn a_file_that_has_no_generation_or_that_of_another_store_tells_nothing() {
    let mut files = Files::new();
    files.run_once().await;
    files.copy("a.db", "old.db");
    let process = files.start().await;
    process.store_generation().await;
    process.affinity.write_generation(0); // as a version that knows no generations writes the file
    process.end().await;
    files.restore_copy();
    assert_eq!(files.copy_started().await, None);

    files.run_once().await;
    files.remove_store();
    for _ in 0..2 {
        assert_eq!(files.copy_started().await, None, "the store is new");
    }
    files.run_once().await;

    // Another directory, and back to the first one: its file is older than the store.
    for dir in [None, Some("one"), Some("two"), Some("one"), None] {
        files.keys_in = dir.map(|dir| files.path(dir));
        let _ = files.keys_in.as_ref().map(std::fs::create_dir_all);
        for _ in 0..2 {
            assert_eq!(files.copy_started().await, None, "{dir:?}");
            files.run_once().await;
        }
    }
}

/// Once the process has taken over the generation of the later file, that file does not make the store a copy again.
#[tokio::test]
async fn a_later_file_in_an_earlier_directory_is_found_too() {
    let mut files = Files::new();
    files.run_once().await;
    files.copy("a.db", "old.db");
    files.run_once().await;
    files.restore_copy();
    files.keys_in = Some(files.path("keys"));
    std::fs::create_dir(files.path("keys")).unwrap();
    let process = files.start().await;
    let since = process.affinity.copy_started();
    assert!(since.is_some());
    process.begin_generation().await;
    process.end().await;
    assert_eq!(files.copy_started().await, since);
    files.keys_in = None;
    assert_eq!(files.copy_started().await, since);
}

/// Without the record the next start would find nothing.
#[tokio::test]
async fn a_copy_that_cannot_record_that_it_is_one_is_not_started() {
    let files = Files::new();
    files.run_once().await;
    files.copy("a.db", "old.db");
    files.run_once().await;
    files.restore_copy();
    let refuse = "CREATE TRIGGER refuse BEFORE INSERT ON meta WHEN NEW.key LIKE 'key_file:%' \
                  BEGIN SELECT RAISE(ABORT, 'no room'); END";
    query(&files.path("a.db"), refuse).await;
    for _ in 0..2 {
        let refused = files.open().await.err().unwrap().to_string();
        assert!(refused.contains("an older copy, put in the place of a later one"), "{refused}");
    }
    query(&files.path("a.db"), "DROP TRIGGER refuse").await;
    assert!(files.copy_started().await.is_some());
}
