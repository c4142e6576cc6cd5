//! The words of each kind of event.

use serde_json::{Value, json};

use super::*;
use crate::page::runs::event_fields::Subjects;
use crate::page::runs::event_fields::tests::event;

fn said_of(kind: &str, fields: Value) -> EventWords {
    let rows = [event(1, kind, fields)];
    event_words(&rows[0], Subjects::of(&rows).subject(&rows[0]))
}

#[test]
fn calls_are_told_with_what_was_sent_and_what_came_back() {
    let request = json!({ "method": "POST", "url": "http://bank/charges", "headers": [], "body": "empty" });
    let started = said_of("step_started", json!({ "step": "pay", "item": 2, "attempt": 1, "request": request }));
    assert_eq!(started.text, "`pay` (item 2) began: POST http://bank/charges.");
    let again =
        said_of("step_started", json!({ "step": "pay", "item": null, "attempt": 3, "part": "undo", "request": null }));
    assert_eq!(again.text, "Attempt 3 of the undo of `pay` began.");
    let outcome = |outcome: Value| said_of("step_finished", json!({ "step": "pay", "outcome": outcome })).text;
    assert_eq!(outcome(json!({ "done": { "status": 201 } })), "`pay` is done: the service answered 201.");
    assert_eq!(outcome(json!({ "failed": { "failure": { "message": "no money" } } })), "`pay` failed: no money.");
    assert_eq!(
        outcome(json!({ "rehearsed": { "intent": request } })),
        "`pay` was rehearsed: POST http://bank/charges was recorded and not sent."
    );
    let retry = json!({ "step": "pay", "attempt": 1, "unknown": true, "why": "503", "at": "2026-12-01T12:05:00Z" });
    let retry = said_of("retry_scheduled", retry);
    assert_eq!(retry.text, "Attempt 1 of `pay` had no result: 503. It is unknown whether it took effect.");
    assert_eq!(retry.later.map(|(what, _)| what), Some("The next attempt starts"));
}

#[test]
fn who_decided_and_why_is_told() {
    let resolved =
        json!({ "step": "pay", "choice": { "cancel": { "compensate": false } }, "by": "ann", "reason": "late" });
    let resolved = said_of("resolved", resolved);
    assert_eq!(resolved.text, "The conflict at `pay` was resolved: the run is cancelled without undoing.");
    assert_eq!((resolved.by.as_deref(), resolved.reason.as_deref()), (Some("ann"), Some("late")));
    let rows = [
        event(
            1,
            "checkpoint_opened",
            json!({ "checkpoint": "chk_1", "step": "ask", "question": "Really?", "risk": "high",
            "who": ["ann", "bob"], "until": null, "on_timeout": "reject" }),
        ),
        event(
            2,
            "checkpoint_answered",
            json!({ "checkpoint": "chk_1", "by": "bob",
            "said": { "approve": true, "approved": [0], "struck": [1, 2], "note": "fine" } }),
        ),
        event(
            3,
            "checkpoint_answered",
            json!({ "checkpoint": "chk_1", "by": "time-out", "said": { "approve": false } }),
        ),
    ];
    let subjects = Subjects::of(&rows);
    let words = rows.each_ref().map(|row| event_words(row, subjects.subject(row)));
    assert_eq!(words[0].text, "`ask` asks: Really? (risk high)");
    assert_eq!(words[0].reason.as_deref(), Some("asked: ann, bob"));
    assert_eq!(words[1].text, "The question of `ask` was answered: yes; 1 items were approved and 2 struck out.");
    assert_eq!((words[1].by.as_deref(), words[1].reason.as_deref()), (Some("bob"), Some("fine")));
    assert_eq!(
        (words[2].text.as_str(), &words[2].by),
        ("Nobody answered the question of `ask` in time: it counts as no.", &None)
    );
}

#[test]
fn beginnings_and_ends_of_runs_are_told() {
    let started = said_of("run_started", json!({ "workflow": "orders", "route": "orders.create", "by": null }));
    assert_eq!(
        (started.text.as_str(), started.by.as_deref()),
        ("The run of `orders` began.", Some("route orders.create"))
    );
    let undo = json!({ "undo": [[["pay", null]], [["reserve", 0], ["reserve", 1]]] });
    let began = said_of("compensation_began", undo);
    assert_eq!(began.text, "The run began to undo `pay`, `reserve` (item 0), `reserve` (item 1).");
    let superseded = said_of("superseded", json!({ "by": "run_2", "from": "pay", "who": "ann" }));
    assert_eq!((superseded.run.as_deref(), superseded.by.as_deref()), (Some("run_2"), Some("ann")));
    let child = said_of(
        "child_ended",
        json!({ "step": "ship", "item": null, "child": "run_3", "status": "waiting_signal", "note": "x" }),
    );
    assert_eq!(child.text, "The run that `ship` began ended: waiting signal.");
}

/// The kinds of a newer version, and events whose fields have other types, are no reason to fail.
#[test]
fn every_kind_has_words_whatever_its_fields_are() {
    const KINDS: &[&str] = &[
        "run_started",
        "step_started",
        "step_finished",
        "retry_scheduled",
        "step_computed",
        "step_skipped",
        "fan_out_opened",
        "fail_reached",
        "fallback_taken",
        "probed",
        "result_taken",
        "wait_began",
        "signal_received",
        "wait_ended",
        "lock_queued",
        "lock_taken",
        "lock_left",
        "child_started",
        "child_ended",
        "checkpoint_opened",
        "checkpoint_answered",
        "checkpoint_escalated",
        "paused",
        "resolved",
        "pause_ordered",
        "resumed",
        "cancel_ordered",
        "input_adjusted",
        "retried_now",
        "responded",
        "pending_answered",
        "answer_failed",
        "deadline_passed",
        "compensation_began",
        "completed",
        "failed",
        "cancelled",
        "superseded",
        "abandoned",
    ];
    for kind in KINDS {
        for fields in [json!({}), json!([1]), Value::Null, json!({ "step": 7, "outcome": 1, "undo": [1, [2]] })] {
            let words = said_of(kind, fields);
            let is_general = words.text.starts_with(&format!("{}: ", kind.replace('_', " ")));
            assert!(words.text.len() > 3 && !is_general, "{kind}: {words:?}");
        }
    }
    assert!(said_of("brand_new", json!({ "a": 1 })).text.starts_with("brand new: {"));
}
