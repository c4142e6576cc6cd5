//! Writes that are not appends: plans, keys, detached twins, flips, declarations, samples, evidence, legacy's retry
//! keys, snapshots.
//!
//! Always true: each is one statement with a commit of its own, and idempotent; flips have ids, by which a repeated
//! write is recognised.
//!
//! The names of tables and columns are explained in [`crate::store`].

use jiff::Timestamp;
use uuid::Uuid;

use super::columns::{Result, column, escape, json, sql_limit, time};
use super::pool::Pool;
use super::read::{position, retry_key};
use crate::flag::{Arm, PinKey, RetryKey};
use crate::names::{PlanId, RouteId, RunId};
use crate::store::bound_keys::{RetryKeyPage, RetryKeyPosition, is_bound, is_given_back};
use crate::store::encoded::nanos;
use crate::store::key_files::key_file_row;
use crate::store::{
    EvidenceRecord, KeyFileRecord, PutFlips, RunSnapshot, SampleRecord, StandingAnnouncement, StoreError, codec,
};

pub(super) async fn plan(pool: &Pool, id: PlanId, source: serde_json::Value) -> Result<()> {
    let source = json(&source)?;
    let text = "INSERT INTO plans (id, source) VALUES ($1, $2) ON CONFLICT DO NOTHING";
    pool.query(|| sqlx::query(text).bind(id.as_str()).bind(source.as_slice())).await.map(drop)
}

pub(super) async fn run_key(pool: &Pool, run: RunId, key: Option<Vec<u8>>) -> Result<()> {
    let run = run.0.as_bytes().as_slice();
    match &key {
        Some(key) => {
            let text = "INSERT INTO run_keys (run_id, key) VALUES ($1, $2) \
                        ON CONFLICT (run_id) DO UPDATE SET key = excluded.key";
            pool.query(|| sqlx::query(text).bind(run).bind(key.as_slice())).await.map(drop)
        }
        None => pool.query(|| sqlx::query("DELETE FROM run_keys WHERE run_id = $1").bind(run)).await.map(drop),
    }
}

/// Removes the run from the pin of an instance of legacy.
pub(super) async fn detach_twin(pool: &Pool, key: PinKey) -> Result<()> {
    let text = "UPDATE pins SET run_id = NULL WHERE family = $1 AND sha256(id) = sha256($2) AND id = $2 AND arm = $3";
    let (family, id, arm) = (key.family.as_str(), key.id.as_bytes(), Arm::Legacy.as_str());
    pool.query(|| sqlx::query(text).bind(family).bind(id).bind(arm)).await.map(drop)
}

/// Stores a snapshot. The statement locks the run's row, so that it and a purge of the run wait for each other: no
/// snapshot outlives its run.
pub(super) async fn run_snapshot(pool: &Pool, snapshot: &RunSnapshot) -> Result<()> {
    let RunSnapshot { run, seq, at, fold, body } = snapshot;
    let put = "WITH whole AS (SELECT FROM runs WHERE run_id = $1 AND seq >= $2 AND NOT purged FOR KEY SHARE) \
               INSERT INTO run_snapshots AS kept (run_id, seq, at, fold, hash, body) \
               SELECT $1, $2, $3, $4, $5, $6 FROM whole \
               ON CONFLICT (run_id) DO UPDATE SET seq = excluded.seq, at = excluded.at, fold = excluded.fold, \
                   hash = excluded.hash, body = excluded.body WHERE kept.seq <= excluded.seq";
    let hash = codec::hash(body);
    let make = || {
        let query = sqlx::query(put).bind(run.0.as_bytes().as_slice()).bind(seq.0.cast_signed()).bind(nanos(*at));
        query.bind(fold.as_str()).bind(hash.as_slice()).bind(body.as_slice())
    };
    pool.query(make).await.map(drop)
}

