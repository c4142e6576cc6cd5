//! A run's events, folded again: every state on the way.
//!
//! Always true: it is the same fold by which the run was moved, so what it shows is what the engine saw; it reads
//! nothing and changes nothing.

use jiff::Timestamp;
use serde::Serialize;

use super::types::EventRow;
use crate::names::{PlanId, Seq, WorkflowName};
use crate::store::StoredEvent;
use crate::workflow::{Divergence, Event, Plan, Run, RunStatus, World, evolve, replay_with};

/// A run after one of its events.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StateRow {
    /// The event's place.
    pub seq: u64,
    /// When it happened.
    pub at: Timestamp,
    /// What happened.
    pub kind: String,
    /// The step that it is about.
    pub step_id: Option<String>,
    /// The item of a `for_each`.
    pub item: Option<u64>,
    /// Where the run stands after it.
    pub status: RunStatus,
    /// Steps that have ended by then.
    pub steps_ended: usize,
    /// Calls that are under way, as `step` or `step[item]`.
    pub under_way: Vec<String>,
    /// The status of the caller's answer, once it is fixed.
    pub answered: Option<u16>,
    /// Why it is paused or ended early.
    pub note: Option<String>,
}

/// Every state on the way, in order.
///
/// # Errors
/// An event cannot be read, or does not fit behind those before it: the sentence says which.
pub fn states(events: &[EventRow]) -> Result<Vec<StateRow>, String> {
    let mut states = Vec::with_capacity(events.len());
    let mut run: Option<Run> = None;
    for row in events {
        let event = event(row)?;
        let now = evolve(run.take(), &event).map_err(|misfit| misfit.to_string())?;
        let (step_id, item) = place(row);
        states.push(StateRow {
            seq: row.seq,
            at: row.at,
            kind: row.kind.clone(),
            step_id,
            item,
            status: now.status(),
            steps_ended: now.ended_steps(),
            under_way: now
                .in_flight()
                .into_iter()
                .map(|call| call.item.map_or(call.step.to_string(), |item| format!("{}[{item}]", call.step)))
                .collect(),
            answered: now.answer().map(|answer| answer.status),
            note: now.note(),
        });
        run = Some(now);
    }
    if states.is_empty() { Err("there are no events".to_owned()) } else { Ok(states) }
}

fn event(row: &EventRow) -> Result<Event, String> {
    serde_json::from_value(row.event.clone())
        .map_err(|error| format!("event {} ({}) cannot be read: {error}", row.seq, row.kind))
}

/// The step and item that an event is about, where it is about one.
fn place(row: &EventRow) -> (Option<String>, Option<u64>) {
    // Externally tagged: the fact stands under its kind.
    let fact = row.event.get(&row.kind);
    let fact = fact.map(|fact| fact.get("conflict").unwrap_or(fact));
    let step = fact.and_then(|fact| fact.get("step")?.as_str()).map(str::to_owned);
    (step, fact.and_then(|fact| fact.get("item")?.as_u64()))
}

/// An event as the API shows it.
///
/// # Errors
/// It cannot be written as JSON.
pub fn row(stored: StoredEvent) -> Result<EventRow, serde_json::Error> {
    let StoredEvent { seq: Seq(seq), at, event } = stored;
    Ok(EventRow { seq, at, kind: event.kind().to_owned(), event: serde_json::to_value(event)? })
}

/// A place where another plan would have decided otherwise.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OtherwiseRow {
    /// The place of the event that stands in the history.
    pub seq: u64,
    /// When it happened.
    pub at: Timestamp,
    /// Which step.
    pub step_id: Option<String>,
    /// The item of a `for_each`.
    pub item: Option<u32>,
    /// What kind: `request`, `decision`, `outcome` and so on.
    pub kind: &'static str,
    /// What happened.
    pub was: String,
    /// What would have happened.
    pub would: String,
}

/// Every place where this plan would have decided otherwise than these events say.
///
/// # Errors
/// An event cannot be read, or does not fit behind those before it.
pub fn otherwise(events: &[EventRow], plan: &Plan, world: &World) -> Result<Vec<OtherwiseRow>, String> {
    let events: Vec<(Timestamp, Event)> =
        events.iter().map(|row| Ok((row.at, event(row)?))).collect::<Result<_, String>>()?;
    let found = replay_with(&events, plan, world).map_err(|misfit| misfit.to_string())?;
    let row = |found: Divergence| {
        let Divergence { seq, at, step, item, kind, was, would } = found;
        OtherwiseRow {
            seq: seq.0,
            at,
            step_id: step.map(|step| step.to_string()),
            item,
            kind: kind.as_str(),
            was,
            would,
        }
    };
    Ok(found.into_iter().map(row).collect())
}

/// The workflow that these events are of, and the plan.
///
/// # Errors
/// They do not begin with a birth.
pub fn born(events: &[EventRow]) -> Result<(WorkflowName, PlanId), String> {
    match events.first().map(event).transpose()? {
        Some(Event::RunStarted(started)) => Ok((started.workflow.clone(), started.plan.clone())),
        _ => Err("there is no birth".to_owned()),
    }
}
