//! Keeps the flag set that decided a request in use.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

/// Kept from the decision of a request until the store has its retry keys as the engine's, or no run begins for it.
/// While one of a flag set in which the engine answers a route exists, the other processes on the same store claim the
/// keys of the route: the engine may take one that they gave to legacy.
#[derive(Clone)]
pub struct SetInUse(Arc<dyn Any + Send + Sync>);

impl SetInUse {
    /// Keeps this until it is dropped.
    pub fn new(held: Arc<dyn Any + Send + Sync>) -> Self {
        Self(held)
    }
}

impl fmt::Debug for SetInUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SetInUse({})", Arc::strong_count(&self.0))
    }
}
