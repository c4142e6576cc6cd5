//! Snapshots of runs: kept as they are, one for each run, gone with it.

use super::*;
use crate::store::{RunSnapshot, Store};

on_every_store! {
    a_snapshot_comes_back_as_it_was,
    the_one_for_the_most_events_stands,
    nothing_is_kept_of_a_run_that_is_not_there_or_not_so_far,
    it_goes_with_its_run,
    it_is_there_after_a_restart,
}

/// Larger than any portion; different for different seqs.
fn snapshot(run: RunId, seq: u64) -> RunSnapshot {
    let body = (0..400_000_u64).map(|n| (n.wrapping_mul(2_654_435_761 + seq) >> 13) as u8).collect();
    RunSnapshot { run, seq: Seq(seq), at: at(seq.cast_signed()), fold: format!("fold {seq}"), body }
}

async fn kept(store: &SharedStore, run: RunId) -> Option<RunSnapshot> {
    store.run_snapshot(run).await.unwrap()
}

async fn a_snapshot_comes_back_as_it_was(which: Which) {
    let place = Place::new(which).await;
    let store = &place.store;
    store.append(append(run_id(1), 1, 9).into()).await.unwrap();
    assert_eq!(kept(store, run_id(1)).await, None);
    for body in [vec![0], b"{\"a\":\"\\u0000\"}".to_vec(), snapshot(run_id(1), 3).body] {
        let put = RunSnapshot { body, ..snapshot(run_id(1), 3) };
        store.put_run_snapshot(put.clone()).await.unwrap();
        assert_eq!(kept(store, run_id(1)).await, Some(put));
    }
    assert_eq!(kept(store, run_id(2)).await, None);
}

async fn the_one_for_the_most_events_stands(which: Which) {
    let place = Place::new(which).await;
    let store = &place.store;
    store.append(append(run_id(1), 1, 9).into()).await.unwrap();
    for seq in [4, 2, 6, 5, 6] {
        store.put_run_snapshot(snapshot(run_id(1), seq)).await.unwrap();
    }
    assert_eq!(kept(store, run_id(1)).await, Some(snapshot(run_id(1), 6)));
    // Another binary's takes its place where it is for as many events.
    let other = RunSnapshot { fold: "other".into(), body: b"o".to_vec(), ..snapshot(run_id(1), 6) };
    store.put_run_snapshot(other.clone()).await.unwrap();
    assert_eq!(kept(store, run_id(1)).await, Some(other));
}

async fn nothing_is_kept_of_a_run_that_is_not_there_or_not_so_far(which: Which) {
    let place = Place::new(which).await;
    let store = &place.store;
    store.append(append(run_id(1), 1, 9).into()).await.unwrap();
    for (run, seq) in [(1, 10), (2, 1)] {
        store.put_run_snapshot(snapshot(run_id(run), seq)).await.unwrap();
        assert_eq!(kept(store, run_id(run)).await, None);
    }
    store.put_run_snapshot(snapshot(run_id(1), 9)).await.unwrap();
    store.append(append(run_id(2), 1, 1).into()).await.unwrap();
    assert_eq!(kept(store, run_id(2)).await, None, "what was refused does not come later");
    assert_eq!(kept(store, run_id(1)).await.unwrap().seq, Seq(9));
}

async fn it_goes_with_its_run(which: Which) {
    let place = Place::new(which).await;
    let store = &place.store;
    let past = Timestamp::from_second(1_700_000_000).unwrap();
    store.append(answered(run_id(1), past).into()).await.unwrap();
    let pins = vec![pin("17", Arm::Engine)];
    store.append(Arc::new(Append { pins, ..answered(run_id(2), past) })).await.unwrap();
    store.append(append(run_id(3), 1, 9).into()).await.unwrap();
    for run in [1, 2, 3] {
        store.put_run_snapshot(snapshot(run_id(run), 2)).await.unwrap();
    }
    let purged = store.purge(RunStatus::Completed, at(0), 9).await.unwrap();
    assert_eq!((purged.runs, purged.pinned), (2, 1));
    for run in [1, 2] {
        // One that was on its way comes too late.
        store.put_run_snapshot(snapshot(run_id(run), 1)).await.unwrap();
        assert_eq!(kept(store, run_id(run)).await, None);
    }
    assert_eq!(kept(store, run_id(3)).await, Some(snapshot(run_id(3), 2)));
}

async fn it_is_there_after_a_restart(which: Which) {
    let mut place = Place::new(which).await;
    place.store.append(append(run_id(1), 1, 9).into()).await.unwrap();
    place.store.put_run_snapshot(snapshot(run_id(1), 7)).await.unwrap();
    place.reopen().await;
    assert_eq!(kept(&place.store, run_id(1)).await, Some(snapshot(run_id(1), 7)));
}

/// A database, open beside its store.
struct Beside {
    store: SqliteStore,
    conn: rusqlite::Connection,
    _dir: tempfile::TempDir,
}

impl Beside {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("test.db");
        let store = SqliteStore::open(&path, &Limits::default()).await.unwrap();
        store.append(append(run_id(1), 1, 9).into()).await.unwrap();
        Self { store, conn: rusqlite::Connection::open(path).unwrap(), _dir: dir }
    }
    fn rows(&self) -> i64 {
        self.conn.query_row("SELECT count(*) FROM run_snapshots", [], |row| row.get(0)).unwrap()
    }
    fn edit(&self, text: &str) {
        assert!(self.conn.execute(text, []).unwrap() > 0, "{text}");
    }
    async fn put(&self, seq: u64) {
        crate::store::Work::put_run_snapshot(&self.store, snapshot(run_id(1), seq)).await.unwrap();
    }
    async fn kept(&self) -> Result<Option<u64>, crate::store::StoreError> {
        Ok(crate::store::Work::run_snapshot(&self.store, run_id(1)).await?.map(|kept| kept.seq.0))
    }
}

/// What no process has written to its end is not seen, and goes with the next one.
#[tokio::test]
async fn half_a_snapshot_is_none_and_a_changed_one_an_error() {
    let place = Beside::new().await;
    place.put(3).await;
    let whole = place.rows();
    assert!(whole > 3, "{whole} portions");
    let most: i64 = place.conn.query_row("SELECT max(length(body)) FROM run_snapshots", [], |row| row.get(0)).unwrap();
    assert!(most <= 128 << 10, "an append waits for {most} bytes");
    // The next one's writer was killed.
    let copy = "INSERT INTO run_snapshots (run_id, put, part, parts, seq, at, fold, hash, body) \
                SELECT run_id, x'01', part, parts, 4, at, fold, hash, body FROM run_snapshots WHERE part < 2";
    place.edit(copy);
    assert_eq!(place.kept().await, Ok(Some(3)));
    place.put(5).await;
    assert_eq!((place.kept().await, place.rows()), (Ok(Some(5)), whole), "all that stood before is gone");
    place.edit("DELETE FROM run_snapshots WHERE part = 1");
    assert_eq!(place.kept().await, Ok(None));
    place.put(6).await;
    place.edit("UPDATE run_snapshots SET body = x'00' || substr(body, 2) WHERE part = 1");
    let error = place.kept().await.unwrap_err();
    assert_eq!(error.0, format!("the snapshot of {} at event 6 is damaged", run_id(1)));
    place.put(6).await;
    assert_eq!((place.kept().await, place.rows()), (Ok(Some(6)), whole));
    place.store.close().await;
}
