//! Named locks: a step (an item) that declares one queues for it, and begins when it holds it.
//!
//! Always true: a step that declares a lock begins only after [`LockEvent::Taken`], except in a rehearsal, which takes
//! no locks; it leaves the queue when it ends, however it ends, and a run that has ended is in no queue. A step that
//! waits for the lock leaves the queue when its run pauses, fails or is cancelled, so that it blocks nobody; when a
//! paused run resumes, it queues again at the end. A step that holds the lock and has not begun releases it when its
//! run fails, because the step never begins. The store decides who is first. This module only decides what follows
//! from a queue that was read, and only for the entry for which it was read.

use std::collections::BTreeSet;

use super::calls::StepItem;
use super::conflict::conflict;
use super::decision_inputs::call_scope;
use super::rules::Busy;
use super::step_events::{fail_before_call, failed, skipped};
use super::work_count::count_work;
use super::{
    CheckpointEvent, ChildEvent, CommandRefusal, ConflictEvent, ConflictKind, ControlEvent, DecisionInputs,
    EndingEvent, Event, Failure, FailureKind, LockEvent, LockPosition, Mode, Outcome, Run, Skipped, Step, StepEvent,
    StepFinished, StepPart,
};
use crate::names::Seq;

/// The greatest length of a lock's name, in bytes.
const NAME_BYTES_MAX: usize = 512;

/// The prefix of the locks of dark runs.
const DARK: &str = "dark:";
/// The prefix of the hash that the table of locks has in place of a sensitive name.
pub const HASHED_LOCK: &str = "sensitive:";
/// The prefix that is added to the name of a real run's lock where that name begins with one of these three prefixes.
const REAL: &str = "real:";

/// What has to happen before the first attempt of a step (an item): the events, or the refusal; `None` where it may
/// begin.
pub(super) fn before_first_attempt(
    run: &Run,
    inputs: &DecisionInputs,
    step: &Step,
    item: Option<u32>,
) -> Option<Result<Vec<Event>, CommandRefusal>> {
    let key = step.safeguards.lock.as_ref()?.key.as_ref()?;
    // A rehearsal changes nothing that a lock could protect.
    if run.mode() == Mode::Rehearse {
        return None;
    }
    match run.interactions.queue_entry(&step.id, item) {
        Some(entry) if entry.taken => return None,
        Some(_) => return Some(Err(CommandRefusal::NotDue("it stands in a lock's queue"))),
        None => {}
    }
    let scope = call_scope(&inputs.plain(run), run, &step.id, item, StepPart::Do);
    let name = match key.evaluate_text(&scope) {
        Ok(name) => name,
        Err(error) => return Some(Ok(vec![failed(run, inputs, step, item, key.reads(), &error)])),
    };
    let wrong = match name.len() {
        0 => Some("is empty".to_owned()),
        1..=NAME_BYTES_MAX => None,
        more => Some(format!("has {more} bytes; at most {NAME_BYTES_MAX}")),
    };
    if let Some(wrong) = wrong {
        let message = format!("`{}`: the name of its lock {wrong}", step.id);
        let failure = Failure::of_step(FailureKind::Expression, &step.id, item, message);
        return Some(Ok(vec![fail_before_call(run, step, item, ConflictKind::Expression, failure)]));
    }
    let name = in_namespace(run.mode(), name);
    Some(Ok(vec![Event::Lock(LockEvent::Queued { step: step.id.clone(), item, name })]))
}

/// The name under which the lock is held. The prefixes keep locks of dark runs apart from those of real runs, and names
/// apart from the hashes that stand for sensitive names.
fn in_namespace(mode: Mode, name: String) -> String {
    match mode {
        Mode::Dark => format!("{DARK}{name}"),
        Mode::Real | Mode::Rehearse if [DARK, REAL, HASHED_LOCK].iter().any(|prefix| name.starts_with(prefix)) => {
            format!("{REAL}{name}")
        }
        Mode::Real | Mode::Rehearse => name,
    }
}

/// Decides what follows from the state of the lock's queue, for the entry that was queued with the event at `queued`.
pub(super) fn queue_seen(
    run: &Run,
    step: &Step,
    item: Option<u32>,
    queued: Seq,
    seen: LockPosition,
) -> Result<Vec<Event>, CommandRefusal> {
    let entry = run.interactions.queue_entry(&step.id, item).filter(|entry| !entry.taken && entry.queued == queued);
    let entry = entry.ok_or(CommandRefusal::NotDue("it has no such entry in a queue"))?;
    if run.is_paused() || run.is_ending() {
        return Err(CommandRefusal::NotDue("the run is ending, or paused"));
    }
    let pause = |kind, message: String| {
        let failure = Failure::of_step(FailureKind::Unavailable, &step.id, item, message);
        let conflict = conflict(run, step, item, StepPart::Do, kind, &failure);
        Ok(vec![Event::Conflict(ConflictEvent::Paused { conflict: Box::new(conflict), unfit_outcome: None })])
    };
    let name = &entry.name;
    match seen {
        LockPosition::First => {
            Ok(vec![Event::Lock(LockEvent::Taken { step: step.id.clone(), item, name: name.clone() })])
        }
        // A person is asked each time: a deadlock does not end by waiting.
        LockPosition::Deadlock { links } => {
            let links: Vec<_> = links.iter().map(ToString::to_string).collect();
            let message =
                format!("when the lock's queue was read, runs waited for each other's locks: {}", links.join("; "));
            pause(ConflictKind::Deadlock, message)
        }
        LockPosition::Behind { holder } => match step.safeguards.lock.as_ref().map_or(Busy::Wait, |lock| lock.busy) {
            Busy::Wait => Err(CommandRefusal::NotDue("it stands in the queue")),
            Busy::Skip => Ok(skip(run, step, item)),
            Busy::Cancel => Ok(vec![cancel(step, &format!("the lock `{name}` is held by {holder}"))]),
            // A person has decided that it waits.
            Busy::Ask if entry.told_to_wait => Err(CommandRefusal::NotDue("it stands in the queue")),
            Busy::Ask => pause(ConflictKind::Busy, format!("`{}`: the lock `{name}` is held by {holder}", step.id)),
        },
    }
}

