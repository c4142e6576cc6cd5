//! What the API is made of: given by whoever puts the process together.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use serde_json::Value;

use super::types::{ServiceRow, ShadowLoad, StuckRun};
use crate::config::Token;
use crate::engine::{Engine, Explanation, NotDone, NotStarted, Start, Started};
use crate::evidence::Evidence;
use crate::flag::{FlagSet, Freeze};
use crate::ladder::{Ask, FlipError, Flipped, Ladder, RouteStatus};
use crate::limits::Limits;
use crate::names::{PlanId, RouteId, RunId, Seq, StepId, WorkflowName};
use crate::store::{FlipRecord, SharedStore, StoreError};
use crate::workflow::{Order, RunSummary};
use tokio_util::sync::CancellationToken;

/// All that the API shows and moves.
#[derive(Clone)]
pub struct AdminParts {
    /// Moves routes.
    pub ladder: Arc<dyn Moves>,
    /// What comparisons add up to.
    pub evidence: Arc<Evidence>,
    /// Starts runs and tells them what people say.
    pub desk: Arc<dyn Desk>,
    /// Runs, flips, samples.
    pub store: SharedStore,
    /// The exposition text of all metrics, brought up to now. Called by one scrape at a time.
    pub render: Arc<dyn Fn() -> String + Send + Sync>,
    /// Who may come in; none is only possible on loopback.
    pub tokens: Vec<Token>,
    /// Where this listener is bound.
    pub bound: SocketAddr,
    /// Whether the older entrance for starts is there.
    pub maestro: bool,
    /// The names of the workflows in force.
    pub workflows: Arc<dyn Fn() -> Vec<WorkflowName> + Send + Sync>,
    /// The listener goes away: streams end, and waits.
    pub ending: CancellationToken,
    /// Where the proxy listens.
    pub proxy: SocketAddr,
    /// Since when the process runs.
    pub started: Timestamp,
    /// The bounds in force.
    pub limits: Arc<Limits>,
    /// What the process says of itself now.
    pub vitals: Arc<dyn Fn() -> Vitals + Send + Sync>,
    /// What the proxy has seen of a route.
    pub traffic: Arc<dyn Fn(&RouteId) -> Traffic + Send + Sync>,
    /// Where the services stand that steps call, by name.
    pub services: Arc<dyn Fn() -> Vec<ServiceRow> + Send + Sync>,
}

/// What the process says of itself at one moment.
#[derive(Clone, Debug, Default)]
pub struct Vitals {
    /// Since the files in force were loaded.
    pub flags_age: Duration,
    /// Why the files as they are now were refused.
    pub flags_error: Option<String>,
    /// What `check` warns of in the files in force.
    pub warnings: Vec<String>,
    /// Whether the engine and its store take new runs.
    pub engine_healthy: bool,
    /// Why not, where the store says so.
    pub store_trouble: Option<String>,
    /// How the machine's clock differs from the process's time, where that is by more than a minute.
    pub clock_trouble: Option<String>,
    /// Runs that a task moves now; one that waits has none.
    pub runs_in_flight: u64,
    /// Runs that nothing would ever move: a few of them.
    pub stuck: Vec<StuckRun>,
    /// How busy the shadow executor is.
    pub shadow: ShadowLoad,
    /// Why traffic should not be sent here, where it should not (starting, draining).
    pub not_ready: Option<String>,
}

/// What the proxy has seen of a route since the process started.
#[derive(Clone, Copy, Debug, Default)]
pub struct Traffic {
    /// Requests answered.
    pub requests: u64,
    /// What the proxy added to a request in the middle, microseconds.
    pub overhead_p50_us: Option<f64>,
}

/// What the API needs of the ladder.
pub trait Moves: Send + Sync {
    /// The set in force.
    fn flags(&self) -> Arc<FlagSet>;
    /// Moves a route.
    fn flip(&self, route: RouteId, ask: Ask) -> BoxFuture<'_, Result<Flipped, FlipError>>;
    /// Sets the kill switch.
    fn freeze(&self, to: Freeze, reason: Option<String>, by: String) -> BoxFuture<'_, Result<FlipRecord, StoreError>>;
    /// Where every route stands and what the next rung takes, in file order.
    fn status(&self) -> Vec<RouteStatus>;
    /// What a person should know before the engine stops answering a route.
    fn horizon(&self, route: RouteId) -> BoxFuture<'_, Result<Vec<String>, FlipError>>;
}

