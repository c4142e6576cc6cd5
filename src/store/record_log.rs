//! The entries of the record: moves of routes, and what they rested on, in order, each once. How entries are chained is
//! left to `record`.
//!
//! Always true: a row is returned only if its content can be read and its columns say the same as its content, because
//! some statements select by the columns and what is in force is taken from the content. Any other row is unreadable,
//! and is named. The row of an entry has exactly the bytes that were written: what the hash of the entry does not cover
//! (further fields, a key that is there twice) is in no row that can be read. A row with further fields that the hash
//! covers is not readable either, and is named as one of a newer version.
//!
//! Beside the entries the store has the head of the chain ([`ChainHead`]), which shows that the newest entries were
//! removed: the entries before them make a chain that holds.

use std::collections::BTreeMap;

use futures_util::future::{BoxFuture, FutureExt};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{FlipRecord, StoreError};
use crate::names::RouteId;

/// One entry of the record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RecordEntry {
    /// 1 for the first entry, then one more for each.
    pub number: u64,
    /// When the entry was written.
    pub at: Timestamp,
    /// What happened: `flip`, `freeze`, `guard`, `candidate`, `declared` (a state that a file forces without a flip),
    /// `refused`, `basis`, `cohort`, `promote`, `adoption` or `instance`.
    pub kind: String,
    /// The route; `null` for the kill switch.
    #[schemars(with = "Option<String>")]
    pub route: Option<RouteId>,
    /// What the entry was made from, such as `flip 12`; no two entries have the same source.
    pub source: String,
    /// The number of the newest flip that is in the record up to this entry; 0 if none is.
    pub flips: u64,
    /// What happened, in full.
    pub body: Value,
    /// The `hash` of the entry before; empty in the first one.
    pub previous: String,
    /// Whether the transaction that added the entry noted it as the newest one outside the table of entries: the store
    /// has such a note from then on. Left out in entries of older versions, of which it is not known.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_noted: bool,
    /// The BLAKE3 hash, in hexadecimal, of this entry as compact JSON without `hash`.
    pub hash: String,
}

/// The fields of [`RecordEntry`], as they are named in its row.
const ENTRY_FIELDS: [&str; 10] =
    ["number", "at", "kind", "route", "source", "flips", "body", "previous", "is_noted", "hash"];

impl RecordEntry {
    /// Why a row with an entry cannot be read, if it has a field that this version does not know and the hash of the
    /// entry is that of all bytes of the row: then a newer version may have written it. Whether the entry was changed
    /// and given another hash cannot be told without that version.
    pub fn why_of_newer_version(row: &[u8]) -> Option<String> {
        let fields: serde_json::Map<String, Value> = serde_json::from_slice(row).ok()?;
        let end = format!(",\"hash\":{}}}", fields.get("hash")?);
        let mut hasher = blake3::Hasher::new();
        hasher.update(row.strip_suffix(end.as_bytes())?).update(b"}");
        if fields["hash"].as_str() != Some(hasher.finalize().to_hex().as_str()) {
            return None;
        }
        let unknown = fields.keys().find(|name| !ENTRY_FIELDS.contains(&name.as_str()))?;
        Some(format!(
            "a newer version of pointsman seems to have written it: it has `{unknown}`, which this version does not \
             know, and its hash covers that; only that version can check the record"
        ))
    }
}

/// The entry that was added last, as the transaction that added it noted it outside the table of entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ChainHead {
    /// Its number.
    pub number: u64,
    /// Its hash.
    pub hash: String,
}

impl ChainHead {
    pub(super) fn of(entry: &RecordEntry) -> Self {
        Self { number: entry.number, hash: entry.hash.clone() }
    }

    /// The head in this value of the row [`CHAIN_HEAD`].
    pub(super) fn read(value: &[u8]) -> Result<Self, StoreError> {
        let unreadable =
            |error| StoreError(format!("the row `{CHAIN_HEAD}` of the table `meta` cannot be read: {error}"));
        serde_json::from_slice(value).map_err(unreadable)
    }
}

