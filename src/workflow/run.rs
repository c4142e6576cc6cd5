//! The state of a run: the fold of its events.
//!
//! Always true: only [`super::evolve`] creates or changes a run, live and in replay; a snapshot of a run may be stored
//! and read back ([`super::run_snapshot`]); two folds of the same events are equal. The plan is not part of a run's
//! state: [`super::due`] takes the run and the plan and returns the actions that come next. Code that decides about a
//! run or shows it passes the plan once to [`Run::collect_sensitive`], which finds out which of the run's values are
//! sensitive.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::calls::{CallState, DoneCall, Phase, RunningStep, StepItem, StepState, UnknownEffect};
use super::interactions::Interactions;
use super::performed_effects::PerformedEffects;
use super::sensitive::CollectorOfRun;
use super::serde_forms::pairs;
use super::tree_effects::LeftByChildren;
use super::undo_state::Undoing;
use super::work_count::count_work;
use super::{
    AnswerRecord, CallRecord, Conflict, ConflictKind, Failure, InFlight, Mode, Pinned, RunStarted, SensitiveSources,
    StepPart, Superseded,
};
use crate::expression::{StepFields, StepResults};
use crate::names::{RunId, Seq, StepId};

/// The state of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    pub(super) started: Arc<RunStarted>,
    pub(super) seq: Seq,
    pub(super) steps: BTreeMap<StepId, StepState>,
    pub(super) ended_steps: usize,
    pub(super) in_flight: usize,
    /// What expressions see under `steps`.
    pub(super) outputs: Arc<StepResults>,
    /// Probes and undos that have begun and not ended.
    #[serde(with = "pairs")]
    pub(super) side_calls: BTreeMap<(StepId, Option<u32>, StepPart), CallState>,
    /// Inputs of steps (items) that people gave in place of the plan's.
    #[serde(with = "pairs")]
    pub(super) inputs: BTreeMap<StepItem, Arc<Value>>,
    /// Steps (items) that people skipped, and steps whose fallback they skipped.
    pub(super) skipped_by_hand: BTreeSet<StepItem>,
    /// By step whose result was taken over: an item about which a person had decided.
    pub(super) decided_items: BTreeMap<StepId, u32>,
    /// Fallbacks that were taken, and the step that each replaces.
    pub(super) replaced: BTreeMap<StepId, StepId>,
    pub(super) answer: Option<Arc<AnswerRecord>>,
    /// Whether the answer was given while the run was ending early: it tells of the failure.
    #[serde(default)]
    pub(super) answer_tells_failure: bool,
    /// What the caller got while the run went on.
    pub(super) pending: Option<Arc<AnswerRecord>>,
    /// Whether the run was paused with an open conflict when the caller got that.
    #[serde(default)]
    pub(super) pending_in_conflict: bool,
    pub(super) pinned: Option<Pinned>,
    /// Why it ends early.
    pub(super) failing: Option<Failure>,
    /// Why no answer could be made: what was done stays done.
    pub(super) unanswered: Option<Failure>,
    /// The answer of the `fail` step that was reached.
    pub(super) declared: Option<Arc<AnswerRecord>>,
    pub(super) cancel: Option<Cancel>,
    /// Whether it was decided that something in the request is not to be done ([`Run::is_decided_against`]).
    pub(super) decided_against: bool,
    /// Open conflicts, oldest first.
    pub(super) conflicts: Vec<Conflict>,
    /// A command to pause: nothing more begins.
    pub(super) pause: Option<Pause>,
    /// Whether somebody else lifted a pause that the parent run had requested, and the parent has not lifted it since.
    pub(super) parent_pause_lifted: bool,
    /// Private and shared calls and child runs that were done, and rehearsed calls, in the order of completion. A
    /// snapshot stores them in a form of its own ([`super::done_rows`]).
    #[serde(skip)]
    pub(super) done: Vec<DoneCall>,
    /// Calls whose effect stays unknown, and that will not be repeated.
    pub(super) unknown: Vec<UnknownEffect>,
    pub(super) undoing: Option<Undoing>,
    /// Questions, waits, signals, lock queues and child runs.
    pub(super) interactions: Interactions,
    pub(super) end: Option<End>,
    /// The effects that calls which have ended performed, or may have performed.
    pub(super) performed_effects: PerformedEffects,
    /// Whether a child run has ended without a report of what its tree did.
    pub(super) has_unreported_child: bool,
    /// By step: what child runs left behind.
    pub(super) left_by_children: BTreeMap<StepId, LeftByChildren>,
    #[serde(with = "pairs")]
    pub(super) intents: BTreeMap<(StepId, Option<u32>, StepPart), Arc<CallRecord>>,
    /// By rehearsed step (item): the number of the call by legacy whose reply it took.
    #[serde(with = "pairs")]
    pub(super) assigned: BTreeMap<StepItem, u64>,
    /// Sensitive values that the run got from other runs, and the places where people entered values.
    pub(super) sensitive: SensitiveSources,
    /// Collects the run's sensitive values, once the plan that declares them is known.
    #[serde(skip)]
    pub(super) collector: CollectorOfRun,
}

