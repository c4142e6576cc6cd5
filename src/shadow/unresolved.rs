//! Counts why runs could not go on.

use std::time::{Duration, Instant};

use http::{HeaderMap, StatusCode};

use super::engine_result::shown_why;
use super::redaction::{PairRedaction, PairToRedact};
use super::run::Runner;
use crate::compare::{Body, CompareBounds, HidesSensitive, Observation};
use crate::evidence::EvidenceGeneration;
use crate::exchange::{Answered, ComparisonOutcome, RunReport};
use crate::flag::SkipReason;
use crate::limits::Limits;

impl Runner {
    /// Counts why a request was skipped, if it was because the run could not go on. The reason is stored and shown, and
    /// a path in it may have a value of the request as a key (`legacy.body[request.query.of]`).
    pub(super) fn count_unresolved(
        &self,
        answered: &Answered,
        generation: EvidenceGeneration,
        outcome: ComparisonOutcome,
        report: &RunReport,
    ) {
        let (ComparisonOutcome::Skipped(reason), Some((_, why))) = (outcome, &report.unresolved) else { return };
        let shown = || shown_why(&self.without_secrets(why, answered, report));
        let why = match reason {
            SkipReason::UnresolvedEffect => shown(),
            SkipReason::WouldPause | SkipReason::NeedsPerson | SkipReason::NeedsSignal if !why.is_empty() => {
                format!("{}: {}", reason.as_str(), shown())
            }
            _ => return,
        };
        self.evidence.record_unresolved(answered.compared_as(), generation, &why);
    }

    /// The text without the secrets of the request and of legacy's reply that it quotes.
    fn without_secrets(&self, text: &str, answered: &Answered, report: &RunReport) -> String {
        let (start, within) = (Instant::now(), Limits::ms(self.limits.compare_ms));
        let is_over = || start.elapsed() >= within;
        // The run gave no answer.
        let body = Body::Whole(bytes::Bytes::new());
        let engine = Observation::new(StatusCode::OK, HeaderMap::new(), body, Duration::ZERO, Vec::new());
        let redaction = PairRedaction::of(PairToRedact {
            answered,
            engine: &engine,
            report,
            effects: None,
            recorded: None,
            bounds: CompareBounds::of(&self.limits),
            expired: &is_over,
        });
        redaction.hide_in_text(text)
    }
}
