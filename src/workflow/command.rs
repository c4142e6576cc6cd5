//! Commands to a run, results of attempts, and the reasons why a command is refused.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{ControlCommand, FailureKind, RunStatus, SensitivePath, StepIndex, StepPart, TreeEffects};
use crate::names::{RunId, Seq, ServiceName, StepId};

/// A command to a run.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Do what a step does without a call: skip, compute, fan out or fail.
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
        /// Which of the step's calls.
        part: StepPart,
    },
    /// Begin a child run for a `run` step.
    BeginChild {
        /// The step.
        step: StepIndex,
        /// The item of a `for_each`.
        item: Option<u32>,
        /// The child's id.
        child: RunId,
    },
    /// Record the end of a child run.
    ChildEnded {
        /// The run.
        child: RunId,
        /// How it ended.
        status: RunStatus,
        /// The body of its answer.
        output: Arc<Value>,
        /// Why it did not complete.
        note: Option<String>,
        /// The kind of failure that ended it, where it failed and that is known.
        failure: Option<FailureKind>,
        /// What it and all runs below it did; `None` where that is not known.
        tree: Option<TreeEffects>,
        /// What of its answer's body is sensitive.
        sensitive: Vec<SensitivePath>,
    },
    /// Record that a child run was not started and never will be, because the files in force do not have its workflow.
    /// As soon as they do, the step begins another child run.
    ChildHasNoWorkflow {
        /// The run.
        child: RunId,
    },
    /// Record that a child run was not started and never will be, because its workflow refuses its input.
    ChildInputRefused {
        /// The run.
        child: RunId,
        /// What is wrong with the input.
        why: String,
    },
    /// Record what the queue of a lock shows.
    LockSeen {
        /// The step.
        step: StepIndex,
        /// The item of a `for_each`.
        item: Option<u32>,
        /// The sequence number of the event that queued the step: what was seen for an earlier entry does not count.
        queued: Seq,
        /// What it shows.
        seen: LockPosition,
    },
    /// Retry a step that waits for a service, secret or workflow, because the files in force have it again.
    RetryMissing {
        /// The step.
        step: StepId,
        /// The item of a `for_each`.
        item: Option<u32>,
    },
    /// Resolve the conflict over a call that was done, because the run ends: the call is undone with what else was
    /// done.
    SkipDone {
        /// The step.
        step: StepId,
        /// The item of a `for_each`.
        item: Option<u32>,
    },
    /// Handle a deadline that has passed: of a question, a wait, or the run. [`super::decide`] finds out which.
    Elapse,
    /// Carry out a command of a person, a program or the parent run.
    Control {
        /// The command.
        command: ControlCommand,
        /// Who gave it.
        by: String,
    },
    /// Pause a run, even if it is ending, because the run was open in a store when that store was copied.
    PauseCopied {
        /// The name under which its events record who paused it.
        by: String,
        /// Why.
        reason: String,
    },
    /// Record the result of an attempt.
    Record {
        /// The step.
        step: StepIndex,
        /// The item of a `for_each`.
        item: Option<u32>,
        /// Which of the step's calls.
        part: StepPart,
        /// The number of the attempt.
        attempt: u32,
        /// Its result.
        result: AttemptResult,
        /// The attempt was under way when a process ended, and was sent again: whether the first sending took effect is
        /// unknown.
        may_be_repeat: bool,
        /// A random number from 0.0 to 1.0, for the length of the pause before another attempt.
        jitter: f64,
    },
    /// Record the caller's answer by this entry of `respond`, or that there is none because no entry holds.
    Respond {
        /// The entry.
        entry: Option<usize>,
    },
    /// Record the answer that the caller gets while the run goes on, where the plan declares one.
    AnswerPending,
    /// End the run, as nothing is left to do; or begin to undo what was done.
    Conclude,
    /// Give the request back to legacy.
    Abandon {
        /// Why: one of a closed set of labels.
        reason: &'static str,
    },
}

