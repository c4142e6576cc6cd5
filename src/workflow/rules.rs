//! What a step declares about people, time, locks and other workflows.
//!
//! Always true: an [`Asking`] that has a time-out says what happens then, one that escalates says to whom, and nobody
//! escalates twice. How a declaration is lived up to is the business of `checkpoint`, `risk`, `wait`, `lock` and
//! `child`.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::schema::Schema;
use super::{EffectClass, OnTimeout, Risk, Statuses};
use crate::expression::{Expression, Template};
use crate::names::WorkflowName;

/// How people are asked.
#[derive(Default)]
pub struct Asking {
    /// The question; `None` is one that is made from the step.
    pub question: Option<Template>,
    /// Names that may answer; empty is everybody who may decide.
    pub who: Vec<String>,
    /// How long it waits; `None` is for ever.
    pub timeout: Option<Duration>,
    /// What happens then.
    pub on_timeout: Option<OnTimeout>,
    /// Who is asked then.
    pub escalate: Option<Escalation>,
}

/// Who is asked when nobody answered.
pub struct Escalation {
    /// Names that may answer; empty is everybody who may decide.
    pub who: Vec<String>,
    /// How long it waits; `None` is for ever.
    pub timeout: Option<Duration>,
    /// What happens then: yes or no.
    pub approve: bool,
}

/// What a no does to its step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnReject {
    /// The step fails, and with it the run.
    #[default]
    Fail,
    /// The step is skipped, and so is what needs it.
    Skip,
}

/// A step of kind `checkpoint`.
pub struct Question {
    /// How it is asked.
    pub asking: Asking,
    /// JSON Schema of the answer's values.
    pub schema: Option<Arc<Value>>,
    /// The values that an approval by time-out gives.
    pub default: Option<Template>,
    /// What a no does.
    pub on_reject: OnReject,
    /// The answer where nobody is asked.
    pub rehearse: Option<Template>,
    pub(super) compiled: Option<Schema>,
}

impl Question {
    /// What is wrong with an answer's values: JSON pointers and sentences.
    pub fn complaints(&self, values: &Value) -> Vec<String> {
        self.compiled.as_ref().and_then(|schema| schema.check(values).err()).unwrap_or_default()
    }
}

/// A step of kind `wait`.
pub struct Wait {
    /// For what.
    pub until: Until,
    /// The output where nobody waits for a signal.
    pub rehearse: Option<Template>,
}

/// What a `wait` waits for.
pub enum Until {
    /// So long: a duration as text, or seconds.
    For(Template),
    /// A time: RFC 3339, or seconds since 1970.
    At(Template),
    /// A signal.
    Signal {
        /// Its name.
        name: String,
        /// Only one for which this holds; it reads `signal`.
        filter: Option<Expression>,
        /// How long it waits; `None` is for ever.
        timeout: Option<Duration>,
        /// The run goes on without it then; otherwise the step fails.
        goes_on: bool,
    },
}

/// A step of kind `run`.
pub struct SubRun {
    /// The other workflow.
    pub workflow: WorkflowName,
    /// The body of its request; `None` is none.
    pub input: Option<Template>,
    /// The output where it is not run beside legacy.
    pub rehearse: Option<Template>,
}

/// The risk of a step, the approval that it needs, and the locks that it takes.
#[derive(Default)]
pub struct Safeguards {
    /// How much is at stake; `None` is what the workflow's policy says, else low.
    pub risk: Option<Level>,
    /// What it does can be taken back.
    pub irreversible: bool,
    /// How people are asked about it.
    pub asking: Asking,
    /// What a no does.
    pub on_reject: OnReject,
    /// What it holds while it runs.
    pub lock: Option<Lock>,
    /// Statuses of the service that say that something is locked there.
    pub busy_on: Statuses,
}

impl Safeguards {
    /// What happens after a status that says "locked"; `None` for any other status.
    pub fn busy(&self, status: u16) -> Option<Busy> {
        let declared = self.lock.is_some() || !self.busy_on.0.is_empty();
        let busy = declared && (status == 423 || self.busy_on.contains(status));
        busy.then(|| self.lock.as_ref().map_or(Busy::Wait, |lock| lock.busy))
    }
}

/// How much is at stake.
pub enum Level {
    /// Always this.
    Fixed(Risk),
    /// An expression that gives it; in a `for_each` the highest of its items counts.
    Computed(Template),
}

/// A lock.
pub struct Lock {
    /// Its name; `None` where only the service's own locks count.
    pub key: Option<Template>,
    /// What happens where it is held.
    pub busy: Busy,
}

/// What happens where a lock is held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Busy {
    /// The step stands in the queue until its turn has come.
    #[default]
    Wait,
    /// The step (the item) is skipped.
    Skip,
    /// The run is cancelled, and what it did is undone.
    Cancel,
    /// A person says.
    Ask,
}

/// One line of `risks`: the first whose conditions all hold says how much is at stake.
pub struct Policy {
    /// The call's effect.
    pub effect: Option<EffectClass>,
    /// The call's method.
    pub method: Option<Method>,
    /// More items than this, of its `for_each` or of the list in its body.
    pub items_over: Option<u64>,
    /// Whether it can be taken back.
    pub reversible: Option<bool>,
    /// How much is at stake then.
    pub risk: Risk,
}
