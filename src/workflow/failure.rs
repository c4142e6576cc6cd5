//! Why a run ended early, or waits for a person.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{CallRecord, StepPart};
use crate::names::{ServiceName, StepId, WorkflowName};

/// Why a run ended early, in a form that becomes the caller's problem document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The kind of failure.
    pub kind: FailureKind,
    /// The step in which it happened.
    pub step: Option<StepId>,
    /// The item of a `for_each`.
    pub item: Option<u32>,
    /// The status that a service answered with.
    pub status: Option<u16>,
    /// What happened, in a sentence.
    pub message: String,
    /// How many milliseconds to wait before another try, as the service (`Retry-After`) or its breaker says.
    pub retry_after_ms: Option<u64>,
    /// If a child run made this run fail: the kind of the child's failure, or of that of the lowest run, if runs below
    /// the child made the child fail. Absent in events of earlier versions, and in a run that is not real, where `kind`
    /// may be that of the child's failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub below: Option<FailureKind>,
}

/// Kinds of failure: a closed set of labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// A service answered with a status outside `accept`.
    Refused,
    /// A service certainly did nothing, and no attempt is left.
    Unavailable,
    /// A read did not answer in time, a signal did not come, or the run's deadline has passed.
    TimedOut,
    /// A read was cut off, or answered with a 5xx other than 503.
    Broken,
    /// An expression has no value.
    Expression,
    /// A rehearsal needs an output that no `rehearse:` gives.
    Unresolved,
    /// A bound was hit: items, size or nesting of an output.
    Bound,
    /// No entry of `respond` holds.
    NoAnswer,
    /// A `fail` step was reached: the declared answer goes out.
    Declared,
    /// A step's output does not fit its schema.
    Schema,
    /// Somebody cancelled the run.
    Cancelled,
    /// A person said no, or nobody answered in time.
    Rejected,
    /// A child run did not complete.
    ChildFailed,
    /// A rehearsal would have to ask a person.
    NeedsPerson,
    /// A rehearsal would have to wait for a signal.
    NeedsSignal,
    /// A rehearsal would pause until a person decides.
    WouldPause,
}

/// What a rehearsal would have needed and did not have; its comparison is skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MissingForRehearsal {
    /// An output that no `rehearse:` gives.
    Output,
    /// A person's answer.
    Person,
    /// A signal.
    Signal,
    /// A person's decision, for which it would pause.
    Decision,
}

impl FailureKind {
    /// The label.
    pub fn as_str(self) -> &'static str {
        match self {
            FailureKind::Refused => "refused",
            FailureKind::Unavailable => "unavailable",
            FailureKind::TimedOut => "timed_out",
            FailureKind::Broken => "broken",
            FailureKind::Expression => "expression",
            FailureKind::Unresolved => "unresolved",
            FailureKind::Bound => "bound",
            FailureKind::NoAnswer => "no_answer",
            FailureKind::Declared => "declared",
            FailureKind::Schema => "schema",
            FailureKind::Cancelled => "cancelled",
            FailureKind::Rejected => "rejected",
            FailureKind::ChildFailed => "child_failed",
            FailureKind::NeedsPerson => "needs_person",
            FailureKind::NeedsSignal => "needs_signal",
            FailureKind::WouldPause => "would_pause",
        }
    }
    /// Whether a person's decision against the request may be the cause. Every other kind means that something went
    /// wrong.
    pub fn may_follow_decision(self) -> bool {
        match self {
            FailureKind::Cancelled | FailureKind::Rejected | FailureKind::ChildFailed => true,
            FailureKind::Refused
            | FailureKind::Unavailable
            | FailureKind::TimedOut
            | FailureKind::Broken
            | FailureKind::Expression
            | FailureKind::Unresolved
            | FailureKind::Bound
            | FailureKind::NoAnswer
            | FailureKind::Declared
            | FailureKind::Schema
            | FailureKind::NeedsPerson
            | FailureKind::NeedsSignal
            | FailureKind::WouldPause => false,
        }
    }
    /// Whether this counts as the failure of a service: `TimedOut` always does, although the run's deadline or a signal
    /// may be the cause. A refusal does not: it is an answer to the request.
    pub(super) fn is_of_service(self) -> bool {
        match self {
            FailureKind::Unavailable | FailureKind::TimedOut | FailureKind::Broken | FailureKind::Schema => true,
            FailureKind::Refused
            | FailureKind::Expression
            | FailureKind::Unresolved
            | FailureKind::Bound
            | FailureKind::NoAnswer
            | FailureKind::Declared
            | FailureKind::Cancelled
            | FailureKind::Rejected
            | FailureKind::ChildFailed
            | FailureKind::NeedsPerson
            | FailureKind::NeedsSignal
            | FailureKind::WouldPause => false,
        }
    }
    /// What a rehearsal lacks that only a declared output, a person or a signal could give. Then the workflow did not
    /// fail, and there is nothing to compare. `None`: the run can be compared.
    pub fn missing_for_rehearsal(self) -> Option<MissingForRehearsal> {
        match self {
            FailureKind::Unresolved => Some(MissingForRehearsal::Output),
            FailureKind::NeedsPerson => Some(MissingForRehearsal::Person),
            FailureKind::NeedsSignal => Some(MissingForRehearsal::Signal),
            FailureKind::WouldPause => Some(MissingForRehearsal::Decision),
            FailureKind::Refused
            | FailureKind::Unavailable
            | FailureKind::TimedOut
            | FailureKind::Broken
            | FailureKind::Expression
            | FailureKind::Bound
            | FailureKind::NoAnswer
            | FailureKind::Declared
            | FailureKind::Schema
            | FailureKind::Cancelled
            | FailureKind::Rejected
            | FailureKind::ChildFailed => None,
        }
    }
    /// The status that a caller gets where the workflow declares no answer, and no run below it failed.
    pub fn default_status(self) -> u16 {
        match self {
            FailureKind::Refused | FailureKind::Broken | FailureKind::Schema => 502,
            FailureKind::Unavailable => 503,
            FailureKind::TimedOut => 504,
            FailureKind::Expression
            | FailureKind::Unresolved
            | FailureKind::Bound
            | FailureKind::NoAnswer
            | FailureKind::Declared
            | FailureKind::ChildFailed
            | FailureKind::NeedsPerson
            | FailureKind::NeedsSignal
            | FailureKind::WouldPause => 500,
            FailureKind::Rejected => 403,
            // Nothing failed, and a retry with the same key gets the same answer.
            FailureKind::Cancelled => 409,
        }
    }
}

