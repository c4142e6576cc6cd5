//! What a step declares about people, time, locks and other workflows.
//!
//! Always true: an [`Asking`] with a time-out says what happens then; one that escalates says to whom; a question
//! escalates at most once. The modules `checkpoint`, `risk`, `wait`, `lock` and `child` carry the declarations out.

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
    /// The question; `None` means a sentence that names the step and its call.
    pub question: Option<Template>,
    /// Who may answer; empty means everybody who may decide.
    pub who: Vec<String>,
    /// How long it waits; `None` means for ever.
    pub timeout: Option<Duration>,
    /// What happens when nobody has answered by then.
    pub on_timeout: Option<OnTimeout>,
    /// Who is asked when it escalates.
    pub escalate: Option<Escalation>,
}

/// Who is asked when nobody has answered in time.
pub struct Escalation {
    /// Who may answer; empty means everybody who may decide.
    pub who: Vec<String>,
    /// How long it waits; `None` means for ever.
    pub timeout: Option<Duration>,
    /// Whether it counts as a yes when they have not answered either; otherwise it counts as a no.
    pub approve: bool,
}

/// What happens to a step that a person rejects.
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
pub struct CheckpointStep {
    /// How people are asked.
    pub asking: Asking,
    /// JSON Schema of the answer's values.
    pub schema: Option<Arc<Value>>,
    /// The values that an approval by time-out gives.
    pub default: Option<Template>,
    /// What happens when a person rejects it.
    pub on_reject: OnReject,
    /// The answer in a rehearsal, where nobody is asked.
    pub rehearse: Option<Template>,
    pub(super) compiled: Option<Schema>,
}

impl CheckpointStep {
    /// What is wrong with the values of an answer: sentences with JSON pointers.
    pub fn complaints(&self, values: &Value) -> Vec<String> {
        self.compiled.as_ref().and_then(|schema| schema.check(values).err()).unwrap_or_default()
    }
}

/// A step of kind `wait`.
pub struct Wait {
    /// What ends the wait.
    pub until: Until,
    /// The output in a rehearsal, which waits for no signal.
    pub rehearse: Option<Template>,
}

/// What ends a `wait`.
pub enum Until {
    /// A duration: text, or a number of seconds.
    For(Template),
    /// A time: RFC 3339, or seconds since 1970.
    At(Template),
    /// A signal.
    Signal {
        /// Its name.
        name: String,
        /// Only a signal for which this holds; the expression reads `signal`.
        filter: Option<Expression>,
        /// How long it waits; `None` means for ever.
        timeout: Option<Duration>,
        /// Whether the run goes on without the signal after the time-out; otherwise the step fails.
        continues: bool,
    },
}

/// A step of kind `run`.
pub struct SubRun {
    /// The workflow that it runs.
    pub workflow: WorkflowName,
    /// The body of the child run's request; `None` means an empty one.
    pub input: Option<Template>,
    /// The output in a rehearsal, where a step of this kind with `rehearse:` begins no run.
    pub rehearse: Option<Template>,
}

/// The risk of a step, the approval that it needs, and the locks that it takes.
#[derive(Default)]
pub struct Safeguards {
    /// The risk; `None` means what the workflow's `risks` say, else low.
    pub risk: Option<RiskSource>,
    /// Whether what it does cannot be undone (`reversible: false`).
    pub irreversible: bool,
    /// How people are asked about it.
    pub asking: Asking,
    /// What happens when a person rejects it.
    pub on_reject: OnReject,
    /// The lock that it holds while it runs.
    pub lock: Option<Lock>,
    /// Statuses by which the service says that something is locked there.
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

/// How the risk of a step is found.
pub enum RiskSource {
    /// The step declares a fixed risk.
    Fixed(Risk),
    /// An expression gives it; in a `for_each` the highest among the items counts.
    Computed(Template),
}

/// A lock.
pub struct Lock {
    /// Its name; `None` where only the service's own locks count.
    pub key: Option<Template>,
    /// What happens while another run holds it.
    pub busy: Busy,
}

/// What happens to a step whose lock another run holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Busy {
    /// The step waits in the queue of the lock.
    #[default]
    Wait,
    /// The step (the item) is skipped.
    Skip,
    /// The run is cancelled, and what it did is undone.
    Cancel,
    /// The run pauses, and a person decides.
    Ask,
}

/// One line of `risks`: the first whose conditions all hold gives the risk.
pub struct RiskRule {
    /// The call's effect.
    pub effect: Option<EffectClass>,
    /// The call's method.
    pub method: Option<Method>,
    /// The call has more items than this, in its `for_each` or in the list in its body.
    pub items_over: Option<u64>,
    /// Whether its effect can be undone.
    pub reversible: Option<bool>,
    /// The risk where all conditions hold.
    pub risk: Risk,
}