/// See `note_legacy_tries` in [`crate::store`]: returns those of the keys that runs have claimed, which stay as they
/// are.
pub(super) async fn legacy_tries(
    pool: &Pool,
    mut tries: Vec<(RetryKey, Timestamp)>,
    retry_window_ns: i64,
) -> Result<Vec<RetryKey>> {
    // Sorted, so that two processes cannot deadlock; each key once, with its earliest time.
    tries.sort();
    tries.dedup_by_key(|(key, _)| *key);
    let keys: Vec<&[u8]> = tries.iter().map(|(key, _)| key.0.as_slice()).collect();
    let times: Vec<i64> = tries.iter().map(|(_, at)| nanos(*at)).collect();
    const PUT: &str = concat!(
        "INSERT INTO retry_keys AS held (key, arm, at) SELECT key, 'legacy', least(at, now_ns()) FROM unnest($1, $2) AS n(key, at) \
         ON CONFLICT (key) DO UPDATE SET arm = excluded.arm, run_id = NULL, request = NULL, at = excluded.at WHERE NOT ",
        is_bound!("held", "(now_ns() - $3)"),
        " OR ",
        is_given_back!("held"),
        " RETURNING 1"
    );
    let put = pool.query(|| sqlx::query(PUT).bind(&keys).bind(&times).bind(retry_window_ns)).await?;
    if put.len() == keys.len() {
        return Ok(Vec::new());
    }
    // A statement of its own, which finds also what was committed while the first one waited for a row.
    const OF_RUNS: &str = concat!(
        "SELECT key FROM retry_keys WHERE key = ANY ($1) AND run_id IS NOT NULL AND ",
        is_bound!("retry_keys", "(now_ns() - $2)"),
        " AND NOT ",
        is_given_back!("retry_keys")
    );
    let found = pool.query(|| sqlx::query(OF_RUNS).bind(&keys).bind(retry_window_ns)).await?;
    found.iter().map(retry_key).collect()
}

/// Examines, from a position on, keys whose retry window is over, and removes those that no run keeps bound. Returns
/// how many were removed, and where to go on.
pub(super) async fn prune_retry_keys(
    pool: &Pool,
    retry_window_ns: i64,
    after: Option<RetryKeyPosition>,
    limit: usize,
) -> Result<RetryKeyPage<u64>> {
    // Skips rows that another process prunes or claims at this moment.
    const PRUNE: &str = concat!(
        "WITH old AS MATERIALIZED (SELECT key, at FROM retry_keys \
             WHERE at <= now_ns() - $1 AND (at, key) > ($2, $3) AND octet_length(key) = 32 \
             ORDER BY at, key LIMIT $4), \
         expired AS MATERIALIZED (SELECT key FROM retry_keys WHERE key IN (SELECT key FROM old) AND NOT ",
        is_bound!("retry_keys", "(now_ns() - $1)"),
        " ORDER BY key FOR UPDATE SKIP LOCKED), \
         gone AS (DELETE FROM retry_keys WHERE key IN (SELECT key FROM expired) RETURNING 1) \
         SELECT key, at, (SELECT count(*) FROM old), (SELECT count(*) FROM gone) FROM old \
         ORDER BY at DESC, key DESC LIMIT 1"
    );
    let (at, key) = position(&after);
    let make = || sqlx::query(PRUNE).bind(retry_window_ns).bind(at).bind(key).bind(sql_limit(limit));
    let found = pool.query(make).await?;
    let Some(last) = found.first() else { return Ok(RetryKeyPage { result: 0, next: None }) };
    let position = RetryKeyPosition { at: time(column(last, 1)?)?, key: retry_key(last)? };
    let is_full = column::<i64>(last, 2)? >= sql_limit(limit);
    Ok(RetryKeyPage { result: column::<i64>(last, 3)?.cast_unsigned(), next: is_full.then_some(position) })
}

