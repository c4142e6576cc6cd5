//! Runs, as people look at them.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::Path;
use http::StatusCode;
use serde::Deserialize;
use serde_json::Value;

use super::problem::Refusal;
use super::types::{EventRow, RunDetail, RunList, RunRow, StepRow};
use super::{Admin, Answer, Asked, moves::OPEN};
use crate::names::{RouteId, RunId, Seq};
use crate::store::{RunFilter, StoredEvent};
use crate::workflow::{Event, Mode, Outcome, RunStatus, RunSummary, StepStatus, view};

const FINAL: [RunStatus; 4] = [RunStatus::Completed, RunStatus::Failed, RunStatus::Cancelled, RunStatus::Abandoned];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Filter {
    /// One or several, with commas; `open` is all that have not ended.
    status: Option<String>,
    workflow: Option<String>,
    route: Option<String>,
    mode: Option<String>,
    before: Option<String>,
    limit: Option<usize>,
}

pub(super) async fn list(admin: Admin, Asked(filter): Asked<Filter>) -> Answer<RunList> {
    let Filter { status, workflow, route, mode, before, limit } = filter;
    let limit = admin.rows(limit, 50);
    let filter = RunFilter {
        statuses: statuses(status.as_deref().unwrap_or_default())?,
        workflow,
        route: route.as_deref().map(RouteId::from),
        mode: mode.as_deref().map(mode_of).transpose()?,
        job: None,
        parent: None,
        before: before.as_deref().map(run_id).transpose()?,
        // One more says whether there is another page.
        limit: limit.saturating_add(1),
    };
    let mut runs = admin.parts.store.runs(filter).await?;
    let more = runs.len() > limit;
    runs.truncate(limit);
    let next = runs.last().filter(|_| more).map(|run| run.run_id.to_string());
    Ok(Json(RunList { runs: runs.into_iter().map(row).collect(), next }))
}

