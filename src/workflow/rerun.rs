//! A rerun: a new run of the same job that begins at a given step.
//!
//! Always true:
//!
//! - Results of steps that finished and do not depend on that step are taken over, and their `undo` uses the keys of
//!   the run that did them.
//! - Steps that had not finished, were undone or depend on that step run again, and people are asked about them again:
//!   at no lower risk than before, if a person gave the step its input.
//! - What people and other programs gave the earlier run holds for the new one: the inputs of steps, signals that no
//!   step has taken, and the ids of all signals but those whose `wait` runs again. A step that a person skipped stays
//!   skipped, unless the rerun begins at it.
//! - Decisions about single items cannot be taken over, because the items may be others; where there are some, the
//!   rerun is refused unless it begins at their step.
//! - A step that may have been done is repeated only if the rerun begins at it. A call that was done and is not undone
//!   is repeated only if the rerun begins at its step, or if its step has a result and depends on the one where the
//!   rerun begins.
//! - A run that is not final ends when it is handed over. It records the id of its successor before that one is
//!   created, so the two are never active at the same time; if creating the successor fails, giving the same command
//!   again creates it.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value;

use super::calls::{DoneCall, Phase, StepState};
use super::run::UNKNOWN;
use super::sensitive::{HandedOver, result_paths};
use super::taken_inputs::taken_inputs;
use super::undo::undo_groups;
use super::undo_state::UndoStatus;
use super::{
    CommandRefusal, ConflictKind, DoneBefore, EffectClass, EndingEvent, Event, InFlight, Mode, Plan, ResultTaken, Run,
    RunStatus, SignalDelivery, Step, StepEvent, StepIndex, StepPart, Superseded, UnknownBefore, WaitEvent,
};
use crate::names::{RunId, StepId};

fn not_applicable<T>(why: impl Into<String>) -> Result<T, CommandRefusal> {
    Err(CommandRefusal::NotApplicable(why.into()))
}

/// The events of the new run after its first one.
///
/// # Errors
/// Why this run cannot be run again from this step.
pub fn rerun(old: &Run, plan: &Plan, from: &StepId) -> Result<Vec<Event>, CommandRefusal> {
    let to_rerun = steps_to_rerun(old, plan, from)?;
    let not_rerun = (0..plan.steps.len()).map(StepIndex).filter(|index| !to_rerun.contains(index));
    let mut taken: Vec<(StepIndex, bool)> =
        not_rerun.map(|index| (index, old.was_skipped(&plan.steps[index.0].id))).collect();
    let undoes = |id: &StepId| plan.step(id).is_some_and(|(_, step)| step.undo.is_some());
    let done = |id: &StepId| -> Vec<_> {
        let needs_undo = |done: &&DoneCall| {
            // A call of a step that does not run again may be undone already: a step that a person skipped after its
            // call was done stays skipped.
            done.step == *id && !done.rehearsed && (!done.harmless || undoes(id)) && !old.was_undone(done)
        };
        old.done.iter().filter(needs_undo).collect()
    };
    let undo_groups = undo_groups(taken.iter().flat_map(|(index, _)| done(&plan.steps[index.0].id)), undoes);
    // In the order in which their calls were done: a compensation undoes the last one first.
    taken.sort_by_key(|(index, _)| done(&plan.steps[index.0].id).iter().map(|done| done.last_seq).max());
    let results = taken.into_iter().map(|(index, skipped)| {
        let step = plan.steps[index.0].id.clone();
        let fields = old.outputs.get(step.as_str()).map_or(Value::Null, |fields| fields.whole().clone());
        let done = done(&step);
        let origin = done.iter().find_map(|done| done.origin).unwrap_or(old.id());
        let done = done
            .into_iter()
            .map(|done| DoneBefore {
                item: done.item,
                value: done.value.clone(),
                status: done.status,
                output: done.output.clone(),
                harmless: done.harmless,
                child: done.child.clone(),
                group: undo_groups.get(&(&done.step, done.item)).copied(),
            })
            .collect();
        let sensitive = result_paths(plan, old, &step);
        let by_hand = old.skipped_by_hand.contains(&(step.clone(), None));
        let decided_item = decided_item(old, &step);
        let unknown = old.unknown.iter().filter(|call| call.step == step);
        let unknown = unknown.map(|call| UnknownBefore { item: call.item, why: call.why.clone() });
        let by_children = old.left_by_children.get(&step).filter(|left| left.unknown);
        let by_children =
            by_children.map(|_| UnknownBefore { item: None, why: format!("{UNKNOWN}: a child run of {}", old.id()) });
        let unknown = unknown.chain(by_children).collect();
        let fields = Arc::new(fields);
        ResultTaken { step, origin, skipped, by_hand, decided_item, fields, done, unknown, sensitive }
    });
    let results: Vec<_> = results.collect();
    let handed_over = HandedOver::of(old, plan, &results);
    let results =
        results.into_iter().map(|taken| Event::Step(StepEvent::ResultTaken(Box::new(handed_over.marked(taken)))));
    let by = old.id().to_string();
    // The inputs come before the results, because a step with a result accepts no input. They are kept even for such a
    // step: a later rerun may perform it again with that input.
    let mut events = taken_inputs(old, plan, &handed_over);
    events.extend(results);
    events.extend(old.interactions.signals.iter().map(|signal| {
        Event::Wait(WaitEvent::SignalReceived {
            name: signal.name.clone(),
            payload: signal.payload.clone(),
            // The id is also among `deliveries_before` of the new run's first event. It is needed here too, to tell
            // which of those deliveries a step takes.
            id: signal.id.clone(),
            by: by.clone(),
            sensitive: handed_over.is_signal_sensitive(&signal.name, &signal.payload),
        })
    }));
    Ok(events)
}

