//! The writer's writes that are not appends: flips with their declarations, records ([`RecordWrite`]), and the writes
//! of [`super::coordination_writes`].
//!
//! Always true: each is one transaction on the writer's connection, acknowledged after its commit. If the outcome of
//! the commit is unknown, the write is repeated on a new connection: flips are looked for first, and all other writes
//! are idempotent.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use jiff::Timestamp;
use rusqlite::{Connection, params};
use tokio::sync::oneshot;
use uuid::Uuid;

use super::commit::Committer;
use super::coordination_writes::{self, CoordinationResult, CoordinationWrite};
use super::encoded::nanos;
use super::instance_writes;
use super::read::RUNNING_TIMES;
use super::service_caller_writes;
use super::write_append::WriteTime;
use super::{adoption_writes, capture_writes};
use crate::clock::{self, RunningTimes};
use crate::flag::{Arm, PinKey, RetryKey};
use crate::names::{PlanId, RouteId, RunId};
use crate::store::bound_keys::{is_bound, is_given_back};
use crate::store::key_files::key_file_row;
use crate::store::record_log::CHAIN_HEAD;
use crate::store::write_error::WriteError;
use crate::store::{
    AdoptionOutcome, CaptureBounds, CaptureRecord, ChainHead, DeclaredState, EvidenceRecord, FlipRecord,
    InstanceChange, KeyFileRecord, NewAdoption, PinCollision, PutFlips, RecordEntry, SampleRecord, ServiceCaller,
    StoreError, StoreNotification, WatchedTime,
};

/// The reply channel of a write that returns nothing.
type Reply = oneshot::Sender<Result<(), StoreError>>;

/// One such write with its reply channel. Its size is bounded by the callers.
pub(super) enum OtherWrite {
    Records(RecordWrite, Reply),
    Flips(PutFlips, oneshot::Sender<Result<Option<Vec<u64>>, StoreError>>),
    Coordination(CoordinationWrite, oneshot::Sender<Result<CoordinationResult, StoreError>>),
}

/// A write of records. To repeat it changes nothing.
pub(super) enum RecordWrite {
    Plan(PlanId, serde_json::Value),
    /// `None` removes the key.
    RunKey(RunId, Option<Vec<u8>>),
    DetachTwin(PinKey),
    Instances(Vec<InstanceChange>),
    PinCollisions(Vec<PinCollision>),
    ClaimAdoption(Box<NewAdoption>),
    AdoptionOutcome(Box<AdoptionOutcome>),
    LegacyTries(Vec<(RetryKey, Timestamp)>),
    Samples {
        samples: Vec<SampleRecord>,
        per_fingerprint: usize,
        fingerprints: usize,
    },
    ClearSamples(RouteId),
    RemoveSamplesBefore(Timestamp),
    Captures(Vec<CaptureRecord>, CaptureBounds),
    Evidence(Vec<EvidenceRecord>),
    KeyFiles {
        put: Vec<KeyFileRecord>,
        remove: Vec<Uuid>,
    },
    RunningTimes(RunningTimes),
    RecordEntry(Box<RecordEntry>),
    ServiceCallers(Vec<ServiceCaller>, WatchedTime),
}

/// Performs a write and sends its reply.
pub(super) fn perform(write: OtherWrite, committer: &mut Committer, healthy: &AtomicBool) {
    match write {
        OtherWrite::Records(records, reply) => {
            let result = write_with_retry(&WriteTask::Records(records), committer, healthy);
            let _ = reply.send(result.map(|_| ()));
        }
        OtherWrite::Flips(flips, reply) => {
            let result = write_with_retry(&WriteTask::Flips(flips), committer, healthy);
            let _ = reply.send(result.map(|result| result.numbers));
        }
        OtherWrite::Coordination(write, reply) => {
            let result = write_with_retry(&WriteTask::Coordination(write), committer, healthy);
            let _ = reply.send(result.map(|result| result.coordination));
        }
    }
}

/// A write without its reply channel.
enum WriteTask {
    Records(RecordWrite),
    Flips(PutFlips),
    Coordination(CoordinationWrite),
}

/// The result of a transaction.
struct WriteResult {
    /// The numbers of the recorded flips, in order. `None` for other writes, and where nothing was recorded because the
    /// newest flip in the store is not [`PutFlips::after`].
    numbers: Option<Vec<u64>>,
    /// The result of a coordination write.
    coordination: CoordinationResult,
    notifications: Vec<StoreNotification>,
}

