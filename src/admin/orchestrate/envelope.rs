//! Builds the envelope of a run: the JSON document in which the API shows it.
//!
//! Always true: except for `trouble` and the job's `mode`, the envelope is a function of the events of the run and of
//! its descendants, of the plan's source and of the routes, so that a repeated request gets the same envelope;
//! requests, responses and items in it are redacted. A run whose events cannot be read is shown by `unreadable`.

use serde_json::Value;

use super::load::RunForDisplay;
use crate::admin::state::ApiState;
use crate::admin::types::{
    AuditReceipt, AuthMode, Delivery, Durability, JobKind, JobObject, JobPart, Links, OpenConflict, Orchestration,
    OrchestrationObject, PendingCheckpoint, ReceiptObject, ReceiptSource, ReviewRow, RunData, RunError, RunObject,
    RunPart, SentRequest, StepRow, UndoRow, UndoState,
};
use crate::compare::redact;
use crate::names::{JobId, RunId, StepId};
use crate::secret::redact_line;
use crate::workflow::{
    CallRecord, Conflict, Event, Failure, OpenCheckpoint, RunStarted, RunStatus, StepStatus, UNVERIFIED, UndoStatus,
    describe_bytes,
};

/// The path of a run is this prefix, a slash and its id.
pub(super) const RUN_PATH: &str = "/api/v2/orchestrate/run";

/// The envelope of a run.
pub(super) fn envelope(state: &ApiState, loaded: &RunForDisplay, delivery: Delivery) -> Orchestration {
    let view = &loaded.view;
    let started = loaded.started();
    // The method and path of the route that started the run, if the route still exists.
    let route = started.route.as_ref().and_then(|id| {
        let set = state.parts.ladder.flags();
        let matches = &set.route(id)?.route.matches;
        Some((matches.method.to_string(), matches.path.clone()))
    });
    let (run, job) = (view.run_id.to_string(), job_of(started).to_string());
    let checkpoints = checkpoints(loaded);
    Orchestration {
        object: OrchestrationObject::Orchestration,
        data: RunData {
            job_id: job.clone(),
            run_id: run.clone(),
            plan_id: view.plan_id.clone(),
            status: view.status,
            job: JobPart {
                object: JobObject::Job,
                id: job.clone(),
                kind: JobKind::Orchestration,
                status: view.status,
                mode: delivery,
                durability: Durability::Persisted,
                run_id: run.clone(),
            },
            run: RunPart {
                object: RunObject::Run,
                id: run.clone(),
                job_id: job,
                status: view.status,
                mode: view.mode,
                plan_id: view.plan_id.clone(),
                workflow: view.workflow.clone(),
                route: view.route.clone(),
                parent: started.parent.as_ref().map(|parent| parent.run.to_string()),
                rerun_of: started.rerun_of.map(|run| run.to_string()),
                started_by: started.by.clone(),
                started: view.started,
                updated: view.updated,
                seq: view.seq.0,
                note: view.note.clone(),
            },
            steps: steps(loaded),
            pending_checkpoint: checkpoints.first().cloned(),
            checkpoints,
            conflicts: conflicts(loaded),
            output: output(loaded),
            undone: loaded
                .run
                .undone()
                .into_iter()
                .map(|(step, item, undone)| self::undone(step, item, undone))
                .collect(),
            error: loaded.run.failure().filter(|_| view.status != RunStatus::Completed).map(error),
            waits: Vec::new(),
            trouble: trouble(state, view.run_id).filter(|_| !view.status.is_final()),
            audit_receipt: receipt(started, route),
            links: links(view.run_id),
        },
    }
}

/// The paths of a run's endpoints.
pub(super) fn links(run: RunId) -> Links {
    let base = format!("{RUN_PATH}/{run}");
    Links {
        stream: format!("{base}/stream"),
        events: format!("{base}/events"),
        explain: format!("{base}/explain"),
        this: base,
    }
}

/// Why this process cannot execute a run.
fn trouble(state: &ApiState, run: RunId) -> Option<String> {
    state.parts.engine.why_stuck(run).map(|why| why.to_string())
}

