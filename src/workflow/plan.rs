//! The checked, immutable DAG of steps.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Method};

use super::EffectClass;
use crate::expression::{Expression, ReadPath, Template, UrlTemplate};
use crate::names::{PlanId, ServiceName, StepId, WorkflowName};

/// A checked workflow: its steps form a DAG, every expression reads only what exists.
pub struct Plan {
    /// `plan_` and a hash of the content.
    pub id: PlanId,
    /// The workflow it was made from.
    pub workflow: WorkflowName,
    /// The definition as JSON: what the store keeps, and what [`Plan`] can be made from again.
    pub source: Arc<serde_json::Value>,
    /// JSON Schema of the request's body.
    pub input_schema: Option<Arc<serde_json::Value>>,
    /// In an order in which each step stands behind all that it needs.
    pub steps: Vec<Step>,
    /// What the caller gets: the first entry whose `after` steps have ended and whose `when` holds.
    pub respond: Vec<Respond>,
    /// What the caller gets while the run goes on without an answer (`respond.pending`).
    pub pending: Option<Answer>,
    /// Every path that any expression of the plan reads: a run stores only these parts of the request.
    pub reads: Vec<ReadPath>,
}

/// The place of a step in [`Plan::steps`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StepIndex(pub usize);

/// A node of the plan.
pub struct Step {
    /// Its name.
    pub id: StepId,
    /// What must have ended before: inferred from expressions, and `needs:`.
    pub needs: Vec<StepIndex>,
    /// It runs although something it needs was skipped (`needs_any`).
    pub needs_any: bool,
    /// `if:`; a false one is skipped, and so is what needs it.
    pub condition: Option<Expression>,
    /// Fan-out.
    pub for_each: Option<ForEach>,
    /// What it does.
    pub kind: StepKind,
}

/// Fan-out over a list.
pub struct ForEach {
    /// Gives the list.
    pub items: Template,
    /// Items under way at the same time.
    pub concurrency: usize,
}

/// What a step does.
pub enum StepKind {
    /// An HTTP call.
    Call(Box<Call>),
    /// Computes a value.
    Set(Template),
    /// Ends the run with this answer.
    Fail(Answer),
}

/// An HTTP call.
pub struct Call {
    /// The method.
    pub method: Method,
    /// The URL.
    pub url: UrlTemplate,
    /// The service that it goes to.
    pub service: ServiceName,
    /// That service honours `Idempotency-Key`.
    pub keyed: bool,
    /// What it does to the world.
    pub effect: EffectClass,
    /// Headers. A value may read `secrets`.
    pub headers: Vec<(HeaderName, Template)>,
    /// The body.
    pub body: CallBody,
    /// How often and how far apart.
    pub retry: Retry,
    /// One attempt's time; `None` is the limit's default.
    pub timeout: Option<Duration>,
    /// Statuses that are a result (default 2xx).
    pub accept: Statuses,
    /// Statuses that say for certain that nothing was done, beside 429 and 503.
    pub not_done: Statuses,
    /// The output where it is rehearsed.
    pub rehearse: Option<Template>,
    /// A read that sees the world after legacy acted.
    pub volatile: bool,
}

impl Call {
    /// Whether sending it again after an unknown outcome does no harm: a `read`, PUT or DELETE, or a keyed service.
    pub fn repeat_is_harmless(&self) -> bool {
        self.effect == EffectClass::Read || self.keyed || matches!(self.method, Method::PUT | Method::DELETE)
    }
}

/// The body of a call.
pub enum CallBody {
    /// None.
    Empty,
    /// `body:` as JSON.
    Json(Template),
    /// `form:` as `application/x-www-form-urlencoded`.
    Form(Vec<(String, Template)>),
    /// `text:`.
    Text(Template),
    /// `raw:` the bytes of the request.
    Raw,
}

/// `retry:`; exponential with full jitter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Attempts in all, at least 1.
    pub attempts: u32,
    /// The first pause's upper bound.
    pub base: Duration,
    /// The longest pause's upper bound; `Retry-After` is honoured within it.
    pub max: Duration,
}

/// A set of statuses: `[2xx, 402]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statuses(pub Vec<(u16, u16)>);

impl Statuses {
    /// Whether a status is in it.
    pub fn contains(&self, status: u16) -> bool {
        self.0.iter().any(|(low, high)| (*low..=*high).contains(&status))
    }
}

/// An answer to the caller.
pub struct Answer {
    /// A number, or an expression that gives one.
    pub status: Template,
    /// Headers.
    pub headers: Vec<(HeaderName, Template)>,
    /// The body as JSON; `None` is empty.
    pub body: Option<Template>,
}

/// One entry of `respond`.
pub struct Respond {
    /// Taken only where this holds.
    pub when: Option<Expression>,
    /// Taken as soon as these have ended; `None` is when every step has.
    pub after: Option<Vec<StepIndex>>,
    /// The answer.
    pub answer: Answer,
}
