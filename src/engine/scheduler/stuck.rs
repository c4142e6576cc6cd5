//! Stuck runs: they have no next wake-up cause, cannot be loaded by this process, or have events that contradict each
//! other. The first and the last are bugs; a run may be unloadable for another reason (a wrong `store_key`, a damaged
//! store). Each is logged, counted and listed.
//!
//! Always true: every stuck run is listed exactly once, until it goes on. Runs that are added one after the other for
//! the same reason share the reason's text, so that many runs of one unreadable plan take little more memory than their
//! ids. On a shared store another process may execute a run that is stuck here: then it has more events than when it
//! got stuck, or has ended. The first [`LOGGED_MAX`] stuck runs are logged; the gauge counts all.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use metrics::gauge;

use crate::names::{RunId, Seq, WorkflowName};

/// How many runs that are stuck at the same time are logged one by one.
const LOGGED_MAX: usize = 1_000;
/// How many runs [`StuckRuns::page`] returns.
const PAGE: usize = if cfg!(test) { 2 } else { 500 };

/// The stuck runs, each with its reason.
#[derive(Default)]
pub(in crate::engine) struct StuckRuns(Mutex<ListedRuns>);

#[derive(Default)]
struct ListedRuns {
    runs: BTreeMap<RunId, StuckRunEntry>,
    /// The reason of the run that was added last, because the next run often has the same one.
    last_reason: Option<Arc<str>>,
}

struct StuckRunEntry {
    workflow: WorkflowName,
    /// The sequence number of its last event when it got stuck.
    seq: Seq,
    why: Arc<str>,
    /// Whether its events contradict each other: then it can be loaded, but does not go on.
    contradicts: bool,
}

impl StuckRuns {
    fn state(&self) -> MutexGuard<'_, ListedRuns> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Adds a run whose last event has this sequence number.
    pub fn add(&self, run: RunId, workflow: &WorkflowName, seq: Seq, why: &str) {
        self.insert(run, workflow, seq, why, false);
    }
    /// Adds a run for which an event was decided that does not fit the events before it.
    pub fn add_contradicting(&self, run: RunId, workflow: &WorkflowName, seq: Seq, why: &str) {
        self.insert(run, workflow, seq, why, true);
    }
    fn insert(&self, run: RunId, workflow: &WorkflowName, seq: Seq, why: &str, contradicts: bool) {
        let mut state = self.state();
        let ListedRuns { runs, last_reason } = &mut *state;
        if runs.contains_key(&run) {
            return;
        }
        match runs.len() {
            0..LOGGED_MAX => tracing::error!(
                %run, %workflow, why,
                "the run is stuck: this process does not go on with it until the cause is mended (`pointsman runs show RUN` \
                 explains it, `pointsman runs cancel RUN --no-undo` ends it)"
            ),
            LOGGED_MAX => {
                tracing::error!("more runs are stuck: they are counted and listed, and not logged one by one")
            }
            _ => {}
        }
        let reason = last_reason.take().filter(|last| **last == *why).unwrap_or_else(|| why.into());
        *last_reason = Some(reason.clone());
        runs.insert(run, StuckRunEntry { workflow: workflow.clone(), seq, why: reason, contradicts });
        gauge(workflow).increment(1.0);
    }
    /// Removes a run that is not stuck any more.
    pub fn remove(&self, run: RunId) {
        if let Some(stuck) = self.state().runs.remove(&run) {
            gauge(&stuck.workflow).decrement(1.0);
        }
    }
    pub fn contains(&self, run: RunId) -> bool {
        self.state().runs.contains_key(&run)
    }
    /// Why a run is stuck; `None` where it is not.
    pub fn why(&self, run: RunId) -> Option<Arc<str>> {
        self.state().runs.get(&run).map(|stuck| stuck.why.clone())
    }
    /// Why a run is stuck whose events contradict each other.
    pub fn why_contradicting(&self, run: RunId) -> Option<Arc<str>> {
        self.state().runs.get(&run).filter(|stuck| stuck.contradicts).map(|stuck| stuck.why.clone())
    }
    /// The oldest stuck runs and why each is stuck.
    pub fn first(&self, limit: usize) -> Vec<(RunId, Arc<str>)> {
        self.state().runs.iter().take(limit).map(|(run, stuck)| (*run, stuck.why.clone())).collect()
    }
    /// How many runs are stuck for this reason.
    pub fn count_because(&self, why: &str) -> usize {
        self.state().runs.values().filter(|stuck| &*stuck.why == why).count()
    }
    pub fn count(&self) -> usize {
        self.state().runs.len()
    }
    /// The oldest stuck runs.
    pub fn ids(&self, limit: usize) -> Vec<RunId> {
        self.state().runs.keys().take(limit).copied().collect()
    }
    /// Whether a run whose last event is `seq` is listed as stuck, and has had no event since it was listed.
    pub fn is_stuck_at(&self, run: RunId, seq: Seq) -> bool {
        self.state().runs.get(&run).is_some_and(|stuck| stuck.seq >= seq)
    }
    /// The next stuck runs after this one, oldest first; empty after the last.
    pub fn page(&self, after: Option<RunId>) -> Vec<RunId> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.state().runs.range((from, Bound::Unbounded)).take(PAGE).map(|(run, _)| *run).collect()
    }
}

fn gauge(workflow: &WorkflowName) -> metrics::Gauge {
    gauge!("pointsman_runs_stuck", "workflow" => workflow.as_str().to_owned())
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn every_stuck_run_is_listed_once_and_visited_page_by_page() {
        let (stuck, count) = (StuckRuns::default(), LOGGED_MAX as u128 + 5);
        let run = |n: u128| RunId(Uuid::from_u128(n));
        for n in (1..=count).chain(1..=count) {
            stuck.add(run(n), &"w".into(), Seq(1), if n % 2 == 0 { "even" } else { "odd" });
        }
        assert_eq!(stuck.why(run(count)).as_deref(), Some(if count % 2 == 0 { "even" } else { "odd" }));
        assert_eq!((stuck.first(3).len(), stuck.why(run(count + 1))), (3, None));
        let (mut visited, mut after) = (Vec::new(), None);
        loop {
            let page = stuck.page(after);
            let Some(last) = page.last() else { break };
            after = Some(*last);
            // The run goes on, and the cursor stays valid.
            page.iter().for_each(|run| stuck.remove(*run));
            visited.extend(page);
        }
        assert_eq!(visited, (1..=count).map(run).collect::<Vec<_>>());
        assert!(stuck.first(1).is_empty());
    }

    #[test]
    fn runs_that_are_stuck_for_the_same_reason_share_its_text() {
        let stuck = StuckRuns::default();
        (1..=3).for_each(|n| stuck.add(RunId(Uuid::from_u128(n)), &"w".into(), Seq(1), "its plan"));
        let all = stuck.first(3);
        assert!(all.iter().all(|(_, why)| Arc::ptr_eq(why, &all[0].1)));
    }
}
