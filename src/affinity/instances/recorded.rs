//! Which reports on instances were recorded recently.

use std::collections::HashMap;

use jiff::Timestamp;

use crate::flag::PinKey;
use crate::names::RunId;

/// How many recorded reports are remembered, so that they are not recorded again. When the younger half is full, the
/// older half is dropped.
pub(super) const RECORDED_REMEMBERED_MAX: usize = 65_536;

/// The reports that were recorded recently, each with the time when it was recorded first.
#[derive(Default)]
pub(super) struct Recorded {
    young: HashMap<Report, Timestamp>,
    old: HashMap<Report, Timestamp>,
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
    /// Remembers that a report was recorded. Returns `false` if that was remembered already.
    pub(super) fn insert(&mut self, report: Report, at: Timestamp) -> bool {
        if self.young.contains_key(&report) {
            return false;
        }
        if self.young.len() >= RECORDED_REMEMBERED_MAX / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        let before = self.old.remove(&report);
        self.young.insert(report, before.unwrap_or(at));
        before.is_none()
    }

    /// When a report was recorded, if that was recently.
    pub(super) fn recorded_at(&self, report: &Report) -> Option<Timestamp> {
        self.young.get(report).or_else(|| self.old.get(report)).copied()
    }

    /// Forgets a report, so that it is recorded again.
    pub(super) fn forget(&mut self, report: &Report) {
        self.young.remove(report);
        self.old.remove(report);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}
