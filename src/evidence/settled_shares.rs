//! What becomes of the share of a process that has ended.

use jiff::{SignedDuration, Timestamp};

use super::counters::Counters;
use super::process_share::{EndedShare, EvidenceGap, GAPS_MAX};
use crate::flag::SkipReason;
use crate::names::WorkerId;

/// How many ended shares are kept; the oldest are dropped.
const ENDED_MAX: usize = 64;
/// For how long an ended share is kept. From it, a process learns that its last write was done if the reply was lost.
const ENDED_KEPT: SignedDuration = SignedDuration::from_mins(30);

impl Counters {
    /// Removes the share of a process, and keeps the number of its last write (`ended`), in case the process had no
    /// reply to that write.
    pub(super) fn end_share(&mut self, process: WorkerId, ended: EndedShare) {
        self.processes.remove(&process);
        let oldest_kept = ended.at.saturating_sub(ENDED_KEPT).unwrap_or(Timestamp::MIN);
        self.ended_shares.retain(|_, share| share.at >= oldest_kept);
        self.ended_shares.insert(process, ended);
        if self.ended_shares.len() > ENDED_MAX
            && let Some(oldest) = self.ended_shares.iter().min_by_key(|(_, share)| share.at).map(|(id, _)| *id)
        {
            self.ended_shares.remove(&oldest);
        }
    }

    /// Settles the share of a process that has ended without removing it: what was under way in that process counts as
    /// not compared, or not judged. `write`: the number of the last write of the process when it was found to be gone.
    /// Nothing happens if the share was settled before, or if the process has written since.
    pub(super) fn settle_share(
        &mut self,
        (process, write): (WorkerId, u64),
        checked: &[(String, String)],
        now: Timestamp,
    ) {
        let Some(share) = self.processes.get(&process).filter(|share| share.write == write).cloned() else { return };
        self.end_share(process, EndedShare { write, at: now, basis: share.basis.clone(), guard: share.guard });
        let of_basis = self.kept.iter_mut().find(|kept| Some(&kept.basis) == share.basis.as_ref());
        let evidence = match of_basis.filter(|_| self.basis != share.basis) {
            Some(kept) => &mut kept.evidence,
            None => &mut self.evidence,
        };
        evidence.count_lost(&share.in_flight, SkipReason::ShuttingDown);
        for (invariant, text) in checked.iter().filter(|_| share.checks_in_flight > 0) {
            evidence.invariants.entry(invariant.clone()).or_default().count_lost(text, share.checks_in_flight);
        }
        // Since its last write, the process may have counted under any of these bases.
        let requests = share.in_flight.pairs();
        let gap = EvidenceGap { process: share.name, since: share.at, until: now, requests };
        for evidence in self.kept.iter_mut().map(|kept| &mut kept.evidence).chain([&mut self.evidence]) {
            evidence.gaps.push(gap.clone());
            let surplus = evidence.gaps.len().saturating_sub(GAPS_MAX);
            evidence.gaps.drain(..surplus);
        }
        self.dirty = true;
    }

    /// Settles the share of this process, which ends: what is under way counts as not compared, or not judged.
    pub(super) fn settle_own(&mut self) {
        let (in_flight, checks) = (std::mem::take(&mut self.in_flight), std::mem::take(&mut self.checks_in_flight));
        self.dirty |= !in_flight.is_empty() || checks > 0;
        self.evidence.count_lost(&in_flight, SkipReason::ShuttingDown);
        for (invariant, text) in self.invariants_of_runs.iter().filter(|_| checks > 0) {
            self.evidence.invariants.entry(invariant.clone()).or_default().count_lost(text, checks);
        }
    }
}
