//! What the engine did with a request that legacy answered, as a comparison looks at it.

use std::time::Duration;

use crate::compare::{Body, Observation};
use crate::exchange::{Branch, ComparisonOutcome, ProblemDocument, Reads, RunReport};
use crate::flag::SkipReason;
use crate::limits::UNRESOLVED_TEXT_BYTES_MAX;
use crate::names::RunId;
use crate::secret::{LengthMax, masked_and_cut, redact_line};

/// What the engine did, or why that cannot be compared.
pub(super) enum EngineResult {
    Comparable(Observation, RunReport),
    /// The output of a rehearsed step is not known: only the calls until then can be compared.
    Stopped(Observation, RunReport),
    NotComparable(ComparisonOutcome, RunReport),
}

impl EngineResult {
    /// Which branch the run took through its workflow.
    pub(super) fn branch(&self) -> &Branch {
        &self.report().branch
    }
    /// What the run reports besides its answer.
    pub(super) fn report(&self) -> &RunReport {
        match self {
            Self::Comparable(_, report) | Self::Stopped(_, report) | Self::NotComparable(_, report) => report,
        }
    }
    /// Makes the result not comparable if one of the run's reads got no answer from `reads`: what the run did after
    /// such a read says nothing about the engine.
    pub(super) fn skipped_if_unanswered(self, reads: Option<&dyn Reads>) -> Self {
        let Some(why) = reads.and_then(Reads::unanswered) else { return self };
        let (Self::Comparable(_, report) | Self::Stopped(_, report) | Self::NotComparable(_, report)) = self;
        let unresolved = Some((SkipReason::UnresolvedEffect, why));
        let skipped = ComparisonOutcome::Skipped(SkipReason::UnresolvedEffect);
        EngineResult::NotComparable(skipped, RunReport { unresolved, ..report })
    }
    /// The result of a run that read nothing after legacy had acted.
    pub(super) fn without_stale_reads(mut self) -> Self {
        let (Self::Comparable(_, report) | Self::Stopped(_, report) | Self::NotComparable(_, report)) = &mut self;
        report.stale_reads = false;
        self
    }
    /// Bytes of memory that it holds: the body, and the intents, which the report has too.
    pub(super) fn bytes(&self) -> usize {
        let report = self.report();
        let intents = serde_json::to_vec(&report.intents).map_or(0, |intents| 2 * intents.len());
        match self {
            EngineResult::Comparable(seen, _) => match seen.body() {
                Body::Whole(bytes) => bytes.len() + intents,
                Body::TooLarge => intents,
            },
            EngineResult::Stopped(..) | EngineResult::NotComparable(..) => intents,
        }
    }
}

/// The result of a run that ended for this reason. If the output of a step is not known, its calls until then may show
/// a difference; `status` is that of its reply, which is not compared.
pub(super) fn unresolved(
    reason: SkipReason,
    status: http::StatusCode,
    report: RunReport,
    latency: Duration,
) -> EngineResult {
    let why = report.unresolved.as_ref().filter(|_| reason == SkipReason::UnresolvedEffect);
    let Some((_, why)) = why else {
        return EngineResult::NotComparable(ComparisonOutcome::Skipped(reason), report);
    };
    let shown = serde_json::json!({ "title": "The run could not go on", "detail": shown_why(why) });
    let body = Body::Whole(shown.to_string().into());
    let headers = [(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"))];
    let seen = Observation::new(status, headers.into_iter().collect(), body, latency, report.intents.clone());
    EngineResult::Stopped(seen.of_stopped_run(), report)
}

/// Why the output of a step is not known, without secrets and ids of runs: the same cause has the same text.
pub(super) fn shown_why(why: &str) -> String {
    fn shown(word: &str) -> &str {
        if word.parse::<RunId>().is_ok() { "…" } else { word }
    }
    let without_ids = why.split(' ').map(shown).collect::<Vec<_>>().join(" ");
    masked_and_cut(&without_ids, redact_line, LengthMax::Bytes(UNRESOLVED_TEXT_BYTES_MAX))
}

/// The result for a problem that the engine answered with. A problem caused by a service that failed, an overload, a
/// freeze, a reload or the end of the process counts as failed or skipped. Any other is what the caller would have got,
/// and is compared.
pub(super) fn refused(problem: ProblemDocument, report: RunReport, latency: Duration) -> EngineResult {
    match problem.status {
        503 if problem.kind == "too-many-runs" => {
            EngineResult::NotComparable(ComparisonOutcome::Skipped(SkipReason::OverBudget), report)
        }
        503 if problem.kind == "files-changed" => {
            EngineResult::NotComparable(ComparisonOutcome::Skipped(SkipReason::FilesChanged), report)
        }
        503 if problem.kind == "frozen" => {
            EngineResult::NotComparable(ComparisonOutcome::Skipped(SkipReason::Frozen), report)
        }
        503 if problem.kind == "shutting-down" => {
            EngineResult::NotComparable(ComparisonOutcome::Skipped(SkipReason::ShuttingDown), report)
        }
        // The dark run continues: it had no answer within `shadow_run_ms`.
        503 if problem.kind == "run-goes-on" => {
            EngineResult::NotComparable(ComparisonOutcome::Failed("timeout"), report)
        }
        // `workflow-refused` is compared (below): a service refused a step, which is a result of the workflow.
        502 if problem.kind != "workflow-refused" => {
            EngineResult::NotComparable(ComparisonOutcome::Failed("unavailable"), report)
        }
        503 => EngineResult::NotComparable(ComparisonOutcome::Failed("unavailable"), report),
        504 => EngineResult::NotComparable(ComparisonOutcome::Failed("timeout"), report),
        status => {
            let status = http::StatusCode::from_u16(status).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
            let body = serde_json::to_vec(&problem).unwrap_or_default();
            let json = http::HeaderValue::from_static("application/problem+json");
            let headers = [(http::header::CONTENT_TYPE, json)].into_iter().collect();
            let seen = Observation::new(status, headers, Body::Whole(body.into()), latency, report.intents.clone());
            EngineResult::Comparable(seen.with_steps_without_items(report.steps_without_items.clone()), report)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_cause_in_two_runs_has_the_same_text() {
        let of = |n: u128| {
            shown_why(&format!("`pay`: the run {} of `charge` ended as failed: 402", RunId(uuid::Uuid::from_u128(n))))
        };
        assert_eq!(of(1), "`pay`: the run … of `charge` ended as failed: 402");
        assert_eq!(of(1), of(2));
    }
}
