//! One step of a run, beside the chart: its state, its items, what was sent and what came back.
//!
//! Always true: values are shown as the API gives them, which redacts them, and each within a bound.

use std::collections::BTreeMap;

use jiff::Timestamp;
use maud::{Markup, html};
use serde_json::Value;

use crate::admin::types::{EventRow, GraphStepRow, StepRow};
use crate::page::duration::duration_text;
use crate::page::html::{count, time};
use crate::page::recorded_text::{clean, prose};
use crate::page::runs::event_fields::{Subject, Subjects, content, outcome, text};
use crate::page::runs::event_words::{event_words, request_line};
use crate::page::runs::flowchart::{is_open, look};
use crate::page::runs::json_view::{body, json_view};
use crate::page::runs::run_facts::run_link;
use crate::page::runs::run_links::RunLinks;
use crate::page::runs::run_timeline::seconds;
use crate::page::runs::run_words::{badge, words};

/// How many of a step's last events, and of the items that did not go well, are shown.
const EVENTS_MAX: usize = 12;
const ITEMS_MAX: usize = 20;

/// What is known of a step.
pub(in crate::page) struct StepView<'a> {
    pub state: &'a StepRow,
    /// Its place in the plan; `None` if the plan cannot be shown.
    pub planned: Option<&'a GraphStepRow>,
    /// The number of its box in the chart.
    pub number: Option<usize>,
    /// The events of the run that were read.
    pub events: &'a [EventRow],
    /// Its output, if it has one.
    pub output: Option<&'a Value>,
    /// Until when its duration counts if it has not ended.
    pub until: Timestamp,
    pub links: &'a RunLinks,
}

/// The step that the page opens on: the chosen one, else the first that needs a person, failed or waits.
pub(in crate::page) fn chosen<'a>(steps: &'a [StepRow], asked: Option<&str>) -> Option<&'a StepRow> {
    if let Some(asked) = asked {
        return steps.iter().find(|step| step.step_id == asked);
    }
    let first = |wanted: &dyn Fn(&StepRow) -> bool| steps.iter().find(|step| wanted(step));
    first(&|step| look(&step.status).is_exception)
        .or_else(|| first(&|step| step.status.starts_with("waiting") || step.status == "retrying"))
        .or_else(|| first(&|step| is_open(&step.status)))
}

