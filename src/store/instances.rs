//! What is known of instances beside their pins: which of them legacy has, and which have ended.
//!
//! Always true: an instance that has ended stays ended, unless legacy itself lists it; a pin stays whatever happens to
//! its instance. A change that is repeated changes nothing. The row of an instance of legacy stays when that has ended
//! (up to a number of rows), so that a later read of the instance does not count as a new one.

use std::sync::Arc;

use futures_util::future::{BoxFuture, ready};
use jiff::Timestamp;

use super::StoreError;
use crate::flag::{Arm, PinKey};
use crate::names::{RouteId, RunId};

/// The id of the row that says that legacy has instances of a family whose ids are not known. No instance has it: an
/// empty path segment matches no parameter, and an empty id in a reply is no id.
pub(super) const UNKNOWN_ID: &str = "";

/// A change of what is known of instances. Instances of legacy are stored under the id of their family's creator that
/// is the oldest then, and in one spelling ([`crate::flag::InstanceKey::stored_key`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InstanceChange {
    /// Legacy has this instance, and a request showed it at this time. No effect on an instance that is known, also if
    /// it has ended.
    LegacySeen(PinKey, Timestamp),
    /// Legacy says that it has this instance and that it has not ended: it is alive, also if it was taken for ended. No
    /// effect on an instance that the engine has adopted: legacy has released it, whatever it lists.
    LegacyListed(PinKey, Timestamp),
    /// As [`InstanceChange::LegacyListed`], because legacy's reply to a create gave out the id at this time.
    LegacyCreated(PinKey, Timestamp),
    /// Legacy's instance has ended.
    LegacyEnded(PinKey, Timestamp),
    /// The twin of legacy's instance lacks something that legacy did to the instance.
    TwinIncomplete(PinKey, Timestamp),
    /// At this time legacy had instances of this family whose ids could not be recorded.
    LegacyUnknown(RouteId, Timestamp),
    /// All instances of this family that legacy has are known.
    LegacyKnown(RouteId, Timestamp),
    /// The instance of the engine that this run pinned, under any of these ids of its family, has ended.
    EngineEnded {
        /// The ids.
        family: Vec<RouteId>,
        /// The run that created the instance.
        run: RunId,
        /// When it ended.
        at: Timestamp,
    },
    /// The instances of a family end that either arm has had since before this time.
    Aged {
        /// An id of the family.
        family: RouteId,
        /// The time.
        before: Timestamp,
        /// When they end.
        at: Timestamp,
    },
    /// Of the instances of legacy that have ended, those are forgotten that ended before the `keep` newest.
    ForgetEnded {
        /// An id of the family.
        family: RouteId,
        /// How many are kept.
        keep: usize,
    },
}

/// How many instances of a family an arm has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceCount {
    /// The id under which they are stored.
    pub family: RouteId,
    /// The arm.
    pub arm: Arm,
    /// Those that have not ended.
    pub alive: u64,
    /// Of legacy's that have not ended: those whose twin lacks something that legacy did.
    pub twins_incomplete: u64,
    /// Of legacy's: whether there are others, whose ids are not known.
    pub has_unknown: bool,
    /// When the oldest that has not ended was created; of legacy's, when a request first showed it.
    pub oldest: Option<Timestamp>,
    /// When the last one ended.
    pub last_ended: Option<Timestamp>,
}

/// An instance of legacy, as far as requests showed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LegacyInstance {
    /// The instance's id.
    pub id: Arc<str>,
    /// When a request first showed it.
    pub seen: Timestamp,
    /// When it ended; `None` if it has not.
    pub ended: Option<Timestamp>,
    /// Whether its twin lacks something that legacy did.
    pub is_twin_incomplete: bool,
    /// Whether a reply of legacy to a create gave out the id, as far as is known: an earlier version did not note it.
    pub is_created: bool,
}

/// Keeps what is known of instances. A store that does not override these methods knows nothing of any.
pub trait InstanceStore: Send + Sync {
    /// Records changes. After this returns, a restart finds them.
    fn change_instances(&self, changes: Vec<InstanceChange>) -> BoxFuture<'_, Result<(), StoreError>> {
        let _ = changes;
        Box::pin(ready(Ok(())))
    }
    /// The instances of these families that each arm has: two counts for each family.
    fn instance_counts(&self, families: Vec<RouteId>) -> BoxFuture<'_, Result<Vec<InstanceCount>, StoreError>> {
        let _ = families;
        Box::pin(ready(Ok(Vec::new())))
    }
    /// What is known of an instance of legacy, also if it has ended; `None` if no request showed it.
    fn legacy_instance(&self, key: PinKey) -> BoxFuture<'_, Result<Option<LegacyInstance>, StoreError>> {
        let _ = key;
        Box::pin(ready(Ok(None)))
    }
    /// At most `limit` instances of legacy that have not ended, from the one after `after`, in an order of the store's
    /// own.
    fn legacy_instances(
        &self,
        family: RouteId,
        after: Option<Arc<str>>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<LegacyInstance>, StoreError>> {
        let _ = (family, after, limit);
        Box::pin(ready(Ok(Vec::new())))
    }
}
