//! A command becomes events, or a refusal.
//!
//! Always true: the same run, command and time give the same events; what an expression cannot give is an event too
//! (the step fails), so a command that is due never leaves the run where it was.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;

use super::due::{sends, skipped_by_needs};
use super::outcome::record;
use super::run::{Phase, StepState};
use super::world::{deeper_than, item_scope};
use super::{
    AnswerRecord, Call, CallRecord, Command, Conflict, ConflictKind, Creates, EffectClass, Event, Failure, FailureKind,
    InFlight, Outcome, Part, Pinned, Plan, Refusal, Run, Skipped, Step, StepFinished, StepIndex, StepKind, StepStarted,
    World, wire,
};
use crate::expression::{ExpressionError, ReadPath, Scope};
use crate::names::StepId;

/// What a command comes to.
///
/// # Errors
/// It is not due now, or not allowed any more; nothing happens.
pub fn decide(run: &Run, plan: &Plan, world: &World, command: Command, now: Timestamp) -> Result<Vec<Event>, Refusal> {
    if run.is_final() {
        return Err(Refusal::Ended);
    }
    let world = &world.at(now);
    match command {
        Command::Advance { step } => advance(run, plan, world, step_of(plan, step)?),
        Command::Begin { step, item, part: _ } => begin(run, plan, world, step_of(plan, step)?, item),
        Command::Record { step, item, part: _, attempt, heard, again, jitter } => {
            let step = step_of(plan, step)?;
            let StepKind::Call(call) = &step.kind else { return Err(Refusal::NotDue("the step calls nobody")) };
            record(run, step, call, item, attempt, heard, again, jitter, now)
        }
        Command::BeginChild { .. }
        | Command::ChildEnded { .. }
        | Command::LockSeen { .. }
        | Command::Elapse
        | Command::Order { .. } => Err(Refusal::NotDue("not in this version")),
        Command::Respond { entry } => respond(run, plan, world, entry),
        Command::Conclude => conclude(run, plan, world),
        Command::Abandon { reason } => {
            if run.effects_begun() {
                return Err(Refusal::EffectsBegun);
            }
            if run.answer.is_some() {
                return Err(Refusal::Answered);
            }
            Ok(vec![Event::Abandoned { to: "legacy".into(), reason: reason.into() }])
        }
    }
}

fn step_of(plan: &Plan, step: StepIndex) -> Result<&Step, Refusal> {
    plan.steps.get(step.0).ok_or(Refusal::NoSuchStep)
}

/// Whether steps may begin at all now.
fn may_begin(run: &Run, plan: &Plan, step: &Step) -> Result<(), Refusal> {
    if run.failing.is_some() || run.conflict.is_some() {
        return Err(Refusal::NotDue("the run is ending, or paused"));
    }
    if step.needs.iter().any(|need| plan.steps.get(need.0).is_none_or(|needed| !run.has_ended(&needed.id))) {
        return Err(Refusal::NotDue("something that it needs has not ended"));
    }
    Ok(())
}

fn advance(run: &Run, plan: &Plan, world: &World, step: &Step) -> Result<Vec<Event>, Refusal> {
    may_begin(run, plan, step)?;
    if run.steps.contains_key(&step.id) {
        return Err(Refusal::NotDue("it has begun"));
    }
    if skipped_by_needs(run, plan, step) {
        return Ok(vec![Event::StepSkipped { step: step.id.clone(), reason: Skipped::Needs }]);
    }
    let scope = world.plain(run);
    Ok(vec![match enter(run, world, &scope, step) {
        Err(event) => event,
        Ok(items) => match (&step.kind, items) {
            (StepKind::Call(_), Some(items)) => Event::FanOutOpened { step: step.id.clone(), items },
            (StepKind::Call(_), None) => return Err(Refusal::NotDue("a call begins")),
            (StepKind::Set(template), None) => match template.evaluate(&scope) {
                Ok(output) => computed(step, output, world),
                Err(error) => failed(run, step, None, template.reads(), &error),
            },
            (StepKind::Set(template), Some(items)) => {
                let outputs: Result<Vec<Value>, _> =
                    (0u32..).zip(items).map(|item| template.evaluate(&item_scope(&scope, Some(item)))).collect();
                match outputs {
                    Ok(outputs) => computed(step, outputs.into(), world),
                    Err(error) => failed(run, step, None, template.reads(), &error),
                }
            }
            (StepKind::Fail(answer), _) => match wire::answer(answer, &scope) {
                Ok(answer) => Event::FailReached { step: step.id.clone(), answer: Arc::new(answer) },
                Err((reads, error)) => failed(run, step, None, &reads, &error),
            },
        },
    }])
}

