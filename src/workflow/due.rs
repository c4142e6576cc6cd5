//! What a run waits for somebody to do.
//!
//! Always true: a run that has not ended, is not paused and has no call under way has at least one action here, even
//! if it is only a time to wait for or a held step: a run with no next wake-up cause is a bug. A step that the run's
//! mode rehearses is offered as a [`Action::Begin`] like any other, and [`super::decide`] turns it into an intent.

use jiff::Timestamp;

use super::run::{Open, Phase, StepState};
use super::{Call, Command, EffectClass, Mode, Part, Plan, Run, Step, StepIndex, StepKind, World};

/// What somebody should do now.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Ask [`super::decide`] this.
    Ask(Command),
    /// Look again at this time.
    Wait(Timestamp),
    /// A private or shared step would begin, and is held.
    Held(StepIndex),
    /// Ask [`super::decide`] [`Command::BeginChild`] with a new id.
    Child {
        /// The step.
        step: StepIndex,
        /// The item of a `for_each`.
        item: Option<u32>,
    },
    /// Look at this lock's queue once the place in it is on disk, and tell [`super::decide`] ([`Command::LockSeen`]);
    /// where others stand before, again when one of them has left.
    Lock {
        /// The step.
        step: StepIndex,
        /// The item of a `for_each`.
        item: Option<u32>,
        /// The lock.
        name: String,
    },
}

/// What is in force while one asks.
#[derive(Clone, Copy, Debug)]
pub struct Conditions {
    /// The time.
    pub now: Timestamp,
    /// Private and shared steps that have not begun are held.
    pub hold_effects: bool,
}

/// Whether a run of this mode sends this call, or records its intent. A read that declares what it would give is not
/// sent beside legacy: reading again may see another world.
pub fn sends(mode: Mode, call: &Call) -> bool {
    mode.sends(call.effect) && (mode == Mode::Real || call.rehearse.is_none() || call.effect != EffectClass::Read)
}

/// What somebody should do now, in the plan's order.
pub fn due(run: &Run, plan: &Plan, world: &World, conditions: Conditions) -> Vec<Action> {
    let mut actions = Vec::new();
    if run.end.is_some() || run.conflict.is_some() {
        return actions;
    }
    if run.failing.is_some() {
        if run.in_flight == 0 {
            actions.push(Action::Ask(Command::Conclude));
        }
        return actions;
    }
    let world = &world.at(conditions.now);
    let mut room = world.run_calls_max.saturating_sub(run.in_flight);
    let mut wake: Option<Timestamp> = None;
    for (place, step) in plan.steps.iter().enumerate() {
        let index = StepIndex(place);
        match run.steps.get(&step.id) {
            Some(StepState::Open(open)) => {
                let waiting = ready_items(open, step, conditions.now, &mut wake);
                let held = conditions.hold_effects && is_effect(run, step);
                for (item, begun) in waiting {
                    if held && !begun {
                        actions.push(Action::Held(index));
                        break;
                    }
                    if room == 0 {
                        break;
                    }
                    room -= 1;
                    actions.push(Action::Ask(Command::Begin { step: index, item, part: Part::Do }));
                }
            }
            Some(StepState::Done { .. } | StepState::Skipped | StepState::Failed) => {}
            None if step.needs.iter().all(|need| run.has_ended(&plan.steps[need.0].id)) => {
                let single = matches!(step.kind, StepKind::Call(_)) && step.for_each.is_none();
                if !single || skipped_by_needs(run, plan, step) {
                    actions.push(Action::Ask(Command::Advance { step: index }));
                } else if conditions.hold_effects && is_effect(run, step) && condition_holds(run, world, step) {
                    actions.push(Action::Held(index));
                } else if room > 0 {
                    room -= 1;
                    actions.push(Action::Ask(Command::Begin { step: index, item: None, part: Part::Do }));
                }
            }
            None => {}
        }
    }
    let all_ended = run.ended_steps == plan.steps.len();
    if run.answer.is_none() {
        if let Some(entry) = answer_due(run, plan, world) {
            actions.push(Action::Ask(Command::Respond { entry: Some(entry) }));
        } else if all_ended {
            actions.push(Action::Ask(Command::Respond { entry: None }));
        }
    } else if all_ended {
        actions.push(Action::Ask(Command::Conclude));
    }
    actions.extend(wake.map(Action::Wait));
    actions
}

/// Whether something that the step needs was skipped, and so is it.
pub(super) fn skipped_by_needs(run: &Run, plan: &Plan, step: &Step) -> bool {
    let skipped = step.needs.iter().filter(|need| run.was_skipped(&plan.steps[need.0].id)).count();
    if step.needs_any { skipped > 0 && skipped == step.needs.len() } else { skipped > 0 }
}

/// Whether the step touches the world when a run of this mode takes it.
fn is_effect(run: &Run, step: &Step) -> bool {
    match &step.kind {
        StepKind::Call(call) => call.effect != EffectClass::Read && sends(run.mode(), call),
        StepKind::Set(_) | StepKind::Fail(_) => false,
    }
}

/// Whether a held step would run: one that would be skipped, or fails over its condition, is not held.
fn condition_holds(run: &Run, world: &World, step: &Step) -> bool {
    step.condition.as_ref().is_none_or(|condition| condition.holds(&world.plain(run)) == Ok(true))
}

/// Items whose next attempt can start, and whether an attempt was made before. A single call is the item `None`.
fn ready_items(open: &Open, step: &Step, now: Timestamp, wake: &mut Option<Timestamp>) -> Vec<(Option<u32>, bool)> {
    let mut ready = Vec::new();
    for (item, call) in &open.calls {
        match call.phase {
            Phase::Waiting(at) if at <= now => ready.push((open.items.as_ref().map(|_| *item), true)),
            Phase::Waiting(at) => *wake = Some(wake.map_or(at, |known| known.min(at))),
            Phase::InFlight | Phase::Unknown => {}
        }
    }
    if let (Some(items), Some(for_each)) = (&open.items, &step.for_each) {
        // Items begin in order, so the next one's place is how many have begun.
        let next = open.calls.len() + open.results.len();
        let room = for_each.concurrency.max(1).saturating_sub(open.calls.len());
        let last = items.len().min(next.saturating_add(room));
        ready.extend((next..last).filter_map(|item| u32::try_from(item).ok()).map(|item| (Some(item), false)));
    }
    ready
}

/// The first entry of `respond` whose steps have ended and whose condition holds. A condition without a value is no.
fn answer_due(run: &Run, plan: &Plan, world: &World) -> Option<usize> {
    let mut scope = None;
    plan.respond.iter().position(|entry| {
        let ended = match &entry.after {
            Some(after) => after.iter().all(|step| run.has_ended(&plan.steps[step.0].id)),
            None => run.ended_steps == plan.steps.len(),
        };
        ended
            && entry
                .when
                .as_ref()
                .is_none_or(|when| when.holds(scope.get_or_insert_with(|| world.answering(run, None))).unwrap_or(false))
    })
}
