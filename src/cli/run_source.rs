//! Where commands read runs from: a running process, or a store (a SQLite store only while no process uses it).
//!
//! A [`ReadError`] says whether one run cannot be read, or the whole source.

use serde_json::Value;

use super::args::Server;
use super::client::{CallError, Client, component, query};
use crate::admin::types::{EventRow, RunList, RunRow};
use crate::app::{OpenRun, OpenRunPage, StoredRuns, too_many_events};
use crate::limits::Limits;

/// Where runs are read from.
pub(super) enum RunSource {
    /// A running process.
    Api(Box<Client>),
    /// A store that is opened for reading.
    Store(StoredRuns),
}

impl RunSource {
    pub(super) fn new(store: Option<&str>, server: &Server, limits: &Limits) -> Result<Self, CallError> {
        match store {
            Some(url) => StoredRuns::open(url, limits).map(RunSource::Store).map_err(store_error),
            None => Client::new(server).map(Box::new).map(RunSource::Api),
        }
    }
    /// All events of a run.
    pub(super) fn events(&self, run: &str) -> Result<Vec<EventRow>, CallError> {
        match self {
            RunSource::Api(client) => all_events(client, run, None).map_err(ReadError::into_call_error),
            RunSource::Store(store) => store.events(run, None).map_err(store_error),
        }
    }
    /// The secret from which random values are derived; unknown where runs are read from the API.
    pub(super) fn secret(&self) -> Result<Option<[u8; 32]>, CallError> {
        match self {
            RunSource::Api(_) => Ok(None),
            RunSource::Store(store) => store.secret().map(Some).map_err(store_error),
        }
    }
}

/// Reads the runs that have not ended.
pub(super) trait OpenRuns {
    /// A page of runs, newest first. `before` is the cursor that the previous page returned; `None` for the first page.
    fn page(&self, before: Option<&str>) -> Result<OpenRunPage, CallError>;
    /// All events of a run; an error where there are more than `most`.
    fn events(&self, run: &OpenRun, most: u64) -> Result<Vec<EventRow>, ReadError>;
    /// The plan that a run was started with.
    fn plan(&self, run: &OpenRun) -> Result<Value, ReadError>;
}

/// Why a run could not be read.
#[derive(Debug)]
pub(super) enum ReadError {
    /// This run cannot be read; others may be readable.
    Run(String),
    /// The source does not answer: no run can be read.
    Source(CallError),
}

impl ReadError {
    /// A refusal concerns this run only; where the API does not answer, no run can be read.
    fn of_call(error: CallError) -> Self {
        match error {
            CallError::Refused(problem, _) => ReadError::Run(problem.detail),
            error @ CallError::Failed(..) => ReadError::Source(error),
        }
    }
    fn into_call_error(self) -> CallError {
        match self {
            ReadError::Run(why) => {
                let hint = "`pointsman runs list` shows which runs there are; of purged runs, only the pinned ones";
                CallError::Failed(why, hint.to_owned())
            }
            ReadError::Source(error) => error,
        }
    }
}

impl OpenRuns for RunSource {
    fn page(&self, before: Option<&str>) -> Result<OpenRunPage, CallError> {
        match self {
            RunSource::Api(client) => open_runs_page(client, before),
            RunSource::Store(store) => store.open_runs(before).map_err(store_error),
        }
    }
    fn events(&self, run: &OpenRun, most: u64) -> Result<Vec<EventRow>, ReadError> {
        match self {
            RunSource::Api(client) => all_events(client, &run.run_id, Some(most)),
            RunSource::Store(store) => {
                store.events(&run.run_id, Some(most)).map_err(|error| ReadError::Run(format!("{error:#}")))
            }
        }
    }
    fn plan(&self, run: &OpenRun) -> Result<Value, ReadError> {
        match self {
            RunSource::Api(client) => {
                let path = format!("/api/v2/orchestrate/run/{}/plan", component(&run.run_id));
                client.get::<Value>(&path).map(|(plan, _)| plan).map_err(ReadError::of_call)
            }
            RunSource::Store(store) => store.plan(&run.plan).map_err(|error| ReadError::Run(format!("{error:#}"))),
        }
    }
}

fn store_error(error: anyhow::Error) -> CallError {
    let hint = "if a process uses this SQLite store, ask that process: leave out --store, and name it with --admin";
    CallError::Failed(format!("{error:#}"), hint.to_owned())
}

/// Events that are read with one request.
const EVENTS_PAGE: usize = 1_000;

/// All events of a run, page by page; an error where there are more than `most`.
fn all_events(client: &Client, run: &str, most: Option<u64>) -> Result<Vec<EventRow>, ReadError> {
    let mut all: Vec<EventRow> = Vec::new();
    loop {
        let from = all.last().map_or(1, |last| last.seq + 1);
        if let Some(most) = most.filter(|most| from > most.saturating_add(1)) {
            return Err(ReadError::Run(too_many_events(most)));
        }
        let path = format!("/api/v2/orchestrate/run/{}/events?from={from}&limit={EVENTS_PAGE}", component(run));
        let (page, _) = client.get::<Vec<EventRow>>(&path).map_err(ReadError::of_call)?;
        if page.is_empty() {
            return Ok(all);
        }
        all.extend(page);
    }
}

/// A page of the runs that have not ended.
fn open_runs_page(client: &Client, before: Option<&str>) -> Result<OpenRunPage, CallError> {
    let before = before.map(str::to_owned);
    let query = query(&[("status", Some("open".to_owned())), ("limit", Some("1000".to_owned())), ("before", before)]);
    let (page, _) = client.get::<RunList>(&format!("/api/v2/orchestrate/runs{query}"))?;
    let run = |run: RunRow| OpenRun { run_id: run.run_id, workflow: run.workflow, plan: run.plan_id };
    Ok((page.runs.into_iter().map(run).collect(), page.next))
}