/// Looks at `if` and opens `for_each`: the items, or the event that ends the step here.
fn enter(run: &Run, world: &World, scope: &Scope, step: &Step) -> Result<Option<Vec<Arc<Value>>>, Event> {
    if let Some(condition) = &step.condition {
        match condition.holds(scope) {
            Ok(true) => {}
            Ok(false) => return Err(Event::StepSkipped { step: step.id.clone(), reason: Skipped::Condition }),
            Err(error) => return Err(failed(run, step, None, condition.reads(), &error)),
        }
    }
    let Some(for_each) = &step.for_each else { return Ok(None) };
    let refuse = |kind, message: String| {
        finished(step, None, 0, Outcome::Failed { failure: Failure::of_step(kind, &step.id, None, message) })
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
            Err(too_deep(step, None, world))
        }
        Ok(Value::Array(items)) => Ok(Some(items.into_iter().map(Arc::new).collect())),
        Ok(_) => Err(refuse(FailureKind::Expression, format!("`for_each` of `{}` is not a list", step.id))),
        Err(error) => Err(failed(run, step, None, for_each.items.reads(), &error)),
    }
}

fn begin(run: &Run, plan: &Plan, world: &World, step: &Step, item: Option<u32>) -> Result<Vec<Event>, Refusal> {
    may_begin(run, plan, step)?;
    let StepKind::Call(call) = &step.kind else { return Err(Refusal::NotDue("the step calls nobody")) };
    match (run.steps.get(&step.id), item) {
        (None, None) if step.for_each.is_none() => {
            if skipped_by_needs(run, plan, step) {
                return Ok(vec![Event::StepSkipped { step: step.id.clone(), reason: Skipped::Needs }]);
            }
            if let Err(event) = enter(run, world, &world.plain(run), step) {
                return Ok(vec![event]);
            }
            Ok(vec![first_attempt(run, world, step, call, None)])
        }
        (Some(StepState::Open(open)), item) if open.items.is_some() == item.is_some() => {
            let slot = item.unwrap_or(0);
            match open.calls.get(&slot) {
                Some(state) if matches!(state.phase, Phase::Waiting(_)) => Ok(vec![Event::StepStarted(StepStarted {
                    step: step.id.clone(),
                    item,
                    part: Part::Do,
                    attempt: state.attempt + 1,
                    key: state.key.clone(),
                    effect: state.effect,
                    repeatable: state.repeatable,
                    request: None,
                })]),
                Some(_) => Err(Refusal::NotDue("an attempt is under way")),
                None if open.results.contains_key(&slot) => Err(Refusal::NotDue("it has ended")),
                None => {
                    let value = open.items.as_ref().and_then(|items| items.get(slot as usize)).cloned();
                    Ok(vec![first_attempt(run, world, step, call, item.zip(value))])
                }
            }
        }
        _ => Err(Refusal::NotDue("it has ended, or its fan-out has not opened")),
    }
}

/// The first attempt of a call: what is about to leave, or the intent where the run's mode rehearses it.
fn first_attempt(run: &Run, world: &World, step: &Step, call: &Call, item: Option<(u32, Arc<Value>)>) -> Event {
    let scope = item_scope(&world.plain(run), item.clone());
    let masked = item_scope(&world.masked(run), item.clone());
    let item = item.map(|(index, _)| index);
    let request = match wire::call_record(call, world, &run.started.request, &scope, &masked) {
        Ok(request) => Arc::new(request),
        Err((reads, error)) => return failed(run, step, item, &reads, &error),
    };
    if sends(run.mode(), call) {
        return Event::StepStarted(StepStarted {
            step: step.id.clone(),
            item,
            part: Part::Do,
            attempt: 1,
            key: (call.effect != EffectClass::Read).then(|| idempotency_key(run, world, &step.id, item)),
            effect: call.effect,
            repeatable: call.repeat_is_harmless(),
            request: Some(request),
        });
    }
    rehearsed(step, call, world, &scope, request, item)
}

fn computed(step: &Step, output: Value, world: &World) -> Event {
    match deeper_than(&output, world.output_depth_max) {
        true => too_deep(step, None, world),
        false => Event::StepComputed { step: step.id.clone(), output: Arc::new(output) },
    }
}

fn too_deep(step: &Step, item: Option<u32>, world: &World) -> Event {
    let message =
        format!("`{}` gives what is nested deeper than output_depth_max ({})", step.id, world.output_depth_max);
    let failure = Failure::of_step(FailureKind::Bound, &step.id, item, message);
    finished(step, item, 0, Outcome::Failed { failure })
}

fn rehearsed(
    step: &Step,
    call: &Call,
    world: &World,
    scope: &Scope,
    intent: Arc<CallRecord>,
    item: Option<u32>,
) -> Event {
    let (output, note) = match call.rehearse.as_ref().map(|template| template.evaluate(scope)) {
        None => (None, None),
        Some(Ok(output)) if deeper_than(&output, world.output_depth_max) => return too_deep(step, item, world),
        Some(Ok(output)) => (Some(Arc::new(output)), None),
        Some(Err(error)) => (None, Some(format!("`rehearse:` has no value: {error}"))),
    };
    finished(step, item, 1, Outcome::Rehearsed { intent, output, note })
}

