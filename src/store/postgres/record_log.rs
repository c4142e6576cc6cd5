//! The record, in PostgreSQL.

use futures_util::future::{BoxFuture, FutureExt};

use super::PostgresStore;
use super::checked_rows::{entry, flip};
use super::columns::{Result, column, json, sql_limit};
use crate::store::record_log::{CHAIN_HEAD, CheckedRow, exclusive_lower_bound};
use crate::store::{ChainHead, FlipRecord, RecordEntry, RecordLog};

impl RecordLog for PostgresStore {
    fn put_record_entry(&self, entry: RecordEntry) -> BoxFuture<'_, Result<()>> {
        async move {
            let record = json(&entry)?;
            let head = json(&ChainHead::of(&entry))?;
            let text = "WITH added AS (INSERT INTO record_entries (number, source, record) VALUES ($1, $2, $3) \
                        ON CONFLICT DO NOTHING RETURNING number) \
                        INSERT INTO meta (key, value) SELECT $4, $5 FROM added \
                        ON CONFLICT (key) DO UPDATE SET value = excluded.value";
            let make = || {
                let query = sqlx::query(text).bind(entry.number.cast_signed()).bind(&entry.source).bind(&record);
                query.bind(CHAIN_HEAD).bind(&head)
            };
            self.pool.query(make).await.map(drop)
        }
        .boxed()
    }

    fn record_rows(&self, after: u64, limit: usize) -> BoxFuture<'_, Result<Vec<CheckedRow<RecordEntry>>>> {
        async move {
            let text = "SELECT number, source, record FROM record_entries WHERE number > $1 ORDER BY number LIMIT $2";
            let make = || sqlx::query(text).bind(exclusive_lower_bound(after)).bind(sql_limit(limit));
            self.pool.query(make).await?.iter().map(entry).collect()
        }
        .boxed()
    }

    fn newest_record_row(&self) -> BoxFuture<'_, Result<Option<CheckedRow<RecordEntry>>>> {
        async move {
            let text = "SELECT number, source, record FROM record_entries ORDER BY number DESC LIMIT 1";
            let found = self.pool.query(|| sqlx::query(text)).await?;
            found.first().map(entry).transpose()
        }
        .boxed()
    }

    fn chain_head(&self) -> BoxFuture<'_, Result<Option<ChainHead>>> {
        async move {
            let text = "SELECT value FROM meta WHERE key = $1";
            let found = self.pool.query(|| sqlx::query(text).bind(CHAIN_HEAD)).await?;
            found.first().map(|row| ChainHead::read(column(row, 0)?)).transpose()
        }
        .boxed()
    }

    fn flip_rows(&self, after: u64, limit: usize) -> BoxFuture<'_, Result<Vec<CheckedRow<FlipRecord>>>> {
        async move {
            let text = "SELECT number, route, record FROM flips WHERE number > $1 ORDER BY number LIMIT $2";
            let make = || sqlx::query(text).bind(exclusive_lower_bound(after)).bind(sql_limit(limit));
            self.pool.query(make).await?.iter().map(flip).collect()
        }
        .boxed()
    }
}
