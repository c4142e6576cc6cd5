//! Turns a command into events, or a refusal.
//!
//! Always true: the same run, plan, inputs, command and time give the same events. An expression without a value gives
//! an event too (the step fails, or a person decides), so a command that is due always changes the run.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;

use super::begin::begin;
use super::calls::{CallState, Phase};
use super::decision_inputs::{deeper_than, item_scope};
use super::may_begin::{enter, may_begin, skipped_by_needs};
use super::outcome::EndedAttempt;
use super::resolve::Resolution;
use super::respond::{answer_pending, respond};
use super::sensitive::{AnswerPlace, with_sensitive_parts};
use super::step_events::{fail_or_pause, failed, schema_failure, skipped, too_deep};
use super::{
    AttemptResult, Choice, Command, CommandRefusal, ConflictKind, ControlCommand, DecisionInputs, EndingEvent, Event,
    Plan, Run, Skipped, Step, StepEvent, StepIndex, StepKind, StepPart, checkpoint, child, control, ending, lock,
    missing, probe, rerun, resolve, undo, wait, wire,
};
use crate::names::StepId;

pub use super::respond::input_refused;

/// The events of a command.
///
/// # Errors
/// It is not due now, or not allowed any more; nothing happens.
pub fn decide(
    run: &Run,
    plan: &Plan,
    inputs: &DecisionInputs,
    command: Command,
    now: Timestamp,
) -> Result<Vec<Event>, CommandRefusal> {
    if run.is_final() {
        return Err(CommandRefusal::Ended);
    }
    let inputs = &inputs.at(now);
    events_of(run, plan, inputs, command, now).map(|events| lock::release(run, events))
}

fn events_of(
    run: &Run,
    plan: &Plan,
    inputs: &DecisionInputs,
    command: Command,
    now: Timestamp,
) -> Result<Vec<Event>, CommandRefusal> {
    match command {
        Command::Advance { step } => advance(run, plan, inputs, step_of(plan, step)?, now),
        Command::Begin { step, item, part } => {
            let step = step_of(plan, step)?;
            if run.is_paused() {
                return Err(CommandRefusal::NotDue("the run is paused"));
            }
            match part {
                StepPart::Do => begin(run, plan, inputs, step, item, now),
                StepPart::Probe => probe::begin(run, inputs, step, item, now),
                StepPart::Undo => undo::begin(run, inputs, step, item),
            }
        }
        Command::Record { step, item, part, attempt, result, may_be_repeat, jitter } => {
            let step = step_of(plan, step)?;
            record(&EndedAttempt { run, plan, inputs, step, item, part, attempt, may_be_repeat, jitter, now }, result)
        }
        Command::Control { command, by } => match command {
            ControlCommand::Cancel { compensate, reason, automatic } => {
                ending::cancel(run, compensate, reason, automatic, &by, now)
            }
            ControlCommand::Resolve { step, item, attempt, choice, reason } => {
                resolve::resolve(run, plan, inputs, &Resolution { step, item, attempt, choice, reason, by }, now)
            }
            ControlCommand::Pause { reason } => control::pause(run, reason, &by, now),
            ControlCommand::Resume { reason } => control::resume(run, reason, &by, now),
            ControlCommand::Skip { step, reason } => control::skip(run, plan, inputs, &step, reason, &by, now),
            ControlCommand::Adjust { step, item, input, reason } => {
                let adjustment = control::Adjustment { step, item, input, reason, by };
                control::adjust(run, plan, inputs, adjustment)
            }
            ControlCommand::HandOver { to, from, sealed } => rerun::hand_over(run, plan, to, from, sealed, by),
            ControlCommand::Retry { step, attempt } => {
                control::retry(run, plan, inputs, step.as_ref().map(|step| (step, attempt)), &by, now)
            }
            ControlCommand::Answer { checkpoint, answer: said } => {
                checkpoint::answer(run, plan, inputs, &checkpoint, said, &by)
            }
            ControlCommand::Signal { name, payload, id } => wait::receive(run, plan, inputs, name, payload, id, &by),
        },
        Command::PauseCopied { by, reason } => control::pause_copied(run, reason, by, now),
        Command::RetryMissing { step, item } => retry_missing(run, plan, inputs, &step, item, now),
        Command::SkipDone { step, item } => skip_done(run, plan, inputs, (&step, item), now),
        Command::Elapse => elapse(run, plan, now),
        Command::BeginChild { step, item, child: id } => {
            child::begin(run, plan, inputs, step_of(plan, step)?, item, id, now)
        }
        Command::ChildEnded { child: id, status, output, note, failure, tree, sensitive } => child::ended(
            run,
            plan,
            inputs,
            child::ChildResult { child: id, status, output, note, failure, tree, sensitive },
        ),
        Command::ChildHasNoWorkflow { child: id } => child::workflow_missing(run, plan, inputs, id),
        Command::ChildInputRefused { child: id, why } => child::input_refused(run, plan, inputs, id, &why),
        Command::LockSeen { step, item, queued, seen } => {
            lock::queue_seen(run, step_of(plan, step)?, item, queued, seen)
        }
        Command::Respond { entry } => respond(run, plan, inputs, entry),
        Command::AnswerPending => answer_pending(run, plan, inputs),
        Command::Conclude => ending::conclude(run, plan, inputs),
        Command::Abandon { reason } => {
            if run.effects_begun() {
                return Err(CommandRefusal::EffectsBegun);
            }
            if run.answer.is_some() || run.pending.is_some() {
                return Err(CommandRefusal::Answered);
            }
            if run.is_decided_against() {
                return Err(CommandRefusal::NotApplicable("it was decided that this is not to be done".into()));
            }
            Ok(vec![Event::Ending(EndingEvent::Abandoned { to: "legacy".into(), reason: reason.into() })])
        }
    }
}

