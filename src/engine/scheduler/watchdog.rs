//! Checks that every unfinished run has a next wake-up cause.
//!
//! Always true: an unfinished run has a task or a timer, waits for a person, a signal, a lock, a child or the end of
//! the freeze, or belongs to another process. A run without any of these is woken; if it is then suspended without a
//! cause, it is stuck: counted, logged and listed. A parent whose child is missing or has ended unnoticed is woken too.
//! Checks read the store page by page and are rare (`watchdog_ms`); if one fails for lack of an answer, the next makes
//! up for it. A run that is stuck here and that another process executes is no longer counted as stuck here.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use crate::engine::context::Core;
use crate::engine::scheduler::gauges::{open_checkpoints, unfinished_runs};
use crate::engine::scheduler::load::{self, LoadError};
use crate::limits::Limits;
use crate::names::{RunId, WorkflowName};
use crate::store::{RunFilter, StoreError};
use crate::workflow::{Risk, RunStatus, RunSummary, missing};

const PAGE: usize = 500;
/// The longest pause before a store that did not answer is asked again.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(5);
/// The pause between two pages, so that a long check does not keep others from the store.
const PAGE_PAUSE: Duration = Duration::from_millis(5);

/// Unfinished runs by workflow and status, and open checkpoints by risk.
#[derive(Default)]
pub(in crate::engine) struct Counts {
    runs: BTreeMap<(WorkflowName, RunStatus), u64>,
    checkpoints: BTreeMap<Risk, u64>,
    /// Each run, on a store that several processes share.
    by_run: HashMap<RunId, (WorkflowName, RunStatus)>,
}

/// Checks every `watchdog_ms` until the process drains.
pub(in crate::engine) async fn check_repeatedly(core: &Arc<Core>) {
    let every = Limits::ms(core.files.limits.watchdog_ms.max(1));
    loop {
        tokio::time::sleep(every).await;
        if *core.process.draining.borrow() {
            return;
        }
        if let Err(error) = check_all(core).await {
            tracing::warn!(%error, "the watchdog cannot read the unfinished runs; it tries again later");
        }
    }
}

/// Checks every unfinished run once, and wakes those that nothing will wake.
pub(in crate::engine) async fn check_all(core: &Arc<Core>) -> Result<(), StoreError> {
    let (mut candidates, mut children, mut still_stuck) = (Vec::new(), HashSet::new(), HashSet::new());
    let shared = core.ports.store.is_shared();
    let stuck_before = if shared { core.schedule.stuck.ids(usize::MAX) } else { Vec::new() };
    let counts = for_each_unfinished(core, |run| {
        if may_lack_wake_up_cause(core, run) {
            candidates.push(run.run_id);
        }
        if run.parent.is_some() {
            children.insert(run.run_id);
        }
        if shared && core.schedule.stuck.is_stuck_at(run.run_id, run.seq) {
            still_stuck.insert(run.run_id);
        }
    })
    .await?;
    for run in stuck_before.into_iter().filter(|run| !still_stuck.contains(run)) {
        // A run that is no longer stuck was resumed by another process.
        core.schedule.stuck.remove(run);
    }
    if shared {
        // Other processes execute runs too, and this process's drivers do not count those changes.
        publish(core, counts);
    }
    for run in candidates {
        // The run may have gone on since its page was read.
        if !is_accounted_for(core, run) {
            tracing::warn!(%run, "the run had no wake-up cause; it is woken");
            core.wake(run);
        }
    }
    // For a parent whose child was just begun or has just ended, this is one needless query.
    for parent in core.schedule.timers.parents_of_missing(&children) {
        core.wake(parent);
    }
    Ok(())
}

/// Wakes, at the start and after each reload, the runs that may continue with the new files: runs that are paused
/// because something was missing in the files, and runs that could not be loaded. Lists as stuck each run whose plan is
/// unreadable, because otherwise nobody would notice it before something wakes it. Reloads during a check are handled
/// together by the next check.
pub(in crate::engine) async fn wake_after_reloads(core: &Arc<Core>) {
    loop {
        core.files.reloaded.notified().await;
        if let Err(error) = check_new_files(core).await {
            tracing::warn!(%error, "the runs that wait for new files cannot be read; it is tried again");
            tokio::time::sleep(Limits::ms(core.files.limits.watchdog_ms.max(1)).min(RETRY_PAUSE_MAX)).await;
            core.files.reloaded.notify_one();
        }
    }
}

