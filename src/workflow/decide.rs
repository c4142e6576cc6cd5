//! A command becomes events, or a refusal.
//!
//! Always true: the same run, command and time give the same events; what an expression cannot give is an event too
//! (the step fails, or a person decides), so a command that is due never leaves the run where it was.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;

use super::BytesMark;
use super::begin::begin;
use super::calls::StepState;
use super::conflict::{conflict, pauses};
use super::due::skipped_by_needs;
use super::outcome::{Ended, record, unfit};
use super::respond::{answer_pending, respond};
use super::world::{deeper_than, item_scope};
use super::{
    Command, ConflictEvent, ConflictKind, EndingEvent, Event, Failure, FailureKind, Order, Outcome, Part, Plan,
    Refusal, Run, Skipped, Step, StepEvent, StepFinished, StepIndex, StepKind, World, checkpoint, child, control,
    ending, lock, missing, probe, rerun, resolve, undo, wait, wire,
};
use crate::expression::{ExpressionError, ReadPath, Scope};
use crate::names::StepId;

pub use super::respond::input_refused;

/// What a command comes to.
///
/// # Errors
/// It is not due now, or not allowed any more; nothing happens.
pub fn decide(run: &Run, plan: &Plan, world: &World, command: Command, now: Timestamp) -> Result<Vec<Event>, Refusal> {
    if run.is_final() {
        return Err(Refusal::Ended);
    }
    let world = &world.at(now);
    decided(run, plan, world, command, now).map(|events| lock::release(run, events))
}

fn decided(run: &Run, plan: &Plan, world: &World, command: Command, now: Timestamp) -> Result<Vec<Event>, Refusal> {
    match command {
        Command::Advance { step } => advance(run, plan, world, step_of(plan, step)?, now),
        Command::Begin { step, item, part } => {
            let step = step_of(plan, step)?;
            if run.is_paused() {
                return Err(Refusal::NotDue("the run is paused"));
            }
            match part {
                Part::Do => begin(run, plan, world, step, item, now),
                Part::Probe => probe::begin(run, world, step, item, now),
                Part::Undo => undo::begin(run, world, step, item),
            }
        }
        Command::Record { step, item, part, attempt, heard, again, jitter } => {
            let step = step_of(plan, step)?;
            record(&Ended { run, plan, world, step, item, part, attempt, again, jitter, now }, heard)
        }
        Command::Order { order, by } => match order {
            Order::Cancel { compensate, reason } => ending::cancel(run, compensate, reason, &by),
            Order::Resolve { step, item, choice, reason } => {
                resolve::resolve(run, plan, world, &resolve::Resolution { step, item, choice, reason, by }, now)
            }
            Order::Pause { reason } => control::pause(run, reason, &by),
            Order::Resume { reason } => control::resume(run, reason, &by),
            Order::Skip { step, reason } => control::skip(run, plan, world, &step, reason, &by, now),
            Order::Adjust { step, item, input, reason } => {
                let adjusted = control::Adjusted { step, item, input, reason, by };
                control::adjust(run, plan, world, adjusted)
            }
            Order::HandOver { to, from, sealed } => rerun::hand_over(run, plan, to, from, sealed, by),
            Order::Retry { step } => control::retry(run, plan, world, step.as_ref(), &by, now),
            Order::Answer { checkpoint, said } => checkpoint::answer(run, plan, world, &checkpoint, said, &by),
            Order::Signal { name, payload, id } => wait::receive(run, plan, world, name, payload, id, &by),
        },
        Command::Mended { step, item } => missing::mend(run, plan, world, &step, item, now),
        Command::Elapse => elapse(run, plan, now),
        Command::BeginChild { step, item, child: id } => {
            child::begin(run, plan, world, step_of(plan, step)?, item, id, now)
        }
        Command::ChildEnded { child: id, status, output, note, effects } => {
            child::ended(run, plan, id, status, output, note, effects)
        }
        Command::LockSeen { step, item, queued, seen } => lock::seen(run, step_of(plan, step)?, item, queued, seen),
        Command::Respond { entry } => respond(run, plan, world, entry),
        Command::AnswerPending => answer_pending(run, plan, world),
        Command::Conclude => ending::conclude(run, plan, world),
        Command::Abandon { reason } => {
            if run.effects_begun() {
                return Err(Refusal::EffectsBegun);
            }
            if run.answer.is_some() {
                return Err(Refusal::Answered);
            }
            Ok(vec![Event::Ending(EndingEvent::Abandoned { to: "legacy".into(), reason: reason.into() })])
        }
    }
}

