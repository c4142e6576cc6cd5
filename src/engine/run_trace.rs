//! The trace of a run: the ids of its span and of those of its attempts.
//!
//! Always true: the ids follow from the run's first event and the attempt. So a process that resumes the run continues
//! the same trace, and a request names the span of its attempt before that span is recorded. A request that is sent
//! again after an unknown outcome has the bytes of the first attempt, so it names the span of the first attempt. The
//! first event has the `traceparent` of whoever began the run, and the run's children get the same one.

use http::HeaderValue;

use crate::engine::machine::Attempt;
use crate::names::RunId;
use crate::traces::{self, TraceContext, Traces};
use crate::workflow::{RunStarted, StepPart};

/// The trace of a run whose trace is recorded.
pub(in crate::engine) struct RunTrace {
    pub traces: &'static Traces,
    /// The run's span.
    pub context: TraceContext,
    /// The parent of the run's span.
    pub parent: Option<u64>,
    run: RunId,
}

impl RunTrace {
    /// `None` if its trace is not recorded.
    pub fn of(started: &RunStarted) -> Option<Self> {
        let traces = traces::installed()?;
        let begun_by = started.traceparent.as_ref().and_then(|value| TraceContext::parse(value.as_bytes()));
        let parent_run = started.parent.as_ref().map(|parent| parent.run);
        let (context, parent) = traces.of_run(started.run, begun_by, parent_run);
        context.is_sampled.then_some(Self { traces, context, parent, run: started.run })
    }

    /// The span of an attempt.
    pub fn attempt(&self, attempt: &Attempt) -> TraceContext {
        let Attempt { step, item, part, number } = attempt;
        let part = match part {
            StepPart::Do => "do",
            StepPart::Probe => "probe",
            StepPart::Undo => "undo",
        };
        self.context.of_attempt(self.run, step.as_str(), *item, part, *number)
    }
}

/// The `traceparent` of a run that begins a trace: it names the run's own span. `None` if the files have no `traces:`.
pub(in crate::engine) fn of_first_run(run: RunId) -> Option<String> {
    let (context, _) = traces::installed()?.of_run(run, None, None);
    String::from_utf8(context.to_traceparent().to_vec()).ok()
}

/// The value of a `traceparent` that names this span.
pub(in crate::engine) fn traceparent(context: TraceContext) -> Option<HeaderValue> {
    HeaderValue::from_bytes(&context.to_traceparent()).ok()
}
