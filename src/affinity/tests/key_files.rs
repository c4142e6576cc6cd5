//! Which files of retry keys a store lists, and which process takes over their keys.

use std::path::Path;

use super::*;
use crate::store::KeyFileRecord;

fn limits() -> Limits {
    Limits { retry_keys_file_bytes_max: 65_536, ..Limits::default() }
}

async fn open_in(store: &Arc<CountingStore>, dir: &Path) -> Arc<KeyLog> {
    let store: StoreHandle = store.clone();
    open_key_log(&store, &KeyFileLocation::Dir(dir.to_owned()), &limits()).await.unwrap()
}

/// The keys that wait, and for each file that could not be read the reason.
fn waiting_and_unread(log: &Arc<KeyLog>) -> (Vec<RetryKey>, Vec<String>) {
    let waiting = log.waiting().into_iter().map(|(key, _)| key).collect();
    let why = |(record, _): (KeyFileRecord, _)| record.unread.unwrap().why;
    (waiting, log.list.unread().into_iter().map(why).collect())
}

/// Ends a process as `kill -9` does. The thread that syncs holds the file for a moment longer.
async fn kill(log: Arc<KeyLog>) {
    log.kill();
    let weak = Arc::downgrade(&log);
    drop(log);
    while weak.strong_count() > 0 {
        tokio::task::yield_now().await;
    }
}

async fn listed_count(store: &CountingStore) -> usize {
    store.key_files().await.unwrap().len()
}

#[tokio::test]
async fn each_process_has_its_own_file_and_takes_over_the_files_of_ended_processes() {
    let (dir, store) = (tempfile::tempdir().unwrap(), CountingStore::new());
    let (one, two) = (open_in(&store, dir.path()).await, open_in(&store, dir.path()).await);
    assert!(one.wait_until_noted(one.note(numbered(1))).await);
    assert!(two.wait_until_noted(two.note(numbered(2))).await);
    two.record_served_unnoted(&[numbered(9)], &RouteId::new("r"));
    two.wait_until_written().await;
    kill(one).await;
    kill(two).await;
    let both = open_in(&store, dir.path()).await;
    assert_eq!(waiting_and_unread(&both), (vec![numbered(1), numbered(2)], vec![]));
    assert!(both.unnoted(&RouteId::new("r")).is_some());
    assert_eq!(listed_count(&store).await, 1);
    let other_store = CountingStore::new();
    assert_eq!(waiting_and_unread(&open_in(&other_store, dir.path()).await), (vec![], vec![]));
}

#[tokio::test]
async fn a_file_is_listed_as_needed_while_retries_of_requests_served_unnoted_may_come() {
    for (retry_window_s, all_stored) in [(3_600, false), (0, true)] {
        let (dir, store) = (tempfile::tempdir().unwrap(), CountingStore::new());
        let (handle, place): (StoreHandle, _) = (store.clone(), KeyFileLocation::Dir(dir.path().to_owned()));
        let log = open_key_log(&handle, &place, &Limits { retry_window_s, ..limits() }).await.unwrap();
        log.record_served_unnoted(&[numbered(9)], &RouteId::new("r"));
        log.finish(&handle).await;
        let listed = store.key_files().await.unwrap();
        assert_eq!(listed.iter().map(|file| file.all_stored).collect::<Vec<_>>(), [all_stored], "{retry_window_s} s");
    }
}

#[tokio::test]
async fn a_file_at_an_earlier_place_is_taken_over_once() {
    let (earlier, later) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = CountingStore::new();
    let log = open_in(&store, earlier.path()).await;
    assert!(log.wait_until_noted(log.note(numbered(1))).await);
    kill(log).await;
    let log = open_in(&store, later.path()).await;
    assert_eq!(waiting_and_unread(&log), (vec![numbered(1)], vec![]));
    assert_eq!(listed_count(&store).await, 1, "its own");
    kill(log).await;
    drop(earlier);
    assert_eq!(waiting_and_unread(&open_in(&store, later.path()).await), (vec![numbered(1)], vec![]));
}

#[tokio::test]
async fn a_listed_file_that_is_gone_is_reported_until_it_is_back() {
    let (earlier, later) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = CountingStore::new();
    let log = open_in(&store, earlier.path()).await;
    assert!(log.wait_until_noted(log.note(numbered(1))).await);
    kill(log).await;
    let hidden = later.path().join("hidden");
    std::fs::rename(earlier.path(), &hidden).unwrap();
    for _ in 0..2 {
        let log = open_in(&store, later.path()).await;
        assert_eq!(waiting_and_unread(&log), (vec![], vec!["is not there".to_owned()]));
        kill(log).await;
    }
    std::fs::rename(&hidden, earlier.path()).unwrap();
    let log = open_in(&store, later.path()).await;
    assert_eq!(waiting_and_unread(&log), (vec![numbered(1)], vec![]));
    assert_eq!(listed_count(&store).await, 1, "its own");
}