impl Run {
    /// The deliveries that a rerun must not accept again, from this run and earlier runs of its job; `taken_over` are
    /// the rerun's events after its first one. Where the step that took a signal runs again, that signal may be
    /// delivered again.
    pub fn deliveries_before(&self, taken_over: &[Event]) -> Vec<SignalDelivery> {
        let is_taken_over = |step: &StepId| {
            taken_over
                .iter()
                .any(|event| matches!(event, Event::Step(StepEvent::ResultTaken(taken)) if taken.step == *step))
        };
        let counts = |delivery: &&SignalDelivery| delivery.taken_by.as_ref().is_none_or(is_taken_over);
        self.interactions.deliveries.iter().filter(counts).cloned().collect()
    }
}

/// The steps that run again, or the reason why no rerun is possible.
fn steps_to_rerun(old: &Run, plan: &Plan, from: &StepId) -> Result<BTreeSet<StepIndex>, CommandRefusal> {
    let (start, _) = plan.step(from).ok_or(CommandRefusal::NoSuchStep)?;
    if old.mode() != Mode::Real {
        return not_applicable(format!("a {} run is not run again", old.mode().as_str()));
    }
    if let Some(superseded) = old.superseded().filter(|superseded| superseded.from != *from) {
        let Superseded { successor, from, .. } = superseded;
        return not_applicable(format!("{successor} takes its place, from `{from}`: that cannot be changed any more"));
    }
    match old.status() {
        RunStatus::Completed | RunStatus::Failed | RunStatus::Cancelled => {}
        RunStatus::Paused if old.is_ending() && old.conflicts().is_empty() => {
            return not_applicable("it is ending, and paused by a command: resume it first");
        }
        RunStatus::Paused if old.is_ending() => return not_applicable("it is ending: decide what is open first"),
        RunStatus::Paused => match &old.started.parent {
            None => {}
            Some(parent) => {
                let parent = parent.run;
                return not_applicable(format!(
                    "{parent} began it and waits for it: decide what is open, or cancel it first"
                ));
            }
        },
        RunStatus::Abandoned => return not_applicable("legacy has answered its request"),
        status => return not_applicable(format!("the run is {}: pause or cancel it first", status.as_str())),
    }
    let is_probe = |attempt: &InFlight| attempt.part == StepPart::Probe;
    if let Some(attempt) = old.in_flight().iter().find(|attempt| is_probe(attempt)) {
        return not_applicable(format!(
            "the probe of `{}` asks whether it was done: wait for its answer",
            attempt.step
        ));
    }
    if !old.in_flight().is_empty() || !old.interactions.children.is_empty() {
        return not_applicable("one of its calls or child runs is still under way");
    }
    let open = old.conflicts().iter().find(|conflict| conflict.kind == ConflictKind::OutcomeUnknown);
    let probed = old.unsettled_calls().find(|(_, call)| matches!(call.phase, Phase::ToProbe(_) | Phase::Probing));
    if let Some((step, _)) = probed.filter(|_| open.is_none()) {
        return not_applicable(format!(
            "it is unknown whether `{step}` was done: its probe has not settled that, and the attempt could still take \
             effect; resume the run and wait for the probe, or cancel the run and rerun it from `{step}`"
        ));
    }
    if let Some(step) = open.map(|conflict| &conflict.step).or_else(|| Some(old.unsettled_calls().next()?.0)) {
        return not_applicable(format!(
            "it is unknown whether `{step}` was done: decide that first, or cancel the run and rerun it from `{step}`"
        ));
    }
    let to_rerun = step_and_dependents(old, plan, start);
    let is_taken_over = |id: &&StepId| plan.step(id).is_some_and(|(index, _)| !to_rerun.contains(&index));
    // Once the hand-over is recorded, neither an unknown undo nor a decision about an item refuses the successor.
    let is_recorded = old.superseded().is_some();
    if let Some(step) = old.steps_with_unknown_undo().find(is_taken_over).filter(|_| !is_recorded) {
        return not_applicable(format!(
            "it is unknown whether what `{step}` did was undone, so its result cannot be taken over; begin at \
             `{step}`: then every step whose undo has an unknown outcome runs again"
        ));
    }
    let done_twice = old.unknown.iter().find(|call| {
        let index = plan.step(&call.step).map(|(index, _)| index);
        index.is_some_and(|index| index != start && to_rerun.contains(&index))
    });
    let repeated = old.left_by_children.iter().find(|(step, left)| {
        let runs_again = plan.step(step).is_some_and(|(index, _)| index != start && to_rerun.contains(&index));
        // A step that has a result runs again only because a step that it needs does: that is allowed, as for any other
        // step.
        runs_again && (left.unknown || !is_finished(old, step))
    });
    if let Some((step, left)) = repeated {
        let details = left.in_words().map_or_else(String::new, |text| format!(" ({text})"));
        return not_applicable(format!(
            "what a run that `{step}` began has done, or may have done, is not undone{details}, and it would be done again; \
             to do that all the same, begin at `{step}`"
        ));
    }
    if let Some(call) = done_twice {
        let step = &call.step;
        return not_applicable(format!(
            "it is unknown whether `{step}` was done, and it would be done again; to do that all the same, begin at \
             `{step}`"
        ));
    }
    if !is_recorded {
        refuse_lost_decisions(old, plan, start, &to_rerun)?;
    }
    match repeated_effect(old, plan, start, &to_rerun) {
        None => Ok(to_rerun),
        Some((step, item)) => {
            let call = item.map_or_else(|| format!("`{step}`"), |item| format!("`{step}[{item}]`"));
            not_applicable(format!(
                "{call} was done and is not undone, and it would be done again; to do that all the same, begin at \
                 `{step}`"
            ))
        }
    }
}

