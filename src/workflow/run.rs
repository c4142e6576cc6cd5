//! What a run has come to: the fold of its events.
//!
//! Always true: only [`super::evolve`] makes one or changes one, live and in replay; two folds of the same events are
//! equal. It knows nothing of its plan: which step comes next is [`super::due`]'s business.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;

use super::{
    AnswerRecord, CallRecord, Conflict, EffectClass, Failure, Mode, Pinned, RunStarted, RunStatus, RunSummary,
};
use crate::names::{RunId, Seq, StepId};

/// A run.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    pub(super) started: Arc<RunStarted>,
    pub(super) seq: Seq,
    pub(super) steps: BTreeMap<StepId, StepState>,
    pub(super) ended_steps: usize,
    pub(super) in_flight: usize,
    /// What expressions see under `steps`.
    pub(super) outputs: Arc<Value>,
    pub(super) answer: Option<Arc<AnswerRecord>>,
    pub(super) pinned: Option<Pinned>,
    pub(super) failing: Option<Failure>,
    pub(super) declared: Option<Arc<AnswerRecord>>,
    pub(super) conflict: Option<Conflict>,
    pub(super) end: Option<End>,
    pub(super) private_begun: bool,
    pub(super) shared_begun: bool,
    pub(super) intents: BTreeMap<(StepId, Option<u32>), Arc<CallRecord>>,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum End {
    Completed,
    Failed(Failure),
    Abandoned(String),
}

/// A step that has begun.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum StepState {
    /// Calls are under way or to come.
    Open(Open),
    /// It ran to a result.
    Done {
        /// A rehearsed step whose output nobody declared: who reads it cannot go on.
        undeclared: Option<String>,
    },
    /// It will not run.
    Skipped,
    /// It ended without a result.
    Failed,
}

/// A step whose calls are under way.
#[derive(Clone, Debug, PartialEq, Default)]
pub(super) struct Open {
    /// The items of a fan-out; `None` is a single call.
    pub items: Option<Arc<Vec<Arc<Value>>>>,
    /// By item (a single call is 0): begun and not ended.
    pub calls: BTreeMap<u32, CallState>,
    /// By item: ended with a result.
    pub results: BTreeMap<u32, CallResult>,
}

/// A call that has begun.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct CallState {
    pub attempt: u32,
    pub request: Arc<CallRecord>,
    pub key: Option<String>,
    pub effect: EffectClass,
    pub repeatable: bool,
    /// It is unknown what an earlier attempt did.
    pub uncertain: bool,
    pub phase: Phase,
}

/// Where a call stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// An attempt was sent, or is about to be.
    InFlight,
    /// The next attempt starts at this time.
    Waiting(Timestamp),
    /// It is unknown what it did, and a person decides.
    Unknown,
}

/// What a call gave.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct CallResult {
    pub status: Option<u16>,
    pub headers: BTreeMap<String, String>,
    pub output: Option<Arc<Value>>,
    pub undeclared: Option<String>,
}

/// An attempt that was sent, or was about to be when the process ended.
#[derive(Clone, Debug, PartialEq)]
pub struct InFlight {
    /// The step.
    pub step: StepId,
    /// The item of a `for_each`.
    pub item: Option<u32>,
    /// From 1.
    pub attempt: u32,
    /// Its idempotency key, where it has one.
    pub key: Option<String>,
    /// What it does to the world.
    pub effect: EffectClass,
    /// Whether sending it again does no harm.
    pub repeatable: bool,
    /// What was recorded of the request.
    pub request: Arc<CallRecord>,
}

impl CallState {
    fn in_flight(&self, step: &StepId, item: Option<u32>) -> InFlight {
        InFlight {
            step: step.clone(),
            item,
            attempt: self.attempt,
            key: self.key.clone(),
            effect: self.effect,
            repeatable: self.repeatable,
            request: self.request.clone(),
        }
    }
}

