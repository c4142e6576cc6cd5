//! The checked, immutable DAG of steps.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Method};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::inject::Inject;
use super::reply_headers::RecordedHeaders;
use super::rules::{CheckpointStep, RiskRule, Safeguards, SubRun, Wait};
use super::schema::Schema;
use super::statuses::Statuses;
use super::{CREDENTIALS, EffectClass, Sensitive, StepPart};
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
    /// In topological order: each step comes after all that it needs.
    pub steps: Vec<Step>,
    /// What the caller gets: the first entry whose `after` steps have ended and whose `when` holds.
    pub respond: Vec<Respond>,
    /// The risk of calls whose step declares none: the first line whose conditions all hold counts.
    pub risks: Vec<RiskRule>,
    /// What the caller gets while the run goes on without an answer (`respond.pending`).
    pub pending: Option<ResponseTemplate>,
    /// Every path that any expression of the plan reads: a run stores only these parts of the request.
    pub reads: Vec<ReadPath>,
    /// For each step, the steps that need it.
    pub dependents: Vec<Vec<StepIndex>>,
    /// Where a message goes when a run pauses or asks a person.
    pub notify: Option<UrlTemplate>,
    /// How long a run may take in all. After that it ends early, and what was done is undone.
    pub deadline: Option<Duration>,
    /// What its rehearsals take from legacy in place of values that they would draw.
    pub inject: Option<Inject>,
    /// Set if the workflow adopts instances of legacy, and does nothing else.
    pub adoption: Option<Adoption>,
    /// Which values of its runs are never stored or shown in clear.
    pub(super) sensitive: Sensitive,
    /// By step: which headers of replies are recorded in events.
    pub(super) reply_headers: Vec<Arc<RecordedHeaders>>,
    /// The compiled schema.
    pub(super) input: Option<Schema>,
}

impl Plan {
    /// The names under which intents may be recorded: steps with a call, and `STEP.undo`.
    pub fn intent_names(&self) -> Vec<String> {
        let undos = self.steps.iter().filter(|step| step.undo.is_some()).map(|step| format!("{}.undo", step.id));
        self.calling_steps().map(str::to_owned).chain(undos).collect()
    }
    /// The names of the steps that send a call.
    pub fn calling_steps(&self) -> impl Iterator<Item = &str> + Clone {
        self.steps.iter().filter(|step| matches!(step.kind, StepKind::Call(_))).map(|step| step.id.as_str())
    }
    /// A step by its name.
    pub fn step(&self, id: &StepId) -> Option<(StepIndex, &Step)> {
        self.steps.iter().enumerate().find(|(_, step)| step.id == *id).map(|(index, step)| (StepIndex(index), step))
    }

    /// The steps whose calls have this effect class.
    pub fn calls(&self, effect: EffectClass) -> impl Iterator<Item = (&Step, &Call)> {
        self.steps.iter().filter_map(move |step| match &step.kind {
            StepKind::Call(call) if call.effect == effect => Some((step, &**call)),
            _ => None,
        })
    }

    /// Whether anything reads a step's output, status or headers: under its own name, or under that of a step whose
    /// place it may take, directly or as the fallback of a fallback.
    pub fn is_read(&self, step: &Step) -> bool {
        let replaced = |step: &&Step| step.replaces.and_then(|original| self.steps.get(original.0));
        // A chain of fallbacks is no longer than the plan.
        let names = std::iter::successors(Some(step), replaced).take(self.steps.len());
        let is_named = |step: &Step| {
            let of_step = |path: &&ReadPath| path.root() == "steps" && path.part(0) == Some(step.id.as_str());
            self.reads.iter().filter(of_step).any(|path| path.part(1) != Some("skipped"))
        };
        names.into_iter().any(is_named)
    }

    /// Steps that a rehearsal does not send, that declare no output for it, and whose output is read: a rehearsal
    /// cannot perform the steps after them.
    pub fn unrehearsed(&self) -> impl Iterator<Item = &Step> {
        let effects = self.calls(EffectClass::Private).chain(self.calls(EffectClass::Shared));
        effects.filter(|(step, call)| call.rehearse.is_none() && self.is_read(step)).map(|(step, _)| step)
    }

