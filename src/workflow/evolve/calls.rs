//! Applies events of calls: attempts, their ends, probes; and ends steps whose calls have all ended.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::result_fields::result_fields;
use crate::expression::SharedJson;
use crate::names::{Seq, StepId};
use crate::workflow::calls::{CallResult, CallState, DoneCall, Phase, RunningStep, StepState, UnknownReply};
use crate::workflow::run::UNKNOWN;
use crate::workflow::{
    CallRecord, EffectClass, Mode, Outcome, RetryScheduled, Run, Skipped, StepFinished, StepPart, StepStarted,
    TakenReply,
};

impl Run {
    pub(super) fn step_started(&mut self, started: &StepStarted) -> Result<(), String> {
        let StepStarted { step, item, part, effect, request, .. } = started;
        let seq = self.seq.next();
        match part {
            StepPart::Do => {
                if !self.steps.contains_key(step) {
                    if item.is_some() {
                        return Err(format!("`{step}` has no open fan-out"));
                    }
                    self.steps.insert(step.clone(), StepState::Open(RunningStep::default()));
                }
                let open = self.open_step_mut(step, *item)?;
                let item_index = item.unwrap_or(0);
                if open.has_ended(item_index) {
                    return Err(format!("the call of `{step}` has ended"));
                }
                if let Some(call) = next_attempt(open.calls.get_mut(&item_index), started, seq)? {
                    open.calls.insert(item_index, call);
                    open.queued.remove(&item_index);
                    open.advance_next();
                }
                // In shadow and dark the request of a private step is recorded as an intent, whether it was sent or
                // not, because it may be compared.
                if let (EffectClass::Private, Some(request), false) = (effect, request, self.mode() == Mode::Real) {
                    self.intents.insert((step.clone(), *item, StepPart::Do), request.clone());
                }
            }
            StepPart::Probe => {
                let probing = self.side_calls.contains_key(&(step.clone(), *item, StepPart::Probe));
                let call = self.do_call(step, *item)?;
                match call.phase {
                    Phase::Probing if probing => {}
                    Phase::ToProbe(_) | Phase::Waiting(_) if call.uncertain => call.phase = Phase::Probing,
                    _ => return Err(format!("no call of `{step}` with an unknown outcome can be probed")),
                }
                self.next_side_call_attempt(started, seq)?;
            }
            StepPart::Undo => {
                self.check_undo_is_due(step, *item)?;
                self.next_side_call_attempt(started, seq)?;
                self.advance_undo();
                if let (EffectClass::Private, Some(request), false) = (effect, request, self.mode() == Mode::Real) {
                    self.intents.insert((step.clone(), *item, StepPart::Undo), request.clone());
                }
            }
        }
        self.in_flight += 1;
        Ok(())
    }

    fn next_side_call_attempt(&mut self, started: &StepStarted, seq: Seq) -> Result<(), String> {
        let name = (started.step.clone(), started.item, started.part);
        if let Some(call) = next_attempt(self.side_calls.get_mut(&name), started, seq)? {
            self.side_calls.insert(name, call);
        }
        Ok(())
    }

    pub(super) fn retry_scheduled(&mut self, retry: &RetryScheduled) -> Result<(), String> {
        let RetryScheduled {
            step,
            item,
            part,
            attempt,
            unknown,
            why,
            at,
            uncounted,
            probe,
            status,
            response,
            may_take_effect_until,
            withdrawn,
        } = retry;
        let call = match part {
            StepPart::Do => self.do_call(step, *item)?,
            StepPart::Probe | StepPart::Undo => self.side_call(step, *item, *part)?,
        };
        if call.attempt != *attempt || matches!(call.phase, Phase::Waiting(_) | Phase::ToProbe(_)) {
            return Err(format!("attempt {attempt} of `{step}` is not under way"));
        }
        let phase_before =
            std::mem::replace(&mut call.phase, if *probe { Phase::ToProbe(*at) } else { Phase::Waiting(*at) });
        call.uncounted += u32::from(*uncounted);
        if *withdrawn {
            call.until = None;
        }
        call.why = Some(why.clone());
        if *unknown {
            call.mark_unknown();
            call.unknown_reply = Some(UnknownReply { status: *status, response: response.clone() });
        }
        if phase_before == Phase::InFlight {
            self.in_flight -= 1;
        }
        if may_take_effect_until.is_some() && *part != StepPart::Undo {
            let asked_about = self.do_call(step, *item)?;
            asked_about.may_take_effect_until = asked_about.may_take_effect_until.max(*may_take_effect_until);
        }
        Ok(())
    }

