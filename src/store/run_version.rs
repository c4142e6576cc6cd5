//! With which version of a workflow a run began.

use super::{Store, StoreError};
use crate::names::{PlanSet, RunId, Seq};
use crate::workflow::Event;

/// Whether a run began with these plans. `None` if the store does not have the run, or not what tells: versions that
/// differ only in a workflow that is run have the same plan at the top, and the first event says more only until it is
/// purged.
///
/// # Errors
/// The store does not answer.
pub async fn run_began_with(store: &dyn Store, run: RunId, plans: &PlanSet) -> Result<Option<bool>, StoreError> {
    let Some(summary) = store.run(run).await? else { return Ok(None) };
    if plans.plan() != Some(&summary.plan_id) {
        return Ok(Some(false));
    }
    if plans.plans.len() < 2 {
        return Ok(Some(true));
    }
    let events = store.events(run, Seq(1)).await?;
    Ok(match events.first().map(|stored| &stored.event) {
        Some(Event::RunStarted(started)) => Some(started.child_plans.as_deref() == Some(&plans.plans)),
        Some(_) | None => None,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::tests::{append, at, run_started};
    use crate::store::{Append, MemoryStore};
    use crate::workflow::fold;

    fn version(top: &str, child: Option<&str>) -> PlanSet {
        let child = child.map(|child| ("child".into(), child.into()));
        PlanSet { workflow: "work".into(), plans: [("work".into(), top.into())].into_iter().chain(child).collect() }
    }

    /// The store with a run that began with this version.
    async fn store_with(run: RunId, set: &PlanSet) -> MemoryStore {
        let store = MemoryStore::new();
        let Event::RunStarted(mut started) = run_started(run, at(0)) else { unreachable!() };
        let facts = Arc::make_mut(&mut started);
        facts.plan = set.plan().unwrap().clone();
        facts.child_plans = (set.plans.len() > 1).then(|| Arc::new(set.plans.clone()));
        let event = Event::RunStarted(started);
        let summary = fold([&event]).unwrap().summary(at(0));
        store.append(Arc::new(Append { events: vec![(at(0), event)], summary, ..append(run, 1, 1) })).await.unwrap();
        store
    }

    #[tokio::test]
    async fn a_run_is_of_the_version_whose_plans_it_began_with_those_of_child_workflows_included() {
        let run = RunId(uuid::Uuid::now_v7());
        for (began, others) in [
            (version("one", None), [version("two", None), version("two", Some("c1"))]),
            (version("one", Some("c1")), [version("one", Some("c2")), version("two", Some("c1"))]),
        ] {
            let store = store_with(run, &began).await;
            assert_eq!(run_began_with(&store, run, &began).await.unwrap(), Some(true), "{began:?}");
            for other in others {
                assert_eq!(run_began_with(&store, run, &other).await.unwrap(), Some(false), "{began:?} {other:?}");
            }
            let unknown = RunId(uuid::Uuid::now_v7());
            assert_eq!(run_began_with(&store, unknown, &began).await.unwrap(), None);
        }
    }
}
