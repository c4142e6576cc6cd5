//! How many instances of a family are alive.

use std::time::Duration;

use jiff::Timestamp;

use crate::flag::Family;
use crate::store::InstanceCount;

/// A family, and how long its instances live at most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrackedFamily {
    /// The family.
    pub family: Family,
    /// Instances end when they are this old; `None`: never by age.
    pub ends_after: Option<Duration>,
}

/// The instances of one arm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ArmInstances {
    /// Those that have not ended.
    pub alive: u64,
    /// Of legacy's that have not ended: those whose twin lacks something that legacy did.
    pub twins_incomplete: u64,
    /// Of legacy's: whether there may be others, whose ids are not known.
    pub has_unknown: bool,
    /// When the oldest was created; of legacy's, when a request first showed it.
    pub oldest: Option<Timestamp>,
    /// When the last one ended.
    pub last_ended: Option<Timestamp>,
}

impl ArmInstances {
    /// When the last instance of the arm ended; `None` while one is, or may be, alive.
    pub fn drained(&self) -> Option<Timestamp> {
        self.last_ended.filter(|_| self.alive == 0 && !self.has_unknown)
    }

    pub(super) fn add(&mut self, count: &InstanceCount) {
        let InstanceCount { family: _, arm: _, alive, twins_incomplete, has_unknown, oldest, last_ended } = count;
        self.alive += alive;
        self.twins_incomplete += twins_incomplete;
        self.has_unknown |= has_unknown;
        self.oldest = self.oldest.into_iter().chain(*oldest).min();
        self.last_ended = self.last_ended.max(*last_ended);
    }
}

/// The instances of a family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FamilyInstances {
    /// The engine's.
    pub engine: ArmInstances,
    /// Legacy's, as far as requests have shown them.
    pub legacy: ArmInstances,
    /// Whether they were counted: if not, all numbers are 0.
    pub is_counted: bool,
    /// How many reports of instances that legacy has wait for the store. The numbers above do not include them.
    pub legacy_waiting: u64,
}
