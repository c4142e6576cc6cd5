//! A checkpoint: what a run asks people, and the form that answers it.

use maud::{Markup, html};

use crate::admin::types::{CheckpointKind, OnTimeout, PendingCheckpoint, Risk};
use crate::page::actions::answer_request::ANSWER;
use crate::page::actions::form_field::{free_text, recorded_as};
use crate::page::actions::form_state::{FormState, Person};
use crate::page::actions::review_items;
use crate::page::actions::schema_form::from_schema;
use crate::page::actions::schema_markup;
use crate::page::actions::step_names::place;
use crate::page::client::segment;
use crate::page::html::{form_key, time};

/// The id of a checkpoint's section in the page, for links.
pub(in crate::page) fn anchor(checkpoint: &str) -> String {
    format!("ask-{}", checkpoint.replace(char::is_whitespace, "-"))
}

/// A checkpoint of the run `run` or of one that it started.
pub(in crate::page) fn section(
    person: &Person<'_>,
    run: &str,
    asked: &PendingCheckpoint,
    state: &FormState<'_>,
) -> Markup {
    let id = anchor(&asked.id);
    html! {
        section.act #(id) aria-labelledby=(format!("{id}-title")) {
            h2 #(format!("{id}-title")) { (title(asked)) }
            p.question { (asked.question) }
            (facts(run, asked))
            (state.problem())
            @if let Some(why_not) = why_not(person, asked) { p.notice { (why_not) } }
            @else { (form(person, run, asked, state, &id)) }
        }
    }
}

fn title(asked: &PendingCheckpoint) -> &'static str {
    match asked.kind {
        CheckpointKind::Question => "A question waits for an answer",
        CheckpointKind::Approval => "A step waits for approval",
        CheckpointKind::Review => "A step waits for a review of its items",
    }
}

fn facts(run: &str, asked: &PendingCheckpoint) -> Markup {
    let risk = match asked.risk {
        Risk::Low => "low",
        Risk::Medium => "medium: one person has to approve it",
        Risk::High => "high: each item is approved or struck out",
    };
    html! {
        dl.facts {
            dt { "Step" } dd { (place(&asked.step_id, asked.item)) }
            @if asked.run_id != run {
                dt { "Asked by" }
                dd {
                    a href=(format!("/runs/{}", segment(&asked.run_id))) { (asked.run_id) }
                    ", a run that this run started"
                }
            }
            @if asked.kind != CheckpointKind::Question { dt { "Risk" } dd { (risk) } }
            dt { "Who may answer" }
            dd { @if asked.who.is_empty() { "everybody who may decide" } @else { (asked.who.join(", ")) } }
            dt { "Asked" } dd { (time(asked.opened)) }
            dt { "Time limit" }
            dd {
                @match asked.until {
                    Some(until) => { (time(until)) "; then " (after_the_limit(asked)) }
                    None => "none: it waits until somebody answers",
                }
            }
        }
    }
}

fn after_the_limit(asked: &PendingCheckpoint) -> &'static str {
    match (asked.on_timeout, asked.kind) {
        (OnTimeout::Approve, CheckpointKind::Question) => {
            "it counts as a yes, with the values that the workflow declares for that case"
        }
        (OnTimeout::Approve, CheckpointKind::Approval | CheckpointKind::Review) => "it counts as approved",
        (OnTimeout::Reject, _) => "it counts as a no",
        (OnTimeout::Escalate, _) => "other people are asked",
    }
}

/// Why this person sees no form.
fn why_not(person: &Person<'_>, asked: &PendingCheckpoint) -> Option<String> {
    if !person.may_decide {
        return Some("To answer, you need a token with the scope `decide`.".into());
    }
    // The API compares the names in the same way.
    let is_listed = asked.who.is_empty() || asked.who.iter().any(|who| person.name == Some(who));
    (!is_listed).then(|| match person.name {
        Some(name) => format!("Only {} may answer this. You are {name}.", asked.who.join(" or ")),
        None => format!("Only {} may answer this. Give your name at the top of the page.", asked.who.join(" or ")),
    })
}

fn form(person: &Person<'_>, run: &str, asked: &PendingCheckpoint, state: &FormState<'_>, id: &str) -> Markup {
    let is_review = asked.kind == CheckpointKind::Review;
    let (yes, no) = match asked.kind {
        CheckpointKind::Question if asked.schema.is_null() => ("Answer yes", "Answer no"),
        CheckpointKind::Question => ("Send this answer", "Decline to answer"),
        CheckpointKind::Approval => ("Approve", "Decline"),
        CheckpointKind::Review => ("Send this decision", "Decline all items"),
    };
    html! {
        form.act-form method="post" action=(format!("/runs/{}/answer", segment(run))) {
            (form_key(person.frame))
            input type="hidden" name="run" value=(asked.run_id);
            input type="hidden" name="checkpoint" value=(asked.id);
            @if is_review { (review_items::table(&asked.items, state, id)) }
            @if asked.kind == CheckpointKind::Question && !asked.schema.is_null() {
                (schema_markup::show(&from_schema(&asked.schema, "/values", id), state))
            }
            (free_text(state, &format!("{id}-note"), "/note", "Note", "your answer"))
            (what_happens(person, asked, yes, no))
            div.buttons {
                button.primary type="submit" name=(ANSWER) value="yes" { (yes) }
                button type="submit" name=(ANSWER) value="no" formnovalidate { (no) }
            }
        }
    }
}

