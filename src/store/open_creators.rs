//! Finds the families of which an open run may still create an instance.
//!
//! Always true: what a run creates is in its first event. The family there is the oldest id that the run's route had
//! when the run began, so a listing by the route's id does not find it after a rename. A rerun has no route; between
//! the end of its predecessor and its own first event, only the outbox names it.

use std::collections::{BTreeMap, BTreeSet};

use super::{RunFilter, Store, StoreError};
use crate::names::{RouteId, RunId, Seq};
use crate::workflow::{Creates, EndingEvent, Event, RunSummary};

/// How many runs one request reads.
const PAGE: usize = 500;
/// How many runs that are to begin are examined.
const PENDING_RUNS_MAX: usize = 10_000;

/// The families of which open runs may create an instance.
#[derive(Debug, Default)]
pub struct OpenCreators {
    /// The families; with an open run whose events cannot be read, if no other run counts for the family.
    pub families: BTreeMap<RouteId, Option<RunId>>,
    /// Open reruns whose events cannot be read. They have no route, so it is not known for which family they count.
    pub unreadable_reruns: Vec<RunId>,
}

/// Returns those of these families of which an open real run, or a rerun that is to begin, may create an instance.
/// `oldest_ids` has the oldest id of each route, by its present id: runs of a route whose oldest id is none of
/// `families` are not examined. May take long where many runs are open.
///
/// # Errors
/// The store does not answer.
pub async fn families_of_open_runs(
    store: &dyn Store,
    families: &BTreeSet<RouteId>,
    oldest_ids: &BTreeMap<RouteId, RouteId>,
) -> Result<OpenCreators, StoreError> {
    if families.is_empty() {
        return Ok(OpenCreators::default());
    }
    let may_create_one = |run: &RunSummary| match &run.route {
        Some(route) => oldest_ids.get(route).is_none_or(|oldest| families.contains(oldest)),
        None => is_rerun(run),
    };
    let pending = of_pending_reruns(store).await?.into_iter().map(|family| (family, None));
    let mut found = OpenCreators { families: pending.collect(), unreadable_reruns: Vec::new() };
    let mut filter = RunFilter { limit: PAGE, ..RunFilter::open_real_runs() };
    'pages: loop {
        let page = store.runs(filter.clone()).await?;
        for run in page.iter().filter(|run| may_create_one(run)) {
            if families.iter().all(|family| found.families.contains_key(family)) {
                break 'pages;
            }
            match created_by(store, run.run_id).await {
                Some((created, _)) => found.families.extend(created.map(|family| (family, None))),
                // Its events cannot be read: it counts as a run that may create an instance of its route.
                None => match &run.route {
                    Some(id) => {
                        for id in [id].into_iter().chain(oldest_ids.get(id)) {
                            found.families.entry(id.clone()).or_insert(Some(run.run_id));
                        }
                    }
                    None => found.unreadable_reruns.push(run.run_id),
                },
            }
        }
        match page.last() {
            Some(last) if page.len() == PAGE => filter.before = Some(last.run_id),
            _ => break,
        }
    }
    found.families.retain(|family, _| families.contains(family));
    Ok(found)
}

/// Whether a run belongs to another run's job and no other run began it.
fn is_rerun(run: &RunSummary) -> bool {
    run.route.is_none() && run.parent.is_none() && run.job.is_some_and(|job| job.0 != run.run_id.0)
}

async fn of_pending_reruns(store: &dyn Store) -> Result<BTreeSet<RouteId>, StoreError> {
    let mut families = BTreeSet::new();
    for row in store.pending_runs(PENDING_RUNS_MAX).await? {
        // The row of a child run looks the same, but a child run creates no instance.
        let Some(parent) = row.parent else { continue };
        if let Some((created, Some(successor))) = created_by(store, parent).await {
            families.extend(created.filter(|_| successor == row.run));
        }
    }
    Ok(families)
}

/// The family whose instance a real run may create, and the run that supersedes it; `None` if its events cannot be
/// read.
async fn created_by(store: &dyn Store, run: RunId) -> Option<(Option<RouteId>, Option<RunId>)> {
    let events = match store.events(run, Seq::FIRST).await {
        Ok(events) => events,
        Err(error) => {
            // One damaged rerun must not keep the files out of force, nor the process from starting.
            tracing::error!(
                %run, %error,
                "what this run may create cannot be read: it is treated as if it may still create an instance of its route"
            );
            return None;
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
        Some(Event::Ending(EndingEvent::Superseded(superseded))) => Some(superseded.successor),
        _ => None,
    };
    Some((created, successor))
}
