//! `replay`: a run's events folded again, from a running process or from a store that nobody uses.

use serde_json::json;

use super::Done;
use super::args::Replay;
use super::client::{CallError, Client, component};
use super::paint::{Field, Paint, Tone, harmless, lasting, plain};
use crate::admin::replay::{StateRow, states};
use crate::admin::types::{EventRow, RunStatus};

pub(crate) fn replay(replay: Replay, paint: Paint) -> Result<Done, CallError> {
    let Replay { run, store, with, server } = replay;
    let events = match &store {
        Some(url) => crate::app::stored_events(url, &run).map_err(|error| {
            let hint = "a store of a running process is its own: ask it with --admin";
            CallError::Unreachable(format!("{error:#}"), hint.to_owned())
        })?,
        None => all(&Client::new(&server)?, &run)?,
    };
    let _ = with;
    let states = states(&events).map_err(|why| {
        CallError::Unreachable(format!("{run} cannot be replayed: {why}"), "use the version that wrote it".to_owned())
    })?;
    Ok(Done { text: text(&states, paint), json: json!({ "run_id": run, "states": states }), fine: true })
}

/// The whole trail, page by page.
fn all(client: &Client, run: &str) -> Result<Vec<EventRow>, CallError> {
    let mut all: Vec<EventRow> = Vec::new();
    loop {
        let from = all.last().map_or(1, |last| last.seq + 1);
        let path = format!("/api/v2/orchestrate/run/{}/events?from={from}", component(run));
        let (page, _) = client.get::<Vec<EventRow>>(&path)?;
        if page.is_empty() {
            return Ok(all);
        }
        all.extend(page);
    }
}

fn text(states: &[StateRow], paint: Paint) -> String {
    let first = states.first().map(|state| state.at);
    let rows = states.iter().map(|state| {
        let after = first.map_or(0.0, |first| state.at.duration_since(first).as_secs_f64().max(0.0));
        row(state, after)
    });
    let header = ["#", "AFTER", "EVENT", "STEP", "STATUS", "ENDED", "UNDER WAY", "ANSWER", "NOTE"];
    let mut text = paint.table(&header, &[0, 1, 5, 7], rows.collect());
    if let Some(last) = states.last() {
        text.push_str(&format!("\n{} events, and it stands at {}\n", states.len(), last.status.as_str()));
    }
    text
}

fn row(state: &StateRow, after: f64) -> Vec<Field> {
    let tone = match state.status {
        RunStatus::Completed => Tone::Good,
        RunStatus::Failed => Tone::Bad,
        RunStatus::Paused | RunStatus::Compensating => Tone::Warn,
        _ => Tone::Plain,
    };
    let place = match (&state.step_id, state.item) {
        (Some(step), Some(item)) => format!("{step}[{item}]"),
        (Some(step), None) => step.clone(),
        (None, _) => String::new(),
    };
    vec![
        plain(state.seq),
        plain(lasting(after)),
        (harmless(&state.kind), Tone::Strong),
        plain(place),
        (state.status.as_str().to_owned(), tone),
        plain(state.steps_ended),
        plain(state.under_way.join(" ")),
        plain(state.answered.map_or(String::new(), |status| status.to_string())),
        plain(state.note.as_deref().unwrap_or_default()),
    ]
}