/// Handles a deadline that has passed: the run's own first, then that of a question, then that of a wait.
fn elapse(run: &Run, plan: &Plan, now: Timestamp) -> Result<Vec<Event>, CommandRefusal> {
    let deadline_events = ending::elapse(run, now);
    if !deadline_events.is_empty() {
        return Ok(deadline_events);
    }
    let events = match run.is_paused() || run.is_ending() {
        true => None,
        false => checkpoint::elapse(run, plan, now).or_else(|| wait::elapse(run, plan, now)),
    };
    events.ok_or(CommandRefusal::NotDue("no deadline has passed"))
}

fn step_of(plan: &Plan, step: StepIndex) -> Result<&Step, CommandRefusal> {
    plan.steps.get(step.0).ok_or(CommandRefusal::NoSuchStep)
}

fn advance(
    run: &Run,
    plan: &Plan,
    inputs: &DecisionInputs,
    step: &Step,
    now: Timestamp,
) -> Result<Vec<Event>, CommandRefusal> {
    let waits = run.interactions.waits.contains_key(&step.id) || run.interactions.is_asked_about(&step.id, None);
    if run.steps.contains_key(&step.id) || waits {
        return Err(CommandRefusal::NotDue("it has begun"));
    }
    if let Some(original) = step.replaces
        && !run.replaced.contains_key(&step.id)
        && plan.steps.get(original.0).is_some_and(|original| run.has_ended(&original.id))
        && !run.is_paused()
    {
        let (step, reason) = (step.id.clone(), Skipped::NotNeeded);
        return Ok(vec![Event::Step(StepEvent::Skipped { step, item: None, reason })]);
    }
    may_begin(run, plan, step)?;
    if skipped_by_needs(run, plan, step) {
        return Ok(skipped(run, step, Skipped::Needs));
    }
    let scope = inputs.plain(run);
    let items = match enter(run, inputs, &scope, step) {
        Err(events) => return Ok(events),
        Ok(items) => items,
    };
    let adjusted = run.inputs.get(&(step.id.clone(), None));
    Ok(vec![match (&step.kind, items) {
        (StepKind::Call(_) | StepKind::Run(_), Some(items)) => {
            let collect = step.for_each.as_ref().is_some_and(|for_each| for_each.collect);
            let fallback = step.failure_handling.fallback.is_some();
            Event::Step(StepEvent::FanOutOpened { step: step.id.clone(), items, collect, fallback })
        }
        (StepKind::Call(_) | StepKind::Run(_), None) => {
            return Err(CommandRefusal::NotDue("the step begins with its call or child run"));
        }
        (StepKind::Checkpoint(question), _) => return Ok(checkpoint::open(run, inputs, step, question, now)),
        (StepKind::Wait(wait), _) => return Ok(wait::open(run, inputs, step, wait, now)),
        (StepKind::Set(_), _) if adjusted.is_some() => {
            computed(run, step, adjusted.cloned().unwrap_or_default(), inputs)
        }
        (StepKind::Set(template), None) => match template.evaluate(&scope) {
            Ok(output) => computed(run, step, Arc::new(output), inputs),
            Err(error) => failed(run, inputs, step, None, template.reads(), &error),
        },
        (StepKind::Set(template), Some(items)) => {
            let outputs: Result<Vec<Value>, _> =
                (0u32..).zip(items).map(|item| template.evaluate(&item_scope(&scope, Some(item)))).collect();
            match outputs {
                Ok(outputs) => computed(run, step, Arc::new(outputs.into()), inputs),
                Err(error) => failed(run, inputs, step, None, template.reads(), &error),
            }
        }
        (StepKind::Fail(answer), _) => match wire::answer(answer, run, &scope, inputs.bytes_mark(run)) {
            Ok(answer) => {
                let answer = Arc::new(with_sensitive_parts(plan, run, AnswerPlace::Fail(&step.id), answer));
                Event::Step(StepEvent::FailReached { step: step.id.clone(), answer })
            }
            Err((reads, error)) => failed(run, inputs, step, None, &reads, &error),
        },
    }])
}

