//! `replay`: the state of a run after each of its events, read from a running process or from a store (a SQLite store
//! only while no process uses it).

use serde_json::json;

use super::args::Replay;
use super::client::CallError;
use super::format::{Formatter, TableCell, Tone, duration_text, escape_control, plain};
use super::output::Output;
use super::run_source::RunSource;
use crate::admin::replay::{DivergenceRow, StateRow, states};
use crate::admin::types::{EventRow, RunStatus};
use crate::app::{ReplayFiles, ReplayResult};
use crate::config::{CheckFailed, Findings};
use crate::limits::Limits;
use crate::problem::Severity;

/// The error for files that `check` refuses, with their errors and without their warnings.
pub(super) fn files_refused(failed: &CheckFailed, format: Formatter) -> CallError {
    let errors = failed.findings.0.iter().filter(|finding| finding.severity == Severity::Error).cloned();
    let failed = CheckFailed { findings: Findings(errors.collect()), referenced_files: Vec::new() };
    // The caller prints "error: " before it.
    let text = failed.render(format.0);
    let text = text.strip_prefix("error: ").unwrap_or(&text).to_owned();
    CallError::Failed(text, "correct the files; `pointsman check` shows the same errors".to_owned())
}

pub(crate) fn replay(replay: Replay, format: Formatter) -> Result<Output, CallError> {
    let Replay { run, store, with, flags, server } = replay;
    let source = RunSource::new(store.as_deref(), &server, &Limits::default())?;
    let mut events = source.events(&run)?;
    // The rest of a rehearsal of which only the first events are kept.
    let not_kept = events.pop_if(|last| last.kind == EventRow::NOT_KEPT).map(|row| row.event);
    let note = |text: &mut String| {
        if not_kept.is_some() {
            text.push_str(&format.tone(NOT_KEPT_NOTE, Tone::Warn));
        }
    };
    let damaged = |why: String| {
        CallError::Failed(
            format!("{run} cannot be replayed: {why}"),
            "use the version of pointsman that wrote it; if that is this one, check the store (`pointsman store check`)"
                .to_owned(),
        )
    };
    let Some(with) = with else {
        let states = states(&events).map_err(damaged)?;
        let mut text = text(&states, format);
        note(&mut text);
        let json = json!({ "run_id": run, "states": states, "not_kept": not_kept });
        return Ok(Output { text, json, is_ok: true });
    };
    let files =
        ReplayFiles::read(&flags, Some(&with), source.secret()?).map_err(|failed| files_refused(&failed, format))?;
    let found = match files.replay(&events).map_err(damaged)? {
        ReplayResult::SamePlan => Vec::new(),
        ReplayResult::Diverges(found) => found,
        ReplayResult::WorkflowMissing(workflow) => {
            let message = format!("{run} is a run of the workflow `{workflow}`, which is not in the files");
            return Err(CallError::Failed(message, "name the file of that workflow".to_owned()));
        }
    };
    let mut text = divergence_table(&found, format);
    // Without a divergence the decisions do not depend on random values.
    if !files.has_store_secret() && !found.is_empty() {
        text.push_str(&format.tone(RANDOM_VALUES_NOTE, Tone::Faint));
    }
    note(&mut text);
    Ok(Output { text, json: json!({ "run_id": run, "divergences": found, "not_kept": not_kept }), is_ok: true })
}

/// Shown below the result if only the first events of the rehearsal are kept.
const NOT_KEPT_NOTE: &str =
    "only the first events of this rehearsal are kept: what it did after them is not replayed\n";

/// Added where the store's secret is unknown.
const RANDOM_VALUES_NOTE: &str = "without --store, random values (`uuid`, `random`) are not those of the run, and of \
     bytes only size and type are known: decisions that read either may show as differences\n";

/// The decisions that another plan would have made differently, as a table.
pub(super) fn divergence_table(found: &[DivergenceRow], format: Formatter) -> String {
    if found.is_empty() {
        return format.tone("the other plan would have made the same decisions\n", Tone::Good);
    }
    let rows = found.iter().map(|row| {
        let place = match (&row.step_id, row.item) {
            (Some(step), Some(item)) => format!("{step}[{item}]"),
            (Some(step), None) => step.clone(),
            (None, _) => String::new(),
        };
        vec![plain(row.seq), (place, Tone::Strong), plain(row.kind), plain(&row.was), (row.would.clone(), Tone::Warn)]
    });
    format.table(&["#", "STEP", "DIFFERS", "RECORDED", "WITH THE OTHER PLAN"], &[0], rows.collect())
}

fn text(states: &[StateRow], format: Formatter) -> String {
    let first = states.first().map(|state| state.at);
    let rows = states.iter().map(|state| {
        let after = first.map_or(0.0, |first| state.at.duration_since(first).as_secs_f64().max(0.0));
        row(state, after)
    });
    let header = ["#", "AFTER", "EVENT", "STEP", "STATUS", "ENDED", "IN FLIGHT", "ANSWER", "NOTE"];
    let mut text = format.table(&header, &[0, 1, 5, 7], rows.collect());
    if let Some(last) = states.last() {
        text.push_str(&format!("\n{} events; the run's status is {}\n", states.len(), last.status.as_str()));
    }
    text
}

fn row(state: &StateRow, after: f64) -> Vec<TableCell> {
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
        plain(duration_text(after)),
        (escape_control(&state.kind), Tone::Strong),
        plain(place),
        (state.status.as_str().to_owned(), tone),
        plain(state.steps_ended),
        plain(state.under_way.join(" ")),
        plain(state.answered.map_or(String::new(), |status| status.to_string())),
        plain(state.note.as_deref().unwrap_or_default()),
    ]
}
