//! Who called which service, in SQLite.

use futures_util::future::{BoxFuture, FutureExt};
use uuid::Uuid;

use super::SqliteStore;
use super::other_writes::RecordWrite;
use super::read::{read_error, time};
use crate::names::ServiceName;
use crate::store::{ServiceCaller, ServiceCallerStore, StoreError, WatchedTime};

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
