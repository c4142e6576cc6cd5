//! The actions that a run waits for the engine to perform.
//!
//! Always true: a run that has not ended, is not paused, has no call or child run under way, and waits for no person
//! and no signal, has at least one action here, even if that is only a time to wait for or a held step. A run that
//! nothing will wake is a bug. A step that the run's mode rehearses is offered as a [`Command::Begin`] like any other,
//! and [`super::decide`] turns it into an intent.
//!
//! A run goes through phases. *Running*: until every step has ended. *Paused*: a conflict is open, or somebody
//! requested a pause; nothing begins. In dark a conflict ends the run once its calls and children have ended, unless
//! the conflict is over something that the files lack and the run is not ending yet. *Failing*: it ends early; calls
//! under way end, and unknown effects are probed. *Compensating*: what was done is undone. Then it ends.

use jiff::Timestamp;

use super::calls::{CallState, Phase, RunningStep, StepState};
use super::child_commands::commands_to_children;
use super::decision_inputs::call_scope;
use super::may_begin::{sends, skipped_by_needs, starts_while_ending};
use super::work_count::count_work;
use super::{
    Command, ControlCommand, DecisionInputs, EffectClass, Plan, Run, Step, StepIndex, StepKind, StepPart, missing,
};
use crate::names::{RunId, Seq};

/// One thing for the engine to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Pass this command to [`super::decide`].
    Decide(Command),
    /// Ask for the actions again at this time.
    Wait(Timestamp),
    /// This private or shared step would begin now, but effects are held.
    Held(StepIndex),
    /// Pass [`Command::BeginChild`] to [`super::decide`], with a new id.
    Child {
        /// The step.
        step: StepIndex,
        /// The item of a `for_each`.
        item: Option<u32>,
    },
    /// Pass this command to a child run. The action is repeated until the child has ended, so a command may arrive more
    /// than once.
    CommandChild {
        /// The run.
        child: RunId,
        /// The command.
        command: ControlCommand,
    },
    /// Read this lock's queue once its entry is stored, and pass what it shows to [`super::decide`]
    /// ([`Command::LockSeen`]); while others are first, read it again when one of them has left.
    Lock {
        /// The step.
        step: StepIndex,
        /// The item of a `for_each`.
        item: Option<u32>,
        /// The lock.
        name: String,
        /// The sequence number of the event that queued the step.
        queued: Seq,
    },
}

/// The circumstances under which actions are due.
#[derive(Clone, Copy, Debug)]
pub struct Conditions {
    /// The time.
    pub now: Timestamp,
    /// Whether effects are held: no attempt of a private or shared step, and no undo, begins.
    pub hold_effects: bool,
}

/// The actions that are due now, in the plan's order.
pub fn due(run: &Run, plan: &Plan, inputs: &DecisionInputs, conditions: Conditions) -> Vec<Action> {
    if run.end.is_some() {
        return Vec::new();
    }
    let inputs = &inputs.at(conditions.now);
    let room = inputs.run_calls_max.saturating_sub(run.in_flight);
    let mut due = Due { run, plan, inputs, conditions, actions: Vec::new(), wake: None, room };
    due.run_deadline();
    if run.ending_conflict().is_some() {
        if run.in_flight == 0 && run.interactions.children.is_empty() {
            due.actions.push(Action::Decide(Command::Conclude));
        }
    } else if run.is_paused() {
        // A paused run goes on only by its own deadline, by a person, or when reloaded files have what was missing.
        due.actions.extend(missing::found_again(run, plan, inputs).map(|conflict| {
            Action::Decide(Command::RetryMissing { step: conflict.step.clone(), item: conflict.item })
        }));
        let skip = |at: &super::Conflict| Action::Decide(Command::SkipDone { step: at.step.clone(), item: at.item });
        due.actions.extend(run.conflicts_over_done_calls().map(skip));
    } else if run.undoing.is_some() {
        due.compensating();
    } else if run.failing.is_some() {
        due.end_failing_run();
    } else {
        due.running();
        due.interaction_deadlines();
    }
    let commands = commands_to_children(run);
    due.actions.extend(commands.map(|(child, command)| Action::CommandChild { child, command }));
    due.actions.extend(due.wake.map(Action::Wait));
    due.actions
}