    /// Which headers of the replies to one of a step's calls stay in the attempt's result. Of a probe's replies all
    /// stay, because its expressions read them, but no event records them; of an undo's none, because nothing reads
    /// them.
    pub fn recorded_headers(&self, step: StepIndex, part: StepPart) -> Arc<RecordedHeaders> {
        let all = || Arc::new(RecordedHeaders::All);
        match part {
            StepPart::Do => self.reply_headers.get(step.0).cloned().unwrap_or_else(all),
            StepPart::Probe => all(),
            StepPart::Undo => Arc::new(RecordedHeaders::Only(BTreeSet::new())),
        }
    }

    /// Headers of the request that it reads, lower case.
    pub fn request_headers_read(&self) -> impl Iterator<Item = &str> {
        let headers = self.reads.iter().filter(|path| path.root() == "request" && path.part(0) == Some("headers"));
        headers.filter_map(|path| path.part(1))
    }

    /// The headers with credentials of the caller that it reads: sealed in the store, opened only at sending.
    pub fn credentials_read(&self) -> impl Iterator<Item = &str> {
        self.request_headers_read().filter(|name| CREDENTIALS.contains(name))
    }

    /// Whether it reads the request's body, decoded (`request.body`) or as it came (`request.raw`).
    pub fn reads_body(&self) -> bool {
        self.reads.iter().any(|path| path.root() == "request" && matches!(path.part(0), Some("body" | "raw")))
    }

    /// Checks a request's body against the schema.
    ///
    /// # Errors
    /// What is wrong with it, at most a few sentences.
    pub fn check_input(&self, body: &Value) -> Result<(), Vec<String>> {
        self.input.as_ref().map_or(Ok(()), |input| input.check(body))
    }
}

/// How legacy releases an instance that a workflow adopts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Adoption {
    /// This step tells legacy to.
    Release(StepId),
    /// Legacy does nothing of its own with the instance, for this reason.
    LegacyPassive(String),
}

/// The index of a step in [`Plan::steps`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StepIndex(pub usize);

/// A node of the plan.
pub struct Step {
    /// Its name.
    pub id: StepId,
    /// The steps that must end before it begins: inferred from expressions, and from `needs:`.
    pub needs: Vec<StepIndex>,
    /// Whether it runs even if a step that it needs was skipped (`needs_any`).
    pub needs_any: bool,
    /// `if:`. Where it is false, the step is skipped, and so is what needs it.
    pub condition: Option<Expression>,
    /// The list for whose items it runs, where it is a fan-out.
    pub for_each: Option<ForEach>,
    /// What it does.
    pub kind: StepKind,
    /// What is at stake, and which locks it takes.
    pub safeguards: Safeguards,
    /// Only of a `fallback_only` step: the step whose place it takes.
    pub replaces: Option<StepIndex>,
    /// What happens when it does not come to a result.
    pub failure_handling: FailureHandling,
    /// What its output has to be.
    pub output: Option<Schema>,
    /// The call that reverses what it did.
    pub undo: Option<Box<Call>>,
    /// The call that asks whether an attempt with unknown outcome took effect.
    pub probe: Option<Box<Probe>>,
}

impl Step {
    /// One of its calls.
    pub fn call(&self, part: StepPart) -> Option<&Call> {
        match (part, &self.kind) {
            (StepPart::Do, StepKind::Call(call)) => Some(call),
            (StepPart::Do, _) => None,
            (StepPart::Probe, _) => self.probe.as_ref().map(|probe| &probe.call),
            (StepPart::Undo, _) => self.undo.as_deref(),
        }
    }
}

/// What happens when a step does not come to a result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FailureHandling {
    /// The step that runs in its place when it certainly did nothing.
    pub fallback: Option<StepIndex>,
    /// What happens after 409, 412 and 422; `None` means pause for runs that the API started, and fail for those of a
    /// route; child runs do as the run at the top of their tree.
    pub on_conflict: Option<PauseOrFail>,
    /// What happens when it fails for good; `None` means fail, except that runs of the API pause when an expression or
    /// schema check fails.
    pub on_failure: Option<PauseOrFail>,
    /// How long all attempts of one call and the pauses between them may take together.
    pub deadline: Option<Duration>,
}

/// What happens when a step cannot come to a result by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PauseOrFail {
    /// The run pauses; finished steps keep their results, and a person decides.
    Pause,
    /// The step fails for good.
    Fail,
}

