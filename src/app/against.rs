//! Runs held against flag files that did not make them.
//!
//! Always true: it only looks. Random values (`uuid`, `random`) come from the store's secret: without it
//! they are others, and a workflow that draws is told so.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::admin::replay::{DivergenceRow, divergences, folded, workflow_and_plan};
use crate::admin::types::EventRow;
use crate::config::{self, CheckFailed, Overrides, Setup};
use crate::limits::Limits;
use crate::names::{PlanId, ServiceName, WorkflowName};
use crate::workflow::{Plan, World, missing};

/// Checked files, to hold runs against.
pub struct Against {
    plans: BTreeMap<WorkflowName, Arc<Plan>>,
    world: World,
    /// The services, and whether each honours `Idempotency-Key`.
    keyed: BTreeMap<ServiceName, bool>,
    limits: Arc<Limits>,
    knows_lots: bool,
}

/// A plan that runs keep, as they load it.
pub struct KeptPlan(Plan);

/// What came of one run.
pub enum Compared {
    /// The files hold the very plan that the run keeps.
    SamePlan,
    /// Another plan of the same workflow: where it would have decided differently.
    Diverges(Vec<DivergenceRow>),
    /// The files have no such workflow any more.
    Gone(WorkflowName),
}

impl Against {
    /// Reads a directory, as if one of its workflows stood in another file where one is given. `secret` is the store's,
    /// where it is known.
    ///
    /// # Errors
    /// All that is wrong with the files.
    pub fn read(dir: &Path, instead: Option<&Path>, secret: Option<[u8; 32]>) -> Result<Self, CheckFailed> {
        let over = Overrides { secrets_may_be_absent: true, ..Overrides::default() };
        let loaded = match instead {
            Some(file) => config::read_with(dir, file, &over)?,
            None => config::read(dir, &over)?,
        };
        Ok(Self::of(loaded.setup, secret))
    }
    fn of(setup: Setup, secret: Option<[u8; 32]>) -> Self {
        let base = |uri: &http::Uri| uri.to_string().trim_end_matches('/').to_owned();
        let bases =
            setup.services.iter().map(|(name, service)| (name, service.urls.first().map_or(String::new(), base)));
        let size = |limit: u64| usize::try_from(limit).unwrap_or(usize::MAX);
        let limits = &setup.limits;
        let world = World::new(
            bases,
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
        Self { plans: setup.workflows, world, keyed, limits, knows_lots: secret.is_some() }
    }
    /// The limits of the files.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }
    /// The same, with the store's secret.
    pub fn with_secret(mut self, secret: Option<[u8; 32]>) -> Self {
        self.world.key_secret = secret.unwrap_or_default();
        self.knows_lots = secret.is_some();
        self
    }
    /// Whether random values are those of the run.
    pub fn knows_lots(&self) -> bool {
        self.knows_lots
    }
    /// Whether the files hold the plan that a run keeps: nothing can differ then.
    pub fn holds(&self, workflow: &WorkflowName, plan: &PlanId) -> bool {
        self.plans.get(workflow).is_some_and(|held| held.id == *plan)
    }
    /// The plan that runs keep, loaded as they load it.
    ///
    /// # Errors
    /// This version cannot read it.
    pub fn kept(&self, source: &serde_json::Value) -> Result<KeptPlan, String> {
        Plan::kept(source, &self.keyed, &self.limits).map(KeptPlan).map_err(|problems| {
            let first = problems.iter().next().map_or_else(String::new, |problem| problem.message.clone());
            format!("its plan cannot be read by this version: {first}")
        })
    }
    /// What a run's kept plan may still need and the files do not have, a sentence each.
    ///
    /// # Errors
    /// Its events cannot be read.
    pub fn misses(&self, events: &[EventRow], kept: &KeptPlan) -> Result<Vec<String>, String> {
        let run = folded(events)?;
        let missing = missing::all(&kept.0, Some(&run), &self.world).into_iter();
        Ok(missing.map(|(step, missing)| format!("`{step}` needs {missing}")).collect())
    }
    /// Holds one run against the files.
    ///
    /// # Errors
    /// Its events cannot be read.
    pub fn run(&self, events: &[EventRow]) -> Result<Compared, String> {
        let (workflow, plan) = workflow_and_plan(events)?;
        if self.holds(&workflow, &plan) {
            return Ok(Compared::SamePlan);
        }
        match self.plans.get(&workflow) {
            Some(plan) => divergences(events, plan, &self.world).map(Compared::Diverges),
            None => Ok(Compared::Gone(workflow)),
        }
    }
}