    pub(super) fn step_finished(&mut self, finished: &StepFinished) -> Result<(), String> {
        let StepFinished { step, item, part, attempt, outcome } = finished;
        match part {
            StepPart::Do => {}
            StepPart::Probe => return Err("a probe ends with `probed`".into()),
            StepPart::Undo => return self.undo_finished(finished),
        }
        let result = match outcome {
            Outcome::Done { status, headers, output } => CallResult {
                status: Some(*status),
                headers: headers.clone(),
                output: Some(output.clone()),
                why_no_output: None,
            },
            Outcome::Rehearsed { output, note, taken, .. } => {
                let why_no_output = output.is_none().then(|| note.clone().unwrap_or_else(|| "no `rehearse:`".into()));
                let of_legacy = taken.as_ref().map(|taken| (taken.status, taken.headers.clone()));
                let (status, headers) = of_legacy.unwrap_or((200, BTreeMap::new()));
                let status = output.is_some().then_some(status);
                CallResult { status, headers, output: output.clone(), why_no_output }
            }
            Outcome::Unfit { status, output, failure, .. } => {
                let call = self.take_call(step, *item, *attempt)?;
                self.note_done(step, *item, call.as_ref(), Some(*status), output.clone(), false);
                return self.call_failed(step, *item, failure);
            }
            Outcome::NotDone { failure } | Outcome::Unknown { failure } | Outcome::Failed { failure } => {
                let call = match self.steps.get(step) {
                    // The step failed before any attempt, or its fallback failed.
                    None | Some(StepState::Replaced { .. }) if *attempt == 0 => None,
                    // A fan-out failed as a whole: a person rejected all of its items, or, after single items whose
                    // service was missing had been decided about, all items that were left.
                    Some(StepState::Open(open))
                        if *attempt == 0 && item.is_none() && open.items.is_some() && !open.has_calls() =>
                    {
                        None
                    }
                    Some(StepState::Open(_)) => self.take_call(step, *item, *attempt)?,
                    _ => return Err(format!("`{step}` has ended")),
                };
                match (call, outcome) {
                    (Some(call), Outcome::Unknown { .. }) if call.effect != EffectClass::Read => {
                        self.note_effect(call.effect);
                        self.note_unknown(step, *item, UNKNOWN.into());
                    }
                    // A refused request may have had a partial effect.
                    (Some(call), Outcome::Failed { .. }) => self.note_effect(call.effect),
                    (Some(call), _) if call.uncertain => self.note_effect(call.effect),
                    (Some(_) | None, _) => {}
                }
                return self.call_failed(step, *item, failure);
            }
        };
        if !self.steps.contains_key(step) && item.is_none() {
            self.steps.insert(step.clone(), StepState::Open(RunningStep::default()));
        }
        let call = match outcome {
            Outcome::Rehearsed { intent, taken, .. } => {
                let open = self.open_step_mut(step, *item)?;
                let item_index = item.unwrap_or(0);
                if open.calls.contains_key(&item_index) || open.has_ended(item_index) {
                    return Err(format!("the call of `{step}` has begun"));
                }
                self.record_intent(step, *item, intent);
                if let Some(TakenReply { call, refused, .. }) = taken {
                    self.assigned.insert((step.clone(), *item), *call);
                    if let Some(failure) = refused {
                        return self.call_failed(step, *item, failure);
                    }
                }
                None
            }
            _ => self.take_call(step, *item, *attempt)?,
        };
        let rehearsed = matches!(outcome, Outcome::Rehearsed { .. });
        // If a person gave another output, the undo still uses the service's output.
        let unfit = call.as_ref().and_then(|call| call.unfit_result.as_ref()?.output.clone());
        let output = unfit.or_else(|| result.output.clone()).unwrap_or_default();
        self.note_done(step, *item, call.as_ref(), result.status, output, rehearsed);
        self.open_step_mut(step, *item)?;
        self.call_ended(step, item.unwrap_or(0), result);
        Ok(())
    }

