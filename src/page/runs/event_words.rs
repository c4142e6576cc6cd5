//! The events of a run in plain words.
//!
//! Always true: each event has words, also one of a kind that this version does not know; the texts are recorded data,
//! which is cleaned and escaped where it is shown. What stands between backticks is a name.

use jiff::Timestamp;
use serde_json::Value;

use crate::admin::types::EventRow;
use crate::page::recorded_text::beginning;
use crate::page::runs::event_fields::{Subject, content, outcome, text};
use crate::page::runs::run_words::words;

/// An event in words.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::page) struct EventWords {
    /// What happened.
    pub text: String,
    /// Who did it, where a person or a route did.
    pub by: Option<String>,
    /// The reason or note that was given.
    pub reason: Option<String>,
    /// What happens at a later time: what, and when.
    pub later: Option<(&'static str, Timestamp)>,
    /// Another run that the event is about.
    pub run: Option<String>,
}

/// What an event says. `subject` is the step that it is about.
pub(in crate::page) fn event_words(row: &EventRow, subject: Option<Subject<'_>>) -> EventWords {
    let event = Described { kind: &row.kind, fields: content(row), place: subject.map(place).unwrap_or_default() };
    let said = event.of_call().or_else(|| event.of_step()).or_else(|| event.of_people()).or_else(|| event.of_run());
    match said {
        Some(said) => EventWords { text: capitalised(said.text), ..said },
        // A newer version may have more kinds.
        None => said_plainly(row, event.fields),
    }
}

fn said_plainly(row: &EventRow, fields: &Value) -> EventWords {
    said(format!("{}: {}", words(&row.kind), beginning(&fields.to_string(), 200)))
}

/// Sentences that begin with `the undo of …` begin with a capital letter.
fn capitalised(text: String) -> String {
    match text.strip_prefix("the ") {
        Some(rest) => format!("The {rest}"),
        None => text,
    }
}

/// A step's name, with the item of its list.
pub(in crate::page) fn place(subject: Subject<'_>) -> String {
    let Subject { step, item } = subject;
    item.map_or_else(|| format!("`{step}`"), |item| format!("`{step}` (item {item})"))
}

/// An event whose words are looked for.
struct Described<'a> {
    kind: &'a str,
    fields: &'a Value,
    place: String,
}

fn said(text: String) -> EventWords {
    EventWords { text, ..EventWords::default() }
}

