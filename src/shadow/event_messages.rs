//! The messages and documents in the events of a rehearsal, in which secrets are looked for before anything is shown.
//!
//! Always true: each kind of event is named here, so that a new one cannot be forgotten. Nothing but what a service, a
//! caller, a person or the workflow gave is returned: the names of an event's own fields (`responded.pin`) say nothing
//! of their values.

use std::borrow::Cow;

use serde_json::Value;

use super::event_bodies::content_type_of;
use crate::compare::{Body, MessageBody, PairMessage, headers_of};
use crate::workflow::{
    AnswerEvent, AnswerRecord, CallRecord, CheckpointEvent, ChildEvent, ConflictEvent, ControlEvent, Event, Outcome,
    StepEvent, WaitEvent,
};

/// The messages and documents in an event.
pub(super) fn messages_in(event: &Event) -> Vec<PairMessage<'_>> {
    match event {
        Event::RunStarted(started) => {
            let values = [Some(&started.request), started.legacy.as_ref(), started.instance.as_ref()];
            values.into_iter().flatten().map(|value| PairMessage::document(value)).collect()
        }
        Event::StepStarted(started) => started.request.iter().map(|request| of_call(request)).collect(),
        Event::StepFinished(finished) => of_outcome(&finished.outcome),
        // The response is redacted and cut already.
        Event::RetryScheduled(_) => Vec::new(),
        Event::Step(event) => of_step(event),
        Event::Wait(event) => match event {
            WaitEvent::SignalReceived { payload, .. } => vec![PairMessage::document(payload)],
            WaitEvent::Ended { output, .. } => vec![PairMessage::document(output)],
            WaitEvent::Began { .. } => Vec::new(),
        },
        Event::Child(event) => match event {
            ChildEvent::Started { input, .. } => vec![PairMessage::document(input)],
            ChildEvent::Ended { output, .. } => vec![of_output([], output)],
        },
        Event::Checkpoint(event) => match event {
            CheckpointEvent::Answered { answer, .. } => {
                answer.values.iter().map(|values| PairMessage::document(values)).collect()
            }
            // What people are asked is taken from what was recorded before.
            CheckpointEvent::Opened(_) | CheckpointEvent::Escalated { .. } => Vec::new(),
        },
        Event::Conflict(event) => match event {
            // Its request was recorded before, and its response is redacted and cut already.
            ConflictEvent::Paused { conflict: _, unfit_outcome } => {
                unfit_outcome.iter().flat_map(|outcome| of_outcome(outcome)).collect()
            }
            ConflictEvent::Resolved { .. } => Vec::new(),
        },
        Event::Control(event) => match event {
            ControlEvent::InputAdjusted { input, .. } => vec![PairMessage::document(input)],
            ControlEvent::PauseRequested { .. }
            | ControlEvent::Resumed { .. }
            | ControlEvent::CancelRequested { .. }
            | ControlEvent::RetriedNow { .. } => Vec::new(),
        },
        Event::Answer(event) => match event {
            AnswerEvent::Responded { answer, pin: _ } | AnswerEvent::Pending { answer, pin: _ } => {
                vec![of_answer(answer)]
            }
            AnswerEvent::Failed { .. } => Vec::new(),
        },
        Event::Lock(_) | Event::Ending(_) => Vec::new(),
    }
}

fn of_step(event: &StepEvent) -> Vec<PairMessage<'_>> {
    match event {
        StepEvent::Computed { output, .. } => vec![PairMessage::document(output)],
        StepEvent::FanOutOpened { items, .. } => items.iter().map(|item| PairMessage::document(item)).collect(),
        StepEvent::FailReached { answer, .. } => vec![of_answer(answer)],
        StepEvent::Probed { output, .. } => vec![of_output([], output)],
        StepEvent::ResultTaken(taken) => {
            let outputs = taken.done.iter().map(|done| of_output([], &done.output));
            outputs.chain([PairMessage::document(&taken.fields)]).collect()
        }
        StepEvent::Skipped { .. } | StepEvent::FallbackTaken { .. } => Vec::new(),
    }
}

