//! Applies events of questions, waits, signals, locks and child runs.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::expression::{SharedJson, StepFields};
use crate::names::{CheckpointId, RunId, Seq, StepId, WorkflowName};
use crate::workflow::calls::{CallResult, CallState, DoneCall, Phase, RunningStep, StepState};
use crate::workflow::interactions::{Child, OpenWait, QuestionState, QueueEntry, RunQuestion, Signal};
use crate::workflow::run::Pause;
use crate::workflow::{
    CheckpointAnswer, CheckpointKind, EffectClass, OnTimeout, OpenCheckpoint, ResultTaken, Run, RunStatus, StepPart,
    TreeEffects,
};

/// The fields of [`ChildEvent::Ended`](crate::workflow::ChildEvent::Ended) that change the parent.
pub(super) struct RecordedChildEnd<'a> {
    pub child: RunId,
    pub status: RunStatus,
    /// Whether a completed run performed an effect that a person may want to undo.
    pub effects: bool,
    /// What the child run and all runs below it did; see [`ChildEvent::Ended`](crate::workflow::ChildEvent::Ended).
    pub tree: Option<&'a TreeEffects>,
    /// Whether the run completed with an output that does not fit the declared schema. The next event then says how
    /// the step goes on.
    pub unfit: bool,
}

impl Run {
    pub(super) fn pause_ordered(
        &mut self,
        by: &str,
        reason: Option<&str>,
        at: Option<Timestamp>,
    ) -> Result<(), String> {
        if self.pause.is_some() {
            return Err("the run is paused already".into());
        }
        self.pause = Some(Pause { by: by.to_owned(), reason: reason.map(str::to_owned), at });
        self.interactions.children.values_mut().for_each(|child| child.paused = true);
        Ok(())
    }

    pub(super) fn resumed(&mut self, by: &str, at: Option<Timestamp>) -> Result<(), String> {
        let Some(pause) = self.pause.take() else {
            // If the parent paused the run and somebody else has resumed it since, the parent's resume has no effect.
            let was_lifted = std::mem::take(&mut self.parent_pause_lifted) && self.is_parent(by);
            return if was_lifted { Ok(()) } else { Err("the run is not paused".into()) };
        };
        self.parent_pause_lifted = self.is_parent(&pause.by) && !self.is_parent(by);
        if let Some((from, to)) = pause.at.zip(at) {
            self.interactions.postpone_timeouts(to.duration_since(from).max(SignedDuration::ZERO));
        }
        Ok(())
    }

    pub(super) fn input_adjusted(
        &mut self,
        step: &StepId,
        item: Option<u32>,
        input: &Arc<Value>,
    ) -> Result<(), String> {
        let has_begun = match (self.steps.get(step), item) {
            (None, None) => false,
            (Some(StepState::Open(open)), item) if open.items.is_some() == item.is_some() => {
                let item_index = item.unwrap_or(0);
                !(open.is_new(item_index) || open.queued.contains(&item_index))
            }
            _ => true,
        };
        if has_begun {
            return Err(format!("`{step}` has begun, or has no such item"));
        }
        self.inputs.insert((step.clone(), item), input.clone());
        // Open questions were about the earlier input.
        self.interactions.withdraw(step, item);
        match self.open_step(step).is_some_and(|open| open.nothing_begun()) {
            true => self.interactions.withdraw(step, None),
            false if item.is_some() => drop(self.interactions.changed.insert((step.clone(), item))),
            false => {}
        }
        Ok(())
    }

    pub(super) fn retried_now(&mut self, step: &StepId, item: Option<u32>) -> Result<(), String> {
        // Of the calls of a step (an item) at most one waits for its next attempt.
        for part in [StepPart::Do, StepPart::Probe, StepPart::Undo] {
            let call = match part {
                StepPart::Do => self.do_call(step, item),
                StepPart::Probe | StepPart::Undo => self.side_call(step, item, part),
            };
            if let Ok(CallState { phase: Phase::Waiting(at) | Phase::ToProbe(at), .. }) = call {
                *at = Timestamp::UNIX_EPOCH;
                return Ok(());
            }
        }
        Err(format!("`{step}` waits for no attempt"))
    }

