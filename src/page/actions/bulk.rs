//! One action on several runs: first a preview, then the action.

use std::collections::BTreeSet;

use axum::response::Response;
use futures_util::StreamExt;
use futures_util::stream;
use http::StatusCode;
use maud::html;

use crate::admin::types::{CancelRequest, Orchestration, PauseRequest, RetryRequest};
use crate::page::actions::bulk_preview::{BulkAction, SelectedRun, outcome, preview};
use crate::page::actions::form_state::{Person, typed_lines};
use crate::page::client::{Client, segment};
use crate::page::failure::Failure;
use crate::page::html::respond;
use crate::page::request::{Fields, Submitted, Visit};

/// The most runs of one action.
const RUNS_MAX: usize = 500;
/// How many requests to the API are made at the same time.
const REQUESTS_MAX: usize = 8;

/// Shows what an action would do to the selected runs, or, once that is confirmed, does it.
pub(in crate::page) async fn perform(Submitted { visit, fields }: Submitted) -> Result<Response, Failure> {
    let visit = visit.part("runs");
    let mut seen = BTreeSet::new();
    let runs: Vec<String> = fields.all("run").filter(|run| seen.insert(*run)).map(str::to_owned).collect();
    let name = fields.get("action").unwrap_or_default();
    let Some(action) = BulkAction::named(name) else {
        let known: Vec<&str> = BulkAction::ALL.iter().map(|(.., title)| *title).collect();
        let why = format!("These actions can be done to several runs: {}.", known.join(", "));
        return Ok(refused(&visit, StatusCode::NOT_FOUND, "There is no such action", &why));
    };
    if !visit.may(action.command().scope()) {
        let why = format!("For this, you need a token with the scope {}.", action.command().scope());
        return Ok(refused(&visit, StatusCode::FORBIDDEN, "You may not do this", &why));
    }
    if runs.is_empty() {
        let why = "Select one or more runs in the list, then choose the action again.";
        return Ok(refused(&visit, StatusCode::UNPROCESSABLE_ENTITY, "No run is selected", why));
    }
    if runs.len() > RUNS_MAX {
        let why = format!("{} runs are selected, and one action takes at most {RUNS_MAX}.", runs.len());
        return Ok(refused(&visit, StatusCode::UNPROCESSABLE_ENTITY, "Too many runs are selected", &why));
    }
    let is_confirmed = fields.get("confirmed") == Some("yes");
    let (client, reason) = (&visit.client, reason(&fields));
    let results: Vec<SelectedRun> = stream::iter(runs)
        .map(|run| {
            let reason = reason.clone();
            async move {
                match is_confirmed {
                    true => send(client, run, action, reason).await,
                    false => look(client, run).await,
                }
            }
        })
        .buffered(REQUESTS_MAX)
        .collect()
        .await;
    let (title, content) = match is_confirmed {
        true => ("What became of the runs", outcome(action, &results)),
        false => ("What will happen", preview(&Person::of(&visit), action, &results)),
    };
    Ok(respond(StatusCode::OK, &visit.frame, title, content))
}

fn reason(fields: &Fields) -> Option<String> {
    fields.get("/reason").map(typed_lines)
}

fn path(run: &str, rest: &str) -> String {
    format!("/api/v2/orchestrate/run/{}{rest}", segment(run))
}

async fn look(client: &Client, run: String) -> SelectedRun {
    let found = client.get::<Orchestration>(&path(&run, "")).await;
    (run, found.map(|envelope| Box::new(envelope.data)))
}

/// Gives a run its command; the result is the run after it.
async fn send(client: &Client, run: String, action: BulkAction, reason: Option<String>) -> SelectedRun {
    let path = path(&run, &format!("/{}", action.command().name()));
    let cancel = |compensate, reason| CancelRequest { compensate, reason, by: None };
    let sent = match action {
        BulkAction::Pause | BulkAction::Resume => {
            client.post::<Orchestration>(&path, &PauseRequest { reason, by: None }).await
        }
        BulkAction::Retry => client.post(&path, &RetryRequest::default()).await,
        BulkAction::Cancel => client.post(&path, &cancel(true, reason)).await,
        BulkAction::CancelWithoutUndo => client.post(&path, &cancel(false, reason)).await,
    };
    (run, sent.map(|envelope| Box::new(envelope.data)))
}

/// The page of an action that is not done to any run.
fn refused(visit: &Visit, status: StatusCode, title: &str, why: &str) -> Response {
    let content = html! {
        h1 { (title) }
        p { (why) " Nothing was done." }
        p { a href="/runs" { "Back to the runs" } }
    };
    respond(status, &visit.frame, title, content)
}