pub(super) async fn show(admin: Admin, Path(id): Path<String>) -> Answer<RunDetail> {
    let run = run_id(&id)?;
    let store = &admin.parts.store;
    let Some(summary) = store.run(run).await? else { return Err(Refusal::no_run(&id)) };
    let events = store.events(run, Seq::FIRST).await?;
    let plan = store.plan(summary.plan_id.clone()).await?;
    let steps = steps(&summary, &events, plan.as_ref())?;
    let rows = admin.rows(None, usize::MAX);
    let events = events.into_iter().take(rows).map(event_row).collect::<Result<_, _>>()?;
    Ok(Json(RunDetail { run: row(summary), steps, events }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    from: Option<u64>,
    limit: Option<usize>,
}

pub(super) async fn events(admin: Admin, Path(id): Path<String>, Asked(page): Asked<Page>) -> Answer<Vec<EventRow>> {
    let run = run_id(&id)?;
    let events = admin.parts.store.events(run, Seq(page.from.unwrap_or(1).max(1))).await?;
    if events.is_empty() && admin.parts.store.run(run).await?.is_none() {
        return Err(Refusal::no_run(&id));
    }
    let rows = admin.rows(page.limit, usize::MAX);
    Ok(Json(events.into_iter().take(rows).map(event_row).collect::<Result<_, _>>()?))
}

pub(super) async fn output(admin: Admin, Path((id, step)): Path<(String, String)>) -> Answer<Value> {
    let run = run_id(&id)?;
    let events = admin.parts.store.events(run, Seq::FIRST).await?;
    if events.is_empty() {
        return Err(Refusal::no_run(&id));
    }
    let seen = view(events.iter().map(|stored| (stored.at, &stored.event))).map_err(damaged)?;
    let Some(found) = seen.steps.iter().find(|seen| seen.step.as_str() == step) else {
        return Err(Refusal::unknown("step", &step, seen.steps.iter().map(|seen| seen.step.as_str())));
    };
    let mut items: BTreeMap<u32, Value> = BTreeMap::new();
    let mut whole = None;
    for stored in &events {
        match &stored.event {
            Event::StepFinished(finished) if finished.step.as_str() == step => {
                let output = match &finished.outcome {
                    Outcome::Done { output, .. } | Outcome::Rehearsed { output: Some(output), .. } => {
                        (**output).clone()
                    }
                    Outcome::Rehearsed { output: None, .. }
                    | Outcome::NotDone { .. }
                    | Outcome::Unknown { .. }
                    | Outcome::Unfit { .. }
                    | Outcome::Failed { .. } => continue,
                };
                match finished.item {
                    Some(item) => drop(items.insert(item, output)),
                    None => whole = Some(output),
                }
            }
            Event::StepComputed { step: computed, output } if computed.as_str() == step => {
                whole = Some((**output).clone());
            }
            _ => {}
        }
    }
    if let Some(count) = found.items {
        // An item without an output stands as null, so that places are those of the list.
        whole = Some((0..count).map(|item| items.remove(&item).unwrap_or(Value::Null)).collect());
    }
    whole.map(Json).ok_or_else(|| {
        let detail = format!("step `{step}` has no output: it is {}", word(found.status));
        Refusal::new(StatusCode::NOT_FOUND, "no-output", "There is no output", detail)
    })
}

/// Steps that have begun, in the order in which they did; then those of the plan that have not.
fn steps(run: &RunSummary, events: &[StoredEvent], plan: Option<&Value>) -> Result<Vec<StepRow>, Refusal> {
    let seen = view(events.iter().map(|stored| (stored.at, &stored.event))).map_err(damaged)?;
    let effect = |name: &str| {
        events.iter().find_map(|stored| match &stored.event {
            Event::StepStarted(started) if started.step.as_str() == name => Some(started.effect.as_str().to_owned()),
            _ => None,
        })
    };
    let mut rows: Vec<StepRow> = seen
        .steps
        .iter()
        .map(|step| StepRow {
            step: step.step.to_string(),
            item: None,
            status: word(step.status).to_owned(),
            effect: effect(step.step.as_str()),
            attempts: step.attempts,
            duration_ms: Some(step.duration_ms as f64),
            note: match (step.items_ended, step.items) {
                (Some(ended), Some(items)) => {
                    let note = step.note.as_deref().map(|note| format!(": {note}")).unwrap_or_default();
                    Some(format!("{ended} of {items} items{note}"))
                }
                _ => step.note.clone(),
            },
        })
        .collect();
    let planned = plan.and_then(|plan| plan.get("steps")).and_then(Value::as_object);
    for name in planned.into_iter().flat_map(|steps| steps.keys()) {
        if !rows.iter().any(|row| row.step == *name) {
            rows.push(StepRow {
                step: name.clone(),
                item: None,
                status: if run.status.is_final() { "not_run" } else { "waiting" }.to_owned(),
                effect: None,
                attempts: 0,
                duration_ms: None,
                note: None,
            });
        }
    }
    Ok(rows)
}

fn word(status: StepStatus) -> &'static str {
    match status {
        StepStatus::Running => "running",
        StepStatus::Retrying => "retrying",
        StepStatus::Done => "done",
        StepStatus::Rehearsed => "rehearsed",
        StepStatus::Skipped => "skipped",
        StepStatus::Failed => "failed",
        StepStatus::Unknown => "unknown",
    }
}

fn row(run: RunSummary) -> RunRow {
    let RunSummary { run_id, workflow, plan_id, route, mode, status, started, updated, note, .. } = run;
    RunRow { run_id: run_id.to_string(), workflow, plan_id, route, mode, status, started, updated, note }
}

fn event_row(stored: StoredEvent) -> Result<EventRow, Refusal> {
    let StoredEvent { seq, at, event } = stored;
    let kind = event.kind().to_owned();
    let event = serde_json::to_value(event).map_err(damaged)?;
    Ok(EventRow { seq: seq.0, at, kind, event })
}

fn damaged(error: impl std::fmt::Display) -> Refusal {
    let title = "The run's events cannot be read";
    Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "damaged-run", title, error.to_string())
}

fn run_id(text: &str) -> Result<RunId, Refusal> {
    text.parse().map_err(|_| Refusal::bad(format!("`{text}` is not a run's id: they look like run_0190…")))
}

fn mode_of(text: &str) -> Result<Mode, Refusal> {
    let modes = [Mode::Real, Mode::Dark];
    modes
        .into_iter()
        .find(|mode| mode.as_str() == text)
        .ok_or_else(|| Refusal::bad(format!("mode: `{text}` is not one of real, dark (rehearsed runs are not kept)")))
}

fn statuses(text: &str) -> Result<Vec<RunStatus>, Refusal> {
    let mut statuses = Vec::new();
    for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        if name == "open" {
            statuses.extend(OPEN);
            continue;
        }
        let known = OPEN.into_iter().chain(FINAL);
        let status = known.clone().find(|status| status.as_str() == name).ok_or_else(|| {
            let names: Vec<&str> = known.map(RunStatus::as_str).collect();
            Refusal::bad(format!("status: `{name}` is not one of open, {}", names.join(", ")))
        })?;
        statuses.push(status);
    }
    Ok(statuses)
}
