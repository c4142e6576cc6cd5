//! Applies events of failures: conflicts and choices, early ends, and undoing.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::names::StepId;
use crate::workflow::calls::{
    CallResult, CallState, Phase, StepItem, StepState, UndoCall, UndoProgress, Undoing, Undone, Unsettled,
};
use crate::workflow::missing::RELOAD;
use crate::workflow::run::{Cancel, End, UNDO_UNKNOWN, UNKNOWN};
use crate::workflow::{
    Choice, Conflict, ConflictKind, EffectClass, Failure, FailureKind, Outcome, Part, Run, StepFinished,
};

/// The note of a run that was cancelled.
pub(super) fn cancelled_by(by: &str, reason: Option<&str>) -> String {
    match reason {
        Some(reason) => format!("{by} cancelled it: {reason}"),
        None => format!("{by} cancelled it"),
    }
}

impl Run {
    /// Begins an early end. Conflicts over calls with unknown effect stay open; all others are closed.
    pub(in crate::workflow) fn fail(&mut self, failure: Failure) {
        if self.failing.is_some() {
            return;
        }
        self.failing = Some(failure);
        let conflicts = std::mem::take(&mut self.conflicts);
        for conflict in conflicts {
            match self.call_state(&conflict.step, conflict.item, conflict.part.asked_about()) {
                Some(call) if call.unknown_effect() => {
                    // Whether the call took effect still has to be found out. The choices by which the step would go on
                    // are withdrawn.
                    let mut conflict = conflict;
                    conflict.choices.retain(|choice| choice != "retry_with" && choice != "fallback");
                    self.conflicts.push(conflict);
                }
                _ => self.close_conflict(&conflict),
            }
        }
    }

    /// Closes a conflict because the run ends early: a call that was done is listed as done, and a call that may have
    /// been done as unknown.
    fn close_conflict(&mut self, conflict: &Conflict) {
        let Conflict { step, item, part, .. } = conflict;
        if *part == Part::Undo {
            self.side_calls.remove(&(step.clone(), *item, Part::Undo));
            let is_unknown = conflict.kind == ConflictKind::UndoUnknown;
            let why = if is_unknown { UNDO_UNKNOWN } else { "it could not be undone" };
            self.undo_left(step, *item, why.into());
            return;
        }
        let Some(StepState::Open(open)) = self.steps.get_mut(step) else { return };
        let slot = item.unwrap_or(0);
        if let Some(call) = open.calls.get(&slot).filter(|call| call.phase == Phase::Stuck) {
            let (unknown, unfit, call) = (call.unknown_effect(), call.unfit_result.clone(), call.clone());
            open.calls.remove(&slot);
            if let Some(unfit) = unfit {
                let output = unfit.output.unwrap_or_default();
                self.note_done(step, *item, Some(&call), unfit.status, output, false);
            } else if unknown {
                self.note_effect(call.effect);
                self.note_unknown(step, *item, UNKNOWN.into());
            }
        }
    }

    /// Applies the opening of a conflict.
    pub(super) fn conflict_opened(&mut self, conflict: &Conflict, gave: Option<&Outcome>) -> Result<(), String> {
        let Conflict { step, item, part, attempt, .. } = conflict;
        if self.conflict_over(step, *item).is_some() {
            return Err(format!("a conflict over `{step}` is open already"));
        }
        let call = match (part, attempt) {
            // No call has begun: the conflict is over an expression, a lock or another run.
            (_, 0) => None,
            (Part::Do, _) => Some(self.do_call(step, *item)?),
            // The probe cannot be sent. A person decides about the attempt that it was to ask about; after that it may
            // be sent again.
            (Part::Probe, _) if conflict.kind == ConflictKind::Missing => {
        let mut rejected = None;
                let probe = self.side_calls.remove(&(step.clone(), *item, Part::Probe));
                if probe.is_some_and(|probe| probe.phase == Phase::InFlight) {
                    return Err(format!("the probe of `{step}` is under way"));
                }
                Some(self.do_call(step, *item)?)
            }
            (Part::Probe | Part::Undo, _) => Some(self.side_call(step, *item, *part)?),
        };
        if let Some(call) = call {
            if call.attempt != *attempt || call.phase == Phase::Stuck {
                return Err(format!("attempt {attempt} of `{step}` is not under way"));
            }
            if let Some(Outcome::Unfit { status, headers, output, .. }) = gave {
                let (headers, output) = (headers.clone(), Some(output.clone()));
                call.unfit_result =
            // Only a rejection opens such a conflict between two attempts.
            if conflict.kind == ConflictKind::Refused && call.renew && call.phase != Phase::InFlight {
                rejected = Some(call.other_input_rejected());
            }
                    Some(Box::new(CallResult { status: Some(*status), headers, output, undeclared: None }));
            }
            if matches!(conflict.kind, ConflictKind::OutcomeUnknown | ConflictKind::UndoUnknown) {
                call.uncertain = true;
            }
            let refused =
                matches!(conflict.kind, ConflictKind::Refused | ConflictKind::UndoFailed | ConflictKind::UndoUnknown);
        match rejected {
            Some(Some(before)) => drop(self.inputs.insert((step.clone(), *item), before)),
            Some(None) => drop(self.inputs.remove(&(step.clone(), *item))),
            None => {}
        }
            let effect = call.effect;
            if std::mem::replace(&mut call.phase, Phase::Stuck) == Phase::InFlight {
                self.in_flight -= 1;
            }
            if refused {
                self.note_effect(effect);
            }
        }
        if conflict.kind == ConflictKind::Busy && *attempt == 0 {
            let key = (step.clone(), *item);
            if let Some(queued) = self.interactions.queue_entries.get_mut(&key) {
                queued.told_to_wait = true;
            }
            self.interactions.locks_told_to_wait.insert(key);
        }
        self.conflicts.push(conflict.clone());
        Ok(())
    }

