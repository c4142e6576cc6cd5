//! The entries of the record, in PostgreSQL.

use futures_util::future::{BoxFuture, FutureExt};

use super::PostgresStore;
use super::columns::{column, json, parse, sql_limit};
use super::read::flip;
use crate::store::{FlipRecord, RecordEntry, RecordLog, StoreError};

impl RecordLog for PostgresStore {
    fn put_record_entry(&self, entry: RecordEntry) -> BoxFuture<'_, Result<(), StoreError>> {
        async move {
            let record = json(&entry)?;
            let text = "INSERT INTO record_entries (number, source, record) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
            let make = || sqlx::query(text).bind(entry.number.cast_signed()).bind(&entry.source).bind(&record);
            self.pool.query(make).await.map(drop)
        }
        .boxed()
    }

    fn record_entries(&self, after: u64, limit: usize) -> BoxFuture<'_, Result<Vec<RecordEntry>, StoreError>> {
        async move {
            let text = "SELECT record FROM record_entries WHERE number > $1 ORDER BY number LIMIT $2";
            let make = || sqlx::query(text).bind(after.cast_signed()).bind(sql_limit(limit));
            let found = self.pool.query(make).await?;
            found.iter().map(|row| parse(column::<&[u8]>(row, 0)?)).collect()
        }
        .boxed()
    }

    fn newest_record_entry(&self) -> BoxFuture<'_, Result<Option<RecordEntry>, StoreError>> {
        async move {
            let text = "SELECT record FROM record_entries ORDER BY number DESC LIMIT 1";
            let found = self.pool.query(|| sqlx::query(text)).await?;
            found.first().map(|row| parse(column::<&[u8]>(row, 0)?)).transpose()
        }
        .boxed()
    }

    fn flips_after(&self, after: u64, limit: usize) -> BoxFuture<'_, Result<Vec<FlipRecord>, StoreError>> {
        async move {
            let text = "SELECT number, record FROM flips WHERE number > $1 ORDER BY number LIMIT $2";
            let make = || sqlx::query(text).bind(after.cast_signed()).bind(sql_limit(limit));
            let found = self.pool.query(make).await?;
            found.iter().map(flip).collect()
        }
        .boxed()
    }
}
