//! What is known of instances beside their pins, and pin collisions.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use jiff::Timestamp;

use super::MemoryStore;
use super::instance_tables::{StoredLegacyInstance, unknown_key};
use super::tables::Tables;
use crate::flag::{Arm, PinKey};
use crate::names::{RouteId, RunId};
use crate::store::instances::UNKNOWN_ID;
use crate::store::{
    AdoptionState, InstanceChange, InstanceCount, InstanceStore, LegacyInstance, PinAdoption, PinCollision,
    PinCollisionStore, PinRecord, StoreError,
};

impl Tables {
    pub(super) fn change_instance(&mut self, change: InstanceChange) {
        match change {
            InstanceChange::LegacySeen(key, at) => {
                self.instances.get_or_add(key, at);
            }
            InstanceChange::LegacyListed(ref key, at) | InstanceChange::LegacyCreated(ref key, at) => {
                let is_created = matches!(change, InstanceChange::LegacyCreated(..));
                let key = key.clone();
                let state = self.adoptions.get(&key).map(|adoption| adoption.state);
                if state != Some(AdoptionState::Adopted) {
                    let listed = self.instances.get_or_add(key, at);
                    if listed.ended.take().is_some() {
                        listed.seen = at;
                    }
                    listed.is_created |= is_created;
                }
            }
            InstanceChange::LegacyEnded(key, at) => {
                self.instances.get_or_add(key, at).ended.get_or_insert(at);
            }
            InstanceChange::TwinIncomplete(key, at) => self.instances.get_or_add(key, at).is_twin_incomplete = true,
            InstanceChange::LegacyUnknown(family, at) => {
                let unknown = self.instances.get_or_add(unknown_key(family), at);
                (unknown.seen, unknown.ended) = (unknown.seen.max(at), None);
            }
            InstanceChange::LegacyKnown(family, at) => {
                if let Some(unknown) = self.instances.legacy.get_mut(&unknown_key(family)) {
                    unknown.ended.get_or_insert(at);
                }
            }
            InstanceChange::EngineEnded { family, run, at } => {
                let pinned = |id: &RouteId| {
                    self.pins().iter().any(|pin| is_engines(pin.arm, pin.run, run) && pin.key.family == *id)
                };
                let found: Vec<RouteId> = family.into_iter().filter(pinned).collect();
                for id in found {
                    self.instances.ended.entry((id, run)).or_insert(at);
                }
            }
            InstanceChange::Aged { family, before, at } => {
                let of_family = self.instances.legacy.iter_mut().filter(|(key, _)| key.family == family);
                for (_, instance) in of_family.filter(|(_, instance)| instance.seen < before) {
                    instance.ended.get_or_insert(at);
                }
                let old = self
                    .pins()
                    .iter()
                    .filter(|pin| pin.arm == Arm::Engine && pin.key.family == family && pin.at < before);
                let old: Vec<RunId> = old.filter_map(|pin| pin.run).collect();
                for run in old {
                    self.instances.ended.entry((family.clone(), run)).or_insert(at);
                }
            }
            InstanceChange::ForgetEnded { family, keep } => {
                let ended = self.instances.of_family(&family);
                let mut ended: Vec<_> =
                    ended.filter_map(|(key, instance)| Some((instance.ended?, key.clone()))).collect();
                ended.sort_by(|(a, _), (b, _)| b.cmp(a));
                let Some((kept, _)) = ended.get(keep.saturating_sub(1)).cloned() else { return };
                for (_, key) in ended.iter().filter(|(at, _)| *at < kept) {
                    self.instances.legacy.remove(key);
                }
            }
        }
    }

    pub(super) fn instance_counts(&self, families: &[RouteId]) -> Vec<InstanceCount> {
        families.iter().flat_map(|family| [self.engines_count(family), self.legacys_count(family)]).collect()
    }