/// Refuses a rerun that would perform again items about which a person has decided.
fn refuse_lost_decisions(
    old: &Run,
    plan: &Plan,
    start: StepIndex,
    to_rerun: &BTreeSet<StepIndex>,
) -> Result<(), CommandRefusal> {
    // The refusal below says at which step to begin, so whoever begins there has accepted that its items are performed
    // again. With several such steps, further refusals would send that person back and forth between them.
    let originals = [start, original_of(plan, start)];
    if originals.iter().any(|index| decided_item(old, &plan.steps[index.0].id).is_some()) {
        return Ok(());
    }
    let lost = to_rerun.iter().find_map(|index| {
        let (step, original) = (&plan.steps[index.0].id, original_of(plan, *index));
        let item = decided_item(old, step).filter(|_| original != original_of(plan, start))?;
        Some((step, item, &plan.steps[original.0].id))
    });
    lost.map_or(Ok(()), |(step, item, from)| {
        not_applicable(format!(
            "a person skipped item {item} of `{step}` or gave it another input, and the items may be others when `{step}` \
             runs again; to perform all of them as the workflow says, begin at `{from}`"
        ))
    })
}

/// An item of a step that a person skipped, or to which a person gave another input, in this run or an earlier one of
/// its job.
fn decided_item(old: &Run, step: &StepId) -> Option<u32> {
    let of_step = |(of, item): &(StepId, Option<u32>)| (*item).filter(|_| of == step);
    let here = old.inputs.keys().chain(&old.skipped_by_hand).find_map(of_step);
    here.or_else(|| old.decided_items.get(step).copied())
}

