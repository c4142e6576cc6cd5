//! The entries of the record: moves of routes, and what they rested on, in order, each once. How entries are chained is
//! left to `record`.

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
    /// What happened: `flip`, `freeze` or `basis`.
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
    /// The BLAKE3 hash, in hexadecimal, of this entry as compact JSON without `hash`.
    pub hash: String,
}

/// Keeps the record. Entries are never changed or removed.
pub trait RecordLog: Send + Sync {
    /// Adds an entry, unless there is one with its number or its source: then nothing is changed.
    fn put_record_entry(&self, _entry: RecordEntry) -> BoxFuture<'_, Result<(), StoreError>> {
        std::future::ready(Ok(())).boxed()
    }
    /// Up to `limit` entries with a number above `after`, the oldest first.
    fn record_entries(&self, _after: u64, _limit: usize) -> BoxFuture<'_, Result<Vec<RecordEntry>, StoreError>> {
        std::future::ready(Ok(Vec::new())).boxed()
    }
    /// The newest entry.
    fn newest_record_entry(&self) -> BoxFuture<'_, Result<Option<RecordEntry>, StoreError>> {
        std::future::ready(Ok(None)).boxed()
    }
    /// Up to `limit` flips with a number above `after`, the oldest first.
    fn flips_after(&self, _after: u64, _limit: usize) -> BoxFuture<'_, Result<Vec<FlipRecord>, StoreError>> {
        std::future::ready(Ok(Vec::new())).boxed()
    }
}