    fn engines_count(&self, family: &RouteId) -> InstanceCount {
        let is_engines = |pin: &&PinRecord| pin.arm == Arm::Engine && is_for_good(pin.adoption);
        let pins = self.pins().iter().filter(|pin| is_engines(pin) && pin.key.family == *family);
        let mut created: BTreeMap<RunId, Timestamp> = BTreeMap::new();
        for (run, at) in pins.filter_map(|pin| Some((pin.run?, pin.at))) {
            let first = created.entry(run).or_insert(at);
            *first = (*first).min(at);
        }
        let ended = |run: &RunId| self.instances.ended.get(&(family.clone(), *run)).copied();
        let alive = created.iter().filter(|(run, _)| ended(run).is_none());
        InstanceCount {
            family: family.clone(),
            arm: Arm::Engine,
            alive: alive.clone().count() as u64,
            twins_incomplete: 0,
            has_unknown: false,
            oldest: alive.map(|(_, at)| *at).min(),
            last_ended: created.keys().filter_map(ended).max(),
        }
    }

    fn legacys_count(&self, family: &RouteId) -> InstanceCount {
        let alive = || self.instances.of_family(family).filter(|(_, instance)| instance.ended.is_none());
        let known = || alive().filter(|(key, _)| &*key.id != UNKNOWN_ID);
        InstanceCount {
            family: family.clone(),
            arm: Arm::Legacy,
            alive: known().count() as u64,
            twins_incomplete: known().filter(|(_, instance)| instance.is_twin_incomplete).count() as u64,
            has_unknown: alive().any(|(key, _)| &*key.id == UNKNOWN_ID),
            oldest: alive().map(|(_, instance)| instance.seen).min(),
            last_ended: self.instances.of_family(family).filter_map(|(_, instance)| instance.ended).max(),
        }
    }

    pub(super) fn legacy_instance(&self, key: &PinKey) -> Option<LegacyInstance> {
        Some(shown(key, self.instances.legacy.get(key)?))
    }

    pub(super) fn legacy_instances(
        &self,
        family: &RouteId,
        after: Option<Arc<str>>,
        limit: usize,
    ) -> Vec<LegacyInstance> {
        let after = PinKey { family: family.clone(), id: after.unwrap_or_else(|| UNKNOWN_ID.into()) };
        let rest = self.instances.legacy.range((Bound::Excluded(after), Bound::Unbounded));
        let of_family = rest.take_while(|(key, _)| key.family == *family);
        of_family.filter(|(_, instance)| instance.ended.is_none()).take(limit).map(|(key, at)| shown(key, at)).collect()
    }
}

/// Whether the instance of a pin is the engine's for good, as far as adoption is concerned.
fn is_for_good(adoption: Option<PinAdoption>) -> bool {
    matches!(adoption, None | Some(PinAdoption::Adopted))
}

fn is_engines(arm: Arm, pinned_by: Option<RunId>, run: RunId) -> bool {
    arm == Arm::Engine && pinned_by == Some(run)
}

fn shown(key: &PinKey, instance: &StoredLegacyInstance) -> LegacyInstance {
    let StoredLegacyInstance { seen, ended, is_twin_incomplete, is_created } = *instance;
    LegacyInstance { id: key.id.clone(), seen, ended, is_twin_incomplete, is_created }
}

impl InstanceStore for MemoryStore {
    fn change_instances(&self, changes: Vec<InstanceChange>) -> BoxFuture<'_, Result<(), StoreError>> {
        self.with(|tables| changes.into_iter().for_each(|change| tables.change_instance(change)))
    }

    fn instance_counts(&self, families: Vec<RouteId>) -> BoxFuture<'_, Result<Vec<InstanceCount>, StoreError>> {
        self.with(|tables| tables.instance_counts(&families))
    }

    fn legacy_instance(&self, key: PinKey) -> BoxFuture<'_, Result<Option<LegacyInstance>, StoreError>> {
        self.with(|tables| tables.legacy_instance(&key))
    }

    fn legacy_instances(
        &self,
        family: RouteId,
        after: Option<Arc<str>>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<LegacyInstance>, StoreError>> {
        self.with(|tables| tables.legacy_instances(&family, after, limit))
    }
}

impl PinCollisionStore for MemoryStore {
    fn put_pin_collisions(&self, collisions: Vec<PinCollision>) -> BoxFuture<'_, Result<(), StoreError>> {
        self.with(|tables| {
            for collision in collisions {
                let family = collision.family.clone();
                tables
                    .instances
                    .collisions
                    .entry(family)
                    .and_modify(|known| known.merge(collision.clone()))
                    .or_insert(collision);
            }
        })
    }

    fn pin_collisions(&self) -> BoxFuture<'_, Result<Vec<PinCollision>, StoreError>> {
        self.with(|tables| tables.instances.collisions.values().cloned().collect())
    }
}
