//! Who called which service, in memory.

use futures_util::future::BoxFuture;

use super::MemoryStore;
use super::caller_table::trim;
use crate::names::ServiceName;
use crate::store::service_callers::SERVICE_CALLERS_MAX;
use crate::store::{ServiceCaller, ServiceCallerStore, StoreError, WatchedTime};

impl ServiceCallerStore for MemoryStore {
    fn put_service_callers(
        &self,
        callers: Vec<ServiceCaller>,
        watched: WatchedTime,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        self.with(|tables| {
            for ServiceCaller { service, source, client, path, first, last } in callers {
                let known =
                    tables.service_callers.entry((service.clone(), source, client, path)).or_insert((first, last));
                *known = (known.0.min(first), known.1.max(last));
                trim(&mut tables.service_callers, &service);
            }
            match tables.watched.iter_mut().find(|known| known.process == watched.process) {
                Some(known) => {
                    known.until = known.until.max(watched.until);
                    known.has_ended |= watched.has_ended;
                }
                None => tables.watched.push(watched),
            }
            let more = tables.watched.len().saturating_sub(SERVICE_CALLERS_MAX);
            tables.watched.drain(..more);
        })
    }

    fn service_callers(&self, service: ServiceName) -> BoxFuture<'_, Result<Vec<ServiceCaller>, StoreError>> {
        self.with(|tables| {
            let of_service = tables.service_callers.iter().filter(|((of, ..), _)| *of == service);
            let caller = |((service, source, client, path), (first, last)): (&(_, String, String, String), &_)| {
                let service: &ServiceName = service;
                ServiceCaller {
                    service: service.clone(),
                    source: source.clone(),
                    client: client.clone(),
                    path: path.clone(),
                    first: *first,
                    last: *last,
                }
            };
            let mut callers: Vec<_> = of_service.map(caller).collect();
            callers.sort_by_key(|caller| std::cmp::Reverse(caller.last));
            callers
        })
    }

    fn watched_times(&self) -> BoxFuture<'_, Result<Vec<WatchedTime>, StoreError>> {
        self.with(|tables| {
            let mut watched = tables.watched.clone();
            watched.sort_by_key(|time| (time.since, time.process));
            watched
        })
    }
}
