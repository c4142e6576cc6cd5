//! Who called which service, in PostgreSQL.

use futures_util::future::{BoxFuture, FutureExt};
use sqlx::postgres::PgRow;

use super::PostgresStore;
use super::columns::{column, time, uuid};
use crate::names::ServiceName;
use crate::store::encoded::nanos;
use crate::store::service_callers::SERVICE_CALLERS_MAX;
use crate::store::{ServiceCaller, ServiceCallerStore, StoreError, WatchedTime};

/// Adds callers in one order, so that two processes do not wait for each other, and extends the watched time.
const PUT: &str = "WITH put AS (INSERT INTO service_callers AS known \
         (service, source, client, path, first_call, last_call) \
         SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::bigint[]) \
             AS new (service, source, client, path, first_call, last_call) ORDER BY 1, 2, 3, 4 \
         ON CONFLICT (service, source, client, path) DO UPDATE \
         SET first_call = least(known.first_call, excluded.first_call), \
             last_call = greatest(known.last_call, excluded.last_call)) \
     INSERT INTO watched_times AS known (process, since, until, ended) VALUES ($7, $8, $9, $10) \
         ON CONFLICT (process) DO UPDATE \
         SET until = greatest(known.until, excluded.until), ended = known.ended OR excluded.ended";
const TRIM: &str = "DELETE FROM service_callers WHERE (service, source, client, path) IN \
     (SELECT service, source, client, path FROM (SELECT *, row_number() OVER \
         (PARTITION BY service ORDER BY last_call DESC) AS place FROM service_callers \
         WHERE service = ANY($1)) AS placed WHERE place > $2)";
const TRIM_WATCHED: &str = "DELETE FROM watched_times WHERE process IN \
     (SELECT process FROM watched_times ORDER BY until DESC OFFSET $1)";

impl ServiceCallerStore for PostgresStore {
    fn put_service_callers(
        &self,
        callers: Vec<ServiceCaller>,
        watched: WatchedTime,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        async move {
            let texts = |text: fn(&ServiceCaller) -> &str| -> Vec<String> {
                callers.iter().map(|caller| text(caller).to_owned()).collect()
            };
            let services = texts(|caller| caller.service.as_str());
            let (sources, clients) = (texts(|caller| &caller.source), texts(|caller| &caller.client));
            let paths = texts(|caller| &caller.path);
            let first: Vec<i64> = callers.iter().map(|caller| nanos(caller.first)).collect();
            let last: Vec<i64> = callers.iter().map(|caller| nanos(caller.last)).collect();
            let put = || {
                let query = sqlx::query(PUT).bind(&services).bind(&sources).bind(&clients).bind(&paths);
                let query = query.bind(&first).bind(&last).bind(watched.process.as_bytes().as_slice());
                query.bind(nanos(watched.since)).bind(nanos(watched.until)).bind(watched.has_ended)
            };
            self.pool.query(put).await?;
            if !callers.is_empty() {
                let most = SERVICE_CALLERS_MAX as i64;
                self.pool.query(|| sqlx::query(TRIM).bind(&services).bind(most)).await?;
                self.pool.query(|| sqlx::query(TRIM_WATCHED).bind(most)).await?;
            }
            Ok(())
        }
        .boxed()
    }

    fn service_callers(&self, service: ServiceName) -> BoxFuture<'_, Result<Vec<ServiceCaller>, StoreError>> {
        async move {
            let text = "SELECT source, client, path, first_call, last_call FROM service_callers WHERE service = $1 \
                        ORDER BY last_call DESC, source, client, path";
            let rows = self.pool.query(|| sqlx::query(text).bind(service.as_str())).await?;
            let caller = |row: &PgRow| {
                Ok(ServiceCaller {
                    service: service.clone(),
                    source: column(row, 0)?,
                    client: column(row, 1)?,
                    path: column(row, 2)?,
                    first: time(column(row, 3)?)?,
                    last: time(column(row, 4)?)?,
                })
            };
            rows.iter().map(caller).collect()
        }
        .boxed()
    }

    fn watched_times(&self) -> BoxFuture<'_, Result<Vec<WatchedTime>, StoreError>> {
        async move {
            let text = "SELECT process, since, until, ended FROM watched_times ORDER BY since, process";
            let rows = self.pool.query(|| sqlx::query(text)).await?;
            let watched = |row: &PgRow| {
                let (since, until) = (time(column(row, 1)?)?, time(column(row, 2)?)?);
                Ok(WatchedTime { process: uuid(column(row, 0)?)?, since, until, has_ended: column(row, 3)? })
            };
            rows.iter().map(watched).collect()
        }
        .boxed()
    }
}
