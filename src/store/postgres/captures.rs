//! Captures, in PostgreSQL.

use futures_util::future::{BoxFuture, FutureExt};
use jiff::Timestamp;
use uuid::Uuid;

use super::PostgresStore;
use super::columns::{column, sql_limit};
use crate::names::RouteId;
use crate::store::encoded::nanos;
use crate::store::{CaptureBounds, CaptureRecord, CaptureStore, StoreError};

impl CaptureStore for PostgresStore {
    fn put_captures(
        &self,
        captures: Vec<CaptureRecord>,
        bounds: CaptureBounds,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        async move {
            let ids: Vec<&[u8]> = captures.iter().map(|capture| capture.id.as_bytes().as_slice()).collect();
            let routes: Vec<&str> = captures.iter().map(|capture| capture.route.as_str()).collect();
            let times: Vec<i64> = captures.iter().map(|capture| nanos(capture.at)).collect();
            let bodies: Vec<&[u8]> = captures.iter().map(|capture| capture.body.as_slice()).collect();
            let bytes_max = i64::try_from(bounds.bytes_per_route).unwrap_or(i64::MAX);
            let make = || {
                let query = sqlx::query("SELECT put_captures($1, $2, $3, $4, $5, $6, $7)");
                let query = query.bind(&ids).bind(&routes).bind(&times).bind(&bodies);
                query.bind(sql_limit(bounds.per_route)).bind(bytes_max).bind(nanos(bounds.since))
            };
            self.pool.query(make).await.map(drop)
        }
        .boxed()
    }

    fn captures(
        &self,
        route: RouteId,
        after: u64,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<(u64, CaptureRecord)>, StoreError>> {
        async move {
            let text = "SELECT pos, id, at, record FROM captures WHERE route = $1 AND pos > $2 ORDER BY pos LIMIT $3";
            let make = || sqlx::query(text).bind(route.as_str()).bind(after.cast_signed()).bind(sql_limit(limit));
            let rows = self.pool.query(make).await?;
            let record = |row| {
                let position = column::<i64>(row, 0)?;
                let damaged = |what: &str| StoreError(format!("the capture at {position} has a damaged {what}"));
                let at = Timestamp::from_nanosecond(column::<i64>(row, 2)?.into()).map_err(|_| damaged("time"))?;
                let id = Uuid::from_slice(column::<&[u8]>(row, 1)?).map_err(|_| damaged("id"))?;
                let body = column::<Vec<u8>>(row, 3)?;
                Ok((position.cast_unsigned(), CaptureRecord { id, route: route.clone(), at, body }))
            };
            rows.iter().map(record).collect()
        }
        .boxed()
    }
}
