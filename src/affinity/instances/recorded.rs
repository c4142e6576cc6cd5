//! Which reports on instances were recorded recently.

use std::collections::HashSet;

use crate::flag::PinKey;
use crate::names::RunId;

/// How many recorded reports are remembered, so that they are not recorded again. When the younger half is full, the
/// older half is dropped.
pub(super) const RECORDED_REMEMBERED_MAX: usize = 65_536;

/// The reports that were recorded recently.
#[derive(Default)]
pub(super) struct Recorded {
    young: HashSet<Report>,
    old: HashSet<Report>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) enum Report {
    LegacySeen(PinKey),
    LegacyCreated(PinKey),
    LegacyEnded(PinKey),
    TwinIncomplete(PinKey),
    EngineEnded(RunId),
}

impl Recorded {
    /// Returns `false` if it was recorded already.
    pub(super) fn insert(&mut self, report: Report) -> bool {
        if self.young.contains(&report) {
            return false;
        }
        if self.young.len() >= RECORDED_REMEMBERED_MAX / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        let is_new = !self.old.remove(&report);
        self.young.insert(report);
        is_new
    }

    /// Whether it was recorded recently.
    pub(super) fn contains(&self, report: &Report) -> bool {
        self.young.contains(report) || self.old.contains(report)
    }

    /// A report will be recorded again.
    pub(super) fn forget(&mut self, report: &Report) {
        self.young.remove(report);
        self.old.remove(report);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}
