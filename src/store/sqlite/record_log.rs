//! The entries of the record, in SQLite.

use futures_util::future::{BoxFuture, FutureExt};

use super::SqliteStore;
use super::other_writes::RecordWrite;
use super::read;
use crate::store::{FlipRecord, RecordEntry, RecordLog, StoreError};

impl RecordLog for SqliteStore {
    fn put_record_entry(&self, entry: RecordEntry) -> BoxFuture<'_, Result<(), StoreError>> {
        self.write(RecordWrite::RecordEntry(Box::new(entry)))
    }

    fn record_entries(&self, after: u64, limit: usize) -> BoxFuture<'_, Result<Vec<RecordEntry>, StoreError>> {
        let text = "SELECT record FROM record_entries WHERE number > ? ORDER BY number LIMIT ?";
        read::records_after(&self.readers, text, after, limit).boxed()
    }

    fn newest_record_entry(&self) -> BoxFuture<'_, Result<Option<RecordEntry>, StoreError>> {
        async move {
            let text = "SELECT record FROM record_entries ORDER BY number DESC LIMIT 1";
            Ok(read::records(&self.readers, text, None, None).await?.pop())
        }
        .boxed()
    }

    fn flips_after(&self, after: u64, limit: usize) -> BoxFuture<'_, Result<Vec<FlipRecord>, StoreError>> {
        let text = "SELECT record FROM flips WHERE number > ? ORDER BY number LIMIT ?";
        read::records_after(&self.readers, text, after, limit).boxed()
    }
}