fn of_outcome(outcome: &Outcome) -> Vec<PairMessage<'_>> {
    match outcome {
        Outcome::Done { headers, output, .. } | Outcome::Unfit { headers, output, .. } => {
            vec![of_output(headers, output)]
        }
        Outcome::Rehearsed { intent, output, taken, .. } => {
            let headers = taken.iter().flat_map(|taken| &taken.headers);
            let output = output.as_ref().map(|output| of_output(headers, output));
            [of_call(intent)].into_iter().chain(output).collect()
        }
        Outcome::NotDone { .. } | Outcome::Unknown { .. } | Outcome::Failed { .. } => Vec::new(),
    }
}

fn of_call(call: &CallRecord) -> PairMessage<'_> {
    let body = MessageBody::Sent(Body::Whole(call.body.bytes().into()));
    PairMessage { url: &call.url, headers: Cow::Owned(headers_of(&call.headers)), body, is_reply: false }
}

fn of_answer(answer: &AnswerRecord) -> PairMessage<'_> {
    let body = MessageBody::Sent(Body::Whole(answer.body.bytes().into()));
    PairMessage { url: "", headers: Cow::Owned(headers_of(&answer.headers)), body, is_reply: true }
}

/// A step's output, with those headers of the reply that are recorded. The type of a text is often not among them, and
/// XML is recognised by how it begins.
fn of_output<'a>(headers: impl IntoIterator<Item = (&'a String, &'a String)>, output: &'a Value) -> PairMessage<'a> {
    let mut fields: Vec<(&str, &str)> =
        headers.into_iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let is_xml = output.as_str().is_some_and(|text| text.trim_start().starts_with('<'));
    if is_xml && content_type_of(fields.iter().copied()).is_none() {
        fields.push(("content-type", "application/xml"));
    }
    // The output is what the body was decoded to.
    fields.retain(|(name, _)| !name.eq_ignore_ascii_case("content-encoding"));
    PairMessage { headers: Cow::Owned(headers_of(&fields)), is_reply: true, ..PairMessage::document(output) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(event: &Value) -> Event {
        serde_json::from_str(&event.to_string()).expect("an event")
    }

    #[test]
    fn the_fields_of_an_event_itself_are_no_messages() {
        let answer = json!({"status": 200, "headers": [["x-token", "abc-123"]], "body": {"text": "{\"a\":1}"}});
        let pin = json!({"family": "orders", "id": "ord-4711", "twin": false});
        let responded = event(&json!({"responded": {"answer": answer, "pin": pin}}));
        let messages = messages_in(&responded);
        assert_eq!(messages.len(), 1);
        assert_eq!(messages[0].headers["x-token"], "abc-123");
        assert!(matches!(&messages[0].body, MessageBody::Sent(Body::Whole(body)) if &body[..] == b"{\"a\":1}"));
    }

    #[test]
    fn a_rehearsed_call_and_what_it_took_are_two_messages() {
        let intent = json!({"method": "POST", "url": "http://bank/x?token=t-1", "headers": [], "body": "empty"});
        let taken = json!({"call": 1, "status": 200, "headers": {"x-token": "t-2"}});
        let outcome = json!({"rehearsed": {"intent": intent, "output": "<a/>", "note": null, "taken": taken}});
        let finished = json!({"step": "s", "item": null, "attempt": 1, "outcome": outcome});
        let event = event(&json!({"step_finished": finished}));
        let messages = messages_in(&event);
        let shown: Vec<_> = messages.iter().map(|message| (message.url, message.is_reply)).collect();
        assert_eq!(shown, [("http://bank/x?token=t-1", false), ("", true)]);
        assert_eq!(messages[1].headers["content-type"], "application/xml");
        assert_eq!(messages[1].headers["x-token"], "t-2");
    }
}
