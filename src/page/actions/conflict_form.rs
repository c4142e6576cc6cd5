//! A conflict: what happened, what was sent, what came back, and the form that decides it.

use maud::{Markup, html};
use serde_json::Value;

use crate::admin::types::{ChoiceName, ConflictKind, OpenConflict, SentRequest, StepPart};
use crate::page::actions::conflict_choices::{OfferedChoice, api_name, offered};
use crate::page::actions::form_field::{FormField, free_text, recorded_as};
use crate::page::actions::form_state::{FormState, Person};
use crate::page::actions::json_text;
use crate::page::actions::step_names::place;
use crate::page::client::segment;
use crate::page::html::form_key;

/// The id of a conflict's section in the page, for links.
pub(in crate::page) fn anchor(conflict: &OpenConflict) -> String {
    let item = conflict.item.map_or_else(String::new, |item| format!("-{item}"));
    format!("decide-{}-{}{item}", conflict.run_id, conflict.step_id).replace(char::is_whitespace, "-")
}

/// A conflict of the run `run` or of one that it started.
pub(in crate::page) fn section(
    person: &Person<'_>,
    run: &str,
    conflict: &OpenConflict,
    state: &FormState<'_>,
) -> Markup {
    let id = anchor(conflict);
    html! {
        section.act #(id) aria-labelledby=(format!("{id}-title")) {
            h2 #(format!("{id}-title")) { (title(conflict)) }
            p.question { (conflict.message) }
            (facts(run, conflict))
            (state.problem())
            @if person.may_decide { (form(person, run, conflict, state, &id)) }
            @else { p.notice { "To decide this, you need a token with the scope " code { "decide" } "." } }
        }
    }
}

fn title(conflict: &OpenConflict) -> Markup {
    let step = html! { code { (conflict.step_id) } };
    html! {
        @match conflict.kind {
            ConflictKind::OutcomeUnknown => { "It is not known whether " (step) " was done" }
            ConflictKind::Refused => { "The service refused " (step) }
            ConflictKind::Schema => { "The output of " (step) " does not have the declared form" }
            ConflictKind::Expression => { "A value that " (step) " needs cannot be computed" }
            ConflictKind::UndoFailed => { "What " (step) " did could not be undone" }
            ConflictKind::UndoUnknown => { "It is not known whether what " (step) " did was undone" }
            ConflictKind::AttemptsUsedUp => { "All attempts of " (step) " failed" }
            ConflictKind::Busy => { (step) " needs a lock that is held by another run" }
            ConflictKind::Deadlock => { (step) " and other runs wait for each other's locks" }
            ConflictKind::ChildFailed => { "The run that " (step) " began did not complete" }
            ConflictKind::Answer => "The run has no answer for its caller",
            ConflictKind::Missing => { (step) " needs something that the configuration does not have" }
        }
    }
}

fn facts(run: &str, conflict: &OpenConflict) -> Markup {
    let part = match conflict.part {
        StepPart::Do => "",
        StepPart::Probe => ", the request that asks whether it was done",
        StepPart::Undo => ", the request that undoes it",
    };
    html! {
        dl.facts {
            dt { "Step" } dd { (place(&conflict.step_id, conflict.item)) (part) }
            @if conflict.run_id != run {
                dt { "In the run" }
                dd {
                    a href=(format!("/runs/{}", segment(&conflict.run_id))) { (conflict.run_id) }
                    ", which this run started"
                }
            }
            @if conflict.attempt > 0 { dt { "Attempt" } dd { (conflict.attempt) } }
            @if let Some(expected) = &conflict.expected { dt { "Expected" } dd { (expected) } }
            @if let Some(request) = &conflict.request { dt { "What was sent" } dd { (sent(request)) } }
            @if let Some(key) = &conflict.idempotency_key {
                dt { "Idempotency-Key" }
                dd { code { (key) } " " span.hint { "The service can be asked by this key what it did." } }
            }
            @if conflict.request.is_some() || conflict.status.is_some() || !conflict.response.is_null() {
                dt { "What came back" } dd { (received(conflict)) }
            }
        }
    }
}

