//! Which arm owns what was created, and which took a first try.

use futures_util::future::BoxFuture;

use crate::flag::{Arm, Owner, PinKey, RetryKey};
use crate::names::RunId;

/// Whether something is pinned cannot be told now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the store did not answer, so it cannot be told which arm owns this instance")]
pub struct PinsUnavailable;

/// Looks up owners. The proxy asks before it decides.
pub trait Pins: Send + Sync {
    /// Who owns an instance. Answers at once, without the store, for a family in which the engine owns nothing.
    fn owner<'a>(&'a self, key: &'a PinKey) -> BoxFuture<'a, Result<(Owner, Option<RunId>), PinsUnavailable>>;
    /// Which arm took the first try, where that is remembered.
    fn first_try<'a>(&'a self, key: &'a RetryKey) -> BoxFuture<'a, Result<Option<Arm>, PinsUnavailable>>;
    /// Notes that legacy took a first try: in memory at once, written behind, never waited for.
    fn note_legacy(&self, key: RetryKey);
    /// Notes that legacy created an instance: a dark twin may follow. Counts a collision where the engine owns the
    /// id. Never waited for.
    fn note_legacy_instance(&self, key: PinKey);
}
