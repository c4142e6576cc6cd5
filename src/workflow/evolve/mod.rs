//! [`evolve`]: applies an event to a run. All events pass through it, live and in replay.
//!
//! Always true: recording and replay call the same [`evolve`]; an event that does not fit the run is an error value,
//! never a panic. The cost of an event does not depend on the number of events before it, with these exceptions: the
//! end of a fan-out, the beginning of a compensation, a pause and its end, and (only in the number of the run's
//! questions) the end of any step.

mod calls;
mod ending;
mod fallback;
mod groups;
mod interactions;
mod result_fields;
mod undo;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

use super::calls::StepState;
use super::interactions::Interactions;
use super::{Event, Run, RunStarted, SensitiveSources, Skipped};
use crate::expression::{SharedJson, StepFields};
use crate::names::{Seq, StepId};

/// An event that does not fit the events before it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("event {seq} (`{kind}`) does not fit: {why}")]
pub struct EventMisfit {
    /// The sequence number of the event.
    pub seq: Seq,
    /// The name of the event's kind.
    pub kind: &'static str,
    /// Why the event does not fit.
    pub why: String,
}

/// Returns the run after one more event; a `run` of `None` stands for the run before its first event.
///
/// # Errors
/// The event does not fit.
pub fn evolve(run: Option<Run>, event: &Event) -> Result<Run, EventMisfit> {
    let Some(mut run) = run else {
        return match event {
            Event::RunStarted(started) => Ok(run_of_start(started)),
            _ => {
                Err(EventMisfit { seq: Seq::FIRST, kind: event.kind(), why: "a run begins with `run_started`".into() })
            }
        };
    };
    run.evolve_in_place(event)?;
    Ok(run)
}

/// Returns the run that results from these events.
///
/// # Errors
/// There are no events, or one of them does not fit.
pub fn fold<'a>(events: impl IntoIterator<Item = &'a Event>) -> Result<Run, EventMisfit> {
    let mut run = None;
    for event in events {
        run = Some(evolve(run, event)?);
    }
    run.ok_or_else(|| EventMisfit { seq: Seq(0), kind: "none", why: "there are no events".into() })
}

fn run_of_start(started: &Arc<RunStarted>) -> Run {
    Run {
        started: started.clone(),
        seq: Seq::FIRST,
        steps: BTreeMap::new(),
        ended_steps: 0,
        in_flight: 0,
        outputs: Arc::default(),
        side_calls: BTreeMap::new(),
        inputs: BTreeMap::new(),
        skipped_by_hand: BTreeSet::new(),
        decided_items: BTreeMap::new(),
        replaced: BTreeMap::new(),
        answer: None,
        pending: None,
        pending_in_conflict: false,
        pinned: None,
        failing: None,
        answer_tells_failure: false,
        unanswered: None,
        declared: None,
        cancel: None,
        decided_against: false,
        conflicts: Vec::new(),
        pause: None,
        parent_pause_lifted: false,
        done: Vec::new(),
        unknown: Vec::new(),
        undoing: None,
        interactions: Interactions {
            deliveries: started.deliveries_before.iter().cloned().collect(),
            ..Interactions::default()
        },
        end: None,
        performed_effects: started.effects_before.into_iter().collect(),
        has_unreported_child: false,
        left_by_children: Default::default(),
        intents: BTreeMap::new(),
        assigned: BTreeMap::new(),
        sensitive: SensitiveSources::of_start(started),
        collector: Default::default(),
    }
}

impl Run {
    /// Applies an event in place, as [`evolve`] does. After an error the run must not be used.
    ///
    /// # Errors
    /// The event does not fit.
    pub fn evolve_in_place(&mut self, event: &Event) -> Result<(), EventMisfit> {
        let seq = self.seq.next();
        let applied = match self.end {
            Some(_) => Err("the run has ended".into()),
            None => self.apply(event),
        };
        applied.map_err(|why| EventMisfit { seq, kind: event.kind(), why })?;
        self.seq = seq;
        self.sensitive.learn(event);
        self.collector.learn(event);
        Ok(())
    }

