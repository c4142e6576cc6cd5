//! Which arm owns what was created, and which took a first try.

use futures_util::future::BoxFuture;

use crate::flag::{Arm, Family, InstanceKey, Owner, RetryKey};
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

/// What became of taking a first try for legacy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LegacyTake {
    /// It is legacy's, and the next process would know it.
    Noted,
    /// It is legacy's, and only this process knows: a retry after its end could be performed by the engine.
    NotNoted,
    /// The engine has it.
    HeldByEngine,
}

impl LegacyTake {
    /// It is legacy's; whether that is noted.
    pub fn of(noted: bool) -> Self {
        if noted { Self::Noted } else { Self::NotNoted }
    }
}

/// Looks up owners. The proxy asks before it decides.
pub trait Affinity: Send + Sync {
    /// Who owns an instance. Answers at once, without the store, unless the engine may own it. A twin of legacy's may be
    /// none after all, where no run is named: whoever needs it looks it up.
    fn owner<'a>(&'a self, key: &'a InstanceKey) -> BoxFuture<'a, Result<(Owner, Option<RunId>), OwnerUnknown>>;
    /// Whether the engine owns any instance of a family: then legacy's ids are held against its own, on every rung.
    /// Answers at once.
    fn engine_owns_any(&self, family: &Family) -> bool;
    /// What can be told of a first try at once: where the engine cannot have taken it, legacy's answer waits for
    /// nothing.
    fn remembered(&self, key: &RetryKey) -> Remembered;
    /// Which arm took the first try, where that is remembered.
    fn first_try<'a>(&'a self, key: &'a RetryKey) -> BoxFuture<'a, Result<Option<Arm>, OwnerUnknown>>;
    /// Takes a first try for legacy, unless the engine has it by now. It is written to a file before this returns, and
    /// goes to the store behind; the store is not waited for.
    fn take_for_legacy(&self, key: RetryKey) -> LegacyTake;
    /// Gives legacy a first try that the engine gave back; whether that could be noted.
    fn give_to_legacy(&self, key: RetryKey) -> LegacyTake;
    /// Legacy serves a request of a route though its key could not be noted: counted, and the gate to `live` stays shut
    /// for as long as its retry may come.
    fn serve_unnoted(&self, route: &RouteId);
    /// Notes that legacy created an instance: a dark twin may follow. Counts a collision where the engine owns the
    /// id. Never waited for.
    fn note_legacy_instance(&self, key: InstanceKey);
}
