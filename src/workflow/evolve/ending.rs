//! Applies events of failures: conflicts and choices, and early ends.

use crate::names::StepId;
use crate::workflow::calls::{CallResult, CallState, Phase, StepItem, StepState, UnknownEffect};
use crate::workflow::missing::RELOAD;
use crate::workflow::resolve::ENDING;
use crate::workflow::run::{Cancel, End, UNDO_UNKNOWN, UNKNOWN};
use crate::workflow::{Choice, Conflict, ConflictKind, EffectClass, Failure, FailureKind, Outcome, Run, StepPart};

/// The note of a run that was cancelled.
pub(super) fn cancelled_by(by: &str, reason: Option<&str>) -> String {
    match reason {
        Some(reason) => format!("{by} cancelled it: {reason}"),
        None => format!("{by} cancelled it"),
    }
}

impl Run {
    /// Of a run that ends early: the conflicts over calls that were done for certain, although an earlier attempt had
    /// an unknown outcome. They need no decision by an operator: their compensations are done.
    pub(in crate::workflow) fn conflicts_over_done_calls(&self) -> impl Iterator<Item = &Conflict> {
        let is_done = |conflict: &&Conflict| {
            let call = self.call_state(&conflict.step, conflict.item, conflict.part.decided_part());
            conflict.part != StepPart::Undo && call.is_some_and(|call| call.unfit_result.is_some())
        };
        self.conflicts.iter().filter(|_| self.failing.is_some()).filter(is_done)
    }

