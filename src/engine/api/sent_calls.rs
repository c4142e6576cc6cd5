//! The calls that a stored run sent, under the names of its steps: what the invariants of its route read.
//!
//! Always true: they are the private and shared calls of the run and of those below it, each once, however many
//! attempts it took. A call that certainly did nothing is not one of them.

use std::collections::{BTreeMap, HashMap};

use super::run_tree::{self, BegunBy, RunOfTree};
use crate::compare::Intent;
use crate::engine::Engine;
use crate::engine::context::Core;
use crate::engine::machine::intent;
use crate::exchange::IntentsBelow;
use crate::names::{RunId, StepId};
use crate::store::{StoreError, StoredEvent};
use crate::workflow::{
    CallRecord, ConflictEvent, ConflictKind, EffectClass, Event, Outcome, Plan, RetryScheduled, StepEvent,
    StepFinished, StepPart, StepStarted,
};

impl Engine {
    /// The private and shared calls that a run and its descendants sent, in the order in which they began; those of a
    /// child run are at the position of the step that started it.
    ///
    /// # Errors
    /// The store does not return the events or the plan of one of these runs, the plan cannot be read, or there are too
    /// many runs.
    pub async fn sent_calls(&self, run: RunId) -> Result<Vec<Intent>, StoreError> {
        sent_calls(&self.core, run).await
    }
}

async fn sent_calls(core: &Core, top: RunId) -> Result<Vec<Intent>, StoreError> {
    let runs = run_tree::read(core, top).await?;
    let mut below: BTreeMap<usize, IntentsBelow> = BTreeMap::new();
    // A run is listed after its parent. In reverse order the calls of all its children are in `below` when it comes.
    for (index, RunOfTree { plan, events, begun }) in runs.iter().enumerate().rev() {
        let mut own = of_events(plan, events);
        let position = |step: &StepId| plan.step(step).map_or(usize::MAX, |(index, _)| index.0);
        below.remove(&index).unwrap_or_default().merge_into(&mut own, position);
        let Some(BegunBy { parent, step, item }) = begun else { return Ok(own) };
        below.entry(*parent).or_default().add(step, *item, own, Vec::new());
    }
    Ok(Vec::new())
}

/// Which call: the step, the item, and the part of the step.
type StepCallKey<'a> = (&'a StepId, Option<u32>, StepPart);

/// A call of a step, as far as the events have told.
struct FoundCall<'a> {
    call: StepCallKey<'a>,
    /// What it sends; `None` if no attempt said.
    record: Option<&'a CallRecord>,
    /// Whether an attempt had an unknown outcome, and nothing has settled that.
    is_unknown: bool,
    /// Whether the last attempt certainly did nothing.
    is_not_done: bool,
}

fn of_events(plan: &Plan, events: &[StoredEvent]) -> Vec<Intent> {
    let mut found: Vec<FoundCall<'_>> = Vec::new();
    let mut known: HashMap<StepCallKey<'_>, usize> = HashMap::new();
    for stored in events {
        // `is_not_done`: whether the attempt certainly did nothing; `None` if its outcome is unknown.
        let (call, is_not_done) = match &stored.event {
            Event::StepStarted(StepStarted { step, item, part, effect, request, .. })
                if *part != StepPart::Probe && *effect != EffectClass::Read =>
            {
                let call = (step, *item, *part);
                let index = *known.entry(call).or_insert_with(|| {
                    found.push(FoundCall { call, record: None, is_unknown: false, is_not_done: false });
                    found.len() - 1
                });
                if let Some(found) = found.get_mut(index) {
                    // Where a later attempt records no request of its own, it sent the one that is recorded here.
                    found.record = request.as_deref().or(found.record);
                    found.is_not_done = false;
                }
                continue;
            }
            Event::StepFinished(StepFinished { step, item, part, outcome, .. }) => {
                ((step, *item, *part), Some(matches!(outcome, Outcome::NotDone { .. })))
            }
            // The attempt before this retry did nothing, unless the event says that its outcome is unknown.
            Event::RetryScheduled(RetryScheduled { step, item, part, unknown, .. }) => {
                ((step, *item, *part), (!unknown).then_some(true))
            }
            Event::Step(StepEvent::FallbackTaken { step, item, .. }) => ((step, *item, StepPart::Do), Some(true)),
            Event::Step(StepEvent::Probed { step, item, done: Some(done), .. }) => {
                let call = (step, *item, StepPart::Do);
                if let Some(found) = known.get(&call).and_then(|index| found.get_mut(*index)) {
                    found.is_unknown = false;
                }
                (call, Some(!done))
            }
            Event::Conflict(ConflictEvent::Paused { conflict, .. })
                if conflict.kind == ConflictKind::AttemptsUsedUp =>
            {
                ((&conflict.step, conflict.item, conflict.part), Some(true))
            }
            _ => continue,
        };
        let Some(found) = known.get(&call).and_then(|index| found.get_mut(*index)) else { continue };
        match is_not_done {
            Some(is_not_done) => found.is_not_done = is_not_done && !found.is_unknown,
            None => found.is_unknown = true,
        }
    }
    let sent = found.into_iter().filter(|found| !found.is_not_done);
    sent.filter_map(|FoundCall { call: (step, item, part), record, .. }| {
        Some(intent(Some(plan), step, item, part, record?))
    })
    .collect()
}
