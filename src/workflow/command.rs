//! What a run can be asked to do, what came back from a call, and why an ask is refused.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::StepIndex;

/// What a run is asked to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Skip, compute, fan out or fail: whatever a step does without the world.
    Advance {
        /// The step.
        step: StepIndex,
    },
    /// Start the next attempt of a call, or rehearse it.
    Begin {
        /// The step.
        step: StepIndex,
        /// The item of a `for_each`.
        item: Option<u32>,
    },
    /// Note what came back of an attempt.
    Record {
        /// The step.
        step: StepIndex,
        /// The item of a `for_each`.
        item: Option<u32>,
        /// The attempt.
        attempt: u32,
        /// What came back.
        heard: Heard,
        /// It was under way when a process ended, and was sent again: what the first sending did is unknown.
        again: bool,
        /// Drawn for the pause before another attempt: 0.0 to 1.0.
        jitter: f64,
    },
    /// Fix the caller's answer: this entry of `respond`, or none where no entry holds.
    Respond {
        /// The entry.
        entry: Option<usize>,
    },
    /// End: everything that could happen has.
    Conclude,
    /// Give the request back to legacy.
    Abandon {
        /// Why: a closed set.
        reason: &'static str,
    },
}

/// What came back of an attempt.
#[derive(Clone, Debug, PartialEq)]
pub enum Heard {
    /// A reply.
    Reply {
        /// The status.
        status: u16,
        /// The headers, names in lower case.
        headers: BTreeMap<String, String>,
        /// The decoded body.
        output: Arc<Value>,
        /// `Retry-After`, milliseconds.
        retry_after_ms: Option<u64>,
    },
    /// A reply whose body is beyond a bound, or cannot be decoded.
    Unreadable {
        /// The status.
        status: u16,
        /// What is wrong with it.
        why: String,
    },
    /// The request never left.
    NotSent(String),
    /// It left, and no whole reply came in time.
    TimedOut(String),
    /// It left, and the connection ended before a whole reply.
    CutOff(String),
    /// The process ended while it was under way.
    Interrupted,
}

/// Why an ask is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The run has ended.
    #[error("the run has ended")]
    Ended,
    /// Something else happened first; asking [`super::due`] again tells what is due now.
    #[error("not due: {0}")]
    NotDue(&'static str),
    /// A private or shared step has begun, so legacy may not answer any more.
    #[error("a private or shared step has begun")]
    EffectsBegun,
    /// The caller has an answer.
    #[error("the caller has an answer")]
    Answered,
    /// The plan has no such step.
    #[error("the plan has no such step")]
    NoSuchStep,
}
