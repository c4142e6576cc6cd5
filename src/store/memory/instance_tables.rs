//! Instances of legacy, the ends of the engine's, and pin collisions.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::flag::PinKey;
use crate::names::{RouteId, RunId};
use crate::store::PinCollision;
use crate::store::instances::UNKNOWN_ID;

/// Instances of legacy, the ends of the engine's, and pin collisions.
#[derive(Default)]
pub(super) struct InstanceTables {
    pub(super) legacy: BTreeMap<PinKey, StoredLegacyInstance>,
    /// By the id under which the instance is pinned and the run that created it.
    pub(super) ended: BTreeMap<(RouteId, RunId), Timestamp>,
    pub(super) collisions: BTreeMap<RouteId, PinCollision>,
}

/// An instance of legacy.
pub(super) struct StoredLegacyInstance {
    pub(super) seen: Timestamp,
    pub(super) ended: Option<Timestamp>,
    pub(super) is_twin_incomplete: bool,
    pub(super) is_created: bool,
}

/// The key of the row that says that there are instances whose ids are not known.
pub(super) fn unknown_key(family: RouteId) -> PinKey {
    PinKey { family, id: UNKNOWN_ID.into() }
}

impl InstanceTables {
    pub(super) fn of_family(&self, family: &RouteId) -> impl Iterator<Item = (&PinKey, &StoredLegacyInstance)> {
        let family = family.clone();
        let from = unknown_key(family.clone());
        self.legacy.range(from..).take_while(move |(key, _)| key.family == family)
    }

    /// The row of an instance; a new row says that the instance was seen at this time.
    pub(super) fn get_or_add(&mut self, key: PinKey, at: Timestamp) -> &mut StoredLegacyInstance {
        let new = StoredLegacyInstance { seen: at, ended: None, is_twin_incomplete: false, is_created: false };
        self.legacy.entry(key).or_insert(new)
    }
}