    pub(super) fn checkpoint_opened(&mut self, asked: &OpenCheckpoint) -> Result<(), String> {
        let key = (asked.step.clone(), asked.item);
        if self.interactions.questions.contains_key(&asked.checkpoint)
            || self.interactions.is_asked_about(&asked.step, asked.item)
        {
            return Err(format!("`{}` is asked about already", asked.step));
        }
        if asked.kind == CheckpointKind::Question {
            self.check_not_begun(&asked.step)?;
        }
        *self.interactions.times_asked.entry(key.clone()).or_default() += 1;
        self.interactions.current.insert(key, asked.checkpoint.clone());
        let question =
            RunQuestion { checkpoint: Arc::new(asked.clone()), escalated: false, state: QuestionState::Open };
        self.interactions.questions.insert(asked.checkpoint.clone(), question);
        Ok(())
    }

    pub(super) fn checkpoint_escalated(
        &mut self,
        checkpoint: &CheckpointId,
        who: &[String],
        until: Option<Timestamp>,
        on_timeout: Option<OnTimeout>,
    ) -> Result<(), String> {
        let question = self
            .interactions
            .questions
            .get_mut(checkpoint)
            .filter(|question| question.is_open() && !question.escalated);
        let question = question.ok_or("there is no such open checkpoint")?;
        let asked = Arc::make_mut(&mut question.checkpoint);
        asked.who = who.to_vec();
        asked.until = until;
        asked.on_timeout = on_timeout.unwrap_or(asked.on_timeout);
        question.escalated = true;
        Ok(())
    }

    pub(super) fn checkpoint_answered(
        &mut self,
        checkpoint: &CheckpointId,
        said: &CheckpointAnswer,
        by: &str,
    ) -> Result<(), String> {
        let seq = self.seq.next();
        let question = self.interactions.questions.get_mut(checkpoint).filter(|question| question.is_open());
        let question = question.ok_or("there is no such open checkpoint")?;
        question.state = QuestionState::Answered { said: Box::new(said.clone()), by: by.to_owned(), seq };
        let asked = question.checkpoint.clone();
        self.decided_against |= !said.approve || !said.struck.is_empty();
        match (asked.kind, said.approve) {
            (CheckpointKind::Question, true) => {
                self.check_not_begun(&asked.step)?;
                let output = said.values.clone().unwrap_or_default().into();
                let by = ("by", Value::String(by.to_owned()));
                self.end_as_done(&asked.step, None, Some(output), vec![("approved", Value::Bool(true)), by]);
            }
            (CheckpointKind::Review, true) => self.strike(&asked, said)?,
            (CheckpointKind::Approval, true) | (_, false) => {}
        }
        Ok(())
    }

    /// Applies a review: a struck-out item of a fan-out is skipped, a struck-out part of a body is left out.
    fn strike(&mut self, asked: &OpenCheckpoint, said: &CheckpointAnswer) -> Result<(), String> {
        let indexes: BTreeSet<u32> = said.struck.iter().copied().collect();
        let strikes_all = indexes.len() == asked.items.len();
        let struck = self.interactions.struck.entry(asked.step.clone()).or_default();
        let is_fan_out = matches!(self.steps.get(&asked.step), Some(StepState::Open(open)) if open.items.is_some());
        match asked.item {
            // People may be asked again about the items that have not ended; what they struck out before stays counted.
            None if is_fan_out => *struck = struck.saturating_add(u32::try_from(indexes.len()).unwrap_or(u32::MAX)),
            None => *struck = u32::try_from(indexes.len()).unwrap_or(u32::MAX),
            // People were asked about this item alone; what they struck out before stays counted.
            Some(_) => *struck = struck.saturating_add(u32::from(strikes_all)),
        }
        if let Some(StepState::Open(open)) = self.steps.get_mut(&asked.step)
            && open.items.is_some()
            && asked.item.is_none()
            && !strikes_all
        {
            for item_index in &indexes {
                if *item_index as usize >= open.all() || open.calls.contains_key(item_index) {
                    return Err(format!("item {item_index} of `{}` cannot be struck out", asked.step));
                }
                // The item may still be in its lock's queue, if its input was adjusted and people were therefore asked
                // about all items again.
                open.queued.remove(item_index);
                open.results.insert(*item_index, CallResult::default());
            }
            open.advance_next();
        }
        Ok(())
    }

