//! `replay`: a run's events folded again, from a running process or from a store that nobody uses.

use serde_json::json;

use super::Done;
use super::args::{Replay, Server};
use super::client::{CallError, Client, component, query};
use super::paint::{Field, Paint, Tone, harmless, lasting, plain};
use crate::admin::replay::{DivergenceRow, StateRow, states};
use crate::admin::types::{EventRow, RunList, RunStatus};
use crate::app::{Against, Compared, OpenRun, StoredRuns};
use crate::config::{Failed, Findings};
use crate::problem::Severity;

/// Where runs are read.
pub(super) enum Source {
    /// A running process.
    Api(Box<Client>),
    /// A store that no process uses.
    Store(StoredRuns),
}

impl Source {
    pub(super) fn new(store: Option<&str>, server: &Server) -> Result<Self, CallError> {
        match store {
            Some(url) => StoredRuns::open(url).map(Source::Store).map_err(unread),
            None => Client::new(server).map(Box::new).map(Source::Api),
        }
    }
    /// The whole trail of a run.
    pub(super) fn events(&self, run: &str) -> Result<Vec<EventRow>, CallError> {
        match self {
            Source::Api(client) => all(client, run),
            Source::Store(store) => store.events(run).map_err(unread),
        }
    }
    /// What values drawn by lot come from, where it can be known.
    pub(super) fn secret(&self) -> Result<Option<[u8; 32]>, CallError> {
        match self {
            Source::Api(_) => Ok(None),
            Source::Store(store) => store.secret().map(Some).map_err(unread),
        }
    }
    /// All runs that have not ended.
    pub(super) fn open_runs(&self) -> Result<Vec<OpenRun>, CallError> {
        match self {
            Source::Api(client) => open(client),
            Source::Store(store) => store.open_runs().map_err(unread),
        }
    }
}

fn unread(error: anyhow::Error) -> CallError {
    let hint = "a store of a running process is its own: ask it with --admin";
    CallError::Unreachable(format!("{error:#}"), hint.to_owned())
}

pub(super) fn refused(failed: &Failed, paint: Paint) -> CallError {
    let errors = failed.findings.0.iter().filter(|finding| finding.severity == Severity::Error).cloned();
    let failed = Failed { findings: Findings(errors.collect()) };
    // It is told behind that word.
    let text = failed.render(paint.0);
    let text = text.strip_prefix("error: ").unwrap_or(&text).to_owned();
    CallError::Unreachable(text, "mend the files; `pointsman check` says the same".to_owned())
}

pub(crate) fn replay(replay: Replay, paint: Paint) -> Result<Done, CallError> {
    let Replay { run, store, with, flags, server } = replay;
    let source = Source::new(store.as_deref(), &server)?;
    let events = source.events(&run)?;
    let damaged = |why: String| {
        CallError::Unreachable(format!("{run} cannot be replayed: {why}"), "use the version that wrote it".to_owned())
    };
    let Some(with) = with else {
        let states = states(&events).map_err(damaged)?;
        return Ok(Done { text: text(&states, paint), json: json!({ "run_id": run, "states": states }), fine: true });
    };
    let against = Against::read(&flags, Some(&with), source.secret()?).map_err(|failed| refused(&failed, paint))?;
    let found = match against.run(&events).map_err(damaged)? {
        Compared::SamePlan => Vec::new(),
        Compared::Diverges(found) => found,
        Compared::Gone(workflow) => {
            let message = format!("{run} is of the workflow `{workflow}`, which is not in the files");
            return Err(CallError::Unreachable(message, "name the file of that workflow".to_owned()));
        }
    };
    let mut text = otherwise(&found, paint);
    // What decides the same does so whatever is drawn.
    if !against.knows_lots() && !found.is_empty() {
        text.push_str(&paint.tone(LOTS, Tone::Faint));
    }
    Ok(Done { text, json: json!({ "run_id": run, "otherwise": found }), fine: true })
}

/// What cannot be known without the store.
const LOTS: &str = "values drawn by lot (`uuid`, `random`) are others without --store, and may show as differences\n";

/// Where another plan would have decided otherwise, line by line.
pub(super) fn otherwise(found: &[DivergenceRow], paint: Paint) -> String {
    if found.is_empty() {
        return paint.tone("it would have decided the same\n", Tone::Good);
    }
    let rows = found.iter().map(|row| {
        let place = match (&row.step_id, row.item) {
            (Some(step), Some(item)) => format!("{step}[{item}]"),
            (Some(step), None) => step.clone(),
            (None, _) => String::new(),
        };
        vec![plain(row.seq), (place, Tone::Strong), plain(row.kind), plain(&row.was), (row.would.clone(), Tone::Warn)]
    });
    paint.table(&["#", "STEP", "DIFFERS", "IT WAS", "IT WOULD HAVE BEEN"], &[0], rows.collect())
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
