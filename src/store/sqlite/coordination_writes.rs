//! The writer's writes for [`crate::store::RunCoordination`]: ownership of runs, commands, messages, snapshots,
//! purging.
//!
//! Always true: each is one transaction on the writer's connection and idempotent, except that acquiring a run twice
//! increments its fencing token twice. A purge deletes the rows of its runs in portions, so that an append waits for
//! one portion at most; the next purge continues an interrupted one.
//!
//! The names of tables and columns are explained in [`crate::store`].

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde_json::Value;
use uuid::Uuid;

use super::notifier::Notifier;
use super::run_snapshots::{self, PARTS_DELETED_MAX, SnapshotPart};
use super::stored_state::run_id;
use super::write_append::WriteTime;
use crate::flag::RetryKey;
use crate::names::{Fence, RunId, WorkerId};
use crate::store::bound_keys::is_bound;
use crate::store::summary::{decode_summary, decoded_or_logged};
use crate::store::write_error::WriteError;
use crate::store::{AcquireResult, CommandRecord, OwnedRun, StoreError, StoreNotification, no_such_run, run_has_ended};

/// Rows of appends that one transaction deletes.
const APPENDS_AT_ONCE: u32 = 200;
/// Payloads that one transaction deletes.
const PAYLOADS_AT_ONCE: u32 = 16;

pub(super) enum CoordinationWrite {
    ReleaseAll(WorkerId),
    Acquire(WorkerId, RunId),
    AcquireDue(WorkerId, i64),
    PutCommand(Box<CommandRecord>),
    AnswerCommand(Uuid, Value),
    DeleteMessage(i64),
    DropPendingRun(RunId),
    /// Stores a part of a snapshot.
    PutSnapshot(SnapshotPart),
    /// Deletes some of the parts that this snapshot of a run replaces.
    DropSnapshots(RunId, Uuid),
    /// Runs to purge; each pinned one with the bodies to store (JSON).
    MarkPurged(Vec<(RunId, Option<Vec<u8>>)>),
    /// Deletes a portion of the rows of purged runs.
    DeletePurged,
    /// Deletes those of these retry keys that have expired.
    PruneRetryKeys(Vec<RetryKey>),
}

/// The result of a [`CoordinationWrite`].
#[derive(Debug)]
pub(super) enum CoordinationResult {
    Nothing,
    Acquired(AcquireResult),
    Due(Vec<OwnedRun>),
    /// The number of runs.
    Marked(u64),
    /// The number of payloads, and whether no rows of purged runs are left.
    Deleted(u64, bool),
    /// The number of retry keys.
    Pruned(u64),
    /// The number of parts that were stored or deleted.
    SnapshotParts(usize),
}

/// Performs the write within a transaction. The notifications are to be sent after the commit.
pub(super) fn write(
    conn: &Connection,
    request: &CoordinationWrite,
    notifier: &Notifier,
    now: WriteTime,
) -> Result<(CoordinationResult, Vec<StoreNotification>), WriteError> {
    let mut notifications = Vec::new();
    let result = match request {
        CoordinationWrite::ReleaseAll(worker) => {
            let text = "UPDATE runs SET owner = NULL, turn = 0 WHERE ended = 0 AND owner = ? RETURNING run_id";
            let released: Vec<Vec<u8>> =
                query_rows(conn, text, params![worker.0.as_bytes().as_slice()], |row| row.get(0))?;
            notifications.extend(released.into_iter().filter_map(run_id).map(StoreNotification::Run));
            CoordinationResult::Nothing
        }
        CoordinationWrite::Acquire(worker, run) => CoordinationResult::Acquired(acquire(conn, *worker, *run)?),
        CoordinationWrite::AcquireDue(worker, limit) => {
            if notifier.may_have_other_owners(*worker) {
                let text = "UPDATE runs SET owner = NULL, turn = 0 \
                            WHERE ended = 0 AND owner IS NOT NULL AND owner <> ?";
                conn.execute(text, [worker.0.as_bytes().as_slice()])?;
            }
            CoordinationResult::Due(acquire_due(conn, *worker, *limit, now.ns)?)
        }
        CoordinationWrite::PutCommand(command) => {
            notifications.push(put_command(conn, command)?);
            CoordinationResult::Nothing
        }
        CoordinationWrite::AnswerCommand(id, answer) => {
            let text = "UPDATE orders SET answer = ? WHERE id = ? AND answer IS NULL";
            conn.prepare_cached(text)?.execute(params![json(answer)?, id.as_bytes().as_slice()])?;
            notifications.push(StoreNotification::Command(*id));
            CoordinationResult::Nothing
        }
        CoordinationWrite::DeleteMessage(number) => {
            conn.prepare_cached("DELETE FROM notices WHERE number = ?")?.execute([number])?;
            CoordinationResult::Nothing
        }
        CoordinationWrite::DropPendingRun(run) => {
            conn.prepare_cached("DELETE FROM births WHERE run_id = ?")?.execute([run.0.as_bytes().as_slice()])?;
            CoordinationResult::Nothing
        }
        CoordinationWrite::PutSnapshot(part) => {
            CoordinationResult::SnapshotParts(usize::from(run_snapshots::insert_part(conn, part)?))
        }
        CoordinationWrite::DropSnapshots(run, put) => {
            CoordinationResult::SnapshotParts(run_snapshots::delete_older(conn, *run, *put)?)
        }
        CoordinationWrite::MarkPurged(runs) => CoordinationResult::Marked(mark_purged(conn, runs)?),
        CoordinationWrite::DeletePurged => {
            let (payloads, done) = delete_purged(conn)?;
            CoordinationResult::Deleted(payloads, done)
        }
        CoordinationWrite::PruneRetryKeys(keys) => CoordinationResult::Pruned(prune_retry_keys(conn, now, keys)?),
    };
    Ok((result, notifications))
}