/// The job of a run. The first run of a job has the UUID of the job.
pub(super) fn job_of(started: &RunStarted) -> JobId {
    started.job.unwrap_or(JobId(started.run.0))
}

/// The body of the run's reply to its caller.
fn output(loaded: &RunForDisplay) -> Value {
    loaded.run.answer().map_or(Value::Null, |answer| answer.shown_output())
}

fn error(failure: &Failure) -> RunError {
    let Failure { kind, step, item, status, message, retry_after_ms: _, below: _ } = failure;
    RunError {
        kind: *kind,
        step_id: step.as_ref().map(ToString::to_string),
        item: *item,
        status: *status,
        message: message.clone(),
    }
}

fn undone(step: &StepId, item: Option<u32>, undone: UndoStatus) -> UndoRow {
    let (state, why) = match undone {
        UndoStatus::NotYet => (UndoState::NotYet, None),
        UndoStatus::Undone => (UndoState::Undone, None),
        UndoStatus::Rehearsed => (UndoState::Rehearsed, None),
        UndoStatus::Left(why) => (UndoState::NotUndone, Some(why)),
    };
    UndoRow { step_id: step.to_string(), item, state, why }
}

fn receipt(started: &RunStarted, route: Option<(String, String)>) -> AuditReceipt {
    let (auth_mode, source) = match (&started.parent, &started.by) {
        (Some(parent), _) => {
            (AuthMode::Run, ReceiptSource { method: String::new(), route: format!("{RUN_PATH}/{}", parent.run) })
        }
        (None, Some(by)) => {
            let mode = if by.ends_with(UNVERIFIED) { AuthMode::Loopback } else { AuthMode::Token };
            let path = match started.rerun_of {
                Some(of) => format!("{RUN_PATH}/{of}/rerun"),
                None => RUN_PATH.to_owned(),
            };
            (mode, ReceiptSource { method: "POST".to_owned(), route: path })
        }
        (None, None) => {
            let id = started.route.as_ref().map(ToString::to_string).unwrap_or_default();
            let (method, path) = route.unwrap_or((String::new(), id));
            (AuthMode::Route, ReceiptSource { method, route: path })
        }
    };
    AuditReceipt {
        object: ReceiptObject::AuditReceipt,
        request_id: format!("req_{}", started.run.0.simple()),
        auth_mode,
        source,
    }
}

/// The steps that have begun, in the order in which they began; then the steps of the plan that have not.
fn steps(loaded: &RunForDisplay) -> Vec<StepRow> {
    let effect = |name: &str| {
        loaded.events.iter().find_map(|stored| match &stored.event {
            Event::StepStarted(started) if started.step.as_str() == name => Some(started.effect.as_str().to_owned()),
            _ => None,
        })
    };
    let mut rows: Vec<StepRow> = loaded
        .view
        .steps
        .iter()
        .map(|step| StepRow {
            step_id: step.step.to_string(),
            status: step_status_name(step.status),
            started: Some(step.started),
            duration_ms: Some(step.duration_ms),
            attempts: step.attempts,
            effect: effect(step.step.as_str()),
            items: step.items,
            items_ended: step.items_ended,
            http_status: step.http_status,
            note: step.note.as_deref().map(redact_line),
        })
        .collect();
    for name in loaded.planned_steps() {
        if !rows.iter().any(|row| row.step_id == name) {
            rows.push(StepRow {
                step_id: name.to_owned(),
                status: if loaded.view.status.is_final() { "not_run" } else { "pending" }.to_owned(),
                started: None,
                duration_ms: None,
                attempts: 0,
                effect: None,
                items: None,
                items_ended: None,
                http_status: None,
                note: None,
            });
        }
    }
    rows
}

/// A step's status, as it is called in JSON.
pub(super) fn step_status_name(status: StepStatus) -> String {
    match serde_json::to_value(status) {
        Ok(Value::String(name)) => name,
        _ => String::new(),
    }
}