/// The step that a fallback, or the fallback of a fallback, replaces; any other step itself.
fn original_of(plan: &Plan, index: StepIndex) -> StepIndex {
    let mut original = index;
    // A chain of fallbacks cannot be longer than the plan.
    for _ in &plan.steps {
        original = plan.steps[original.0].replaces.unwrap_or(original);
    }
    original
}

/// A call that was done and is not undone, and that the rerun would repeat although nobody asked for that. Whoever asks
/// for a rerun asks for a repeat of the step where it begins, of that step's fallback, of the step that it replaces,
/// and of steps with a result that depend on it.
fn repeated_effect<'a>(
    old: &'a Run,
    plan: &Plan,
    start: StepIndex,
    to_rerun: &BTreeSet<StepIndex>,
) -> Option<(&'a StepId, Option<u32>)> {
    // Of a step with items only those that were not done have a fallback, so the items that were done do not depend on
    // it.
    let is_replaced = |step: &Step| was_replaced(old, plan, step) && !plan.runs_by_item(step);
    let dependents = closure(old, plan, start, is_replaced, |_| false);
    let is_linked = |index: StepIndex| {
        let step = &plan.steps[index.0];
        let is_replaced = step.failure_handling.fallback == Some(start) && !plan.runs_by_item(step);
        index == start || step.replaces == Some(start) || is_replaced
    };
    let is_unasked = |id: &StepId| {
        plan.step(id).is_some_and(|(index, _)| {
            let is_asked_for = is_linked(index)
                || (is_finished(old, id) && dependents.contains(&index))
                || both_undos_unknown(old, plan, start, id);
            to_rerun.contains(&index) && !is_asked_for
        })
    };
    let unfit = old.steps.iter().filter_map(|(step, state)| match state {
        StepState::Open(open) => Some((step, open)),
        _ => None,
    });
    // These calls were done, but their output does not fit, and nobody has decided how the step goes on.
    let unfit = unfit.flat_map(|(step, open)| {
        let calls =
            open.calls.iter().filter(|(_, call)| call.unfit_result.is_some() && call.effect != EffectClass::Read);
        calls.map(move |(item_index, _)| (step, open.items.as_ref().map(|_| *item_index)))
    });
    let done = old.done.iter().filter(|done| !done.rehearsed && !done.harmless && !old.was_undone(done));
    done.map(|done| (&done.step, done.item)).chain(unfit).find(|(step, _)| is_unasked(step))
}