/// Writes, and writes again on a new connection if the first outcome is unknown.
fn write_with_retry(
    task: &WriteTask,
    committer: &mut Committer,
    healthy: &AtomicBool,
) -> Result<WriteResult, StoreError> {
    let error = match transact(task, committer, false) {
        Ok(result) => {
            healthy.store(true, Ordering::Release);
            return Ok(notify(task, result, committer));
        }
        Err(error) => error,
    };
    committer.conn.roll_back();
    committer.note_failed_commit(&error);
    if let WriteError::Unknown(_) = error {
        committer.conn.discard();
        if committer.conn.probe(nanos(clock::now())).is_ok() {
            match transact(task, committer, true) {
                Ok(result) => return Ok(notify(task, result, committer)),
                Err(_) => committer.conn.roll_back(),
            }
        }
    }
    if !matches!(error, WriteError::Constraint(_)) {
        healthy.store(false, Ordering::Release);
    }
    Err(StoreError(error.text().to_owned()))
}

fn notify(task: &WriteTask, mut result: WriteResult, committer: &mut Committer) -> WriteResult {
    if let WriteTask::Coordination(write) = task {
        coordination_writes::notify_committed(
            write,
            &result.coordination,
            std::mem::take(&mut result.notifications),
            &mut committer.notifier,
        );
    }
    result
}

fn transact(task: &WriteTask, committer: &mut Committer, is_retry: bool) -> Result<WriteResult, WriteError> {
    let now = committer.now();
    let conn = committer.conn.get()?;
    conn.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
    let mut result =
        WriteResult { numbers: None, coordination: CoordinationResult::Nothing, notifications: Vec::new() };
    match task {
        WriteTask::Flips(flips) => result.numbers = put_flips(conn, flips, is_retry)?,
        WriteTask::Records(records) => write_records(conn, records, now)?,
        WriteTask::Coordination(write) => {
            (result.coordination, result.notifications) =
                coordination_writes::write(conn, write, &committer.notifier, now)?
        }
    }
    conn.prepare_cached("COMMIT")?.execute([])?;
    Ok(result)
}

