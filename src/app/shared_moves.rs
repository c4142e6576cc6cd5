//! What moves that all processes have to have in force concern in this one.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::ladder::Ladder;

/// The ladder, and how it follows other processes.
pub(super) struct SharedMoves {
    pub ladder: Arc<Ladder>,
    /// Puts in force what other processes have recorded.
    pub follow: Box<dyn Fn() -> BoxFuture<'static, anyhow::Result<()>> + Send + Sync>,
}