    pub(super) fn wait_began(
        &mut self,
        step: &StepId,
        until: Option<Timestamp>,
        signal: Option<&String>,
    ) -> Result<(), String> {
        self.check_not_begun(step)?;
        match self.interactions.waits.insert(step.clone(), OpenWait { until, signal: signal.cloned() }) {
            None => Ok(()),
            Some(_) => Err(format!("`{step}` waits already")),
        }
    }

    pub(super) fn signal_received(&mut self, name: &str, payload: &Arc<Value>, id: Option<&String>) {
        if let Some(id) = id {
            self.interactions.remember_delivery(id);
        }
        let signal = Signal { seq: self.seq.next(), name: name.to_owned(), payload: payload.clone(), id: id.cloned() };
        self.interactions.signals.push_back(signal);
    }

    pub(super) fn wait_ended(&mut self, step: &StepId, signal: Option<Seq>, output: &Arc<Value>) -> Result<(), String> {
        let wait = self.interactions.waits.remove(step).ok_or_else(|| format!("`{step}` does not wait"))?;
        if let Some(seq) = signal {
            let index = self.interactions.signals.iter().position(|signal| signal.seq == seq);
            let index = index.ok_or_else(|| format!("no stored signal has the sequence number {seq}"))?;
            if let Some(id) = self.interactions.signals.remove(index).and_then(|signal| signal.id) {
                self.interactions.delivery_taken(&id, step);
            }
        }
        let timed_out = Value::Bool(wait.signal.is_some() && signal.is_none());
        self.end_as_done(step, None, Some(output.clone().into()), vec![("timed_out", timed_out)]);
        Ok(())
    }

    pub(super) fn lock_queued(&mut self, step: &StepId, item: Option<u32>, name: &str) -> Result<(), String> {
        let key = (step.clone(), item);
        if self.interactions.queue_entries.contains_key(&key) {
            return Err(format!("`{step}` is in a lock's queue already"));
        }
        if let Some(item_index) = item {
            let open = self.open_step_mut(step, item)?;
            open.queued.insert(item_index);
            open.advance_next();
        }
        let told_to_wait = self.interactions.locks_told_to_wait.contains(&key);
        let queued = QueueEntry { name: name.to_owned(), queued: self.seq.next(), taken: false, told_to_wait };
        self.interactions.queue_entries.insert(key, queued);
        Ok(())
    }

    /// Applies that a step has taken its lock. The lock's name is not compared with that of the queue entry: a
    /// sensitive name is sealed anew in each event, so the sealed forms differ, and applying the events without the key
    /// must give the same run.
    pub(super) fn lock_taken(&mut self, step: &StepId, item: Option<u32>, name: &str) -> Result<(), String> {
        let key = (step.clone(), item);
        match self.interactions.queue_entries.get_mut(&key) {
            Some(entry) if !entry.taken => {
                entry.taken = true;
                self.interactions.locks_told_to_wait.remove(&key);
                Ok(())
            }
            _ => Err(format!("`{step}` does not wait for `{name}`")),
        }
    }

    pub(super) fn lock_left(&mut self, step: &StepId, item: Option<u32>) -> Result<(), String> {
        let entry = self.interactions.queue_entries.remove(&(step.clone(), item));
        entry.ok_or_else(|| format!("`{step}` is in no lock's queue"))?;
        if let (Some(item_index), Some(StepState::Open(open))) = (item, self.steps.get_mut(step)) {
            // The item had not begun: it may begin later.
            if open.queued.remove(&item_index) && !open.has_ended(item_index) {
                open.next = open.next.min(item_index);
            }
        }
        Ok(())
    }