/// Asks a service whether an attempt with unknown outcome took effect.
pub struct Probe {
    /// The call: always a read.
    pub call: Call,
    /// How long after the attempt the first probe is sent.
    pub after: Duration,
    /// For how long after it was sent an attempt may still take effect. A "no" before that does not count.
    pub settles: Duration,
    /// Whether the attempt took effect; reads what the service answered. If it has no value, a person decides.
    pub done: Expression,
    /// The step's output where the attempt took effect; `None` means what the service answered.
    pub output: Option<Template>,
}

/// Fan-out over a list.
pub struct ForEach {
    /// The list.
    pub items: Template,
    /// How many items may be under way at the same time.
    pub concurrency: usize,
    /// Items that fail are collected, and the others go on.
    pub collect: bool,
}

/// What a step does.
pub enum StepKind {
    /// An HTTP call.
    Call(Box<Call>),
    /// Computes a value.
    Set(Template),
    /// Asks a person.
    Checkpoint(Box<CheckpointStep>),
    /// Waits for a time or a signal.
    Wait(Box<Wait>),
    /// Runs another workflow.
    Run(Box<SubRun>),
    /// Ends the run with this answer.
    Fail(ResponseTemplate),
}

/// An HTTP call.
pub struct Call {
    /// The method.
    pub method: Method,
    /// The URL.
    pub url: UrlTemplate,
    /// The service that it goes to.
    pub service: ServiceName,
    /// Whether that service honours `Idempotency-Key`.
    pub keyed: bool,
    /// What it does to the world.
    pub effect: EffectClass,
    /// Headers. A value may read `secrets`.
    pub headers: Vec<(HeaderName, Template)>,
    /// The body.
    pub body: CallBody,
    /// The number of attempts, and the pauses between them.
    pub retry: Retry,
    /// How long one attempt may take; `None` means the default in `limits`.
    pub timeout: Option<Duration>,
    /// Statuses that are a result (default 2xx).
    pub accept: Statuses,
    /// Statuses by which the service says for certain that nothing was done, in addition to 429.
    pub not_done: Statuses,
    /// Where the output comes from when the call is rehearsed.
    pub rehearse: Option<Rehearsal>,
    /// Whether the body of its reply goes to the caller while the service sends it.
    pub stream: bool,
    /// Whether it is a read whose reply may change once legacy has acted.
    pub volatile: bool,
}

impl Call {
    /// Whether sending it again after an unknown outcome does no harm: a `read`, PUT or DELETE, or a keyed service.
    pub fn repeat_is_harmless(&self) -> bool {
        self.effect == EffectClass::Read || self.keyed || matches!(self.method, Method::PUT | Method::DELETE)
    }
}

/// Where the output of a rehearsed call comes from.
pub enum Rehearsal {
    /// From an expression or a constant.
    Declared(Template),
    /// `rehearse: legacy`: from the reply to the call by legacy that corresponds.
    FromLegacy,
}

impl Rehearsal {
    /// The template of a declared output.
    pub fn template(&self) -> Option<&Template> {
        match self {
            Rehearsal::Declared(template) => Some(template),
            Rehearsal::FromLegacy => None,
        }
    }
}

/// The body of a call.
pub enum CallBody {
    /// No body.
    Empty,
    /// `body:` as JSON.
    Json(Template),
    /// `form:` as `application/x-www-form-urlencoded`.
    Form(Vec<(String, Template)>),
    /// `text:`.
    Text(Template),
    /// `raw:`, the bytes of the caller's body.
    Raw,
}

/// `retry:`, with exponential pauses and full jitter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Attempts in all, at least 1.
    pub attempts: u32,
    /// The first pause's upper bound.
    pub base: Duration,
    /// The longest pause's upper bound; `Retry-After` is honoured within it.
    pub max: Duration,
}

/// An answer to the caller.
pub struct ResponseTemplate {
    /// A number, or an expression that gives one.
    pub status: Template,
    /// Headers.
    pub headers: Vec<(HeaderName, Template)>,
    /// The body; `None` is empty.
    pub body: Option<Template>,
}

/// One entry of `respond`.
pub struct Respond {
    /// The entry is taken only where this holds.
    pub when: Option<Expression>,
    /// The entry is taken as soon as these have ended; `None` means when every step has.
    pub after: Option<Vec<StepIndex>>,
    /// The answer.
    pub answer: ResponseTemplate,
}
