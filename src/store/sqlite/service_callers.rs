//! Who called which service, in SQLite.

use futures_util::future::{BoxFuture, FutureExt};
use rusqlite::{Connection, params};
use uuid::Uuid;

use super::SqliteStore;
use super::encoded::nanos;
use super::other_writes::RecordWrite;
use super::read::{read_error, time};
use crate::names::ServiceName;
use crate::store::service_callers::SERVICE_CALLERS_MAX;
use crate::store::write_error::WriteError;
use crate::store::{ServiceCaller, ServiceCallerStore, StoreError, WatchedTime};

/// Adds callers, and removes those beyond the bound.
pub(super) fn write(conn: &Connection, callers: &[ServiceCaller], watched: &WatchedTime) -> Result<(), WriteError> {
    let text = "INSERT INTO service_callers (service, source, client, path, first_call, last_call) \
                VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO UPDATE \
                SET first_call = min(first_call, excluded.first_call), last_call = max(last_call, excluded.last_call)";
    for ServiceCaller { service, source, client, path, first, last } in callers {
        let values = params![service.as_str(), source, client, path, nanos(*first), nanos(*last)];
        conn.prepare_cached(text)?.execute(values)?;
    }
    for service in callers.iter().map(|caller| &caller.service).collect::<std::collections::BTreeSet<_>>() {
        let text = "DELETE FROM service_callers WHERE (service, source, client, path) IN \
                    (SELECT service, source, client, path FROM service_callers WHERE service = ?1 \
                     ORDER BY last_call DESC LIMIT -1 OFFSET ?2)";
        conn.prepare_cached(text)?.execute(params![service.as_str(), SERVICE_CALLERS_MAX as i64])?;
    }
    let WatchedTime { process, since, until, has_ended } = watched;
    let text = "INSERT INTO watched_times (process, since, until, ended) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO UPDATE \
                SET until = max(until, excluded.until), ended = max(ended, excluded.ended)";
    let values = params![process.as_bytes().as_slice(), nanos(*since), nanos(*until), has_ended];
    conn.prepare_cached(text)?.execute(values)?;
    let text = "DELETE FROM watched_times WHERE process IN \
                (SELECT process FROM watched_times ORDER BY until DESC LIMIT -1 OFFSET ?1)";
    conn.prepare_cached(text)?.execute(params![SERVICE_CALLERS_MAX as i64])?;
    Ok(())
}

impl ServiceCallerStore for SqliteStore {
    fn put_service_callers(
        &self,
        callers: Vec<ServiceCaller>,
        watched: WatchedTime,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        self.write(RecordWrite::ServiceCallers(callers, watched))
    }

    fn service_callers(&self, service: ServiceName) -> BoxFuture<'_, Result<Vec<ServiceCaller>, StoreError>> {
        async move {
            type Row = (String, String, String, i64, i64);
            let text = "SELECT source, client, path, first_call, last_call FROM service_callers WHERE service = ? \
                        ORDER BY last_call DESC, source, client, path";
            let query = sqlx::query_as(text).bind(service.as_str());
            let rows: Vec<Row> = query.fetch_all(self.readers.pool()?).await.map_err(read_error)?;
            let caller = |(source, client, path, first, last): Row| {
                let (first, last) = (time(first)?, time(last)?);
                Ok(ServiceCaller { service: service.clone(), source, client, path, first, last })
            };
            rows.into_iter().map(caller).collect()
        }
        .boxed()
    }

    fn watched_times(&self) -> BoxFuture<'_, Result<Vec<WatchedTime>, StoreError>> {
        async move {
            type Row = (Vec<u8>, i64, i64, bool);
            let query =
                sqlx::query_as("SELECT process, since, until, ended FROM watched_times ORDER BY since, process");
            let rows: Vec<Row> = query.fetch_all(self.readers.pool()?).await.map_err(read_error)?;
            let watched = |(process, since, until, has_ended): Row| {
                let invalid = |error| StoreError(format!("the id of a process is unreadable: {error}"));
                let process = Uuid::from_slice(&process).map_err(invalid)?;
                Ok(WatchedTime { process, since: time(since)?, until: time(until)?, has_ended })
            };
            rows.into_iter().map(watched).collect()
        }
        .boxed()
    }
}
