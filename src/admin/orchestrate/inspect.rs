//! Reads one run: its state, its events, a step's output, what it waits for.

use std::collections::BTreeMap;

use axum::Json;
use http::StatusCode;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::envelope::step_status_name;
use super::load::{RunForDisplay, resolve_id};
use super::unreadable;
use crate::admin::error::ApiError;
use crate::admin::extract::{PathParams, QueryParams};
use crate::admin::replay;
use crate::admin::route_lookup::ladder_status;
use crate::admin::samples::rehearsed_events;
use crate::admin::state::{Admin, JsonResult};
use crate::admin::types::{Delivery, EventRow, ExplanationView, Orchestration, RunVersion};
use crate::names::{PlanSet, Seq};
use crate::store::run_began_with;
use crate::workflow::{
    ChildEvent, ConflictEvent, Event, Mode, Outcome, RunSummary, StepEvent, WaitEvent, describe_bytes,
};

pub(in crate::admin) async fn show(admin: Admin, PathParams(id): PathParams<String>) -> JsonResult<Orchestration> {
    let run = resolve_id(&admin, &id).await?;
    Ok(Json(unreadable::envelope_or_row(&admin, run, Delivery::Sync).await?))
}

/// Which events to return.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct EventsQuery {
    /// The first sequence number to return; a run's first is 1.
    from: Option<std::num::NonZeroU32>,
    /// How many to return at most.
    limit: Option<std::num::NonZeroU32>,
}

pub(in crate::admin) async fn events(
    admin: Admin,
    PathParams(id): PathParams<String>,
    QueryParams(page): QueryParams<EventsQuery>,
) -> JsonResult<Vec<EventRow>> {
    let run = resolve_id(&admin, &id).await?;
    let from = Seq(page.from.map_or(1, |from| u64::from(from.get())));
    let events = admin.parts.store.events(run, from).await?;
    if events.is_empty() {
        let Some(summary) = admin.parts.store.run(run).await? else {
            let rows = rehearsed_events(&admin, run).await?.ok_or_else(|| ApiError::no_run(&id))?;
            let shown = rows.into_iter().filter(|row| row.seq >= from.0);
            return Ok(Json(shown.take(admin.rows(page.limit, usize::MAX)).collect()));
        };
        // A sequence number past the last event is no error: a client that reads page by page ends with an empty page.
        if from <= summary.seq {
            return Err(ApiError::purged(&summary));
        }
    }
    let rows = events.into_iter().take(admin.rows(page.limit, usize::MAX));
    let shown = rows.map(|stored| {
        let mut row = replay::event_row(stored)?;
        describe_bytes(&mut row.event);
        Ok(row)
    });
    Ok(Json(shown.collect::<Result<_, serde_json::Error>>().map_err(ApiError::damaged)?))
}

/// The plan that the run was started with, even if the files have changed since.
pub(in crate::admin) async fn plan(admin: Admin, PathParams(id): PathParams<String>) -> JsonResult<Value> {
    let run = resolve_id(&admin, &id).await?;
    let summary = admin.parts.store.run(run).await?.ok_or_else(|| ApiError::no_run(&id))?;
    let stored = admin.parts.store.plan(summary.plan_id).await?;
    stored.map(Json).ok_or_else(|| ApiError::no_plan(&id))
}

pub(in crate::admin) async fn explain(admin: Admin, PathParams(id): PathParams<String>) -> JsonResult<ExplanationView> {
    let run = resolve_id(&admin, &id).await?;
    let explanation =
        admin.parts.engine.explain(run).await.map_err(|error| ApiError::command_failed(error, &run.to_string()))?;
    Ok(Json(ExplanationView {
        run_id: explanation.run.run_id.to_string(),
        status: explanation.run.status,
        plan_id: explanation.run.plan_id.to_string(),
        version: version(&admin, &explanation.run).await,
        route: explanation.run.route.clone(),
        sentence: explanation.sentence,
        waits: explanation.waits,
        wake: explanation.run.wake,
        stuck: explanation.stuck,
    }))
}

