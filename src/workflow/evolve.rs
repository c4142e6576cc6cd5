//! The one function that all history passes through.
//!
//! Always true: recording and replay call the same [`evolve`]; an event that does not fit what came before is an
//! error value, never a panic.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::run::{CallResult, CallState, End, Open, Phase, StepState};
use super::{
    Conflict, EffectClass, Event, Failure, Mode, Outcome, RetryScheduled, Run, RunStarted, StepFinished, StepStarted,
};
use crate::names::{Seq, StepId};

/// An event that does not fit what came before.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("event {seq} (`{kind}`) does not fit: {why}")]
pub struct Misfit {
    /// Its place.
    pub seq: Seq,
    /// Its name.
    pub kind: &'static str,
    /// What is wrong.
    pub why: String,
}

/// The run after one more event; `None` is before the first.
///
/// # Errors
/// The event does not fit.
pub fn evolve(run: Option<Run>, event: &Event) -> Result<Run, Misfit> {
    let Some(mut run) = run else {
        return match event {
            Event::RunStarted(started) => Ok(born(started)),
            _ => Err(Misfit { seq: Seq::FIRST, kind: event.kind(), why: "a run begins with `run_started`".into() }),
        };
    };
    run.take_in(event)?;
    Ok(run)
}

/// The run that these events come to.
///
/// # Errors
/// There is none, or one of them does not fit.
pub fn fold<'a>(events: impl IntoIterator<Item = &'a Event>) -> Result<Run, Misfit> {
    let mut run = None;
    for event in events {
        run = Some(evolve(run, event)?);
    }
    run.ok_or_else(|| Misfit { seq: Seq(0), kind: "none", why: "there are no events".into() })
}

fn born(started: &Arc<RunStarted>) -> Run {
    Run {
        started: started.clone(),
        seq: Seq::FIRST,
        steps: BTreeMap::new(),
        ended_steps: 0,
        in_flight: 0,
        outputs: Arc::new(Value::Object(Map::new())),
        answer: None,
        pinned: None,
        failing: None,
        declared: None,
        conflict: None,
        end: None,
        private_begun: false,
        shared_begun: false,
        intents: BTreeMap::new(),
    }
}

impl Run {
    /// As [`evolve`], for whoever holds the run already. After an error the run is of no use any more.
    ///
    /// # Errors
    /// The event does not fit.
    pub fn take_in(&mut self, event: &Event) -> Result<(), Misfit> {
        let seq = self.seq.next();
        let fits = match self.end {
            Some(_) => Err("the run has ended".into()),
            None => self.apply(event),
        };
        fits.map_err(|why| Misfit { seq, kind: event.kind(), why })?;
        self.seq = seq;
        Ok(())
    }

    fn apply(&mut self, event: &Event) -> Result<(), String> {
        match event {
            Event::RunStarted(_) => Err("the run has begun already".into()),
            Event::StepStarted(started) => self.step_started(started),
            Event::RetryScheduled(retry) => self.retry_scheduled(retry),
            Event::StepFinished(finished) => self.step_finished(finished),
            Event::StepComputed { step, output } => {
                self.not_begun(step)?;
                self.done(step, None, vec![("output", (**output).clone())]);
                Ok(())
            }
            Event::StepSkipped { step, .. } => {
                self.not_begun(step)?;
                self.end_step(step, StepState::Skipped, vec![("skipped", Value::Bool(true))]);
                Ok(())
            }
            Event::FanOutOpened { step, items } => {
                self.not_begun(step)?;
                if items.is_empty() {
                    let none = || Value::Array(Vec::new());
                    self.done(step, None, vec![("output", none()), ("status", none()), ("headers", none())]);
                } else {
                    let open = Open { items: Some(Arc::new(items.clone())), ..Open::default() };
                    self.steps.insert(step.clone(), StepState::Open(open));
                }
                Ok(())
            }
            Event::FailReached { step, answer } => {
                self.not_begun(step)?;
                self.end_step(step, StepState::Failed, Vec::new());
                if self.failing.is_none() {
                    let message = format!("`{step}` ended the run with {}", answer.status);
                    self.failing = Some(Failure::of_step(super::FailureKind::Declared, step, None, message));
                    self.declared = Some(answer.clone());
                }
                Ok(())
            }
            Event::AnswerFailed { failure } => {
                self.failing.get_or_insert_with(|| failure.clone());
                Ok(())
            }
            Event::Responded { answer, pin } => {
                if self.answer.is_some() {
                    return Err("the answer is fixed already".into());
                }
                self.answer = Some(answer.clone());
                self.pinned = pin.clone();
                Ok(())
            }
            Event::Paused { conflict } => {
                let Conflict { step, item, attempt, .. } = conflict;
                let open = self.open(step, *item)?;
                let call = open.calls.get_mut(&item.unwrap_or(0)).filter(|call| call.attempt == *attempt);
                match call.map(|call| std::mem::replace(&mut call.phase, Phase::Unknown)) {
                    Some(Phase::InFlight) => self.in_flight -= 1,
                    Some(Phase::Waiting(_)) => {}
                    Some(Phase::Unknown) | None => {
                        return Err(format!("attempt {attempt} of `{step}` is not under way"));
                    }
                }
                self.conflict.get_or_insert_with(|| conflict.clone());
                Ok(())
            }
            Event::FallbackTaken { .. }
            | Event::Probed { .. }
            | Event::Resolved { .. }
            | Event::PauseOrdered { .. }
            | Event::Resumed { .. }
            | Event::CancelOrdered { .. }
            | Event::InputAdjusted { .. }
            | Event::RetriedNow { .. }
            | Event::CheckpointOpened(_)
            | Event::CheckpointAnswered { .. }
            | Event::CheckpointEscalated { .. }
            | Event::WaitBegan { .. }
            | Event::SignalReceived { .. }
            | Event::WaitEnded { .. }
            | Event::LockQueued { .. }
            | Event::LockTaken { .. }
            | Event::LockLeft { .. }
            | Event::ChildStarted { .. }
            | Event::ChildEnded { .. }
            | Event::ResultTaken(_)
            | Event::CompensationBegan { .. }
            | Event::Cancelled { .. } => Err("not in this version".into()),
            Event::Completed {} => {
                if self.in_flight > 0 {
                    return Err("calls are under way".into());
                }
                self.end = Some(End::Completed);
                Ok(())
            }
            Event::Failed { failure } => {
                if self.in_flight > 0 {
                    return Err("calls are under way".into());
                }
                self.end = Some(End::Failed(failure.clone()));
                Ok(())
            }
            Event::Abandoned { reason, .. } => {
                if self.effects_begun() || self.answer.is_some() {
                    return Err("a private or shared step has begun, or the caller has an answer".into());
                }
                self.end = Some(End::Abandoned(reason.clone()));
                Ok(())
            }
        }
    }