    fn apply(&mut self, event: &Event) -> Result<(), String> {
        match event {
            Event::RunStarted(_) => Err("the run has begun already".into()),
            Event::StepStarted(started) => self.step_started(started),
            Event::RetryScheduled(retry) => self.retry_scheduled(retry),
            Event::StepFinished(finished) => self.step_finished(finished),
            Event::Step(event) => self.step_event(event),
            Event::Wait(event) => self.wait_event(event),
            Event::Lock(event) => self.lock_event(event),
            Event::Child(event) => self.child_event(event),
            Event::Checkpoint(event) => self.checkpoint_event(event),
            Event::Conflict(event) => self.conflict_event(event),
            Event::Control(event) => self.control_event(event),
            Event::Answer(event) => self.answer_event(event),
            Event::Ending(event) => self.ending_event(event),
        }
    }

    fn step_skipped(&mut self, step: &StepId, item: Option<u32>, reason: Skipped) -> Result<(), String> {
        if reason == Skipped::ByHand {
            self.skipped_by_hand.insert((step.clone(), item));
        }
        if item.is_some() {
            return self.item_skipped(step, item, reason);
        }
        match self.steps.get(step) {
            None | Some(StepState::Open(_)) if !self.calls_under_way(step) => {}
            _ => return Err(format!("`{step}` has ended, or is under way")),
        }
        // An expression that reads `approved` of a skipped checkpoint gets false.
        let fields = || vec![("skipped", Value::Bool(true)), ("approved", Value::Bool(false))];
        self.end_complete_item_fallback(step);
        self.end_step(step, StepState::Skipped, None, fields());
        // The step that this one replaces is skipped too, and so are all steps of a chain of fallbacks. If the replaced
        // step fails instead, the next event says how.
        let mut current = step.clone();
        while let Some(original) = self.replaced.get(&current).filter(|_| reason.skips_replaced_step()).cloned() {
            if !matches!(self.steps.get(&original), Some(StepState::Replaced { .. })) {
                break;
            }
            self.end_step(&original, StepState::Skipped, None, fields());
            current = original;
            if reason == Skipped::ByHand {
                self.skipped_by_hand.insert((current.clone(), None));
            }
        }
        Ok(())
    }

    /// Checks that a step has not begun.
    pub(in crate::workflow) fn check_not_begun(&self, step: &StepId) -> Result<(), String> {
        match self.steps.contains_key(step) {
            true => Err(format!("`{step}` has begun already")),
            false => Ok(()),
        }
    }

    pub(in crate::workflow) fn end_as_done(
        &mut self,
        step: &StepId,
        why_no_output: Option<String>,
        output: Option<SharedJson>,
        mut fields: Vec<(&'static str, Value)>,
    ) {
        fields.push(("skipped", Value::Bool(false)));
        self.end_step(step, StepState::Done { why_no_output }, output, fields);
    }

    pub(in crate::workflow) fn end_step(
        &mut self,
        step: &StepId,
        state: StepState,
        output: Option<SharedJson>,
        fields: Vec<(&'static str, Value)>,
    ) {
        // A fallback that replaces only some items of a step does not end that step.
        let is_replaced = |original: &&StepId| matches!(self.steps.get(*original), Some(StepState::Replaced { .. }));
        let original = match &state {
            StepState::Done { .. } | StepState::Failed => self.replaced.get(step).filter(is_replaced).cloned(),
            StepState::Skipped | StepState::Open(_) | StepState::Replaced { .. } => None,
        };
        if let Some(original) = original {
            // An expression that reads the replaced step gets the fallback's fields, and the fallback's name as `by`.
            let mut fields = fields.clone();
            if !matches!(state, StepState::Failed) && !fields.iter().any(|(name, _)| *name == "by") {
                fields.push(("by", Value::String(step.as_str().to_owned())));
            }
            self.end_step(&original, state.clone(), output.clone(), fields);
        }
        // The step's open questions are withdrawn, and its waits end.
        self.interactions.withdraw_open(step);
        self.interactions.waits.remove(step);
        self.steps.insert(step.clone(), state);
        self.ended_steps += 1;
        Arc::make_mut(&mut self.outputs).insert(step.as_str(), StepFields::new(output, fields));
    }
}
