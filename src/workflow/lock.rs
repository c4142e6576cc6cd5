//! Named locks: a place in a queue before a step (an item) begins, and what happens where another stands before it.
//!
//! Always true: a step that declares a lock begins only after [`LockEvent::Taken`]; it leaves the queue when it ends,
//! however it ends, and a run that ends stands in none. A step that has not got the lock leaves the queue when its run
//! pauses, over whatever, or is cancelled, so that it holds nobody up; when the run goes on it stands in line anew. Who
//! stands first is the store's business; here only what it says is judged, and only of the place that it was asked about.

use std::collections::BTreeSet;

use super::calls::StepItem;
use super::conflict::conflict;
use super::rules::Busy;
use super::step_events::{failed, finished, skipped};
use super::world::call_scope;
use super::{
    ChildEvent, ConflictEvent, ConflictKind, ControlEvent, EndingEvent, Event, Failure, FailureKind, LockEvent,
    LockSeen, Mode, Outcome, Part, Refusal, Run, Skipped, Step, StepEvent, World,
};
use crate::names::Seq;

/// A lock's name is no longer than this.
const NAME_BYTES_MAX: usize = 512;

/// What stands before a step's (an item's) first attempt: `None` where it may begin.
pub(super) fn gate(run: &Run, world: &World, step: &Step, item: Option<u32>) -> Option<Result<Vec<Event>, Refusal>> {
    let key = step.care.lock.as_ref()?.key.as_ref()?;
    // A rehearsal changes nothing that a lock could protect.
    if run.mode() == Mode::Rehearse {
        return None;
    }
    match run.interactions.place(&step.id, item) {
        Some(place) if place.taken => return None,
        Some(_) => return Some(Err(Refusal::NotDue("it stands in a lock's queue"))),
        None => {}
    }
    let scope = call_scope(&world.plain(run), run, &step.id, item, Part::Do);
    let name = match key.evaluate_text(&scope) {
        Ok(name) => name,
        Err(error) => return Some(Ok(vec![failed(run, step, item, key.reads(), &error)])),
    };
    let wrong = match name.len() {
        0 => Some("is empty".to_owned()),
        1..=NAME_BYTES_MAX => None,
        more => Some(format!("has {more} bytes; at most {NAME_BYTES_MAX}")),
    };
    if let Some(wrong) = wrong {
        let message = format!("`{}`: the name of its lock {wrong}", step.id);
        let failure = Failure::of_step(FailureKind::Expression, &step.id, item, message);
        return Some(Ok(vec![finished(step, item, 0, Outcome::Failed { failure })]));
    }
    let name = if run.mode() == Mode::Dark { format!("dark:{name}") } else { name };
    Some(Ok(vec![Event::Lock(LockEvent::Queued { step: step.id.clone(), item, name })]))
}

/// The lock's queue was looked at, for the place that was taken in it with the event at `queued`.
pub(super) fn seen(
    run: &Run,
    step: &Step,
    item: Option<u32>,
    queued: Seq,
    seen: LockSeen,
) -> Result<Vec<Event>, Refusal> {
    let place = run.interactions.place(&step.id, item).filter(|place| !place.taken && place.queued == queued);
    let place = place.ok_or(Refusal::NotDue("it does not stand there in a queue"))?;
    if run.is_paused() || run.is_ending() {
        return Err(Refusal::NotDue("the run is ending, or paused"));
    }
    let ask = |kind, message: String| {
        let failure = Failure::of_step(FailureKind::Unavailable, &step.id, item, message);
        let conflict = conflict(run, step, item, Part::Do, kind, &failure);
        Ok(vec![Event::Conflict(ConflictEvent::Paused { conflict: Box::new(conflict), gave: None })])
    };
    let name = &place.name;
    match seen {
        LockSeen::First => Ok(vec![Event::Lock(LockEvent::Taken { step: step.id.clone(), item, name: name.clone() })]),
        // However often: while it is so, waiting ends nothing.
        LockSeen::Deadlock { knots } => {
            let knots: Vec<_> = knots.iter().map(ToString::to_string).collect();
            ask(ConflictKind::Deadlock, format!("runs wait for each other's locks: {}", knots.join("; ")))
        }
        LockSeen::Behind { holder } => match step.care.lock.as_ref().map_or(Busy::Wait, |lock| lock.busy) {
            Busy::Wait => Err(Refusal::NotDue("it stands in the queue")),
            Busy::Skip => Ok(skip(run, step, item)),
            Busy::Cancel => Ok(vec![cancel(step, &format!("the lock `{name}` is held by {holder}"))]),
            // Somebody has said that it waits.
            Busy::Ask if place.asked => Err(Refusal::NotDue("it stands in the queue")),
            Busy::Ask => ask(ConflictKind::Busy, format!("`{}`: the lock `{name}` is held by {holder}", step.id)),
        },
    }
}

/// A step (an item) that does not wait.
pub(super) fn skip(run: &Run, step: &Step, item: Option<u32>) -> Vec<Event> {
    match item {
        None => skipped(run, step, Skipped::Busy),
        Some(_) => vec![Event::Step(StepEvent::Skipped { step: step.id.clone(), item, reason: Skipped::Busy })],
    }
}

/// A run that does not wait.
pub(super) fn cancel(step: &Step, why: &str) -> Event {
    Event::Control(ControlEvent::CancelOrdered {
        by: format!("`{}`", step.id),
        compensate: true,
        reason: Some(why.to_owned()),
    })
}

/// What a decision comes to, with the places in queues that it gives up.
pub(super) fn release(run: &Run, events: Vec<Event>) -> Vec<Event> {
    if run.interactions.places.is_empty() {
        return events;
    }
    let mut left: BTreeSet<&StepItem> = BTreeSet::new();
    let mut all = Vec::with_capacity(events.len() + 1);
    for event in events {
        let gives_up = |(step, item): &StepItem, taken: bool| match &event {
            Event::StepFinished(finished) => {
                finished.part == Part::Do
                    && finished.step == *step
                    && (finished.item.is_none() || finished.item == *item)
            }
            Event::Step(
                StepEvent::Skipped { step: of, item: which, .. }
                | StepEvent::FallbackTaken { step: of, item: which, .. },
            ) => of == step && (which.is_none() || which == item),
            Event::Step(StepEvent::Computed { step: of, .. }) => of == step,
            Event::Child(ChildEvent::Ended { step: of, item: which, .. }) => of == step && which == item,
            Event::Conflict(ConflictEvent::Paused { .. })
            | Event::Control(ControlEvent::PauseOrdered { .. } | ControlEvent::CancelOrdered { .. }) => !taken,
            Event::Ending(EndingEvent::DeadlinePassed {}) => false,
            Event::Ending(_) => true,
            _ => false,
        };
        let leaving: Vec<_> =
            run.interactions.places.iter().filter(|(place, queued)| gives_up(place, queued.taken)).collect();
        let last = match &event {
            Event::Ending(ending) => ending.is_last() || matches!(ending, EndingEvent::CompensationBegan { .. }),
            _ => false,
        };
        let mut leave = Vec::new();
        for (place, queued) in leaving {
            if left.insert(place) {
                let (step, item) = place.clone();
                leave.push(Event::Lock(LockEvent::Left { step, item, name: queued.name.clone() }));
            }
        }
        // Nothing comes after a run's end.
        if last {
            all.append(&mut leave);
        }
        all.push(event);
        all.append(&mut leave);
    }
    all
}
