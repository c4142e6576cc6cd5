//! What a workflow, and the workflows that it runs, read of legacy's reply.
//!
//! Always true: a rehearsing run keeps of legacy's reply what its own plan reads and what the plans of its child runs
//! read, because a child gets its share from its parent. A step whose `rehearse:` gives its output begins no child in a
//! rehearsal, so what its workflow reads is not kept. The plans are those of one version of the files. If the workflow
//! of a child is edited after its parent (a dark run) has begun, and now reads more, the child does not get that part.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::expression::ReadPath;
use crate::names::WorkflowName;
use crate::workflow::{Plan, SensitivePath, StepKind, legacy_paths};

/// What one workflow, and the workflows that it runs directly or indirectly, read of legacy's reply.
#[derive(Default)]
pub(super) struct LegacyReplyPaths {
    /// The paths, each from the root `legacy`.
    pub paths: Vec<ReadPath>,
    /// The parts that one of the workflows that it runs declares as sensitive.
    pub sensitive: Vec<SensitivePath>,
}

impl LegacyReplyPaths {
    /// What each of these workflows reads; those that read nothing are left out.
    pub fn of_all(plans: &BTreeMap<WorkflowName, Arc<Plan>>) -> BTreeMap<WorkflowName, Self> {
        let all = plans.keys().map(|name| (name.clone(), Self::of(plans, name)));
        all.filter(|(_, reads)| !reads.paths.is_empty()).collect()
    }

    fn of(plans: &BTreeMap<WorkflowName, Arc<Plan>>, name: &WorkflowName) -> Self {
        let (mut known, mut open) = (BTreeSet::new(), vec![name]);
        let (mut paths, mut sensitive) = (BTreeSet::new(), BTreeSet::new());
        while let Some(workflow) = open.pop() {
            let Some(plan) = plans.get(workflow).filter(|_| known.insert(workflow)) else { continue };
            paths.extend(plan.reads.iter().filter(|path| path.root() == "legacy").cloned());
            if workflow != name {
                sensitive.extend(legacy_paths(plan));
            }
            open.extend(plan.steps.iter().filter_map(|step| match &step.kind {
                StepKind::Run(child) if child.rehearse.is_none() => Some(&child.workflow),
                _ => None,
            }));
        }
        Self { paths: paths.into_iter().collect(), sensitive: sensitive.into_iter().collect() }
    }
}