/// What the API needs of the engine.
pub trait Desk: Send + Sync {
    /// As [`Engine::start`].
    fn start(&self, start: Start) -> BoxFuture<'_, Result<Started, NotStarted>>;
    /// As [`Engine::start_watched`].
    fn start_watched(
        &self,
        start: Start,
        within: Duration,
    ) -> BoxFuture<'_, Result<(Started, BoxFuture<'_, ()>), NotStarted>> {
        async move {
            let started = self.start(start).await?;
            let run = started.run;
            Ok((started, self.rest(run, within).map(drop).boxed()))
        }
        .boxed()
    }
    /// As [`Engine::plan_source`].
    fn plan_source(&self, _: &PlanId) -> Option<Arc<Value>> {
        None
    }
    /// As [`Engine::rerun`].
    fn rerun(&self, of: RunId, from: StepId, by: String) -> BoxFuture<'_, Result<Started, NotStarted>>;
    /// As [`Engine::order`].
    fn order(&self, run: RunId, order: Order, by: String) -> BoxFuture<'_, Result<RunSummary, NotDone>>;
    /// As [`Engine::rest`].
    fn rest(&self, run: RunId, within: Duration) -> BoxFuture<'_, Option<RunSummary>>;
    /// As [`Engine::beyond`].
    fn beyond(&self, run: RunId, seq: Seq, within: Duration) -> BoxFuture<'_, Option<Seq>>;
    /// As [`Engine::explain`].
    fn explain(&self, run: RunId) -> BoxFuture<'_, Result<Explanation, NotDone>>;
}

impl Desk for Engine {
    fn start(&self, start: Start) -> BoxFuture<'_, Result<Started, NotStarted>> {
        Engine::start(self, start).boxed()
    }
    fn start_watched(
        &self,
        start: Start,
        within: Duration,
    ) -> BoxFuture<'_, Result<(Started, BoxFuture<'_, ()>), NotStarted>> {
        Engine::start_watched(self, start, within).boxed()
    }
    fn plan_source(&self, id: &PlanId) -> Option<Arc<Value>> {
        Engine::plan_source(self, id)
    }
    fn rerun(&self, of: RunId, from: StepId, by: String) -> BoxFuture<'_, Result<Started, NotStarted>> {
        Engine::rerun(self, of, from, by).boxed()
    }
    fn order(&self, run: RunId, order: Order, by: String) -> BoxFuture<'_, Result<RunSummary, NotDone>> {
        Engine::order(self, run, order, by).boxed()
    }
    fn rest(&self, run: RunId, within: Duration) -> BoxFuture<'_, Option<RunSummary>> {
        Engine::rest(self, run, within).boxed()
    }
    fn beyond(&self, run: RunId, seq: Seq, within: Duration) -> BoxFuture<'_, Option<Seq>> {
        Engine::beyond(self, run, seq, within).boxed()
    }
    fn explain(&self, run: RunId) -> BoxFuture<'_, Result<Explanation, NotDone>> {
        Engine::explain(self, run).boxed()
    }
}

impl Moves for Ladder {
    fn flags(&self) -> Arc<FlagSet> {
        Ladder::flags(self).load_full()
    }
    fn flip(&self, route: RouteId, ask: Ask) -> BoxFuture<'_, Result<Flipped, FlipError>> {
        async move { Ladder::flip(self, &route, ask).await }.boxed()
    }
    fn freeze(&self, to: Freeze, reason: Option<String>, by: String) -> BoxFuture<'_, Result<FlipRecord, StoreError>> {
        Ladder::freeze(self, to, reason, by).boxed()
    }
    fn status(&self) -> Vec<RouteStatus> {
        Ladder::status(self)
    }
    fn horizon(&self, route: RouteId) -> BoxFuture<'_, Result<Vec<String>, FlipError>> {
        async move { Ladder::horizon(self, &route).await }.boxed()
    }
}