/// The step.
pub(in crate::page) fn step_panel(view: &StepView<'_>) -> Markup {
    let state = view.state;
    let subjects = Subjects::of(view.events);
    let of_step: Vec<(&EventRow, Subject<'_>)> = view
        .events
        .iter()
        .filter_map(|row| Some((row, subjects.subject(row).filter(|subject| subject.step == state.step_id)?)))
        .collect();
    let item = view.links.item.filter(|_| state.items.is_some());
    let of_item: Vec<(&EventRow, Subject<'_>)> =
        of_step.iter().filter(|(_, subject)| item.is_none() || subject.item == item).copied().collect();
    html! {
        h3 { bdi { (clean(&state.step_id)) } @if let Some(item) = item { " (item " (item) ")" } }
        p { (badge(look(&state.status))) @if let Some(note) = &state.note { ": " (prose(note)) } }
        (facts(view))
        @if let Some(planned) = view.planned { (in_plan(planned)) }
        @if state.items.is_some() { (items(view, &of_step)) }
        (sent_and_received(&of_item))
        @if let Some(output) = view.output {
            h4 { "Output" }
            (json_view("The step's output", output))
        }
        @if !of_item.is_empty() {
            h4 { "Last events" }
            ul.events {
                @for (row, subject) in &of_item[of_item.len().saturating_sub(EVENTS_MAX)..] {
                    li { (time(row.at)) " " (prose(&event_words(row, Some(*subject)).text)) }
                }
            }
        }
    }
}

fn facts(view: &StepView<'_>) -> Markup {
    let state = view.state;
    html! {
        dl.facts {
            @if let Some(started) = state.started { div { dt { "Began" } dd { (time(started)) } } }
            @if let Some(seconds) = seconds(state, view.until) {
                div { dt { "Took" } dd { (duration_text(seconds)) @if is_open(&state.status) { " until now" } } }
            }
            div { dt { "Attempts" } dd { (state.attempts) } }
            @if let Some(effect) = &state.effect { div { dt { "Effect" } dd { (effect_words(effect)) } } }
            @if let Some(status) = state.http_status { div { dt { "The service answered" } dd { "HTTP " (status) } } }
            @if let Some(number) = view.number {
                div { dt { "In the chart" } dd { a href={ "#box-" (number) } { "show its box" } } }
            }
        }
    }
}

fn effect_words(effect: &str) -> String {
    match effect {
        "read" => "read: it changes nothing".into(),
        "private" => "private: it changes only what the engine's side owns".into(),
        "shared" => "shared: it changes what legacy also changes".into(),
        other => words(other),
    }
}

/// What the plan says of the step.
fn in_plan(planned: &GraphStepRow) -> Markup {
    html! {
        @let cautions = [
            planned.risk.map(|risk| format!("Its risk is {}.", risk.as_str())),
            planned.irreversible.then(|| "What it does cannot be undone.".to_owned()),
            planned.has_undo.then(|| "What it does can be undone.".to_owned()),
            planned.takes_lock.then(|| "It takes a lock.".to_owned()),
            planned.conditional.then(|| "It runs only under a condition.".to_owned()),
            planned.fallback_of.as_ref().map(|replaced| format!("It is the fallback of `{replaced}`.")),
        ];
        @if cautions.iter().any(Option::is_some) {
            ul.cautions { @for caution in cautions.iter().flatten() { li { (prose(caution)) } } }
        }
        @if !planned.child_runs.is_empty() {
            p { "Runs that it began and that have not ended:" }
            ul { @for run in planned.child_runs.iter().take(ITEMS_MAX) { li { (run_link(run)) } } }
            @if planned.child_runs.len() > ITEMS_MAX {
                p.hint { "And " (planned.child_runs.len() - ITEMS_MAX) " more." }
            }
        }
    }
}

/// The items of a list: how many ended how, and links to those that did not go well.
fn items(view: &StepView<'_>, events: &[(&EventRow, Subject<'_>)]) -> Markup {
    let mut last: BTreeMap<u64, String> = BTreeMap::new();
    for (row, subject) in events {
        if let (Some(item), Some(state)) = (subject.item, item_state(row)) {
            last.insert(item, state);
        }
    }
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for state in last.values() {
        *counts.entry(state).or_default() += 1;
    }
    let not_well: Vec<(u64, &str)> = last
        .iter()
        .filter(|(_, state)| !matches!(state.as_str(), "done" | "rehearsed" | "completed" | "began"))
        .map(|(item, state)| (*item, state.as_str()))
        .collect();
    html! {
        h4 { "Items" }
        p {
            (count(u64::from(view.state.items_ended.unwrap_or_default()))) " of "
            (count(u64::from(view.state.items.unwrap_or_default()))) " items have ended."
            @for (state, number) in &counts { " " (count(*number)) " " (words(state)) "." }
        }
        @if !not_well.is_empty() {
            ul.items {
                @for (item, state) in not_well.iter().take(ITEMS_MAX) {
                    li {
                        a href=(view.links.to_item(&view.state.step_id, *item)) { "Item " (item) }
                        ": " (words(state))
                    }
                }
            }
            @if not_well.len() > ITEMS_MAX { p.hint { "And " (count((not_well.len() - ITEMS_MAX) as u64)) " more." } }
        }
        @if view.links.item.is_some() { p { a href=(view.links.to_step(&view.state.step_id)) { "All items" } } }
    }
}