/// The row of the table `meta` with the [`ChainHead`].
pub(super) const CHAIN_HEAD: &str = "record_head";

/// A row that cannot be used: its content cannot be read, or its columns contradict it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnreadableRow {
    /// The number of the row, by its column.
    pub number: i64,
    /// What is wrong with it.
    pub why: String,
}

impl UnreadableRow {
    fn of_entry(self) -> StoreError {
        let Self { number, why } = self;
        StoreError(format!("entry {number} of the record cannot be read: {why}"))
    }

    fn of_flip(self) -> StoreError {
        let Self { number, why } = self;
        StoreError(format!("flip {number} in the store cannot be read: {why}"))
    }
}

/// A row, or why it is unreadable.
pub type CheckedRow<T> = Result<T, UnreadableRow>;

/// Rows that are read at a time where all are read.
const ROWS_AT_A_TIME: usize = 500;

/// Keeps the record. Entries are never changed or removed.
pub trait RecordLog: Send + Sync {
    /// Adds an entry, unless there is one with its number or its source: then nothing is changed. The same transaction
    /// notes the entry as the head of the chain.
    fn put_record_entry(&self, _entry: RecordEntry) -> BoxFuture<'_, Result<(), StoreError>> {
        std::future::ready(Ok(())).boxed()
    }
    /// Up to `limit` entries with a number above `after`, the oldest first; after 0 also those with a wrong number
    /// below.
    fn record_rows(
        &self,
        _after: u64,
        _limit: usize,
    ) -> BoxFuture<'_, Result<Vec<CheckedRow<RecordEntry>>, StoreError>> {
        std::future::ready(Ok(Vec::new())).boxed()
    }
    /// The newest entry.
    fn newest_record_row(&self) -> BoxFuture<'_, Result<Option<CheckedRow<RecordEntry>>, StoreError>> {
        std::future::ready(Ok(None)).boxed()
    }
    /// The head of the chain; `None` where no entry was added, or where an older version added all of them.
    fn chain_head(&self) -> BoxFuture<'_, Result<Option<ChainHead>, StoreError>> {
        std::future::ready(Ok(None)).boxed()
    }
    /// Up to `limit` flips with a number above `after`, the oldest first; after 0 also those with a wrong number below.
    fn flip_rows(&self, _after: u64, _limit: usize) -> BoxFuture<'_, Result<Vec<CheckedRow<FlipRecord>>, StoreError>> {
        std::future::ready(Ok(Vec::new())).boxed()
    }
    /// As [`RecordLog::record_rows`]; an unreadable one is an error.
    fn record_entries(&self, after: u64, limit: usize) -> BoxFuture<'_, Result<Vec<RecordEntry>, StoreError>> {
        async move {
            let rows = self.record_rows(after, limit).await?;
            rows.into_iter().map(|row| row.map_err(UnreadableRow::of_entry)).collect()
        }
        .boxed()
    }
    /// As [`RecordLog::newest_record_row`]; an unreadable one is an error.
    fn newest_record_entry(&self) -> BoxFuture<'_, Result<Option<RecordEntry>, StoreError>> {
        async move { self.newest_record_row().await?.transpose().map_err(UnreadableRow::of_entry) }.boxed()
    }
    /// As [`RecordLog::flip_rows`]; an unreadable one is an error.
    fn flips_after(&self, after: u64, limit: usize) -> BoxFuture<'_, Result<Vec<FlipRecord>, StoreError>> {
        async move { readable_flips(self.flip_rows(after, limit).await?) }.boxed()
    }
}

/// The flips; an unreadable one is an error.
pub(super) fn readable_flips(rows: Vec<CheckedRow<FlipRecord>>) -> Result<Vec<FlipRecord>, StoreError> {
    rows.into_iter().map(|row| row.map_err(UnreadableRow::of_flip)).collect()
}

