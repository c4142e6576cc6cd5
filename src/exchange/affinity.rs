//! Which arm owns what was created, and which took a first try.

use futures_util::future::BoxFuture;

use crate::flag::{Arm, Owner, PinKey, RetryKey};
use crate::names::{RouteId, RunId};

/// Whether something is pinned cannot be told now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the store did not answer, so it cannot be told which arm owns this instance")]
pub struct OwnerUnknown;

/// What can be told of a first try without the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remembered {
    /// This arm took it.
    By(Arm),
    /// The engine did not. Legacy may have, before this process.
    NotEngine,
    /// Only the store can tell.
    Unknown,
}

/// Looks up owners. The proxy asks before it decides.
pub trait Affinity: Send + Sync {
    /// Who owns an instance. Answers at once, without the store, for a family in which the engine owns nothing.
    fn owner<'a>(&'a self, key: &'a PinKey) -> BoxFuture<'a, Result<(Owner, Option<RunId>), OwnerUnknown>>;
    /// Whether the engine owns any instance of a family: then legacy's ids are held against its own, on every rung.
    /// Answers at once.
    fn engine_owns_any(&self, family: &RouteId) -> bool;
    /// What can be told of a first try at once: legacy's answer waits for nothing else, where the engine cannot have
    /// taken it.
    fn remembered(&self, route: &RouteId, key: &RetryKey) -> Remembered;
    /// Which arm took the first try, where that is remembered.
    fn first_try<'a>(&'a self, key: &'a RetryKey) -> BoxFuture<'a, Result<Option<Arm>, OwnerUnknown>>;
    /// Takes a first try for legacy, unless the engine has it by now: in memory at once, written behind, never waited
    /// for. Whether legacy has it.
    fn take_for_legacy(&self, key: RetryKey) -> bool;
    /// Notes that legacy has a first try that the engine gave back.
    fn note_legacy(&self, key: RetryKey);
    /// Notes that legacy created an instance: a dark twin may follow. Counts a collision where the engine owns the
    /// id. Never waited for.
    fn note_legacy_instance(&self, key: PinKey);
}
