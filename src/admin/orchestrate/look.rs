//! One run: as it stands, its trail, a step's output, what it waits for.

use std::collections::BTreeMap;

use axum::Json;
use http::StatusCode;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::{Seen, envelope, find};
use crate::admin::extract::{Asked, Named};
use crate::admin::problem::Refusal;
use crate::admin::types::{Delivery, EventRow, ExplanationView, Orchestration};
use crate::admin::{Admin, Answer, replay};
use crate::names::Seq;
use crate::workflow::{Event, Outcome};

pub(in crate::admin) async fn show(admin: Admin, Named(id): Named<String>) -> Answer<Orchestration> {
    let run = find(&admin, &id).await?;
    Ok(Json(Seen::read(&admin, run).await?.envelope(&admin, Delivery::Sync)))
}

/// Which events.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct Page {
    /// From this place on; the first is 1.
    from: Option<std::num::NonZeroU32>,
    /// At most this many.
    limit: Option<std::num::NonZeroU32>,
}

pub(in crate::admin) async fn events(
    admin: Admin,
    Named(id): Named<String>,
    Asked(page): Asked<Page>,
) -> Answer<Vec<EventRow>> {
    let run = find(&admin, &id).await?;
    let from = Seq(page.from.map_or(1, |from| u64::from(from.get())));
    let events = admin.parts.store.events(run, from).await?;
    if events.is_empty() && admin.parts.store.run(run).await?.is_none() {
        return Err(Refusal::no_run(&id));
    }
    let rows = admin.rows(page.limit, usize::MAX);
    Ok(Json(events.into_iter().take(rows).map(replay::row).collect::<Result<_, _>>().map_err(Refusal::damaged)?))
}

pub(in crate::admin) async fn explain(admin: Admin, Named(id): Named<String>) -> Answer<ExplanationView> {
    let run = find(&admin, &id).await?;
    let told = admin.parts.desk.explain(run).await.map_err(|error| Refusal::not_done(error, &run.to_string()))?;
    Ok(Json(ExplanationView {
        run_id: told.run.run_id.to_string(),
        status: told.run.status,
        sentence: told.sentence,
        waits: told.waits,
        wake: told.run.wake,
        stuck: told.stuck,
    }))
}

pub(in crate::admin) async fn output(admin: Admin, Named((id, step)): Named<(String, String)>) -> Answer<Value> {
    let seen = Seen::read(&admin, find(&admin, &id).await?).await?;
    if let Some(output) = seen.run.output_of(&step) {
        return Ok(Json(output.clone()));
    }
    let Some(found) = seen.view.steps.iter().find(|seen| seen.step.as_str() == step) else {
        let known: Vec<&str> = seen.planned().chain(seen.view.steps.iter().map(|seen| seen.step.as_str())).collect();
        if known.contains(&step.as_str()) {
            return Err(no_output(&step, "it has not begun"));
        }
        return Err(Refusal::unknown("step", &step, known.into_iter()));
    };
    let mut items: BTreeMap<u32, Value> = BTreeMap::new();
    let mut whole = None;
    for stored in &seen.events {
        let Some((of, item, output)) = gives(&stored.event) else { continue };
        if of != step {
            continue;
        }
        match item {
            Some(item) => drop(items.insert(item, output.clone())),
            None => whole = Some(output.clone()),
        }
    }
    if let Some(count) = found.items {
        // An item without an output stands as null, so that places are those of the list.
        whole = Some((0..count).map(|item| items.remove(&item).unwrap_or(Value::Null)).collect());
    }
    whole.map(Json).ok_or_else(|| no_output(&step, &format!("it is {}", envelope::word(found.status))))
}

fn no_output(step: &str, why: &str) -> Refusal {
    let detail = format!("step `{step}` has no output: {why}");
    Refusal::new(StatusCode::NOT_FOUND, "no-output", "There is no output", detail)
}

/// The output that an event gives a step, or an item of it.
fn gives(event: &Event) -> Option<(&str, Option<u32>, &Value)> {
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
        Event::StepComputed { step, output } => Some((step.as_str(), None, output)),
        Event::WaitEnded { step, output, .. } => Some((step.as_str(), None, output)),
        Event::ChildEnded { step, item, output, .. } => Some((step.as_str(), *item, output)),
        Event::Probed { step, item, done: Some(true), output, .. } => Some((step.as_str(), *item, output)),
        Event::Resolved { step, item, choice: crate::workflow::Choice::Take { output }, .. } => {
            Some((step.as_str(), *item, output))
        }
        Event::ResultTaken(taken) => Some((taken.step.as_str(), None, taken.fields.get("output")?)),
        _ => None,
    }
}