impl Failure {
    /// A failure in a step.
    pub fn of_step(kind: FailureKind, step: &StepId, item: Option<u32>, message: impl Into<String>) -> Self {
        Self { step: Some(step.clone()), item, ..Self::of_run(kind, message) }
    }
    /// A failure outside any step.
    pub fn of_run(kind: FailureKind, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { kind, step: None, item: None, status: None, message, retry_after_ms: None, below: None }
    }
    /// How the run failed; where a run below it failed, how that one did.
    pub fn kind_at_bottom(&self) -> FailureKind {
        self.below.unwrap_or(self.kind)
    }
    /// The status that a caller gets where the workflow declares no answer. Where a service of a child run failed, it
    /// is the same as without the child.
    pub fn default_status(&self) -> u16 {
        let of_service = self.below.map(FailureKind::default_status).filter(|status| (502..=504).contains(status));
        of_service.unwrap_or_else(|| self.kind.default_status())
    }
}

/// A situation in which a run cannot go on until a person has chosen how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Conflict {
    /// The kind of conflict.
    pub kind: ConflictKind,
    /// The step.
    pub step: StepId,
    /// The item of a `for_each`.
    pub item: Option<u32>,
    /// Which of the step's calls.
    #[serde(default, skip_serializing_if = "StepPart::is_do")]
    pub part: StepPart,
    /// The attempt whose outcome is in question; 0 where none was made.
    pub attempt: u32,
    /// What happened, in a sentence.
    pub message: String,
    /// The status that came back, if one did.
    pub status: Option<u16>,
    /// What was sent.
    pub request: Option<std::sync::Arc<CallRecord>>,
    /// The attempt's `Idempotency-Key`: what to ask the service about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// What came back, redacted and shortened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response: Option<std::sync::Arc<serde_json::Value>>,
    /// What was expected, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
    /// The choices offered: names of [`super::Choice`].
    #[serde(default)]
    pub choices: Vec<String>,
    /// Whether its message names what has changed since an earlier attempt: the URL of the service, or a secret that
    /// has another value now. Absent in events of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub names_earlier_url: Option<bool>,
    /// Of a conflict over something that the files lack: what that is. Absent in events of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<Missing>,
}

/// The words before the URL of an earlier attempt in a conflict's message, where its service has had another URL since.
pub(super) const WENT_TO: &str = "that attempt went to";

impl Conflict {
    /// Whether its message names what has changed since an earlier attempt. In conflicts of earlier versions, the URL
    /// of that attempt is recognised in the message.
    pub(super) fn names_earlier_url(&self) -> bool {
        self.names_earlier_url.unwrap_or_else(|| self.message.contains(WENT_TO))
    }
}

/// Kinds of conflict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ConflictKind {
    /// It is unknown whether a private or shared step was done, and sending it again could do it twice.
    OutcomeUnknown,
    /// A service answered 409, 412 or 422, or another status outside `accept` where the step says `on_failure: pause`
    /// or an earlier attempt may have taken effect.
    Refused,
    /// A step's output does not fit its schema, or exceeds a bound.
    Schema,
    /// An expression has no value.
    Expression,
    /// What was done could not be undone.
    UndoFailed,
    /// It is unknown whether what was done was undone, and another attempt could undo it twice.
    UndoUnknown,
    /// Attempts are used up, and the step says `on_failure: pause`.
    AttemptsUsedUp,
    /// A lock is held, and the step says `busy: ask`.
    Busy,
    /// Runs wait for each other's locks.
    Deadlock,
    /// A child run did not complete.
    ChildFailed,
    /// Every step that the answer needs has ended, and no answer can be made.
    Answer,
    /// A service, a secret or a workflow that the step needs is not in the files in force.
    Missing,
}

impl ConflictKind {
    /// The label.
    pub fn as_str(self) -> &'static str {
        match self {
            ConflictKind::OutcomeUnknown => "outcome_unknown",
            ConflictKind::Refused => "refused",
            ConflictKind::Schema => "schema",
            ConflictKind::Expression => "expression",
            ConflictKind::UndoFailed => "undo_failed",
            ConflictKind::UndoUnknown => "undo_unknown",
            ConflictKind::AttemptsUsedUp => "attempts_used_up",
            ConflictKind::Busy => "busy",
            ConflictKind::Deadlock => "deadlock",
            ConflictKind::ChildFailed => "child_failed",
            ConflictKind::Answer => "answer",
            ConflictKind::Missing => "missing",
        }
    }
}

/// Something that the files in force do not have.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Missing {
    /// A service.
    Service(ServiceName),
    /// A secret.
    Secret(String),
    /// A workflow.
    Workflow(WorkflowName),
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Missing::Service(name) => write!(f, "the service `{name}`"),
            Missing::Secret(name) => write!(f, "the secret `{name}`"),
            Missing::Workflow(name) => write!(f, "the workflow `{name}`"),
        }
    }
}