    pub(super) fn child_started(
        &mut self,
        step: &StepId,
        item: Option<u32>,
        child: RunId,
        workflow: &WorkflowName,
        input: &Arc<Value>,
    ) -> Result<(), String> {
        let began = self.seq.next();
        if item.is_none() && !self.steps.contains_key(step) {
            self.steps.insert(step.clone(), StepState::Open(RunningStep::default()));
        }
        let item_index = item.unwrap_or(0);
        let open = self.open_step_mut(step, item)?;
        if !(open.is_new(item_index) || open.queued.contains(&item_index)) || !open.children.insert(item_index) {
            return Err(format!("`{step}` has begun already"));
        }
        open.queued.remove(&item_index);
        open.advance_next();
        let child = Child { run: child, workflow: workflow.clone(), input: input.clone(), began, paused: false };
        self.interactions.children.insert((step.clone(), item), child);
        Ok(())
    }

    pub(super) fn child_ended(
        &mut self,
        step: &StepId,
        item: Option<u32>,
        ended: &RecordedChildEnd<'_>,
        output: &SharedJson,
    ) -> Result<(), String> {
        let RecordedChildEnd { child, status, effects, tree, unfit } = *ended;
        let key = (step.clone(), item);
        let known = self.interactions.children.get(&key).filter(|known| known.run == child).cloned();
        let known = known.ok_or_else(|| format!("`{step}` did not begin {child}"))?;
        self.interactions.children.remove(&key);
        let ended = self.seq.next();
        let value = item.and_then(|item| self.item(step, item));
        let item_index = item.unwrap_or(0);
        let open = self.open_step_mut(step, item)?;
        open.children.remove(&item_index);
        match tree {
            Some(tree @ TreeEffects { private, shared, .. }) => {
                let effects = [(*private, EffectClass::Private), (*shared, EffectClass::Shared)];
                effects
                    .into_iter()
                    .filter(|(has_begun, _)| *has_begun)
                    .for_each(|(_, effect)| self.note_effect(effect));
                self.record_left_by_child(step, &format!("{child} `{}`", known.workflow), tree);
                self.decided_against |= tree.decided_against;
            }
            None => {
                self.has_unreported_child = true;
                if status != RunStatus::Completed {
                    self.left_by_children.entry(step.clone()).or_default().unknown = true;
                }
                if effects {
                    self.note_effect(EffectClass::Shared);
                }
            }
        }
        let open = self.open_step_mut(step, item)?;
        if status != RunStatus::Completed {
            // The item may begin again: the next event says how the step goes on.
            open.next = open.next.min(item_index);
            return Ok(());
        }
        if unfit {
            open.next = open.next.min(item_index); // the child completed; the next event says how the step goes on
        }
        self.done.push(DoneCall {
            step: step.clone(),
            item,
            value,
            first_seq: known.began,
            last_seq: ended,
            status: None,
            output: output.clone(),
            rehearsed: false,
            harmless: !effects,
            origin: None,
            group_before: None,
            child: Some((child, known.workflow)),
        });
        if !unfit {
            self.call_ended(step, item_index, CallResult { output: Some(output.clone()), ..CallResult::default() });
        }
        Ok(())
    }

    pub(super) fn result_taken(&mut self, taken: &ResultTaken) -> Result<(), String> {
        let ResultTaken { step, origin, skipped, by_hand, decided_item, fields, done, unknown, sensitive: _ } = taken;
        self.check_not_begun(step)?;
        if let Some(item) = decided_item {
            self.decided_items.insert(step.clone(), *item);
        }
        if *by_hand {
            self.skipped_by_hand.insert((step.clone(), None));
            self.decided_against = true;
        }
        let seq = self.seq.next();
        for before in done {
            self.done.push(DoneCall {
                step: step.clone(),
                item: before.item,
                value: before.value.clone(),
                first_seq: seq,
                last_seq: seq,
                status: before.status,
                output: before.output.clone(),
                rehearsed: false,
                harmless: before.harmless,
                origin: Some(*origin),
                group_before: before.group,
                child: before.child.clone(),
            });
        }
        unknown.iter().for_each(|call| self.note_unknown(step, call.item, call.why.clone()));
        let state = if *skipped { StepState::Skipped } else { StepState::Done { why_no_output: None } };
        self.end_step(step, state, None, Vec::new());
        Arc::make_mut(&mut self.outputs).insert(step.as_str(), StepFields::recorded(fields.clone()));
        Ok(())
    }
}
