//! The values of the one statement that writes a batch.
//!
//! Always true: rows of one kind are sorted by their keys; a run stands there once, also where several appends of it
//! go together.

use std::collections::BTreeMap;

use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Postgres, SqlSafeStr, SqlStr};

use super::known::Known;
use super::text::text;
use crate::names::RunId;
use crate::store::codec::Part;
use crate::store::job::Job;
use crate::store::{NewPin, run_has_ended};
use crate::workflow::Event;

/// Appends that are written together, each with those of its pins that do not stand already.
pub(super) type Written<'a> = [(&'a Job, &'a [NewPin])];

/// What does not change from batch to batch.
pub(super) struct Statement {
    text: SqlStr,
    origin: String,
    window_ns: i64,
    ended: Vec<u8>,
}

/// How many values the statement takes.
const VALUES: usize = 53;

impl Statement {
    pub(super) fn new(origin: &str, window_ns: i64) -> Self {
        let values: Vec<String> = (1..=VALUES).map(|n| format!("${n}")).collect();
        let text = AssertSqlSafe(format!("SELECT append_batch({})", values.join(", "))).into_sql_str();
        Self { text, origin: origin.to_owned(), window_ns, ended: run_has_ended().to_string().into_bytes() }
    }

    /// What writes these appends, all or none; it gives the news. Nothing where two of them do not fit together: then
    /// somebody breaks a rule. Summaries that are known to stand there are left as they are.
    pub(super) fn write(&self, written: &Written<'_>, known: &Known) -> Option<Query<'_, Postgres, PgArguments>> {
        let runs = runs(written)?;
        let query = sqlx::query(self.text.clone()).bind(&self.origin).bind(self.window_ns);
        let query = bind_keys(bind_pins(query, written), written)?;
        let query = bind_payloads(bind_appends(bind_runs(query, &runs, known), written), written);
        Some(bind_births(bind_rest(query, written).bind(&self.ended), written))
    }
}

type Bound<'q> = Query<'q, Postgres, PgArguments>;

fn id(run: &RunId) -> &[u8] {
    run.0.as_bytes().as_slice()
}

/// A run's appends: the first of them, the last, and whether any of them pins.
struct Run<'a> {
    first: &'a Job,
    last: &'a Job,
    pinned: bool,
}

fn runs<'a>(written: &Written<'a>) -> Option<BTreeMap<RunId, Run<'a>>> {
    let mut runs: BTreeMap<RunId, Run<'a>> = BTreeMap::new();
    for (job, _) in written {
        let pinned = !job.append.pins.is_empty();
        let run = runs.entry(job.run_id).or_insert(Run { first: job, last: job, pinned });
        if !std::ptr::eq(run.last, *job) {
            if job.first != run.last.last() + 1 || job.fence != run.last.fence {
                return None;
            }
            run.last = job;
            run.pinned |= pinned;
        }
    }
    Some(runs)
}

fn bind_pins<'q>(query: Bound<'q>, written: &Written<'_>) -> Bound<'q> {
    let mut pins: Vec<(&Job, &NewPin)> =
        written.iter().flat_map(|(job, pins)| pins.iter().map(|pin| (*job, pin))).collect();
    pins.sort_by(|(_, a), (_, b)| (&a.key.family, &a.key.id).cmp(&(&b.key.family, &b.key.id)));
    query
        .bind(pins.iter().map(|(_, pin)| pin.key.family.as_str()).collect::<Vec<_>>())
        .bind(pins.iter().map(|(_, pin)| pin.key.id.as_bytes()).collect::<Vec<_>>())
        .bind(pins.iter().map(|(_, pin)| pin.arm.as_str()).collect::<Vec<_>>())
        .bind(pins.iter().map(|(job, _)| id(&job.run_id)).collect::<Vec<_>>())
        .bind(pins.iter().map(|(job, _)| job.at()).collect::<Vec<_>>())
}

/// A key once; where two runs of the batch want it, nothing.
fn bind_keys<'q>(query: Bound<'q>, written: &Written<'_>) -> Option<Bound<'q>> {
    let mut keys: BTreeMap<[u8; 32], (RunId, [u8; 32])> = BTreeMap::new();
    for (job, claim) in written.iter().filter_map(|(job, _)| job.claim.map(|claim| (job, claim))) {
        for key in claim.keys() {
            let (run, _) = keys.entry(key.0).or_insert((job.run_id, claim.request));
            if *run != job.run_id {
                return None;
            }
        }
    }
    Some(
        query
            .bind(keys.keys().map(|key| key.as_slice()).collect::<Vec<_>>())
            .bind(keys.values().map(|(run, _)| id(run)).collect::<Vec<_>>())
            .bind(keys.values().map(|(_, request)| request.as_slice()).collect::<Vec<_>>()),
    )
}

