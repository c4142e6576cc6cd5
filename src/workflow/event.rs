//! Past-tense facts of a run.
//!
//! Always true: the first event is [`Event::RunStarted`] and carries all that the run may ever need of its request; a
//! step's outward call is two facts, [`Event::StepStarted`] before it leaves and [`Event::StepFinished`] after, and a
//! step (an item of a fan-out) has at most one [`Event::StepFinished`], however many attempts it took. No event holds
//! a secret: recorded headers and URLs show stars in their place, credentials of callers are ciphertext.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Conflict, EffectClass, Failure, Mode};
use crate::names::{PlanId, RouteId, RunId, StepId, WorkflowName};

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
        /// Why not.
        reason: Skipped,
    },
    /// A `for_each` knows its items.
    FanOutOpened {
        /// Which step.
        step: StepId,
        /// The items, in order.
        items: Vec<Arc<Value>>,
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
    /// No answer could be made.
    AnswerFailed {
        /// Why.
        failure: Failure,
    },
    /// The run cannot go on without a person.
    Paused {
        /// Over what.
        conflict: Conflict,
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

/// The birth of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunStarted {
    /// Its id.
    pub run: RunId,
    /// What it runs.
    pub workflow: WorkflowName,
    /// The plan it keeps for its whole life.
    pub plan: PlanId,
    /// What it may send, for its whole life.
    pub mode: Mode,
    /// The route that started it, if one did.
    pub route: Option<RouteId>,
    /// When.
    pub started: Timestamp,
    /// Those parts of the request that the plan reads, without credentials.
    pub request: Arc<Value>,
    /// Headers of the request that are credentials and that the plan reads: their names.
    pub credentials: Vec<String>,
    /// Their values, as ciphertext.
    pub sealed: Option<String>,
    /// Those parts of legacy's reply that the plan reads, where legacy answered first.
    pub legacy: Option<Arc<Value>>,
    /// What the creating run left, where this one follows up an instance.
    pub instance: Option<Arc<Value>>,
    /// What the answer creates.
    pub creates: Option<Creates>,
    /// The trace that the caller's request belongs to: sent on with every call.
    pub traceparent: Option<String>,
}

/// Where the id of a created instance comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Creates {
    /// From the engine's own answer, at a JSONPath.
    #[serde(rename = "engine")]
    Engine {
        /// The creator's route id.
        family: RouteId,
        /// The JSONPath in the answer's body.
        path: String,
    },
    /// The run is the twin of an instance that legacy created under this id.
    #[serde(rename = "twin")]
    Twin {
        /// The creator's route id.
        family: RouteId,
        /// Legacy's id.
        id: String,
    },
}

/// An instance that an answer created.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pinned {
    /// The creator's route id.
    pub family: RouteId,
    /// The instance's id.
    pub id: String,
    /// It is legacy's, and the run its twin.
    pub twin: bool,
}

/// An attempt of a call is about to leave.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepStarted {
    /// Which step.
    pub step: StepId,
    /// The item of a `for_each`.
    pub item: Option<u32>,
    /// From 1.
    pub attempt: u32,
    /// The same for every attempt; travels as `Idempotency-Key`. Only where the step is private or shared.
    pub key: Option<String>,
    /// What it does to the world.
    pub effect: EffectClass,
    /// Whether sending it again after an unknown outcome does no harm.
    pub repeatable: bool,
    /// The request; `None` in later attempts, which send the first one's bytes.
    pub request: Option<Arc<CallRecord>>,
}

/// A call ended for good.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepFinished {
    /// Which step.
    pub step: StepId,
    /// The item of a `for_each`.
    pub item: Option<u32>,
    /// The attempt that ended it; 0 where none was made.
    pub attempt: u32,
    /// How.
    pub outcome: Outcome,
}

/// An attempt ended without a result, and another follows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RetryScheduled {
    /// Which step.
    pub step: StepId,
    /// The item of a `for_each`.
    pub item: Option<u32>,
    /// The attempt that ended.
    pub attempt: u32,
    /// Whether it is unknown what the attempt did; otherwise it did nothing for certain.
    pub unknown: bool,
    /// What happened, for a person.
    pub why: String,
    /// When the next one starts.
    pub at: Timestamp,
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// With a status that the step accepts.
    Done {
        /// The status.
        status: u16,
        /// The reply's headers, names in lower case.
        headers: BTreeMap<String, String>,
        /// The decoded body.
        output: Arc<Value>,
    },
    /// Certainly nothing was done, and no attempt is left.
    NotDone {
        /// What happened.
        failure: Failure,
    },
    /// It is unknown what was done (only of reads: another step pauses the run instead).
    Unknown {
        /// What happened.
        failure: Failure,
    },
    /// For good: a status outside `accept`, an expression without a value, a reply beyond a bound.
    Failed {
        /// What happened.
        failure: Failure,
    },
    /// Nothing was sent: the intent is recorded.
    Rehearsed {
        /// What would have been sent.
        intent: Arc<CallRecord>,
        /// What `rehearse:` gave; `None` where nobody declared it.
        output: Option<Arc<Value>>,
        /// Why `rehearse:` gave nothing, where it was declared.
        note: Option<String>,
    },
}

/// Why a step will not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Skipped {
    /// Its `if` was false.
    Condition,
    /// Something that it needs was skipped.
    Needs,
}

/// A request as it is sent, without secrets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CallRecord {
    /// The method.
    pub method: String,
    /// The whole URL; stars where a secret stands.
    pub url: String,
    /// What `headers:` name, and `content-type`; stars where a secret stands.
    pub headers: Vec<(String, String)>,
    /// The exact bytes of the body.
    pub body: Payload,
}

/// An answer to the caller.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AnswerRecord {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: Vec<(String, String)>,
    /// The exact bytes of the body.
    pub body: Payload,
}

/// Bytes, readable where they are text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Payload {
    /// None.
    Empty,
    /// UTF-8.
    Text(String),
    /// Anything else, in base64.
    Base64(String),
}

impl Payload {
    /// Wraps bytes.
    pub fn of(bytes: &[u8]) -> Self {
        use base64::Engine as _;
        match std::str::from_utf8(bytes) {
            Ok("") => Payload::Empty,
            Ok(text) => Payload::Text(text.to_owned()),
            Err(_) => Payload::Base64(base64::engine::general_purpose::STANDARD.encode(bytes)),
        }
    }
    /// The bytes; base64 that nobody here wrote gives none.
    pub fn bytes(&self) -> Vec<u8> {
        use base64::Engine as _;
        match self {
            Payload::Empty => Vec::new(),
            Payload::Text(text) => text.as_bytes().to_vec(),
            Payload::Base64(text) => base64::engine::general_purpose::STANDARD.decode(text).unwrap_or_default(),
        }
    }
    /// The value that it holds: JSON where it parses, else text, else `null`.
    pub fn value(&self) -> Value {
        match self {
            Payload::Empty | Payload::Base64(_) => Value::Null,
            Payload::Text(text) => serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.clone())),
        }
    }
}

impl Event {
    /// The version of this event's shape; a reader refuses newer ones.
    pub const VERSION: u16 = 1;
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
            Event::AnswerFailed { .. } => "answer_failed",
            Event::Paused { .. } => "paused",
            Event::Completed {} => "completed",
            Event::Failed { .. } => "failed",
            Event::Abandoned { .. } => "abandoned",
        }
    }
}
