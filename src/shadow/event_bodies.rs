//! Hides values in the events of a rehearsal that cannot be redacted by name, because no name stands beside them:
//!
//! - bodies that are texts,
//! - texts and numbers in a list without a name,
//! - bytes.
//!
//! Always true: each kind of event is named here, so that the bodies of a new one cannot be forgotten. Bytes are
//! replaced by stars; the caller decides by the content type what becomes of a text.

use std::sync::Arc;

use serde_json::Value;

use crate::expression::SharedJson;
use crate::secret::STARS;
use crate::workflow::{
    AnswerEvent, AnswerRecord, CallRecord, ChildEvent, ConflictEvent, ControlEvent, Event, Outcome, Payload, StepEvent,
    WaitEvent,
};

/// The member of a value that represents bytes.
const BYTES: &str = "$bytes";

/// Hides a text body, of this content type if that is known.
pub(super) type HideText<'a> = dyn Fn(&mut String, Option<&str>) + 'a;

/// Hides the bodies in an event.
pub(super) fn hide_bodies(event: &mut Event, hide: &HideText<'_>) {
    match event {
        Event::RunStarted(started) => {
            let started = Arc::make_mut(started);
            hide_message(Arc::make_mut(&mut started.request), hide);
            if let Some(legacy) = &mut started.legacy {
                hide_message(Arc::make_mut(legacy), hide);
            }
            if let Some(Value::Object(instance)) = started.instance.as_mut().map(Arc::make_mut) {
                instance
                    .iter_mut()
                    .filter(|(name, _)| matches!(name.as_str(), "input" | "output"))
                    .for_each(|(_, body)| hide_value(body, None, hide));
            }
        }
        Event::StepStarted(started) => {
            started.request.iter_mut().for_each(|request| hide_call(request, hide));
        }
        Event::StepFinished(finished) => hide_outcome(&mut finished.outcome, hide),
        Event::RetryScheduled(retry) => hide_shared(&mut retry.response, hide),
        Event::Step(event) => hide_in_step(event, hide),
        Event::Wait(event) => match event {
            WaitEvent::SignalReceived { payload: body, .. } | WaitEvent::Ended { output: body, .. } => {
                hide_value(Arc::make_mut(body), None, hide);
            }
            WaitEvent::Began { .. } => {}
        },
        Event::Child(event) => match event {
            ChildEvent::Started { input, .. } => hide_value(Arc::make_mut(input), None, hide),
            ChildEvent::Ended { output, .. } => hide_output(output, None, hide),
        },
        Event::Conflict(event) => match event {
            ConflictEvent::Paused { conflict, unfit_outcome } => {
                conflict.request.iter_mut().for_each(|request| hide_call(request, hide));
                hide_shared(&mut conflict.response, hide);
                unfit_outcome.iter_mut().for_each(|outcome| hide_outcome(outcome, hide));
            }
            ConflictEvent::Resolved { .. } => {}
        },
        Event::Control(event) => match event {
            ControlEvent::InputAdjusted { input, .. } => hide_value(Arc::make_mut(input), None, hide),
            ControlEvent::PauseRequested { .. }
            | ControlEvent::Resumed { .. }
            | ControlEvent::CancelRequested { .. }
            | ControlEvent::RetriedNow { .. } => {}
        },
        Event::Answer(event) => match event {
            AnswerEvent::Responded { answer, pin: _ } | AnswerEvent::Pending { answer, pin: _ } => {
                hide_answer(answer, hide);
            }
            AnswerEvent::Failed { .. } => {}
        },
        Event::Lock(_) | Event::Checkpoint(_) | Event::Ending(_) => {}
    }
}