    /// Adds a call to the list of calls that were done, because it may have to be undone; a rehearsed call is listed as
    /// rehearsed. Not listed are reads, and calls that were neither sent nor rehearsed, even if a person gave the step
    /// an output.
    pub(super) fn note_done(
        &mut self,
        step: &StepId,
        item: Option<u32>,
        call: Option<&CallState>,
        status: Option<u16>,
        output: SharedJson,
        rehearsed: bool,
    ) {
        if !rehearsed && call.is_none_or(|call| call.effect == EffectClass::Read) {
            return;
        }
        if let Some(call) = call.filter(|_| !rehearsed) {
            self.note_effect(call.effect);
        }
        let last_seq = self.seq.next();
        let value = item.and_then(|item| self.item(step, item));
        let first_seq = call.map_or(last_seq, |call| call.began);
        let step = step.clone();
        let (origin, group_before, child, harmless) = (None, None, None, false);
        let done = DoneCall {
            step,
            item,
            value,
            first_seq,
            last_seq,
            status,
            output,
            rehearsed,
            harmless,
            origin,
            group_before,
            child,
        };
        self.done.push(done);
    }

    fn record_intent(&mut self, step: &StepId, item: Option<u32>, intent: &Arc<CallRecord>) {
        self.intents.insert((step.clone(), item, StepPart::Do), intent.clone());
    }

    pub(super) fn item_skipped(&mut self, step: &StepId, item: Option<u32>, reason: Skipped) -> Result<(), String> {
        let item_index = item.unwrap_or(0);
        let open = self.open_step_mut(step, item)?;
        if open.has_ended(item_index) || open.calls.get(&item_index).is_some_and(|call| call.phase == Phase::InFlight) {
            return Err(format!("item {item_index} of `{step}` has ended, or is under way"));
        }
        if open.children.contains(&item_index) {
            return Err(format!("the run that item {item_index} of `{step}` began has not ended"));
        }
        open.calls.remove(&item_index);
        open.queued.remove(&item_index);
        match reason {
            // This is a fallback that does not run for the item: the next event says how the replaced item ends.
            Skipped::Condition | Skipped::Needs | Skipped::NotNeeded => {
                open.results.insert(item_index, CallResult::default());
            }
            Skipped::ByHand | Skipped::Rejected | Skipped::Busy => {
                self.call_ended(step, item_index, CallResult::default());
            }
        }
        self.interactions.withdraw(step, item);
        Ok(())
    }

    pub(super) fn probed(
        &mut self,
        step: &StepId,
        item: Option<u32>,
        attempt: u32,
        done: Option<bool>,
    ) -> Result<(), String> {
        let probe = self.side_calls.remove(&(step.clone(), item, StepPart::Probe));
        let probe = probe.ok_or_else(|| format!("no probe of `{step}` is under way"))?;
        if probe.phase == Phase::InFlight {
            self.in_flight -= 1;
        }
        let call = self.do_call(step, item)?;
        if call.phase != Phase::Probing || call.attempt != attempt {
            return Err(format!("the probe does not ask about attempt {attempt} of `{step}`"));
        }
        if done == Some(false) {
            call.clear_unknown();
        }
        Ok(())
    }

    /// Ends a step if all of its calls have ended; in a run that is ending, if none of its calls is under way.
    pub(super) fn end_step_if_complete(&mut self, step: &StepId) {
        let ending = self.is_ending();
        let Some(StepState::Open(open)) = self.steps.get(step) else {
            // In events of earlier versions a step could end as a whole while the fallback of an item was under way.
            return self.end_complete_item_fallback(step);
        };
        if open.ended() == open.all() {
            let (why_no_output, output, mut fields) = result_fields(open);
            if why_no_output.is_none() {
                fields.push(("struck", Value::from(self.interactions.struck.get(step).copied().unwrap_or(0))));
            }
            self.end_item_fallbacks(step, false);
            self.end_as_done(step, why_no_output, output, fields);
        } else if ending && !self.items_under_way(step) {
            self.end_item_fallbacks(step, true);
            self.end_step(step, StepState::Failed, None, Vec::new());
        }
    }

