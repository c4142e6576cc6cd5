//! Tests that snapshots of runs are stored unchanged, one for each run, and removed with the run.

use super::*;
use crate::store::{RunSnapshot, Store};

on_every_store! {
    a_snapshot_is_read_as_it_was_written,
    the_snapshot_of_the_most_events_is_kept,
    a_snapshot_beyond_the_stored_events_is_not_kept,
    a_snapshot_is_removed_with_its_run,
    a_snapshot_is_read_after_a_restart,
}

/// A snapshot that is stored in several parts; its body depends on the seq.
fn snapshot(run: RunId, seq: u64) -> RunSnapshot {
    let body = (0..400_000_u64).map(|n| (n.wrapping_mul(2_654_435_761 + seq) >> 13) as u8).collect();
    RunSnapshot { run, seq: Seq(seq), at: at(seq.cast_signed()), fold: format!("fold {seq}"), body }
}

async fn stored_snapshot(store: &StoreHandle, run: RunId) -> Option<RunSnapshot> {
    store.run_snapshot(run).await.unwrap()
}

async fn a_snapshot_is_read_as_it_was_written(which: StoreKind) {
    let fixture = StoreFixture::new(which).await;
    let store = &fixture.store;
    store.append(append(run_id(1), 1, 9).into()).await.unwrap();
    assert_eq!(stored_snapshot(store, run_id(1)).await, None);
    for body in [vec![0], b"{\"a\":\"\\u0000\"}".to_vec(), snapshot(run_id(1), 3).body] {
        let put = RunSnapshot { body, ..snapshot(run_id(1), 3) };
        store.put_run_snapshot(put.clone()).await.unwrap();
        assert_eq!(stored_snapshot(store, run_id(1)).await, Some(put));
    }
    assert_eq!(stored_snapshot(store, run_id(2)).await, None);
}

async fn the_snapshot_of_the_most_events_is_kept(which: StoreKind) {
    let fixture = StoreFixture::new(which).await;
    let store = &fixture.store;
    store.append(append(run_id(1), 1, 9).into()).await.unwrap();
    for seq in [4, 2, 6, 5, 6] {
        store.put_run_snapshot(snapshot(run_id(1), seq)).await.unwrap();
    }
    assert_eq!(stored_snapshot(store, run_id(1)).await, Some(snapshot(run_id(1), 6)));
    // The snapshot of another version replaces one of as many events.
    let other = RunSnapshot { fold: "other".into(), body: b"o".to_vec(), ..snapshot(run_id(1), 6) };
    store.put_run_snapshot(other.clone()).await.unwrap();
    assert_eq!(stored_snapshot(store, run_id(1)).await, Some(other));
}

async fn a_snapshot_beyond_the_stored_events_is_not_kept(which: StoreKind) {
    let fixture = StoreFixture::new(which).await;
    let store = &fixture.store;
    store.append(append(run_id(1), 1, 9).into()).await.unwrap();
    for (run, seq) in [(1, 10), (2, 1)] {
        store.put_run_snapshot(snapshot(run_id(run), seq)).await.unwrap();
        assert_eq!(stored_snapshot(store, run_id(run)).await, None);
    }
    store.put_run_snapshot(snapshot(run_id(1), 9)).await.unwrap();
    store.append(append(run_id(2), 1, 1).into()).await.unwrap();
    assert_eq!(stored_snapshot(store, run_id(2)).await, None, "a refused snapshot is not stored later");
    assert_eq!(stored_snapshot(store, run_id(1)).await.unwrap().seq, Seq(9));
}

async fn a_snapshot_is_removed_with_its_run(which: StoreKind) {
    let fixture = StoreFixture::new(which).await;
    let store = &fixture.store;
    let past = Timestamp::from_second(1_700_000_000).unwrap();
    store.append(completed_run(run_id(1), past).into()).await.unwrap();
    let pins = vec![pin("17", Arm::Engine)];
    store.append(Arc::new(Append { pins, ..completed_run(run_id(2), past) })).await.unwrap();
    store.append(append(run_id(3), 1, 9).into()).await.unwrap();
    for run in [1, 2, 3] {
        store.put_run_snapshot(snapshot(run_id(run), 2)).await.unwrap();
    }
    let purged = store.purge(RunStatus::Completed, at(0), 9).await.unwrap();
    assert_eq!((purged.runs, purged.pinned), (2, 1));
    for run in [1, 2] {
        // A snapshot that comes after the purge is not stored.
        store.put_run_snapshot(snapshot(run_id(run), 1)).await.unwrap();
        assert_eq!(stored_snapshot(store, run_id(run)).await, None);
    }
    assert_eq!(stored_snapshot(store, run_id(3)).await, Some(snapshot(run_id(3), 2)));
}

async fn a_snapshot_is_read_after_a_restart(which: StoreKind) {
    let mut fixture = StoreFixture::new(which).await;
    fixture.store.append(append(run_id(1), 1, 9).into()).await.unwrap();
    fixture.store.put_run_snapshot(snapshot(run_id(1), 7)).await.unwrap();
    fixture.reopen().await;
    assert_eq!(stored_snapshot(&fixture.store, run_id(1)).await, Some(snapshot(run_id(1), 7)));
}

/// A store, and a second connection to its database.
struct StoreAndConnection {
    store: SqliteStore,
    conn: rusqlite::Connection,
    _dir: tempfile::TempDir,
}

impl StoreAndConnection {
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
        crate::store::RunCoordination::put_run_snapshot(&self.store, snapshot(run_id(1), seq)).await.unwrap();
    }
    /// The seq of the stored snapshot.
    async fn stored_seq(&self) -> Result<Option<u64>, crate::store::StoreError> {
        Ok(crate::store::RunCoordination::run_snapshot(&self.store, run_id(1)).await?.map(|snapshot| snapshot.seq.0))
    }
}

/// A snapshot that was not written completely is ignored, and removed with the next one.
#[tokio::test]
async fn an_incomplete_snapshot_is_ignored_and_a_damaged_one_is_an_error() {
    let fixture = StoreAndConnection::new().await;
    fixture.put(3).await;
    let whole = fixture.rows();
    assert!(whole > 3, "{whole} parts");
    let most: i64 =
        fixture.conn.query_row("SELECT max(length(body)) FROM run_snapshots", [], |row| row.get(0)).unwrap();
    assert!(most <= 128 << 10, "one part has {most} bytes, and appends wait while it is written");
    // The process was killed while it wrote the next one.
    let copy = "INSERT INTO run_snapshots (run_id, put, part, parts, seq, at, fold, hash, body) \
                SELECT run_id, x'01', part, parts, 4, at, fold, hash, body FROM run_snapshots WHERE part < 2";
    fixture.edit(copy);
    assert_eq!(fixture.stored_seq().await, Ok(Some(3)));
    fixture.put(5).await;
    assert_eq!((fixture.stored_seq().await, fixture.rows()), (Ok(Some(5)), whole), "all earlier rows are removed");
    fixture.edit("DELETE FROM run_snapshots WHERE part = 1");
    assert_eq!(fixture.stored_seq().await, Ok(None));
    fixture.put(6).await;
    fixture.edit("UPDATE run_snapshots SET body = x'00' || substr(body, 2) WHERE part = 1");
    let error = fixture.stored_seq().await.unwrap_err();
    assert_eq!(error.0, format!("the snapshot of {} at event 6 is damaged", run_id(1)));
    fixture.put(6).await;
    assert_eq!((fixture.stored_seq().await, fixture.rows()), (Ok(Some(6)), whole));
    fixture.store.close().await;
}