    /// Applies a choice: the conflict is closed. The following events say how the run goes on, except for the input of
    /// the next attempt and for an undo that is left.
    pub(super) fn resolved(
        &mut self,
        step: &StepId,
        item: Option<u32>,
        part: Part,
        choice: &Choice,
        by: &str,
    ) -> Result<(), String> {
        if kind == ConflictKind::Missing
            && conflict.attempt == 0
            && part == Part::Do
            && item.is_some()
            && let (Choice::Skip | Choice::Take { .. } | Choice::Fallback, Ok(open)) =
                (choice, self.open_step_mut(step, item))
        {
            open.decided_when_missing += 1;
        }
        let mut input_before = None;
        let index = self.conflicts.iter().position(|open| open.step == *step && open.item == item && open.part == part);
        let index = index.ok_or_else(|| format!("no conflict over `{step}` is open"))?;
        if matches!(choice, Choice::Cancel { .. }) {
            return Ok(()); // the next event closes this conflict, with all others
        }
        let conflict = self.conflicts.remove(index);
        let kind = conflict.kind;
        self.decided_against |= matches!(choice, Choice::Skip | Choice::Take { .. });
        if let Choice::RetryWith { input } = choice {
            input_before = self.inputs.insert((step.clone(), item), input.clone());
            self.interactions.withdraw(step, item); // people answered about another input
            if item.is_some() {
                // Their answer about all items of the step does not count for this item any more.
                self.interactions.changed.insert((step.clone(), item));
            }
        }
        let asked_about = part.asked_about();
        let unknown =
            asked_about == Part::Do && self.call_state(step, item, asked_about).is_some_and(CallState::unknown_effect);
        match choice {
            Choice::Skip if unknown => self.note_unknown(step, item, format!("{UNKNOWN}: {by} skipped it")),
            Choice::RetryWith { .. } if unknown => {
                let why =
                    format!("it is unknown whether an earlier attempt was done: {by} asked for one with another input");
                self.note_unknown(step, item, why);
            }
            _ => {}
        }
        if part == Part::Undo {
            match choice {
                Choice::Skip => {
                    let unknown = (kind == ConflictKind::UndoUnknown).then(|| format!("{UNDO_UNKNOWN}: "));
                    let why = format!("{}{by} left it as it is", unknown.unwrap_or_default());
                    self.end_undo_by_hand(step, item, Undone::Left(why));
                }
                Choice::Take { .. } => self.end_undo_by_hand(step, item, Undone::Undone),
                Choice::Retry | Choice::RetryWith { .. } | Choice::Fallback | Choice::Wait | Choice::Cancel { .. } => {}
            }
        }
        let done = self.call_state(step, item, part).filter(|call| call.unfit_result.is_some()).cloned();
        if let (Some(call), Choice::Skip) = (done, choice) {
            // The step is skipped, although the call was done.
            let unfit = call.unfit_result.clone().unwrap_or_default();
            self.note_done(step, item, Some(&call), unfit.status, unfit.output.unwrap_or_default(), false);
        }
        let call = match part {
            Part::Do => self.do_call(step, item).ok(),
            Part::Probe | Part::Undo => self.side_call(step, item, part).ok(),
        };
        if let (Some(call), Choice::Retry | Choice::RetryWith { .. }) = (call, choice) {
            call.retry_chosen(choice, &conflict, by == RELOAD, input_before);
        }
        Ok(())
    }