/// A time is over: the run's own, a question's or a wait's, the first of them.
fn elapse(run: &Run, plan: &Plan, now: Timestamp) -> Result<Vec<Event>, Refusal> {
    let own = ending::elapse(run, now);
    if !own.is_empty() {
        return Ok(own);
    }
    let over = match run.is_paused() || run.is_ending() {
        true => None,
        false => checkpoint::elapse(run, plan, now).or_else(|| wait::elapse(run, plan, now)),
    };
    over.ok_or(Refusal::NotDue("no time is over"))
}

fn step_of(plan: &Plan, step: StepIndex) -> Result<&Step, Refusal> {
    plan.steps.get(step.0).ok_or(Refusal::NoSuchStep)
}

/// Whether steps may begin at all now.
pub(super) fn may_begin(run: &Run, plan: &Plan, step: &Step) -> Result<(), Refusal> {
    if run.is_ending() || run.is_paused() {
        return Err(Refusal::NotDue("the run is ending, or paused"));
    }
    if step.needs.iter().any(|need| plan.steps.get(need.0).is_none_or(|needed| !run.has_ended(&needed.id))) {
        return Err(Refusal::NotDue("something that it needs has not ended"));
    }
    if step.replaces.is_some() && !run.replaced.contains_key(&step.id) {
        return Err(Refusal::NotDue("it is only a fallback, and is not taken"));
    }
    Ok(())
}

fn advance(run: &Run, plan: &Plan, world: &World, step: &Step, now: Timestamp) -> Result<Vec<Event>, Refusal> {
    let waits = run.interactions.waits.contains_key(&step.id) || run.interactions.asks(&step.id, None);
    if run.steps.contains_key(&step.id) || waits {
        return Err(Refusal::NotDue("it has begun"));
    }
    if let Some(place) = step.replaces
        && !run.replaced.contains_key(&step.id)
        && plan.steps.get(place.0).is_some_and(|place| run.has_ended(&place.id))
        && !run.is_paused()
    {
        let (step, reason) = (step.id.clone(), Skipped::NotNeeded);
        return Ok(vec![Event::Step(StepEvent::Skipped { step, item: None, reason })]);
    }
    may_begin(run, plan, step)?;
    if skipped_by_needs(run, plan, step) {
        return Ok(skipped(run, step, Skipped::Needs));
    }
    let scope = world.plain(run);
    let items = match enter(run, world, &scope, step) {
        Err(events) => return Ok(events),
        Ok(items) => items,
    };
    let given = run.inputs.get(&(step.id.clone(), None));
    Ok(vec![match (&step.kind, items) {
        (StepKind::Call(_) | StepKind::Run(_), Some(items)) => {
            let collect = step.for_each.as_ref().is_some_and(|for_each| for_each.collect);
            let fallback = step.trouble.fallback.is_some();
            Event::Step(StepEvent::FanOutOpened { step: step.id.clone(), items, collect, fallback })
        }
        (StepKind::Call(_) | StepKind::Run(_), None) => return Err(Refusal::NotDue("a call begins")),
        (StepKind::Checkpoint(question), _) => return Ok(checkpoint::open(run, world, step, question, now)),
        (StepKind::Wait(wait), _) => return Ok(wait::open(run, world, step, wait, now)),
        (StepKind::Set(_), _) if given.is_some() => computed(run, step, given.cloned().unwrap_or_default(), world),
        (StepKind::Set(template), None) => match template.evaluate(&scope) {
            Ok(output) => computed(run, step, Arc::new(output), world),
            Err(error) => failed(run, step, None, template.reads(), &error),
        },
        (StepKind::Set(template), Some(items)) => {
            let outputs: Result<Vec<Value>, _> =
                (0u32..).zip(items).map(|item| template.evaluate(&item_scope(&scope, Some(item)))).collect();
            match outputs {
                Ok(outputs) => computed(run, step, Arc::new(outputs.into()), world),
                Err(error) => failed(run, step, None, template.reads(), &error),
            }
        }
        (StepKind::Fail(answer), _) => match wire::answer(answer, &scope, BytesMark::of_run(world, run)) {
            Ok(answer) => Event::Step(StepEvent::FailReached { step: step.id.clone(), answer: Arc::new(answer) }),
            Err((reads, error)) => failed(run, step, None, &reads, &error),
        },
    }])
}

/// A step that will not run. Where it was to take another's place, that one has failed after all.
pub(super) fn skipped(run: &Run, step: &Step, reason: Skipped) -> Vec<Event> {
    let mut events = vec![Event::Step(StepEvent::Skipped { step: step.id.clone(), item: None, reason })];
    if let Some(place) = run.replaced.get(&step.id)
        && let Some(StepState::Replaced { failure, .. }) = run.steps.get(place)
    {
        let outcome = Outcome::NotDone { failure: (**failure).clone() };
        let finished = StepFinished { step: place.clone(), item: None, part: Part::Do, attempt: 0, outcome };
        events.push(Event::StepFinished(finished));
    }
    events
}

