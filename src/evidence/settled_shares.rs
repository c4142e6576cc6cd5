//! What becomes of the share of a process that has ended.

use jiff::Timestamp;

use super::counters::Counters;
use super::process_share::{EvidenceGap, GAPS_MAX, ProcessShare};
use crate::flag::SkipReason;
use crate::names::WorkerId;

impl Counters {
    /// A process has ended without taking back its share: what was under way in it counts as not compared, or not
    /// judged. Nothing happens if that was counted before.
    pub(super) fn settle_share(&mut self, of: WorkerId, checked: &[(String, String)], now: Timestamp) {
        let Some(ProcessShare { name, at, in_flight, checks_in_flight, .. }) = self.processes.remove(&of) else {
            return;
        };
        self.evidence.count_lost(&in_flight, SkipReason::ShuttingDown);
        for (invariant, text) in checked.iter().filter(|_| checks_in_flight > 0) {
            self.evidence.invariants.entry(invariant.clone()).or_default().count_lost(text, checks_in_flight);
        }
        let gap = EvidenceGap { process: name, since: at, until: now, requests: in_flight.pairs() };
        self.evidence.gaps.push(gap);
        let surplus = self.evidence.gaps.len().saturating_sub(GAPS_MAX);
        self.evidence.gaps.drain(..surplus);
        self.dirty = true;
    }

    /// The process ends: what is under way counts as not compared, or not judged.
    pub(super) fn settle_own(&mut self) {
        let (in_flight, checks) = (std::mem::take(&mut self.in_flight), std::mem::take(&mut self.checks_in_flight));
        self.dirty |= !in_flight.is_empty() || checks > 0;
        self.evidence.count_lost(&in_flight, SkipReason::ShuttingDown);
        for (invariant, text) in self.invariants_of_runs.iter().filter(|_| checks > 0) {
            self.evidence.invariants.entry(invariant.clone()).or_default().count_lost(text, checks);
        }
    }
}
