//! What a run can be asked to do, what came back from a call, and why an ask is refused.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Order, Part, RunStatus, StepIndex};
use crate::names::{RunId, Seq, ServiceName, StepId};

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
        /// Which of the step's calls.
        part: Part,
    },
    /// Begin another run for a `run` step.
    BeginChild {
        /// The step.
        step: StepIndex,
        /// The item of a `for_each`.
        item: Option<u32>,
        /// The id that it gets.
        child: RunId,
    },
    /// Note the end of a run that a `run` step began.
    ChildEnded {
        /// The run.
        child: RunId,
        /// How it ended.
        status: RunStatus,
        /// The body of its answer.
        output: Arc<Value>,
        /// Why it did not complete.
        note: Option<String>,
        /// It did something that a person may want to take back.
        effects: bool,
    },
    /// Note that a run that a `run` step began was not started and never will be, because the files in force do not have
    /// its workflow. As soon as they do, the step begins another one.
    ChildHasNoWorkflow {
        /// The run.
        child: RunId,
    },
    /// Note what the queue of a lock shows.
    LockSeen {
        /// The step.
        step: StepIndex,
        /// The item of a `for_each`.
        item: Option<u32>,
        /// The place of the event with which it stood in line: what was seen of an earlier place says nothing.
        queued: Seq,
        /// What it shows.
        seen: LockSeen,
    },
    /// Go on where something was missing that the files in force have again.
    Mended {
        /// The step.
        step: StepId,
        /// The item of a `for_each`.
        item: Option<u32>,
    },
    /// A time is over: of a checkpoint, a wait, a step, or the run. What it means is looked up.
    Elapse,
    /// What somebody asks.
    Order {
        /// What.
        order: Order,
        /// Who.
        by: String,
    },
    /// Note what came back of an attempt.
    Record {
        /// The step.
        step: StepIndex,
        /// The item of a `for_each`.
        item: Option<u32>,
        /// Which of the step's calls.
        part: Part,
        /// The attempt.
        attempt: u32,
        /// What came back.
        heard: AttemptResult,
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
    /// Fix what the caller gets while the run goes on, where the plan declares it.
    AnswerPending,
    /// End: everything that could happen has; or undo what was done.
    Conclude,
    /// Give the request back to legacy.
    Abandon {
        /// Why: a closed set.
        reason: &'static str,
    },
}

/// What the queue of a lock shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LockSeen {
    /// The step stands first: it holds the lock.
    First,
    /// Another run does.
    Behind {
        /// Which.
        holder: RunId,
    },
    /// Another run does, and goes on only after this one.
    Deadlock {
        /// Who keeps whom waiting, all the way round.
        knots: Vec<Knot>,
    },
}

/// A run that holds a lock while a run that it began waits for another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Knot {
    /// Who holds.
    pub holder: RunId,
    /// What.
    pub holds: String,
    /// Who waits, and has to end before the holder lets go.
    pub waiter: RunId,
    /// What for.
    pub wants: String,
}

impl std::fmt::Display for Knot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Knot { holder, holds, waiter, wants } = self;
        write!(f, "{holder} holds `{holds}`, and {waiter}, which it began, wants `{wants}`")
    }
}

/// What came back of an attempt.
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
    /// A reply whose body is beyond a bound, or cannot be decoded.
    Unreadable {
        /// The status.
        status: u16,
        /// What is wrong with it.
        why: String,
        /// How the body begins.
        begins: String,
    },
    /// The request never left.
    NotSent(String),
    /// It never left either: the service's breaker is open, so that another attempt before its time is in vain.
    BreakerOpen {
        /// Whose breaker.
        service: ServiceName,
        /// When the next probe may go, milliseconds from now.
        retry_after_ms: u64,
    },
    /// It never left, held back at the last moment: the run may have become another process's while the call waited for
    /// its turn, or effects were frozen meanwhile. No attempt is used up.
    Withheld(String),
    /// It never left: a service or a secret is not in the files in force. No attempt is used up.
    Missing(String),
    /// It left, and no whole reply came in time.
    TimedOut(String),
    /// It left, and the connection ended before a whole reply.
    CutOff(String),
    /// The process ended while it was under way.
    Interrupted,
}

/// A sentence of the code's own, which no store keeps.
type NotKept = &'static str;

/// Why an ask is refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// The run has ended.
    #[error("the run has ended")]
    Ended,
    /// Something else happened first; asking [`super::due`] again tells what is due now.
    #[error("not due: {0}")]
    #[serde(skip)]
    NotDue(NotKept),
    /// A private or shared step has begun, so legacy may not answer any more.
    #[error("a private or shared step has begun")]
    EffectsBegun,
    /// The caller has an answer.
    #[error("the caller has an answer")]
    Answered,
    /// The plan has no such step.
    #[error("the plan has no such step")]
    NoSuchStep,
    /// It makes no sense where the run stands now.
    #[error("{0}")]
    #[serde(alias = "no_sense")]
    NotApplicable(String),
    /// The checkpoint was answered before.
    #[error("the checkpoint was answered before, by {by}")]
    AnsweredBefore {
        /// Who.
        by: String,
        /// How.
        said: Box<super::CheckpointAnswer>,
        /// When: the place of the event.
        seq: Seq,
    },
    /// There is no such checkpoint.
    #[error("the run has no such checkpoint")]
    NoSuchCheckpoint,
    /// Somebody else has to say this.
    #[error("{0}")]
    NotYours(String),
    /// The values are not what was asked for: JSON pointers and what is wrong.
    #[error("the answer is not what was asked for: {}", .0.join("; "))]
    BadValues(Vec<String>),
}
