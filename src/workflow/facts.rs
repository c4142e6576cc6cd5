//! The contents of a run's events: its start, attempts, outcomes, answers.
//!
//! Always true: nothing here holds a secret. Recorded headers and URLs have stars in place of secrets, and credentials
//! of callers are ciphertext.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::taken_reply::stored_rehearsal;
use super::{
    ApprovalAbove, CallRecord, EffectClass, Failure, Injected, Mode, Payload, RouteAbove, SensitivePath,
    SignalDelivery, StepPart, TakenReply,
};
use crate::expression::SharedJson;
use crate::names::{JobId, PlanId, RouteId, RunId, StepId, WorkflowName};

/// The start of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunStarted {
    /// Its id.
    pub run: RunId,
    /// Its workflow.
    pub workflow: WorkflowName,
    /// The plan it keeps for its whole life.
    pub plan: PlanId,
    /// What it may send, for its whole life.
    pub mode: Mode,
    /// The route that started it, if one did.
    pub route: Option<RouteId>,
    /// The plans of the workflows that it and its child runs start, where they do not follow the files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub child_plans: Option<Arc<BTreeMap<WorkflowName, PlanId>>>,
    /// When it started.
    pub started: Timestamp,
    /// The parts of the request that the plan reads, without credentials.
    pub request: Arc<Value>,
    /// Headers of the request that are credentials and that the plan reads: their names.
    pub credentials: Vec<String>,
    /// Their values, as ciphertext.
    pub sealed: Option<String>,
    /// The parts of legacy's reply that the plan and those of its child runs read, where legacy answered first.
    pub legacy: Option<Arc<Value>>,
    /// What it takes from legacy in place of values that it would draw: only in `shadow`, and in no store.
    #[serde(skip)]
    pub injected: Option<Arc<Injected>>,
    /// What the creating run recorded of the instance, where this run is a follow-up on one.
    pub instance: Option<Arc<Value>>,
    /// What the answer creates.
    pub creates: Option<Creates>,
    /// The trace that the caller's request belongs to: sent on with every call.
    pub traceparent: Option<String>,
    /// The job that it belongs to; `None` where it has one of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobId>,
    /// Its parent run, and the parent's step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Parent>,
    /// Of a child: the route at the top of its tree. Absent in children that an earlier version started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route_above: Option<RouteAbove>,
    /// Of a child, and of a rerun of it: what people approved above it. Absent where nobody was asked, and in children
    /// that an earlier version started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval_above: Option<ApprovalAbove>,
    /// Of a rerun: whether the first run of its job was a child. False in reruns that an earlier version started.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub child_before: bool,
    /// The run whose results it takes over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rerun_of: Option<RunId>,
    /// Instances that earlier runs of its job pinned: follow-up requests for them see this run's result.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pinned_before: Vec<Pinned>,
    /// The strongest effect that earlier runs of its job performed, or may have performed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effects_before: Option<EffectClass>,
    /// Signals that were delivered to earlier runs of its job, and that it is not to take again: another delivery under
    /// one of their ids changes nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deliveries_before: Vec<SignalDelivery>,
    /// Who started it, where that was not a route: the token's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Its deadline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// Whether values that stand for bytes are marked ([`super::BytesMark`]); false in runs of earlier versions.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub bytes_marked: bool,
    /// Whether its expressions cannot read the parts of values that stand for bytes; false in runs of earlier versions,
    /// whose plans may read them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub bytes_opaque: bool,
    /// Whether its plan declares sensitive values, or it was handed some. They are sealed in the store.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sensitive: bool,
    /// Sensitive parts of this event, as declared by whoever began the run: `$.request.body.token`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sensitive_paths: Vec<SensitivePath>,
}

/// The step of the parent run that started this one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parent {
    /// The parent run.
    pub run: RunId,
    /// The step.
    pub step: StepId,
    /// The item of a `for_each`.
    pub item: Option<u32>,
}

/// A successor replaces the run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Superseded {
    /// The run that replaces it. It is created under this id after this event is stored.
    #[serde(rename = "by")]
    pub successor: RunId,
    /// The step at which it begins.
    pub from: StepId,
    /// Steps whose results it takes over: only the successor undoes them.
    #[serde(rename = "handed")]
    pub handed_over_steps: Vec<StepId>,
    /// Credentials of the caller, as the other run's ciphertext.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed: Option<String>,
    /// Who requested it.
    #[serde(rename = "who")]
    pub requested_by: String,
}

/// Where the id of a created instance comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Creates {
    /// From the engine's own answer.
    #[serde(rename = "engine")]
    Engine {
        /// The creator's route id.
        family: RouteId,
        /// Where the answer has it: the text of a [`CreatedIdSource`](crate::expression::CreatedIdSource), a JSONPath
        /// in earlier versions.
        path: String,
    },
    /// The run is the twin of an instance that legacy created under this id.
    #[serde(rename = "twin")]
    Twin {
        /// The creator's route id.
        family: RouteId,
        /// Legacy's id.
        id: String,
        /// As in [`Pinned`].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        integer: Option<String>,
    },
}

/// An instance that an answer created.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pinned {
    /// The creator's route id.
    pub family: RouteId,
    /// The instance's id.
    pub id: String,
    /// Set if `id` is a whole number that clients which read JSON numbers as doubles write in another way: `100` for
    /// `100.0`. The instance is pinned under both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub integer: Option<String>,
    /// Whether legacy owns the instance, and the run is its twin.
    pub twin: bool,
}

