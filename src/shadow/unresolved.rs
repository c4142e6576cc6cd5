//! Counts why runs could not go on.

use super::engine_result::shown_why;
use super::run::Runner;
use crate::evidence::EvidenceGeneration;
use crate::exchange::{Answered, ComparisonOutcome, RunReport};
use crate::flag::SkipReason;

impl Runner {
    /// Counts why a request was skipped, if it was because the run could not go on.
    pub(super) fn count_unresolved(
        &self,
        answered: &Answered,
        generation: EvidenceGeneration,
        outcome: ComparisonOutcome,
        report: &RunReport,
    ) {
        let (ComparisonOutcome::Skipped(reason), Some((_, why))) = (outcome, &report.unresolved) else { return };
        let why = match reason {
            SkipReason::UnresolvedEffect => shown_why(why),
            SkipReason::WouldPause | SkipReason::NeedsPerson | SkipReason::NeedsSignal if !why.is_empty() => {
                format!("{}: {}", reason.as_str(), shown_why(why))
            }
            _ => return,
        };
        self.evidence.record_unresolved(answered.compared_as(), generation, &why);
    }
}
