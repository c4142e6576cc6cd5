//! Replays recorded runs with other flag files than those under which they ran.
//!
//! Always true: nothing is sent or written. Random values (`uuid`, `random`) derive from the store's secret: if the
//! secret is unknown, they differ from the run's, and the command line says so.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;

use crate::admin::replay::{DivergenceRow, divergences, run_from_events, workflow_and_plan};
use crate::admin::types::EventRow;
use crate::config::{self, CheckFailed, Overrides, Setup};
use crate::limits::Limits;
use crate::names::{PlanId, ServiceName, StepId, WorkflowName};
use crate::workflow::address::{self, CallChange};
use crate::workflow::{DecisionInputs, Plan, missing};

/// Checked flag files with which recorded runs are replayed.
pub struct ReplayFiles {
    plans: BTreeMap<WorkflowName, Arc<Plan>>,
    decision_inputs: DecisionInputs,
    /// The services, and whether each honours `Idempotency-Key`.
    keyed: BTreeMap<ServiceName, bool>,
    limits: Arc<Limits>,
    has_store_secret: bool,
}

/// The stored plan of a run, loaded as the engine loads it.
pub struct StoredPlan(Plan);

/// A call whose outcome is unknown, to a service that has another URL in the files.
#[derive(Debug, Serialize)]
pub struct MovedCall {
    /// The step.
    pub step: StepId,
    /// The item of a `for_each`.
    pub item: Option<u32>,
    /// The service.
    pub service: ServiceName,
    /// The URL that the call went to, without its query.
    pub from: String,
    /// The service's URL in the files.
    pub to: String,
}

impl fmt::Display for MovedCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { step, item, service, from, to } = self;
        let item = item.map_or_else(String::new, |item| format!(", item {item}"));
        write!(
            f,
            "`{step}`{item}: the outcome of its call to {from} is not known, and these files have `{service}` at {to}"
        )
    }
}

/// The result of replaying one run.
pub enum ReplayResult {
    /// The files hold the plan that the run was started with, so nothing can differ.
    SamePlan,
    /// The files hold another plan of the same workflow; lists the decisions that it would have made differently.
    Diverges(Vec<DivergenceRow>),
    /// The files have no workflow of this name.
    WorkflowMissing(WorkflowName),
}

impl ReplayFiles {
    /// Reads a directory. The workflow in the file `instead`, if given, replaces the directory's workflow of that name.
    /// `secret` is the store's secret, if known.
    ///
    /// # Errors
    /// Everything that is wrong with the files.
    pub fn read(dir: &Path, instead: Option<&Path>, secret: Option<[u8; 32]>) -> Result<Self, CheckFailed> {
        let overrides = Overrides { secrets_may_be_absent: true, ..Overrides::default() };
        let loaded = match instead {
            Some(file) => config::read_with_workflow(dir, file, &overrides)?,
            None => config::read(dir, &overrides)?,
        };
        Ok(Self::of(loaded.setup, secret))
    }
    fn of(setup: Setup, secret: Option<[u8; 32]>) -> Self {
        let base_url = |url: &crate::flag::BaseUrl| url.uri.to_string().trim_end_matches('/').to_owned();
        let base_urls =
            setup.services.iter().map(|(name, service)| (name, service.urls.first().map_or(String::new(), base_url)));
        let size = |limit: u64| usize::try_from(limit).unwrap_or(usize::MAX);
        let limits = &setup.limits;
        let decision_inputs = DecisionInputs::new(
            base_urls,
            setup.settings.secrets.keys().map(String::as_str),
            secret.unwrap_or_default(),
            size(limits.items_max),
            size(limits.run_calls_max),
        )
        .with_depth(size(limits.output_depth_max))
        .with_timeout(Limits::ms(limits.step_timeout_ms))
        .with_signals(size(limits.signals_max))
        .with_workflows(setup.workflows.keys().cloned());
        let keyed = setup.services.iter().map(|(name, service)| (name.clone(), service.keyed)).collect();
        let limits = setup.limits.clone();
        Self { plans: setup.workflows, decision_inputs, keyed, limits, has_store_secret: secret.is_some() }
    }
    /// The limits of the files.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }
    /// Sets the store's secret.
    pub fn with_secret(mut self, secret: Option<[u8; 32]>) -> Self {
        self.decision_inputs.key_secret = secret.unwrap_or_default();
        self.has_store_secret = secret.is_some();
        self
    }
    /// Whether the store's secret is known, so that random values are those of the run.
    pub fn has_store_secret(&self) -> bool {
        self.has_store_secret
    }
    /// Whether the files hold the plan that a run was started with: nothing can differ then.
    pub fn has_plan(&self, workflow: &WorkflowName, plan: &PlanId) -> bool {
        self.plans.get(workflow).is_some_and(|held| held.id == *plan)
    }
    /// Loads the stored plan of a run as the engine loads it.
    ///
    /// # Errors
    /// This version cannot read the plan.
    pub fn stored_plan(&self, source: &serde_json::Value) -> Result<StoredPlan, String> {
        Plan::from_stored(source, &self.keyed, &self.limits).map(StoredPlan).map_err(|problems| {
            let first = problems.iter().next().map_or_else(String::new, |problem| problem.message.clone());
            format!("its plan cannot be read by this version: {first}")
        })
    }
    /// What the plan of a run may still need but the files do not have, one sentence for each.
    ///
    /// # Errors
    /// The run's events cannot be read.
    pub fn missing(&self, events: &[EventRow], plan: &StoredPlan) -> Result<Vec<String>, String> {
        let run = run_from_events(events)?;
        let missing = missing::all(&plan.0, Some(&run), &self.decision_inputs).into_iter();
        Ok(missing.map(|(step, missing)| format!("`{step}` needs {missing}")).collect())
    }
    /// The calls of a run that have an unknown outcome and went to services with other URLs in the files.
    ///
    /// # Errors
    /// The run's events cannot be read.
    pub fn moved(&self, events: &[EventRow], plan: &StoredPlan) -> Result<Vec<MovedCall>, String> {
        let run = run_from_events(events)?;
        let moved = address::moved_calls(&run, &plan.0, &self.decision_inputs).into_iter();
        let row = |((step, item), change)| match change {
            CallChange::Address { service, from, to } => Some(MovedCall { step, item, service, from, to }),
            // The values of secrets are not hashed here.
            CallChange::Secret { .. } => None,
        };
        Ok(moved.filter_map(row).collect())
    }
    /// Replays one run with the plan of the files.
    ///
    /// # Errors
    /// The run's events cannot be read.
    pub fn replay(&self, events: &[EventRow]) -> Result<ReplayResult, String> {
        let (workflow, plan) = workflow_and_plan(events)?;
        if self.has_plan(&workflow, &plan) {
            return Ok(ReplayResult::SamePlan);
        }
        match self.plans.get(&workflow) {
            Some(plan) => divergences(events, plan, &self.decision_inputs).map(ReplayResult::Diverges),
            None => Ok(ReplayResult::WorkflowMissing(workflow)),
        }
    }
}
