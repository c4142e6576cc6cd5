//! Finds the families of which an open run may still create an instance.
//!
//! Always true: what a run creates is in its first event. The family there is the oldest id that the run's route had
//! when the run began, so a listing by the route's id does not find it after a rename. A rerun has no route; between
//! the end of its predecessor and its own first event, only the outbox names it.

use std::collections::{BTreeMap, BTreeSet};

use super::{RunFilter, Store, StoreError};
use crate::names::{RouteId, RunId, Seq};
use crate::workflow::{AnswerEvent, Creates, EndingEvent, Event, RunSummary};

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
    let pending = of_pending_reruns(store).await?.into_keys().map(|family| (family, None));
    let mut found = OpenCreators { families: pending.collect(), unreadable_reruns: Vec::new() };
    let mut pages = Pages::new(store, families, oldest_ids);
    'pages: while let Some(page) = pages.next().await? {
        for run in page {
            if families.iter().all(|family| found.families.contains_key(family)) {
                break 'pages;
            }
            match created_by(store, run.run_id).await {
                Some(CreatingRun { family, .. }) => found.families.extend(family.map(|family| (family, None))),
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
    }
    found.families.retain(|family, _| families.contains(family));
    Ok(found)
}

/// How many open real runs, and reruns that are to begin, may still create an instance of each of these families; those
/// without any are left out. A run whose answer is fixed does not count, because what it created is pinned. One whose
/// events cannot be read counts for its route. `oldest_ids` as for [`families_of_open_runs`]. May take long where many
/// runs are open.
///
/// # Errors
/// The store does not answer.
pub async fn count_open_creators(
    store: &dyn Store,
    families: &BTreeSet<RouteId>,
    oldest_ids: &BTreeMap<RouteId, RouteId>,
) -> Result<BTreeMap<RouteId, u64>, StoreError> {
    let mut found = of_pending_reruns(store).await?;
    let mut pages = Pages::new(store, families, oldest_ids);
    while let Some(page) = pages.next().await? {
        for run in page {
            let family = match created_by(store, run.run_id).await {
                Some(CreatingRun { family, has_answered, .. }) => family.filter(|_| !has_answered),
                None => run.route.map(|id| oldest_ids.get(&id).cloned().unwrap_or(id)),
            };
            family.into_iter().for_each(|family| *found.entry(family).or_default() += 1);
        }
    }
    found.retain(|family, _| families.contains(family));
    Ok(found)
}

/// The open real runs that may create an instance of one of these families, in pages.
struct Pages<'a> {
    store: &'a dyn Store,
    families: &'a BTreeSet<RouteId>,
    oldest_ids: &'a BTreeMap<RouteId, RouteId>,
    /// The next page; `None` after the last one.
    next: Option<RunFilter>,
}

impl<'a> Pages<'a> {
    fn new(store: &'a dyn Store, families: &'a BTreeSet<RouteId>, oldest_ids: &'a BTreeMap<RouteId, RouteId>) -> Self {
        let next = Some(RunFilter { limit: PAGE, ..RunFilter::open_real_runs() });
        Self { store, families, oldest_ids, next }
    }

    async fn next(&mut self) -> Result<Option<Vec<RunSummary>>, StoreError> {
        let Some(filter) = self.next.take() else { return Ok(None) };
        let page = self.store.runs(filter.clone()).await?;
        if let Some(last) = page.last().filter(|_| page.len() == PAGE) {
            self.next = Some(RunFilter { before: Some(last.run_id), ..filter });
        }
        let may_create_one = |run: &RunSummary| match &run.route {
            Some(route) => self.oldest_ids.get(route).is_none_or(|oldest| self.families.contains(oldest)),
            None => is_rerun(run),
        };
        Ok(Some(page.into_iter().filter(may_create_one).collect()))
    }
}

/// Whether a run belongs to another run's job and no other run began it.
fn is_rerun(run: &RunSummary) -> bool {
    run.route.is_none() && run.parent.is_none() && run.job.is_some_and(|job| job.0 != run.run_id.0)
}

/// How many reruns that are to begin may create an instance, by its family.
async fn of_pending_reruns(store: &dyn Store) -> Result<BTreeMap<RouteId, u64>, StoreError> {
    let mut families = BTreeMap::new();
    for row in store.pending_runs(PENDING_RUNS_MAX).await? {
        // The row of a child run looks the same, but a child run creates no instance.
        let Some(parent) = row.parent else { continue };
        if let Some(CreatingRun { family: Some(family), successor, .. }) = created_by(store, parent).await
            && successor == Some(row.run)
        {
            *families.entry(family).or_default() += 1;
        }
    }
    Ok(families)
}

/// What the events of a real run say of the instance that it may create.
struct CreatingRun {
    /// Its family.
    family: Option<RouteId>,
    /// Whether the caller's answer is fixed, and the instance with it.
    has_answered: bool,
    /// The run that supersedes this one.
    successor: Option<RunId>,
}

/// Reads what a run may create; `None` if its events cannot be read.
async fn created_by(store: &dyn Store, run: RunId) -> Option<CreatingRun> {
    let events = match store.events(run, Seq::FIRST).await {
        Ok(events) => events,
        Err(error) => {
            // One damaged rerun must not keep the files out of force, nor the process from starting.
            tracing::error!(%run, %error, "what this run may create cannot be read: it counts for its route, if it has one");
            return None;
        }
    };
    let family = match events.first().map(|stored| &stored.event) {
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
    let is_answer = |event: &Event| matches!(event, Event::Answer(AnswerEvent::Responded { .. }));
    let has_answered = events.iter().any(|stored| is_answer(&stored.event));
    Some(CreatingRun { family, has_answered, successor })
}
