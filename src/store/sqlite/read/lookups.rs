//! Look-ups of plans, keys, pins, first tries, and records that are stored as JSON.

use std::ops::RangeInclusive;

use jiff::Timestamp;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use uuid::Uuid;

use super::super::encoded::{arm, nanos};
use super::super::readers::Readers;
use super::super::stored_state::run_id;
use super::{Result, parse, read_error, sql_limit, time};
use crate::flag::{Arm, PinKey, RetryKey};
use crate::names::{PlanId, RouteId, RunId};
use crate::store::bound_keys::{OldKey, RetryKeyPosition, has_run_since, is_bound, is_given_back};
use crate::store::record_log::{CheckedRow, checked_flip, checked_record, exclusive_lower_bound, readable_flips};
use crate::store::unpurgeable::UNREADABLE_EXAMINED_MAX;
use crate::store::{FlipRecord, PinAdoption, PinCount, PinRecord, PlacedPin, SampleRecord, StoreError, StoredFirstTry};

pub(in crate::store::sqlite) async fn plan(readers: &Readers, id: PlanId) -> Result<Option<serde_json::Value>> {
    let row: Option<(Vec<u8>,)> = sqlx::query_as("SELECT source FROM plans WHERE id = ?")
        .bind(id.as_str())
        .fetch_optional(readers.pool()?)
        .await
        .map_err(read_error)?;
    row.map(|(source,)| parse(&source)).transpose()
}

pub(in crate::store::sqlite) async fn run_key(readers: &Readers, run: RunId) -> Result<Option<Vec<u8>>> {
    let row: Option<(Vec<u8>,)> = sqlx::query_as("SELECT key FROM run_keys WHERE run_id = ?")
        .bind(run.0.as_bytes().as_slice())
        .fetch_optional(readers.pool()?)
        .await
        .map_err(read_error)?;
    Ok(row.map(|(key,)| key))
}

pub(in crate::store::sqlite) async fn pin(readers: &Readers, key: PinKey) -> Result<Option<PinRecord>> {
    let row = sqlx::query("SELECT family, id, arm, run_id, at, adoption FROM pins WHERE family = ? AND id = ?")
        .bind(key.family.as_str())
        .bind(&*key.id)
        .fetch_optional(readers.pool()?)
        .await
        .map_err(read_error)?;
    row.as_ref().map(pin_record).transpose()
}

pub(in crate::store::sqlite) async fn pins(
    readers: &Readers,
    family: RouteId,
    arm: Arm,
    limit: usize,
) -> Result<Vec<PinRecord>> {
    let text =
        "SELECT family, id, arm, run_id, at, adoption FROM pins WHERE family = ? AND arm = ? ORDER BY pos DESC LIMIT ?";
    let found = sqlx::query(text)
        .bind(family.as_str())
        .bind(arm.as_str())
        .bind(sql_limit(limit))
        .fetch_all(readers.pool()?)
        .await
        .map_err(read_error)?;
    found.iter().map(pin_record).collect()
}

fn pin_record(row: &SqliteRow) -> Result<PinRecord> {
    let family = RouteId::new(row.try_get::<String, _>(0).map_err(read_error)?);
    let id = row.try_get::<String, _>(1).map_err(read_error)?.into();
    let arm = known_arm(row.try_get(2).map_err(read_error)?)?;
    let run = row.try_get::<Option<Vec<u8>>, _>(3).map_err(read_error)?.and_then(run_id);
    let adoption = row.try_get::<Option<&str>, _>(5).map_err(read_error)?.map(PinAdoption::parse).transpose()?;
    Ok(PinRecord { key: PinKey { family, id }, arm, run, at: time(row.try_get(4).map_err(read_error)?)?, adoption })
}

fn known_arm(text: &str) -> Result<Arm> {
    arm(text).ok_or_else(|| StoreError(format!("a stored record names an unknown arm `{text}`")))
}

pub(in crate::store::sqlite) async fn pin_counts(readers: &Readers) -> Result<Vec<PinCount>> {
    let text = "SELECT family, arm, count(*) FROM pins GROUP BY family, arm";
    let found: Vec<(String, String, i64)> =
        sqlx::query_as(text).fetch_all(readers.pool()?).await.map_err(read_error)?;
    let mut counts = Vec::with_capacity(found.len());
    for (family, arm, count) in found {
        counts.push((RouteId::new(family), known_arm(&arm)?, count.cast_unsigned()));
    }
    counts.sort();
    Ok(counts)
}

