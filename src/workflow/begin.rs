//! Begins an attempt of a call: the first or a later one, sent or only rehearsed.
//!
//! Always true: a later attempt sends the same bytes under the same key as the first, unless a person gave another
//! input; after an unknown effect it also goes to the same address ([`address`]). A call that the run's mode does not
//! send records its intent instead.

use std::sync::Arc;

use jiff::Timestamp;

use super::address::{self, NextAttempt};
use super::calls::{CallState, Phase, StepState};
use super::decision_inputs::{call_scope, deeper_than};
use super::may_begin::{enter, may_begin, may_begin_item, sends, skipped_by_needs, starts_while_ending};
use super::rehearsal::rehearsed;
use super::risk::{self, BeforeFirstAttempt};
use super::step_events::{fail_or_pause, failed, finished, schema_failure, skipped, too_deep};
use super::{
    Call, CallRecord, CommandRefusal, ConflictKind, DecisionInputs, EffectClass, Event, Outcome, Plan, Run, Skipped,
    Step, StepKind, StepPart, StepStarted, fallback, lock, missing, wire,
};
use crate::expression::{ExpressionError, ReadPath, Template};
use crate::names::{RunId, StepId};

/// The most items of a step whose requests are built to find out which call by legacy is which item's: that is done
/// anew for each item whose own request equals none of legacy's calls.
const SIBLINGS_MAX: u32 = 64;

pub(super) fn begin(
    run: &Run,
    plan: &Plan,
    inputs: &DecisionInputs,
    step: &Step,
    item: Option<u32>,
    now: Timestamp,
) -> Result<Vec<Event>, CommandRefusal> {
    let state = run.call_state(&step.id, item, StepPart::Do);
    if !state.is_some_and(|state| starts_while_ending(run, step, state)) {
        may_begin(run, plan, step)?;
    }
    let call = match (&step.kind, item) {
        (StepKind::Call(call), _) => call,
        (StepKind::Set(value), Some(item)) => return compute(run, plan, inputs, step, value, item),
        _ => return Err(CommandRefusal::NotDue("the step makes no call")),
    };
    match (run.steps.get(&step.id), item) {
        (None, None) if step.for_each.is_none() => {
            if skipped_by_needs(run, plan, step) {
                return Ok(skipped(run, step, Skipped::Needs));
            }
            if step.condition.is_some()
                && let Err(events) = enter(run, inputs, &inputs.plain(run), step)
            {
                return Ok(events);
            }
            begin_first(run, plan, inputs, step, call, None, now)
        }
        (Some(StepState::Open(open)), item) if open.items.is_some() == item.is_some() => {
            let item_index = item.unwrap_or(0);
            match open.calls.get(&item_index) {
                Some(state) if matches!(state.phase, Phase::Waiting(_)) && state.renew => {
                    begin_first(run, plan, inputs, step, call, item, now)
                }
                Some(state) if matches!(state.phase, Phase::Waiting(_)) => {
                    if let Some(missing) = missing::of_call(call, inputs) {
                        return Ok(vec![missing::pause(run, step, item, StepPart::Do, &missing)]);
                    }
                    if let Some(pause) =
                        address::pause_unrepeatable(run, step, item, StepPart::Do, inputs, (call, state))
                    {
                        return Ok(vec![pause]);
                    }
                    let request = match address::next(run, inputs, step, item, StepPart::Do, (call, state)) {
                        Ok(NextAttempt::Same) => None,
                        Ok(NextAttempt::Rebased(request)) => Some(request),
                        Ok(NextAttempt::Pause(event)) => return Ok(vec![event]),
                        Err((reads, error)) => return Ok(vec![failed(run, inputs, step, item, &reads, &error)]),
                    };
                    Ok(vec![later_attempt(step, call, item, state, request, now)])
                }
                Some(_) => Err(CommandRefusal::NotDue("an attempt is under way")),
                None if !may_begin_item(open, item_index) => {
                    Err(CommandRefusal::NotDue("it has ended, or there is no such item"))
                }
                None => match fallback::not_run(run, plan, inputs, step, item) {
                    Some(events) => Ok(events),
                    None => begin_first(run, plan, inputs, step, call, item, now),
                },
            }
        }
        _ => Err(CommandRefusal::NotDue("it has ended, or its items are not known yet")),
    }
}

