//! What the last process left goes on here.
//!
//! Always true: a run is what its events on disk say; a step that has finished is not done again.

use std::sync::Arc;

use super::Core;
use super::clock::Clock;
use super::driver::{Driver, Parts};
use super::journal::Journal;
use crate::names::{RunId, Seq};
use crate::store::{RunFilter, StoreError};
use crate::workflow::{RunStatus, fold};

/// What became of the runs that were left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// They go on.
    pub resumed: usize,
    /// They cannot go on here: their plan or events cannot be read. They are left as they are.
    pub unreadable: usize,
    /// They wait for a person.
    pub paused: usize,
}

const PAGE: usize = 200;

pub(super) async fn recover(core: &Arc<Core>) -> Result<Recovered, StoreError> {
    let mut recovered = Recovered::default();
    let mut before: Option<RunId> = None;
    loop {
        let statuses = vec![RunStatus::Queued, RunStatus::Running, RunStatus::Paused, RunStatus::Compensating];
        let filter = RunFilter { statuses, before, limit: PAGE, ..RunFilter::default() };
        let page = core.store.runs(filter).await?;
        let Some(last) = page.last() else { break };
        before = Some(last.run_id);
        for summary in &page {
            if summary.status == RunStatus::Paused {
                let workflow = summary.workflow.as_str().to_owned();
                metrics::gauge!("pointsman_runs_active", "workflow" => workflow, "status" => "paused").increment(1.0);
                recovered.paused += 1;
                continue;
            }
            match resume(core, summary.run_id).await? {
                true => recovered.resumed += 1,
                false => recovered.unreadable += 1,
            }
        }
        if page.len() < PAGE {
            break;
        }
    }
    if recovered != Recovered::default() {
        let Recovered { resumed, unreadable, paused } = recovered;
        tracing::info!(resumed, paused, unreadable, "the runs that the last process left were taken up");
    }
    Ok(recovered)
}

async fn resume(core: &Arc<Core>, id: RunId) -> Result<bool, StoreError> {
    let snapshot = core.snapshot.load_full();
    let events = match core.store.events(id, Seq::FIRST).await {
        Ok(events) => events,
        Err(error) => {
            // The store answers, so it is this run's events that cannot be read: the others go on.
            core.store.run(id).await?;
            tracing::error!(run = %id, %error, "the run's events cannot be read");
            return Ok(false);
        }
    };
    let run = match fold(events.iter().map(|stored| &stored.event)) {
        Ok(run) => run,
        Err(misfit) => {
            tracing::error!(run = %id, %misfit, "the run's events cannot be read");
            return Ok(false);
        }
    };
    let started = run.started().clone();
    let plan = match snapshot.plan(&started.plan) {
        Some(plan) => Some(plan),
        None => {
            let kept = core.store.plan(started.plan.clone()).await?;
            let has_key = core.sealer.has_key();
            kept.and_then(|source| snapshot.rebuild(&source, has_key, &core.limits)).map(Arc::new)
        }
    };
    let Some(plan) = plan.filter(|plan| plan.id == started.plan) else {
        tracing::error!(run = %id, plan = %started.plan, "the run's plan cannot be made again");
        return Ok(false);
    };
    let credentials = match &started.sealed {
        None => Default::default(),
        Some(sealed) => {
            let key = core.store.run_key(id).await?.unwrap_or_default();
            core.sealer.open(id, sealed, &key).unwrap_or_else(|| {
                tracing::error!(run = %id, "the caller's credentials cannot be opened; calls that need them will fail");
                Default::default()
            })
        }
    };
    // They were let in once: where there are more than places, new ones wait for them, not they for each other.
    let permit = core.runs_of(started.mode).and_then(|runs| runs.clone().try_acquire_owned().ok());
    let (executor, keeper, priority) = core.of_mode(started.mode, &plan, None);
    let journal = Journal::new(keeper, priority, None, run.seq());
    let clock = Clock::starting(events.last().map_or(started.started, |stored| stored.at));
    let place = core.registry.take(id, None).ok();
    let parts =
        Parts { core: core.clone(), snapshot, plan, run, credentials, executor, journal, clock, caller: None, place };
    let mut driver = Driver::new(parts);
    driver.take_up();
    core.spawn(driver, permit);
    Ok(true)
}
