//! Bounds how many runs are read at the same time.

use tokio::sync::Semaphore;

/// Runs that are read at the same time.
const READS_MAX: usize = 32;

/// Bounds how many runs are read at the same time.
pub(in crate::engine) struct Reads(pub Semaphore);

impl Default for Reads {
    fn default() -> Self {
        Self(Semaphore::new(READS_MAX))
    }
}