/// Looks at `if` and opens `for_each`: the items, or the events that end the step here.
pub(super) fn enter(
    run: &Run,
    world: &World,
    scope: &Scope,
    step: &Step,
) -> Result<Option<Vec<Arc<Value>>>, Vec<Event>> {
    if let Some(condition) = &step.condition {
        match condition.holds(scope) {
            Ok(true) => {}
            Ok(false) => return Err(skipped(run, step, Skipped::Condition)),
            Err(error) => return Err(vec![failed(run, step, None, condition.reads(), &error)]),
        }
    }
    let Some(for_each) = &step.for_each else { return Ok(None) };
    let refuse = |kind, message: String| {
        vec![finished(step, None, 0, Outcome::Failed { failure: Failure::of_step(kind, &step.id, None, message) })]
    };
    match for_each.items.evaluate(scope) {
        Ok(Value::Array(items)) if items.len() > world.items_max => Err(refuse(
            FailureKind::Bound,
            format!(
                "`for_each` of `{}` has {} items; the limit items_max is {}",
                step.id,
                items.len(),
                world.items_max
            ),
        )),
        Ok(Value::Array(items)) if items.iter().any(|item| deeper_than(item, world.output_depth_max)) => {
            Err(vec![too_deep(step, None, world)])
        }
        Ok(Value::Array(items)) => Ok(Some(items.into_iter().map(Arc::new).collect())),
        Ok(_) => Err(refuse(FailureKind::Expression, format!("`for_each` of `{}` is not a list", step.id))),
        Err(error) => Err(vec![failed(run, step, None, for_each.items.reads(), &error)]),
    }
}

fn computed(run: &Run, step: &Step, output: Arc<Value>, world: &World) -> Event {
    if deeper_than(&output, world.output_depth_max) {
        return too_deep(step, None, world);
    }
    let failure = match (&step.for_each, &*output) {
        (Some(_), Value::Array(items)) => items.iter().find_map(|item| unfit(step, None, item)),
        _ => unfit(step, None, &output),
    };
    match failure {
        None => Event::Step(StepEvent::Computed { step: step.id.clone(), output }),
        Some(failure) => troubled(run, step, None, ConflictKind::Schema, failure),
    }
}

pub(super) fn too_deep(step: &Step, item: Option<u32>, world: &World) -> Event {
    let message =
        format!("`{}` gives what is nested deeper than output_depth_max ({})", step.id, world.output_depth_max);
    let failure = Failure::of_step(FailureKind::Bound, &step.id, item, message);
    finished(step, item, 0, Outcome::Failed { failure })
}

/// A step whose expression has no value: it fails, or a person decides.
pub(super) fn failed(run: &Run, step: &Step, item: Option<u32>, reads: &[ReadPath], error: &ExpressionError) -> Event {
    troubled(run, step, item, ConflictKind::Expression, failure(run, Some(&step.id), item, reads, error))
}

/// What goes wrong before any call: the step fails, or a person decides.
pub(super) fn troubled(run: &Run, step: &Step, item: Option<u32>, kind: ConflictKind, failure: Failure) -> Event {
    let begun = run.call_state(&step.id, item, Part::Do).is_some();
    if begun || run.is_ending() || failure.kind == FailureKind::Unresolved || !pauses(run, step.trouble.on_failure) {
        let attempt = run.call_state(&step.id, item, Part::Do).map_or(0, |state| state.attempt);
        return finished(step, item, attempt, Outcome::Failed { failure });
    }
    let conflict = conflict(run, step, item, Part::Do, kind, &failure);
    Event::Conflict(ConflictEvent::Paused { conflict: Box::new(conflict), gave: None })
}

/// An expression has no value: because nobody declared the output of a rehearsed step, or for another reason.
pub(super) fn failure(
    run: &Run,
    step: Option<&StepId>,
    item: Option<u32>,
    reads: &[ReadPath],
    error: &ExpressionError,
) -> Failure {
    let undeclared = reads.iter().filter(|path| path.root() == "steps").find_map(|path| {
        let read = path.part(0)?;
        run.undeclared(read).map(|why| format!("the output of rehearsed step `{read}` is not known ({why}): {error}"))
    });
    let (kind, message) = match undeclared {
        Some(message) => (FailureKind::Unresolved, message),
        None => (FailureKind::Expression, error.to_string()),
    };
    let place = step.map_or_else(|| "`respond`".to_owned(), |step| format!("`{step}`"));
    Failure {
        kind,
        step: step.cloned(),
        item,
        status: None,
        message: format!("{place}: {message}"),
        retry_after_ms: None,
    }
}

pub(super) fn finished(step: &Step, item: Option<u32>, attempt: u32, outcome: Outcome) -> Event {
    Event::StepFinished(StepFinished { step: step.id.clone(), item, part: Part::Do, attempt, outcome })
}