/// Collects the actions that are due.
pub(super) struct Due<'a> {
    pub run: &'a Run,
    pub plan: &'a Plan,
    pub inputs: &'a DecisionInputs,
    pub conditions: Conditions,
    pub actions: Vec<Action>,
    /// The earliest time at which to ask for the actions again.
    pub wake: Option<Timestamp>,
    /// How many more calls may begin now.
    pub room: usize,
}

impl Due<'_> {
    /// Asks for the actions again at this time; at once if it has passed.
    pub fn wait(&mut self, at: Timestamp) {
        self.wake = Some(self.wake.map_or(at, |known| known.min(at)));
    }

    /// Begins the next attempt of a call.
    fn begin(&mut self, step: StepIndex, item: Option<u32>, part: StepPart) {
        if self.room > 0 {
            self.room -= 1;
            self.actions.push(Action::Decide(Command::Begin { step, item, part }));
        }
    }

    /// Adds the time of the run's own deadline. It does not matter once the run is ending.
    fn run_deadline(&mut self) {
        match self.run.started.until.filter(|_| self.run.failing.is_none()) {
            Some(until) if until <= self.conditions.now => self.actions.push(Action::Decide(Command::Elapse)),
            Some(until) => self.wait(until),
            None => {}
        }
    }

    /// Adds the deadlines of questions and waits. They do not count while the run is paused; a resume postpones
    /// timeouts by the length of the pause.
    fn interaction_deadlines(&mut self) {
        let interactions = &self.run.interactions;
        let questions = interactions.open_questions().filter_map(|question| question.checkpoint.until);
        match questions.chain(interactions.waits.values().filter_map(|wait| wait.until)).min() {
            Some(until) if until > self.conditions.now => self.wait(until),
            Some(_) if !self.actions.contains(&Action::Decide(Command::Elapse)) => {
                self.actions.push(Action::Decide(Command::Elapse));
            }
            Some(_) | None => {}
        }
    }

    fn running(&mut self) {
        for (index, step) in self.plan.steps.iter().enumerate() {
            let index = StepIndex(index);
            match self.run.steps.get(&step.id) {
                Some(StepState::Open(open)) => self.open_step(index, step, open),
                Some(StepState::Done { .. } | StepState::Skipped | StepState::Failed | StepState::Replaced { .. }) => {}
                None => self.not_begun(index, step),
            }
        }
        let all_ended = self.run.ended_steps == self.plan.steps.len();
        if self.run.answer.is_none() && self.run.unanswered.is_none() {
            if let Some(entry) = answer_due(self.run, self.plan, self.inputs) {
                self.actions.push(Action::Decide(Command::Respond { entry: Some(entry) }));
            } else if all_ended {
                self.actions.push(Action::Decide(Command::Respond { entry: None }));
            }
        } else if all_ended {
            self.actions.push(Action::Decide(Command::Conclude));
        }
    }

    fn not_begun(&mut self, index: StepIndex, step: &Step) {
        let (run, plan) = (self.run, self.plan);
        if let Some(original) = step.replaces
            && !run.replaced.contains_key(&step.id)
        {
            // A step that is only a fallback begins when it is taken, and is skipped once the step that it would
            // replace has ended otherwise.
            if run.has_ended(&plan.steps[original.0].id) {
                self.actions.push(Action::Decide(Command::Advance { step: index }));
            }
            return;
        }
        if !step.needs.iter().all(|need| run.has_ended(&plan.steps[need.0].id)) {
            return;
        }
        if run.interactions.is_asked_about(&step.id, None) || run.interactions.waits.contains_key(&step.id) {
            return; // it waits for a person, a time or a signal
        }
        if self.in_queue(index, step, None) {
            return;
        }
        let single = matches!(step.kind, StepKind::Call(_) | StepKind::Run(_)) && step.for_each.is_none();
        if !single || skipped_by_needs(run, plan, step) {
            self.actions.push(Action::Decide(Command::Advance { step: index }));
        } else if self.conditions.hold_effects && is_effect(run, step) && condition_holds(run, self.inputs, step, None)
        {
            self.actions.push(Action::Held(index));
        } else {
            self.begin_first(index, step, None);
        }
    }

    /// Begins the first attempt of a step (an item), or its child run.
    fn begin_first(&mut self, index: StepIndex, step: &Step, item: Option<u32>) {
        match step.kind {
            StepKind::Run(_) => self.actions.push(Action::Child { step: index, item }),
            _ => self.begin(index, item, StepPart::Do),
        }
    }

    /// Whether the step (the item) waits in a lock's queue; if so, adds the action that reads the queue.
    fn in_queue(&mut self, index: StepIndex, step: &Step, item: Option<u32>) -> bool {
        let entry = self.run.interactions.queue_entry(&step.id, item).filter(|entry| !entry.taken);
        if let Some(entry) = entry {
            let (name, queued) = (entry.name.clone(), entry.queued);
            self.actions.push(Action::Lock { step: index, item, name, queued });
        }
        entry.is_some()
    }

    /// Begins the items and attempts of an open step that can begin now.
    fn open_step(&mut self, index: StepIndex, step: &Step, open: &RunningStep) {
        for (item_index, call) in &open.calls {
            let item = open.items.as_ref().map(|_| *item_index);
            match call.phase {
                // An attempt with another input waits for its approval.
                Phase::Waiting(_) if call.renew && self.run.interactions.is_asked_about(&step.id, item) => {}
                Phase::Waiting(at) => self.next_attempt(index, step, item, StepPart::Do, at),
                Phase::ToProbe(at) => self.next_attempt(index, step, item, StepPart::Probe, at),
                Phase::Probing => self.side_call(index, step, item, StepPart::Probe),
                Phase::InFlight | Phase::AwaitsDecision => {}
            }
        }
        let Some(items) = &open.items else {
            // A step with a single call is open with nothing begun where a person chose to begin the call again.
            let begins_again =
                open.items.is_none() && open.nothing_begun() && !self.run.interactions.is_asked_about(&step.id, None);
            if begins_again && !self.in_queue(index, step, None) {
                match self.conditions.hold_effects && is_effect(self.run, step) {
                    true => self.actions.push(Action::Held(index)),
                    false => self.begin_first(index, step, None),
                }
            }
            return;
        };
        if self.run.interactions.is_asked_about(&step.id, None) {
            return; // a person reviews all items
        }
        let queued = open.queued.iter().copied().filter(|item| !self.in_queue(index, step, Some(*item)));
        let queued: Vec<u32> = queued.collect();
        let fresh = |item: &u32| open.is_new(*item) && !self.run.interactions.is_asked_about(&step.id, Some(*item));
        let next: Vec<u32> = match (&open.replaced_items, &step.for_each) {
            // A fallback of single items counts towards the concurrency of the step whose items it replaces.
            (Some(replaced), _) if step.needs.iter().all(|need| self.run.has_ended(&self.plan.steps[need.0].id)) => {
                queued.into_iter().chain(replaced.iter().copied().filter(fresh)).collect()
            }
            (None, Some(for_each)) => {
                let room = for_each.concurrency.max(1).saturating_sub(open.under_way());
                let end = u32::try_from(items.len()).unwrap_or(u32::MAX);
                queued.into_iter().chain((open.next..end).filter(fresh).take(room)).collect()
            }
            (Some(_), _) | (None, None) => return,
        };
        let is_held = self.conditions.hold_effects && is_effect(self.run, step);
        for item in next {
            if is_held && (open.replaced_items.is_none() || condition_holds(self.run, self.inputs, step, Some(item))) {
                self.actions.push(Action::Held(index));
                break;
            }
            if self.room == 0 {
                break;
            }
            self.begin_first(index, step, Some(item));
        }
    }

    /// Begins another attempt once its time has come. While effects are held, no attempt of an effect begins, not even
    /// a repeated one.
    fn next_attempt(&mut self, index: StepIndex, step: &Step, item: Option<u32>, part: StepPart, at: Timestamp) {
        let is_effect = match part {
            StepPart::Do => is_effect(self.run, step),
            StepPart::Undo => undo_is_effect(self.run, step),
            StepPart::Probe => false,
        };
        if self.conditions.hold_effects && is_effect {
            self.actions.push(Action::Held(index));
        } else if at <= self.conditions.now {
            self.begin(index, item, part);
        } else {
            self.wait(at);
        }
    }

    /// Begins the next attempt of a probe or an undo that has begun.
    fn side_call(&mut self, index: StepIndex, step: &Step, item: Option<u32>, part: StepPart) {
        if let Some(CallState { phase: Phase::Waiting(at), .. }) = self.run.call_state(&step.id, item, part) {
            self.next_attempt(index, step, item, part, *at);
        }
    }

    /// Waits for calls under way to end, probes unknown effects, and makes the attempts that a person asked for or that
    /// settle an unknown effect.
    fn end_failing_run(&mut self) {
        let run = self.run;
        for (index, step) in self.plan.steps.iter().enumerate() {
            let index = StepIndex(index);
            let Some(open) = run.open_step(&step.id) else { continue };
            for (item_index, call) in &open.calls {
                let item = open.items.as_ref().map(|_| *item_index);
                match call.phase {
                    Phase::Waiting(at) if starts_while_ending(run, step, call) => {
                        self.next_attempt(index, step, item, StepPart::Do, at)
                    }
                    Phase::Probing => self.side_call(index, step, item, StepPart::Probe),
                    Phase::ToProbe(at) | Phase::Waiting(at)
                        if call.unknown_effect() && step.probe.is_some() && run.compensates() =>
                    {
                        self.next_attempt(index, step, item, StepPart::Probe, at);
                    }
                    Phase::ToProbe(_) | Phase::Waiting(_) | Phase::InFlight | Phase::AwaitsDecision => {}
                }
            }
        }
        let children = !run.interactions.children.is_empty();
        if self.actions.is_empty() && self.wake.is_none() && run.in_flight == 0 && !children {
            self.actions.push(Action::Decide(Command::Conclude));
        }
    }

    /// Undoes one group after the other, the calls of a group concurrently.
    fn compensating(&mut self) {
        let Some(undoing) = &self.run.undoing else { return };
        let Some(group) = undoing.groups.get(undoing.at).filter(|_| self.run.compensates()) else {
            if self.run.in_flight == 0 {
                self.actions.push(Action::Decide(Command::Conclude));
            }
            return;
        };
        for (id, item, _) in self.run.side_calls.keys().filter(|(.., part)| *part == StepPart::Undo) {
            count_work();
            let Some((index, step)) = self.plan.step(id) else { continue };
            self.side_call(index, step, *item, StepPart::Undo);
        }
        for (id, item) in group.iter().skip(undoing.next) {
            if self.room == 0 {
                break;
            }
            count_work();
            let to_come = self.run.check_undo_is_due(id, *item).is_ok();
            let is_new = to_come && self.run.call_state(id, *item, StepPart::Undo).is_none();
            let Some((index, step)) = self.plan.step(id).filter(|_| is_new) else { continue };
            match self.conditions.hold_effects && undo_is_effect(self.run, step) {
                true => self.actions.push(Action::Held(index)),
                false => self.begin(index, *item, StepPart::Undo),
            }
        }
    }
}