fn hide_in_step(event: &mut StepEvent, hide: &HideText<'_>) {
    match event {
        StepEvent::FailReached { answer, .. } => hide_answer(answer, hide),
        StepEvent::Probed { output, .. } => hide_value(Arc::make_mut(output), None, hide),
        StepEvent::ResultTaken(taken) => {
            taken.done.iter_mut().for_each(|done| hide_output(&mut done.output, None, hide));
            if let Some(output) = Arc::make_mut(&mut taken.fields).get_mut("output") {
                hide_value(output, None, hide);
            }
        }
        // The value that was computed may be a service's reply as it was, which may be a text.
        StepEvent::Computed { output, .. } => hide_output(output, None, hide),
        // They were elements of a list, whose name is not in the event.
        StepEvent::FanOutOpened { items, .. } => {
            items.iter_mut().for_each(|item| hide_element(Arc::make_mut(item), None, hide));
        }
        StepEvent::Skipped { .. } | StepEvent::FallbackTaken { .. } => {}
    }
}

fn hide_outcome(outcome: &mut Outcome, hide: &HideText<'_>) {
    match outcome {
        Outcome::Done { headers, output, .. } | Outcome::Unfit { headers, output, .. } => {
            hide_output(output, content_type_of(&*headers), hide);
        }
        Outcome::Rehearsed { intent, output, taken, .. } => {
            hide_call(intent, hide);
            let content_type = taken.as_ref().and_then(|taken| content_type_of(&taken.headers));
            output.iter_mut().for_each(|output| hide_output(output, content_type, hide));
        }
        Outcome::NotDone { .. } | Outcome::Unknown { .. } | Outcome::Failed { .. } => {}
    }
}

fn hide_call(call: &mut Arc<CallRecord>, hide: &HideText<'_>) {
    let CallRecord { headers, body, method: _, url: _, secrets: _ } = Arc::make_mut(call);
    hide_payload(body, content_type_of(headers.iter().map(|(name, value)| (name, value))), hide);
}

fn hide_answer(answer: &mut Arc<AnswerRecord>, hide: &HideText<'_>) {
    let AnswerRecord { headers, body, .. } = Arc::make_mut(answer);
    hide_payload(body, content_type_of(headers.iter().map(|(name, value)| (name, value))), hide);
}

fn hide_payload(body: &mut Payload, content_type: Option<&str>, hide: &HideText<'_>) {
    match body {
        Payload::Empty => {}
        Payload::Text(text) => hide(text, content_type),
        Payload::Base64(bytes) => *bytes = STARS.to_owned(),
    }
}

/// Hides the body of a request or a reply of which a plan reads parts, and the bytes of the whole body.
fn hide_message(message: &mut Value, hide: &HideText<'_>) {
    let Value::Object(parts) = message else { return };
    let headers = parts.get("headers").and_then(Value::as_object).into_iter().flatten();
    let content_type = content_type_of(headers.filter_map(|(name, value)| Some((name, value.as_str()?))));
    let content_type = content_type.map(str::to_owned);
    if let Some(body) = parts.get_mut("body") {
        hide_value(body, content_type.as_deref(), hide);
    }
    if let Some(raw) = parts.get_mut("raw").filter(|raw| !raw.is_null()) {
        *raw = STARS.into();
    }
}

/// Hides an output that is a text (such as the body of a reply), and the texts and numbers in an output that is a list.
fn hide_output(output: &mut SharedJson, content_type: Option<&str>, hide: &HideText<'_>) {
    if output.is_string() || output.is_array() {
        let mut value = (**output).clone();
        hide_value(&mut value, content_type, hide);
        *output = value.into();
    }
}

fn hide_shared(value: &mut Option<Arc<Value>>, hide: &HideText<'_>) {
    value.iter_mut().for_each(|value| hide_value(Arc::make_mut(value), None, hide));
}

/// Hides a value that is a text, and the texts and numbers in a list: no key beside them tells whether they are secret.
fn hide_value(value: &mut Value, content_type: Option<&str>, hide: &HideText<'_>) {
    match value {
        Value::String(text) => hide(text, content_type),
        Value::Array(items) => {
            items.iter_mut().for_each(|item| hide_element(item, content_type, hide));
        }
        Value::Object(_) | Value::Number(_) | Value::Bool(_) | Value::Null => {}
    }
}

