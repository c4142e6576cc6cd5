//! The other processes on the same store, to which moves are announced.

use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::names::RouteId;
use crate::store::StandingAnnouncement;

/// The other processes that share the store.
pub trait OtherProcesses: Send + Sync {
    /// Tells them that the engine is going to answer requests of these routes, each with all its ids. Returns the
    /// number of the announcement, which stands until [`OtherProcesses::end_announcement`].
    fn announce(&self, routes: Vec<Vec<RouteId>>) -> u64;
    /// Waits, for a bounded time, until all of them have acknowledged this announcement.
    ///
    /// # Errors
    /// Which of them have not acknowledged it, as a sentence.
    fn wait_until_acknowledged(&self, announcement: u64) -> BoxFuture<'_, Result<(), String>>;
    /// The announcement as the store must still have it when the move is recorded; `None` if the store need not have
    /// any. To be called after the announcement is acknowledged.
    ///
    /// # Errors
    /// The store does not have the announcement, as a sentence.
    fn standing(&self, announcement: u64) -> Result<Option<StandingAnnouncement>, String> {
        let _ = announcement;
        Ok(None)
    }
    /// Checks that no process has ended before it stored all retry keys under which legacy took requests.
    ///
    /// # Errors
    /// A sentence: some processes have, or it is not known whether some have. A person may accept that.
    fn check_lost_keys(&self) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(std::future::ready(Ok(())))
    }
    /// Ends an announcement: the move is in force, or is not made.
    fn end_announcement(&self, announcement: u64);
    /// How long [`OtherProcesses::wait_until_acknowledged`] waits at most.
    fn announce_within(&self) -> Duration;
    /// How often the lease of this process may have expired. The others do not wait for a process without a lease,
    /// and forget what it has announced.
    fn leases_ended(&self) -> u64 {
        0
    }
}