/// After the commit of a write: updates the notifier's caches and sends the notifications.
pub(super) fn notify_committed(
    request: &CoordinationWrite,
    result: &CoordinationResult,
    notifications: Vec<StoreNotification>,
    notifier: &mut Notifier,
) {
    match (request, result) {
        (
            CoordinationWrite::Acquire(worker, _),
            CoordinationResult::Acquired(AcquireResult::Acquired(_) | AcquireResult::Unreadable { fence: Some(_), .. }),
        ) => notifier.acquired_run(*worker),
        (CoordinationWrite::AcquireDue(worker, _), _) => notifier.acquired_all_due(*worker),
        (CoordinationWrite::PutCommand(command), _) if notifications.contains(&StoreNotification::Run(command.run)) => {
            notifier.command_added(command.run, command.id)
        }
        _ => {}
    }
    notifier.send(notifications);
}

/// Deletes those of these retry keys that have expired; returns how many. One may have been claimed again since it was
/// found.
fn prune_retry_keys(conn: &Connection, now: WriteTime, keys: &[RetryKey]) -> Result<u64, WriteError> {
    const TEXT: &str = concat!("DELETE FROM retry_keys WHERE key = ?1 AND NOT ", is_bound!("retry_keys", "?2"));
    let mut delete = conn.prepare_cached(TEXT)?;
    let mut deleted = 0;
    for key in keys {
        deleted += delete.execute(params![key.0.as_slice(), now.retry_keys_since])? as u64;
    }
    Ok(deleted)
}

