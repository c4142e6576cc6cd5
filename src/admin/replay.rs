//! Replays a run's events: computes the state after each event, and where another plan would have decided differently.
//!
//! Always true: a replay applies the events by the same function as the engine did, so it shows the states that the
//! engine had; it is pure.

use jiff::Timestamp;
use serde::Serialize;

use super::types::EventRow;
use crate::names::{PlanId, Seq, WorkflowName};
use crate::store::StoredEvent;
use crate::workflow::{DecisionInputs, Divergence, Event, Plan, Run, RunStatus, evolve, fold, replay_with};

/// A run after one of its events.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StateRow {
    /// The event's sequence number.
    pub seq: u64,
    /// When the event happened.
    pub at: Timestamp,
    /// The kind of the event.
    pub kind: String,
    /// The step that the event is about.
    pub step_id: Option<String>,
    /// The item of a `for_each`.
    pub item: Option<u64>,
    /// The run's status after the event.
    pub status: RunStatus,
    /// How many steps have ended by then.
    pub steps_ended: usize,
    /// Calls in flight after the event, as `step` or `step[item]`.
    pub under_way: Vec<String>,
    /// The HTTP status of the reply to the caller, once it is decided.
    pub answered: Option<u16>,
    /// Why the run is paused or ended early.
    pub note: Option<String>,
}

/// The state after each event, in order.
///
/// # Errors
/// An event cannot be read, or is not valid after the events before it; the text says which event.
pub fn states(events: &[EventRow]) -> Result<Vec<StateRow>, String> {
    let mut states = Vec::with_capacity(events.len());
    let mut run: Option<Run> = None;
    for row in events {
        let event = event(row)?;
        let after = evolve(run.take(), &event).map_err(|misfit| misfit.to_string())?;
        let (step_id, item) = step_and_item(row);
        states.push(StateRow {
            seq: row.seq,
            at: row.at,
            kind: row.kind.clone(),
            step_id,
            item,
            status: after.status(),
            steps_ended: after.ended_steps(),
            under_way: after
                .in_flight()
                .into_iter()
                .map(|call| call.item.map_or(call.step.to_string(), |item| format!("{}[{item}]", call.step)))
                .collect(),
            answered: after.answer().map(|answer| answer.status),
            note: after.note(),
        });
        run = Some(after);
    }
    if states.is_empty() { Err("there are no events".to_owned()) } else { Ok(states) }
}

/// The state of the run after these events.
///
/// # Errors
/// See [`states`].
pub fn run_from_events(events: &[EventRow]) -> Result<Run, String> {
    let events: Vec<Event> = events.iter().map(event).collect::<Result<_, _>>()?;
    fold(&events).map_err(|misfit| misfit.to_string())
}

fn event(row: &EventRow) -> Result<Event, String> {
    serde_json::from_value(row.event.clone())
        .map_err(|error| format!("event {} ({}) cannot be read: {error}", row.seq, row.kind))
}

/// The step and the item that an event is about, if any.
fn step_and_item(row: &EventRow) -> (Option<String>, Option<u64>) {
    // Events are externally tagged: the fields are under the event's kind.
    let fields = row.event.get(&row.kind);
    let fields = fields.map(|fields| fields.get("conflict").unwrap_or(fields));
    let step = fields.and_then(|fields| fields.get("step")?.as_str()).map(str::to_owned);
    (step, fields.and_then(|fields| fields.get("item")?.as_u64()))
}

/// An event as the API shows it.
///
/// # Errors
/// The event cannot be written as JSON.
pub fn event_row(stored: StoredEvent) -> Result<EventRow, serde_json::Error> {
    let StoredEvent { seq: Seq(seq), at, event } = stored;
    Ok(EventRow { seq, at, kind: event.kind().to_owned(), event: serde_json::to_value(event)? })
}

/// A decision that another plan would have made differently.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DivergenceRow {
    /// The sequence number of the event in the history.
    pub seq: u64,
    /// When it happened.
    pub at: Timestamp,
    /// The step.
    pub step_id: Option<String>,
    /// The item of a `for_each`.
    pub item: Option<u32>,
    /// The kind of decision: `request`, `decision`, `outcome` and so on.
    pub kind: &'static str,
    /// What happened.
    pub was: String,
    /// What would have happened.
    pub would: String,
}

/// Every decision in these events that this plan would have made differently.
///
/// # Errors
/// An event cannot be read, or is not valid after the events before it.
pub fn divergences(
    events: &[EventRow],
    plan: &Plan,
    decision_inputs: &DecisionInputs,
) -> Result<Vec<DivergenceRow>, String> {
    let events: Vec<(Timestamp, Event)> =
        events.iter().map(|row| Ok((row.at, event(row)?))).collect::<Result<_, String>>()?;
    let found = replay_with(&events, plan, decision_inputs).map_err(|misfit| misfit.to_string())?;
    let row = |found: Divergence| {
        let Divergence { seq, at, step, item, kind, was, expected: would } = found;
        DivergenceRow {
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

/// The workflow and the plan of the run to which these events belong.
///
/// # Errors
/// The first event does not start a run.
pub fn workflow_and_plan(events: &[EventRow]) -> Result<(WorkflowName, PlanId), String> {
    match events.first().map(event).transpose()? {
        Some(Event::RunStarted(started)) => Ok((started.workflow.clone(), started.plan.clone())),
        _ => Err("the first event is not `run_started`".to_owned()),
    }
}
