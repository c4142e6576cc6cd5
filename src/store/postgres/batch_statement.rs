//! The statement that writes a batch, with its values.
//!
//! Always true: rows of pins, keys, runs and payloads are sorted by their keys, so that two processes cannot deadlock;
//! a run has one row, even if the batch contains several of its appends.

use std::collections::BTreeMap;

use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Postgres, SqlSafeStr, SqlStr};

use super::columns::escape;
use super::lease_term::ProcessTerm;
use super::summary_cache::SummaryCache;
use crate::names::{RouteId, RunId};
use crate::store::codec::LargeValue;
use crate::store::encoded::EncodedAppend;
use crate::store::{NewPin, run_has_ended};
use crate::workflow::Event;

/// The appends of a batch, each with those of its pins that are not stored.
pub(super) type Written<'a> = [(&'a EncodedAppend, &'a [NewPin])];

/// The text of the statement, and the values that are the same for all batches.
pub(super) struct BatchStatement {
    text: SqlStr,
    origin: String,
    retry_window_ns: i64,
    /// The answer to the open commands of runs that end.
    run_has_ended: Vec<u8>,
}

/// The number of the parameters of `append_runs`.
const PARAMETERS: usize = 53;

impl BatchStatement {
    pub(super) fn new(origin: &str, retry_window_ns: i64) -> Self {
        let values: Vec<String> = (1..=PARAMETERS).map(|n| format!("${n}")).collect();
        let text = format!(
            "WITH checked AS MATERIALIZED (SELECT refuse_legacy_keys(${}, $2), refuse_ended_term(${}, ${})) \
             SELECT append_runs({}) FROM checked",
            PARAMETERS + 1,
            PARAMETERS + 2,
            PARAMETERS + 3,
            values.join(", ")
        );
        let text = AssertSqlSafe(text).into_sql_str();
        Self {
            text,
            origin: origin.to_owned(),
            retry_window_ns,
            run_has_ended: run_has_ended().to_string().into_bytes(),
        }
    }

    /// The statement that writes all of these appends and returns the notifications. `None` if two of them conflict.
    /// Summaries that, by the cache, are stored already are not written. Unless the appends are `validated`, the
    /// statement fails where another run has claimed one of their keys, however long ago: that run may be open. It also
    /// fails outside of `term`.
    pub(super) fn write(
        &self,
        written: &Written<'_>,
        summaries: &SummaryCache,
        validated: bool,
        term: Option<ProcessTerm>,
    ) -> Option<Query<'_, Postgres, PgArguments>> {
        let runs = runs(written)?;
        let retry_window_ns = if validated { self.retry_window_ns } else { i64::MAX };
        let query = sqlx::query(self.text.clone()).bind(&self.origin).bind(retry_window_ns);
        let query = bind_keys(bind_pins(query, written), written)?;
        let query = bind_payloads(bind_appends(bind_runs(query, &runs, summaries), written), written);
        let query = bind_pending_runs(bind_rest(query, written).bind(&self.run_has_ended), written);
        let claims = written.iter().filter_map(|(append, _)| append.claim);
        let legacy_keys: Vec<[u8; 32]> =
            claims.flat_map(|claim| claim.legacy_keys).flatten().map(|key| key.0).collect();
        let query = query.bind(legacy_keys);
        Some(query.bind(term.map(|(worker, _)| worker.0.as_bytes().to_vec())).bind(term.map(|(_, term)| term)))
    }
}

type BoundQuery<'q> = Query<'q, Postgres, PgArguments>;

fn id(run: &RunId) -> &[u8] {
    run.0.as_bytes().as_slice()
}

/// A run's appends in the batch: the first, the last, and whether any of them makes the run pinned
/// (`Append::is_pinned`).
struct RunRow<'a> {
    first: &'a EncodedAppend,
    last: &'a EncodedAppend,
    pinned: bool,
}

