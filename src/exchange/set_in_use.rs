//! Keeps the flag set that decided a request in use.

use std::any::Any;
use std::sync::Arc;

/// Held from the decision of a request until the store records its retry keys as the engine's, or until it is certain
/// that no run begins for it.
/// While it is held for a flag set in which the engine answers a route, the other processes on the same store claim the
/// keys of that route, because the engine may still take a key of it.
#[derive(Clone)]
pub struct SetInUse {
    /// The number of the flag set.
    pub number: u64,
    _held: Arc<dyn Any + Send + Sync>,
}

impl SetInUse {
    /// Keeps `held` alive until this value and its clones are dropped.
    pub fn new(number: u64, held: Arc<dyn Any + Send + Sync>) -> Self {
        Self { number, _held: held }
    }
}