    /// Begins an early end. Conflicts over calls of which an attempt had an unknown outcome stay open, all others are
    /// closed. Those over calls that a later attempt or a probe showed to be done are resolved by events of their own
    /// ([`Run::conflicts_over_done_calls`]), because events of earlier versions keep them open.
    pub(in crate::workflow) fn fail(&mut self, failure: Failure) {
        if self.failing.is_some() {
            return;
        }
        self.failing = Some(failure);
        let conflicts = std::mem::take(&mut self.conflicts);
        for conflict in conflicts {
            match self.call_state(&conflict.step, conflict.item, conflict.part.decided_part()) {
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
        if *part == StepPart::Undo {
            let is_unknown = self.is_undo_unknown(step, *item, conflict.kind);
            let why = if is_unknown { UNDO_UNKNOWN } else { "it could not be undone" };
            self.leave_undo(step, *item, is_unknown, why.into());
            return;
        }
        let Some(StepState::Open(open)) = self.steps.get_mut(step) else { return };
        let item_index = item.unwrap_or(0);
        if let Some(call) = open.calls.get(&item_index).filter(|call| call.phase == Phase::AwaitsDecision) {
            let (unknown, unfit, call) = (call.unknown_effect(), call.unfit_result.clone(), call.clone());
            open.calls.remove(&item_index);
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
    pub(super) fn conflict_opened(&mut self, conflict: &Conflict, unfit: Option<&Outcome>) -> Result<(), String> {
        let Conflict { step, item, part, attempt, .. } = conflict;
        if self.conflict_over(step, *item).is_some() {
            return Err(format!("a conflict over `{step}` is open already"));
        }
        let call = match (part, attempt) {
            // No call has begun: the conflict is over an expression, a lock, another run, or something that the files
            // lack.
            (_, 0) => None,
            (StepPart::Do, _) => Some(self.do_call(step, *item)?),
            // The probe cannot be sent, so a person decides about the attempt. After this decision the probe may be
            // sent.
            (StepPart::Probe, _) if conflict.kind == ConflictKind::Missing => {
                let probe = self.side_calls.remove(&(step.clone(), *item, StepPart::Probe));
                if probe.is_some_and(|probe| probe.phase == Phase::InFlight) {
                    return Err(format!("the probe of `{step}` is under way"));
                }
                Some(self.do_call(step, *item)?)
            }
            (StepPart::Probe | StepPart::Undo, _) => Some(self.side_call(step, *item, *part)?),
        };
        let mut rejected = None;
        if let Some(call) = call {
            if call.attempt != *attempt || call.phase == Phase::AwaitsDecision {
                return Err(format!("attempt {attempt} of `{step}` is not under way"));
            }
            if let Some(Outcome::Unfit { status, headers, output, .. }) = unfit {
                let (headers, output) = (headers.clone(), Some(output.clone()));
                call.unfit_result =
                    Some(Box::new(CallResult { status: Some(*status), headers, output, why_no_output: None }));
            }
            if matches!(conflict.kind, ConflictKind::OutcomeUnknown | ConflictKind::UndoUnknown) {
                call.mark_unknown();
            }
            let refused =
                matches!(conflict.kind, ConflictKind::Refused | ConflictKind::UndoFailed | ConflictKind::UndoUnknown);
            let effect = call.effect;
            // A `Refused` conflict while no attempt is in flight: a person gave another input, and people rejected it.
            if conflict.kind == ConflictKind::Refused && call.renew && call.phase != Phase::InFlight {
                rejected = Some(call.other_input_rejected());
            }
            if std::mem::replace(&mut call.phase, Phase::AwaitsDecision) == Phase::InFlight {
                self.in_flight -= 1;
            }
            if refused {
                self.note_effect(effect);
            }
        }
        match rejected {
            Some(Some(before)) => drop(self.inputs.insert((step.clone(), *item), before)),
            Some(None) => drop(self.inputs.remove(&(step.clone(), *item))),
            None => {}
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

    /// Applies a choice: closes the conflict, and records the input of the next attempt or that an undo is left. The
    /// following events say how the run goes on.
    pub(super) fn resolved(
        &mut self,
        step: &StepId,
        item: Option<u32>,
        part: StepPart,
        choice: &Choice,
        by: &str,
    ) -> Result<(), String> {
        let index = self.conflicts.iter().position(|open| open.step == *step && open.item == item && open.part == part);
        let index = index.ok_or_else(|| format!("no conflict over `{step}` is open"))?;
        if matches!(choice, Choice::Cancel { .. }) {
            return Ok(()); // the next event closes this conflict, with all others
        }
        let conflict = self.conflicts.remove(index);
        let kind = conflict.kind;
        self.decided_against |= by != ENDING && matches!(choice, Choice::Skip | Choice::Take { .. });
        if kind == ConflictKind::Missing
            && conflict.attempt == 0
            && part == StepPart::Do
            && item.is_some()
            && matches!(choice, Choice::Skip | Choice::Take { .. } | Choice::Fallback)
        {
            *self.interactions.decided_when_missing.entry(step.clone()).or_default() += 1;
        }
        let mut input_before = None;
        if let Choice::RetryWith { input } = choice {
            input_before = self.inputs.insert((step.clone(), item), input.clone());
            self.interactions.withdraw(step, item); // people answered about the earlier input
            if item.is_some() {
                // People's answer about all items of the step does not count for this item any more.
                self.interactions.changed.insert((step.clone(), item));
            }
        }
        let asked_about = part.decided_part();
        let unknown = asked_about == StepPart::Do
            && self
                .call_state(step, item, asked_about)
                .is_some_and(|call| call.unknown_effect() && call.unfit_result.is_none());
        match choice {
            Choice::Skip if unknown => self.note_unknown(step, item, format!("{UNKNOWN}: {by} skipped it")),
            Choice::RetryWith { .. } if unknown => {
                let why =
                    format!("it is unknown whether an earlier attempt was done: {by} asked for one with another input");
                self.note_unknown(step, item, why);
            }
            _ => {}
        }
        if part == StepPart::Undo {
            match choice {
                Choice::Skip => {
                    let is_unknown = self.is_undo_unknown(step, item, kind);
                    let unknown = is_unknown.then(|| format!("{UNDO_UNKNOWN}: "));
                    let why = format!("{}{by} left it as it is", unknown.unwrap_or_default());
                    self.leave_undo(step, item, is_unknown, why);
                }
                Choice::Take { .. } => self.undone_by_hand(step, item),
                Choice::Retry | Choice::RetryWith { .. } | Choice::Fallback | Choice::Wait | Choice::Cancel { .. } => {}
            }
        }
        let done = self.call_state(step, item, part).filter(|call| call.unfit_result.is_some()).cloned();
        if let (Some(call), Choice::Skip) = (done, choice) {
            // The step is skipped, but its call was done and may have to be undone.
            let unfit = call.unfit_result.clone().unwrap_or_default();
            self.note_done(step, item, Some(&call), unfit.status, unfit.output.unwrap_or_default(), false);
        }
        let call = match part {
            StepPart::Do => self.do_call(step, item).ok(),
            StepPart::Probe | StepPart::Undo => self.side_call(step, item, part).ok(),
        };
        if let (Some(call), Choice::Retry | Choice::RetryWith { .. }) = (call, choice) {
            call.retry_chosen(choice, &conflict, by == RELOAD, input_before);
        }
        Ok(())
    }

    /// Adds a call that may have been done, and will not be repeated, to the list of unknown effects.
    pub(super) fn note_unknown(&mut self, step: &StepId, item: Option<u32>, why: String) {
        if let Some(effect) = self.call_state(step, item, StepPart::Do).map(|call| call.effect) {
            self.note_effect(effect);
        }
        if !self.may_have_happened(step, item) {
            self.unknown.push(UnknownEffect { step: step.clone(), item, why });
        }
    }

    pub(super) fn cancel_ordered(&mut self, by: &str, compensate: bool, reason: Option<&str>, automatic: bool) {
        let message = cancelled_by(by, reason);
        self.pause = None;
        // A parent that fails cancels its children, which is no decision against what the request asks for.
        let by_parent = automatic && self.is_parent(by);
        self.decided_against |= !by_parent;
        self.cancel = Some(Cancel { by: by.to_owned(), compensate, reason: reason.map(str::to_owned), automatic });
        // A person who cancels has seen the open conflicts, so they are closed; what may have been done stays listed
        // as unknown. After an automatic cancellation, `fail` handles the conflicts as in any run that ends early.
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

    /// Closes the conflicts that end a run in dark, because nobody resolves them.
    pub(super) fn leave_conflicts(&mut self) {
        if self.conflicts.is_empty() {
            return;
        }
        for conflict in std::mem::take(&mut self.conflicts) {
            self.close_conflict(&conflict);
        }
        self.give_up_unknown();
    }

    /// Lists as unknown the calls and undos with unknown effect that wait for another attempt or a probe: neither will
    /// come.
    fn give_up_unknown(&mut self) {
        self.give_up_unknown_undos();
        let unknown: Vec<StepItem> = self.uncertain_calls().map(|(step, item, _)| (step.clone(), item)).collect();
        for (step, item) in unknown {
            if let Some(StepState::Open(open)) = self.steps.get_mut(&step) {
                open.calls.remove(&item.unwrap_or(0));
            }
            self.note_unknown(&step, item, UNKNOWN.into());
        }
    }

    /// Applies the cancellation of a run whose plan or events could not be read. This event fits any run that has not
    /// ended: calls under way are left as they are, and listed as unknown.
    pub(super) fn cancelled_although_unreadable(&mut self, by: &str, reason: Option<&str>) {
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
                sent.map(move |(item_index, _)| (step.clone(), open.items.as_ref().map(|_| *item_index)))
            })
            .collect();
        for (step, item) in left {
            self.note_unknown(&step, item, UNKNOWN.into());
        }
        let undos = self.side_calls.keys().filter(|(.., part)| *part == StepPart::Undo).cloned();
        for (step, item, _) in undos.collect::<Vec<_>>() {
            self.leave_undo(&step, item, true, "it is unknown whether it was undone".into());
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
