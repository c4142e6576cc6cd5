//! Who called which service, and from when to when calls were noted.

use futures_util::future::{BoxFuture, FutureExt};
use jiff::Timestamp;
use uuid::Uuid;

use super::StoreError;
use crate::names::ServiceName;

/// The most callers of one service, and the most times of watching, that are kept: those that were seen last.
pub(crate) const SERVICE_CALLERS_MAX: usize = 1_024;

/// The [`ServiceCaller::source`] that is no caller: it says when a process had the service in its files, with the URLs
/// that are in [`ServiceCaller::path`].
pub const DECLARED: &str = "declared";

/// The [`ServiceCaller::source`] of exchanges that have not ended: requests, replies, WebSockets and tunnels. Their
/// clients and paths are noted when they end.
pub const UNDER_WAY: &str = "under way";

/// One caller of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceCaller {
    /// The service.
    pub service: ServiceName,
    /// The route, the step or the listener that the calls came from: `route orders.create`.
    pub source: String,
    /// The client; empty for steps.
    pub client: String,
    /// The method and the path, without ids.
    pub path: String,
    /// The first call.
    pub first: Timestamp,
    /// The last call.
    pub last: Timestamp,
}

/// The time in which one process noted all calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchedTime {
    /// The id of the process; each start has a new one.
    pub process: Uuid,
    /// From when on.
    pub since: Timestamp,
    /// Up to when the store has every call that it noted.
    pub until: Timestamp,
    /// Whether it has stored all its notes and notes no more; else it is running, or it was killed.
    pub has_ended: bool,
}

/// Keeps who called which service.
pub trait ServiceCallerStore: Send + Sync {
    /// Adds callers, each once: of one that is there already the first and the last call are extended. Then sets until
    /// when a process noted all calls. Of each service the 1,024 callers that called last are kept.
    fn put_service_callers(
        &self,
        _callers: Vec<ServiceCaller>,
        _watched: WatchedTime,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        std::future::ready(Ok(())).boxed()
    }
    /// The callers of a service, the last call first.
    fn service_callers(&self, _service: ServiceName) -> BoxFuture<'_, Result<Vec<ServiceCaller>, StoreError>> {
        std::future::ready(Ok(Vec::new())).boxed()
    }
    /// The times in which processes noted calls, the oldest first.
    fn watched_times(&self) -> BoxFuture<'_, Result<Vec<WatchedTime>, StoreError>> {
        std::future::ready(Ok(Vec::new())).boxed()
    }
}
