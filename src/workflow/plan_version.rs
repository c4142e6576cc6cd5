//! One version of a route's workflow: its plan, with the plans of all workflows that it runs.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Plan, StepKind};
use crate::names::{PlanSet, WorkflowName};

/// One version of a workflow.
#[derive(Clone)]
pub struct PlanVersion {
    /// Its plans by id.
    pub set: Arc<PlanSet>,
    /// Its plans.
    pub plans: BTreeMap<WorkflowName, Arc<Plan>>,
}

impl PlanVersion {
    /// The version of a workflow that these plans make; `None` if there is no such workflow.
    pub fn of(workflow: &WorkflowName, plans: &BTreeMap<WorkflowName, Arc<Plan>>) -> Option<Self> {
        let mut own = BTreeMap::new();
        let mut open = vec![(workflow.clone(), plans.get(workflow)?.clone())];
        while let Some((name, plan)) = open.pop() {
            let children = plan.steps.iter().filter_map(|step| match &step.kind {
                StepKind::Run(child) => Some(&child.workflow),
                _ => None,
            });
            let new = children.filter(|child| **child != name && !own.contains_key(*child));
            open.extend(new.filter_map(|child| Some((child.clone(), plans.get(child)?.clone()))));
            own.insert(name, plan);
        }
        let ids = own.iter().map(|(name, plan)| (name.clone(), plan.id.clone())).collect();
        Some(Self { set: Arc::new(PlanSet { workflow: workflow.clone(), plans: ids }), plans: own })
    }

    /// The plan at the top.
    pub fn plan(&self) -> Option<&Arc<Plan>> {
        self.plans.get(&self.set.workflow)
    }
}
