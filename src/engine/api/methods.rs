//! The engine's methods for people and programs: start a run, send it a command, wait for it, inspect it.
//!
//! Always true: a command becomes an event or is refused with a reason, and the method returns only after the event is
//! durable.
//!
//! When the store does not answer, the error says that the outcome is unknown. A start that is repeated under the same
//! key is carried out once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::Value;

use crate::engine::Engine;
use crate::engine::api::explain;
use crate::engine::api::follow;
use crate::engine::api::follow::Subscription;
use crate::engine::api::rerun;
use crate::engine::api::start;
use crate::engine::api::types::{Explanation, Start, StartError, Started};
use crate::engine::scheduler::command_error::CommandError;
use crate::engine::scheduler::commands;
use crate::names::{PlanId, RunId, Seq, ServiceName, StepId};
use crate::store::StoredEvent;
use crate::workflow::{ControlCommand, RunSummary};

impl Engine {
    /// Starts a run. Its first event is on disk when this returns.
    ///
    /// # Errors
    /// Nothing was started, or it is unknown whether the run was started.
    pub async fn start(&self, start: Start) -> Result<Started, StartError> {
        start::start(&self.core, start, |_| {}).await
    }
    /// Starts a run. The returned future resolves when the run has ended or waits for a person or a signal, at the
    /// latest after `within`. It returns the run's events if all of them were collected in memory. This is cheaper than
    /// [`Engine::wait_until_ended_or_awaits_input`] after [`Engine::start`]: a run that this call created is followed
    /// without reading the store.
    ///
    /// # Errors
    /// As [`Engine::start`].
    pub async fn start_watched(
        &self,
        start: Start,
        within: Duration,
    ) -> Result<(Started, BoxFuture<'_, Option<Vec<StoredEvent>>>), StartError> {
        let mut subscription = None;
        let started =
            start::start(&self.core, start, |run| subscription = Some(Subscription::to_new(&self.core, run))).await?;
        let ended_or_awaits_input = match subscription.filter(|_| started.is_new) {
            Some(subscription) => follow::wait_until_new_run_ended_or_awaits_input(subscription, within).boxed(),
            None => follow::wait_until_ended_or_awaits_input(&self.core, started.run, within).map(|_| None).boxed(),
        };
        Ok((started, ended_or_awaits_input))
    }
    /// Sets the number of running processes that share the store, this one included: each has an equal share of the
    /// rates of services. To be called whenever that number may have changed, and after a reload.
    pub fn divide_rates_among(&self, processes: u32) {
        let snapshot = self.core.files.snapshot.load();
        snapshot.services.values().for_each(|service| service.divide_rate_among(processes));
    }
    /// The services whose breaker is open here because of its own calls, and whose next probe is not due yet.
    pub fn open_breakers(&self) -> BTreeSet<ServiceName> {
        let snapshot = self.core.files.snapshot.load();
        let open = snapshot.services.iter().filter(|(_, service)| service.is_open_by_own_calls());
        open.map(|(name, _)| name.clone()).collect()
    }
    /// In which other processes the breakers of services are open. To be called whenever that may have changed, and
    /// after a reload.
    pub fn set_open_breakers_elsewhere(&self, open: &BTreeMap<ServiceName, Vec<String>>) {
        let snapshot = self.core.files.snapshot.load();
        let in_processes = |name| open.get(name).map_or(&[][..], Vec::as_slice);
        snapshot.services.iter().for_each(|(name, service)| service.set_open_in(in_processes(name)));
    }
    /// The definition of a plan that is in force.
    pub fn plan_source(&self, id: &PlanId) -> Option<Arc<Value>> {
        let snapshot = self.core.files.snapshot.load();
        snapshot.plan(id).map(|plan| plan.source.clone())
    }
    /// Starts another run of the same job. It takes over the results of all steps that do not depend on the step
    /// `from`.
    ///
    /// # Errors
    /// Nothing was started, or it is unknown whether the run was started.
    pub async fn rerun(&self, of: RunId, from: StepId, by: String) -> Result<Started, StartError> {
        start::refuse_while_recovering(&self.core)?;
        rerun::rerun(&self.core, of, from, by).await
    }
    /// Sends a command to a run. Returns the run after the command, whose events are durable by then.
    ///
    /// # Errors
    /// The command was refused, or it is unknown whether it was carried out.
    pub async fn give_command(
        &self,
        run: RunId,
        command: ControlCommand,
        by: String,
    ) -> Result<RunSummary, CommandError> {
        commands::give_command(&self.core, run, command, by).await
    }
    /// Waits until the run has ended or waits for a person or a signal, at most `within`. Returns the run as it is
    /// then; `None` where there is no such run.
    pub async fn wait_until_ended_or_awaits_input(&self, run: RunId, within: Duration) -> Option<RunSummary> {
        follow::wait_until_ended_or_awaits_input(&self.core, run, within).await
    }
    /// Waits until events after `seq` are durable, at most `within`. Returns the sequence number of the last durable
    /// event.
    pub async fn wait_for_events_after(&self, run: RunId, seq: Seq, within: Duration) -> Option<Seq> {
        follow::wait_for_events_after(&self.core, run, seq, within).await
    }
    /// What an unfinished run waits for.
    ///
    /// # Errors
    /// There is no such run, or the store does not answer.
    pub async fn explain(&self, run: RunId) -> Result<Explanation, CommandError> {
        explain::explain(&self.core, run).await
    }
}
