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

use super::follow::Watch;
use super::{Engine, begin, explain, follow, orders, rerun};
use crate::flag::RetryKey;
use crate::names::{JobId, PlanId, RunId, Seq, StepId, WorkflowName};
use crate::workflow::{Order, Refusal, RunSummary};

/// What is started.
#[derive(Clone, Debug)]
pub struct Start {
    /// Which workflow.
    pub workflow: WorkflowName,
    /// The body of its request.
    pub input: Value,
    /// Who starts it.
    pub by: String,
    /// Names the start, with a hash of what is started: a second one under the same key gets the same run.
    pub key: Option<(RetryKey, [u8; 32])>,
}

/// A run that was started, now or before under the same key.
#[derive(Clone, Debug, PartialEq)]
pub struct Started {
    /// The run.
    pub run: RunId,
    /// Its job.
    pub job: JobId,
    /// Its plan.
    pub plan: PlanId,
    /// It was started by this asking.
    pub fresh: bool,
}

/// Why nothing was started.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum NotStarted {
    /// There is no such workflow.
    #[error("there is no workflow `{workflow}`")]
    NoWorkflow {
        /// What was asked for.
        workflow: String,
        /// What there is.
        known: Vec<String>,
    },
    /// The schema refuses the body: JSON pointers and what is wrong there.
    #[error("the workflow does not take this input: {}", .0.join("; "))]
    BadInput(Vec<String>),
    /// The key belongs to a start with another body.
    #[error("the idempotency key belongs to {0}, which was started with another body")]
    KeyOfOther(RunId),
    /// Not now: as many runs as may be, or the process ends. Nothing was done.
    #[error("{0}")]
    NotNow(String),
    /// The run of which a rerun was asked makes no sense of it.
    #[error("{0}")]
    NoSense(String),
    /// The run of which a rerun was asked has no such step.
    #[error("the plan has no such step")]
    NoStep,
    /// There is no such run.
    #[error("there is no such run")]
    NoRun,
    /// The store refused it for sure, or did not answer: `unknown` is then true.
    #[error("{why}")]
    Store {
        /// What happened.
        why: String,
        /// Whether it was started is unknown: ask again with the same key.
        unknown: bool,
    },
}

/// Why what was said to a run was not done.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum NotDone {
    /// There is no such run.
    #[error("there is no such run")]
    NoRun,
    /// The run refuses it where it stands.
    #[error("{refusal}")]
    Refused {
        /// The run.
        run: Box<RunSummary>,
        /// Why.
        refusal: Refusal,
    },
    /// It cannot be driven here: its plan or events cannot be read.
    #[error("{0}")]
    Unreadable(String),
    /// The store refused it for sure, or did not answer: `unknown` is then true.
    #[error("{why}")]
    Store {
        /// What happened.
        why: String,
        /// Whether it was done is unknown: look at the run.
        unknown: bool,
    },
}

/// What one waits for.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// The run.
    pub run: RunSummary,
    /// In a sentence: what it waits for, since when, and what would move it.
    pub sentence: String,
    /// Each cause of its next step, one line each.
    pub waits: Vec<String>,
    /// Nothing would ever move it: a bug.
    pub stuck: bool,
}

impl Engine {
    /// Starts a run. Its birth is on disk when this returns.
    ///
    /// # Errors
    /// Nothing was started, or nobody knows.
    pub async fn start(&self, start: Start) -> Result<Started, NotStarted> {
        begin::start(&self.core, start, |_| {}).await
    }
    /// Starts a run; and what waits until it has ended or waits for a person or a signal, at most so long. Cheaper than
    /// [`Engine::rest`] after [`Engine::start`]: the store is not asked where nothing can have been missed.
    ///
    /// # Errors
    /// As [`Engine::start`].
    pub async fn start_watched(
        &self,
        start: Start,
        within: Duration,
    ) -> Result<(Started, BoxFuture<'_, ()>), NotStarted> {
        let mut watch = None;
        let started = begin::start(&self.core, start, |run| watch = Some(Watch::of(&self.core, run))).await?;
        let rest = match watch.filter(|_| started.fresh) {
            Some(watch) => follow::newborn_rest(watch, within).boxed(),
            None => follow::rest(&self.core, started.run, within).boxed(),
        };
        Ok((started, rest.map(drop).boxed()))
    }
    /// The source of a plan of the files in force.
    pub fn plan_source(&self, id: &PlanId) -> Option<Arc<Value>> {
        let snapshot = self.core.snapshot.load();
        snapshot.plans.values().find(|plan| plan.id == *id).map(|plan| plan.source.clone())
    }
    /// Starts another run of the same job that takes over the results of all that does not depend on a step.
    ///
    /// # Errors
    /// Nothing was started, or nobody knows.
    pub async fn rerun(&self, of: RunId, from: StepId, by: String) -> Result<Started, NotStarted> {
        rerun::rerun(&self.core, of, from, by).await
    }
    /// Says something to a run. What came of it is on disk when this returns: the run after it.
    ///
    /// # Errors
    /// It was refused, or nobody knows.
    pub async fn order(&self, run: RunId, order: Order, by: String) -> Result<RunSummary, NotDone> {
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
    pub async fn explain(&self, run: RunId) -> Result<Explanation, NotDone> {
        explain::explain(&self.core, run).await
    }
}