/// Open checkpoints: the run's own, the oldest first, then those of its descendants.
fn checkpoints(loaded: &RunForDisplay) -> Vec<PendingCheckpoint> {
    let all = std::iter::once(&loaded.run).chain(&loaded.waiting_descendants);
    all.flat_map(|run| {
        let mut open: Vec<&OpenCheckpoint> = run.open_checkpoints().collect();
        open.sort_by_key(|asked| asked.at);
        open.into_iter().map(|asked| checkpoint(asked, run.id()))
    })
    .collect()
}

/// Open conflicts: the run's own, then those of its descendants.
fn conflicts(loaded: &RunForDisplay) -> Vec<OpenConflict> {
    let all = std::iter::once(&loaded.run).chain(&loaded.waiting_descendants);
    all.flat_map(|run| run.conflicts().iter().map(|conflict| self::conflict(conflict, run.id()))).collect()
}

/// A checkpoint as the API shows it.
pub(super) fn checkpoint(asked: &OpenCheckpoint, run: RunId) -> PendingCheckpoint {
    let OpenCheckpoint {
        checkpoint,
        step,
        item,
        kind,
        risk,
        question,
        schema,
        who,
        items,
        at,
        until,
        on_timeout,
        default: _,
        base_url: _,
    } = asked;
    let items = items.iter().map(|item| ReviewRow {
        index: item.index,
        what: redact_line(&item.what),
        value: redacted(&item.value),
    });
    PendingCheckpoint {
        id: checkpoint.to_string(),
        run_id: run.to_string(),
        step_id: step.to_string(),
        item: *item,
        kind: *kind,
        risk: *risk,
        question: question.clone(),
        schema: schema.as_ref().map_or(Value::Null, |schema| (**schema).clone()),
        who: who.clone(),
        items: items.collect(),
        opened: *at,
        until: *until,
        on_timeout: *on_timeout,
        answer: format!("{RUN_PATH}/{run}/checkpoints/{checkpoint}"),
    }
}

/// A conflict as the API shows it.
pub(super) fn conflict(conflict: &Conflict, run: RunId) -> OpenConflict {
    let Conflict {
        kind,
        step,
        item,
        part,
        attempt,
        message,
        status,
        request,
        key,
        response,
        expected,
        choices,
        names_earlier_url: _,
        missing: _,
    } = conflict;
    OpenConflict {
        kind: *kind,
        run_id: run.to_string(),
        step_id: step.to_string(),
        item: *item,
        part: *part,
        attempt: *attempt,
        message: message.clone(),
        expected: expected.clone(),
        status: *status,
        request: request.as_deref().map(sent_request),
        idempotency_key: key.clone(),
        response: response.as_ref().map_or(Value::Null, |response| redacted(response)),
        choices: choices.clone(),
        resolve: format!("{RUN_PATH}/{run}/resolve"),
    }
}

fn sent_request(record: &CallRecord) -> SentRequest {
    let CallRecord { method, url, headers, body, secrets: _ } = record;
    SentRequest {
        method: method.clone(),
        url: redact_line(url),
        headers: headers.iter().map(|(name, value)| (name.clone(), redacted_header(name, value))).collect(),
        body: redacted(&body.value()),
    }
}

/// A header's value; redacted if the name is that of a credential.
fn redacted_header(name: &str, value: &str) -> String {
    let fields = Value::Object([(name.to_owned(), Value::from(value))].into_iter().collect());
    redact(&fields).get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// Redacts a JSON value by the names of its keys. A number or boolean outside any object has no key; it is shown,
/// since the person who decides needs to see it.
fn redacted(value: &Value) -> Value {
    let mut value = value.clone();
    describe_bytes(&mut value);
    redacted_by_name(&value)
}

fn redacted_by_name(value: &Value) -> Value {
    match value {
        Value::Object(_) => redact(value),
        Value::Array(items) => Value::Array(items.iter().map(redacted_by_name).collect()),
        Value::String(text) => Value::String(redact_line(text)),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}