#[tokio::test]
async fn after_a_normal_end_no_key_is_missing_without_the_file() {
    let (earlier, later) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = CountingStore::new();
    let handle: StoreHandle = store.clone();
    let log = open_in(&store, earlier.path()).await;
    assert!(log.wait_until_noted(log.note(numbered(1))).await);
    log.finish(&handle).await;
    assert!(!store.key_files().await.unwrap()[0].all_stored, "something waits in it");
    let mover = tokio::spawn(log.clone().move_to_store(handle.clone(), drop));
    log.flush().await;
    log.finish(&handle).await;
    assert!(store.key_files().await.unwrap()[0].all_stored);
    assert!(!log.wait_until_noted(log.note(numbered(2))).await, "no process would read the file");
    mover.abort();
    drop((log, earlier));
    assert_eq!(waiting_and_unread(&open_in(&store, later.path()).await), (vec![], vec![]));
    assert_eq!(listed_count(&store).await, 1, "its own");
}

/// What happens to a store at `original/a.db` and its file of keys after its process ended normally, before a start at
/// `copy/a.db`.
#[derive(Clone, Copy, Debug, PartialEq)]
enum AfterEnd {
    Copied,
    CopiedWithKeyFile,
    /// The process is killed instead, while a key waits.
    KilledCopiedWithKeyFile,
    /// The original is started again before the copy is.
    CopiedBesideRunning,
    /// A file that cannot be read has the name of the file of keys.
    CopiedUnreadable,
    /// The original's file of keys was removed and created again.
    CopiedBesideNewKeyFile,
    Moved,
    MovedWithKeyFile,
    KilledMovedWithKeyFile,
    /// The file of keys stays where it was.
    MovedAlone,
    /// Nothing is copied: the store is started at its own path.
    Stayed,
}

#[tokio::test]
async fn a_copy_is_told_from_a_moved_store() {
    use AfterEnd::*;
    let with_key_file = [CopiedWithKeyFile, KilledCopiedWithKeyFile, MovedWithKeyFile, KilledMovedWithKeyFile];
    let killed = [KilledCopiedWithKeyFile, KilledMovedWithKeyFile];
    let moved = [Moved, MovedWithKeyFile, KilledMovedWithKeyFile, MovedAlone, Stayed];
    let copied = [Copied, CopiedWithKeyFile, KilledCopiedWithKeyFile];
    let copied = [&copied[..], &[CopiedBesideRunning, CopiedUnreadable, CopiedBesideNewKeyFile]].concat();
    for case in copied.iter().copied().chain(moved) {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let location = |name: &str| path(name).display().to_string();
        for name in ["original", "copy"] {
            std::fs::create_dir(path(name)).unwrap();
        }
        let (original_keys, copy_keys) = (path("original/a.db.keys"), path("copy/a.db.keys"));
        std::fs::write(path("original/a.db"), "").unwrap();
        let original = CountingStore::with_content(Arc::default(), &location("original/a.db"));
        let shared: StoreHandle = original.clone();
        let start =
            async || open_key_log(&shared, &KeyFileLocation::File(original_keys.clone()), &limits()).await.unwrap();
        let log = start().await;
        match killed.contains(&case) {
            true => assert!(log.wait_until_noted(log.note(numbered(1))).await),
            false => _ = log.finish(&shared).await,
        }
        kill(log).await;
        if with_key_file.contains(&case) {
            std::fs::copy(&original_keys, &copy_keys).unwrap();
        }
        let mut running = None;
        match case {
            Copied | CopiedWithKeyFile | KilledCopiedWithKeyFile | Stayed => {}
            CopiedBesideRunning => running = Some(start().await),
            CopiedUnreadable => std::fs::write(&original_keys, "").unwrap(),
            CopiedBesideNewKeyFile => {
                let listed = original.key_files().await.unwrap();
                std::fs::remove_file(&original_keys).unwrap();
                kill(start().await).await;
                let new = original.key_files().await.unwrap()[0].id;
                original.put_key_files(listed, vec![new]).await.unwrap();
            }
            Moved | MovedWithKeyFile | KilledMovedWithKeyFile => std::fs::remove_dir_all(path("original")).unwrap(),
            MovedAlone => std::fs::remove_file(path("original/a.db")).unwrap(),
        }
        let at = if case == Stayed { "original/a.db" } else { "copy/a.db" };
        let store = CountingStore::with_content(original.inner.clone(), &location(at));
        let place = KeyFileLocation::File(path(&format!("{at}.keys")));
        let handle: StoreHandle = store.clone();
        let log = open_key_log(&handle, &place, &limits()).await.unwrap();
        let unread: Vec<_> = log.list.unread().into_iter().filter_map(|(record, _)| record.unread).collect();
        let is_copy = copied.contains(&case);
        let of_original: Vec<_> = unread.iter().map(|unread| unread.belongs_to_original).collect();
        assert_eq!(of_original, vec![true; is_copy.into()], "{case:?}");
        let waiting = if killed.contains(&case) { vec![numbered(1)] } else { vec![] };
        assert_eq!(waiting_and_unread(&log).0, waiting, "{case:?}");
        assert!(unread.iter().all(|unread| unread.why.contains(&location("original/a.db"))), "{case:?}: {unread:?}");
        assert_eq!(listed_count(&store).await, 1 + usize::from(is_copy), "{case:?}");
        drop(running);
        let affinity = StoreAffinity::open(handle, &limits(), log).await.unwrap();
        assert_eq!(affinity.copy_started().is_some(), is_copy, "{case:?}");
    }
}