pub(in crate::store::sqlite) async fn first_try(
    readers: &Readers,
    key: RetryKey,
    since: i64,
) -> Result<Option<StoredFirstTry>> {
    type Row = (String, Option<Vec<u8>>, Option<Vec<u8>>, i64);
    const TEXT: &str =
        concat!("SELECT arm, run_id, request, at FROM retry_keys WHERE key = ?1 AND ", is_bound!("retry_keys", "?2"));
    let row: Option<Row> = sqlx::query_as(TEXT)
        .bind(key.0.as_slice())
        .bind(since)
        .fetch_optional(readers.pool()?)
        .await
        .map_err(read_error)?;
    let Some((arm, run, request, at)) = row else { return Ok(None) };
    let run = run.and_then(|bytes| Uuid::from_slice(&bytes).ok()).map(RunId);
    let request = request.and_then(|bytes| bytes.try_into().ok());
    Ok(Some(StoredFirstTry { arm: known_arm(&arm)?, run, request, at: time(at)? }))
}

pub(in crate::store::sqlite) async fn engine_took_any(
    readers: &Readers,
    range: RangeInclusive<RetryKey>,
    since: i64,
) -> Result<bool> {
    const TEXT: &str = concat!(
        "SELECT EXISTS (SELECT 1 FROM retry_keys WHERE key BETWEEN ?1 AND ?2 AND run_id IS NOT NULL AND ",
        is_bound!("retry_keys", "?3"),
        " AND NOT ",
        is_given_back!("retry_keys"),
        ")"
    );
    sqlx::query_scalar(TEXT)
        .bind(range.start().0.as_slice())
        .bind(range.end().0.as_slice())
        .bind(since)
        .fetch_one(readers.pool()?)
        .await
        .map_err(read_error)
}

pub(in crate::store::sqlite) async fn engine_tries(
    readers: &Readers,
    since: i64,
    after: Option<RetryKey>,
    limit: usize,
) -> Result<Vec<(RetryKey, Timestamp)>> {
    let text = "SELECT key, at FROM retry_keys WHERE key > ? AND run_id IS NOT NULL AND at > ? \
                AND typeof(key) = 'blob' AND length(key) = 32 ORDER BY key LIMIT ?";
    let after = after.as_ref().map_or([].as_slice(), |key| key.0.as_slice());
    let found: Vec<(Vec<u8>, i64)> = sqlx::query_as(text)
        .bind(after)
        .bind(since)
        .bind(sql_limit(limit))
        .fetch_all(readers.pool()?)
        .await
        .map_err(read_error)?;
    found.into_iter().map(|(key, at)| Ok((retry_key(key)?, time(at)?))).collect()
}

fn retry_key(key: Vec<u8>) -> Result<RetryKey> {
    let key = key.try_into().map_err(|_| StoreError("a stored retry key has a wrong length".into()))?;
    Ok(RetryKey(key))
}

/// At most `limit` keys after a position, oldest first: those whose first try was at `soon_since` or earlier. Their
/// retry window is over soon; it is over already where the try was at `since` or earlier.
pub(in crate::store::sqlite) async fn old_keys(
    readers: &Readers,
    (since, soon_since): (i64, i64),
    after: Option<RetryKeyPosition>,
    limit: usize,
) -> Result<Vec<OldKey>> {
    const TEXT: &str = concat!(
        "SELECT key, at, ",
        has_run_since!("retry_keys", "(CASE WHEN retry_keys.at <= ?1 THEN ?1 ELSE ?2 END)"),
        " FROM retry_keys WHERE at <= ?2 AND (at, key) > (?3, ?4) \
          AND typeof(key) = 'blob' AND length(key) = 32 ORDER BY at, key LIMIT ?5"
    );
    let (at, key) = after.as_ref().map_or((i64::MIN, [].as_slice()), |after| (nanos(after.at), after.key.0.as_slice()));
    let query = sqlx::query_as(TEXT).bind(since).bind(soon_since).bind(at).bind(key).bind(sql_limit(limit));
    let found: Vec<(Vec<u8>, i64, bool)> = query.fetch_all(readers.pool()?).await.map_err(read_error)?;
    let old_key = |(key, at, is_bound)| {
        let position = RetryKeyPosition { at: time(at)?, key: retry_key(key)? };
        Ok(OldKey { position, is_bound })
    };
    found.into_iter().map(old_key).collect()
}

/// How many of the oldest keys whose first try was at this time or earlier cannot be read. [`old_keys`] leaves them
/// out; they stay, and so they become the oldest.
pub(in crate::store::sqlite) async fn unreadable_keys(readers: &Readers, since: i64) -> Result<u64> {
    let text = "SELECT count(*) FROM (SELECT key FROM retry_keys WHERE at <= ? ORDER BY at LIMIT ?) \
                WHERE NOT (typeof(key) = 'blob' AND length(key) = 32)";
    let query = sqlx::query_scalar(text).bind(since).bind(sql_limit(UNREADABLE_EXAMINED_MAX));
    let found: i64 = query.fetch_one(readers.pool()?).await.map_err(read_error)?;
    Ok(found.cast_unsigned())
}

