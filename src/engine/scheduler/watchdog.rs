//! Does every unfinished run have something that moves it next?
//!
//! Always true: a run that has not ended is moved by a task, has a time, waits for a person, a signal, a lock, a run that
//! it began or the end of a freeze, or is another process's. One of which nothing of that is true is woken; if it then
//! comes to rest over nothing, it is stuck: counted, logged and shown. One that waits for a run that is not there, or has
//! ended unheard, looks for itself. Looks go page by page and seldom (`watchdog_ms`), and a store that does not answer is
//! looked at the next time.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use crate::engine::context::Core;
use crate::engine::scheduler::gauges::{active, open_questions};
use crate::limits::Limits;
use crate::names::{RunId, WorkflowName};
use crate::store::{RunFilter, StoreError};
use crate::workflow::{Risk, RunStatus, RunSummary, missing};

const PAGE: usize = 500;
/// Until a store that did not answer is asked again.
const AGAIN: Duration = Duration::from_secs(5);
/// Between two pages, so that a long look holds up nobody.
const PAUSE: Duration = Duration::from_millis(5);

/// How many runs stand where, and how many of them ask people.
#[derive(Default)]
pub(in crate::engine) struct Counts {
    runs: BTreeMap<(WorkflowName, RunStatus), u64>,
    asked: BTreeMap<Risk, u64>,
}

/// Looks once in a while.
pub(in crate::engine) async fn watch(core: &Arc<Core>) {
    let every = Limits::ms(core.files.limits.watchdog_ms.max(1));
    loop {
        tokio::time::sleep(every).await;
        if *core.process.draining.borrow() {
            return;
        }
        if let Err(error) = look(core).await {
            tracing::warn!(%error, "the watchdog cannot look at the runs");
        }
    }
}

/// Looks at every unfinished run once, and wakes those that nothing would move.
pub(in crate::engine) async fn look(core: &Arc<Core>) -> Result<(), StoreError> {
    let (mut suspects, mut children) = (Vec::new(), HashSet::new());
    let shared = core.ports.store.is_shared();
    let counts = unfinished(core, |run| {
        if is_suspect(core, run) {
            suspects.push(run.run_id);
        }
        if run.parent.is_some() {
            children.insert(run.run_id);
        }
    })
    .await?;
    if shared {
        // Others move runs too: what is counted here between two looks is only this process's.
        publish(core, &counts);
    }
    for run in suspects {
        // It may have moved since its page was read.
        if !core.schedule.mailboxes.moves(run) && !core.schedule.timers.knows(run) && !core.schedule.stuck.knows(run) {
            tracing::warn!(%run, "nothing was about to move the run; it is woken");
            core.wake(run);
        }
    }
    // A parent that has just begun one, or is just hearing of an end, looks once more for nothing.
    for parent in core.schedule.timers.parents_of_others(&children) {
        core.wake(parent);
    }
    Ok(())
}

/// Wakes, after each reload, the runs that may go on with the new files: those that wait for what the files before did
/// not have, and those that could not be read. Reloads that come while it looks are one.
pub(in crate::engine) async fn after_reloads(core: &Arc<Core>) {
    loop {
        core.files.reloaded.notified().await;
        let mut waiting: Vec<RunId> = core.schedule.stuck.list().into_iter().map(|(run, _)| run).collect();
        let looked = unfinished(core, |run| {
            if waits_for_files(run) {
                waiting.push(run.run_id);
            }
        });
        if let Err(error) = looked.await {
            tracing::warn!(%error, "which runs wait for the new files cannot be read now; it is tried again");
            tokio::time::sleep(Limits::ms(core.files.limits.watchdog_ms.max(1)).min(AGAIN)).await;
            core.files.reloaded.notify_one();
            continue;
        }
        for run in waiting {
            core.wake(run);
        }
    }
}

/// Whether a run is paused over something that the files do not have.
fn waits_for_files(run: &RunSummary) -> bool {
    run.status == RunStatus::Paused && run.note.as_deref().is_some_and(missing::is_noted)
}

/// Every unfinished run, page by page; how many stand where.
pub(in crate::engine) async fn unfinished(
    core: &Core,
    mut each: impl FnMut(&RunSummary),
) -> Result<Counts, StoreError> {
    let mut counts = Counts::default();
    let mut before: Option<RunId> = None;
    loop {
        let filter = RunFilter { statuses: RunStatus::OPEN.to_vec(), before, limit: PAGE, ..RunFilter::default() };
        let page = core.ports.store.runs(filter).await?;
        for run in &page {
            *counts.runs.entry((run.workflow.clone(), run.status)).or_default() += 1;
            if let Some((_, risk)) = &run.checkpoint {
                *counts.asked.entry(*risk).or_default() += 1;
            }
            each(run);
        }
        match page.last() {
            Some(last) if page.len() == PAGE => before = Some(last.run_id),
            _ => return Ok(counts),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn is_suspect(core: &Core, run: &RunSummary) -> bool {
    // A time that stands in the store comes up where the next times are read.
    let waits = run.status.rests() || run.wake.is_some_and(|at| at > core.process.clock.now());
    !waits
        && !core.schedule.mailboxes.moves(run.run_id)
        && !core.schedule.timers.knows(run.run_id)
        && !core.schedule.stuck.knows(run.run_id)
}

/// What metrics say of all unfinished runs of the store.
pub(in crate::engine) fn publish(core: &Core, counts: &Counts) {
    let mut known = core.schedule.counted.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    for (workflow, status) in known.iter().filter(|key| !counts.runs.contains_key(key)) {
        active(workflow, *status).set(0.0);
    }
    for ((workflow, status), count) in &counts.runs {
        active(workflow, *status).set(*count as f64);
    }
    *known = counts.runs.keys().cloned().collect();
    for risk in [Risk::Low, Risk::Medium, Risk::High] {
        open_questions(risk).set(counts.asked.get(&risk).copied().unwrap_or_default() as f64);
    }
}