impl Described<'_> {
    fn text(&self, name: &str) -> &str {
        text(self.fields, name).unwrap_or_default()
    }

    fn owned(&self, name: &str) -> Option<String> {
        text(self.fields, name).filter(|text| !text.is_empty()).map(str::to_owned)
    }

    fn number(&self, name: &str) -> u64 {
        self.fields.get(name).and_then(Value::as_u64).unwrap_or_default()
    }

    fn is(&self, name: &str) -> bool {
        self.fields.get(name).and_then(Value::as_bool).unwrap_or_default()
    }

    fn time(&self, name: &str) -> Option<Timestamp> {
        self.text(name).parse().ok()
    }

    fn message(&self) -> &str {
        self.fields.pointer("/failure/message").and_then(Value::as_str).unwrap_or_default()
    }

    /// The step, or its probe or undo.
    fn call(&self) -> String {
        match self.text("part") {
            "undo" => format!("the undo of {}", self.place),
            "probe" => format!("the probe of {}", self.place),
            _ => self.place.clone(),
        }
    }

    /// Somebody did it and gave a reason.
    fn by(&self, text: String) -> EventWords {
        EventWords { text, by: self.owned("by"), reason: self.owned("reason"), ..EventWords::default() }
    }

    /// Attempts of calls, and how they ended.
    fn of_call(&self) -> Option<EventWords> {
        let call = self.call();
        let attempt = self.number("attempt");
        Some(match self.kind {
            "step_started" => {
                let request = self.fields.get("request").map(request_line).unwrap_or_default();
                let request = if request.is_empty() { request } else { format!(": {request}") };
                match attempt {
                    0 | 1 => said(format!("{call} began{request}.")),
                    attempt => said(format!("Attempt {attempt} of {call} began{request}.")),
                }
            }
            "step_finished" => said(self.outcome(&call)),
            "retry_scheduled" => {
                let effect = if self.is("unknown") { " It is unknown whether it took effect." } else { "" };
                let next = if self.is("probe") { "The probe asks then" } else { "The next attempt starts" };
                EventWords {
                    later: self.time("at").map(|at| (next, at)),
                    ..said(format!("Attempt {attempt} of {call} had no result: {}.{effect}", self.text("why")))
                }
            }
            "probed" => said(match self.fields.get("done").and_then(Value::as_bool) {
                Some(true) => format!("The probe found that attempt {attempt} of {call} took effect."),
                Some(false) => format!("The probe found that attempt {attempt} of {call} did not take effect."),
                None => format!("The probe could not tell whether attempt {attempt} of {call} took effect."),
            }),
            _ => return None,
        })
    }

    fn outcome(&self, call: &str) -> String {
        let Some((name, fields)) = outcome(self.fields) else { return format!("{call} ended.") };
        let message = fields.pointer("/failure/message").and_then(Value::as_str).unwrap_or_default();
        match name {
            "done" => match fields.get("status").and_then(Value::as_u64) {
                Some(status) => format!("{call} is done: the service answered {status}."),
                None => format!("{call} is done."),
            },
            "not_done" => format!("{call} did nothing: {message}."),
            "unknown" => format!("It is unknown whether {call} was done: {message}."),
            "unfit" => format!("{call} was done, but its result does not fit: {message}."),
            "failed" => format!("{call} failed: {message}."),
            "rehearsed" => {
                let request = fields.get("intent").map(request_line).unwrap_or_default();
                format!("{call} was rehearsed: {request} was recorded and not sent.")
            }
            other => format!("{call} ended: {}.", words(other)),
        }
    }

    /// What else happens to steps: values, skips, lists, fallbacks, waits, locks, child runs.
    fn of_step(&self) -> Option<EventWords> {
        let place = &self.place;
        Some(match self.kind {
            "step_computed" => said(format!("{place} computed its value.")),
            "step_skipped" => said(format!("{place} was skipped: {}.", skip_reason(self.text("reason")))),
            "fan_out_opened" => {
                let items = self.fields.get("items").and_then(Value::as_array).map_or(0, Vec::len);
                said(format!("{place} has {items} items."))
            }
            "fail_reached" => said(format!("{place} ends the run{}.", self.answer())),
            "fallback_taken" => {
                let message = self.message();
                said(format!("{place} did nothing ({message}), so `{}` takes its place.", self.text("by")))
            }
            "result_taken" if self.is("skipped") => said(format!("{place} stays skipped, as in the earlier run.")),
            "result_taken" => EventWords {
                run: self.owned("origin"),
                ..said(format!("The result of {place} was taken over from an earlier run."))
            },
            "wait_began" => EventWords {
                later: self.time("until").map(|until| ("It waits at the latest until", until)),
                ..match self.owned("signal") {
                    Some(signal) => said(format!("{place} waits for the signal `{signal}`.")),
                    None => said(format!("{place} waits for a time.")),
                }
            },
            "wait_ended" => match self.fields.get("signal") {
                Some(Value::Number(_)) => said(format!("{place} got its signal.")),
                _ => said(format!("{place} waited until its time came.")),
            },
            "signal_received" => self.by(format!("The signal `{}` was received.", self.text("name"))),
            "lock_queued" => said(format!("{place} asked for the lock `{}`.", self.text("name"))),
            "lock_taken" => said(format!("{place} holds the lock `{}`.", self.text("name"))),
            "lock_left" => said(format!("{place} released the lock `{}`.", self.text("name"))),
            "child_started" => EventWords {
                run: self.owned("child"),
                ..said(format!("{place} began a run of `{}`.", self.text("workflow")))
            },
            "child_ended" => EventWords {
                run: self.owned("child"),
                reason: self.owned("note"),
                ..said(format!("The run that {place} began ended: {}.", words(self.text("status"))))
            },
            _ => return None,
        })
    }

    /// What people were asked, decided and requested.
    fn of_people(&self) -> Option<EventWords> {
        let place = &self.place;
        Some(match self.kind {
            "checkpoint_opened" => EventWords {
                later: self.time("until").map(|until| (self.timeout(), until)),
                reason: asked_people(self.fields),
                ..said(format!("{place} asks: {} (risk {})", self.text("question"), self.text("risk")))
            },
            "checkpoint_answered" => self.answered(),
            "checkpoint_escalated" => EventWords {
                later: self.time("until").map(|until| (self.timeout(), until)),
                reason: asked_people(self.fields),
                ..said(format!("Nobody answered the question of {place} in time. Other people are asked now."))
            },
            "paused" => {
                let message = self.fields.pointer("/conflict/message").and_then(Value::as_str).unwrap_or_default();
                said(format!("The run paused at {place}: {message}. A person has to decide."))
            }
            "resolved" => self.by(format!("The conflict at {place} was resolved: {}.", self.choice())),
            "pause_ordered" => self.by("A pause was requested: nothing new begins.".into()),
            "resumed" => self.by("The pause was ended: the run goes on.".into()),
            "cancel_ordered" => {
                let undo = match self.is("compensate") {
                    true => "what was done is undone first",
                    false => "what was done is left as it is",
                };
                self.by(format!("The run is to be cancelled; {undo}."))
            }
            "input_adjusted" => self.by(format!("{place} got another input.")),
            "retried_now" => self.by(format!("The next attempt of {place} starts at once.")),
            _ => return None,
        })
    }

    /// What happens when nobody answers in time.
    fn timeout(&self) -> &'static str {
        match self.text("on_timeout") {
            "approve" => "Without an answer it counts as a yes",
            "reject" => "Without an answer it counts as a no",
            "escalate" => "Without an answer other people are asked",
            _ => "It has to be answered before",
        }
    }

    fn answered(&self) -> EventWords {
        let answer = self.fields.get("said").unwrap_or(&Value::Null);
        let count = |name: &str| answer.get(name).and_then(Value::as_array).map_or(0, Vec::len);
        let yes = match answer.get("approve").and_then(Value::as_bool).unwrap_or_default() {
            true => "yes",
            false => "no",
        };
        let items = match (count("approved"), count("struck")) {
            (0, 0) => String::new(),
            (approved, struck) => format!("; {approved} items were approved and {struck} struck out"),
        };
        let place = &self.place;
        let reason = text(answer, "note").map(str::to_owned);
        match self.text("by") {
            "time-out" => said(format!("Nobody answered the question of {place} in time: it counts as {yes}{items}.")),
            "rehearse" => said(format!("A rehearsal asks nobody: the declared answer to {place} is {yes}{items}.")),
            _ => EventWords { reason, ..self.by(format!("The question of {place} was answered: {yes}{items}.")) },
        }
    }

    fn choice(&self) -> String {
        // A choice with fields is an object with its name as the only key.
        let choice = self.fields.get("choice").unwrap_or(&Value::Null);
        let name = choice.as_str().or_else(|| choice.as_object()?.keys().next().map(String::as_str));
        let undo = choice.pointer("/cancel/compensate").and_then(Value::as_bool);
        match name.unwrap_or_default() {
            "retry" => "another attempt with the same input".into(),
            "retry_with" => "another attempt with another input".into(),
            "skip" => "the step is skipped".into(),
            "take" => "the step counts as done, with a result that was given".into(),
            "fallback" => "the fallback runs instead".into(),
            "wait" => "it waits until the lock is released".into(),
            "cancel" if undo == Some(false) => "the run is cancelled without undoing".into(),
            "cancel" => "the run is cancelled".into(),
            other => words(other),
        }
    }

    /// The beginning and the end of the run, and what its caller got.
    fn of_run(&self) -> Option<EventWords> {
        Some(match self.kind {
            "run_started" => EventWords {
                by: self.owned("by").or_else(|| Some(format!("route {}", self.owned("route")?))),
                run: self.fields.pointer("/parent/run").and_then(Value::as_str).map(str::to_owned),
                ..said(format!("The run of `{}` began.", self.text("workflow")))
            },
            "responded" => said(format!("The answer to the caller was decided{}.", self.answer())),
            "pending_answered" => {
                said(format!("The caller got a first answer while the run goes on{}.", self.answer()))
            }
            "answer_failed" => said(format!("No answer could be made: {}.", self.message())),
            "deadline_passed" => said("The run's deadline passed: it ends early.".into()),
            "compensation_began" => said(match self.undone_steps() {
                steps if steps.is_empty() => "The run began to undo what it did; there was nothing to undo.".into(),
                steps => format!("The run began to undo {}.", steps.join(", ")),
            }),
            "completed" => said("The run completed.".into()),
            "failed" => said(format!("The run failed: {}.", self.message())),
            "cancelled" => self.by("The run was cancelled.".into()),
            "superseded" => EventWords {
                by: self.owned("who"),
                run: self.owned("by"),
                ..said(format!("A rerun from `{}` took this run's place.", self.text("from")))
            },
            "abandoned" => {
                said(format!("The run was given up: {}. {} handles the request.", self.text("reason"), self.text("to")))
            }
            EventRow::NOT_KEPT => said(format!(
                "{} later events and {} runs below were not kept: {}.",
                self.number("events"),
                self.number("child_runs"),
                self.text("why")
            )),
            _ => return None,
        })
    }

    /// The steps of which the undo began. Those of one group are undone at the same time.
    fn undone_steps(&self) -> Vec<String> {
        let groups = self.fields.get("undo").and_then(Value::as_array);
        let steps = groups.into_iter().flatten().filter_map(Value::as_array).flatten();
        let subjects =
            steps.filter_map(|step| Some(Subject { step: step.get(0)?.as_str()?, item: step.get(1)?.as_u64() }));
        let mut shown: Vec<String> = subjects.clone().take(10).map(place).collect();
        match subjects.count() {
            count if count > shown.len() => shown.push(format!("{} more", count - shown.len())),
            _ => {}
        }
        shown
    }

    fn answer(&self) -> String {
        let status = self.fields.pointer("/answer/status").and_then(Value::as_u64);
        status.map_or_else(String::new, |status| format!(": status {status}"))
    }
}

/// The first line of a recorded request.
pub(in crate::page) fn request_line(request: &Value) -> String {
    match (text(request, "method"), text(request, "url")) {
        (Some(method), Some(url)) => format!("{method} {url}"),
        _ => String::new(),
    }
}

fn skip_reason(reason: &str) -> String {
    match reason {
        "condition" => "its condition does not hold".into(),
        "needs" => "a step that it needs was skipped".into(),
        "by_hand" => "a person requested it".into(),
        "rejected" => "a person said no".into(),
        "busy" => "what it needs is locked".into(),
        "not_needed" => "it is a fallback and was not needed".into(),
        other => words(other),
    }
}

fn asked_people(fields: &Value) -> Option<String> {
    let who: Vec<&str> = fields.get("who")?.as_array()?.iter().filter_map(Value::as_str).collect();
    (!who.is_empty()).then(|| format!("asked: {}", who.join(", ")))
}

#[cfg(test)]
mod tests;
