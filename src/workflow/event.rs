//! Past-tense facts of a run.
//!
//! Always true: the first event is [`Event::RunStarted`] and carries all that the run may ever need of its request; a
//! step's outward call is two facts, [`Event::StepStarted`] before it leaves and [`Event::StepFinished`] after, and a
//! step (an item of a fan-out) has at most one [`Event::StepFinished`] of each part, however many attempts it took. No event holds
//! a secret: recorded headers and URLs show stars in their place, credentials of callers are ciphertext.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    AnswerRecord, Asked, Choice, Conflict, Failure, OnTimeout, Outcome, Part, Pinned, ResultTaken, RetryScheduled,
    RunStarted, RunStatus, Said, Skipped, StepFinished, StepStarted, Superseded,
};
use crate::names::{CheckpointId, RunId, Seq, StepId, WorkflowName};

/// One fact. Externally tagged on purpose: with arbitrary-precision numbers serde's other taggings break integers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// The run was born.
    RunStarted(Arc<RunStarted>),
    /// An attempt of a call is about to leave.
    StepStarted(StepStarted),
    /// A call ended for good.
    StepFinished(StepFinished),
    /// An attempt ended without a result; the next one starts at a time.
    RetryScheduled(RetryScheduled),
    /// A `set` step has its value.
    StepComputed {
        /// Which step.
        step: StepId,
        /// Its value.
        output: Arc<Value>,
    },
    /// A step will not run.
    StepSkipped {
        /// Which step.
        step: StepId,
        /// The item of a `for_each`, where not the whole step is skipped.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        item: Option<u32>,
        /// Why not.
        reason: Skipped,
    },
    /// A `for_each` knows its items.
    FanOutOpened {
        /// Which step.
        step: StepId,
        /// The items, in order.
        items: Vec<Arc<Value>>,
        /// Items that fail are collected, and the others go on.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        collect: bool,
    },
    /// A `fail` step was reached: the run ends with this answer.
    FailReached {
        /// Which step.
        step: StepId,
        /// The answer.
        answer: Arc<AnswerRecord>,
    },
    /// The caller's answer is fixed.
    Responded {
        /// The answer.
        answer: Arc<AnswerRecord>,
        /// The instance that the answer created.
        pin: Option<Pinned>,
    },
    /// The caller got this while the run goes on.
    PendingAnswered {
        /// The answer.
        answer: Arc<AnswerRecord>,
        /// The instance that it names.
        pin: Option<Pinned>,
    },
    /// The run's deadline has passed: it ends early.
    DeadlinePassed {},
    /// No answer could be made.
    AnswerFailed {
        /// Why.
        failure: Failure,
    },
    /// The run cannot go on without a person.
    Paused {
        /// Over what.
        conflict: Box<Conflict>,
        /// What the attempt gave, where it was done all the same ([`super::Outcome::Unfit`]).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        gave: Option<Box<Outcome>>,
    },
    /// Attempts of a step are used up or useless, and nothing was done: its fallback takes its place.
    FallbackTaken {
        /// Which step.
        step: StepId,
        /// Its fallback.
        by: StepId,
        /// Why: what the step would have failed with.
        failure: Failure,
    },
    /// A probe said what an unknown attempt did.
    Probed {
        /// Which step.
        step: StepId,
        /// The item of a `for_each`.
        item: Option<u32>,
        /// The attempt that was asked about.
        attempt: u32,
        /// Whether it took place; `None` where the probe could not say.
        done: Option<bool>,
        /// What the probe answered, as `output` of the step where it was done.
        output: Arc<Value>,
    },
    /// Somebody resolved a conflict.
    Resolved {
        /// The step.
        step: StepId,
        /// The item of a `for_each`.
        item: Option<u32>,
        /// Of which part of the step.
        #[serde(default, skip_serializing_if = "Part::is_do")]
        part: Part,
        /// How.
        choice: Choice,
        /// Who.
        by: String,
        /// Why.
        reason: Option<String>,
    },
    /// Somebody asked the run to begin nothing more.
    PauseOrdered {
        /// Who.
        by: String,
        /// Why.
        reason: Option<String>,
    },
    /// It goes on.
    Resumed {
        /// Who.
        by: String,
        /// Why.
        reason: Option<String>,
    },
    /// Somebody asked for the run's end.
    CancelOrdered {
        /// Who.
        by: String,
        /// What is done and has an `undo` is undone first.
        compensate: bool,
        /// Why.
        reason: Option<String>,
    },
    /// A step that has not begun gets this input.
    InputAdjusted {
        /// Which step.
        step: StepId,
        /// The item of a `for_each`.
        item: Option<u32>,
        /// The input.
        input: Arc<Value>,
        /// Who.
        by: String,
        /// Why.
        reason: Option<String>,
    },
    /// A wait was cut short: the next attempt starts now.
    RetriedNow {
        /// Which step.
        step: StepId,
        /// The item of a `for_each`.
        item: Option<u32>,
        /// Who.
        by: String,
    },
    /// The run waits for a person.
    CheckpointOpened(Box<Asked>),
    /// A person (or the time-out) answered.
    CheckpointAnswered {
        /// Which.
        checkpoint: CheckpointId,
        /// What.
        said: Said,
        /// Who; `time-out` is nobody.
        by: String,
    },
    /// Nobody answered in time: others are asked.
    CheckpointEscalated {
        /// Which.
        checkpoint: CheckpointId,
        /// Who may answer now.
        who: Vec<String>,
        /// Until when.
        until: Option<Timestamp>,
        /// How it is answered by itself then.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        on_timeout: Option<OnTimeout>,
    },
    /// A `wait` step began to wait.
    WaitBegan {
        /// Which step.
        step: StepId,
        /// Until when.
        until: Option<Timestamp>,
        /// For which signal.
        signal: Option<String>,
    },
    /// A signal came; kept until a step takes it.
    SignalReceived {
        /// Its name.
        name: String,
        /// What it carries.
        payload: Arc<Value>,
        /// Names the delivery.
        id: Option<String>,
        /// Who sent it.
        by: String,
    },
    /// A `wait` step is over.
    WaitEnded {
        /// Which step.
        step: StepId,
        /// The place of the signal's event that ended it; `None` is the time.
        signal: Option<Seq>,
        /// Its output: the signal's payload.
        output: Arc<Value>,
    },
    /// A step stands in a lock's queue.
    LockQueued {
        /// Which step.
        step: StepId,
        /// The item of a `for_each`.
        item: Option<u32>,
        /// The lock.
        name: String,
    },
    /// It holds the lock.
    LockTaken {
        /// Which step.
        step: StepId,
        /// The item of a `for_each`.
        item: Option<u32>,
        /// The lock.
        name: String,
    },
    /// It stands in the queue no more.
    LockLeft {
        /// Which step.
        step: StepId,
        /// The item of a `for_each`.
        item: Option<u32>,
        /// The lock.
        name: String,
    },
    /// A `run` step begins another run, under this id.
    ChildStarted {
        /// Which step.
        step: StepId,
        /// The item of a `for_each`.
        item: Option<u32>,
        /// The run's id.
        child: RunId,
        /// Its workflow.
        workflow: WorkflowName,
        /// Its input: the body of its request.
        input: Arc<Value>,
    },
    /// That run ended.
    ChildEnded {
        /// Which step.
        step: StepId,
        /// The item of a `for_each`.
        item: Option<u32>,
        /// The run's id.
        child: RunId,
        /// How.
        status: RunStatus,
        /// The body of its answer.
        output: Arc<Value>,
        /// Why it did not complete.
        note: Option<String>,
        /// It did something that a person may want to take back.
        #[serde(default = "yes", skip_serializing_if = "is_yes")]
        effects: bool,
        /// It completed, and its answer is not what the step promises: the next event says what comes of that.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        unfit: bool,
    },
    /// A rerun takes over what the run before it had.
    ResultTaken(Box<ResultTaken>),
    /// The run ended because another one takes its place.
    Superseded(Box<Superseded>),
    /// What is done and has an `undo` is being undone.
    CompensationBegan {
        /// In this order; those of one inner list at the same time.
        undo: Vec<Vec<(StepId, Option<u32>)>>,
    },
    /// The run ended because somebody said so.
    Cancelled {
        /// Who.
        by: String,
        /// Why.
        reason: Option<String>,
    },
    /// Every step ended.
    Completed {},
    /// The run ended early.
    Failed {
        /// Over what.
        failure: Failure,
    },
    /// The run was given up before anything private or shared began; legacy answers.
    Abandoned {
        /// Who takes the request instead.
        to: String,
        /// Why.
        reason: String,
    },
}