/// Computes the value of a `set` step that runs as the fallback of an item.
fn compute(
    run: &Run,
    plan: &Plan,
    inputs: &DecisionInputs,
    step: &Step,
    value: &Template,
    item: u32,
) -> Result<Vec<Event>, CommandRefusal> {
    if !run.open_step(&step.id).is_some_and(|open| open.replaced_items.is_some() && may_begin_item(open, item)) {
        return Err(CommandRefusal::NotDue("it does not run as an item's fallback, or has ended"));
    }
    let item = Some(item);
    if let Some(events) = fallback::not_run(run, plan, inputs, step, item) {
        return Ok(events);
    }
    let scope = call_scope(&inputs.plain(run), run, &step.id, item, StepPart::Do);
    let output = match run.inputs.get(&(step.id.clone(), item)) {
        Some(given) => given.clone(),
        None => match value.evaluate(&scope) {
            Ok(output) => Arc::new(output),
            Err(error) => return Ok(vec![failed(run, inputs, step, item, value.reads(), &error)]),
        },
    };
    if deeper_than(&output, inputs.output_depth_max) {
        return Ok(vec![too_deep(step, item, inputs)]);
    }
    Ok(vec![match schema_failure(step, item, &output, inputs.bytes_mark(run)) {
        Some(failure) => fail_or_pause(run, step, item, ConflictKind::Schema, failure),
        None => {
            finished(step, item, 0, Outcome::Done { status: 200, headers: Default::default(), output: output.into() })
        }
    }])
}

/// Begins the first attempt of a call, or the first one with another input. If the call needs an approval or a lock,
/// the events that request it are returned instead.
fn begin_first(
    run: &Run,
    plan: &Plan,
    inputs: &DecisionInputs,
    step: &Step,
    call: &Call,
    item: Option<u32>,
    now: Timestamp,
) -> Result<Vec<Event>, CommandRefusal> {
    if let Some(missing) = missing::of_call(call, inputs) {
        return Ok(vec![missing::pause(run, step, item, StepPart::Do, &missing)]);
    }
    let sent = match risk::before_first_attempt(run, plan, inputs, step, item, now) {
        BeforeFirstAttempt::Ready => sends(run.mode(), call),
        BeforeFirstAttempt::Rehearse => false,
        BeforeFirstAttempt::AwaitsAnswer => return Err(CommandRefusal::NotDue("a person is asked")),
        BeforeFirstAttempt::Needs(events) => return Ok(events),
    };
    if let Some(before) = lock::before_first_attempt(run, inputs, step, item).filter(|_| sent) {
        return before;
    }
    Ok(vec![first_attempt(run, &risk::as_asked(run, inputs, step, item), step, call, item, now, sent)])
}

/// The event of a call's first attempt, or of the first one with another input: it holds the request that will be sent,
/// or the intent where the call is rehearsed.
fn first_attempt(
    run: &Run,
    inputs: &DecisionInputs,
    step: &Step,
    call: &Call,
    item: Option<u32>,
    now: Timestamp,
    sent: bool,
) -> Event {
    let state = run.call_state(&step.id, item, StepPart::Do);
    let request = match first_request(run, inputs, call, step, item, StepPart::Do) {
        Ok(request) => Arc::new(request),
        Err((reads, error)) => return failed(run, inputs, step, item, &reads, &error),
    };
    if !sent {
        let siblings = || other_requests(run, inputs, call, step, item);
        return rehearsed(run, step, call, inputs, (item, request), &siblings);
    }
    let key = (call.effect != EffectClass::Read).then(|| {
        let renewed = state.map_or(0, |state| state.renewed);
        idempotency_key(inputs, run.id(), &step.id, item, StepPart::Do, renewed)
    });
    let number = state.map_or(1, |state| state.attempt + 1);
    started(step, call, item, (number, key, Some(request)), new_deadline(step, state, now))
}

