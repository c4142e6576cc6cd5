//! The envelope of a run, made from its events.
//!
//! Always true: it is a function of the events, of those of the runs below it, of the plan's source and of where routes
//! stand, so that whoever asks again gets the same; requests, replies and items that it shows are redacted.

use serde_json::Value;

use super::{Seen, open_checkpoints};
use crate::admin::types::{
    AuditReceipt, AuthMode, Delivery, Durability, JobKind, JobObject, JobPart, Links, OpenConflict, Orchestration,
    OrchestrationObject, PendingCheckpoint, ReceiptObject, ReceiptSource, ReviewRow, RunData, RunError, RunObject,
    RunPart, SentRequest, StepRow, UndoneRow, UndoneWord,
};
use crate::compare::redact;
use crate::names::{JobId, RunId, StepId};
use crate::secret::redact_line;
use crate::workflow::{
    Asked, CallRecord, Conflict, Event, Failure, RunStarted, RunStatus, StepStatus, UNVERIFIED, Undone,
};

/// Where the paths of one run begin.
pub(super) const RUN: &str = "/api/v2/orchestrate/run";

/// The envelope of what was seen. `route` is the method and path of the route that started it, where that is known.
pub(super) fn envelope(seen: &Seen, delivery: Delivery, route: Option<(String, String)>) -> Orchestration {
    let view = &seen.view;
    let started = seen.started();
    let (run, job) = (view.run_id.to_string(), job_of(started).to_string());
    let checkpoints = checkpoints(seen);
    let base = format!("{RUN}/{run}");
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
            steps: steps(seen),
            pending_checkpoint: checkpoints.first().cloned(),
            checkpoints,
            conflicts: conflicts(seen),
            output: output(seen),
            undone: seen
                .run
                .undone()
                .into_iter()
                .map(|(step, item, undone)| self::undone(step, item, undone))
                .collect(),
            error: seen.run.failure().filter(|_| view.status != RunStatus::Completed).map(error),
            audit_receipt: receipt(started, route),
            links: Links {
                stream: format!("{base}/stream"),
                events: format!("{base}/events"),
                explain: format!("{base}/explain"),
                this: base,
            },
        },
    }
}

/// The request for a result that a run belongs to.
pub(super) fn job_of(started: &RunStarted) -> JobId {
    started.job.unwrap_or(JobId(started.run.0))
}

/// The body of the answer.
fn output(seen: &Seen) -> Value {
    seen.run.answer().map_or(Value::Null, |answer| answer.body.value())
}

fn error(failure: &Failure) -> RunError {
    let Failure { kind, step, item, status, message, retry_after_ms: _ } = failure;
    RunError {
        kind: *kind,
        step_id: step.as_ref().map(ToString::to_string),
        item: *item,
        status: *status,
        message: message.clone(),
    }
}

fn undone(step: &StepId, item: Option<u32>, undone: Undone) -> UndoneRow {
    let (state, why) = match undone {
        Undone::NotYet => (UndoneWord::NotYet, None),
        Undone::Undone => (UndoneWord::Undone, None),
        Undone::Rehearsed => (UndoneWord::Rehearsed, None),
        Undone::Left(why) => (UndoneWord::Left, Some(why)),
    };
    UndoneRow { step_id: step.to_string(), item, state, why }
}

fn receipt(started: &RunStarted, route: Option<(String, String)>) -> AuditReceipt {
    let (auth_mode, source) = match (&started.parent, &started.by) {
        (Some(parent), _) => {
            (AuthMode::Run, ReceiptSource { method: String::new(), route: format!("{RUN}/{}", parent.run) })
        }
        (None, Some(by)) => {
            let mode = if by.ends_with(UNVERIFIED) { AuthMode::Loopback } else { AuthMode::Token };
            let path = match started.rerun_of {
                Some(of) => format!("{RUN}/{of}/rerun"),
                None => RUN.to_owned(),
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

/// Steps that have begun, in the order in which they did; then those of the plan that have not.
fn steps(seen: &Seen) -> Vec<StepRow> {
    let effect = |name: &str| {
        seen.events.iter().find_map(|stored| match &stored.event {
            Event::StepStarted(started) if started.step.as_str() == name => Some(started.effect.as_str().to_owned()),
            _ => None,
        })
    };
    let mut rows: Vec<StepRow> = seen
        .view
        .steps
        .iter()
        .map(|step| StepRow {
            step_id: step.step.to_string(),
            status: word(step.status).to_owned(),
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
    for name in seen.planned() {
        if !rows.iter().any(|row| row.step_id == name) {
            rows.push(StepRow {
                step_id: name.to_owned(),
                status: if seen.view.status.is_final() { "not_run" } else { "pending" }.to_owned(),
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

/// A step's status in a word.
pub(super) fn word(status: StepStatus) -> String {
    match serde_json::to_value(status) {
        Ok(Value::String(word)) => word,
        _ => String::new(),
    }
}

/// Its own, then those of the runs below it.
fn checkpoints(seen: &Seen) -> Vec<PendingCheckpoint> {
    let all = std::iter::once(&seen.run).chain(&seen.below);
    all.flat_map(|run| open_checkpoints(run).into_iter().map(|asked| checkpoint(asked, run.id()))).collect()
}

/// The same.
fn conflicts(seen: &Seen) -> Vec<OpenConflict> {
    let all = std::iter::once(&seen.run).chain(&seen.below);
    all.flat_map(|run| run.conflicts().iter().map(|conflict| self::conflict(conflict, run.id()))).collect()
}

/// A checkpoint as people see it.
pub(super) fn checkpoint(asked: &Asked, run: RunId) -> PendingCheckpoint {
    let Asked { checkpoint, step, item, kind, risk, question, schema, who, items, at, until, on_timeout, default: _ } =
        asked;
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
        answer: format!("{RUN}/{run}/checkpoints/{checkpoint}"),
    }
}

/// A conflict as people see it.
pub(super) fn conflict(conflict: &Conflict, run: RunId) -> OpenConflict {
    let Conflict { kind, step, item, part, attempt, message, status, request, key, response, expected, choices } =
        conflict;
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
        request: request.as_deref().map(sent),
        idempotency_key: key.clone(),
        response: response.as_ref().map_or(Value::Null, |response| redacted(response)),
        choices: choices.clone(),
        resolve: format!("{RUN}/{run}/resolve"),
    }
}

fn sent(record: &CallRecord) -> SentRequest {
    let CallRecord { method, url, headers, body } = record;
    SentRequest {
        method: method.clone(),
        url: redact_line(url),
        headers: headers.iter().map(|(name, value)| (name.clone(), header(name, value))).collect(),
        body: redacted(&body.value()),
    }
}

/// A header whose name says that it is a credential shows stars.
fn header(name: &str, value: &str) -> String {
    let fields = Value::Object([(name.to_owned(), Value::from(value))].into_iter().collect());
    redact(&fields).get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// Redacted by the names of keys; a value without keys has nothing to judge it by, and a person has to see it.
fn redacted(value: &Value) -> Value {
    match value {
        Value::Object(_) => redact(value),
        Value::Array(items) => Value::Array(items.iter().map(redacted).collect()),
        Value::String(text) => Value::String(redact_line(text)),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}
