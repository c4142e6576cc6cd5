//! What stands in a run's events: births, attempts, outcomes, answers.
//!
//! Always true: nothing here holds a secret: recorded headers and URLs show stars in their place, credentials of
//! callers are ciphertext.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{CallRecord, EffectClass, Failure, Mode, Part, Payload};
use crate::names::{JobId, PlanId, RouteId, RunId, StepId, WorkflowName};

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
    /// The request for a result that it belongs to; `None` is its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobId>,
    /// The run that began it, and the step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Parent>,
    /// The run whose results it takes over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rerun_of: Option<RunId>,
    /// Who started it, where that was not a route: the token's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// When it is over, finished or not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// Values that stand for bytes are marked ([`super::BytesMark`]); not in runs of earlier versions.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub bytes_marked: bool,
    /// Its plan declares sensitive values: in the store they are sealed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sensitive: bool,
}

/// The step of another run that began this one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parent {
    /// The run.
    pub run: RunId,
    /// The step.
    pub step: StepId,
    /// The item of a `for_each`.
    pub item: Option<u32>,
}

/// What a rerun takes over of a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ResultTaken {
    /// The step.
    pub step: StepId,
    /// The run that did it, whose id its idempotency keys were made from.
    pub origin: RunId,
    /// It was skipped.
    pub skipped: bool,
    /// What expressions see of it: `output`, `status`, `headers`, `by`.
    pub fields: Arc<Value>,
    /// What its `undo` works on, in the order of completion.
    pub done: Vec<DoneBefore>,
    /// Calls of it of which it stays unknown whether they took place.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<UnknownBefore>,
}

/// Another run takes a run's place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Superseded {
    /// The other run. It is born after this is on disk, under this id.
    pub by: RunId,
    /// Where it begins.
    pub from: StepId,
    /// Steps whose results it takes over: it undoes them, and nobody else does.
    pub handed: Vec<StepId>,
    /// Credentials of the caller, as the other run's ciphertext.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed: Option<String>,
    /// Who wanted it.
    pub who: String,
}

/// A call of the run before of which it stays unknown whether it took place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UnknownBefore {
    /// The item of a `for_each`.
    pub item: Option<u32>,
    /// How that came, in a sentence.
    pub why: String,
}

/// A call that the run before did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DoneBefore {
    /// The item of a `for_each`.
    pub item: Option<u32>,
    /// That item itself.
    pub value: Option<Arc<Value>>,
    /// The status that the service answered with.
    pub status: Option<u16>,
    /// What it gave.
    pub output: Arc<Value>,
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
    /// Which of the step's calls.
    #[serde(default, skip_serializing_if = "Part::is_do")]
    pub part: Part,
    /// From 1.
    pub attempt: u32,
    /// The same for every attempt; travels as `Idempotency-Key`. Only where the step is private or shared.
    pub key: Option<String>,
    /// What it does to the world.
    pub effect: EffectClass,
    /// Whether sending it again after an unknown outcome does no harm.
    pub repeatable: bool,
    /// The request; `None` in later attempts, which send the first one's bytes, but for one that a person gave another
    /// input.
    pub request: Option<Arc<CallRecord>>,
    /// Attempts and pauses are over then: of the step's `deadline`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// When it was decided. Only of a probe: a "no" counts only where it was asked late enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
}

/// A call ended for good.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepFinished {
    /// Which step.
    pub step: StepId,
    /// The item of a `for_each`.
    pub item: Option<u32>,
    /// Which of the step's calls.
    #[serde(default, skip_serializing_if = "Part::is_do")]
    pub part: Part,
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
    /// Which of the step's calls.
    #[serde(default, skip_serializing_if = "Part::is_do")]
    pub part: Part,
    /// The attempt that ended.
    pub attempt: u32,
    /// Whether it is unknown what the attempt did; otherwise it did nothing for certain.
    pub unknown: bool,
    /// What happened, for a person.
    pub why: String,
    /// When the next one starts.
    pub at: Timestamp,
    /// It does not count as an attempt: the breaker was open.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub free: bool,
    /// What starts then is the probe, which asks what the attempt did.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub probe: bool,
    /// The status that came back, where nobody knows what the attempt did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// What came back then, redacted and shortened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response: Option<Arc<Value>>,
    /// Until then an attempt whose outcome is unknown may still take effect (`settles` of its probe).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settled: Option<Timestamp>,
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
    /// It is unknown what was done: of a read, or of a step whose run was cancelled with nothing to be undone; any other
    /// pauses its run.
    Unknown {
        /// What happened.
        failure: Failure,
    },
    /// For good: a status outside `accept`, an expression without a value.
    Failed {
        /// What happened.
        failure: Failure,
    },
    /// With a status that the step accepts, but what it gave is not what the step promises, or cannot be read. It was
    /// done all the same, and may have to be undone.
    Unfit {
        /// The status.
        status: u16,
        /// The reply's headers, names in lower case.
        headers: BTreeMap<String, String>,
        /// The decoded body; null where it cannot be read.
        output: Arc<Value>,
        /// What is wrong with it.
        failure: Failure,
    },
    /// Nothing was sent: the intent is recorded.
    #[serde(with = "stored_rehearsal")]
    Rehearsed {
        /// What would have been sent.
        intent: Arc<CallRecord>,
        /// What `rehearse:` gave; `None` where nobody declared it.
        output: Option<Arc<Value>>,
        /// Why `rehearse:` gave nothing, where it was declared.
        note: Option<String>,
    },
}

/// How [`Outcome::Rehearsed`] is written. As a plain field, a declared output that is null could not be told from one
/// that nobody declared.
mod stored_rehearsal {
    use super::{Arc, CallRecord, Deserialize, Serialize, Value};
    use serde::{Deserializer, Serializer};

    #[derive(Serialize, Deserialize)]
    struct Stored {
        intent: Arc<CallRecord>,
        output: Option<Arc<Value>>,
        note: Option<String>,
        /// The output was declared, and is null. Absent in events of earlier versions.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        declares_null: bool,
    }

    pub fn serialize<S: Serializer>(
        intent: &Arc<CallRecord>,
        output: &Option<Arc<Value>>,
        note: &Option<String>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let declares_null = output.as_ref().is_some_and(|output| output.is_null());
        let (intent, output, note) = (intent.clone(), output.clone(), note.clone());
        Stored { intent, output, note, declares_null }.serialize(serializer)
    }

    type Fields = (Arc<CallRecord>, Option<Arc<Value>>, Option<String>);

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Fields, D::Error> {
        let Stored { intent, output, note, declares_null } = Stored::deserialize(deserializer)?;
        Ok((intent, output.or_else(|| declares_null.then(Arc::default)), note))
    }
}

/// Why a step will not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Skipped {
    /// Its `if` was false.
    Condition,
    /// Something that it needs was skipped.
    Needs,
    /// Somebody said so.
    ByHand,
    /// A checkpoint or a review said no.
    Rejected,
    /// Its lock is held, and it does not wait.
    Busy,
    /// Only a fallback, and nothing needs it.
    NotNeeded,
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