async fn check_new_files(core: &Arc<Core>) -> Result<(), StoreError> {
    let mut after = None;
    while let page = core.schedule.stuck.page(after)
        && let Some(last) = page.last()
    {
        after = Some(*last);
        for run in page {
            core.wake(run);
        }
    }
    let mut waiting = Vec::new();
    let mut plans = BTreeSet::new();
    for_each_unfinished(core, |run| {
        if waits_for_files(run) {
            waiting.push(run.run_id);
        }
        plans.insert(run.plan_id.clone());
    })
    .await?;
    for run in waiting {
        core.wake(run);
    }
    let snapshot = core.files.snapshot.load_full();
    let mut unreadable = BTreeMap::new();
    for plan in plans {
        match load::plan_of(core, &snapshot, &plan).await {
            Ok(_) => {}
            Err(LoadError::Store(error)) => return Err(error),
            Err(LoadError::Unreadable(why) | LoadError::EventsUnavailable(why)) => drop(unreadable.insert(plan, why)),
        }
    }
    if !unreadable.is_empty() {
        for_each_unfinished(core, |run| {
            if let Some(why) = unreadable.get(&run.plan_id) {
                core.schedule.stuck.add(run.run_id, &run.workflow, run.seq, why);
            }
        })
        .await?;
    }
    Ok(())
}

/// Whether a run is paused because something is missing in the files.
fn waits_for_files(run: &RunSummary) -> bool {
    run.status == RunStatus::Paused && run.note.as_deref().is_some_and(missing::is_noted)
}

/// Visits every unfinished run, page by page, and counts them.
pub(in crate::engine) async fn for_each_unfinished(
    core: &Core,
    mut visit: impl FnMut(&RunSummary),
) -> Result<Counts, StoreError> {
    let mut counts = Counts::default();
    let shared = core.ports.store.is_shared();
    let mut before: Option<RunId> = None;
    loop {
        let filter = RunFilter { statuses: RunStatus::OPEN.to_vec(), before, limit: PAGE, ..RunFilter::default() };
        let page = core.ports.store.runs(filter).await?;
        for run in &page {
            *counts.runs.entry((run.workflow.clone(), run.status)).or_default() += 1;
            if shared {
                counts.by_run.insert(run.run_id, (run.workflow.clone(), run.status));
            }
            if let Some((_, risk)) = &run.checkpoint {
                *counts.checkpoints.entry(*risk).or_default() += 1;
            }
            visit(run);
        }
        match page.last() {
            Some(last) if page.len() == PAGE => before = Some(last.run_id),
            _ => return Ok(counts),
        }
        tokio::time::sleep(PAGE_PAUSE).await;
    }
}

/// Whether a run may have no wake-up cause, by its stored summary and by what is in memory now.
fn may_lack_wake_up_cause(core: &Core, run: &RunSummary) -> bool {
    // A timer in the store is loaded before it is due.
    let waits = run.status.has_ended_or_awaits_input() || run.wake.is_some_and(|at| at > core.process.clock.now());
    !waits && !is_accounted_for(core, run.run_id)
}

/// Whether a run has a task or a wake-up cause here, or is listed as stuck.
fn is_accounted_for(core: &Core, run: RunId) -> bool {
    let schedule = &core.schedule;
    schedule.mailboxes.has_task(run) || schedule.timers.will_wake(run) || schedule.stuck.contains(run)
}

/// Sets the gauges of all unfinished runs of the store.
pub(in crate::engine) fn publish(core: &Core, counts: Counts) {
    if core.ports.store.is_shared() {
        core.schedule.counted_runs.replace(counts.by_run);
    } else {
        let mut known = core.schedule.gauge_labels.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for (workflow, status) in known.iter().filter(|key| !counts.runs.contains_key(key)) {
            unfinished_runs(workflow, *status).set(0.0);
        }
        for ((workflow, status), count) in &counts.runs {
            unfinished_runs(workflow, *status).set(*count as f64);
        }
        *known = counts.runs.into_keys().collect();
    }
    for risk in [Risk::Low, Risk::Medium, Risk::High] {
        open_checkpoints(risk).set(counts.checkpoints.get(&risk).copied().unwrap_or_default() as f64);
    }
}
