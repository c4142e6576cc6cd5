//! `replay`: the state of a run after each of its events, read from a running process or from a store that none uses.

use serde_json::{Value, json};

use super::args::{Replay, Server};
use super::client::{CallError, Client, component, query};
use super::format::{Formatter, TableCell, Tone, duration_text, escape_control, plain};
use super::output::Output;
use crate::admin::replay::{DivergenceRow, StateRow, states};
use crate::admin::types::{EventRow, RunList, RunStatus};
use crate::app::{Against, Compared, OpenRun, StoredRuns};
use crate::config::{CheckFailed, Findings};
use crate::problem::Severity;

/// Where runs are read from.
pub(super) enum RunSource {
    /// A running process.
    Api(Box<Client>),
    /// A store that no process uses.
    Store(StoredRuns),
}

impl RunSource {
    pub(super) fn new(store: Option<&str>, server: &Server) -> Result<Self, CallError> {
        match store {
            Some(url) => StoredRuns::open(url).map(RunSource::Store).map_err(unread),
            None => Client::new(server).map(Box::new).map(RunSource::Api),
        }
    }
    /// All events of a run.
    pub(super) fn events(&self, run: &str) -> Result<Vec<EventRow>, CallError> {
        match self {
            RunSource::Api(client) => all_events(client, run),
            RunSource::Store(store) => store.events(run).map_err(unread),
        }
    }
    /// The definition that a run keeps.
    pub(super) fn plan(&self, run: &OpenRun) -> Result<Value, CallError> {
        match self {
            RunSource::Api(client) => {
                let path = format!("/api/v2/orchestrate/run/{}/plan", component(&run.run_id));
                client.get::<Value>(&path).map(|(plan, _)| plan)
            }
            RunSource::Store(store) => store.plan(&run.plan).map_err(unread),
        }
    }
    /// The secret from which random values are derived; unknown where runs are read from the API.
    pub(super) fn secret(&self) -> Result<Option<[u8; 32]>, CallError> {
        match self {
            RunSource::Api(_) => Ok(None),
            RunSource::Store(store) => store.secret().map(Some).map_err(unread),
        }
    }
    /// All runs that have not ended.
    pub(super) fn open_runs(&self) -> Result<Vec<OpenRun>, CallError> {
        match self {
            RunSource::Api(client) => open(client),
            RunSource::Store(store) => store.open_runs().map_err(unread),
        }
    }
}

fn unread(error: anyhow::Error) -> CallError {
    let hint = "a store that a process uses cannot be opened: ask the process with --admin";
    CallError::Unreachable(format!("{error:#}"), hint.to_owned())
}

pub(super) fn files_refused(failed: &CheckFailed, format: Formatter) -> CallError {
    let errors = failed.findings.0.iter().filter(|finding| finding.severity == Severity::Error).cloned();
    let failed = CheckFailed { findings: Findings(errors.collect()) };
    // The caller prints "error: " before it.
    let text = failed.render(format.0);
    let text = text.strip_prefix("error: ").unwrap_or(&text).to_owned();
    CallError::Unreachable(text, "correct the files; `pointsman check` shows the same errors".to_owned())
}

pub(crate) fn replay(replay: Replay, format: Formatter) -> Result<Output, CallError> {
    let Replay { run, store, with, flags, server } = replay;
    let source = RunSource::new(store.as_deref(), &server)?;
    let events = source.events(&run)?;
    let damaged = |why: String| {
        CallError::Unreachable(
            format!("{run} cannot be replayed: {why}"),
            "use the version of pointsman that wrote it".to_owned(),
        )
    };
    let Some(with) = with else {
        let states = states(&events).map_err(damaged)?;
        return Ok(Output {
            text: text(&states, format),
            json: json!({ "run_id": run, "states": states }),
            is_ok: true,
        });
    };
    let against =
        Against::read(&flags, Some(&with), source.secret()?).map_err(|failed| files_refused(&failed, format))?;
    let found = match against.run(&events).map_err(damaged)? {
        Compared::SamePlan => Vec::new(),
        Compared::Diverges(found) => found,
        Compared::Gone(workflow) => {
            let message = format!("{run} is of the workflow `{workflow}`, which is not in the files");
            return Err(CallError::Unreachable(message, "name the file of that workflow".to_owned()));
        }
    };
    let mut text = divergence_table(&found, format);
    // Without a divergence the decisions do not depend on random values.
    if !against.knows_lots() && !found.is_empty() {
        text.push_str(&format.tone(RANDOM_VALUES_NOTE, Tone::Faint));
    }
    Ok(Output { text, json: json!({ "run_id": run, "divergences": found }), is_ok: true })
}

/// Added where the store's secret is unknown.
const RANDOM_VALUES_NOTE: &str =
    "without --store, random values (`uuid`, `random`) are not those of the run and may show as differences\n";

/// The decisions that another plan would have made differently, as a table.
pub(super) fn divergence_table(found: &[DivergenceRow], format: Formatter) -> String {
    if found.is_empty() {
        return format.tone("it would have decided the same way\n", Tone::Good);
    }
    let rows = found.iter().map(|row| {
        let place = match (&row.step_id, row.item) {
            (Some(step), Some(item)) => format!("{step}[{item}]"),
            (Some(step), None) => step.clone(),
            (None, _) => String::new(),
        };
        vec![plain(row.seq), (place, Tone::Strong), plain(row.kind), plain(&row.was), (row.would.clone(), Tone::Warn)]
    });
    format.table(&["#", "STEP", "DIFFERS", "IT WAS", "IT WOULD HAVE BEEN"], &[0], rows.collect())
}

/// All events of a run, page by page.
fn all_events(client: &Client, run: &str) -> Result<Vec<EventRow>, CallError> {
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

/// All runs that have not ended, page by page.
fn open(client: &Client) -> Result<Vec<OpenRun>, CallError> {
    let mut all = Vec::new();
    let mut before = None;
    loop {
        let query =
            query(&[("status", Some("open".to_owned())), ("limit", Some("1000".to_owned())), ("before", before)]);
        let (page, _) = client.get::<RunList>(&format!("/api/v2/orchestrate/runs{query}"))?;
        all.extend(page.runs.into_iter().map(|run| OpenRun {
            run_id: run.run_id,
            workflow: run.workflow,
            plan: run.plan_id,
        }));
        before = page.next;
        if before.is_none() {
            return Ok(all);
        }
    }
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
        text.push_str(&format!("\n{} events; its status is {}\n", states.len(), last.status.as_str()));
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
