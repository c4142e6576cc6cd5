//! Pin collisions: both arms gave out the same id of an instance.

use futures_util::future::BoxFuture;
use jiff::Timestamp;

use super::StoreError;
use crate::names::RouteId;

/// Both arms gave out the same id of an instance of a family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinCollision {
    /// The id under which the instances of the family are pinned.
    pub family: RouteId,
    /// When this was found: for the first time, or for the first time after an earlier one was accepted.
    pub since: Timestamp,
    /// When a person accepted it, which covers whatever was found up to then; `None`: not yet.
    pub accepted: Option<Timestamp>,
}

impl PinCollision {
    /// Merges what was reported of the same family, in whatever order the reports come.
    pub(super) fn merge(&mut self, other: Self) {
        if self.accepted.is_some_and(|accepted| other.since > accepted) {
            *self = other;
        } else if other.accepted.is_none_or(|accepted| self.since <= accepted) {
            self.since = self.since.min(other.since);
            self.accepted = self.accepted.max(other.accepted);
        }
    }
}

/// Keeps the pin collisions of each family.
pub trait PinCollisionStore: Send + Sync {
    /// Merges these collisions with those that are stored, each with that of its family: the first time counts; an
    /// acceptance covers what was found up to then; what was found later replaces it. After this returns, a restart
    /// finds them. To repeat it changes nothing.
    fn put_pin_collisions(&self, collisions: Vec<PinCollision>) -> BoxFuture<'_, Result<(), StoreError>>;
    /// The collisions of all families, also the accepted ones, in the order of their families.
    fn pin_collisions(&self) -> BoxFuture<'_, Result<Vec<PinCollision>, StoreError>>;
}