pub(in crate::store::sqlite) async fn pinned(readers: &Readers, after: u64, limit: usize) -> Result<Vec<PlacedPin>> {
    let text = "SELECT pos, family, id, arm FROM pins WHERE pos > ? ORDER BY pos LIMIT ?";
    let found: Vec<(i64, String, String, String)> = sqlx::query_as(text)
        .bind(after.cast_signed())
        .bind(sql_limit(limit))
        .fetch_all(readers.pool()?)
        .await
        .map_err(read_error)?;
    let pin_of = |(position, family, id, arm): (i64, String, String, String)| {
        Ok((position.cast_unsigned(), PinKey { family: RouteId::new(family), id: id.into() }, known_arm(&arm)?))
    };
    found.into_iter().map(pin_of).collect()
}

/// Decodes the JSON records of a statement, whose parameters are an optional route and an optional limit.
pub(in crate::store::sqlite) async fn records<T: serde::de::DeserializeOwned>(
    readers: &Readers,
    text: &'static str,
    route: Option<&RouteId>,
    limit: Option<usize>,
) -> Result<Vec<T>> {
    let mut query = sqlx::query_as::<_, (Vec<u8>,)>(text);
    if let Some(route) = route {
        query = query.bind(route.as_str().to_owned());
    }
    if let Some(limit) = limit {
        query = query.bind(sql_limit(limit));
    }
    let found = query.fetch_all(readers.pool()?).await.map_err(read_error)?;
    found.iter().map(|(record,)| parse(record)).collect()
}

/// Decodes the JSON records of a statement without parameters, each in a row under its route.
pub(in crate::store::sqlite) async fn records_of_routes<T: serde::de::DeserializeOwned>(
    readers: &Readers,
    table: &'static str,
    text: &'static str,
    route_of: fn(&T) -> &RouteId,
) -> Result<Vec<T>> {
    let query = sqlx::query_as::<_, (String, Vec<u8>)>(text);
    let found = query.fetch_all(readers.pool()?).await.map_err(read_error)?;
    found.iter().map(|(route, record)| checked_record(table, route, record, route_of)).collect()
}

/// The first rows, in the order of the statement, whose number is above `after`; those of all numbers after 0.
pub(in crate::store::sqlite) async fn rows_after<T>(
    readers: &Readers,
    text: &'static str,
    after: u64,
    limit: usize,
) -> Result<Vec<T>>
where
    T: for<'row> sqlx::FromRow<'row, sqlx::sqlite::SqliteRow> + Send + Unpin,
{
    let query = sqlx::query_as::<sqlx::Sqlite, T>(text).bind(exclusive_lower_bound(after)).bind(sql_limit(limit));
    query.fetch_all(readers.pool()?).await.map_err(read_error)
}

type FlipColumns = (i64, Option<String>, Vec<u8>);

/// The first flips, in the order of the statement, whose number is above `after`.
pub(in crate::store::sqlite) async fn flip_rows(
    readers: &Readers,
    text: &'static str,
    after: u64,
    limit: usize,
) -> Result<Vec<CheckedRow<FlipRecord>>> {
    let found = rows_after::<FlipColumns>(readers, text, after, limit).await?;
    Ok(found.iter().map(|(number, route, record)| checked_flip(*number, route.as_deref(), record)).collect())
}

/// Flips, newest first, of one route or of all.
pub(in crate::store::sqlite) async fn flips(
    readers: &Readers,
    route: Option<RouteId>,
    limit: usize,
) -> Result<Vec<FlipRecord>> {
    let rows = match route {
        Some(route) => {
            let text = "SELECT number, CAST(route AS TEXT), CAST(record AS BLOB) FROM flips WHERE route = ? \
                        ORDER BY number DESC LIMIT ?";
            let query = sqlx::query_as::<_, FlipColumns>(text).bind(route.as_str().to_owned()).bind(sql_limit(limit));
            let found = query.fetch_all(readers.pool()?).await.map_err(read_error)?;
            found.iter().map(|(number, route, record)| checked_flip(*number, route.as_deref(), record)).collect()
        }
        None => {
            let text = "SELECT number, CAST(route AS TEXT), CAST(record AS BLOB) FROM flips WHERE number > ? \
                        ORDER BY number DESC LIMIT ?";
            flip_rows(readers, text, 0, limit).await?
        }
    };
    readable_flips(rows)
}

/// Samples of a route, newest first.
pub(in crate::store::sqlite) async fn samples(
    readers: &Readers,
    route: RouteId,
    limit: usize,
) -> Result<Vec<SampleRecord>> {
    let text = "SELECT record FROM samples WHERE route = ? ORDER BY pos DESC LIMIT ?";
    records(readers, text, Some(&route), Some(limit)).await
}

/// The newest sample with events of this run.
pub(in crate::store::sqlite) async fn sample_of_run(readers: &Readers, run: RunId) -> Result<Option<SampleRecord>> {
    let text = "SELECT record FROM samples WHERE pos = (SELECT max(pos) FROM sample_runs WHERE run = ?)";
    let query = sqlx::query_as::<_, (Vec<u8>,)>(text).bind(run.0.as_bytes().as_slice());
    let found = query.fetch_optional(readers.pool()?).await.map_err(read_error)?;
    found.map(|(record,)| parse(&record)).transpose()
}