fn runs<'a>(written: &Written<'a>) -> Option<BTreeMap<RunId, RunRow<'a>>> {
    let mut runs: BTreeMap<RunId, RunRow<'a>> = BTreeMap::new();
    for (append, _) in written {
        let pinned = append.original.is_pinned();
        let run = runs.entry(append.run_id).or_insert(RunRow { first: append, last: append, pinned });
        if !std::ptr::eq(run.last, *append) {
            if append.first != run.last.last() + 1 || append.fence != run.last.fence {
                return None;
            }
            run.last = append;
            run.pinned |= pinned;
        }
    }
    Some(runs)
}

fn bind_pins<'q>(query: BoundQuery<'q>, written: &Written<'_>) -> BoundQuery<'q> {
    let mut pins: Vec<(&EncodedAppend, &NewPin)> =
        written.iter().flat_map(|(append, pins)| pins.iter().map(|pin| (*append, pin))).collect();
    pins.sort_by(|(_, a), (_, b)| (&a.key.family, &a.key.id).cmp(&(&b.key.family, &b.key.id)));
    query
        .bind(pins.iter().map(|(_, pin)| pin.key.family.as_str()).collect::<Vec<_>>())
        .bind(pins.iter().map(|(_, pin)| pin.key.id.as_bytes()).collect::<Vec<_>>())
        .bind(pins.iter().map(|(_, pin)| pin.arm.as_str()).collect::<Vec<_>>())
        .bind(pins.iter().map(|(append, _)| id(&append.run_id)).collect::<Vec<_>>())
        .bind(pins.iter().map(|(append, _)| append.last_event_at()).collect::<Vec<_>>())
}