fn bind_runs<'q>(query: Bound<'q>, runs: &BTreeMap<RunId, Run<'_>>, known: &Known) -> Bound<'q> {
    let last = || runs.values().map(|run| &run.last.run);
    let summary = |run: &Run<'_>| (!known.stands(run.last)).then(|| run.last.summary().into_owned());
    query
        .bind(runs.keys().map(id).collect::<Vec<_>>())
        .bind(runs.values().map(|run| run.last.fence.0.cast_signed()).collect::<Vec<_>>())
        .bind(runs.values().map(|run| run.first.first.cast_signed()).collect::<Vec<_>>())
        .bind(runs.values().map(|run| run.last.last().cast_signed()).collect::<Vec<_>>())
        .bind(last().map(|row| row.ended).collect::<Vec<_>>())
        .bind(last().map(|row| row.updated).collect::<Vec<_>>())
        .bind(last().map(|row| row.status).collect::<Vec<_>>())
        .bind(last().map(|row| text(&row.workflow)).collect::<Vec<_>>())
        .bind(last().map(|row| row.route.as_deref()).collect::<Vec<_>>())
        .bind(last().map(|row| row.mode).collect::<Vec<_>>())
        .bind(last().map(|row| row.job.as_ref().map(|job| job.0.as_bytes().as_slice())).collect::<Vec<_>>())
        .bind(last().map(|row| row.parent.as_ref().map(id)).collect::<Vec<_>>())
        .bind(runs.values().map(summary).collect::<Vec<Option<Vec<u8>>>>())
        .bind(last().map(|row| row.owner.as_ref().map(|owner| owner.0.as_bytes().as_slice())).collect::<Vec<_>>())
        .bind(last().map(|row| row.turn).collect::<Vec<_>>())
        .bind(runs.values().map(|run| run.pinned).collect::<Vec<_>>())
}

fn bind_appends<'q>(query: Bound<'q>, written: &Written<'_>) -> Bound<'q> {
    let jobs = || written.iter().map(|(job, _)| *job);
    query
        .bind(jobs().map(|job| id(&job.run_id)).collect::<Vec<_>>())
        .bind(jobs().map(|job| job.first.cast_signed()).collect::<Vec<_>>())
        .bind(jobs().map(|job| job.last().cast_signed()).collect::<Vec<_>>())
        .bind(jobs().map(|job| job.batch.as_bytes().as_slice()).collect::<Vec<_>>())
        .bind(jobs().map(|job| i64::try_from(job.parts.len()).unwrap_or(i64::MAX)).collect::<Vec<_>>())
        .bind(jobs().map(|job| job.events.as_slice()).collect::<Vec<_>>())
        .bind(i16::try_from(Event::VERSION).unwrap_or(i16::MAX))
}

fn bind_payloads<'q>(query: Bound<'q>, written: &Written<'_>) -> Bound<'q> {
    let mut bodies: BTreeMap<[u8; 32], &[u8]> = BTreeMap::new();
    let mut refs: Vec<(&Job, u64, &Part)> = Vec::new();
    for (job, _) in written {
        bodies.extend(job.parts.iter().map(|(_, part)| (part.hash, part.body.as_slice())));
        refs.extend(job.parts.iter().map(|(seq, part)| (*job, *seq, part)));
    }
    query
        .bind(bodies.keys().map(|hash| hash.as_slice()).collect::<Vec<_>>())
        .bind(bodies.values().copied().collect::<Vec<_>>())
        .bind(refs.iter().map(|(job, ..)| id(&job.run_id)).collect::<Vec<_>>())
        .bind(refs.iter().map(|(_, seq, _)| seq.cast_signed()).collect::<Vec<_>>())
        .bind(refs.iter().map(|(.., part)| text(&part.path)).collect::<Vec<_>>())
        .bind(refs.iter().map(|(.., part)| part.hash.as_slice()).collect::<Vec<_>>())
}

fn bind_rest<'q>(query: Bound<'q>, written: &Written<'_>) -> Bound<'q> {
    let steps: Vec<_> = written.iter().flat_map(|(job, _)| job.locks.iter().map(|step| (*job, step))).collect();
    let settled = || written.iter().flat_map(|(job, _)| job.settled.iter());
    // What was encoded once is encoded again.
    let notices = written.iter().flat_map(|(job, _)| job.append.notices.iter());
    let notices: Vec<Vec<u8>> = notices.filter_map(|notice| serde_json::to_vec(notice).ok()).collect();
    query
        .bind(steps.iter().map(|(_, step)| step.queue).collect::<Vec<_>>())
        .bind(steps.iter().map(|(_, step)| step.place.name.as_bytes()).collect::<Vec<_>>())
        .bind(steps.iter().map(|(job, _)| id(&job.run_id)).collect::<Vec<_>>())
        .bind(steps.iter().map(|(_, step)| text(&step.place.step)).collect::<Vec<_>>())
        .bind(steps.iter().map(|(_, step)| step.place.item).collect::<Vec<_>>())
        .bind(steps.iter().map(|(job, _)| job.at()).collect::<Vec<_>>())
        .bind(notices)
        .bind(settled().map(|(id, _)| id.as_bytes().as_slice()).collect::<Vec<_>>())
        .bind(settled().map(|(_, answer)| answer.as_slice()).collect::<Vec<_>>())
}

fn bind_births<'q>(query: Bound<'q>, written: &Written<'_>) -> Bound<'q> {
    let births = || written.iter().flat_map(|(job, _)| &job.births);
    query
        .bind(births().map(|birth| id(&birth.run)).collect::<Vec<_>>())
        .bind(births().map(|birth| birth.parent.as_ref().map(id)).collect::<Vec<_>>())
        .bind(births().map(|birth| birth.at).collect::<Vec<_>>())
        .bind(births().map(|birth| birth.record.as_slice()).collect::<Vec<_>>())
}