    /// Whether an attempt of the step, its probe or its child run is under way.
    pub(super) fn calls_under_way(&self, step: &StepId) -> bool {
        self.open_step(step).is_some_and(|open| {
            let sent = |call: &CallState| matches!(call.phase, Phase::InFlight | Phase::Probing);
            !open.children.is_empty() || open.calls.values().any(sent)
        })
    }

    /// Returns the state of a step, which must be open and have this item.
    pub(super) fn open_step_mut(&mut self, step: &StepId, item: Option<u32>) -> Result<&mut RunningStep, String> {
        match self.steps.get_mut(step) {
            Some(StepState::Open(open)) => match (&open.items, item) {
                (None, None) => Ok(open),
                (Some(_), Some(item)) if open.includes(item) => Ok(open),
                _ => Err(format!("`{step}` has no such item")),
            },
            _ => Err(format!("`{step}` is not under way")),
        }
    }

    /// Returns a step's own call, which must have begun and not ended.
    pub(super) fn do_call(&mut self, step: &StepId, item: Option<u32>) -> Result<&mut CallState, String> {
        let open = self.open_step_mut(step, item)?;
        open.calls.get_mut(&item.unwrap_or(0)).ok_or_else(|| format!("the call of `{step}` has not begun"))
    }

    /// Returns the call of a probe or an undo, which must have begun and not ended.
    pub(super) fn side_call(
        &mut self,
        step: &StepId,
        item: Option<u32>,
        part: StepPart,
    ) -> Result<&mut CallState, String> {
        let call = self.side_calls.get_mut(&(step.clone(), item, part));
        call.ok_or_else(|| format!("no probe or undo of `{step}` is under way"))
    }

    /// Removes and returns the call that ends with this attempt; `None` if no call had begun (attempt 0).
    fn take_call(&mut self, step: &StepId, item: Option<u32>, attempt: u32) -> Result<Option<CallState>, String> {
        let item_index = item.unwrap_or(0);
        let open = self.open_step_mut(step, item)?;
        let Some(call) = open.calls.get(&item_index) else {
            return match attempt == 0 && !open.has_ended(item_index) {
                true => Ok(None),
                false => Err(format!("attempt {attempt} of `{step}` is not under way")),
            };
        };
        if call.attempt != attempt || matches!(call.phase, Phase::Waiting(_) | Phase::ToProbe(_)) {
            return Err(format!("attempt {attempt} of `{step}` is not under way"));
        }
        let call = open.calls.remove(&item_index);
        if call.as_ref().is_some_and(|call| call.phase == Phase::InFlight) {
            self.in_flight -= 1;
        }
        Ok(call)
    }
}

/// Begins the next attempt of a call. Returns the new call if this is its first attempt.
fn next_attempt(call: Option<&mut CallState>, started: &StepStarted, seq: Seq) -> Result<Option<CallState>, String> {
    let StepStarted { step, attempt, request, key, until, at, .. } = started;
    match (call, request) {
        (None, Some(request)) if *attempt == 1 => Ok(Some(CallState::first(started, request, seq))),
        (Some(call), request)
            if !matches!(call.phase, Phase::InFlight | Phase::AwaitsDecision)
                && *attempt == call.attempt + 1
                && (request.is_some() || !call.renew) =>
        {
            if let Some(request) = request {
                call.request = request.clone();
                call.key = key.clone();
                call.renew = false;
            }
            call.attempt = *attempt;
            call.phase = Phase::InFlight;
            let by_reload = std::mem::take(&mut call.requested_by_reload);
            call.was_requested = std::mem::take(&mut call.requested) && !by_reload;
            call.move_accepted = false;
            call.until = until.or(call.until);
            call.at = *at;
            Ok(None)
        }
        _ => Err(format!("attempt {attempt} of `{step}` cannot begin now")),
    }
}
