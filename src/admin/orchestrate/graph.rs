//! A run's plan as a graph, with what became of each step.
//!
//! Always true: the steps and edges are those of the plan that the run keeps, whatever the files say now.

use std::collections::BTreeMap;

use axum::Json;

use super::envelope::envelope;
use super::load::{RunForDisplay, resolve_id};
use crate::admin::error::ApiError;
use crate::admin::extract::PathParams;
use crate::admin::state::{Admin, JsonResult};
use crate::admin::types::{Delivery, EdgeKindRow, GraphEdgeRow, GraphStepRow, RunGraph, StepActionRow, StepRow};
use crate::problem::{Problems, Severity};
use crate::workflow::{EdgeKind, GraphEdge, GraphStep, Plan, PlanGraph, StepAction};

/// How many child runs of a step are listed.
const CHILD_RUNS_MAX: usize = 100;

pub(in crate::admin) async fn graph(admin: Admin, PathParams(id): PathParams<String>) -> JsonResult<RunGraph> {
    let loaded = RunForDisplay::load(&admin, resolve_id(&admin, &id).await?).await?;
    let source = loaded.plan().ok_or_else(|| ApiError::no_plan(&id))?;
    // The services of today do not matter for what is shown.
    let plan = Plan::from_stored(source, &BTreeMap::new(), &admin.parts.limits);
    let PlanGraph { steps, edges } = plan.map_err(unreadable_plan)?.graph();
    let shown = envelope(&admin, &loaded, Delivery::Sync).data;
    let mut states: BTreeMap<String, StepRow> =
        shown.steps.into_iter().map(|state| (state.step_id.clone(), state)).collect();
    let mut children: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for child in loaded.run.children() {
        let runs = children.entry(child.step.to_string()).or_default();
        if runs.len() < CHILD_RUNS_MAX {
            runs.push(child.run.to_string());
        }
    }
    let steps = steps.into_iter().filter_map(|step| {
        let name = step.step.as_str();
        Some(row(states.remove(name)?, children.remove(name).unwrap_or_default(), step))
    });
    Ok(Json(RunGraph {
        run_id: shown.run_id,
        workflow: shown.run.workflow,
        plan_id: shown.plan_id,
        status: shown.status,
        mode: shown.run.mode,
        note: shown.run.note,
        steps: steps.collect(),
        edges: edges.into_iter().map(edge_row).collect(),
    }))
}

fn unreadable_plan(problems: Problems) -> ApiError {
    let first = problems.iter().find(|problem| problem.severity == Severity::Error);
    ApiError::damaged(first.map_or("this version cannot read the plan", |problem| &problem.message))
}

fn row(mut state: StepRow, child_runs: Vec<String>, step: GraphStep) -> GraphStepRow {
    let action = match step.action {
        StepAction::Call { method, service, path, effect } => {
            state.effect = Some(effect.as_str().to_owned());
            StepActionRow::Call { method: method.to_string(), service: service.to_string(), path }
        }
        StepAction::Compute => StepActionRow::Compute,
        StepAction::Ask => StepActionRow::Ask,
        StepAction::WaitForTime => StepActionRow::WaitForTime,
        StepAction::WaitForSignal(signal) => StepActionRow::WaitForSignal { signal },
        StepAction::Run(workflow) => StepActionRow::Run { workflow },
        StepAction::Fail => StepActionRow::Fail,
    };
    GraphStepRow {
        state,
        action,
        for_each: step.for_each,
        conditional: step.is_conditional,
        risk: step.risk,
        irreversible: step.is_irreversible,
        has_undo: step.has_undo,
        takes_lock: step.takes_lock,
        fallback_of: step.fallback_of.map(|replaced| replaced.to_string()),
        child_runs,
    }
}

fn edge_row(edge: GraphEdge) -> GraphEdgeRow {
    let kind = match edge.kind {
        EdgeKind::Needs => EdgeKindRow::Needs,
        EdgeKind::Fallback => EdgeKindRow::Fallback,
    };
    GraphEdgeRow { from: edge.from.to_string(), to: edge.to.to_string(), kind }
}