impl Run {
    /// Its id.
    pub fn id(&self) -> RunId {
        self.started.run
    }
    /// Its birth.
    pub fn started(&self) -> &Arc<RunStarted> {
        &self.started
    }
    /// What it may send.
    pub fn mode(&self) -> Mode {
        self.started.mode
    }
    /// The last event that is folded in.
    pub fn seq(&self) -> Seq {
        self.seq
    }
    /// How many steps have ended: what expressions see changes only with it.
    pub fn ended_steps(&self) -> usize {
        self.ended_steps
    }
    /// The caller's answer, once it is fixed.
    pub fn answer(&self) -> Option<&Arc<AnswerRecord>> {
        self.answer.as_ref()
    }
    /// What the answer pinned.
    pub fn pinned(&self) -> Option<&Pinned> {
        self.pinned.as_ref()
    }
    /// Why the run ends or ended early.
    pub fn failure(&self) -> Option<&Failure> {
        match &self.end {
            Some(End::Failed(failure)) => Some(failure),
            _ => self.failing.as_ref(),
        }
    }
    /// Whether the answer that the run ends early with was declared by a `fail` step.
    pub fn failed_as_declared(&self) -> bool {
        self.declared.is_some()
    }
    /// What it waits for a person over.
    pub fn conflict(&self) -> Option<&Conflict> {
        self.conflict.as_ref()
    }
    /// Whether a private or shared step has begun.
    pub fn effects_begun(&self) -> bool {
        self.private_begun || self.shared_begun
    }
    /// Whether a shared step has begun.
    pub fn shared_begun(&self) -> bool {
        self.shared_begun
    }
    /// Nothing more will happen.
    pub fn is_final(&self) -> bool {
        self.end.is_some()
    }
    /// Where it stands.
    pub fn status(&self) -> RunStatus {
        match (&self.end, &self.conflict) {
            (Some(End::Completed), _) => RunStatus::Completed,
            (Some(End::Failed(_)), _) => RunStatus::Failed,
            (Some(End::Abandoned(_)), _) => RunStatus::Abandoned,
            (None, Some(_)) => RunStatus::Paused,
            (None, None) => RunStatus::Running,
        }
    }
    /// Attempts that were sent and have not ended.
    pub fn in_flight(&self) -> Vec<InFlight> {
        let mut all = Vec::with_capacity(self.in_flight);
        for (step, state) in &self.steps {
            let StepState::Open(open) = state else { continue };
            let under_way = open.calls.iter().filter(|(_, call)| call.phase == Phase::InFlight);
            all.extend(under_way.map(|(item, call)| call.in_flight(step, open.items.as_ref().map(|_| *item))));
        }
        all
    }
    /// The attempt of one call that is under way.
    pub fn attempt(&self, step: &StepId, item: Option<u32>) -> Option<InFlight> {
        let Some(StepState::Open(open)) = self.steps.get(step) else { return None };
        let call = open.calls.get(&item.unwrap_or(0)).filter(|call| call.phase == Phase::InFlight)?;
        Some(call.in_flight(step, item))
    }
    /// The item of a `for_each` that has opened.
    pub fn item(&self, step: &StepId, item: u32) -> Option<Arc<Value>> {
        match self.steps.get(step) {
            Some(StepState::Open(open)) => open.items.as_ref()?.get(item as usize).cloned(),
            _ => None,
        }
    }
    /// What rehearsed steps would have sent, and private steps beside legacy sent, by step and item.
    pub fn intents(&self) -> impl Iterator<Item = (&StepId, Option<u32>, &CallRecord)> {
        self.intents.iter().map(|((step, item), record)| (step, *item, &**record))
    }
    /// Why it is paused or ended early, in a sentence.
    pub fn note(&self) -> Option<String> {
        match (&self.end, &self.conflict) {
            (Some(End::Completed), _) => None,
            (Some(End::Failed(failure)), _) => Some(failure.message.clone()),
            (Some(End::Abandoned(reason)), _) => Some(reason.clone()),
            (None, Some(conflict)) => Some(conflict.message.clone()),
            (None, None) => None,
        }
    }
    /// The run in one row. `updated` is when its last event happened.
    pub fn summary(&self, updated: Timestamp) -> RunSummary {
        RunSummary {
            run_id: self.started.run,
            workflow: self.started.workflow.clone(),
            plan_id: self.started.plan.clone(),
            route: self.started.route.clone(),
            mode: self.started.mode,
            status: self.status(),
            seq: self.seq,
            started: self.started.started,
            updated,
            note: self.note(),
            job: self.started.job,
            parent: self.started.parent.as_ref().map(|parent| parent.run),
            wake: None,
            checkpoint: None,
        }
    }
    /// A private or shared call that waits for its next attempt, and of which it is unknown what the last ones did.
    pub(super) fn uncertain(&self) -> Option<InFlight> {
        self.steps.iter().find_map(|(step, state)| {
            let StepState::Open(open) = state else { return None };
            let (item, call) = open.calls.iter().find(|(_, call)| {
                call.uncertain && call.effect != EffectClass::Read && matches!(call.phase, Phase::Waiting(_))
            })?;
            Some(call.in_flight(step, open.items.as_ref().map(|_| *item)))
        })
    }
    /// Whether a step has ended, with a result or skipped.
    pub(super) fn has_ended(&self, step: &StepId) -> bool {
        matches!(self.steps.get(step), Some(StepState::Done { .. } | StepState::Skipped | StepState::Failed))
    }
    /// Whether a step was skipped.
    pub(super) fn was_skipped(&self, step: &StepId) -> bool {
        matches!(self.steps.get(step), Some(StepState::Skipped))
    }
    /// Why a step that was rehearsed has no output, where it has none.
    pub(super) fn undeclared(&self, step: &str) -> Option<&str> {
        match self.steps.get(step) {
            Some(StepState::Done { undeclared }) => undeclared.as_deref(),
            _ => None,
        }
    }
}
