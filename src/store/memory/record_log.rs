//! The entries of the record, in memory.

use futures_util::future::BoxFuture;

use super::MemoryStore;
use crate::store::{FlipRecord, RecordEntry, RecordLog, StoreError};

impl RecordLog for MemoryStore {
    fn put_record_entry(&self, entry: RecordEntry) -> BoxFuture<'_, Result<(), StoreError>> {
        self.with(|tables| {
            let is_there = |other: &RecordEntry| other.number == entry.number || other.source == entry.source;
            if !tables.record.iter().any(is_there) {
                tables.record.push(entry);
            }
        })
    }

    fn record_entries(&self, after: u64, limit: usize) -> BoxFuture<'_, Result<Vec<RecordEntry>, StoreError>> {
        self.with(|tables| tables.record.iter().filter(|entry| entry.number > after).take(limit).cloned().collect())
    }

    fn newest_record_entry(&self) -> BoxFuture<'_, Result<Option<RecordEntry>, StoreError>> {
        self.with(|tables| tables.record.last().cloned())
    }

    fn flips_after(&self, after: u64, limit: usize) -> BoxFuture<'_, Result<Vec<FlipRecord>, StoreError>> {
        self.with(|tables| {
            let mut newest_first = tables.flips(None, usize::MAX);
            newest_first.reverse();
            newest_first.into_iter().filter(|flip| flip.number > after).take(limit).collect()
        })
    }
}