/// What an event says of its item; `None` where it says nothing about how the item goes.
fn item_state(row: &EventRow) -> Option<String> {
    let fields = content(row);
    let state = match row.kind.as_str() {
        "step_started" | "child_started" => "began",
        "step_finished" => outcome(fields)?.0,
        "child_ended" => text(fields, "status")?,
        "retry_scheduled" => "waits for its next attempt",
        "step_skipped" => "skipped",
        "fallback_taken" => "replaced by its fallback",
        "paused" => "needs a decision",
        "checkpoint_opened" => "waits for an answer",
        _ => return None,
    };
    Some(state.to_owned())
}

/// The last request of the step, and what came back.
fn sent_and_received(events: &[(&EventRow, Subject<'_>)]) -> Markup {
    let newest = |find: fn(&EventRow) -> Option<&Value>| {
        events.iter().rev().find_map(|(row, _)| Some((find(row)?, call_words(row))))
    };
    html! {
        @if let Some((input, _)) = newest(input_of) { h4 { "Input" } (json_view("The step's input", input)) }
        @if let Some((intent, call)) = newest(intent_of) {
            h4 { "What would have been sent" (call) }
            (request(intent))
        } @else if let Some((sent, call)) = newest(sent_in) {
            h4 { "What was sent" (call) }
            (request(sent))
        }
        @if let Some((received, call)) = newest(received_in) { h4 { "What came back" (call) } (response(received)) }
    }
}

/// Which call of the step an event is about, where it is not the step's own.
fn call_words(row: &EventRow) -> &'static str {
    let fields = content(row);
    match text(fields, "part").or_else(|| text(fields.get("conflict")?, "part")) {
        Some("undo") => " by the undo",
        Some("probe") => " by the probe",
        _ => "",
    }
}

fn input_of(row: &EventRow) -> Option<&Value> {
    content(row).get("input").filter(|_| matches!(row.kind.as_str(), "child_started" | "input_adjusted"))
}

fn sent_in(row: &EventRow) -> Option<&Value> {
    let fields = content(row);
    fields.get("request").or_else(|| fields.pointer("/conflict/request")).filter(|sent| sent.is_object())
}

fn received_in(row: &EventRow) -> Option<&Value> {
    let fields = content(row);
    let of_outcome = outcome(fields).map(|(_, fields)| fields).filter(|fields| fields.get("status").is_some());
    let response = fields.get("response").or_else(|| fields.pointer("/conflict/response"));
    of_outcome.or(response.filter(|response| !response.is_null()))
}

/// The request that an event recorded instead of sending it.
pub(in crate::page) fn intent_of(row: &EventRow) -> Option<&Value> {
    let (_, fields) = outcome(content(row)).filter(|(name, _)| *name == "rehearsed")?;
    fields.get("intent")
}

/// A recorded request.
pub(in crate::page) fn request(recorded: &Value) -> Markup {
    let body = recorded.get("body").map(body).unwrap_or_default();
    let headers: Vec<(&str, &str)> = recorded
        .get("headers")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|pair| Some((pair.get(0)?.as_str()?, pair.get(1)?.as_str()?)))
        .collect();
    html! {
        p { code { (clean(&request_line(recorded))) } }
        @if !headers.is_empty() {
            ul.headers { @for (name, value) in headers { li { code { (clean(name)) ": " (clean(value)) } } } }
        }
        @if !body.is_null() { (json_view("The body of the request", &body)) }
    }
}

/// A recorded reply: an outcome with a status, or a response as a conflict shows it.
fn response(received: &Value) -> Markup {
    let status = received.get("status").and_then(Value::as_u64);
    let shown = if status.is_some() { received.get("output").or(received.get("response")) } else { Some(received) };
    html! {
        @if let Some(status) = status { p { "Status " (status) } }
        @match shown.filter(|shown| !shown.is_null()) {
            Some(shown) => (json_view("The body of the reply", shown)),
            None => p.hint { "No body is recorded." },
        }
    }
}

#[cfg(test)]
mod tests;