#[tokio::test]
async fn a_copy_of_a_store_takes_nothing_from_the_files_of_the_original() {
    let (dir, original_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let location = original_dir.path().display().to_string();
    let original = CountingStore::with_content(Arc::default(), &location);
    let log = open_in(&original, dir.path()).await;
    assert!(log.wait_until_noted(log.note(numbered(1))).await);
    kill(log).await;

    let copy = CountingStore::with_content(original.inner.clone(), "elsewhere");
    let log = open_in(&copy, dir.path()).await;
    let (waiting, unread) = waiting_and_unread(&log);
    assert!(waiting.is_empty(), "{waiting:?}");
    assert!(unread.len() == 1 && unread[0].contains(&format!("belongs to the store {location}")), "{unread:?}");
    let log_of_original = open_in(&original, dir.path()).await;
    assert_eq!(waiting_and_unread(&log_of_original).0, [numbered(1)], "also while the copy is in use");
    kill(log).await;
    kill(log_of_original).await;

    // No store is at the earlier path: the store was moved.
    drop(original_dir);
    let moved = CountingStore::with_content(original.inner.clone(), "a third path");
    assert_eq!(waiting_and_unread(&open_in(&moved, dir.path()).await).0, [numbered(1)]);
}

#[tokio::test]
async fn a_key_file_that_holds_keys_of_another_store_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let place = KeyFileLocation::File(dir.path().join("a.db.keys"));
    let (one, other): (StoreHandle, StoreHandle) = (CountingStore::new(), CountingStore::new());
    let log = open_key_log(&one, &place, &limits()).await.unwrap();
    assert!(log.wait_until_noted(log.note(numbered(1))).await);
    kill(log).await;
    let refused = open_key_log(&other, &place, &limits()).await.err().unwrap().to_string();
    assert!(refused.contains("a.db.keys") && refused.contains("another store"), "{refused}");
    let log = open_key_log(&one, &place, &limits()).await.unwrap();
    let mover = tokio::spawn(log.clone().move_to_store(one.clone(), drop));
    log.flush().await;
    mover.abort();
    let _cancelled = mover.await;
    log.wait_until_written().await; // the file says that the store has the key
    kill(log).await;
    assert_eq!(
        waiting_and_unread(&open_key_log(&other, &place, &limits()).await.unwrap()),
        (vec![], vec![]),
        "nothing waits in it"
    );
}

/// The path of the original cannot be read. Here it is a loop of symbolic links; a directory without permission would
/// have the same effect.
#[tokio::test]
async fn a_store_counts_as_a_copy_only_while_it_cannot_be_seen_whether_the_original_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let (original_dir, copy_dir) = (dir.path().join("original"), dir.path().join("copy"));
    let location = |dir: &Path| dir.join("a.db").display().to_string();
    for dir in [&original_dir, &copy_dir] {
        std::fs::create_dir(dir).unwrap();
    }
    let original: Arc<CountingStore> = CountingStore::with_content(Arc::default(), &location(&original_dir));
    let place = KeyFileLocation::File(original_dir.join("a.db.keys"));
    let handle: StoreHandle = original.clone();
    let log = open_key_log(&handle, &place, &limits()).await.unwrap();
    log.finish(&handle).await;
    kill(log).await;
    std::fs::remove_dir_all(&original_dir).unwrap();
    std::os::unix::fs::symlink(&original_dir, &original_dir).unwrap();
    let moved = CountingStore::with_content(original.inner.clone(), &location(&copy_dir));
    let place = KeyFileLocation::File(copy_dir.join("a.db.keys"));
    let handle: StoreHandle = moved.clone();
    for is_unknown in [true, true, false, false] {
        if !is_unknown {
            let _ = std::fs::remove_file(&original_dir); // in the last round the path is gone already
        }
        let log = open_key_log(&handle, &place, &limits()).await.unwrap();
        let unread = waiting_and_unread(&log).1;
        assert_eq!(unread.len(), usize::from(is_unknown), "{unread:?}");
        assert!(unread.iter().all(|why| why.contains("search the directories of that path")), "{unread:?}");
        let of_original = |(record, _): (KeyFileRecord, _)| record.unread.unwrap().belongs_to_original;
        assert!(log.list.unread().into_iter().all(of_original));
        kill(log).await;
    }
    assert_eq!(listed_count(&moved).await, 1);
}
