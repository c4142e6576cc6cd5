//! The parts of a route's evidence that are kept where its pairs are counted from zero.
//!
//! Always true: each start from zero goes through this, whatever its cause, so that none of them forgets what the guard
//! needs in `live`, or what it has found. Evidence that was lost (`lost`) keeps more than this.

use super::guard_stop::GuardStop;
use super::legacy_replies::RepliesOfLegacy;
use super::route::{DroppedEvidence, EarlierEvidence, EvidenceRestart, RouteEvidence};

/// Parts of the evidence that survive a restart from zero.
#[derive(Default)]
pub(super) struct KeptOnRestart {
    pub(super) restarted: Option<EvidenceRestart>,
    pub(super) earlier: Vec<EarlierEvidence>,
    pub(super) dropped: DroppedEvidence,
    /// How legacy answers; nothing if another legacy may answer now.
    pub(super) legacy: RepliesOfLegacy,
    /// `None` also if the candidate may answer otherwise now.
    pub(super) stopped_by_guard: Option<GuardStop>,
}

impl KeptOnRestart {
    /// The new evidence.
    pub(super) fn into_evidence(self) -> RouteEvidence {
        let Self { restarted, earlier, dropped, legacy, stopped_by_guard } = self;
        RouteEvidence { restarted, earlier, dropped, legacy, stopped_by_guard, ..RouteEvidence::default() }
    }
}