/// The last flip of each route and of the kill switch, in the order of routes. All flips are read: a query by the
/// column `route` alone would skip the last flip of a route where that column was changed.
pub(super) async fn last_flips(log: &(impl RecordLog + ?Sized)) -> Result<Vec<FlipRecord>, StoreError> {
    let (mut last, mut after) = (BTreeMap::new(), 0);
    loop {
        let flips = log.flips_after(after, ROWS_AT_A_TIME).await?;
        let Some(newest) = flips.last() else { break };
        after = newest.number;
        last.extend(flips.into_iter().map(|flip| (flip.route.clone(), flip)));
    }
    Ok(last.into_values().collect())
}

/// The flip in a row. Where the content has no number, as PostgreSQL gives it with the row, the column has it.
pub(super) fn checked_flip(number: i64, route: Option<&str>, record: &[u8]) -> CheckedRow<FlipRecord> {
    let unreadable = |why| Err(UnreadableRow { number, why });
    let flip = match serde_json::from_slice::<FlipRecord>(record) {
        Ok(flip) => flip,
        Err(error) => return unreadable(error.to_string()),
    };
    let of_record = flip.route.as_ref().map(RouteId::as_str);
    match u64::try_from(number) {
        Err(_) | Ok(0) => unreadable(NO_NUMBER.to_owned()),
        Ok(known) if flip.number != 0 && flip.number != known => {
            unreadable(differs("number", Some(&known.to_string()), Some(&flip.number.to_string())))
        }
        Ok(_) if of_record != route => unreadable(differs("route", route, of_record)),
        Ok(known) => Ok(FlipRecord { number: known, ..flip }),
    }
}

/// The entry in a row.
pub(super) fn checked_entry(number: i64, source: &str, record: &[u8]) -> CheckedRow<RecordEntry> {
    let unreadable = |why| Err(UnreadableRow { number, why });
    let entry = match serde_json::from_slice::<RecordEntry>(record) {
        Ok(entry) => entry,
        Err(error) => return unreadable(error.to_string()),
    };
    match u64::try_from(number) {
        Err(_) | Ok(0) => unreadable(NO_NUMBER.to_owned()),
        Ok(known) if entry.number != known => {
            unreadable(differs("number", Some(&known.to_string()), Some(&entry.number.to_string())))
        }
        Ok(_) if entry.source != source => unreadable(differs("source", Some(source), Some(&entry.source))),
        Ok(_) if serde_json::to_vec(&entry).ok().as_deref() != Some(record) => {
            unreadable(RecordEntry::why_of_newer_version(record).unwrap_or_else(|| NOT_AS_WRITTEN.to_owned()))
        }
        Ok(_) => Ok(entry),
    }
}

/// The exclusive lower bound of a query for numbers after `after`. For 0 it is `i64::MIN`, so that rows with an invalid
/// number (0 or negative) are read too.
pub(super) fn exclusive_lower_bound(after: u64) -> i64 {
    if after == 0 { i64::MIN } else { i64::try_from(after).unwrap_or(i64::MAX) }
}

/// The record of a route, which is in a row under that route.
///
/// # Errors
/// It cannot be read, or is another route's.
pub(super) fn checked_record<T: serde::de::DeserializeOwned>(
    table: &str,
    route: &str,
    record: &[u8],
    route_of: fn(&T) -> &RouteId,
) -> Result<T, StoreError> {
    let unreadable = |why: String| StoreError(format!("the row of `{route}` in `{table}` cannot be read: {why}"));
    let found: T = serde_json::from_slice(record).map_err(|error| unreadable(error.to_string()))?;
    match route_of(&found).as_str() {
        same if same == route => Ok(found),
        other => Err(unreadable(differs("route", Some(route), Some(other)))),
    }
}

const NO_NUMBER: &str = "numbers begin with 1; it was not written by pointsman";

const NOT_AS_WRITTEN: &str = "it is not exactly as pointsman writes it: what was added to it or written in another \
                              way is not covered by its hash";

fn differs(column: &str, in_column: Option<&str>, in_record: Option<&str>) -> String {
    let shown = |value: Option<&str>| value.map_or_else(|| "empty".to_owned(), |value| format!("`{value}`"));
    let (in_column, in_record) = (shown(in_column), shown(in_record));
    format!("its column `{column}` is {in_column} and its content says {in_record}: one of them was changed")
}