/// The requests of the items of a step that have not begun, but for this one; none if there are too many items. An item
/// whose request cannot be built has none.
fn other_requests(
    run: &Run,
    inputs: &DecisionInputs,
    call: &Call,
    step: &Step,
    item: Option<u32>,
) -> Vec<(u32, CallRecord)> {
    let Some(StepState::Open(open)) = run.steps.get(&step.id) else { return Vec::new() };
    let count = open.items.as_ref().map_or(0, |items| items.len());
    let count = u32::try_from(count).ok().filter(|count| *count <= SIBLINGS_MAX).unwrap_or(0);
    let others = (0..count).filter(|other| Some(*other) != item && may_begin_item(open, *other));
    let request = |other| Some((other, first_request(run, inputs, call, step, Some(other), StepPart::Do).ok()?));
    others.filter_map(request).collect()
}

/// The event of a later attempt of a call, under the same key; `request` is set where it differs from the first
/// request.
fn later_attempt(
    step: &Step,
    call: &Call,
    item: Option<u32>,
    state: &CallState,
    request: Option<Arc<CallRecord>>,
    now: Timestamp,
) -> Event {
    let attempt = (state.attempt + 1, state.key.clone(), request);
    started(step, call, item, attempt, new_deadline(step, Some(state), now))
}

/// The deadline of all attempts; `None` where the step has none, or an earlier attempt has recorded it.
fn new_deadline(step: &Step, state: Option<&CallState>, now: Timestamp) -> Option<Timestamp> {
    let is_known = state.is_some_and(|state| state.until.is_some());
    step.failure_handling.deadline.filter(|_| !is_known).and_then(|deadline| now.checked_add(deadline).ok())
}

fn started(
    step: &Step,
    call: &Call,
    item: Option<u32>,
    (attempt, key, request): (u32, Option<String>, Option<Arc<CallRecord>>),
    until: Option<Timestamp>,
) -> Event {
    Event::StepStarted(StepStarted {
        step: step.id.clone(),
        item,
        part: StepPart::Do,
        attempt,
        key,
        effect: call.effect,
        repeatable: call.repeat_is_harmless(),
        request,
        until,
        at: None,
    })
}

/// Builds the request of one of a step's calls.
pub(super) fn first_request(
    run: &Run,
    inputs: &DecisionInputs,
    call: &Call,
    step: &Step,
    item: Option<u32>,
    part: StepPart,
) -> Result<CallRecord, (Vec<ReadPath>, ExpressionError)> {
    let scope = call_scope(&inputs.plain(run), run, &step.id, item, part);
    // A request without secrets is recorded exactly as it is sent.
    let masked = wire::has_hidden_parts(call).then(|| call_scope(&inputs.masked(run), run, &step.id, item, part));
    let adjusted = run.inputs.get(&(step.id.clone(), item)).filter(|_| part == StepPart::Do);
    let unstruck = if part == StepPart::Do { risk::without_struck(run, call, step, item, &scope)? } else { None };
    let body = unstruck.as_ref().or(adjusted.map(|adjusted| &**adjusted));
    let mut record = wire::call_record(call, inputs, run, &scope, masked.as_ref().unwrap_or(&scope), body)?;
    // Asked with other credentials, the probe may read another account, where this attempt is not found.
    if let Some(probe) = step.probe.as_ref().filter(|_| part == StepPart::Do) {
        record.secrets.extend(inputs.hashes_of_secrets(wire::secret_names(&probe.call)));
    }
    Ok(record)
}

/// The idempotency key of a call: the same for all its attempts, and different for every other call. Each time a person
/// gives the call another input, `renewed` grows and the key changes.
pub(super) fn idempotency_key(
    inputs: &DecisionInputs,
    run: RunId,
    step: &StepId,
    item: Option<u32>,
    part: StepPart,
    renewed: u32,
) -> String {
    let mut text = format!("{run}\n{step}\n{}", item.map_or_else(String::new, |item| item.to_string()));
    match part {
        StepPart::Do => {}
        StepPart::Probe => text.push_str("\nprobe"),
        StepPart::Undo => text.push_str("\nundo"),
    }
    if renewed > 0 {
        text.push_str(&format!("\n{renewed}"));
    }
    let hash = blake3::keyed_hash(&inputs.key_secret, text.as_bytes());
    hash.to_hex().as_str().get(..32).unwrap_or_default().to_owned()
}