/// Which version of its route's workflow a run has, if the route is in `live` or above.
async fn version(admin: &Admin, run: &RunSummary) -> Option<RunVersion> {
    let status = ladder_status(admin, run.route.as_ref()?)?;
    let in_force = status.plans.filter(|_| run.mode == Mode::Real)?;
    let began_with =
        async |plans: &PlanSet| run_began_with(&*admin.parts.store, run.run_id, plans).await.ok().flatten();
    if began_with(&in_force).await? {
        return Some(RunVersion::InForce);
    }
    match status.candidate {
        Some(candidate) if began_with(&candidate.candidate).await? => Some(RunVersion::Candidate),
        Some(_) | None => Some(RunVersion::Earlier),
    }
}

pub(in crate::admin) async fn output(
    admin: Admin,
    PathParams((id, step)): PathParams<(String, String)>,
) -> JsonResult<Value> {
    let loaded = RunForDisplay::load(&admin, resolve_id(&admin, &id).await?).await?;
    let shown = |mut output| {
        describe_bytes(&mut output);
        Json(output)
    };
    if let Some(output) = loaded.run.output_of(&step) {
        return Ok(shown(output.clone()));
    }
    let Some(found) = loaded.view.steps.iter().find(|seen| seen.step.as_str() == step) else {
        let known: Vec<&str> =
            loaded.planned_steps().chain(loaded.view.steps.iter().map(|step| step.step.as_str())).collect();
        if known.contains(&step.as_str()) {
            return Err(no_output(&step, "it has not begun"));
        }
        return Err(ApiError::unknown("step", &step, known.into_iter()));
    };
    let mut items: BTreeMap<u32, Value> = BTreeMap::new();
    let mut step_output = None;
    for stored in &loaded.events {
        let Some((of, item, output)) = output_in(&stored.event) else { continue };
        if of != step {
            continue;
        }
        match item {
            Some(item) => drop(items.insert(item, output.clone())),
            None => step_output = Some(output.clone()),
        }
    }
    if let Some(count) = found.items {
        // `null` for an item without an output keeps the positions of the list.
        step_output = Some((0..count).map(|item| items.remove(&item).unwrap_or(Value::Null)).collect());
    }
    step_output.map(shown).ok_or_else(|| no_output(&step, &format!("it is {}", step_status_name(found.status))))
}

fn no_output(step: &str, why: &str) -> ApiError {
    let detail = format!("step `{step}` has no output: {why}");
    ApiError::new(StatusCode::NOT_FOUND, "no-output", "The step has no output", detail)
}

/// The output that an event records, with its step and item.
fn output_in(event: &Event) -> Option<(&str, Option<u32>, &Value)> {
    match event {
        Event::StepFinished(finished) if finished.part.is_do() => match &finished.outcome {
            Outcome::Done { output, .. } | Outcome::Rehearsed { output: Some(output), .. } => {
                Some((finished.step.as_str(), finished.item, output))
            }
            Outcome::Rehearsed { output: None, .. }
            | Outcome::NotDone { .. }
            | Outcome::Unknown { .. }
            | Outcome::Unfit { .. }
            | Outcome::Failed { .. } => None,
        },
        Event::Step(StepEvent::Computed { step, output }) => Some((step.as_str(), None, output)),
        Event::Wait(WaitEvent::Ended { step, output, .. }) => Some((step.as_str(), None, output)),
        Event::Child(ChildEvent::Ended { step, item, output, .. }) => Some((step.as_str(), *item, output)),
        Event::Step(StepEvent::Probed { step, item, done: Some(true), output, .. }) => {
            Some((step.as_str(), *item, output))
        }
        Event::Conflict(ConflictEvent::Resolved {
            step,
            item,
            choice: crate::workflow::Choice::Take { output },
            ..
        }) => Some((step.as_str(), *item, output)),
        Event::Step(StepEvent::ResultTaken(taken)) => Some((taken.step.as_str(), None, taken.fields.get("output")?)),
        _ => None,
    }
}