    fn step_started(&mut self, started: &StepStarted) -> Result<(), String> {
        let StepStarted { step, item, part: _, attempt, key, effect, repeatable, request } = started;
        if !self.steps.contains_key(step) {
            if item.is_some() {
                return Err(format!("the fan-out of `{step}` has not opened"));
            }
            self.steps.insert(step.clone(), StepState::Open(Open::default()));
        }
        let open = self.open(step, *item)?;
        let slot = item.unwrap_or(0);
        if open.results.contains_key(&slot) {
            return Err(format!("the call of `{step}` has ended"));
        }
        match (open.calls.get_mut(&slot), request) {
            (None, Some(request)) if *attempt == 1 => {
                let call = CallState {
                    attempt: 1,
                    request: request.clone(),
                    key: key.clone(),
                    effect: *effect,
                    repeatable: *repeatable,
                    uncertain: false,
                    phase: Phase::InFlight,
                };
                open.calls.insert(slot, call);
                // Beside legacy, what a rule says of a private step's request holds whether it was sent or not.
                if *effect == EffectClass::Private && self.started.mode != Mode::Real {
                    self.intents.insert((step.clone(), *item), request.clone());
                }
            }
            (Some(call), None) if matches!(call.phase, Phase::Waiting(_)) && *attempt == call.attempt + 1 => {
                call.attempt = *attempt;
                call.phase = Phase::InFlight;
            }
            _ => return Err(format!("attempt {attempt} of `{step}` does not follow what came before")),
        }
        self.in_flight += 1;
        match effect {
            EffectClass::Read => {}
            EffectClass::Private => self.private_begun = true,
            EffectClass::Shared => self.shared_begun = true,
        }
        Ok(())
    }

    fn retry_scheduled(&mut self, retry: &RetryScheduled) -> Result<(), String> {
        let call = self.call(&retry.step, retry.item, retry.attempt)?;
        call.phase = Phase::Waiting(retry.at);
        call.uncertain |= retry.unknown;
        self.in_flight -= 1;
        Ok(())
    }

