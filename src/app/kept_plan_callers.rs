//! Finds what may call a service by a plan that the files do not have any more: a plan in force of a route in `live` or
//! `only`, whose changed workflow is only a candidate, or the plan of a run that has not ended.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::service_callers::calls_of;
use crate::config::Setup;
use crate::names::{PlanId, PlanSet, RouteId, ServiceName, WorkflowName};
use crate::store::{StoreError, StoreHandle, child_plans_of, plans_of_open_runs};
use crate::workflow::{Plan, StepKind};

/// The most runs of which the plans of their child runs are looked up.
const CHILD_PLANS_MAX: usize = 1_000;

/// What may call a service by plans that are kept in the store, as sentences.
///
/// # Errors
/// The store does not answer.
pub(super) async fn may_call(
    store: &StoreHandle,
    setup: &Setup,
    in_force: &BTreeMap<RouteId, Arc<PlanSet>>,
    service: &ServiceName,
) -> Result<Vec<String>, StoreError> {
    let mut kept = KeptPlans { store, setup, service, known: BTreeMap::new() };
    let mut found = Vec::new();
    for (route, set) in in_force {
        for (workflow, id) in &set.plans {
            let by = format!("the plan in force of route {route}: {id}, which the files do not have any more");
            found.extend(kept.calls(workflow, id).await?.into_iter().map(|call| format!("{call} of {by}")));
        }
    }
    let open = plans_of_open_runs(&**store).await?;
    let mut runs_of: BTreeMap<(WorkflowName, PlanId), usize> = BTreeMap::new();
    let (mut looked_up, mut are_unknown) = (0, open.is_cut);
    for ((workflow, id), runs) in open.runs {
        if kept.runs_others(&workflow, &id).await? {
            // Child runs that have not begun yet count too: their plans are those of the time when the parent began.
            for run in &runs {
                looked_up += 1;
                if looked_up > CHILD_PLANS_MAX {
                    are_unknown = true;
                    break;
                }
                let below = child_plans_of(&**store, *run).await?.unwrap_or_default();
                for plan in below.into_iter().filter(|(name, _)| *name != workflow) {
                    *runs_of.entry(plan).or_default() += 1;
                }
            }
        }
        *runs_of.entry((workflow, id)).or_default() += runs.len();
    }
    for ((workflow, id), runs) in runs_of {
        let by = match runs {
            1 => format!("1 run that has not ended: it began with {id}, which the files do not have any more"),
            runs => {
                format!("{runs} runs that have not ended: they began with {id}, which the files do not have any more")
            }
        };
        found.extend(kept.calls(&workflow, &id).await?.into_iter().map(|call| format!("{call} of {by}")));
    }
    if are_unknown {
        found.push("runs that have not ended: there are too many to look at the plans of all".to_owned());
    }
    Ok(found)
}

/// A plan that is not in the files.
#[derive(Clone)]
enum KeptPlan {
    Read(Arc<Plan>),
    /// Why what it calls is not known.
    Unknown(String),
}

/// Reads plans that the files do not have, each once.
struct KeptPlans<'a> {
    store: &'a StoreHandle,
    setup: &'a Setup,
    service: &'a ServiceName,
    known: BTreeMap<PlanId, KeptPlan>,
}

impl KeptPlans<'_> {
    fn of_files(&self, workflow: &WorkflowName, id: &PlanId) -> Option<&Arc<Plan>> {
        self.setup.workflows.get(workflow).filter(|plan| plan.id == *id)
    }

    /// The steps and messages of a plan that call the service. Empty if the files have the plan:
    /// [`service_callers`](super::service_callers) lists these.
    async fn calls(&mut self, workflow: &WorkflowName, id: &PlanId) -> Result<Vec<String>, StoreError> {
        if self.of_files(workflow, id).is_some() {
            return Ok(Vec::new());
        }
        Ok(match self.read(id).await? {
            KeptPlan::Read(plan) => calls_of(workflow, &plan, self.service).collect(),
            KeptPlan::Unknown(why) => vec![format!("perhaps a step of {workflow} (its plan cannot be read: {why})")],
        })
    }

    /// Whether a plan runs other workflows, or may do so.
    async fn runs_others(&mut self, workflow: &WorkflowName, id: &PlanId) -> Result<bool, StoreError> {
        let runs_others = |plan: &Plan| plan.steps.iter().any(|step| matches!(step.kind, StepKind::Run(_)));
        if let Some(plan) = self.of_files(workflow, id) {
            return Ok(runs_others(plan));
        }
        Ok(match self.read(id).await? {
            KeptPlan::Read(plan) => runs_others(&plan),
            KeptPlan::Unknown(_) => true,
        })
    }

    async fn read(&mut self, id: &PlanId) -> Result<KeptPlan, StoreError> {
        if let Some(known) = self.known.get(id) {
            return Ok(known.clone());
        }
        let keyed = self.setup.services.iter().map(|(name, service)| (name.clone(), service.keyed)).collect();
        let plan = match self.store.plan(id.clone()).await? {
            None => KeptPlan::Unknown("the store does not have it".to_owned()),
            Some(source) => match Plan::from_stored(&source, &keyed, &self.setup.limits) {
                Ok(plan) => KeptPlan::Read(Arc::new(plan)),
                Err(problems) => {
                    let why: BTreeSet<String> = problems.iter().map(|problem| problem.message.clone()).collect();
                    KeptPlan::Unknown(why.into_iter().collect::<Vec<_>>().join("; "))
                }
            },
        };
        self.known.insert(id.clone(), plan.clone());
        Ok(plan)
    }
}
