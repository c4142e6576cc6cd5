//! Writes one append within a transaction: judged against what is stored by then, and nothing of it where it may not be.
//!
//! Always true: every check comes before the first write. An append that only carries its run forward, and changes nothing
//! that listings show, is two statements: the first compares the run's row itself, so that what is remembered of it is
//! never trusted alone.

use std::collections::HashMap;

use rusqlite::{Connection, params};

use super::codec::Part;
use super::fault::Fault;
use super::job::{Job, LockStep};
use super::judge::{Fate, judge};
use super::look::look;
use super::summary::Listed;
use crate::flag::Arm;
use crate::names::RunId;
use crate::store::NewPin;
use crate::workflow::{Event, RunStatus};

/// Runs that are remembered; the row of a run that was forgotten is written whole once.
const RUNS_MAX: usize = 16_384;

const CARRY: &str = "UPDATE runs SET first = ?2, seq = ?3, updated = ?4, owner = ?5 \
    WHERE run_id = ?1 AND seq = ?2 - 1 AND fence = ?6 AND ended = 0 AND turn IS NULL AND status = 'running'";
const APPEND: &str =
    "INSERT INTO appends (run_id, first, last, at, version, batch, parts, events) VALUES (?, ?, ?, ?, ?, ?, ?, ?)";
const PIN: &str = "INSERT INTO pins (family, id, arm, run_id, at) VALUES (?, ?, ?, ?, ?)";
/// A key that legacy noted, or that has run out, is taken; a run that takes its key again keeps the first time.
const CLAIM: &str = "INSERT INTO retry_keys (key, arm, run_id, request, at) VALUES (?1, ?2, ?3, ?4, ?5) \
    ON CONFLICT (key) DO UPDATE SET arm = excluded.arm, run_id = excluded.run_id, request = excluded.request, \
    at = excluded.at WHERE retry_keys.run_id IS NOT excluded.run_id OR retry_keys.at <= ?6";
const SETTLE: &str = "UPDATE orders SET answer = ? WHERE id = ? AND answer IS NULL";
const LEAVE: &str = "DELETE FROM locks WHERE run_id = ? AND name = ? AND step = ? AND item = ?";
const QUEUE: &str = "INSERT INTO locks (run_id, name, step, item, since) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING";
const NOTICE: &str = "INSERT INTO notices (record) VALUES (?)";
const BIRTH: &str = "INSERT INTO births (run_id, parent, at, record) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING";
const PAYLOAD: &str = "INSERT INTO payloads (hash, body) VALUES (?, ?) ON CONFLICT DO NOTHING";
const PAYLOAD_REF: &str = "INSERT INTO payload_refs (run_id, seq, path, hash) VALUES (?, ?, ?, ?)";
/// Whose job a run is, and who began it, never changes.
const RUN: &str = "INSERT INTO runs (run_id, first, seq, ended, status, workflow, route, mode, summary, fence, owner, turn, \
    updated, pinned, job, parent) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) \
    ON CONFLICT (run_id) DO UPDATE SET first = excluded.first, seq = excluded.seq, \
    ended = excluded.ended, status = excluded.status, workflow = excluded.workflow, route = excluded.route, \
    mode = excluded.mode, summary = excluded.summary, owner = excluded.owner, turn = excluded.turn, \
    updated = excluded.updated, pinned = max(runs.pinned, excluded.pinned)";

/// Runs whose row says that they are running, each with what listings show of it. It forgets rather than grows.
#[derive(Default)]
pub(super) struct Running(HashMap<RunId, Listed>);

impl Running {
    /// Something is not as it was remembered, or nobody knows.
    pub(super) fn forget(&mut self) {
        self.0.clear();
    }

    fn shows(&self, job: &Job) -> bool {
        is_running(job) && self.0.get(&job.run_id) == Some(&job.run.listed)
    }

    fn written(&mut self, job: &Job) {
        if !is_running(job) {
            self.0.remove(&job.run_id);
            return;
        }
        if self.0.len() >= RUNS_MAX {
            self.0.clear();
        }
        self.0.insert(job.run_id, job.run.listed.clone());
    }
}

/// Whether the row says afterwards that the run is running, and is somebody's.
fn is_running(job: &Job) -> bool {
    job.run.status == RunStatus::Running.as_str() && job.run.turn.is_none() && !job.run.ended
}

/// What is known of an append and of the time.
#[derive(Clone, Copy)]
pub(super) struct Now {
    pub(super) ns: i64,
    /// Retry keys from this time or before have run out.
    pub(super) since: i64,
}

/// Writes it where it may be; what becomes of it is said. An error leaves the transaction to be taken back.
pub(super) fn put(conn: &Connection, job: &Job, running: &mut Running, now: Now) -> Result<Fate, Fault> {
    let plain = job.claim.is_none() && job.append.pins.is_empty();
    if plain && running.shows(job) && carry(conn, job)? {
        put_beside(conn, job)?;
        put_append(conn, job)?;
        return Ok(Fate::Write(Vec::new()));
    }
    let fate = judged(conn, job, now)?;
    if let Fate::Write(pins) = &fate {
        put_pins(conn, job, pins)?;
        put_claim(conn, job, now)?;
        put_beside(conn, job)?;
        put_run(conn, job)?;
        put_append(conn, job)?;
        running.written(job);
    }
    Ok(fate)
}