fn is_finished(old: &Run, step: &StepId) -> bool {
    matches!(old.steps.get(step), Some(StepState::Done { .. } | StepState::Skipped))
}

/// A step, its dependents, and every step without a result that could be taken over.
fn step_and_dependents(old: &Run, plan: &Plan, start: StepIndex) -> BTreeSet<StepIndex> {
    let undone: BTreeSet<&StepId> = old
        .undone()
        .into_iter()
        .filter(|(_, _, undone)| *undone == UndoStatus::Undone)
        .map(|(step, ..)| step)
        .collect();
    let runs_again = |step: &Step| {
        !is_finished(old, &step.id) || undone.contains(&step.id) || both_undos_unknown(old, plan, start, &step.id)
    };
    closure(old, plan, start, |step| was_replaced(old, plan, step), runs_again)
}

/// Whether both this step and the step where the rerun begins have an undo with an unknown outcome. The result of such
/// a step cannot be taken over, and whoever begins a rerun at one has accepted that all of them are performed again.
fn both_undos_unknown(old: &Run, plan: &Plan, start: StepIndex, step: &StepId) -> bool {
    let is_unknown = |step: &StepId| old.steps_with_unknown_undo().any(|unknown| unknown == step);
    is_unknown(&plan.steps[start.0].id) && is_unknown(step)
}

/// Whether the fallback of a step was taken, for the step or for some of its items.
fn was_replaced(old: &Run, plan: &Plan, step: &Step) -> bool {
    step.failure_handling.fallback.is_some_and(|by| {
        let fallback = &plan.steps[by.0].id;
        old.replaced.contains_key(fallback) || !matches!(old.steps.get(fallback), None | Some(StepState::Skipped))
    })
}

/// The step where the rerun begins, the steps for which `runs_again` holds, and all that depend on one of these. The
/// result of a step depends on its fallback only if `was_replaced` holds. A step that a person skipped stays skipped,
/// unless the rerun begins at it.
fn closure(
    old: &Run,
    plan: &Plan,
    start: StepIndex,
    was_replaced: impl Fn(&Step) -> bool,
    runs_again: impl Fn(&Step) -> bool,
) -> BTreeSet<StepIndex> {
    let mut closed: BTreeSet<StepIndex> = BTreeSet::from([start]);
    loop {
        let before = closed.len();
        for (index, step) in plan.steps.iter().enumerate() {
            let needs = step.needs.iter().any(|need| closed.contains(need));
            // A fallback that was taken and the step that it replaces run again together.
            let replaces = step.replaces.is_some_and(|original| closed.contains(&original));
            let fallback = step.failure_handling.fallback.filter(|by| closed.contains(by));
            let replaced = fallback.is_some() && was_replaced(step);
            let stays_skipped = old.skipped_by_hand.contains(&(step.id.clone(), None))
                && original_of(plan, StepIndex(index)) != original_of(plan, start);
            if !stays_skipped && (needs || replaces || replaced || runs_again(step)) {
                closed.insert(StepIndex(index));
            }
        }
        if closed.len() == before {
            return closed;
        }
    }
}

/// Ends a run that is not final, because its successor replaces it.
pub(super) fn hand_over(
    old: &Run,
    plan: &Plan,
    to: RunId,
    from: StepId,
    sealed: Option<String>,
    who: String,
) -> Result<Vec<Event>, CommandRefusal> {
    let handed = rerun(old, plan, &from)?.into_iter().filter_map(|event| match event {
        Event::Step(StepEvent::ResultTaken(taken)) => Some(taken.step),
        _ => None,
    });
    Ok(vec![Event::Ending(EndingEvent::Superseded(Box::new(Superseded {
        successor: to,
        from,
        handed_over_steps: handed.collect(),
        sealed,
        requested_by: who,
    })))])
}
