//! Captures, in SQLite.

use futures_util::future::{BoxFuture, FutureExt};
use jiff::Timestamp;
use uuid::Uuid;

use super::SqliteStore;
use super::other_writes::RecordWrite;
use super::read::{read_error, sql_limit};
use crate::names::RouteId;
use crate::store::{CaptureBounds, CaptureRecord, CaptureStore, StoreError};

impl CaptureStore for SqliteStore {
    fn put_captures(
        &self,
        captures: Vec<CaptureRecord>,
        bounds: CaptureBounds,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        self.write(RecordWrite::Captures(captures, bounds))
    }

    fn captures(
        &self,
        route: RouteId,
        after: u64,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<(u64, CaptureRecord)>, StoreError>> {
        async move {
            let text = "SELECT pos, id, at, record FROM captures WHERE route = ? AND pos > ? ORDER BY pos LIMIT ?";
            let rows = sqlx::query_as::<_, (i64, Vec<u8>, i64, Vec<u8>)>(text)
                .bind(route.as_str())
                .bind(after.cast_signed())
                .bind(sql_limit(limit))
                .fetch_all(self.readers.pool()?)
                .await
                .map_err(read_error)?;
            let record = |(position, id, at, body): (i64, Vec<u8>, i64, Vec<u8>)| {
                let damaged = |what: &str| StoreError(format!("the capture at {position} has a damaged {what}"));
                let id = Uuid::from_slice(&id).map_err(|_| damaged("id"))?;
                let at = Timestamp::from_nanosecond(at.into()).map_err(|_| damaged("time"))?;
                Ok((position.cast_unsigned(), CaptureRecord { id, route: route.clone(), at, body }))
            };
            rows.into_iter().map(record).collect()
        }
        .boxed()
    }
}
