//! `runs start`, `runs follow`.

use std::io::Write;

use http::Method;
use serde_json::json;

use super::follow::{Follow, progress};
use super::{path, show, value, who};
use crate::admin::types::{Orchestration, RunData, RunStatus, StartRequest};
use crate::cli::Done;
use crate::cli::args::Start;
use crate::cli::client::{CallError, Client};
use crate::cli::paint::Paint;

/// How long the server may wait for the run: shorter than what a call may take here.
const WAIT: &str = "wait=8";

pub(crate) fn start(client: &Client, start: Start, out: Paint, err: Paint) -> Result<Done, CallError> {
    let Start { workflow, input, key, follow, server } = start;
    let ask = StartRequest {
        workflow: Some(workflow),
        query: None,
        input: input.as_deref().map(value).transpose()?.unwrap_or_default(),
        stream: follow,
        idempotency_key: key,
        by: who(&server),
    };
    const PATH: &str = "/api/v2/orchestrate/run";
    if follow {
        let first = client.open(Method::POST, PATH, Some(&json!(ask)), None)?;
        return watch(client, Follow::new(first, None), out, err);
    }
    let (envelope, json) = client.post_preferring::<Orchestration>(PATH, &ask, WAIT)?;
    Ok(ended(&envelope.data, json, out))
}

pub(crate) fn follow(client: &Client, run: &str, out: Paint, err: Paint) -> Result<Done, CallError> {
    // A job's newest run may change on the way: the one that is newest now is followed.
    let (envelope, _) = client.get::<Orchestration>(&path(run, ""))?;
    let run = envelope.data.run_id;
    let first = client.open(Method::GET, &path(&run, "/stream"), None, None)?;
    watch(client, Follow::new(first, Some(run)), out, err)
}

/// Tells what happens until the run ends, and shows it then.
fn watch(client: &Client, mut follow: Follow, out: Paint, err: Paint) -> Result<Done, CallError> {
    while let Some(frame) = follow.next(client)? {
        // Nobody needs to read it.
        let _ = std::io::stderr().write_all(progress(&frame, err).as_bytes());
    }
    let run = follow.run().ok_or_else(|| {
        CallError::Unreachable(
            "the stream ended without a run".to_owned(),
            "look with `pointsman runs list`".to_owned(),
        )
    })?;
    let (envelope, json) = client.get::<Orchestration>(&path(run, ""))?;
    Ok(ended(&envelope.data, json, out))
}

/// The run as it stands; a run that ended otherwise than it should is no success.
fn ended(data: &RunData, json: serde_json::Value, paint: Paint) -> Done {
    let fine = match data.status {
        RunStatus::Failed | RunStatus::Cancelled | RunStatus::Abandoned => false,
        RunStatus::Queued
        | RunStatus::Running
        | RunStatus::WaitingCheckpoint
        | RunStatus::WaitingSignal
        | RunStatus::Paused
        | RunStatus::Compensating
        | RunStatus::Completed => true,
    };
    Done { text: show::text(data, &[], jiff::Timestamp::now(), paint), json, fine }
}