fn sent(request: &SentRequest) -> Markup {
    html! {
        p { code { (request.method) " " (request.url) } }
        @if !request.headers.is_empty() {
            p.hint { "Headers" }
            pre {
                @for (name, value) in &request.headers { (name) ": " (value) "\n" }
            }
        }
        @if !request.body.is_null() { p.hint { "Content" } pre { (json_text::readable(&request.body)) } }
    }
}

fn received(conflict: &OpenConflict) -> Markup {
    html! {
        @match conflict.status {
            Some(status) => p { "Status " code { (status) } },
            None if conflict.response.is_null() => p { "No reply." },
            None => {}
        }
        @if !conflict.response.is_null() {
            pre { (json_text::readable(&conflict.response)) }
        }
    }
}

fn form(person: &Person<'_>, run: &str, conflict: &OpenConflict, state: &FormState<'_>, id: &str) -> Markup {
    let (choices, unknown) = offered(conflict);
    // A choice that was made about an earlier attempt is not kept for this one: it has to be made again.
    let attempt = conflict.attempt.to_string();
    let is_same = state.text_or("attempt", &attempt) == attempt;
    html! {
        form.act-form method="post" action=(format!("/runs/{}/resolve", segment(run))) {
            (form_key(person.frame))
            input type="hidden" name="run" value=(conflict.run_id);
            input type="hidden" name="step" value=(conflict.step_id);
            @if let Some(item) = conflict.item { input type="hidden" name="item" value=(item); }
            input type="hidden" name="attempt" value=(attempt);
            fieldset.group {
                legend { "What is to be done?" }
                @for error in state.errors_at("/choice") { p.field-error { "▲ " (error) } }
                @for choice in &choices { (radio(choice, conflict, state, is_same, id)) }
            }
            @for name in unknown {
                p.hint {
                    "This page does not know the choice " code { (name) } ". Use " code { "pointsman runs resolve" } "."
                }
            }
            (free_text(state, &format!("{id}-reason"), "/reason", "Reason", "the decision"))
            p.hint {
                "It is done at once and cannot be taken back. " (recorded_as(person.name))
            }
            div.buttons { button.primary type="submit" { "Do what is chosen" } }
        }
    }
}

fn radio(choice: &OfferedChoice, conflict: &OpenConflict, state: &FormState<'_>, is_same: bool, id: &str) -> Markup {
    let name = api_name(choice.name);
    let radio_id = format!("{id}-{name}");
    html! {
        div.choice {
            div.radio {
                input type="radio" id=(radio_id) name="choice" value=(name) required
                    checked[is_same && state.is_chosen("choice", name, false)]
                    aria-describedby=(format!("{radio_id}-does"));
                label for=(radio_id) { strong { (choice.label) } }
            }
            p #(format!("{radio_id}-does")) { (choice.sentence) }
            @if let Some((pointer, label, first)) = content(choice.name, conflict) {
                (FormField {
                    id: &format!("{radio_id}-content"),
                    name: pointer,
                    label,
                    hint: "Used only if this is chosen. JSON; a text stands in double quotes.",
                    is_required: false,
                }.json(state, &first))
            }
        }
    }
}

/// The content that a choice needs: where it is in the request, its label, and what is filled in first.
fn content(choice: ChoiceName, conflict: &OpenConflict) -> Option<(&'static str, &'static str, String)> {
    match choice {
        ChoiceName::RetryWith => {
            let body = conflict.request.as_ref().map_or(&Value::Null, |request| &request.body);
            Some(("/input", "Content to send", first_text(body)))
        }
        // Nothing reads it.
        ChoiceName::Take if conflict.part == StepPart::Undo => Some(("/output", "Content to record", "null".into())),
        // The output is what a service would have replied, so what it did reply is a better start than what was sent.
        ChoiceName::Take if conflict.kind == ConflictKind::Answer => {
            Some(("/output", "The answer", first_text(&conflict.response)))
        }
        ChoiceName::Take => Some(("/output", "The output of the step", first_text(&conflict.response))),
        ChoiceName::Retry
        | ChoiceName::Skip
        | ChoiceName::Fallback
        | ChoiceName::Wait
        | ChoiceName::Cancel
        | ChoiceName::CancelWithoutUndo => None,
    }
}

