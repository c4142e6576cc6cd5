//! What is shown of a step.

use serde_json::{Value, json};

use super::*;
use crate::page::runs::event_fields::tests::event;
use crate::page::runs::run_timeline::tests::step;

const NOON: &str = "2026-12-01T12:00:00Z";

fn shown(state: &StepRow, events: &[EventRow], output: Option<&Value>, links: &RunLinks) -> String {
    let until = "2026-12-01T12:02:00Z".parse().unwrap();
    let view = StepView { state, planned: None, number: Some(3), events, output, until, links };
    step_panel(&view).into_string()
}

#[test]
fn the_page_opens_on_the_step_that_needs_a_person_then_on_one_that_waits() {
    let steps = [
        step("a", "done", Some(NOON), 1),
        step("b", "running", Some(NOON), 1),
        step("c", "waiting_time", Some(NOON), 1),
        step("d", "conflict", Some(NOON), 1),
    ];
    let name = |steps: &[StepRow], asked| chosen(steps, asked).map(|step| step.step_id.clone());
    assert_eq!(name(&steps, None).as_deref(), Some("d"));
    assert_eq!(name(&steps[..3], None).as_deref(), Some("c"));
    assert_eq!(name(&steps[..2], None).as_deref(), Some("b"));
    assert_eq!(name(&steps[..1], None), None);
    assert_eq!(name(&steps, Some("a")).as_deref(), Some("a"));
    assert_eq!(name(&steps, Some("unknown")), None);
}

#[test]
fn what_was_sent_and_what_came_back_are_shown_and_escaped() {
    let sent = json!({ "method": "POST", "url": "http://bank/<script>", "headers": [["x-<b>", "\"'>"]],
        "body": { "text": "{\"amount\":\"<img src=x>\"}" } });
    let events = [
        event(1, "step_started", json!({ "step": "pay", "item": null, "attempt": 1, "request": sent })),
        event(
            2,
            "step_started",
            json!({ "step": "other", "item": null, "attempt": 1,
            "request": { "method": "GET", "url": "http://other" } }),
        ),
        event(
            3,
            "step_finished",
            json!({ "step": "pay", "item": null, "attempt": 1,
            "outcome": { "done": { "status": 201, "headers": {}, "output": { "id": "<script>" } } } }),
        ),
    ];
    let shown = shown(&step("pay", "done", Some(NOON), 61_000), &events, Some(&json!("out")), &RunLinks::default());
    for expected in
        ["What was sent", "POST http://bank/&lt;script&gt;", "&quot;amount&quot;", "Status 201", "61 s", "#box-3"]
    {
        assert!(shown.contains(expected), "{expected}: {shown}");
    }
    assert!(!shown.contains("http://other"), "the events of other steps are left out");
    assert!(!shown.contains("<script>") && !shown.contains("<img") && !shown.contains("<b>"), "{shown}");
}

#[test]
fn a_rehearsed_step_shows_what_would_have_been_sent() {
    let intent = json!({ "method": "POST", "url": "http://bank/charges", "headers": [], "body": "empty" });
    let events =
        [event(1, "step_finished", json!({ "step": "pay", "outcome": { "rehearsed": { "intent": intent } } }))];
    let shown = shown(&step("pay", "rehearsed", Some(NOON), 1), &events, None, &RunLinks::default());
    assert!(shown.contains("What would have been sent") && !shown.contains("What was sent"), "{shown}");
    assert!(shown.contains("not sent"));
}

#[test]
fn items_are_counted_and_those_that_did_not_go_well_are_linked() {
    let finished = |seq, item: u64, outcome: Value| {
        event(seq, "step_finished", json!({ "step": "pay", "item": item, "attempt": 1, "outcome": outcome }))
    };
    let done = json!({ "done": { "status": 200 } });
    let mut events: Vec<EventRow> = (0..8).map(|item| finished(item + 1, item, done.clone())).collect();
    events.push(finished(9, 8, json!({ "failed": { "failure": { "message": "no money" } } })));
    events.push(event(
        10,
        "paused",
        json!({ "conflict": { "step": "pay", "item": 9, "message": "?",
        "request": { "method": "POST", "url": "http://nine" }, "response": { "code": 7 } } }),
    ));
    let mut state = step("pay", "conflict", Some(NOON), 1);
    (state.items, state.items_ended) = (Some(12), Some(9));
    let all = shown(&state, &events, None, &RunLinks::default());
    for expected in
        ["9 of 12 items have ended.", "8 done.", "1 failed.", "1 needs a decision.", "?step=pay&amp;item=8#step"]
    {
        assert!(all.contains(expected), "{expected}: {all}");
    }
    let one = shown(&state, &events, None, &RunLinks { item: Some(9), ..RunLinks::default() });
    assert!(one.contains("http://nine") && one.contains("All items") && !one.contains("no money"), "{one}");
}