    /// Lists a call that may have taken place and will not be repeated.
    pub(super) fn note_unknown(&mut self, step: &StepId, item: Option<u32>, why: String) {
        if let Some(effect) = self.call_state(step, item, Part::Do).map(|call| call.effect) {
            self.note_effect(effect);
        }
        if !self.may_have_happened(step, item) {
            self.unknown.push(Unsettled { step: step.clone(), item, why });
        }
    }

    pub(super) fn cancel_ordered(&mut self, by: &str, compensate: bool, reason: Option<&str>, automatic: bool) {
        let message = cancelled_by(by, reason);
        self.pause = None;
        // A run that fails cancels its children: that is no decision.
        let by_parent = automatic && self.started.parent.as_ref().is_some_and(|parent| parent.run.to_string() == by);
        self.decided_against |= !by_parent;
        self.cancel = Some(Cancel { by: by.to_owned(), compensate, reason: reason.map(str::to_owned), automatic });
        // A person who cancels has seen the open conflicts; what may have been done stays listed as unknown. Otherwise
        // the conflicts are handled as those of any run that ends early.
        if !automatic {
            for conflict in std::mem::take(&mut self.conflicts) {
                self.close_conflict(&conflict);
            }
        }
        if !compensate {
            self.give_up_unknown();
        }
        self.fail(Failure::of_run(FailureKind::Cancelled, message));
    }

    /// Lists calls with unknown effect that wait for another attempt or a probe, because neither will come.
    fn give_up_unknown(&mut self) {
        let unknown: Vec<StepItem> = self.uncertain_calls().map(|(step, item, _)| (step.clone(), item)).collect();
        for (step, item) in unknown {
            if let Some(StepState::Open(open)) = self.steps.get_mut(&step) {
                open.calls.remove(&item.unwrap_or(0));
            }
            self.note_unknown(&step, item, UNKNOWN.into());
        }
    }

    pub(super) fn compensation_began(&mut self, undo: &[Vec<StepItem>]) -> Result<(), String> {
        // Only in runs of an earlier version: they undid what was done where no answer could be made.
        self.failing = self.failing.take().or_else(|| self.unanswered.clone());
        if self.undoing.is_some() || self.failing.is_none() || self.in_flight > 0 {
            return Err("there is nothing to undo now".into());
        }
        let indexes: BTreeMap<StepItem, usize> =
            self.done.iter().enumerate().map(|(index, done)| ((done.step.clone(), done.item), index)).collect();
        let mut calls = BTreeMap::new();
        let mut progress: BTreeMap<StepId, UndoProgress> = BTreeMap::new();
        for (group, call) in
            undo.iter().enumerate().flat_map(|(index, group)| group.iter().map(move |call| (index, call)))
        {
            let Some(done) = indexes.get(call).copied() else { return Err(format!("`{}` was not done", call.0)) };
            if calls.insert(call.clone(), UndoCall { done, group, undone: Undone::NotYet }).is_some() {
                return Err(format!("`{}` is to be undone twice", call.0));
            }
            progress.entry(call.0.clone()).or_default().to_come += 1;
        }
        for (index, done) in self.done.iter().enumerate() {
            let call = (done.step.clone(), done.item);
            if !done.rehearsed && !done.harmless && !calls.contains_key(&call) {
                progress.entry(call.0).or_default().left.insert(done.item, index);
            }
        }
        let left = undo.first().map_or(0, Vec::len);
        self.undoing = Some(Undoing { groups: undo.to_vec(), at: 0, next: 0, left, calls, progress });
        Ok(())
    }

    /// Checks that this step (item) is to be undone now.
    pub(in crate::workflow) fn check_undo_is_due(&self, step: &StepId, item: Option<u32>) -> Result<(), String> {
        let undoing = self.undoing.as_ref().filter(|undoing| {
            let call = undoing.calls.get(&(step.clone(), item));
            call.is_some_and(|call| call.group == undoing.at && call.undone == Undone::NotYet)
        });
        undoing.map(|_| ()).ok_or_else(|| format!("`{step}` is not to be undone now"))
    }

    /// Moves on to the next undo of the group that has not begun, after one has begun or ended.
    pub(super) fn advance_undo(&mut self) {
        let Some(undoing) = &mut self.undoing else { return };
        let group = undoing.groups.get(undoing.at).map_or(&[][..], Vec::as_slice);
        while let Some((step, item)) = group.get(undoing.next)
            && (self.side_calls.contains_key(&(step.clone(), *item, Part::Undo))
                || undoing.calls.get(&(step.clone(), *item)).is_none_or(|call| call.undone != Undone::NotYet))
        {
            undoing.next += 1;
        }
    }