pub(super) async fn flips(pool: &Pool, put: PutFlips) -> Result<Option<Vec<u64>>> {
    let PutFlips { flips, declared, after, announced } = put;
    let ids: Vec<Uuid> = flips.iter().map(|_| Uuid::from_u128(fastrand::u128(..))).collect();
    let ids: Vec<&[u8]> = ids.iter().map(|id| id.as_bytes().as_slice()).collect();
    let routes: Vec<Option<&str>> = flips.iter().map(|flip| flip.route.as_ref().map(RouteId::as_str)).collect();
    let records = flips.iter().map(json).collect::<Result<Vec<_>>>()?;
    let declared_routes: Option<Vec<&str>> =
        declared.as_ref().map(|declared| declared.iter().map(|state| state.route.as_str()).collect());
    let declared_records =
        declared.as_ref().map(|declared| declared.iter().map(json).collect::<Result<Vec<_>>>()).transpose()?;
    let make = || {
        let text = match announced {
            None => "SELECT put_flips_after($1, $2, $3, $4, $5, $6)",
            Some(_) => "SELECT put_announced_flips($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        };
        let query = sqlx::query(text).bind(&ids).bind(&routes).bind(&records);
        let query = query.bind(&declared_routes).bind(&declared_records).bind(after.cast_signed());
        let Some(StandingAnnouncement { worker, term, number }) = &announced else { return query };
        query.bind(worker.0.as_bytes().as_slice()).bind(*term).bind(number.cast_signed())
    };
    let found = pool.query(make).await?;
    let row = found.first().ok_or_else(|| StoreError("the store gave the flips no numbers".into()))?;
    let numbers = column::<Option<Vec<i64>>>(row, 0)?;
    Ok(numbers.map(|numbers| numbers.into_iter().map(i64::cast_unsigned).collect()))
}

pub(super) async fn samples(
    pool: &Pool,
    samples: Vec<SampleRecord>,
    per_fingerprint: usize,
    fingerprints: usize,
) -> Result<()> {
    let routes: Vec<&str> = samples.iter().map(|sample| sample.route.as_str()).collect();
    let prints: Vec<String> = samples.iter().map(|sample| escape(&sample.fingerprint).into_owned()).collect();
    let records = samples.iter().map(json).collect::<Result<Vec<_>>>()?;
    let runs =
        samples.iter().zip(1_i64..).flat_map(|(sample, number)| sample.rehearsed_runs().map(move |run| (number, run)));
    let (of_sample, runs): (Vec<i64>, Vec<RunId>) = runs.unzip();
    let runs: Vec<&[u8]> = runs.iter().map(|run| run.0.as_bytes().as_slice()).collect();
    let (samples_max, fingerprints_max) =
        (super::columns::sql_limit(per_fingerprint), super::columns::sql_limit(fingerprints));
    let make = || {
        let query = sqlx::query("SELECT put_samples_of_runs($1, $2, $3, $4, $5, $6, $7)");
        let query = query.bind(&routes).bind(&prints).bind(&records).bind(&of_sample).bind(&runs);
        query.bind(samples_max).bind(fingerprints_max)
    };
    pool.query(make).await.map(drop)
}

pub(super) async fn clear_samples(pool: &Pool, route: RouteId) -> Result<()> {
    pool.query(|| sqlx::query("DELETE FROM samples WHERE route = $1").bind(route.as_str())).await.map(drop)
}

pub(super) async fn remove_samples_before(pool: &Pool, at: Timestamp) -> Result<()> {
    // The time is cut out, so that no record has to be parsed: a zero character in one would be an error.
    let text = "DELETE FROM samples WHERE extract(epoch FROM \
                substring(convert_from(record, 'UTF8') FROM '\"at\":\"([^\"]+)\"')::timestamptz) < $1::bigint";
    pool.query(|| sqlx::query(text).bind(at.as_second())).await.map(drop)
}

pub(super) async fn evidence(pool: &Pool, mut evidence: Vec<EvidenceRecord>) -> Result<()> {
    evidence.sort_by(|a, b| a.route.cmp(&b.route));
    let routes: Vec<&str> = evidence.iter().map(|record| record.route.as_str()).collect();
    let records = evidence.iter().map(json).collect::<Result<Vec<_>>>()?;
    let text = "INSERT INTO evidence (route, record) SELECT * FROM unnest($1, $2) \
                ON CONFLICT (route) DO UPDATE SET record = excluded.record";
    pool.query(|| sqlx::query(text).bind(&routes).bind(&records)).await.map(drop)
}

pub(super) async fn key_files(pool: &Pool, put: Vec<KeyFileRecord>, remove: Vec<Uuid>) -> Result<()> {
    let removed: Vec<String> = remove.into_iter().map(key_file_row).collect();
    let rows: Vec<String> = put.iter().map(|record| key_file_row(record.id)).collect();
    let records = put.iter().map(json).collect::<Result<Vec<_>>>()?;
    let text = "WITH gone AS (DELETE FROM meta WHERE key = ANY($1)) \
                INSERT INTO meta (key, value) SELECT * FROM unnest($2, $3) \
                ON CONFLICT (key) DO UPDATE SET value = excluded.value";
    pool.query(|| sqlx::query(text).bind(&removed).bind(&rows).bind(&records)).await.map(drop)
}
