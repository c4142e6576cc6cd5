//! The parts of a route's evidence that are kept when it is started from zero.
//!
//! Always true: whatever the cause of a start from zero, the new evidence is made by this type, so no start forgets
//! what the guard needs in `live`, or what the guard has found. After a loss (`lost`), more than this is kept.

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
    /// That the guard has stopped the candidate; `None` also if the candidate may answer otherwise now.
    pub(super) stopped_by_guard: Option<GuardStop>,
}

impl KeptOnRestart {
    /// The new evidence.
    pub(super) fn into_evidence(self) -> RouteEvidence {
        let Self { restarted, earlier, dropped, legacy, stopped_by_guard } = self;
        RouteEvidence { restarted, earlier, dropped, legacy, stopped_by_guard, ..RouteEvidence::default() }
    }
}
