//! The record (the log of moves of routes, and of what they rested on), in SQLite.

use futures_util::future::{BoxFuture, FutureExt};

use super::SqliteStore;
use super::other_writes::RecordWrite;
use super::read;
use crate::store::record_log::{CHAIN_HEAD, CheckedRow, checked_entry};
use crate::store::{ChainHead, FlipRecord, RecordEntry, RecordLog, StoreError};

impl RecordLog for SqliteStore {
    fn put_record_entry(&self, entry: RecordEntry) -> BoxFuture<'_, Result<(), StoreError>> {
        self.write(RecordWrite::RecordEntry(Box::new(entry)))
    }

    fn record_rows(&self, after: u64, limit: usize) -> BoxFuture<'_, Result<Vec<CheckedRow<RecordEntry>>, StoreError>> {
        async move {
            let text = "SELECT number, CAST(source AS TEXT), CAST(record AS BLOB) FROM record_entries WHERE number > ? \
                        ORDER BY number LIMIT ?";
            let found = read::rows_after::<(i64, String, Vec<u8>)>(&self.readers, text, after, limit).await?;
            Ok(found.iter().map(|(number, source, record)| checked_entry(*number, source, record)).collect())
        }
        .boxed()
    }

    fn newest_record_row(&self) -> BoxFuture<'_, Result<Option<CheckedRow<RecordEntry>>, StoreError>> {
        async move {
            let text = "SELECT number, CAST(source AS TEXT), CAST(record AS BLOB) FROM record_entries WHERE number > ? \
                        ORDER BY number DESC LIMIT ?";
            let found = read::rows_after::<(i64, String, Vec<u8>)>(&self.readers, text, 0, 1).await?;
            Ok(found.first().map(|(number, source, record)| checked_entry(*number, source, record)))
        }
        .boxed()
    }

    fn chain_head(&self) -> BoxFuture<'_, Result<Option<ChainHead>, StoreError>> {
        async move {
            let value = read::meta_value(self.readers.pool()?, CHAIN_HEAD).await?;
            value.as_deref().map(ChainHead::read).transpose()
        }
        .boxed()
    }

    fn flip_rows(&self, after: u64, limit: usize) -> BoxFuture<'_, Result<Vec<CheckedRow<FlipRecord>>, StoreError>> {
        let text = "SELECT number, CAST(route AS TEXT), CAST(record AS BLOB) FROM flips WHERE number > ? \
                    ORDER BY number LIMIT ?";
        read::flip_rows(&self.readers, text, after, limit).boxed()
    }
}
