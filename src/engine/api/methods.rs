//! Where people and programs ask: start a run, say something to one, look at one.
//!
//! Always true: what is said to a run becomes an event or is refused with a reason, and an answer is given only after
//! that is on disk. Whether a run moves in this process, in another one or in none makes no difference to who asks.
//!
//! When the store does not answer, nothing is known and that is said; asked again under the same id it is done once.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::Value;

use crate::engine::Engine;
use crate::engine::api::explain;
use crate::engine::api::follow;
use crate::engine::api::follow::Watch;
use crate::engine::api::orders;
use crate::engine::api::rerun;
use crate::engine::api::start;
use crate::engine::api::types::{Explanation, OrderError, Start, StartError, Started};
use crate::names::{PlanId, RunId, Seq, StepId};
use crate::store::StoredEvent;
use crate::workflow::{Order, RunSummary};

impl Engine {
    /// Starts a run. Its first event is on disk when this returns.
    ///
    /// # Errors
    /// Nothing was started, or nobody knows.
    pub async fn start(&self, start: Start) -> Result<Started, StartError> {
        start::start(&self.core, start, |_| {}).await
    }
    /// Starts a run; and what waits until it has ended or waits for a person or a signal, at most so long, and gives its
    /// events where all of them were collected here. Cheaper than [`Engine::rest`] after [`Engine::start`]: the store is
    /// not asked where nothing can have been missed.
    ///
    /// # Errors
    /// As [`Engine::start`].
    pub async fn start_watched(
        &self,
        start: Start,
        within: Duration,
    ) -> Result<(Started, BoxFuture<'_, Option<Vec<StoredEvent>>>), StartError> {
        let mut watch = None;
        let started = start::start(&self.core, start, |run| watch = Some(Watch::of_new(&self.core, run))).await?;
        let rest = match watch.filter(|_| started.fresh) {
            Some(watch) => follow::new_run_rest(watch, within).boxed(),
            None => follow::rest(&self.core, started.run, within).map(|_| None).boxed(),
        };
        Ok((started, rest))
    }
    /// The source of a plan of the files in force.
    pub fn plan_source(&self, id: &PlanId) -> Option<Arc<Value>> {
        let snapshot = self.core.files.snapshot.load();
        snapshot.plans.values().find(|plan| plan.id == *id).map(|plan| plan.source.clone())
    }
    /// Starts another run of the same job that takes over the results of all that does not depend on a step.
    ///
    /// # Errors
    /// Nothing was started, or nobody knows.
    pub async fn rerun(&self, of: RunId, from: StepId, by: String) -> Result<Started, StartError> {
        rerun::rerun(&self.core, of, from, by).await
    }
    /// Says something to a run. What came of it is on disk when this returns: the run after it.
    ///
    /// # Errors
    /// It was refused, or nobody knows.
    pub async fn order(&self, run: RunId, order: Order, by: String) -> Result<RunSummary, OrderError> {
        orders::order(&self.core, run, order, by).await
    }
    /// Waits until the run has ended or waits for a person or a signal, at most so long. The run then; `None` where
    /// there is none.
    pub async fn rest(&self, run: RunId, within: Duration) -> Option<RunSummary> {
        follow::rest(&self.core, run, within).await
    }
    /// Waits until the run has events beyond a place, at most so long. The last place that is on disk then.
    pub async fn beyond(&self, run: RunId, seq: Seq, within: Duration) -> Option<Seq> {
        follow::beyond(&self.core, run, seq, within).await
    }
    /// What an unfinished run waits for.
    ///
    /// # Errors
    /// As [`Engine::order`].
    pub async fn explain(&self, run: RunId) -> Result<Explanation, OrderError> {
        explain::explain(&self.core, run).await
    }
}
