//! The calls that a stored run sent, under the names of its steps: what the invariants of its route read.
//!
//! Always true: they are the private and shared calls of the run and of those below it, each once, however many
//! attempts it took. A call that certainly did nothing is none.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::run_tree::{self, BegunBy, RunOfTree};
use crate::compare::Intent;
use crate::engine::Engine;
use crate::engine::context::Core;
use crate::engine::machine::intent;
use crate::exchange::IntentsBelow;
use crate::names::{RunId, StepId};
use crate::store::{StoreError, StoredEvent};
use crate::workflow::{CallRecord, EffectClass, Event, Outcome, Plan, StepFinished, StepPart, StepStarted};

impl Engine {
    /// The private and shared calls that a run and those below it sent, in the order in which they began; those of a
    /// run below stand where the step stands that began it.
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
    // A run stands after the one that began it, so those below it are known by then.
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

fn of_events(plan: &Plan, events: &[StoredEvent]) -> Vec<Intent> {
    let mut calls: Vec<(StepCallKey<'_>, Option<&CallRecord>)> = Vec::new();
    let mut known: HashMap<StepCallKey<'_>, usize> = HashMap::new();
    let mut not_done: HashSet<StepCallKey<'_>> = HashSet::new();
    for stored in events {
        match &stored.event {
            Event::StepStarted(StepStarted { step, item, part, effect, request, .. })
                if *part != StepPart::Probe && *effect != EffectClass::Read =>
            {
                let call = (step, *item, *part);
                let index = *known.entry(call).or_insert_with(|| {
                    calls.push((call, None));
                    calls.len() - 1
                });
                // A later attempt sends the same again unless it says otherwise.
                if let (Some((_, record)), Some(request)) = (calls.get_mut(index), request) {
                    *record = Some(request);
                }
                not_done.remove(&call);
            }
            Event::StepFinished(StepFinished { step, item, part, outcome: Outcome::NotDone { .. }, .. }) => {
                not_done.insert((step, *item, *part));
            }
            _ => {}
        }
    }
    let sent = calls.into_iter().filter(|(call, _)| !not_done.contains(call));
    sent.filter_map(|((step, item, part), record)| Some(intent(Some(plan), step, item, part, record?))).collect()
}