fn computed(run: &Run, step: &Step, output: Arc<Value>, inputs: &DecisionInputs) -> Event {
    if deeper_than(&output, inputs.output_depth_max) {
        return too_deep(step, None, inputs);
    }
    let bytes_mark = inputs.bytes_mark(run);
    let failure = match (&step.for_each, &*output) {
        (Some(_), Value::Array(items)) => items.iter().find_map(|item| schema_failure(step, None, item, bytes_mark)),
        _ => schema_failure(step, None, &output, bytes_mark),
    };
    match failure {
        None => Event::Step(StepEvent::Computed { step: step.id.clone(), output: output.into() }),
        Some(failure) => fail_or_pause(run, step, None, ConflictKind::Schema, failure),
    }
}

/// Handles the result of an attempt.
fn record(ended: &EndedAttempt<'_>, result: AttemptResult) -> Result<Vec<Event>, CommandRefusal> {
    let state = ended.run.call_state(&ended.step.id, ended.item, ended.part);
    let under_way = |state: &&CallState| state.attempt == ended.attempt && state.phase == Phase::InFlight;
    let Some(state) = state.filter(under_way) else {
        return Err(CommandRefusal::NotDue("no such attempt is under way"));
    };
    let call = ended.step.call(ended.part).ok_or(CommandRefusal::NotDue("the step makes no call"))?;
    Ok(match ended.part {
        StepPart::Do => ended.own_call(call, state, result),
        StepPart::Probe => probe::ended(ended, state, result),
        StepPart::Undo => undo::ended(ended, call, state, result),
    })
}

/// Resolves a conflict over a call that was done, in a run that ends: it is undone with what else was done.
fn skip_done(
    run: &Run,
    plan: &Plan,
    inputs: &DecisionInputs,
    (step, item): (&StepId, Option<u32>),
    now: Timestamp,
) -> Result<Vec<Event>, CommandRefusal> {
    if !run.conflicts_over_done_calls().any(|conflict| conflict.step == *step && conflict.item == item) {
        return Err(CommandRefusal::NotDue("it is not known to be done, or the run goes on"));
    }
    let (reason, by) = (Some("it was done".to_owned()), resolve::ENDING.to_owned());
    let resolution = Resolution { step: step.clone(), item, attempt: None, choice: Choice::Skip, reason, by };
    resolve::resolve(run, plan, inputs, &resolution, now)
}

/// Retries a step that waits for something missing, because the files in force have it again.
fn retry_missing(
    run: &Run,
    plan: &Plan,
    inputs: &DecisionInputs,
    step: &StepId,
    item: Option<u32>,
    now: Timestamp,
) -> Result<Vec<Event>, CommandRefusal> {
    if !missing::found_again(run, plan, inputs).any(|conflict| conflict.step == *step && conflict.item == item) {
        return Err(CommandRefusal::NotDue("it is still missing"));
    }
    let (reason, by) = (Some("they have it again".to_owned()), missing::RELOAD.to_owned());
    let resolution = Resolution { step: step.clone(), item, attempt: None, choice: Choice::Retry, reason, by };
    resolve::resolve(run, plan, inputs, &resolution, now)
}