/// All rows of a cached statement.
fn query_rows<T>(
    conn: &Connection,
    text: &str,
    values: impl rusqlite::Params,
    row: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Vec<T>> {
    conn.prepare_cached(text)?.query_map(values, row)?.collect()
}

fn acquire(conn: &Connection, worker: WorkerId, run: RunId) -> Result<AcquireResult, WriteError> {
    let run = run.0.as_bytes().as_slice();
    let text = "UPDATE runs SET owner = ?, turn = NULL, fence = fence + 1 WHERE run_id = ? AND ended = 0 \
                RETURNING fence, summary, seq, updated";
    let acquired = query_rows(conn, text, params![worker.0.as_bytes().as_slice(), run], owned_row)?;
    if let Some(row) = acquired.into_iter().next() {
        let fence = Some(Fence(row.0.cast_unsigned()));
        return Ok(
            owned(row).map_or_else(|error| AcquireResult::Unreadable { fence, why: error.0 }, AcquireResult::Acquired)
        );
    }
    let text = "SELECT fence, summary, seq, updated FROM runs WHERE run_id = ?";
    match conn.prepare_cached(text)?.query_row([run], owned_row).optional()? {
        Some(row) => Ok(match owned(row) {
            Ok(owned) => AcquireResult::Ended(owned.summary),
            Err(error) => AcquireResult::Unreadable { fence: None, why: error.0 },
        }),
        None => Ok(AcquireResult::Unknown),
    }
}

fn acquire_due(conn: &Connection, worker: WorkerId, limit: i64, now_ns: i64) -> Result<Vec<OwnedRun>, WriteError> {
    let text = "UPDATE runs SET owner = ?1, turn = NULL, fence = fence + 1 WHERE run_id IN ( \
                    SELECT run_id FROM ( \
                        SELECT run_id FROM runs WHERE turn IS NOT NULL AND turn <= ?2 \
                        UNION SELECT runs.run_id FROM orders CROSS JOIN runs ON runs.run_id = orders.run_id \
                        WHERE orders.answer IS NULL AND runs.ended = 0 AND runs.owner IS NULL \
                    ) ORDER BY run_id LIMIT ?3 \
                ) RETURNING fence, summary, seq, updated, run_id";
    let worker = worker.0.as_bytes().as_slice();
    let mut acquired: Vec<OwnedRun> = Vec::new();
    let mut remaining = limit;
    loop {
        let row = |row: &Row<'_>| Ok((row.get::<_, Vec<u8>>(4)?, owned_row(row)?));
        let rows = query_rows(conn, text, params![worker, now_ns, remaining], row)?;
        let (count, before) = (rows.len(), acquired.len());
        // A run whose summary cannot be read stays with this worker, so that it is not due again at once.
        acquired.extend(rows.into_iter().filter_map(|(run_id, row)| decoded_or_logged(&run_id, owned(row))));
        let readable = acquired.len() - before;
        if readable == count || (count as i64) < remaining {
            break;
        }
        remaining -= readable as i64;
    }
    acquired.sort_by_key(|owned| owned.summary.run_id);
    Ok(acquired)
}

/// Stores a command. It is answered at once if the run has ended or does not exist.
fn put_command(conn: &Connection, command: &CommandRecord) -> Result<StoreNotification, WriteError> {
    let run = command.run.0.as_bytes().as_slice();
    let ended: Option<bool> = conn
        .prepare_cached("SELECT ended FROM runs WHERE run_id = ?")?
        .query_row([run], |row| row.get(0))
        .optional()?;
    let refused = match ended {
        None => Some(no_such_run()),
        Some(ended) => ended.then(run_has_ended),
    };
    let record = json(&CommandRecord { answer: None, ..command.clone() })?;
    let text = "INSERT INTO orders (id, run_id, record, answer) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING";
    let answer = refused.as_ref().map(json).transpose()?;
    conn.prepare_cached(text)?.execute(params![command.id.as_bytes().as_slice(), run, record, answer])?;
    Ok(if refused.is_some() { StoreNotification::Command(command.id) } else { StoreNotification::Run(command.run) })
}

fn mark_purged(conn: &Connection, runs: &[(RunId, Option<Vec<u8>>)]) -> Result<u64, WriteError> {
    let mut marked = 0;
    for (run, bodies) in runs {
        let run = run.0.as_bytes().as_slice();
        let text = "INSERT INTO purging SELECT run_id FROM runs \
                    WHERE run_id = ? AND ended = 1 AND remains IS NULL ON CONFLICT DO NOTHING";
        marked += conn.prepare_cached(text)?.execute([run])?;
        conn.prepare_cached("DELETE FROM orders WHERE run_id = ?")?.execute([run])?;
        if let Some(bodies) = bodies {
            conn.prepare_cached("UPDATE runs SET remains = ? WHERE run_id = ?")?.execute(params![bodies, run])?;
        }
        let text = "DELETE FROM runs WHERE run_id = ? AND ended = 1 AND remains IS NULL";
        conn.prepare_cached(text)?.execute([run])?;
    }
    Ok(marked as u64)
}

fn delete_purged(conn: &Connection) -> Result<(u64, bool), WriteError> {
    let text = "DELETE FROM appends WHERE pos IN \
                (SELECT appends.pos FROM purging CROSS JOIN appends ON appends.run_id = purging.run_id LIMIT ?)";
    if conn.prepare_cached(text)?.execute([APPENDS_AT_ONCE])? == APPENDS_AT_ONCE as usize {
        return Ok((0, false));
    }
    if run_snapshots::delete_purged(conn)? == PARTS_DELETED_MAX as usize {
        return Ok((0, false));
    }
    let text = "DELETE FROM payload_refs WHERE (run_id, seq, path) IN ( \
                    SELECT r.run_id, r.seq, r.path FROM purging CROSS JOIN payload_refs AS r ON r.run_id = purging.run_id \
                    LIMIT ? \
                ) RETURNING hash";
    let hashes: Vec<Vec<u8>> = query_rows(conn, text, [PAYLOADS_AT_ONCE], |row| row.get(0))?;
    let mut payloads = 0;
    for hash in &hashes {
        let text = "DELETE FROM payloads WHERE hash = ?1 \
                    AND NOT EXISTS (SELECT 1 FROM payload_refs WHERE payload_refs.hash = ?1)";
        payloads += conn.prepare_cached(text)?.execute([hash])? as u64;
    }
    if hashes.len() == PAYLOADS_AT_ONCE as usize {
        return Ok((payloads, false));
    }
    conn.execute("DELETE FROM purging", [])?;
    Ok((payloads, true))
}

/// The columns: fencing token, summary, seq, time of the last event.
type OwnedRow = (i64, Vec<u8>, i64, i64);

fn owned_row(row: &Row<'_>) -> rusqlite::Result<OwnedRow> {
    // A damaged summary may be of any type; one that is neither bytes nor text is read as an empty one.
    let summary = row.get_ref(1)?.as_bytes().unwrap_or_default().to_vec();
    Ok((row.get(0)?, summary, row.get(2)?, row.get(3)?))
}

fn owned((fence, summary, seq, updated): OwnedRow) -> Result<OwnedRun, StoreError> {
    let summary = decode_summary(&summary, seq, Some(updated))?;
    Ok(OwnedRun { summary, fence: Fence(fence.cast_unsigned()) })
}

fn json(value: &impl serde::Serialize) -> Result<Vec<u8>, WriteError> {
    serde_json::to_vec(value)
        .map_err(|error| WriteError::NotWritten(format!("a record cannot be written as JSON: {error}")))
}
