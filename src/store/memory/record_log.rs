//! The entries of the record, in memory.

use futures_util::future::BoxFuture;

use super::MemoryStore;
use crate::store::record_log::CheckedRow;
use crate::store::{ChainHead, FlipRecord, RecordEntry, RecordLog, StoreError};

impl RecordLog for MemoryStore {
    fn put_record_entry(&self, entry: RecordEntry) -> BoxFuture<'_, Result<(), StoreError>> {
        self.with(|tables| {
            let is_there = |other: &RecordEntry| other.number == entry.number || other.source == entry.source;
            if !tables.record.iter().any(is_there) {
                tables.record.push(entry);
            }
        })
    }

    fn record_rows(&self, after: u64, limit: usize) -> BoxFuture<'_, Result<Vec<CheckedRow<RecordEntry>>, StoreError>> {
        self.with(|tables| {
            let entries = tables.record.iter().filter(|entry| entry.number > after);
            entries.take(limit).cloned().map(Ok).collect()
        })
    }

    fn newest_record_row(&self) -> BoxFuture<'_, Result<Option<CheckedRow<RecordEntry>>, StoreError>> {
        self.with(|tables| tables.record.last().cloned().map(Ok))
    }

    fn chain_head(&self) -> BoxFuture<'_, Result<Option<ChainHead>, StoreError>> {
        self.with(|tables| tables.record.last().map(ChainHead::of))
    }

    fn flip_rows(&self, after: u64, limit: usize) -> BoxFuture<'_, Result<Vec<CheckedRow<FlipRecord>>, StoreError>> {
        self.with(|tables| {
            let mut newest_first = tables.flips(None, usize::MAX);
            newest_first.reverse();
            newest_first.into_iter().filter(|flip| flip.number > after).take(limit).map(Ok).collect()
        })
    }
}
