//! Validates one append within a transaction and writes it.
//!
//! Always true: every check comes before the first write. An append to a running run that changes nothing that listings
//! show, and has no further rows, takes two statements; the first compares the run's row, so that the cached row is
//! never trusted alone.

use std::collections::HashMap;

use rusqlite::{CachedStatement, Connection, params};

use super::codec::LargeValue;
use super::encoded::{EncodedAppend, LockUpdate};
use super::stored_state::read_stored_state;
use super::summary::ListedFields;
use super::validate::{AppendDecision, validate_batch};
use crate::flag::Arm;
use crate::names::{RouteId, RunId};
use crate::store::NewPin;
use crate::store::write_error::WriteError;
use crate::workflow::{Event, RunStatus};

/// Cached runs. The row of a run that is not cached is written completely once.
const RUNS_MAX: usize = 16_384;

/// Some columns and tables keep names of an earlier version: `runs.turn` is `due_at`, `births` is the outbox of pending
/// runs, `orders` are the commands to runs, `notices` are the messages to webhooks.
const ADVANCE_RUN: &str = "UPDATE runs SET first = ?2, seq = ?3, updated = ?4, owner = ?5 \
    WHERE run_id = ?1 AND seq = ?2 - 1 AND fence = ?6 AND ended = 0 AND turn IS NULL AND status = 'running'";
const APPEND: &str =
    "INSERT INTO appends (run_id, first, last, at, version, batch, parts, events) VALUES (?, ?, ?, ?, ?, ?, ?, ?)";
const PIN: &str = "INSERT INTO pins (family, id, arm, run_id, at) VALUES (?, ?, ?, ?, ?)";
/// Replaces an expired row; the validation has refused a key that legacy or another run still holds. A run that claims
/// its key again within the window keeps the time of the first claim.
const CLAIM: &str = "INSERT INTO retry_keys (key, arm, run_id, request, at) VALUES (?1, ?2, ?3, ?4, ?5) \
    ON CONFLICT (key) DO UPDATE SET arm = excluded.arm, run_id = excluded.run_id, request = excluded.request, \
    at = excluded.at WHERE retry_keys.run_id IS NOT excluded.run_id OR retry_keys.at <= ?6";
const ANSWER: &str = "UPDATE orders SET answer = ? WHERE id = ? AND answer IS NULL";
const DEQUEUE: &str = "DELETE FROM locks WHERE run_id = ? AND name = ? AND step = ? AND item = ?";
const ENQUEUE: &str =
    "INSERT INTO locks (run_id, name, step, item, since) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING";
const MESSAGE: &str = "INSERT INTO notices (record) VALUES (?)";
const PENDING_RUN: &str = "INSERT INTO births (run_id, parent, at, record) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING";
const PAYLOAD: &str = "INSERT INTO payloads (hash, body) VALUES (?, ?) ON CONFLICT DO NOTHING";
const PAYLOAD_REF: &str = "INSERT INTO payload_refs (run_id, seq, path, hash) VALUES (?, ?, ?, ?)";
/// `job` and `parent` are not updated: they never change.
const RUN: &str = "INSERT INTO runs (run_id, first, seq, ended, status, workflow, route, mode, summary, fence, owner, turn, \
    updated, pinned, job, parent) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) \
    ON CONFLICT (run_id) DO UPDATE SET first = excluded.first, seq = excluded.seq, \
    ended = excluded.ended, status = excluded.status, workflow = excluded.workflow, route = excluded.route, \
    mode = excluded.mode, summary = excluded.summary, owner = excluded.owner, turn = excluded.turn, \
    updated = excluded.updated, pinned = max(runs.pinned, excluded.pinned)";

/// What listings show of runs whose rows have status `running`. It is cleared when it is full.
#[derive(Default)]
pub(super) struct RunningCache(HashMap<RunId, ListedFields>);

