//! The sensitive parts of an event, as paths in its serialised form.

use std::collections::BTreeMap;

use super::path::SensitivePath;
use super::quotes::{conflict_quotes, failure_quotes, has_sensitive_lock, question_quotes};
use super::taint::{CallTaint, StepTaint, Taint};
use crate::names::{CheckpointId, StepId};
use crate::workflow::respond::ANSWER;
use crate::workflow::{
    AnswerEvent, AnswerRecord, CallRecord, CheckpointEvent, CheckpointKind, ChildEvent, Choice, Conflict,
    ConflictEvent, ConflictKind, ControlEvent, EndingEvent, Event, Failure, LockEvent, OpenCheckpoint, Outcome,
    Payload, StepEvent, StepPart, WaitEvent,
};

/// A sensitive part of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SensitivePart {
    /// The path in the event's serialised content.
    pub at: SensitivePath,
    /// The form of the value at that path.
    pub form: SensitiveForm,
}

/// Forms of sensitive values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SensitiveForm {
    /// Any value: every text and number in it.
    Value,
    /// Like `Value`; a text, a number or bytes at which the path cannot go on are sensitive as a whole
    /// ([`SensitivePath::visit_within`]).
    Within,
    /// A text, as a whole.
    Text,
    /// A text that holds JSON: the values at these paths in it.
    Json(Vec<SensitivePath>),
}

/// Returns the sensitive parts of an event. `asked` maps each checkpoint to its step.
pub fn parts(taint: &Taint, event: &Event, asked: &BTreeMap<CheckpointId, StepId>) -> Vec<SensitivePart> {
    let mut found = PartCollector { taint, found: Vec::new() };
    found.event(event, asked);
    found.found
}

struct PartCollector<'a> {
    taint: &'a Taint,
    found: Vec<SensitivePart>,
}

/// A path of names with dots between them.
fn at(path: &str) -> SensitivePath {
    SensitivePath::of(path.split('.'))
}

impl<'a> PartCollector<'a> {
    fn event(&mut self, event: &Event, asked: &BTreeMap<CheckpointId, StepId>) {
        match event {
            Event::RunStarted(_) => {
                let first_event = self.taint.first_event.clone();
                self.values(&SensitivePath::whole(), &first_event);
            }
            Event::StepStarted(started) => {
                if let (Some(step), Some(request)) = (self.step(&started.step), &started.request) {
                    self.request(&at("request"), step.of_part(started.part), request);
                }
            }
            Event::StepFinished(finished) => {
                self.outcome(&at("outcome"), &finished.step, finished.part, &finished.outcome);
            }
            Event::RetryScheduled(retry) => self.response(&at("response"), &retry.step, retry.response.as_deref()),
            Event::Step(event) => self.step_event(event),
            Event::Wait(WaitEvent::SignalReceived { name, .. }) => {
                let paths: Vec<_> = self.taint.signals.get(name).into_iter().flatten().cloned().collect();
                self.values(&at("payload"), &paths);
            }
            Event::Wait(WaitEvent::Ended { step, .. }) => self.output(&at("output"), step),
            Event::Wait(WaitEvent::Began { .. }) => {}
            Event::Lock(
                LockEvent::Queued { step, .. } | LockEvent::Taken { step, .. } | LockEvent::Left { step, .. },
            ) => {
                if self.taint.has_sensitive_lock(step) {
                    self.text(at("name"));
                }
            }
            Event::Child(ChildEvent::Started { step, .. }) => {
                let paths = self.step(step).map(|step| step.input.clone()).unwrap_or_default();
                self.values(&at("input"), &paths);
            }
            Event::Child(ChildEvent::Ended { step, sensitive, .. }) => {
                self.output(&at("output"), step);
                if !sensitive.is_empty() || self.step(step).is_some_and(|step| step.reads_sensitive) {
                    self.text(at("note"));
                }
            }
            Event::Checkpoint(CheckpointEvent::Opened(asked)) => self.question(asked),
            Event::Checkpoint(CheckpointEvent::Answered { checkpoint, .. }) => {
                self.answered(asked.get(checkpoint).and_then(|step| self.step(step)));
            }
            Event::Checkpoint(CheckpointEvent::Escalated { .. }) => {}
            Event::Conflict(event) => self.conflict_event(event),
            Event::Control(ControlEvent::InputAdjusted { step, .. }) => {
                if self.step(step).is_some_and(StepTaint::hides_entered_values) {
                    self.value(at("input"));
                    self.text(at("reason"));
                }
            }
            // If a step with `busy: cancel` cancels the run, the reason names the step's lock.
            Event::Control(ControlEvent::CancelRequested { by, .. })
            | Event::Ending(EndingEvent::Cancelled { by, .. }) => {
                if has_sensitive_lock(self.taint, by) {
                    self.text(at("reason"));
                }
            }
            Event::Control(_) => {}
            Event::Answer(AnswerEvent::Responded { answer, .. } | AnswerEvent::Pending { answer, .. }) => {
                self.answer(&at("answer"), answer);
            }
            Event::Answer(AnswerEvent::Failed { failure }) | Event::Ending(EndingEvent::Failed { failure }) => {
                self.failure(&at("failure"), failure);
            }
            Event::Ending(_) => {}
        }
    }