/// A value to begin with; empty if there is none.
fn first_text(value: &Value) -> String {
    if value.is_null() { String::new() } else { json_text::pretty(value) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::page::actions::form_state::wrong;
    use crate::page::html::Frame;
    use crate::page::request::Fields;

    fn conflict() -> OpenConflict {
        serde_json::from_value(json!({
            "kind": "outcome_unknown", "run_id": "run_1", "step_id": "pay", "item": 3, "part": "do", "attempt": 2,
            "message": "timed out after 2 s <script>", "expected": "a status of 2xx", "status": 502,
            "request": { "method": "POST", "url": "https://bank/charges", "headers": [["x-a", "\"b\""]],
                "body": { "amount": 12, "card": "***" } },
            "idempotency_key": "key-1", "response": { "id": "c17" },
            "choices": ["retry", "retry_with", "skip", "take", "cancel"], "resolve": "/x",
        }))
        .unwrap()
    }

    fn shown(may_decide: bool, state: &FormState<'_>) -> String {
        let frame = Frame { viewer: None, form_key: "key".into(), path: "/runs/run_1".into(), part: "runs" };
        let person = Person { frame: &frame, name: Some("ann"), may_decide, may_run: false };
        section(&person, "run_1", &conflict(), state).into_string()
    }

    #[test]
    fn what_was_sent_and_what_came_back_are_shown() {
        let shown = shown(true, &FormState::default());
        for text in [
            "It is not known whether <code>pay</code> was done",
            "timed out after 2 s &lt;script&gt;",
            "a status of 2xx",
            "POST https://bank/charges",
            "x-a: &quot;b&quot;",
            "key-1",
            "Status <code>502</code>",
            r#"name="attempt" value="2""#,
            r#"name="item" value="3""#,
        ] {
            assert!(shown.contains(text), "{text}: {shown}");
        }
        assert!(shown.contains("\n{\n  &quot;amount&quot;: 12,"), "what was sent can be edited: {shown}");
        assert!(shown.contains("\n{\n  &quot;id&quot;: &quot;c17&quot;"), "what came back can be edited: {shown}");
        assert_eq!(shown.matches(r#"type="radio""#).count(), 6);
        assert!(!shown.contains(" checked"), "no choice is made before a person makes it: {shown}");
    }

    #[test]
    fn a_choice_about_an_earlier_attempt_is_not_kept_but_the_texts_are() {
        let typed = |attempt: &str| {
            Fields(vec![
                ("attempt".into(), attempt.into()),
                ("choice".into(), "take".into()),
                ("/output".into(), "{\"id\": x".into()),
                ("/reason".into(), "asked the bank".into()),
            ])
        };
        let (same, earlier) = (typed("2"), typed("1"));
        let same = shown(true, &FormState::wrong(&same, vec![wrong("/output", "is no JSON")]));
        assert!(same.contains(r#"value="take" required checked"#) && same.contains("▲ is no JSON"), "{same}");
        let earlier = shown(true, &FormState::filled(&earlier));
        assert!(!earlier.contains(" checked"), "{earlier}");
        assert!(earlier.contains("{&quot;id&quot;: x</textarea>") && earlier.contains("asked the bank"), "{earlier}");
    }

    #[test]
    fn without_the_scope_there_is_no_button() {
        let shown = shown(false, &FormState::default());
        assert!(!shown.contains("<button") && shown.contains("scope <code>decide</code>"), "{shown}");
    }
}