/// Skips a step (an item) whose lock is held.
pub(super) fn skip(run: &Run, step: &Step, item: Option<u32>) -> Vec<Event> {
    match item {
        None => skipped(run, step, Skipped::Busy),
        Some(_) => vec![Event::Step(StepEvent::Skipped { step: step.id.clone(), item, reason: Skipped::Busy })],
    }
}

/// Cancels the run of a step whose lock is held.
pub(super) fn cancel(step: &Step, why: &str) -> Event {
    Event::Control(ControlEvent::CancelRequested {
        by: format!("`{}`", step.id),
        compensate: true,
        reason: Some(why.to_owned()),
        automatic: true,
    })
}

/// Adds to the events of a decision a `Left` event for each lock queue that the run leaves because of them.
pub(super) fn release(run: &Run, events: Vec<Event>) -> Vec<Event> {
    if run.interactions.queue_entries.is_empty() {
        return events;
    }
    let mut left: BTreeSet<&StepItem> = BTreeSet::new();
    let mut all = Vec::with_capacity(events.len() + 1);
    for event in events {
        let gives_up = |(step, item): &StepItem, taken: bool| match &event {
            Event::StepFinished(finished) => {
                finished.part == StepPart::Do
                    && finished.step == *step
                    && (finished.item.is_none() || finished.item == *item)
            }
            Event::Step(
                StepEvent::Skipped { step: of, item: which, .. }
                | StepEvent::FallbackTaken { step: of, item: which, .. },
            ) => of == step && (which.is_none() || which == item),
            Event::Step(StepEvent::Computed { step: of, .. }) => of == step,
            Event::Child(ChildEvent::Ended { step: of, item: which, .. }) => of == step && which == item,
            Event::Checkpoint(CheckpointEvent::Answered { checkpoint, answer: said, .. }) => {
                let asked = run.interactions.questions.get(checkpoint).map(|question| &question.checkpoint);
                asked.is_some_and(|asked| asked.step == *step && asked.item.is_none())
                    && said.approve
                    && item.is_some_and(|item| said.struck.contains(&item))
            }
            Event::Conflict(ConflictEvent::Paused { .. })
            | Event::Control(ControlEvent::PauseRequested { .. } | ControlEvent::CancelRequested { .. }) => !taken,
            Event::Ending(EndingEvent::DeadlinePassed {}) => false,
            Event::Ending(_) => true,
            _ => false,
        };
        let leaving: Vec<_> =
            run.interactions.queue_entries.iter().filter(|(entry, queued)| gives_up(entry, queued.taken)).collect();
        let leaves_before = match &event {
            Event::Ending(ending) => ending.is_last() || matches!(ending, EndingEvent::CompensationBegan { .. }),
            _ => false,
        };
        let mut leave = Vec::new();
        for (entry, queued) in leaving {
            if left.insert(entry) {
                let (step, item) = entry.clone();
                leave.push(Event::Lock(LockEvent::Left { step, item, name: queued.name.clone() }));
            }
        }
        // No event follows the one that ends a run, so the run leaves its queues before it.
        if leaves_before {
            all.append(&mut leave);
        }
        all.push(event);
        all.append(&mut leave);
    }
    if let Some(failed) = failed_by(run, &all) {
        let has_begun = |(step, item): &StepItem| {
            failed.call_state(step, *item, StepPart::Do).is_some()
                || failed.interactions.children.contains_key(&(step.clone(), *item))
        };
        let queued = failed.interactions.queue_entries.iter().filter(|(entry, _)| !has_begun(entry));
        all.extend(queued.map(|((step, item), queued)| {
            Event::Lock(LockEvent::Left { step: step.clone(), item: *item, name: queued.name.clone() })
        }));
    }
    all
}

/// The run after these events, if they make it fail and do not end it.
fn failed_by(run: &Run, events: &[Event]) -> Option<Run> {
    // The check comes before the copy of the run, because each of thousands of items may end without failing the run.
    if run.is_ending() || !events.iter().any(|event| may_fail(run, event)) {
        return None;
    }
    count_work();
    // Whether a failed item fails the run depends on its step, and on the steps that it replaces.
    let mut after = run.clone();
    let applies = events.iter().all(|event| after.evolve_in_place(event).is_ok());
    (applies && after.is_ending() && !after.is_final()).then_some(after)
}

/// Whether an event can make the run fail.
fn may_fail(run: &Run, event: &Event) -> bool {
    match event {
        Event::StepFinished(StepFinished { step, item, part, outcome, .. }) => {
            // A fallback that replaces single items has the `collect` of the step whose items they are.
            let is_collected = item.is_some() && run.open_step(step).is_some_and(|open| open.collect);
            let has_result = matches!(outcome, Outcome::Done { .. } | Outcome::Rehearsed { .. });
            *part == StepPart::Do && !has_result && !is_collected
        }
        Event::Step(StepEvent::FailReached { .. })
        | Event::Control(ControlEvent::CancelRequested { .. })
        | Event::Ending(EndingEvent::DeadlinePassed {}) => true,
        _ => false,
    }
}