/// Whether the step sends a private or shared call when a run of this mode performs it.
fn is_effect(run: &Run, step: &Step) -> bool {
    match &step.kind {
        StepKind::Call(call) => call.effect != EffectClass::Read && sends(run.mode(), call),
        _ => false,
    }
}

/// Whether the step's `undo` sends a private or shared call when a run of this mode performs it.
fn undo_is_effect(run: &Run, step: &Step) -> bool {
    step.undo.as_ref().is_some_and(|undo| undo.effect != EffectClass::Read && sends(run.mode(), undo))
}

/// Whether a held step would run: one that would be skipped, or would fail in its condition, is not reported as held.
fn condition_holds(run: &Run, inputs: &DecisionInputs, step: &Step, item: Option<u32>) -> bool {
    let scope = || call_scope(&inputs.plain(run), run, &step.id, item, StepPart::Do);
    step.condition.as_ref().is_none_or(|condition| condition.holds(&scope()) == Ok(true))
}

/// The first entry of `respond` whose steps have ended and whose condition holds. A condition without a value counts as
/// false.
fn answer_due(run: &Run, plan: &Plan, inputs: &DecisionInputs) -> Option<usize> {
    let mut scope = None;
    plan.respond.iter().position(|entry| {
        let ended = match &entry.after {
            Some(after) => after.iter().all(|step| run.has_ended(&plan.steps[step.0].id)),
            None => run.ended_steps == plan.steps.len(),
        };
        ended
            && entry.when.as_ref().is_none_or(|when| {
                when.holds(scope.get_or_insert_with(|| inputs.answering(run, None))).unwrap_or(false)
            })
    })
}
