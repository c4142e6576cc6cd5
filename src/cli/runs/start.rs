//! `runs start`, `runs follow`.

use std::io::Write;

use http::Method;
use serde_json::json;

use super::common::{json_argument, path};
use super::event_stream::{RunStream, progress};
use super::show;
use crate::admin::types::{Orchestration, RunData, RunStatus, StartRequest};
use crate::cli::args::Start;
use crate::cli::client::{CallError, Client};
use crate::cli::format::Formatter;
use crate::cli::output::Output;

/// How long the server may wait for the run: shorter than the client's own bound on a request.
const WAIT: &str = "wait=8";

pub(crate) fn start(client: &Client, start: Start, out: Formatter, err: Formatter) -> Result<Output, CallError> {
    let Start { workflow, input, key, follow, server } = start;
    let request = StartRequest {
        workflow: Some(workflow),
        query: None,
        input: input.as_deref().map(json_argument).transpose()?.unwrap_or_default(),
        stream: follow,
        idempotency_key: key,
        by: server.caller_name(),
    };
    const PATH: &str = "/api/v2/orchestrate/run";
    if follow {
        let first = client.open(Method::POST, PATH, Some(&json!(request)), None)?;
        return watch(client, RunStream::new(first, None), out, err);
    }
    let (envelope, json) = client.post_preferring::<Orchestration>(PATH, &request, WAIT)?;
    Ok(run_output(&envelope.data, json, out))
}

pub(crate) fn follow(client: &Client, run: &str, out: Formatter, err: Formatter) -> Result<Output, CallError> {
    // A job's newest run may change while it is followed: the one that is newest now is followed to its end.
    let (envelope, _) = client.get::<Orchestration>(&path(run, ""))?;
    let run = envelope.data.run_id;
    let first = client.open(Method::GET, &path(&run, "/stream"), None, None)?;
    watch(client, RunStream::new(first, Some(run)), out, err)
}

/// Prints events to stderr until the run ends, then returns the run.
fn watch(client: &Client, mut stream: RunStream, out: Formatter, err: Formatter) -> Result<Output, CallError> {
    while let Some(event) = stream.next(client)? {
        // A closed stderr is no error.
        let _ = std::io::stderr().write_all(progress(&event, err).as_bytes());
    }
    let run = stream.run().ok_or_else(|| {
        CallError::Failed(
            "the event stream ended before it named the run".to_owned(),
            "find the run with `pointsman runs list`".to_owned(),
        )
    })?;
    let (envelope, json) = client.get::<Orchestration>(&path(run, ""))?;
    Ok(run_output(&envelope.data, json, out))
}

/// The run's present state; the exit code is 1 for a run that failed, was cancelled or abandoned.
fn run_output(data: &RunData, json: serde_json::Value, format: Formatter) -> Output {
    let is_ok = match data.status {
        RunStatus::Failed | RunStatus::Cancelled | RunStatus::Abandoned => false,
        RunStatus::Queued
        | RunStatus::Running
        | RunStatus::WaitingCheckpoint
        | RunStatus::WaitingSignal
        | RunStatus::Paused
        | RunStatus::Compensating
        | RunStatus::Completed => true,
    };
    Output { text: show::text(data, &[], jiff::Timestamp::now(), format), json, is_ok }
}