/// What the queue of a lock shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LockPosition {
    /// The step stands first: it holds the lock.
    First,
    /// Another run holds it.
    Behind {
        /// The run that holds it.
        holder: RunId,
    },
    /// Another run holds it, and waits for this one, directly or through other runs.
    Deadlock {
        /// The links of the cycle.
        links: Vec<WaitLink>,
    },
}

/// One link in a cycle of runs that wait for each other: the holder keeps its lock until the waiter, a run that it
/// began, has ended, and the waiter waits for the next lock of the cycle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitLink {
    /// The run that holds a lock.
    pub holder: RunId,
    /// The lock that it holds.
    pub holds: String,
    /// The run that waits, and has to end before the holder releases its lock.
    pub waiter: RunId,
    /// The lock that it waits for.
    pub wants: String,
}

impl std::fmt::Display for WaitLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let WaitLink { holder, holds, waiter, wants } = self;
        write!(f, "{holder} holds `{holds}`, and {waiter}, which it began, wants `{wants}`")
    }
}

/// The result of an attempt.
#[derive(Clone, Debug, PartialEq)]
pub enum AttemptResult {
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
    /// A reply whose body exceeds a bound, or cannot be decoded.
    Unreadable {
        /// The status.
        status: u16,
        /// What is wrong with it.
        why: String,
        /// The beginning of the body.
        body_start: String,
    },
    /// The request was never sent.
    NotSent(String),
    /// It was never sent: the breaker of the service is open.
    BreakerOpen {
        /// The service.
        service: ServiceName,
        /// After how many milliseconds the breaker admits a call again: an attempt before that would be refused.
        retry_after_ms: u64,
    },
    /// It was never sent: the rate of the service admits no call so soon. A real run uses up no attempt, unless a
    /// caller waits.
    OverRate {
        /// Which rate, as a clause for people.
        why: String,
        /// After how many milliseconds the rate admits the next call.
        retry_after_ms: u64,
    },
    /// It was never sent: while the call waited for a free slot, another process may have taken over the run, or
    /// effects were frozen. No attempt is used up.
    Withheld(String),
    /// It was never sent: before its turn at the service came (`calls_max`, `rate`), the run was paused or ended, or
    /// the process was stopped. No attempt is used up.
    Withdrawn,
    /// It was never sent: a service or a secret is not in the files in force, or the service has another base URL than
    /// the recorded request. No attempt is used up.
    Missing(String),
    /// It was sent, and no complete reply came in time.
    TimedOut(String),
    /// It was sent, and the connection ended before a complete reply.
    CutOff(String),
    /// The process ended while it was under way.
    Interrupted,
}

/// A sentence that is fixed in the code. A refusal with one is never serialised: it could not be read back.
type FixedSentence = &'static str;

/// Why a command is refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CommandRefusal {
    /// The run has ended.
    #[error("the run has ended")]
    Ended,
    /// Another event came first; [`super::due`] tells what is due now.
    #[error("not due: {0}")]
    #[serde(skip)]
    NotDue(FixedSentence),
    /// A private or shared step has begun, so legacy may not answer any more.
    #[error("a private or shared step has begun")]
    EffectsBegun,
    /// The caller has an answer.
    #[error("the caller has an answer")]
    Answered,
    /// The plan has no such step.
    #[error("the plan has no such step")]
    NoSuchStep,
    /// It is not possible in the run's current state.
    #[error("{0}")]
    #[serde(alias = "no_sense")]
    NotApplicable(String),
    /// The checkpoint was answered before.
    #[error("the checkpoint was answered before, by {by}")]
    AnsweredBefore {
        /// Who answered it.
        by: String,
        /// The answer that was given.
        said: Box<super::CheckpointAnswer>,
        /// The sequence number of the answer's event.
        seq: Seq,
    },
    /// There is no such checkpoint.
    #[error("the run has no such checkpoint")]
    NoSuchCheckpoint,
    /// Other people have to answer this.
    #[error("{0}")]
    NotYours(String),
    /// The values do not fit the schema: JSON pointers and what is wrong.
    #[error("the answer is not what was asked for: {}", .0.join("; "))]
    BadValues(Vec<String>),
}