/// Hides an element of a list that is a text or a number, or the elements of one that is a list.
fn hide_element(item: &mut Value, content_type: Option<&str>, hide: &HideText<'_>) {
    if let Value::Number(number) = item {
        *item = number.to_string().into();
    }
    hide_value(item, content_type, hide);
}

/// The content type among these headers.
pub(super) fn content_type_of<'a, N: AsRef<str>, V: AsRef<str> + ?Sized + 'a>(
    headers: impl IntoIterator<Item = (N, &'a V)>,
) -> Option<&'a str> {
    let mut headers = headers.into_iter();
    let found = headers.find(|(name, _)| name.as_ref().eq_ignore_ascii_case("content-type"));
    found.map(|(_, value)| value.as_ref())
}

/// Puts stars in place of each value that represents bytes, at any depth.
pub(super) fn hide_bytes(value: &mut Value) {
    match value {
        Value::Object(members) if members.contains_key(BYTES) => *value = STARS.into(),
        Value::Object(members) => members.values_mut().for_each(hide_bytes),
        Value::Array(items) => items.iter_mut().for_each(hide_bytes),
        Value::String(_) | Value::Number(_) | Value::Bool(_) | Value::Null => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The event with what the hiding was asked for in place of each text: the text and its content type.
    fn hidden(event: &Value) -> Value {
        let mut event: Event = serde_json::from_str(&event.to_string()).expect("an event");
        hide_bodies(&mut event, &|text, content_type| *text = format!("<{text}|{}>", content_type.unwrap_or("-")));
        let mut shown = serde_json::to_value(&event).expect("JSON");
        hide_bytes(&mut shown);
        shown
    }

    fn call(body: &Value) -> Value {
        json!({"method": "POST", "url": "http://a/", "headers": [["Content-Type", "text/x"]], "body": body})
    }

    fn finished(outcome: &Value) -> Value {
        hidden(&json!({"step_finished": {"step": "s", "item": null, "attempt": 1, "outcome": outcome}}))
            ["step_finished"]["outcome"]
            .clone()
    }

    #[test]
    fn the_body_of_every_recorded_call_is_hidden() {
        let text = json!({"text": "hunter2"});
        let (shown, stars) = (json!({"text": "<hunter2|text/x>"}), json!({"base64": STARS}));
        let started = |body: &Value| {
            let started = json!({"step": "s", "item": null, "attempt": 1, "key": null, "effect": "read",
                "repeatable": true, "request": call(body)});
            hidden(&json!({"step_started": started}))["step_started"]["request"]["body"].clone()
        };
        assert_eq!(started(&text), shown);
        assert_eq!((started(&json!({"base64": "aHVu"})), started(&json!("empty"))), (stars, json!("empty")));
        let rehearsed = finished(&json!({"rehearsed": {"intent": call(&text), "output": null, "note": null}}));
        assert_eq!(rehearsed["rehearsed"]["intent"]["body"], shown);
        let conflict = json!({"kind": "outcome_unknown", "step": "s", "item": null, "attempt": 1, "message": "m",
            "status": null, "request": call(&text), "response": "said hunter2"});
        let unfit = json!({"unfit": {"status": 200, "headers": {}, "output": "hunter2", "failure": failure()}});
        let paused = hidden(&json!({"paused": {"conflict": conflict, "gave": unfit}}));
        assert_eq!(paused["paused"]["conflict"]["request"]["body"], shown);
        assert_eq!(paused["paused"]["conflict"]["response"], "<said hunter2|->");
        assert_eq!(paused["paused"]["gave"]["unfit"]["output"], "<hunter2|->");
    }

    fn failure() -> Value {
        json!({"kind": "schema", "step": "s", "item": null, "status": 200, "message": "m", "retry_after_ms": null})
    }

    #[test]
    fn the_body_of_every_answer_is_hidden() {
        let answer = json!({"status": 200, "headers": [["content-type", "text/plain"]], "body": {"text": "hunter2"}});
        for (kind, content) in [
            ("responded", json!({"answer": answer, "pin": null})),
            ("pending_answered", json!({"answer": answer, "pin": null})),
            ("fail_reached", json!({"step": "s", "answer": answer})),
        ] {
            let shown = hidden(&json!({kind: content}));
            assert_eq!(shown[kind]["answer"]["body"], json!({"text": "<hunter2|text/plain>"}), "{kind}");
        }
    }

    #[test]
    fn an_output_that_is_a_text_is_hidden_and_none_that_has_names() {
        let done = |headers: Value, output: Value| {
            finished(&json!({"done": {"status": 200, "headers": headers, "output": output}}))["done"]["output"].clone()
        };
        assert_eq!(done(json!({"content-type": "text/x"}), json!("hunter2")), "<hunter2|text/x>");
        // What looks like the record of a call and is none stays as it is.
        let looks = json!({"request": {"url": "http://a/", "body": {"text": "a word", "base64": "b"}}, "n": 1});
        assert_eq!(done(json!({}), looks.clone()), looks);
        assert_eq!(done(json!({}), json!({"a": [{"$bytes": "aHVu", "content_type": null}]})), json!({"a": [STARS]}));
        let taken = json!({"call": 1, "status": 200, "headers": {"content-type": "text/y"}});
        let intent = call(&json!("empty"));
        let rehearsed = json!({"rehearsed": {"intent": intent, "output": "hunter2", "note": null, "taken": taken}});
        assert_eq!(finished(&rehearsed)["rehearsed"]["output"], "<hunter2|text/y>");
    }

    #[test]
    fn texts_and_numbers_in_a_list_without_a_name_are_hidden() {
        let done = |output: Value| {
            finished(&json!({"done": {"status": 200, "headers": {}, "output": output}}))["done"]["output"].clone()
        };
        let list = json!(["hunter2", ["hunter3"], {"a": ["shown"]}, 5]);
        let shown = json!(["<hunter2|->", ["<hunter3|->"], {"a": ["shown"]}, "<5|->"]);
        assert_eq!(done(list.clone()), shown);
        let computed = json!({"step_computed": {"step": "s", "output": list}});
        assert_eq!(hidden(&computed)["step_computed"]["output"], shown);
        let opened = json!({"fan_out_opened": {"step": "s", "items": list}});
        assert_eq!(hidden(&opened)["fan_out_opened"]["items"], shown);
        let received = json!({"child_started": {"step": "s", "item": null, "workflow": "w",
            "child": "018f0000-0000-7000-8000-000000000001", "input": list}});
        assert_eq!(hidden(&received)["child_started"]["input"], shown);
    }

    #[test]
    fn the_body_of_the_callers_request_is_hidden_if_it_is_a_text_and_its_bytes_always() {
        let started = |request: Value| {
            let id = "018f0000-0000-7000-8000-000000000001";
            let started = json!({"run": id, "workflow": "w", "plan": "p", "mode": "rehearse", "route": null,
                "started": "2026-11-27T00:00:00Z", "request": request, "credentials": [], "sealed": null,
                "legacy": {"body": "of legacy"}, "instance": {"id": "7", "input": "of input"}, "creates": null,
                "traceparent": null});
            hidden(&json!({"run_started": started}))["run_started"].clone()
        };
        let shown = started(json!({"headers": {"content-type": "text/x"}, "body": "hunter2", "raw": "aHVu"}));
        assert_eq!((&shown["request"]["body"], &shown["request"]["raw"]), (&json!("<hunter2|text/x>"), &json!(STARS)));
        assert_eq!(shown["legacy"]["body"], "<of legacy|->");
        assert_eq!(shown["instance"], json!({"id": "7", "input": "<of input|->"}));
        assert_eq!(started(json!({"body": {"n": 1}}))["request"], json!({"body": {"n": 1}}));
    }
}