impl RunningCache {
    /// Clears the cache after an error, because the rows may differ from it.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    fn is_unchanged(&self, append: &EncodedAppend) -> bool {
        is_running(append) && self.0.get(&append.run_id) == Some(&append.run.listed)
    }

    /// Caches what listings show of a run after an append was written.
    fn insert(&mut self, append: &EncodedAppend) {
        if !is_running(append) {
            self.0.remove(&append.run_id);
            return;
        }
        if self.0.len() >= RUNS_MAX {
            self.0.clear();
        }
        self.0.insert(append.run_id, append.run.listed.clone());
    }
}

/// Whether the run's row has status `running` and no due time after this append.
fn is_running(append: &EncodedAppend) -> bool {
    append.run.status == RunStatus::Running.as_str() && append.run.due_at.is_none() && !append.run.ended
}

/// The times that a transaction uses.
#[derive(Clone, Copy)]
pub(super) struct WriteTime {
    /// Now, in nanoseconds since 1970.
    pub(super) ns: i64,
    /// The time one retry window ago.
    pub(super) retry_keys_since: i64,
}

/// The statements that most appends take, looked up once for a batch.
pub(super) struct UsualStatements<'conn> {
    advance_run: CachedStatement<'conn>,
    append: CachedStatement<'conn>,
}

impl<'conn> UsualStatements<'conn> {
    pub(super) fn of(conn: &'conn Connection) -> Result<Self, WriteError> {
        Ok(Self { advance_run: conn.prepare_cached(ADVANCE_RUN)?, append: conn.prepare_cached(APPEND)? })
    }

    /// Updates the run's row to this append; `false` if the row differs from the cached one.
    fn advance_run(&mut self, append: &EncodedAppend) -> Result<bool, WriteError> {
        let (id, owner) = (append.run_id.0.as_bytes().as_slice(), append.run.owner);
        let changed = self.advance_run.execute(params![
            id,
            append.first.cast_signed(),
            append.last().cast_signed(),
            append.run.updated,
            owner.as_ref().map(|owner| owner.0.as_bytes().as_slice()),
            append.fence.0.cast_signed(),
        ])?;
        Ok(changed == 1)
    }

    fn insert_append(&mut self, append: &EncodedAppend) -> Result<(), WriteError> {
        self.append.execute(params![
            append.run_id.0.as_bytes().as_slice(),
            append.first.cast_signed(),
            append.last().cast_signed(),
            append.latest(),
            Event::VERSION,
            append.batch.as_bytes().as_slice(),
            i64::try_from(append.large_values.len()).unwrap_or(i64::MAX),
            append.events,
        ])?;
        Ok(())
    }
}

/// Writes an append if it is valid. After an error the caller rolls the transaction back.
pub(super) fn write_append(
    conn: &Connection,
    usual: &mut UsualStatements<'_>,
    append: &EncodedAppend,
    cache: &mut RunningCache,
    now: WriteTime,
) -> Result<AppendDecision, WriteError> {
    let has_no_claim_or_pin = append.claim.is_none() && append.original.pins.is_empty();
    if has_no_claim_or_pin && cache.is_unchanged(append) && usual.advance_run(append)? {
        write_attached_rows(conn, append)?;
        usual.insert_append(append)?;
        return Ok(AppendDecision::Write(Vec::new()));
    }
    let outcome = validate(conn, append, now)?;
    if let AppendDecision::Write(pins) = &outcome {
        insert_pins(conn, append, pins)?;
        upsert_claim(conn, append, now)?;
        write_attached_rows(conn, append)?;
        upsert_run(conn, append)?;
        usual.insert_append(append)?;
        cache.insert(append);
    }
    Ok(outcome)
}

/// Decides what is to be done with the append, given what is stored now.
pub(super) fn validate(
    conn: &Connection,
    append: &EncodedAppend,
    now: WriteTime,
) -> Result<AppendDecision, WriteError> {
    let stored = read_stored_state(conn, append, now.retry_keys_since)?;
    let mut outcomes = validate_batch(std::slice::from_ref(append), stored);
    outcomes.pop().ok_or_else(|| WriteError::NotWritten("the validation of an append returned no outcome".into()))
}