    fn step_event(&mut self, event: &StepEvent) {
        match event {
            StepEvent::Computed { step, .. } => {
                self.output(&at("output"), step);
                self.list(&at("output"), step);
            }
            StepEvent::Skipped { .. } => {}
            StepEvent::FanOutOpened { step, .. } => {
                let items = self.step(step).map(|step| step.items.clone()).unwrap_or_default();
                self.values(&at("items").each(), &items);
            }
            StepEvent::FailReached { answer, .. } => self.answer(&at("answer"), answer),
            // If a person chose the fallback, the failure repeats the message of the conflict, whatever its kind.
            StepEvent::FallbackTaken { step, failure, .. } => {
                if self.step(step).is_some_and(|step| step.hides_entered_values() || step.lock) {
                    self.text(at("failure.message"));
                }
                self.failure(&at("failure"), failure);
            }
            StepEvent::Probed { step, .. } => self.output(&at("output"), step),
            StepEvent::ResultTaken(taken) => {
                let headers = self.taint.headers.clone();
                for name in &headers {
                    self.value(at("fields.headers").name(name));
                    // For a `for_each`, `headers` is a list with the headers of each item.
                    self.value(at("fields.headers").each().name(name));
                }
                if taken.sensitive.contains(&SensitivePath::whole()) {
                    self.value(at("fields.headers"));
                }
                if self.step(&taken.step).is_some_and(StepTaint::hides_entered_values) {
                    self.text(at("fields.errors").each().name("message"));
                }
                self.output(&at("fields.output"), &taken.step);
                self.list(&at("fields.output"), &taken.step);
                let items = self.step(&taken.step).map(|step| step.items.clone()).unwrap_or_default();
                for (index, done) in taken.done.iter().enumerate() {
                    let done_at = at("done").index(index);
                    self.output(&done_at.name("output"), &taken.step);
                    if done.value.is_some() {
                        self.values(&done_at.name("value"), &items);
                    }
                }
            }
        }
    }

    fn conflict_event(&mut self, event: &ConflictEvent) {
        match event {
            ConflictEvent::Paused { conflict, unfit_outcome: gave } => {
                self.conflict(&at("conflict"), conflict);
                if let Some(gave) = gave {
                    self.outcome(&at("gave"), &conflict.step, conflict.part, gave);
                }
            }
            ConflictEvent::Resolved { step, choice, .. } => {
                let is_answer = step.as_str() == ANSWER && self.taint.answer;
                let is_entered = self.step(step).is_some_and(StepTaint::hides_entered_values) || is_answer;
                match choice {
                    Choice::Take { .. } if is_entered => self.value(at("choice.take.output")),
                    Choice::RetryWith { .. } if is_entered => self.value(at("choice.retry_with.input")),
                    _ => {}
                }
                if is_entered {
                    self.text(at("reason"));
                }
            }
        }
    }