/// The reason shown for a call with unknown effect, where there is no other.
pub(super) const UNKNOWN: &str = "it is unknown whether it was done";

/// The reason shown for a call whose `undo` has an unknown outcome.
pub(super) const UNDO_UNKNOWN: &str = "whether it was undone is unknown";

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum End {
    Completed,
    Failed(Failure),
    Cancelled(String),
    /// It was cancelled although its plan or its events could not be read. The note is complete: nothing is added to it
    /// from other events.
    CancelledUnread(String),
    Superseded(Box<Superseded>),
    Abandoned(String),
}

/// A command to cancel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Cancel {
    pub by: String,
    pub compensate: bool,
    pub reason: Option<String>,
    /// Whether no person requested it.
    pub automatic: bool,
}

/// A command to pause: nothing more begins.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Pause {
    pub by: String,
    pub reason: Option<String>,
    /// When it was requested, where its event says so.
    pub at: Option<Timestamp>,
}

impl Run {
    /// Its id.
    pub fn id(&self) -> RunId {
        self.started.run
    }
    /// The event that started it.
    pub fn started(&self) -> &Arc<RunStarted> {
        &self.started
    }
    /// Sensitive values that it was handed, and the places where people entered values.
    pub fn sensitive_sources(&self) -> &SensitiveSources {
        &self.sensitive
    }
    /// What it may send.
    pub fn mode(&self) -> Mode {
        self.started.mode
    }
    /// The sequence number of the last event that is folded in.
    pub fn seq(&self) -> Seq {
        self.seq
    }
    /// How many steps have ended. As long as this number stays the same, expressions see the same values.
    pub fn ended_steps(&self) -> usize {
        self.ended_steps
    }
    /// What expressions see as a step's output, once it has one.
    pub fn output_of(&self, step: &str) -> Option<&Value> {
        self.outputs.get(step)?.output()
    }
    /// Whether a step has ended with a list that has no items.
    pub fn has_empty_output(&self, step: &str) -> bool {
        self.outputs.get(step).is_some_and(StepFields::has_empty_list)
    }
    /// Why the run ends or ended early, or has no answer.
    pub fn failure(&self) -> Option<&Failure> {
        match &self.end {
            Some(End::Failed(failure)) => Some(failure),
            _ => self.failing.as_ref().or(self.unanswered.as_ref()),
        }
    }
    /// Whether the run ends early with the answer that a `fail` step declares.
    pub fn failed_as_declared(&self) -> bool {
        self.declared.is_some()
    }
    /// Whether it was decided that the request, or a part of it, is not to be done in this way: a person cancelled the
    /// run, said no, struck out an item, skipped a step or replaced the run, or a rule of the workflow did
    /// (`busy: cancel`, `on_timeout: reject`); here or in a child run. Legacy knows nothing of such a decision and
    /// would perform the whole request, so the run is not given back to legacy any more. A failure of the engine is no
    /// decision.
    pub fn is_decided_against(&self) -> bool {
        self.decided_against
    }
    /// Whether the run ends or ended early because of a decision against the request ([`Run::is_decided_against`]).
    pub fn ended_on_purpose(&self) -> bool {
        self.decided_against && self.failure().is_some_and(|failure| failure.kind.may_follow_decision())
    }
    /// The oldest open conflict.
    pub fn conflict(&self) -> Option<&Conflict> {
        self.conflicts.first()
    }
    /// The conflict that ends the run because nobody is asked to resolve it: a dark run would otherwise stay open for
    /// ever, with its locks. A conflict over something that the files lack does not end a run that is not ending yet,
    /// because a reload may resolve it.
    pub(super) fn ending_conflict(&self) -> Option<&Conflict> {
        self.undecidable_conflict().filter(|_| self.pause.is_none())
    }
    /// As [`Run::ending_conflict`], also where the run is paused by command: such a run ends once it is resumed.
    pub(super) fn undecidable_conflict(&self) -> Option<&Conflict> {
        let ends_at = |conflict: &&Conflict| conflict.kind != ConflictKind::Missing || self.is_ending();
        self.conflicts.iter().find(ends_at).filter(|_| self.mode() == Mode::Dark)
    }
    /// All open conflicts, oldest first.
    pub fn conflicts(&self) -> &[Conflict] {
        &self.conflicts
    }
    /// The conflict over a step (an item).
    pub fn conflict_over(&self, step: &StepId, item: Option<u32>) -> Option<&Conflict> {
        self.conflicts.iter().find(|conflict| conflict.step == *step && conflict.item == item)
    }
    /// Whether nothing may begin: a conflict is open, or a pause was requested.
    pub fn is_paused(&self) -> bool {
        !self.conflicts.is_empty() || self.pause.is_some()
    }
    /// Whether a pause was requested and not lifted.
    pub fn is_pause_requested(&self) -> bool {
        self.pause.is_some()
    }
    /// Whether it is ending early: no more steps of the plan begin.
    pub fn is_ending(&self) -> bool {
        self.failing.is_some()
    }
    /// Whether what was done is to be undone when it ends early.
    pub(super) fn compensates(&self) -> bool {
        self.cancel.as_ref().is_none_or(|cancel| cancel.compensate)
    }
    /// Whether this is the name under which the parent run gives commands.
    pub(super) fn is_parent(&self, by: &str) -> bool {
        self.started.parent.as_ref().is_some_and(|parent| parent.run.to_string() == by)
    }
    /// Whether it is ending early without undoing what was done: none of its calls is sent any more.
    pub fn ends_without_undoing(&self) -> bool {
        self.is_ending() && !self.compensates()
    }
    /// How it was replaced by a successor, if it was.
    pub fn superseded(&self) -> Option<&Superseded> {
        match &self.end {
            Some(End::Superseded(superseded)) => Some(superseded),
            _ => None,
        }
    }
    /// Whether it has ended.
    pub fn is_final(&self) -> bool {
        self.end.is_some()
    }
    /// Attempts that have begun and not ended.
    pub fn in_flight(&self) -> Vec<InFlight> {
        let mut all = Vec::with_capacity(self.in_flight);
        for (step, state) in &self.steps {
            let StepState::Open(open) = state else { continue };
            let under_way = open.calls.iter().filter(|(_, call)| call.phase == Phase::InFlight);
            all.extend(under_way.map(|(item_index, call)| {
                call.in_flight(step, open.items.as_ref().map(|_| *item_index), StepPart::Do)
            }));
        }
        let side_calls = self.side_calls.iter().filter(|(_, call)| call.phase == Phase::InFlight);
        all.extend(side_calls.map(|((step, item, part), call)| call.in_flight(step, *item, *part)));
        all
    }
    /// The attempt of one call that is under way.
    pub fn attempt(&self, step: &StepId, item: Option<u32>, part: StepPart) -> Option<InFlight> {
        let call = self.call_state(step, item, part).filter(|call| call.phase == Phase::InFlight)?;
        Some(call.in_flight(step, item, part))
    }
    /// The value of an item of a `for_each`; `None` while its items are not known. Once the step has ended, only the
    /// values of items whose calls are in the list of calls that were done are known.
    pub fn item(&self, step: &StepId, item: u32) -> Option<Arc<Value>> {
        match self.steps.get(step) {
            Some(StepState::Open(open)) => open.items.as_ref()?.get(item as usize).cloned(),
            _ => self.done_call(step, Some(item))?.value.clone(),
        }
    }
    /// The calls that rehearsed steps would have sent, and those that private steps of a dark run did send, by step,
    /// item and part (an `undo` is a part of its own).
    pub fn intents(&self) -> impl Iterator<Item = (&StepId, Option<u32>, StepPart, &CallRecord)> {
        self.intents.iter().map(|((step, item, part), record)| (step, *item, *part, &**record))
    }
    /// The number of the call by legacy whose reply a rehearsed step (an item) took.
    pub fn assigned_call(&self, step: &StepId, item: Option<u32>) -> Option<u64> {
        self.assigned.get(&(step.clone(), item)).copied()
    }
    /// Whether a compensation has begun.
    pub fn has_begun_compensation(&self) -> bool {
        self.undoing.is_some()
    }
    /// The steps (items) that hold a lock or queue for one, each with the lock's name.
    pub fn queued_locks(&self) -> impl Iterator<Item = (&StepId, Option<u32>, &str)> {
        self.interactions.queue_entries.iter().map(|((step, item), entry)| (step, *item, entry.name.as_str()))
    }
    /// Whether a signal was delivered to the run, or to an earlier one of its job, under this id.
    pub fn has_delivery(&self, id: &str) -> bool {
        self.interactions.is_delivered(id)
    }
    /// The lock that a step (an item) holds.
    pub fn held_lock(&self, step: &StepId, item: Option<u32>) -> Option<&str> {
        self.interactions.queue_entry(step, item).filter(|entry| entry.taken).map(|entry| entry.name.as_str())
    }
    /// A call that has begun and not ended.
    pub(super) fn call_state(&self, step: &StepId, item: Option<u32>, part: StepPart) -> Option<&CallState> {
        match part {
            StepPart::Do => {
                let open = self.open_step(step).filter(|open| open.items.is_some() == item.is_some())?;
                open.calls.get(&item.unwrap_or(0))
            }
            StepPart::Probe | StepPart::Undo => self.side_calls.get(&(step.clone(), item, part)),
        }
    }
    /// A step that has begun and neither ended nor been replaced by its fallback.
    pub(super) fn open_step(&self, step: &StepId) -> Option<&RunningStep> {
        match self.steps.get(step) {
            Some(StepState::Open(open)) => Some(open),
            _ => None,
        }
    }
    /// The result of a call that was done. During a compensation it is found by an index instead of a search.
    pub(super) fn done_call(&self, step: &StepId, item: Option<u32>) -> Option<&DoneCall> {
        match self.undoing.as_ref().and_then(|undoing| undoing.calls.get(&(step.clone(), item))) {
            Some(call) => self.done.get(call.done),
            None => {
                self.done.iter().rev().inspect(|_| count_work()).find(|done| done.step == *step && done.item == item)
            }
        }
    }
    /// Whether a step has ended: with a result, skipped or failed.
    pub fn has_ended(&self, step: &StepId) -> bool {
        matches!(self.steps.get(step), Some(StepState::Done { .. } | StepState::Skipped | StepState::Failed))
    }
    /// Whether a step began.
    pub fn has_performed(&self, step: &StepId) -> bool {
        self.steps.get(step).is_some_and(|state| !matches!(state, StepState::Skipped))
    }
    /// Whether a call of a step was recorded as an intent or sent.
    pub(super) fn has_recorded_call(&self, step: &StepId) -> bool {
        self.done.iter().any(|done| done.step == *step) || self.intents.keys().any(|(of, ..)| of == step)
    }
    /// Whether a step was skipped.
    pub(super) fn was_skipped(&self, step: &StepId) -> bool {
        matches!(self.steps.get(step), Some(StepState::Skipped))
    }
    /// The rehearsed steps whose output is not known.
    pub(super) fn steps_of_unknown_output(&self) -> BTreeSet<Arc<str>> {
        if self.mode() == Mode::Real {
            return BTreeSet::new();
        }
        let unknown = |state: &StepState| matches!(state, StepState::Done { why_no_output: Some(_) });
        self.steps.iter().filter(|(_, state)| unknown(state)).map(|(step, _)| step.as_str().into()).collect()
    }
    /// Why a rehearsed step has no output, where it has none.
    pub(super) fn why_no_output(&self, step: &str) -> Option<&str> {
        match self.steps.get(step) {
            Some(StepState::Done { why_no_output }) => why_no_output.as_deref(),
            _ => None,
        }
    }
}
