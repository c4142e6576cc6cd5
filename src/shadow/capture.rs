//! Keeps the capture of a compared pair.

use std::panic::AssertUnwindSafe;

use uuid::Uuid;

use super::redaction::PairRedaction;
use crate::clock;
use crate::compare::{
    self, Body, CaptureContext, CapturedPair, CompareBounds, InstanceOfPair, NotCaptured, Pair, Rules, Verdict,
};
use crate::evidence::{CaptureDropped, Captures, is_sampled};
use crate::exchange::{Answered, RecordedReads, RunReport};

/// A pair that was compared, with the reads of the run.
pub(super) struct CapturedRun<'a> {
    pub answered: &'a Answered,
    pub report: &'a RunReport,
    pub pair: &'a Pair<'a>,
    pub recorded: &'a RecordedReads,
    pub redaction: &'a PairRedaction<'a>,
    pub verdict: Verdict,
}

/// Whether the pair of this request is captured. A rehearsal of captures is not captured again.
pub(super) fn is_captured(answered: &Answered) -> bool {
    answered.reads.is_none() && answered.candidate.is_none() && is_sampled(answered.flag.route.capture)
}

/// Hands the capture of a pair over to be stored, or counts why there is none. A panic loses the capture alone.
pub(super) fn capture(
    captures: &Captures,
    captured: &CapturedRun<'_>,
    rules: &Rules,
    bounds: &CompareBounds,
    expired: &dyn Fn() -> bool,
) {
    let CapturedRun { answered, report, pair, recorded, redaction, verdict } = captured;
    let (request, route) = (&answered.request, &answered.flag.route);
    let Some(reads) = recorded.all() else {
        return captures.dropped(&route.id, CaptureDropped::TooLarge);
    };
    let instance = recorded.known_instance();
    let whole = CapturedPair {
        method: &request.method,
        path: &request.path,
        params: &request.params,
        query: request.query.as_deref(),
        headers: &request.headers,
        body: &Body::Whole(request.body.clone()),
        legacy: pair.legacy,
        started: recorded.started_at(),
        instance: instance
            .as_ref()
            .map(|known| InstanceOfPair { value: &known.value, hidden: known.redacted.as_ref() }),
        reads: &reads,
        intents: pair.engine.intents(),
        effects: pair.effects,
    };
    // Only what the workflows declare is hidden here: `compare::capture` replaces what the files declare by a hash,
    // which is equal wherever the same secret occurs.
    let of_workflows = redaction.of_workflows();
    let context = CaptureContext {
        id: Uuid::now_v7(),
        route: &route.id,
        at: clock::now(),
        plan: report.plan.as_ref(),
        outcome: match verdict {
            Verdict::Match => "matched",
            Verdict::Ignored => "ignored",
            Verdict::Mismatch => "mismatched",
        },
        rules,
        redact: redaction.rules(),
        key: captures.key(),
        sensitive: Some(&of_workflows),
        bounds,
        expired,
    };
    match std::panic::catch_unwind(AssertUnwindSafe(|| compare::capture(&whole, &context))) {
        Ok(Ok(capture)) => captures.put(&capture),
        Ok(Err(NotCaptured::TooManySecrets)) => captures.dropped(&route.id, CaptureDropped::TooLarge),
        Ok(Err(NotCaptured::Time)) => captures.dropped(&route.id, CaptureDropped::OverBudget),
        Ok(Err(NotCaptured::Unreadable)) | Err(_) => captures.dropped(&route.id, CaptureDropped::Unreadable),
    }
}