fn put_flips(conn: &Connection, put: &PutFlips, is_retry: bool) -> Result<Option<Vec<u64>>, WriteError> {
    let PutFlips { flips, declared, after, announced: _ } = put;
    let count = i64::try_from(flips.len().max(1)).unwrap_or(i64::MAX);
    let record = |flip: &FlipRecord, number: i64| json(&FlipRecord { number: number.cast_unsigned(), ..flip.clone() });
    let text = "SELECT number, record FROM flips ORDER BY number DESC LIMIT ?";
    let mut last: Vec<(i64, Vec<u8>)> =
        conn.prepare(text)?.query_map([count], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?;
    last.reverse();
    // This thread is the only writer: if the first attempt was committed, its flips are the last rows, and the
    // declarations are in the store too.
    if is_retry && !flips.is_empty() && last.len() == flips.len() {
        let mut is_same = true;
        for (flip, (number, stored)) in flips.iter().zip(&last) {
            is_same &= *stored == record(flip, *number)?;
        }
        if is_same {
            return Ok(Some(last.iter().map(|(number, _)| number.cast_unsigned()).collect()));
        }
    }
    let mut number = last.last().map_or(0, |(number, _)| *number);
    if number.cast_unsigned() != *after {
        return Ok(None);
    }
    if let Some(declared) = declared {
        put_declared(conn, declared)?;
    }
    let mut numbers = Vec::with_capacity(flips.len());
    for flip in flips {
        number = number.saturating_add(1);
        let route = flip.route.as_ref().map(RouteId::as_str);
        let values = params![number, route, record(flip, number)?];
        conn.prepare_cached("INSERT INTO flips (number, route, record) VALUES (?, ?, ?)")?.execute(values)?;
        numbers.push(number.cast_unsigned());
    }
    Ok(Some(numbers))
}

fn put_declared(conn: &Connection, declared: &[DeclaredState]) -> Result<(), WriteError> {
    conn.execute("DELETE FROM declared", [])?;
    for state in declared {
        let text = "INSERT OR REPLACE INTO declared (route, record) VALUES (?, ?)";
        conn.prepare_cached(text)?.execute(params![state.route.as_str(), json(state)?])?;
    }
    Ok(())
}

fn write_records(conn: &Connection, write: &RecordWrite, now: WriteTime) -> Result<(), WriteError> {
    match write {
        RecordWrite::Plan(id, source) => {
            let text = "INSERT INTO plans (id, source) VALUES (?, ?) ON CONFLICT DO NOTHING";
            conn.execute(text, params![id.as_str(), json(source)?])?;
        }
        RecordWrite::RunKey(run, Some(key)) => {
            let text = "INSERT INTO run_keys (run_id, key) VALUES (?, ?) ON CONFLICT DO UPDATE SET key = excluded.key";
            conn.prepare_cached(text)?.execute(params![run.0.as_bytes().as_slice(), key])?;
        }
        RecordWrite::RunKey(run, None) => {
            conn.execute("DELETE FROM run_keys WHERE run_id = ?", [run.0.as_bytes().as_slice()])?;
        }
        RecordWrite::DetachTwin(key) => {
            let text = "UPDATE pins SET run_id = NULL WHERE family = ? AND id = ? AND arm = ?";
            let values = params![key.family.as_str(), &*key.id, Arm::Legacy.as_str()];
            conn.prepare_cached(text)?.execute(values)?;
        }
        RecordWrite::Instances(changes) => instance_writes::write(conn, changes)?,
        RecordWrite::PinCollisions(collisions) => instance_writes::put_collisions(conn, collisions)?,
        RecordWrite::ClaimAdoption(new) => adoption_writes::claim(conn, new)?,
        RecordWrite::AdoptionOutcome(outcome) => adoption_writes::record_outcome(conn, outcome)?,
        RecordWrite::LegacyTries(tries) => {
            let mut note = conn.prepare_cached(concat!(
                "INSERT INTO retry_keys (key, arm, at) VALUES (?1, ?2, ?3) ON CONFLICT (key) DO UPDATE \
                 SET arm = excluded.arm, run_id = NULL, request = NULL, at = excluded.at WHERE NOT ",
                is_bound!("retry_keys", "?4"),
                " OR ",
                is_given_back!("retry_keys")
            ))?;
            for (key, at) in tries {
                note.execute(params![key.0.as_slice(), Arm::Legacy.as_str(), nanos(*at), now.retry_keys_since])?;
            }
        }
        RecordWrite::Samples { samples, per_fingerprint, fingerprints } => {
            put_samples(conn, samples, *per_fingerprint, *fingerprints)?;
        }
        RecordWrite::ClearSamples(route) => {
            conn.execute("DELETE FROM samples WHERE route = ?", [route.as_str()])?;
        }
        RecordWrite::RemoveSamplesBefore(at) => {
            // The time stands near the beginning of the record. It is cut out, in whole seconds, so that no record has
            // to be parsed.
            let text = "DELETE FROM samples WHERE \
                        unixepoch(substr(CAST(record AS TEXT), instr(CAST(record AS TEXT), '\"at\":\"') + 6, 19)) < ?";
            conn.execute(text, [at.as_second()])?;
        }
        RecordWrite::Captures(captures, bounds) => capture_writes::write(conn, captures, *bounds)?,
        RecordWrite::Evidence(evidence) => {
            for record in evidence {
                let text = "INSERT OR REPLACE INTO evidence (route, record) VALUES (?, ?)";
                conn.prepare_cached(text)?.execute(params![record.route.as_str(), json(record)?])?;
            }
        }
        RecordWrite::RunningTimes(times) => {
            let text = "INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)";
            conn.execute(text, params![RUNNING_TIMES, json(times)?])?;
        }
        RecordWrite::RecordEntry(entry) => {
            let text = "INSERT INTO record_entries (number, source, record) VALUES (?, ?, ?) ON CONFLICT DO NOTHING";
            let added = conn.execute(text, params![entry.number.cast_signed(), entry.source, json(entry)?])?;
            if added > 0 {
                let text = "INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)";
                conn.execute(text, params![CHAIN_HEAD, json(&ChainHead::of(entry))?])?;
            }
        }
        RecordWrite::ServiceCallers(callers, watched) => service_caller_writes::write(conn, callers, watched)?,
        RecordWrite::KeyFiles { put, remove } => {
            for id in remove {
                conn.execute("DELETE FROM meta WHERE key = ?", [key_file_row(*id)])?;
            }
            for record in put {
                let text = "INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)";
                conn.execute(text, params![key_file_row(record.id), json(record)?])?;
            }
        }
    }
    Ok(())
}

/// Stores samples and removes those beyond the limits. A stored sample that is put again is removed first, and the
/// limits apply after all samples are stored: so a repeated call leaves the same samples.
fn put_samples(
    conn: &Connection,
    samples: &[SampleRecord],
    per_fingerprint: usize,
    fingerprints: usize,
) -> Result<(), WriteError> {
    let text = "DELETE FROM samples WHERE route = ?1 AND fingerprint = ?2 AND record = ?3";
    let mut remove = conn.prepare_cached(text)?;
    let mut insert = conn.prepare_cached("INSERT INTO samples (route, fingerprint, record) VALUES (?1, ?2, ?3)")?;
    let mut note_run = conn.prepare_cached("INSERT OR IGNORE INTO sample_runs (run, pos) VALUES (?1, ?2)")?;
    for sample in samples {
        let (route, fingerprint, record) = (sample.route.as_str(), &sample.fingerprint, json(sample)?);
        remove.execute(params![route, fingerprint, record])?;
        insert.execute(params![route, fingerprint, record])?;
        let pos = conn.last_insert_rowid();
        for run in sample.rehearsed_runs() {
            note_run.execute(params![run.0.as_bytes().as_slice(), pos])?;
        }
    }
    let samples_max = i64::try_from(per_fingerprint).unwrap_or(i64::MAX);
    let fingerprints_max = i64::try_from(fingerprints).unwrap_or(i64::MAX);
    let routes: BTreeSet<&RouteId> = samples.iter().map(|sample| &sample.route).collect();
    for route in routes {
        let text = "DELETE FROM samples WHERE pos IN (SELECT pos FROM (SELECT pos, row_number() OVER \
                    (PARTITION BY fingerprint ORDER BY pos DESC) AS place FROM samples WHERE route = ?1) WHERE place > ?2)";
        conn.prepare_cached(text)?.execute(params![route.as_str(), samples_max])?;
        let text = "DELETE FROM samples WHERE route = ?1 AND fingerprint NOT IN (SELECT fingerprint FROM samples \
                    WHERE route = ?1 GROUP BY fingerprint ORDER BY max(pos) DESC LIMIT ?2)";
        conn.prepare_cached(text)?.execute(params![route.as_str(), fingerprints_max])?;
    }
    Ok(())
}

fn json(value: &impl serde::Serialize) -> Result<Vec<u8>, WriteError> {
    serde_json::to_vec(value)
        .map_err(|error| WriteError::NotWritten(format!("a record cannot be written as JSON: {error}")))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicU64;

    use super::*;
    use crate::limits::Limits;
    use crate::store::sqlite::Options;
    use crate::store::tests::{append, run_id};
    use crate::store::{Append, Claim, SqliteStore, Store};

    /// The number of steps of SQLite's virtual machine that recording a key of legacy takes, where this many open runs
    /// have claimed keys long ago.
    async fn steps_of_a_legacy_key(open_runs: u64) -> u64 {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("test.db");
        let store = SqliteStore::open(&path, &Limits::default()).await.unwrap();
        for n in 1..=open_runs {
            let claim = Claim::new(RetryKey([n as u8; 32]), [0; 32]);
            store.append(Append { claim: Some(claim), ..append(run_id(n), 1, 1) }.into()).await.unwrap();
        }
        store.close().await;
        let conn = Options::new(&path).open().unwrap();
        let steps = Arc::new(AtomicU64::new(0));
        let counted = steps.clone();
        let count = move || {
            counted.fetch_add(1, Ordering::Relaxed);
            false
        };
        conn.progress_handler(1, Some(count)).unwrap();
        let now = nanos(clock::now());
        let write = RecordWrite::LegacyTries(vec![(RetryKey([255; 32]), clock::now())]);
        write_records(&conn, &write, WriteTime { ns: now, retry_keys_since: now }).unwrap();
        steps.load(Ordering::Relaxed)
    }

    #[tokio::test]
    async fn recording_a_key_of_legacy_costs_the_same_however_many_keys_stay_bound() {
        let (few, many) = (steps_of_a_legacy_key(2).await, steps_of_a_legacy_key(200).await);
        assert!(few > 0 && many < few + 50, "{few} steps with 2 bound keys, {many} with 200");
    }
}