    fn step_finished(&mut self, finished: &StepFinished) -> Result<(), String> {
        let StepFinished { step, item, part: _, attempt, outcome } = finished;
        let result = match outcome {
            Outcome::Done { status, headers, output } => {
                self.call(step, *item, *attempt)?;
                CallResult {
                    status: Some(*status),
                    headers: headers.clone(),
                    output: Some(output.clone()),
                    undeclared: None,
                }
            }
            Outcome::Rehearsed { intent, output, note } => {
                if !self.steps.contains_key(step) && item.is_none() {
                    self.steps.insert(step.clone(), StepState::Open(Open::default()));
                }
                let open = self.open(step, *item)?;
                let slot = item.unwrap_or(0);
                if open.calls.contains_key(&slot) || open.results.contains_key(&slot) {
                    return Err(format!("the call of `{step}` has begun"));
                }
                self.intents.insert((step.clone(), *item), intent.clone());
                let undeclared = output.is_none().then(|| note.clone().unwrap_or_else(|| "no `rehearse:`".into()));
                let status = output.is_some().then_some(200);
                CallResult { status, headers: BTreeMap::new(), output: output.clone(), undeclared }
            }
            Outcome::NotDone { failure } | Outcome::Unknown { failure } | Outcome::Failed { failure } => {
                match self.steps.get(step) {
                    // It failed before any attempt: an expression without a value.
                    None => {}
                    Some(StepState::Open(open)) if *attempt == 0 && open.calls.contains_key(&item.unwrap_or(0)) => {
                        return Err(format!("the call of `{step}` has begun"));
                    }
                    Some(StepState::Open(_)) if *attempt == 0 => {}
                    Some(StepState::Open(_)) => {
                        self.call(step, *item, *attempt)?;
                        self.take_call(step, *item);
                    }
                    Some(_) => return Err(format!("`{step}` has ended")),
                }
                // Other items may be under way: the step stays open until they have ended.
                let others = matches!(self.steps.get(step), Some(StepState::Open(open)) if !open.calls.is_empty());
                if !others {
                    self.end_step(step, StepState::Failed, Vec::new());
                }
                self.failing.get_or_insert_with(|| failure.clone());
                return Ok(());
            }
        };
        self.take_call(step, *item);
        let failing = self.failing.is_some();
        let open = self.open(step, *item)?;
        open.results.insert(item.unwrap_or(0), result);
        let all = open.items.as_ref().map_or(1, |items| items.len());
        if open.results.len() == all {
            let (undeclared, fields) = collect(open);
            self.done(step, undeclared, fields);
        } else if failing && open.calls.is_empty() {
            self.end_step(step, StepState::Failed, Vec::new());
        }
        Ok(())
    }

    /// A step that nothing has happened to.
    fn not_begun(&self, step: &StepId) -> Result<(), String> {
        match self.steps.contains_key(step) {
            true => Err(format!("`{step}` has begun already")),
            false => Ok(()),
        }
    }

    fn open(&mut self, step: &StepId, item: Option<u32>) -> Result<&mut Open, String> {
        match self.steps.get_mut(step) {
            Some(StepState::Open(open)) => match (&open.items, item) {
                (None, None) => Ok(open),
                (Some(items), Some(item)) if (item as usize) < items.len() => Ok(open),
                _ => Err(format!("`{step}` has no such item")),
            },
            _ => Err(format!("`{step}` is not under way")),
        }
    }

    /// A call whose attempt is under way.
    fn call(&mut self, step: &StepId, item: Option<u32>, attempt: u32) -> Result<&mut CallState, String> {
        match self.open(step, item)?.calls.get_mut(&item.unwrap_or(0)) {
            Some(call) if call.phase == Phase::InFlight && call.attempt == attempt => Ok(call),
            _ => Err(format!("attempt {attempt} of `{step}` is not under way")),
        }
    }

    fn take_call(&mut self, step: &StepId, item: Option<u32>) {
        if let Some(StepState::Open(open)) = self.steps.get_mut(step)
            && open.calls.remove(&item.unwrap_or(0)).is_some()
        {
            self.in_flight -= 1;
        }
    }

    fn done(&mut self, step: &StepId, undeclared: Option<String>, mut fields: Vec<(&'static str, Value)>) {
        fields.push(("skipped", Value::Bool(false)));
        self.end_step(step, StepState::Done { undeclared }, fields);
    }

    fn end_step(&mut self, step: &StepId, state: StepState, fields: Vec<(&'static str, Value)>) {
        self.steps.insert(step.clone(), state);
        self.ended_steps += 1;
        if let Value::Object(outputs) = Arc::make_mut(&mut self.outputs) {
            let fields = fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
            outputs.insert(step.as_str().to_owned(), Value::Object(fields));
        }
    }
}

/// What expressions see of a step whose calls have all ended: one result, or a list in the items' order.
fn collect(open: &Open) -> (Option<String>, Vec<(&'static str, Value)>) {
    let undeclared = open.results.values().find_map(|result| result.undeclared.clone());
    let headers = |result: &CallResult| {
        Value::Object(result.headers.iter().map(|(k, v)| (k.clone(), Value::String(v.clone()))).collect())
    };
    let status = |result: &CallResult| result.status.map_or(Value::Null, Value::from);
    let output = |result: &CallResult| result.output.as_ref().map_or(Value::Null, |output| (**output).clone());
    if undeclared.is_some() {
        return (undeclared, Vec::new());
    }
    let fields = match open.items {
        None => match open.results.get(&0) {
            Some(result) => {
                vec![("output", output(result)), ("status", status(result)), ("headers", headers(result))]
            }
            None => Vec::new(),
        },
        Some(_) => vec![
            ("output", Value::Array(open.results.values().map(output).collect())),
            ("status", Value::Array(open.results.values().map(status).collect())),
            ("headers", Value::Array(open.results.values().map(headers).collect())),
        ],
    };
    (undeclared, fields)
}