/// What would become of it now.
pub(super) fn judged(conn: &Connection, job: &Job, now: Now) -> Result<Fate, Fault> {
    let known = look(conn, job, now.since)?;
    let mut fates = judge(std::slice::from_ref(job), known);
    fates.pop().ok_or_else(|| Fault::Sure("an append was not judged".into()))
}

/// Moves the run's row forward; `false` where it is not as it was remembered.
fn carry(conn: &Connection, job: &Job) -> Result<bool, Fault> {
    let (id, owner) = (job.run_id.0.as_bytes().as_slice(), job.run.owner);
    let changed = conn.prepare_cached(CARRY)?.execute(params![
        id,
        job.first.cast_signed(),
        job.last().cast_signed(),
        job.run.updated,
        owner.as_ref().map(|owner| owner.0.as_bytes().as_slice()),
        job.fence.0.cast_signed(),
    ])?;
    Ok(changed == 1)
}

fn put_append(conn: &Connection, job: &Job) -> Result<(), Fault> {
    conn.prepare_cached(APPEND)?.execute(params![
        job.run_id.0.as_bytes().as_slice(),
        job.first.cast_signed(),
        job.last().cast_signed(),
        job.latest(),
        Event::VERSION,
        job.batch.as_bytes().as_slice(),
        i64::try_from(job.parts.len()).unwrap_or(i64::MAX),
        job.events,
    ])?;
    Ok(())
}

fn put_run(conn: &Connection, job: &Job) -> Result<(), Fault> {
    let run = &job.run;
    conn.prepare_cached(RUN)?.execute(params![
        job.run_id.0.as_bytes().as_slice(),
        job.first.cast_signed(),
        job.last().cast_signed(),
        run.ended,
        run.status,
        run.workflow,
        run.route,
        run.mode,
        &*job.summary(),
        job.fence.0.cast_signed(),
        run.owner.as_ref().map(|owner| owner.0.as_bytes().as_slice()),
        run.turn,
        run.updated,
        !job.append.pins.is_empty(),
        run.job.as_ref().map(|job| job.0.as_bytes().as_slice()),
        run.parent.as_ref().map(|parent| parent.0.as_bytes().as_slice()),
    ])?;
    Ok(())
}

fn put_pins(conn: &Connection, job: &Job, pins: &[NewPin]) -> Result<(), Fault> {
    for pin in pins {
        let (family, id, run) = (pin.key.family.as_str(), &*pin.key.id, job.run_id.0.as_bytes().as_slice());
        conn.prepare_cached(PIN)?.execute(params![family, id, pin.arm.as_str(), run, job.at()])?;
    }
    Ok(())
}

fn put_claim(conn: &Connection, job: &Job, now: Now) -> Result<(), Fault> {
    if let Some(claim) = &job.claim {
        let (run, request) = (job.run_id.0.as_bytes().as_slice(), claim.request.as_slice());
        for key in claim.keys() {
            let values = params![key.0.as_slice(), Arm::Engine.as_str(), run, request, now.ns, now.since];
            conn.prepare_cached(CLAIM)?.execute(values)?;
        }
    }
    Ok(())
}

/// What most appends have none of. It comes before the run's row, whose end settles and frees what is left, and whose
/// first append removes it from those that are to begin.
fn put_beside(conn: &Connection, job: &Job) -> Result<(), Fault> {
    let run = job.run_id.0.as_bytes().as_slice();
    for (id, answer) in &job.settled {
        conn.prepare_cached(SETTLE)?.execute(params![answer, id.as_bytes().as_slice()])?;
    }
    for LockStep { queue, place } in &job.locks {
        match queue {
            true => {
                let values = params![run, place.name, place.step, place.item, job.at()];
                conn.prepare_cached(QUEUE)?.execute(values)?
            }
            false => conn.prepare_cached(LEAVE)?.execute(params![run, place.name, place.step, place.item])?,
        };
    }
    for notice in &job.append.notices {
        let record = serde_json::to_vec(notice)
            .map_err(|error| Fault::Sure(format!("a message cannot be written as JSON: {error}")))?;
        conn.prepare_cached(NOTICE)?.execute([record])?;
    }
    for birth in &job.births {
        let parent = birth.parent.as_ref().map(|parent| parent.0.as_bytes().as_slice());
        let values = params![birth.run.0.as_bytes().as_slice(), parent, birth.at, birth.record];
        conn.prepare_cached(BIRTH)?.execute(values)?;
    }
    for (seq, Part { path, hash, body }) in &job.parts {
        conn.prepare_cached(PAYLOAD)?.execute(params![hash.as_slice(), body])?;
        conn.prepare_cached(PAYLOAD_REF)?.execute(params![run, seq.cast_signed(), path, hash.as_slice()])?;
    }
    Ok(())
}
