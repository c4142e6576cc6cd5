//! Captures, in SQLite.

use std::collections::BTreeSet;

use futures_util::future::{BoxFuture, FutureExt};
use jiff::Timestamp;
use rusqlite::{Connection, params};
use uuid::Uuid;

use super::SqliteStore;
use super::encoded::nanos;
use super::other_writes::RecordWrite;
use super::read::{read_error, sql_limit};
use crate::names::RouteId;
use crate::store::write_error::WriteError;
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

/// Stores captures and removes those beyond the bounds, within the transaction that the caller has begun.
pub(super) fn write(conn: &Connection, captures: &[CaptureRecord], bounds: CaptureBounds) -> Result<(), WriteError> {
    let text =
        "INSERT INTO captures (id, route, at, bytes, record) VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (id) DO NOTHING";
    let mut insert = conn.prepare_cached(text)?;
    for CaptureRecord { id, route, at, body } in captures {
        let bytes = i64::try_from(body.len()).unwrap_or(i64::MAX);
        insert.execute(params![id.as_bytes().as_slice(), route.as_str(), nanos(*at), bytes, body])?;
    }
    conn.prepare_cached("DELETE FROM captures WHERE at < ?1")?.execute(params![nanos(bounds.since)])?;
    let number_max = i64::try_from(bounds.per_route).unwrap_or(i64::MAX);
    let bytes_max = i64::try_from(bounds.bytes_per_route).unwrap_or(i64::MAX);
    let routes: BTreeSet<&RouteId> = captures.iter().map(|capture| &capture.route).collect();
    for route in routes {
        let text = "DELETE FROM captures WHERE pos IN (SELECT pos FROM (SELECT pos, row_number() OVER newest AS place, \
                    sum(bytes) OVER newest AS total FROM captures WHERE route = ?1 \
                    WINDOW newest AS (ORDER BY pos DESC ROWS UNBOUNDED PRECEDING)) WHERE place > ?2 OR total > ?3)";
        conn.prepare_cached(text)?.execute(params![route.as_str(), number_max, bytes_max])?;
    }
    Ok(())
}