fn upsert_run(conn: &Connection, append: &EncodedAppend) -> Result<(), WriteError> {
    let run = &append.run;
    conn.prepare_cached(RUN)?.execute(params![
        append.run_id.0.as_bytes().as_slice(),
        append.first.cast_signed(),
        append.last().cast_signed(),
        run.ended,
        run.status,
        run.workflow.as_str(),
        run.route.as_ref().map(RouteId::as_str),
        run.mode,
        &*append.summary(),
        append.fence.0.cast_signed(),
        run.owner.as_ref().map(|owner| owner.0.as_bytes().as_slice()),
        run.due_at,
        run.updated,
        append.original.is_pinned(),
        run.job.as_ref().map(|id| id.0.as_bytes().as_slice()),
        run.parent.as_ref().map(|parent| parent.0.as_bytes().as_slice()),
    ])?;
    Ok(())
}

fn insert_pins(conn: &Connection, append: &EncodedAppend, pins: &[NewPin]) -> Result<(), WriteError> {
    for pin in pins {
        let (family, id, run) = (pin.key.family.as_str(), &*pin.key.id, append.run_id.0.as_bytes().as_slice());
        conn.prepare_cached(PIN)?.execute(params![family, id, pin.arm.as_str(), run, append.last_event_at()])?;
    }
    Ok(())
}

fn upsert_claim(conn: &Connection, append: &EncodedAppend, now: WriteTime) -> Result<(), WriteError> {
    if let Some(claim) = &append.claim {
        let (run, request) = (append.run_id.0.as_bytes().as_slice(), claim.request.as_slice());
        for key in claim.keys() {
            let values = params![key.0.as_slice(), Arm::Engine.as_str(), run, request, now.ns, now.retry_keys_since];
            conn.prepare_cached(CLAIM)?.execute(values)?;
        }
    }
    Ok(())
}

/// Writes the rows that few appends have. They come before [`upsert_run`], because triggers on the run's row answer the
/// commands and free the locks of an ended run, and remove the outbox row of a run that begins.
fn write_attached_rows(conn: &Connection, append: &EncodedAppend) -> Result<(), WriteError> {
    let run = append.run_id.0.as_bytes().as_slice();
    for (id, answer) in &append.answered_commands {
        conn.prepare_cached(ANSWER)?.execute(params![answer, id.as_bytes().as_slice()])?;
    }
    for LockUpdate { is_enqueue, entry } in &append.locks {
        match is_enqueue {
            true => {
                let values = params![run, entry.name, entry.step, entry.item, append.last_event_at()];
                conn.prepare_cached(ENQUEUE)?.execute(values)?
            }
            false => conn.prepare_cached(DEQUEUE)?.execute(params![run, entry.name, entry.step, entry.item])?,
        };
    }
    for message in &append.original.webhook_messages {
        let record = serde_json::to_vec(message)
            .map_err(|error| WriteError::NotWritten(format!("a message cannot be written as JSON: {error}")))?;
        conn.prepare_cached(MESSAGE)?.execute([record])?;
    }
    for pending in &append.pending_runs {
        let parent = pending.parent.as_ref().map(|parent| parent.0.as_bytes().as_slice());
        let values = params![pending.run.0.as_bytes().as_slice(), parent, pending.at, pending.record];
        conn.prepare_cached(PENDING_RUN)?.execute(values)?;
    }
    for (seq, LargeValue { path, hash, body }) in &append.large_values {
        conn.prepare_cached(PAYLOAD)?.execute(params![hash.as_slice(), body])?;
        conn.prepare_cached(PAYLOAD_REF)?.execute(params![run, seq.cast_signed(), path, hash.as_slice()])?;
    }
    Ok(())
}
