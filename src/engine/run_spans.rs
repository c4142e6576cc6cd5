//! The spans of a run: of the whole of it, and of each attempt of its steps.
//!
//! Always true: an attempt has one span once it has ended, and the run has one once it is final. A step that was
//! rehearsed, or ended without an attempt, has a span without a duration.

use std::collections::HashMap;

use jiff::Timestamp;

use crate::clock;
use crate::engine::machine::{Attempt, Measure};
use crate::engine::run_trace::RunTrace;
use crate::traces::{Attributes, HTTP_METHOD, HTTP_STATUS, Span, SpanKind};
use crate::workflow::{AttemptResult, InFlight, Run, StepPart};

/// Records the spans of one run.
pub(super) struct RunSpans {
    trace: RunTrace,
    /// The attempts that have not ended.
    open: HashMap<Attempt, OpenAttempt>,
}

/// An attempt that has not ended.
struct OpenAttempt {
    start: Timestamp,
    /// When its result came.
    end: Option<Timestamp>,
    attributes: Attributes,
}

impl RunSpans {
    /// `None` if the run's trace is not recorded.
    pub fn of(run: &Run) -> Option<Self> {
        Some(Self { trace: RunTrace::of(run.started())?, open: HashMap::new() })
    }

    /// Records that an attempt is about to be sent, perhaps again: an earlier process may have been killed after it
    /// sent the attempt.
    pub fn call_begins(&mut self, attempt: &InFlight) {
        let open = OpenAttempt { start: clock::now(), end: None, attributes: of_request(attempt) };
        self.open.insert(Attempt::of(attempt), open);
    }

    /// Records that an attempt has a result; its outcome is decided next.
    pub fn call_finished(&mut self, attempt: &Attempt, result: &AttemptResult) {
        if let Some(open) = self.open.get_mut(attempt) {
            open.end = Some(clock::now());
            let status = match result {
                AttemptResult::Reply { status, .. } | AttemptResult::Unreadable { status, .. } => Some(*status),
                _ => None,
            };
            open.attributes.add(HTTP_STATUS, status.map(u64::from));
        }
    }

    /// Records what the machine measured.
    pub fn record(&mut self, measure: &Measure, run: &Run) {
        match measure {
            Measure::CallEnded { last, outcome } => {
                let error = (!matches!(*outcome, "done" | "rehearsed")).then_some(*outcome);
                match self.open.remove(last) {
                    Some(open) => self.record_attempt(last, open, run, SpanKind::Client, outcome, error),
                    None if last.number == 0 || *outcome == "rehearsed" => {
                        let now = clock::now();
                        let open = OpenAttempt { start: now, end: Some(now), attributes: Attributes::new() };
                        self.record_attempt(last, open, run, SpanKind::Internal, outcome, error);
                    }
                    // A person decided about an attempt that ended before.
                    None => {}
                }
            }
            Measure::Retry { ended, is_unknown } => {
                if let Some(open) = self.open.remove(ended) {
                    let outcome = if *is_unknown { "unknown" } else { "not_done" };
                    self.record_attempt(ended, open, run, SpanKind::Client, outcome, Some(outcome));
                }
            }
            Measure::Paused { step, item, conflict } => {
                let is_of_call = |attempt: &Attempt, _: &mut _| attempt.step == *step && attempt.item == *item;
                let paused: Vec<_> = self.open.extract_if(is_of_call).collect();
                for (attempt, open) in paused {
                    self.record_attempt(&attempt, open, run, SpanKind::Client, "unknown", Some(conflict));
                }
            }
            Measure::StepBegan { .. } | Measure::RespondConditionErrors(_) | Measure::InstanceWithoutId => {}
        }
    }

    fn record_attempt(
        &self,
        attempt: &Attempt,
        open: OpenAttempt,
        run: &Run,
        kind: SpanKind,
        outcome: &'static str,
        error: Option<&str>,
    ) {
        let OpenAttempt { start, end, mut attributes } = open;
        let Attempt { step, item, part, number } = attempt;
        attributes.add("pointsman.workflow", Some(run.started().workflow.as_str()));
        attributes.add("pointsman.run", Some(&*run.id().to_string()));
        attributes.add("pointsman.step", Some(step.as_str()));
        attributes.add("pointsman.item", item.map(u64::from));
        attributes.add("pointsman.attempt", (*number > 0).then_some(u64::from(*number)));
        attributes.add("pointsman.outcome", Some(outcome));
        attributes.add("error.type", error);
        let call = match part {
            StepPart::Do => "step",
            StepPart::Probe => "probe of step",
            StepPart::Undo => "undo of step",
        };
        self.trace.traces.record(Span {
            context: self.trace.attempt(attempt),
            parent: Some(self.trace.context.span_id),
            name: format!("{call} {step}"),
            kind,
            start,
            end: end.unwrap_or_else(clock::now),
            attributes,
            error: error.map(str::to_owned),
        });
    }

    /// Records the span of the run, which is final or was discarded.
    pub fn run_ended(&self, run: &Run, outcome: &'static str) {
        let started = run.started();
        let error = run.failure().map(|failure| failure.kind.as_str());
        let mut attributes = Attributes::new();
        attributes.add("pointsman.workflow", Some(started.workflow.as_str()));
        attributes.add("pointsman.run", Some(&*run.id().to_string()));
        attributes.add("pointsman.parent_step", started.parent.as_ref().map(|parent| parent.step.as_str()));
        attributes.add("pointsman.route", started.route.as_ref().map(|route| route.as_str()));
        attributes.add("pointsman.mode", Some(started.mode.as_str()));
        attributes.add("pointsman.outcome", Some(outcome));
        attributes.add("error.type", error);
        self.trace.traces.record(Span {
            context: self.trace.context,
            parent: self.trace.parent,
            name: format!("run {}", started.workflow),
            kind: SpanKind::Internal,
            start: started.started,
            end: clock::now(),
            attributes,
            error: error.map(str::to_owned),
        });
    }
}

/// What is known of an attempt when it begins. Its path is left out: it may have sensitive values of the run.
fn of_request(attempt: &InFlight) -> Attributes {
    let mut attributes = Attributes::new();
    attributes.add(HTTP_METHOD, Some(&*attempt.request.method));
    let uri = attempt.request.url.parse::<http::Uri>().ok();
    attributes.add_server(uri.as_ref());
    let resent = u64::from(attempt.attempt.saturating_sub(1));
    attributes.add("http.request.resend_count", (resent > 0).then_some(resent));
    attributes.add("pointsman.effect", Some(attempt.effect.as_str()));
    attributes
}