/// The same for every attempt of a step (an item) of a run, and for nothing else.
fn idempotency_key(run: &Run, world: &World, step: &StepId, item: Option<u32>) -> String {
    let text = format!("{}\n{step}\n{}", run.id(), item.map_or_else(String::new, |item| item.to_string()));
    let hash = blake3::keyed_hash(&world.key_secret, text.as_bytes());
    hash.to_hex().as_str().get(..32).unwrap_or_default().to_owned()
}

fn respond(run: &Run, plan: &Plan, world: &World, entry: Option<usize>) -> Result<Vec<Event>, Refusal> {
    if run.answer.is_some() {
        return Err(Refusal::Answered);
    }
    if run.failing.is_some() || run.conflict.is_some() {
        return Err(Refusal::NotDue("the run is ending, or paused"));
    }
    let Some(entry) = entry else {
        let message = "no entry of `respond` holds";
        return Ok(vec![Event::AnswerFailed { failure: Failure::of_run(FailureKind::NoAnswer, message) }]);
    };
    let respond = plan.respond.get(entry).ok_or(Refusal::NotDue("no such entry"))?;
    Ok(vec![match wire::answer(&respond.answer, &world.answering(run, None)) {
        Ok(answer) => {
            let pin = pin(run, &answer);
            Event::Responded { answer: Arc::new(answer), pin }
        }
        Err((reads, error)) => Event::AnswerFailed { failure: failure(run, None, None, &reads, &error) },
    }])
}

/// What the answer creates: only a success creates anything.
fn pin(run: &Run, answer: &AnswerRecord) -> Option<Pinned> {
    if !(200..300).contains(&answer.status) {
        return None;
    }
    match run.started.creates.as_ref()? {
        Creates::Twin { family, id } => Some(Pinned { family: family.clone(), id: id.clone(), twin: true }),
        Creates::Engine { family, path } => {
            let body = answer.body.value();
            let path = serde_json_path::JsonPath::parse(path).ok()?;
            let id = match path.query(&body).first()? {
                Value::String(text) => text.clone(),
                Value::Number(number) => number.to_string(),
                Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return None,
            };
            Some(Pinned { family: family.clone(), id, twin: false })
        }
    }
}

fn conclude(run: &Run, plan: &Plan, world: &World) -> Result<Vec<Event>, Refusal> {
    if run.conflict.is_some() || run.in_flight > 0 {
        return Err(Refusal::NotDue("calls are under way, or the run is paused"));
    }
    if let Some(failure) = &run.failing {
        if let Some(InFlight { step, item, attempt, request, .. }) = run.uncertain() {
            let message = format!("it is unknown whether `{step}` was done, and the run fails: {}", failure.message);
            let (kind, request) = (ConflictKind::OutcomeUnknown, Some(request));
            let conflict = Conflict {
                kind,
                step,
                item,
                part: Part::Do,
                attempt,
                message,
                status: None,
                request,
                response: None,
                expected: None,
                choices: Vec::new(),
            };
            return Ok(vec![Event::Paused { conflict }]);
        }
        let mut events = Vec::new();
        if run.answer.is_none() {
            let answer = run
                .declared
                .clone()
                .or_else(|| answer_about(plan, "failed", &world.answering(run, None)).map(Arc::new));
            events.extend(answer.map(|answer| Event::Responded { answer, pin: None }));
        }
        events.push(Event::Failed { failure: failure.clone() });
        return Ok(events);
    }
    if run.answer.is_none() || run.ended_steps < plan.steps.len() {
        return Err(Refusal::NotDue("steps are to come, or the answer is"));
    }
    Ok(vec![Event::Completed {}])
}

/// What the caller gets instead of a problem, where an entry of `respond` asks for this and holds.
fn answer_about(plan: &Plan, name: &str, scope: &Scope) -> Option<AnswerRecord> {
    plan.respond.iter().find_map(|entry| {
        let when = entry.when.as_ref().filter(|when| when.reads().iter().any(|path| path.root() == name))?;
        when.holds(scope).unwrap_or(false).then(|| wire::answer(&entry.answer, scope).ok())?
    })
}

/// What the caller gets whose body the workflow does not take, where `respond` says so. `run` is one that was never
/// begun.
pub fn input_refused(run: &Run, plan: &Plan, world: &World, why: &str) -> Option<AnswerRecord> {
    answer_about(plan, "input_error", &world.answering(run, Some(why)))
}

/// A step that an expression without a value ends.
fn failed(run: &Run, step: &Step, item: Option<u32>, reads: &[ReadPath], error: &ExpressionError) -> Event {
    finished(step, item, 0, Outcome::Failed { failure: failure(run, Some(&step.id), item, reads, error) })
}

/// An expression has no value: because nobody declared the output of a rehearsed step, or for another reason.
fn failure(
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

fn finished(step: &Step, item: Option<u32>, attempt: u32, outcome: Outcome) -> Event {
    Event::StepFinished(StepFinished { step: step.id.clone(), item, part: Part::Do, attempt, outcome })
}
