//! The parts of this process that `membership` uses to put the recorded moves of other processes in force.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::ladder::Ladder;

/// The ladder, and the function with which this process follows the others.
pub(super) struct SharedMoves {
    pub ladder: Arc<Ladder>,
    /// Puts in force what other processes have recorded.
    pub follow: Box<dyn Fn() -> BoxFuture<'static, anyhow::Result<()>> + Send + Sync>,
}