    pub(super) fn undo_finished(&mut self, finished: &StepFinished) -> Result<(), String> {
        let StepFinished { step, item, part: _, attempt, outcome } = finished;
        self.check_undo_is_due(step, *item)?;
        let name = (step.clone(), *item, Part::Undo);
        match self.side_calls.get(&name) {
            Some(call) if call.attempt == *attempt && call.phase == Phase::InFlight => {
                self.side_calls.remove(&name);
                self.in_flight -= 1;
            }
            None if *attempt == 0 || matches!(outcome, Outcome::Rehearsed { .. }) => {}
            _ => return Err(format!("attempt {attempt} to undo `{step}` is not under way")),
        }
        let undone = match outcome {
            Outcome::Done { .. } => Undone::Undone,
            Outcome::Rehearsed { intent, .. } => {
                self.intents.insert((step.clone(), *item, Part::Undo), Arc::clone(intent));
                Undone::Rehearsed
            }
            Outcome::NotDone { failure }
            | Outcome::Unknown { failure }
            | Outcome::Failed { failure }
            | Outcome::Unfit { failure, .. } => Undone::Left(failure.message.clone()),
        };
        self.undo_ended(step, *item, undone);
        Ok(())
    }

    fn end_undo_by_hand(&mut self, step: &StepId, item: Option<u32>, undone: Undone) {
        self.side_calls.remove(&(step.clone(), item, Part::Undo));
        self.undo_ended(step, item, undone);
    }

    fn undo_left(&mut self, step: &StepId, item: Option<u32>, why: String) {
        self.undo_ended(step, item, Undone::Left(why));
    }

    fn undo_ended(&mut self, step: &StepId, item: Option<u32>, undone: Undone) {
        let Some(undoing) = &mut self.undoing else { return };
        if let Some(call) = undoing.calls.get_mut(&(step.clone(), item)) {
            let progress = undoing.progress.entry(step.clone()).or_default();
            progress.to_come = progress.to_come.saturating_sub(1);
            match &undone {
                Undone::Undone | Undone::Rehearsed => progress.undone += 1,
                Undone::Left(_) => drop(progress.left.insert(item, call.done)),
                Undone::NotYet => progress.to_come += 1,
            }
            call.undone = undone;
        }
        undoing.left = undoing.left.saturating_sub(1);
        while undoing.left == 0 && undoing.at < undoing.groups.len() {
            (undoing.at, undoing.next) = (undoing.at + 1, 0);
            undoing.left = undoing.groups.get(undoing.at).map_or(0, Vec::len);
        }
        self.advance_undo();
    }

    /// Applies the cancellation of a run whose plan or events could not be read. It fits any run that has not ended:
    /// calls under way are left as they are, and listed as unknown.
    pub(super) fn cancelled_unread(&mut self, by: &str, reason: Option<&str>) {
        self.cancel_ordered(by, false, reason, false);
        let is_unknown = |call: &CallState| call.effect != EffectClass::Read;
        let left: Vec<StepItem> = self
            .steps
            .iter()
            .filter_map(|(step, state)| match state {
                StepState::Open(open) => Some((step, open)),
                _ => None,
            })
            .flat_map(|(step, open)| {
                let calls = open.calls.iter().filter(|(_, call)| is_unknown(call) && call.unfit_result.is_none());
                let sent = calls.filter(|(_, call)| call.unknown_effect() || call.phase == Phase::InFlight);
                sent.map(move |(slot, _)| (step.clone(), open.items.as_ref().map(|_| *slot)))
            })
            .collect();
        for (step, item) in left {
            self.note_unknown(&step, item, UNKNOWN.into());
        }
        let undoing: Vec<StepItem> = self
            .side_calls
            .keys()
            .filter(|(.., part)| *part == Part::Undo)
            .cloned()
            .map(|(step, item, _)| (step, item))
            .collect();
        for (step, item) in undoing {
            self.undo_left(&step, item, "it is unknown whether it was undone".into());
        }
        for state in self.steps.values_mut() {
            if let StepState::Open(open) = state {
                open.calls.clear();
                open.children.clear();
            }
        }
        self.side_calls.clear();
        for (step, _) in std::mem::take(&mut self.interactions.children).into_keys() {
            self.has_unreported_child = true;
            self.left_by_children.entry(step).or_default().unknown = true;
        }
        self.in_flight = 0;
        self.end = Some(End::CancelledUnread(cancelled_by(by, reason)));
    }

    pub(super) fn ended(&mut self, end: End) -> Result<(), String> {
        if self.in_flight > 0 {
            return Err("calls are under way".into());
        }
        self.end = Some(end);
        Ok(())
    }
}
