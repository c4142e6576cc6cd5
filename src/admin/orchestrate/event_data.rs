//! The name of the server-sent event for an event of a run, and its data in addition to the sequence number, time, kind
//! and status.

use serde_json::{Value, json};

use super::envelope;
use crate::names::RunId;
use crate::workflow::{
    AnswerEvent, CheckpointEvent, ChildEvent, ConflictEvent, ControlEvent, EndingEvent, Event, LockEvent, Outcome,
    StepEvent, WaitEvent,
};

type NameAndData = (&'static str, Value);

/// The name and data for one event of a run.
pub(super) fn name_and_data(event: &Event, run: RunId) -> NameAndData {
    match event {
        // `stream` adds the plan's steps, which are not in the event.
        Event::RunStarted(_) => ("plan", Value::Null),
        Event::StepStarted(started) => (
            "step_started",
            json!({ "step_id": started.step, "item": started.item, "part": started.part, "attempt": started.attempt }),
        ),
        Event::StepFinished(finished) => (
            "step_finished",
            json!({
                "step_id": finished.step, "item": finished.item, "part": finished.part,
                "attempt": finished.attempt, "outcome": outcome_name(&finished.outcome),
            }),
        ),
        Event::RetryScheduled(retry) => (
            "step_retrying",
            json!({
                "step_id": retry.step, "item": retry.item, "part": retry.part, "attempt": retry.attempt,
                "unknown": retry.unknown, "why": retry.why, "next": retry.at,
            }),
        ),
        Event::Step(event) => of_step(event),
        Event::Wait(event) => of_wait(event),
        Event::Lock(event) => of_lock(event),
        Event::Child(event) => of_child(event),
        Event::Checkpoint(event) => of_checkpoint(event, run),
        Event::Conflict(event) => of_conflict(event, run),
        Event::Control(event) => of_control(event),
        Event::Answer(event) => of_answer(event),
        Event::Ending(event) => of_ending(event),
    }
}

fn of_step(event: &StepEvent) -> NameAndData {
    match event {
        StepEvent::Computed { step, .. } => ("step_finished", json!({ "step_id": step, "outcome": "done" })),
        StepEvent::Skipped { step, item, reason } => {
            ("step_finished", json!({ "step_id": step, "item": item, "outcome": "skipped", "why": reason }))
        }
        StepEvent::FailReached { step, .. } => ("step_finished", json!({ "step_id": step, "outcome": "done" })),
        StepEvent::FallbackTaken { step, item, by, failure } => {
            ("step_retrying", json!({ "step_id": step, "item": item, "fallback": by, "why": failure.message }))
        }
        StepEvent::Probed { step, item, attempt, done, .. } => {
            ("progress", json!({ "step_id": step, "item": item, "attempt": attempt, "done": done }))
        }
        StepEvent::FanOutOpened { step, items, .. } => ("progress", json!({ "step_id": step, "items": items.len() })),
        StepEvent::ResultTaken(taken) => {
            ("progress", json!({ "step_id": taken.step, "origin": taken.origin.to_string() }))
        }
    }
}

fn of_wait(event: &WaitEvent) -> NameAndData {
    match event {
        WaitEvent::Began { step, until, signal } => {
            ("step_started", json!({ "step_id": step, "until": until, "signal": signal }))
        }
        WaitEvent::Ended { step, .. } => ("step_finished", json!({ "step_id": step, "outcome": "done" })),
        WaitEvent::SignalReceived { name, by, .. } => ("progress", json!({ "signal": name, "by": by })),
    }
}

fn of_lock(event: &LockEvent) -> NameAndData {
    match event {
        LockEvent::Queued { step, item, name }
        | LockEvent::Taken { step, item, name }
        | LockEvent::Left { step, item, name } => ("progress", json!({ "step_id": step, "item": item, "lock": name })),
    }
}

fn of_child(event: &ChildEvent) -> NameAndData {
    match event {
        ChildEvent::Started { step, item, child, workflow, .. } => {
            ("step_started", json!({ "step_id": step, "item": item, "child": child.to_string(), "workflow": workflow }))
        }
        ChildEvent::Ended { step, item, child, status, note, .. } => (
            "step_finished",
            json!({ "step_id": step, "item": item, "child": child.to_string(), "outcome": status, "why": note }),
        ),
    }
}

fn of_checkpoint(event: &CheckpointEvent, run: RunId) -> NameAndData {
    match event {
        CheckpointEvent::Opened(asked) => ("checkpoint", json!({ "checkpoint": envelope::checkpoint(asked, run) })),
        CheckpointEvent::Escalated { checkpoint, who, until, on_timeout } => {
            let data = json!({ "escalated": checkpoint, "who": who, "until": until, "on_timeout": on_timeout });
            ("checkpoint", data)
        }
        CheckpointEvent::Answered { checkpoint, answer: said, by } => {
            ("progress", json!({ "checkpoint_id": checkpoint, "approve": said.approve, "by": by }))
        }
    }
}

fn of_conflict(event: &ConflictEvent, run: RunId) -> NameAndData {
    match event {
        ConflictEvent::Paused { conflict, .. } => {
            ("conflict", json!({ "conflict": envelope::conflict(conflict, run) }))
        }
        ConflictEvent::Resolved { step, item, choice, by, reason, .. } => {
            ("progress", json!({ "step_id": step, "item": item, "choice": choice.name(), "by": by, "why": reason }))
        }
    }
}

fn of_control(event: &ControlEvent) -> NameAndData {
    match event {
        ControlEvent::PauseRequested { by, reason, at: _ } | ControlEvent::Resumed { by, reason, at: _ } => {
            ("progress", json!({ "by": by, "why": reason }))
        }
        ControlEvent::CancelRequested { by, compensate, reason, automatic } => {
            ("progress", json!({ "by": by, "compensate": compensate, "why": reason, "automatic": automatic }))
        }
        ControlEvent::InputAdjusted { step, item, by, reason, .. } => {
            ("progress", json!({ "step_id": step, "item": item, "by": by, "why": reason }))
        }
        ControlEvent::RetriedNow { step, item, by } => ("progress", json!({ "step_id": step, "item": item, "by": by })),
    }
}

fn of_answer(event: &AnswerEvent) -> NameAndData {
    match event {
        AnswerEvent::Responded { answer, .. } | AnswerEvent::Pending { answer, .. } => {
            ("progress", json!({ "answer": answer.status }))
        }
        AnswerEvent::Failed { failure } => ("progress", json!({ "why": failure.message })),
    }
}

fn of_ending(event: &EndingEvent) -> NameAndData {
    match event {
        EndingEvent::Abandoned { to, reason } => ("progress", json!({ "to": to, "why": reason })),
        EndingEvent::CompensationBegan { undo } => {
            let undo: Vec<Value> = undo.iter().map(|together| json!(together)).collect();
            ("progress", json!({ "undo": undo }))
        }
        EndingEvent::Superseded(superseded) => {
            let (by, from) = (superseded.successor.to_string(), &superseded.from);
            ("progress", json!({ "superseded_by": by, "from": from, "by": superseded.requested_by }))
        }
        EndingEvent::Completed {} | EndingEvent::DeadlinePassed {} => ("progress", Value::Null),
        EndingEvent::Cancelled { by, reason, unread: _ } => ("progress", json!({ "by": by, "why": reason })),
        EndingEvent::Failed { failure } => ("progress", json!({ "why": failure.message })),
    }
}

fn outcome_name(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Done { .. } => "done",
        Outcome::NotDone { .. } => "not_done",
        Outcome::Unknown { .. } => "unknown",
        Outcome::Unfit { .. } => "unfit",
        Outcome::Failed { .. } => "failed",
        Outcome::Rehearsed { .. } => "rehearsed",
    }
}
