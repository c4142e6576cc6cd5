//! Snapshots of runs, stored in parts.
//!
//! Always true: each part is written or deleted in a transaction of its own, so that an append waits for one part at
//! most. Only a snapshot with all of its parts is read, and a hash proves that it is what was written. The parts of an
//! interrupted write are deleted with the next snapshot of the run, or with the run.
//!
//! The names of tables and columns are explained in [`crate::store`].

use rusqlite::{Connection, params};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, Sqlite};
use uuid::Uuid;

use super::encoded::nanos;
use super::{codec, read};
use crate::names::{RunId, Seq};
use crate::store::write_error::WriteError;
use crate::store::{RunSnapshot, StoreError};

/// The largest part.
const PART_BYTES: usize = 128 << 10;
/// The most parts that one transaction deletes.
pub(super) const PARTS_DELETED_MAX: u32 = 2;

/// A part of a snapshot.
pub(super) struct SnapshotPart {
    run: RunId,
    writing: Uuid,
    part: i64,
    parts: i64,
    seq: i64,
    at: i64,
    fold: String,
    hash: [u8; 32],
    body: Vec<u8>,
}

/// Splits a snapshot into parts, in order. Also returns the id of this write, which they share.
pub(super) fn parts(snapshot: &RunSnapshot) -> (Uuid, impl Iterator<Item = SnapshotPart>) {
    let writing = Uuid::from_u128(fastrand::u128(..));
    let hash = codec::hash(&snapshot.body);
    let parts = snapshot.body.chunks(PART_BYTES);
    let count = i64::try_from(parts.len()).unwrap_or(i64::MAX);
    let parts = (0..).zip(parts).map(move |(part, body)| SnapshotPart {
        run: snapshot.run,
        writing,
        part,
        parts: count,
        seq: snapshot.seq.0.cast_signed(),
        at: nanos(snapshot.at),
        fold: snapshot.fold.clone(),
        hash,
        body: body.to_vec(),
    });
    (writing, parts)
}

/// Stores a part; `false` if the run does not exist, has fewer events or is purged.
pub(super) fn insert_part(conn: &Connection, part: &SnapshotPart) -> Result<bool, WriteError> {
    let SnapshotPart { run, writing, part, parts, seq, at, fold, hash, body } = part;
    let text = "INSERT INTO run_snapshots (run_id, put, part, parts, seq, at, fold, hash, body) \
                SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9 \
                FROM runs WHERE run_id = ?1 AND seq >= ?5 AND remains IS NULL \
                ON CONFLICT (run_id, put, part) DO UPDATE SET body = excluded.body";
    let (run, writing) = (run.0.as_bytes().as_slice(), writing.as_bytes().as_slice());
    let values = params![run, writing, part, parts, seq, at, fold, hash.as_slice(), body];
    Ok(conn.prepare_cached(text)?.execute(values)? > 0)
}

/// Deletes some parts of older snapshots of the run: those that were begun before this one and do not include more
/// events. Returns how many.
pub(super) fn delete_older(conn: &Connection, run: RunId, writing: Uuid) -> Result<usize, WriteError> {
    let text = "DELETE FROM run_snapshots WHERE pos IN (SELECT old.pos FROM run_snapshots AS old, \
                    (SELECT min(pos) AS pos, max(seq) AS seq FROM run_snapshots WHERE run_id = ?1 AND put = ?2) AS new \
                WHERE old.run_id = ?1 AND old.put <> ?2 AND old.pos < new.pos AND old.seq <= new.seq LIMIT ?3)";
    let values = params![run.0.as_bytes().as_slice(), writing.as_bytes().as_slice(), PARTS_DELETED_MAX];
    Ok(conn.prepare_cached(text)?.execute(values)?)
}

/// Deletes some parts of purged runs; returns how many.
pub(super) fn delete_purged(conn: &Connection) -> Result<usize, WriteError> {
    let text = "DELETE FROM run_snapshots WHERE pos IN (SELECT s.pos FROM purging \
                CROSS JOIN run_snapshots AS s ON s.run_id = purging.run_id LIMIT ?)";
    Ok(conn.prepare_cached(text)?.execute([PARTS_DELETED_MAX])?)
}

/// The complete snapshot of a run that includes the most events.
pub(super) async fn read_newest(
    store: impl sqlx::Executor<'_, Database = Sqlite>,
    run: RunId,
) -> sqlx::Result<Option<Result<RunSnapshot, StoreError>>> {
    let text = "SELECT seq, at, fold, hash, body FROM run_snapshots WHERE run_id = ?1 AND put = \
                (SELECT put FROM run_snapshots WHERE run_id = ?1 GROUP BY put HAVING count(*) = max(parts) \
                 ORDER BY max(seq) DESC, max(pos) DESC LIMIT 1) \
                AND NOT EXISTS (SELECT 1 FROM purging WHERE run_id = ?1) ORDER BY part";
    let rows = sqlx::query(text).bind(run.0.as_bytes().as_slice()).fetch_all(store).await?;
    let Some(first) = rows.first() else { return Ok(None) };
    let hash: &[u8] = first.try_get(3)?;
    let bodies = rows.iter().map(|row: &SqliteRow| row.try_get(4)).collect::<sqlx::Result<Vec<&[u8]>>>()?;
    let body = bodies.concat();
    let at = read::time(first.try_get(1)?);
    let (seq, fold) = (Seq(first.try_get::<i64, _>(0)?.cast_unsigned()), first.try_get(2)?);
    Ok(Some(at.and_then(|at| RunSnapshot { run, seq, at, fold, body }.checked(hash))))
}
