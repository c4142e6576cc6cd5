//! The other processes on the same store, as a move that is announced sees them.

use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::names::RouteId;

/// The other processes that share the store.
pub trait OtherProcesses: Send + Sync {
    /// Tells them that the engine is going to answer requests of these routes, and waits, for a bounded time, until all
    /// have acknowledged it. It stays announced until [`OtherProcesses::end_announcement`].
    ///
    /// # Errors
    /// Which of them have not acknowledged it, as a sentence.
    fn announce(&self, routes: Vec<RouteId>) -> BoxFuture<'_, Result<(), String>>;
    /// The move is in force, or is not made.
    fn end_announcement(&self);
    /// How long [`OtherProcesses::announce`] waits at most.
    fn announce_within(&self) -> Duration;
}