    fn step(&self, step: &StepId) -> Option<&'a StepTaint> {
        self.taint.steps.get(step)
    }
    fn value(&mut self, at: SensitivePath) {
        self.found.push(SensitivePart { at, form: SensitiveForm::Value });
    }
    fn values(&mut self, at: &SensitivePath, paths: &[SensitivePath]) {
        self.found.extend(paths.iter().map(|path| SensitivePart { at: at.then(path), form: SensitiveForm::Within }));
    }
    fn text(&mut self, at: SensitivePath) {
        self.found.push(SensitivePart { at, form: SensitiveForm::Text });
    }
    /// The output of a step (an item).
    fn output(&mut self, at: &SensitivePath, step: &StepId) {
        let paths = self.step(step).map(|step| step.output.clone()).unwrap_or_default();
        self.values(at, &paths);
    }
    /// The outputs of all items of a step.
    fn list(&mut self, at: &SensitivePath, step: &StepId) {
        if self.step(step).is_some_and(|step| step.has_items) {
            self.output(&at.each(), step);
        }
    }
    /// A service's reply that is not a step's output: a shortened reply, or the beginning of one that cannot be read.
    fn response(&mut self, at: &SensitivePath, step: &StepId, response: Option<&serde_json::Value>) {
        match (self.step(step), response) {
            (Some(taint), Some(serde_json::Value::String(_))) if !taint.output.is_empty() => self.value(at.clone()),
            _ => self.output(at, step),
        }
    }

    fn outcome(&mut self, at: &SensitivePath, step: &StepId, part: StepPart, outcome: &Outcome) {
        let headers = self.taint.headers.clone();
        match outcome {
            Outcome::Done { .. } => {
                let at = at.name("done");
                headers.iter().for_each(|name| self.value(at.name("headers").name(name)));
                self.output(&at.name("output"), step);
            }
            Outcome::Unfit { failure, .. } => {
                let at = at.name("unfit");
                headers.iter().for_each(|name| self.value(at.name("headers").name(name)));
                self.output(&at.name("output"), step);
                self.failure(&at.name("failure"), failure);
            }
            Outcome::NotDone { failure } => self.failure(&at.name("not_done").name("failure"), failure),
            Outcome::Unknown { failure } => self.failure(&at.name("unknown").name("failure"), failure),
            Outcome::Failed { failure } => self.failure(&at.name("failed").name("failure"), failure),
            Outcome::Rehearsed { intent, output, note, taken } => {
                let at = at.name("rehearsed");
                if let Some(taken) = taken {
                    let at = at.name("taken");
                    headers.iter().for_each(|name| self.value(at.name("headers").name(name)));
                    taken.refused.iter().for_each(|failure| self.failure(&at.name("refused"), failure));
                }
                if let Some(taint) = self.step(step) {
                    self.request(&at.name("intent"), taint.of_part(part), intent);
                    if taint.reads_sensitive && note.is_some() {
                        self.text(at.name("note"));
                    }
                }
                if output.is_some() {
                    self.output(&at.name("output"), step);
                }
            }
        }
    }

    fn failure(&mut self, at: &SensitivePath, failure: &Failure) {
        if failure_quotes(self.taint, failure) {
            self.text(at.name("message"));
        }
    }

    fn conflict(&mut self, at: &SensitivePath, conflict: &Conflict) {
        if conflict_quotes(self.taint, conflict) {
            self.text(at.name("message"));
            let names_url = matches!(
                conflict.kind,
                ConflictKind::OutcomeUnknown | ConflictKind::UndoFailed | ConflictKind::UndoUnknown
            );
            if names_url {
                self.text(at.name("expected")); // names the same URL
            }
        }
        if let (Some(step), Some(request)) = (self.step(&conflict.step), &conflict.request) {
            self.request(&at.name("request"), step.of_part(conflict.part), request);
        }
        self.response(&at.name("response"), &conflict.step, conflict.response.as_deref());
    }

    fn request(&mut self, at: &SensitivePath, taint: &CallTaint, request: &CallRecord) {
        self.found.extend(of_request(at, taint, request));
    }

    fn question(&mut self, asked: &OpenCheckpoint) {
        let Some(step) = self.step(&asked.step) else { return };
        if question_quotes(step, asked) {
            self.text(at("question"));
        }
        if asked.kind == CheckpointKind::Question {
            self.values(&at("default"), &step.output);
        }
        for (index, item) in asked.items.iter().enumerate() {
            let item_at = at("items").index(index);
            if step.call.url {
                self.text(item_at.name("what"));
            }
            let of_item = step.items.iter().filter(|_| step.reviews_items);
            let paths: Vec<_> = step.call.body.iter().chain(&step.input).chain(of_item).cloned().collect();
            // The paths fit only the items of a `for_each`: in any other step, the items may be the elements of a list
            // within the body. They do not fit a shortened value either, which may be a text in place of a list or map.
            match step.has_items && asked.item.is_none() && !item.value.is_string() {
                true => self.values(&item_at.name("value"), &paths),
                false if paths.is_empty() => {}
                false => self.value(item_at.name("value")),
            }
        }
    }

    fn answered(&mut self, step: Option<&StepTaint>) {
        // If the step of the question is not known, all values of the answer are treated as sensitive.
        let Some(step) = step else { return self.value(at("said.values")) };
        self.values(&at("said.values"), &step.output);
        if step.hides_entered_values() {
            self.text(at("said.note"));
        }
    }

    fn answer(&mut self, at: &SensitivePath, answer: &AnswerRecord) {
        let of = |name: &str| -> Vec<SensitivePath> {
            answer.sensitive.iter().filter_map(|path| path.under(&[name])).collect()
        };
        for (index, (name, _)) in answer.headers.iter().enumerate() {
            if answer.sensitive.iter().any(|path| path.under(&["headers", name]).is_some()) {
                self.text(at.name("headers").index(index).index(1));
            }
        }
        self.found.extend(of_body(&at.name("body"), of("body"), &answer.body));
    }
}

/// The sensitive parts of a recorded request.
fn of_request(at: &SensitivePath, taint: &CallTaint, request: &CallRecord) -> Vec<SensitivePart> {
    if taint.is_empty() {
        return Vec::new();
    }
    let mut found = Vec::new();
    if taint.url {
        found.push(SensitivePart { at: at.name("url"), form: SensitiveForm::Text });
    }
    for (index, (name, _)) in request.headers.iter().enumerate() {
        if taint.headers.iter().any(|header| header.eq_ignore_ascii_case(name)) {
            found.push(SensitivePart { at: at.name("headers").index(index).index(1), form: SensitiveForm::Text });
        }
    }
    found.extend(of_body(&at.name("body"), taint.body.clone(), &request.body));
    found
}

fn of_body(at: &SensitivePath, paths: Vec<SensitivePath>, body: &Payload) -> Option<SensitivePart> {
    if paths.is_empty() {
        return None;
    }
    match body {
        Payload::Empty => None,
        Payload::Text(_) => Some(SensitivePart { at: at.name("text"), form: SensitiveForm::Json(paths) }),
        Payload::Base64(_) => Some(SensitivePart { at: at.name("base64"), form: SensitiveForm::Text }),
    }
}