fn yes() -> bool {
    true
}

#[allow(clippy::trivially_copy_pass_by_ref)] // as serde hands it over
fn is_yes(value: &bool) -> bool {
    *value
}

impl Event {
    /// The version of this event's shape; a reader refuses newer ones.
    pub const VERSION: u16 = 2;
    /// Its name in the store and in listings (`step_started`).
    pub fn kind(&self) -> &'static str {
        match self {
            Event::RunStarted(_) => "run_started",
            Event::StepStarted(_) => "step_started",
            Event::StepFinished(_) => "step_finished",
            Event::RetryScheduled(_) => "retry_scheduled",
            Event::StepComputed { .. } => "step_computed",
            Event::StepSkipped { .. } => "step_skipped",
            Event::FanOutOpened { .. } => "fan_out_opened",
            Event::FailReached { .. } => "fail_reached",
            Event::Responded { .. } => "responded",
            Event::PendingAnswered { .. } => "pending_answered",
            Event::DeadlinePassed {} => "deadline_passed",
            Event::AnswerFailed { .. } => "answer_failed",
            Event::Paused { .. } => "paused",
            Event::FallbackTaken { .. } => "fallback_taken",
            Event::Probed { .. } => "probed",
            Event::Resolved { .. } => "resolved",
            Event::PauseOrdered { .. } => "pause_ordered",
            Event::Resumed { .. } => "resumed",
            Event::CancelOrdered { .. } => "cancel_ordered",
            Event::InputAdjusted { .. } => "input_adjusted",
            Event::RetriedNow { .. } => "retried_now",
            Event::CheckpointOpened(_) => "checkpoint_opened",
            Event::CheckpointAnswered { .. } => "checkpoint_answered",
            Event::CheckpointEscalated { .. } => "checkpoint_escalated",
            Event::WaitBegan { .. } => "wait_began",
            Event::SignalReceived { .. } => "signal_received",
            Event::WaitEnded { .. } => "wait_ended",
            Event::LockQueued { .. } => "lock_queued",
            Event::LockTaken { .. } => "lock_taken",
            Event::LockLeft { .. } => "lock_left",
            Event::ChildStarted { .. } => "child_started",
            Event::ChildEnded { .. } => "child_ended",
            Event::ResultTaken(_) => "result_taken",
            Event::Superseded(_) => "superseded",
            Event::CompensationBegan { .. } => "compensation_began",
            Event::Cancelled { .. } => "cancelled",
            Event::Completed {} => "completed",
            Event::Failed { .. } => "failed",
            Event::Abandoned { .. } => "abandoned",
        }
    }
}