/// What each button does, and under which name.
fn what_happens(person: &Person<'_>, asked: &PendingCheckpoint, yes: &str, no: &str) -> Markup {
    let step = html! { code { (asked.step_id) } };
    html! {
        ul.consequences {
            li {
                strong { (yes) } ": "
                @match asked.kind {
                    CheckpointKind::Question if asked.schema.is_null() => "the run goes on.",
                    CheckpointKind::Question => {
                        "the values become the result of the step, and the run goes on with them."
                    }
                    CheckpointKind::Approval => { (step) " is carried out at once, as it is described above." }
                    CheckpointKind::Review => {
                        (step) " is carried out at once for the approved items, exactly as they are listed. Items that \
                        are struck out are left out. If all are struck out, the step is skipped."
                    }
                }
            }
            li {
                strong { (no) } ": "
                @if asked.kind != CheckpointKind::Question { "nothing of this is carried out. " }
                "The step fails, unless its workflow says that it is skipped then. If it fails, the run ends, and what \
                it has done is undone where the workflow says how."
            }
        }
        p.hint {
            "It is done at once and cannot be taken back. " (recorded_as(person.name))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::page::actions::form_state::wrong;
    use crate::page::html::Frame;
    use crate::page::request::Fields;

    fn frame() -> Frame {
        Frame { viewer: None, form_key: "key".into(), path: "/runs/run_1".into(), part: "runs" }
    }

    fn asked(kind: &str, schema: &Value, who: &[&str]) -> PendingCheckpoint {
        serde_json::from_value(json!({
            "id": "chk_1", "run_id": "run_2", "step_id": "pay", "item": 4, "kind": kind, "risk": "high",
            "question": "Refund <script>alert(1)</script>?", "schema": schema, "who": who,
            "opened": "2026-12-01T12:00:00Z", "until": "2026-12-03T12:00:00Z", "on_timeout": "escalate",
            "answer": "/x", "items": [{"index": 0, "what": "POST https://bank", "value": {"amount": 3}}],
        }))
        .unwrap()
    }

    fn shown(asked: &PendingCheckpoint, may_decide: bool, name: Option<&str>, state: &FormState<'_>) -> String {
        let frame = frame();
        section(&Person { frame: &frame, name, may_decide, may_run: false }, "run_1", asked, state).into_string()
    }

    #[test]
    fn the_question_the_people_and_the_time_limit_are_told() {
        let shown = shown(&asked("approval", &Value::Null, &["ann", "bob"]), true, Some("bob"), &FormState::default());
        assert!(shown.contains("Refund &lt;script&gt;") && !shown.contains("<script"), "{shown}");
        assert!(shown.contains("ann, bob") && shown.contains("then other people are asked"), "{shown}");
        assert!(shown.contains("item 4") && shown.contains(r#"href="/runs/run%5F2""#), "{shown}");
        assert!(shown.contains(r#"action="/runs/run%5F1/answer""#), "{shown}");
        assert!(shown.contains(r#"name="run" value="run_2""#), "{shown}");
        assert!(shown.contains(r#"value="yes">Approve</button>"#), "{shown}");
        assert!(shown.contains("your name, bob"), "{shown}");
    }

    #[test]
    fn who_may_not_answer_sees_no_button() {
        let asked = asked("approval", &Value::Null, &["ann"]);
        for (may_decide, name, why) in [
            (false, Some("ann"), "scope `decide`"),
            (true, Some("eve"), "Only ann may answer this. You are eve."),
            (true, None, "Give your name"),
        ] {
            let shown = shown(&asked, may_decide, name, &FormState::default());
            assert!(shown.contains(why) && !shown.contains("<button"), "{shown}");
        }
    }

    #[test]
    fn a_refused_answer_keeps_what_was_typed() {
        let asked = asked("question", &json!({ "properties": { "a": { "type": "string" } } }), &[]);
        let fields = Fields(vec![("/values/a".into(), "typed".into()), ("/note".into(), "why".into())]);
        let state = FormState::wrong(&fields, vec![wrong("/values/a", "is too short")]);
        let shown = shown(&asked, true, Some("ann"), &state);
        assert!(shown.contains(r#"value="typed""#) && shown.contains("\nwhy</textarea>"), "{shown}");
        assert!(shown.contains("Nothing was sent yet") && shown.contains("is too short"), "{shown}");
    }
}
