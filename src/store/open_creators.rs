//! Of which families an open run may still create an instance.
//!
//! Always true: what a run creates is in its first event. A rerun has no route, so that a listing by route does not
//! have it; between the end of its predecessor and its own first event, only the outbox names it.

use std::collections::BTreeSet;

use super::{RunFilter, Store, StoreError};
use crate::names::{RouteId, RunId, Seq};
use crate::workflow::{Creates, EndingEvent, Event, RunSummary};

/// How many runs one request reads.
const PAGE: usize = 500;
/// How many runs that are to begin are examined.
const PENDING_RUNS_MAX: usize = 10_000;

/// Those of these families of which an open real run, or a rerun that is to begin, may create an instance. All runs of
/// a creator count, whatever their files said of `instance`.
///
/// # Errors
/// The store does not answer.
pub async fn families_of_open_runs(
    store: &dyn Store,
    families: &BTreeSet<RouteId>,
) -> Result<BTreeSet<RouteId>, StoreError> {
    let mut found = BTreeSet::new();
    for family in families {
        if !store.runs(RunFilter::any_open_real_run(family.clone())).await?.is_empty() {
            found.insert(family.clone());
        }
    }
    if found.len() < families.len() {
        found.extend(of_pending_reruns(store).await?);
        found.extend(of_open_reruns(store).await?);
    }
    found.retain(|family| families.contains(family));
    Ok(found)
}

async fn of_open_reruns(store: &dyn Store) -> Result<Vec<RouteId>, StoreError> {
    let mut families = Vec::new();
    let mut filter = RunFilter { limit: PAGE, ..RunFilter::open_real_runs() };
    loop {
        let page = store.runs(filter.clone()).await?;
        for run in page.iter().filter(|run| is_rerun(run)) {
            families.extend(created_by(store, run.run_id).await.0);
        }
        match page.last() {
            Some(last) if page.len() == PAGE => filter.before = Some(last.run_id),
            _ => return Ok(families),
        }
    }
}

/// A run of another run's job that no other run began.
fn is_rerun(run: &RunSummary) -> bool {
    run.route.is_none() && run.parent.is_none() && run.job.is_some_and(|job| job.0 != run.run_id.0)
}

async fn of_pending_reruns(store: &dyn Store) -> Result<Vec<RouteId>, StoreError> {
    let mut families = Vec::new();
    for row in store.pending_runs(PENDING_RUNS_MAX).await? {
        // A child run creates no instance, and its row looks alike.
        let Some(parent) = row.parent else { continue };
        let (created, successor) = created_by(store, parent).await;
        families.extend(created.filter(|_| successor == Some(row.run)));
    }
    Ok(families)
}

/// The family whose instance a real run may create, and the run that supersedes it.
async fn created_by(store: &dyn Store, run: RunId) -> (Option<RouteId>, Option<RunId>) {
    let events = match store.events(run, Seq::FIRST).await {
        Ok(events) => events,
        Err(error) => {
            // One damaged run must not keep the files out of force, nor the process from starting.
            tracing::error!(%run, %error, "what this run may create cannot be read: it is not taken into account");
            return (None, None);
        }
    };
    let created = match events.first().map(|stored| &stored.event) {
        Some(Event::RunStarted(started)) => match &started.creates {
            Some(Creates::Engine { family, .. }) => Some(family.clone()),
            Some(Creates::Twin { .. }) | None => None,
        },
        _ => None,
    };
    let successor = match events.last().map(|stored| &stored.event) {
        Some(Event::Ending(EndingEvent::Superseded(superseded))) => Some(superseded.by),
        _ => None,
    };
    (created, successor)
}
