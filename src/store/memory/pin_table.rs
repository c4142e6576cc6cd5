//! Pins, in the order in which they were made.

use std::collections::{BTreeMap, HashMap};

use crate::flag::{Arm, PinKey};
use crate::names::RouteId;
use crate::store::{PinCount, PinRecord, PlacedPin};

/// Pins. The position of a pin is never given to another one.
#[derive(Default)]
pub(super) struct PinTable {
    by_position: BTreeMap<u64, PinRecord>,
    positions: HashMap<PinKey, u64>,
    newest: u64,
}

impl PinTable {
    pub(super) fn get(&self, key: &PinKey) -> Option<&PinRecord> {
        self.by_position.get(self.positions.get(key)?)
    }

    /// All pins, the oldest first.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &PinRecord> {
        self.by_position.values()
    }

    /// Adds a pin, unless the instance has one.
    pub(super) fn add(&mut self, pin: PinRecord) {
        if !self.positions.contains_key(&pin.key) {
            self.newest += 1;
            self.positions.insert(pin.key.clone(), self.newest);
            self.by_position.insert(self.newest, pin);
        }
    }

    pub(super) fn change(&mut self, change: impl FnMut(&mut PinRecord)) {
        self.by_position.values_mut().for_each(change);
    }

    pub(super) fn remove(&mut self, is_removed: impl Fn(&PinRecord) -> bool) {
        self.by_position.retain(|_, pin| !is_removed(pin));
        let by_position = &self.by_position;
        self.positions.retain(|_, position| by_position.contains_key(position));
    }

    pub(super) fn counts(&self) -> Vec<PinCount> {
        let mut counts: BTreeMap<(RouteId, Arm), u64> = BTreeMap::new();
        for pin in self.iter() {
            *counts.entry((pin.key.family.clone(), pin.arm)).or_default() += 1;
        }
        counts.into_iter().map(|((family, arm), count)| (family, arm, count)).collect()
    }

    pub(super) fn detach_twin(&mut self, key: &PinKey) {
        let pin = self.positions.get(key).and_then(|position| self.by_position.get_mut(position));
        pin.filter(|pin| pin.arm == Arm::Legacy).into_iter().for_each(|pin| pin.run = None);
    }

    pub(super) fn placed_after(&self, after: u64, limit: usize) -> Vec<PlacedPin> {
        let placed = self.by_position.range(after.saturating_add(1)..).take(limit);
        placed.map(|(position, pin)| (*position, pin.key.clone(), pin.arm)).collect()
    }
}