/// An attempt of a call is about to be sent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepStarted {
    /// Which step.
    pub step: StepId,
    /// The item of a `for_each`.
    pub item: Option<u32>,
    /// Which of the step's calls.
    #[serde(default, skip_serializing_if = "StepPart::is_do")]
    pub part: StepPart,
    /// Its number, from 1.
    pub attempt: u32,
    /// The idempotency key: the same for every attempt, sent as `Idempotency-Key`. Only where the step is private or
    /// shared.
    pub key: Option<String>,
    /// The class of its effect.
    pub effect: EffectClass,
    /// Whether sending it again after an unknown outcome does no harm.
    pub repeatable: bool,
    /// The request; `None` in later attempts, which send the bytes of the first one, unless a person gave another input
    /// or the service has another base URL by then (only the URL differs in that case).
    pub request: Option<Arc<CallRecord>>,
    /// When the step's `deadline` ends all its attempts and pauses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// Of a probe only: when this attempt was decided. Its "no" counts only if the probed attempt could not take effect
    /// after this time (`settles`).
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
    #[serde(default, skip_serializing_if = "StepPart::is_do")]
    pub part: StepPart,
    /// The attempt that ended it; 0 where none was made.
    pub attempt: u32,
    /// How it ended.
    pub outcome: Outcome,
}

/// An attempt ended without a result. Another one follows, or a probe of this one; if something is locked at the
/// service, the next event may instead skip the step or cancel the run (`busy:`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RetryScheduled {
    /// Which step.
    pub step: StepId,
    /// The item of a `for_each`.
    pub item: Option<u32>,
    /// Which of the step's calls.
    #[serde(default, skip_serializing_if = "StepPart::is_do")]
    pub part: StepPart,
    /// The attempt that ended.
    pub attempt: u32,
    /// Whether the attempt's effect is unknown; otherwise it certainly did nothing.
    pub unknown: bool,
    /// What happened, for a person.
    pub why: String,
    /// When the next one starts.
    pub at: Timestamp,
    /// Whether it does not count as an attempt, because the breaker was open or the process ended.
    #[serde(rename = "free", default, skip_serializing_if = "std::ops::Not::not")]
    pub uncounted: bool,
    /// Whether the probe of the attempt starts then, instead of another attempt.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub probe: bool,
    /// The status of the response, where the attempt's effect is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The response in that case, redacted and shortened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response: Option<Arc<Value>>,
    /// Until this time an attempt with unknown outcome may still take effect (`settles` of its probe).
    #[serde(rename = "settled", default, skip_serializing_if = "Option::is_none")]
    pub may_take_effect_until: Option<Timestamp>,
    /// Whether the attempt was withdrawn before its turn at the service came ([`super::AttemptResult::Withdrawn`]). The
    /// deadline of all attempts begins anew with the next one, as after a person's decision.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub withdrawn: bool,
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The service answered with a status that the step accepts.
    Done {
        /// The status.
        status: u16,
        /// The reply's headers, names in lower case.
        headers: BTreeMap<String, String>,
        /// The decoded body.
        output: SharedJson,
    },
    /// Certainly nothing was done, and no attempt is left.
    NotDone {
        /// What happened.
        failure: Failure,
    },
    /// It is unknown what was done. Only for reads, and in runs that were cancelled without undoing; any other unknown
    /// outcome pauses the run.
    Unknown {
        /// What happened.
        failure: Failure,
    },
    /// The call failed for good: a status outside `accept`, an expression without a value.
    Failed {
        /// What happened.
        failure: Failure,
    },
    /// The service answered with a status that the step accepts, but the output does not fit the declared schema or
    /// cannot be read. The call was done, and may have to be undone.
    Unfit {
        /// The status.
        status: u16,
        /// The reply's headers, names in lower case.
        headers: BTreeMap<String, String>,
        /// The decoded body; null where it cannot be read.
        output: SharedJson,
        /// What is wrong with it.
        failure: Failure,
    },
    /// Nothing was sent: the intent is recorded.
    #[serde(with = "stored_rehearsal")]
    Rehearsed {
        /// What would have been sent.
        intent: Arc<CallRecord>,
        /// What `rehearse:` gave; `None` where nobody declared it.
        output: Option<SharedJson>,
        /// Why `rehearse:` gave nothing, where it was declared.
        note: Option<String>,
        /// The reply that was taken, where `rehearse: legacy` gave the output.
        taken: Option<TakenReply>,
    },
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
    /// The body is bytes of an expression ([`super::BytesMark`]) that are UTF-8 by chance. A body in base64 always is
    /// bytes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub bytes_as_text: bool,
    /// The body is a text that was written without quotes, because the declared content type is not JSON. False in
    /// answers that an earlier version recorded.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_plain_text: bool,
    /// The reply has no content (status 204, 205 or 304), and the content type is the one of the body that is not sent:
    /// the workflow declares none. False in answers that an earlier version recorded.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_type_of_unsent_body: bool,
    /// The body is that of the reply to this step's call, and is streamed: `body` is empty then. Only in runs that are
    /// not stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub streamed_from: Option<StepId>,
    /// Its sensitive parts: `$.headers.location`, `$.body.token`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sensitive: Vec<SensitivePath>,
}

impl AnswerRecord {
    /// An answer whose body is sent as it is recorded, without sensitive parts.
    pub fn new(status: u16, headers: Vec<(String, String)>, body: Payload) -> Self {
        Self {
            status,
            headers,
            body,
            bytes_as_text: false,
            is_plain_text: false,
            is_type_of_unsent_body: false,
            streamed_from: None,
            sensitive: Vec::new(),
        }
    }
}