/// Each key once; `None` if two runs of the batch claim the same key.
fn bind_keys<'q>(query: BoundQuery<'q>, written: &Written<'_>) -> Option<BoundQuery<'q>> {
    let mut keys: BTreeMap<[u8; 32], (RunId, [u8; 32])> = BTreeMap::new();
    for (append, claim) in written.iter().filter_map(|(append, _)| append.claim.map(|claim| (append, claim))) {
        for key in claim.keys() {
            let (run, _) = keys.entry(key.0).or_insert((append.run_id, claim.request));
            if *run != append.run_id {
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

fn bind_runs<'q>(
    query: BoundQuery<'q>,
    runs: &BTreeMap<RunId, RunRow<'_>>,
    summaries: &SummaryCache,
) -> BoundQuery<'q> {
    let last = || runs.values().map(|run| &run.last.run);
    let summary = |run: &RunRow<'_>| (!summaries.is_current(run.last)).then(|| run.last.summary().into_owned());
    query
        .bind(runs.keys().map(id).collect::<Vec<_>>())
        .bind(runs.values().map(|run| run.last.fence.0.cast_signed()).collect::<Vec<_>>())
        .bind(runs.values().map(|run| run.first.first.cast_signed()).collect::<Vec<_>>())
        .bind(runs.values().map(|run| run.last.last().cast_signed()).collect::<Vec<_>>())
        .bind(last().map(|row| row.ended).collect::<Vec<_>>())
        .bind(last().map(|row| row.updated).collect::<Vec<_>>())
        .bind(last().map(|row| row.status).collect::<Vec<_>>())
        .bind(last().map(|row| escape(row.workflow.as_str())).collect::<Vec<_>>())
        .bind(last().map(|row| row.route.as_ref().map(RouteId::as_str)).collect::<Vec<_>>())
        .bind(last().map(|row| row.mode).collect::<Vec<_>>())
        .bind(last().map(|row| row.job.as_ref().map(|id| id.0.as_bytes().as_slice())).collect::<Vec<_>>())
        .bind(last().map(|row| row.parent.as_ref().map(id)).collect::<Vec<_>>())
        .bind(runs.values().map(summary).collect::<Vec<Option<Vec<u8>>>>())
        .bind(last().map(|row| row.owner.as_ref().map(|owner| owner.0.as_bytes().as_slice())).collect::<Vec<_>>())
        .bind(last().map(|row| row.due_at).collect::<Vec<_>>())
        .bind(runs.values().map(|run| run.pinned).collect::<Vec<_>>())
}

fn bind_appends<'q>(query: BoundQuery<'q>, written: &Written<'_>) -> BoundQuery<'q> {
    let appends = || written.iter().map(|(append, _)| *append);
    query
        .bind(appends().map(|append| id(&append.run_id)).collect::<Vec<_>>())
        .bind(appends().map(|append| append.first.cast_signed()).collect::<Vec<_>>())
        .bind(appends().map(|append| append.last().cast_signed()).collect::<Vec<_>>())
        .bind(appends().map(|append| append.batch.as_bytes().as_slice()).collect::<Vec<_>>())
        .bind(appends().map(|append| i64::try_from(append.large_values.len()).unwrap_or(i64::MAX)).collect::<Vec<_>>())
        .bind(appends().map(|append| append.events.as_slice()).collect::<Vec<_>>())
        .bind(i16::try_from(Event::VERSION).unwrap_or(i16::MAX))
}

fn bind_payloads<'q>(query: BoundQuery<'q>, written: &Written<'_>) -> BoundQuery<'q> {
    let mut bodies: BTreeMap<[u8; 32], &[u8]> = BTreeMap::new();
    let mut refs: Vec<(&EncodedAppend, u64, &LargeValue)> = Vec::new();
    for (append, _) in written {
        bodies.extend(append.large_values.iter().map(|(_, part)| (part.hash, part.body.as_slice())));
        refs.extend(append.large_values.iter().map(|(seq, part)| (*append, *seq, part)));
    }
    query
        .bind(bodies.keys().map(|hash| hash.as_slice()).collect::<Vec<_>>())
        .bind(bodies.values().copied().collect::<Vec<_>>())
        .bind(refs.iter().map(|(append, ..)| id(&append.run_id)).collect::<Vec<_>>())
        .bind(refs.iter().map(|(_, seq, _)| seq.cast_signed()).collect::<Vec<_>>())
        .bind(refs.iter().map(|(.., part)| escape(&part.path)).collect::<Vec<_>>())
        .bind(refs.iter().map(|(.., part)| part.hash.as_slice()).collect::<Vec<_>>())
}

fn bind_rest<'q>(query: BoundQuery<'q>, written: &Written<'_>) -> BoundQuery<'q> {
    let lock_updates: Vec<_> =
        written.iter().flat_map(|(append, _)| append.locks.iter().map(|update| (*append, update))).collect();
    let answered = || written.iter().flat_map(|(append, _)| append.answered_commands.iter());
    // Cannot fail: they were parsed from JSON or built from text.
    let webhook_messages = written.iter().flat_map(|(append, _)| append.original.webhook_messages.iter());
    let webhook_messages: Vec<Vec<u8>> =
        webhook_messages.filter_map(|message| serde_json::to_vec(message).ok()).collect();
    query
        .bind(lock_updates.iter().map(|(_, update)| update.is_enqueue).collect::<Vec<_>>())
        .bind(lock_updates.iter().map(|(_, update)| update.entry.name.as_bytes()).collect::<Vec<_>>())
        .bind(lock_updates.iter().map(|(append, _)| id(&append.run_id)).collect::<Vec<_>>())
        .bind(lock_updates.iter().map(|(_, update)| escape(&update.entry.step)).collect::<Vec<_>>())
        .bind(lock_updates.iter().map(|(_, update)| update.entry.item).collect::<Vec<_>>())
        .bind(lock_updates.iter().map(|(append, _)| append.last_event_at()).collect::<Vec<_>>())
        .bind(webhook_messages)
        .bind(answered().map(|(id, _)| id.as_bytes().as_slice()).collect::<Vec<_>>())
        .bind(answered().map(|(_, answer)| answer.as_slice()).collect::<Vec<_>>())
}

fn bind_pending_runs<'q>(query: BoundQuery<'q>, written: &Written<'_>) -> BoundQuery<'q> {
    let pending_runs = || written.iter().flat_map(|(append, _)| &append.pending_runs);
    query
        .bind(pending_runs().map(|pending| id(&pending.run)).collect::<Vec<_>>())
        .bind(pending_runs().map(|pending| pending.parent.as_ref().map(id)).collect::<Vec<_>>())
        .bind(pending_runs().map(|pending| pending.at).collect::<Vec<_>>())
        .bind(pending_runs().map(|pending| pending.record.as_slice()).collect::<Vec<_>>())
}
