//! Bounds how many runs are loaded from the store at the same time.

use tokio::sync::Semaphore;

const LOADS_MAX: usize = 32;

/// A permit for each run that is being loaded.
pub(in crate::engine) struct LoadPermits(pub Semaphore);

impl Default for LoadPermits {
    fn default() -> Self {
        Self(Semaphore::new(LOADS_MAX))
    }
}
