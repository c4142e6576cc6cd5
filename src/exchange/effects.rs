//! How calls that legacy makes are told to what attributes them.

use crate::compare::Effect;

/// Is told of the calls that legacy makes through the egress listener. No method is async or waits.
pub trait EffectObserver: Send + Sync {
    /// Whether calls are captured now. If not, nothing of a call is copied.
    fn is_watching(&self) -> bool;
    /// A call has ended.
    fn observe(&self, effect: Effect);
}
