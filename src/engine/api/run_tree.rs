//! A stored run with the runs below it: what all of them would have sent, and which branches they took.
//!
//! Always true: a run is listed after its parent; a tree of which a run or its plan cannot be read is refused as a
//! whole.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::engine::context::Core;
use crate::engine::machine::IntentsOfRun;
use crate::engine::scheduler::load::{self, LoadError};
use crate::exchange::IntentsBelow;
use crate::names::{RunId, StepId};
use crate::store::{StoreError, StoredEvent};
use crate::workflow::{ChildEvent, Event, Plan, Redaction, fold};

/// The most runs of a tree that are read.
const RUNS_MAX: usize = 1_000;

/// One run of a tree.
pub(super) struct RunOfTree {
    pub plan: Arc<Plan>,
    pub events: Vec<StoredEvent>,
    /// `None` for the run at the top.
    pub begun: Option<BegunBy>,
}

/// What began a run: which run of the tree, by its index, with which step and for which item.
pub(super) struct BegunBy {
    pub parent: usize,
    pub step: StepId,
    pub item: Option<u32>,
}

/// Reads a run and those below it. A run that was never created is left out.
///
/// # Errors
/// The store does not return a run's events or its plan, a plan cannot be read, or there are more than [`RUNS_MAX`]
/// runs.
pub(super) async fn read(core: &Core, top: RunId) -> Result<Vec<RunOfTree>, StoreError> {
    let snapshot = core.files.snapshot.load_full();
    let mut found: Vec<RunOfTree> = Vec::new();
    let mut open = VecDeque::from([(top, None)]);
    while let Some((id, begun)) = open.pop_front() {
        if found.len() >= RUNS_MAX {
            return Err(StoreError(format!("there are more than {RUNS_MAX} runs below the run {top}")));
        }
        let events = core.events(id).await?;
        let Some(Event::RunStarted(started)) = events.first().map(|stored| &stored.event) else { continue };
        let plan = match load::plan_of(core, &snapshot, &started.plan).await {
            Ok(plan) => plan,
            Err(LoadError::Store(error)) => return Err(error),
            Err(LoadError::Unreadable(why) | LoadError::EventsUnavailable(why)) => return Err(StoreError(why)),
        };
        for stored in &events {
            if let Event::Child(ChildEvent::Started { step, item, child, .. }) = &stored.event {
                open.push_back((*child, Some(BegunBy { parent: found.len(), step: step.clone(), item: *item })));
            }
        }
        found.push(RunOfTree { plan, events, begun });
    }
    Ok(found)
}

/// The intents of the runs below a run, and the branches that they took.
///
/// # Errors
/// As those of [`read`], or the events of a run contradict each other.
pub(super) async fn intents_below(core: &Core, top: RunId) -> Result<IntentsBelow, StoreError> {
    let runs = read(core, top).await?;
    let mut below: BTreeMap<usize, IntentsBelow> = BTreeMap::new();
    // A run stands after the one that began it, so those below it are known by then.
    for (index, RunOfTree { plan, events, begun }) in runs.iter().enumerate().rev() {
        let Some(BegunBy { parent, step, item }) = begun else { break };
        let of_events = || events.iter().map(|stored| &stored.event);
        let mut run = fold(of_events()).map_err(|misfit| StoreError(misfit.to_string()))?;
        run.collect_sensitive(plan, of_events());
        let of_run = IntentsOfRun::of(&run, plan, below.remove(&index).unwrap_or_default());
        let IntentsOfRun { intents, redactions_below, branch } = of_run;
        let own = Redaction::of(plan, &run).map(Arc::new);
        let redactions = own.into_iter().chain(redactions_below).collect();
        let of_parent = below.entry(*parent).or_default();
        of_parent.add(step, *item, intents, redactions);
        of_parent.add_branch(step, branch);
    }
    Ok(below.remove(&0).unwrap_or_default())
}
