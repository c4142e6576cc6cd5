//! Reads the answer to a checkpoint from its form, and shows the answer that somebody gave first.

use std::collections::HashMap;

use maud::{Markup, html};

use crate::admin::types::{AnswerRequest, CheckpointKind, FirstAnswer, PendingCheckpoint, ValueError};
use crate::page::actions::form_state::{typed_lines, wrong};
use crate::page::actions::json_text;
use crate::page::actions::review_items::{REST, choice_name};
use crate::page::actions::schema_form::from_schema;
use crate::page::actions::schema_values;
use crate::page::html::time;
use crate::page::request::Fields;

/// The field that says yes or no.
pub(in crate::page) const ANSWER: &str = "answer";

/// The most missing choices of a review that are named.
const MISSING_MAX: usize = 20;

/// The answer in a form. `asked` is the open checkpoint; `None` if it is not open any more: then the answer is sent
/// without values, so that the API says why it is refused.
///
/// # Errors
/// What is wrong with the fields.
pub(in crate::page) fn read(
    asked: Option<&PendingCheckpoint>,
    fields: &Fields,
) -> Result<AnswerRequest, Vec<ValueError>> {
    let note = fields.get("/note").map(typed_lines);
    let mut request = match fields.get(ANSWER) {
        Some("yes") => AnswerRequest { approve: Some(true), note, ..AnswerRequest::default() },
        Some("no") => return Ok(AnswerRequest { approve: Some(false), note, ..AnswerRequest::default() }),
        _ => return Err(vec![wrong("/approve", "Press the button that says yes or the one that says no.")]),
    };
    let Some(asked) = asked else { return Ok(request) };
    let mut typed: HashMap<&str, &str> = HashMap::new();
    for (name, value) in &fields.0 {
        typed.entry(name).or_insert(value);
    }
    let mut errors = Vec::new();
    match asked.kind {
        CheckpointKind::Question if !asked.schema.is_null() => {
            request.values = schema_values::read(&from_schema(&asked.schema, "/values", ""), &typed, &mut errors);
        }
        CheckpointKind::Question | CheckpointKind::Approval => {}
        CheckpointKind::Review => {
            let rest = typed.get(REST).copied().unwrap_or_default();
            for item in &asked.items {
                let chosen = typed.get(choice_name(item.index).as_str()).copied().unwrap_or(rest);
                match chosen {
                    "approve" => request.approved.push(item.index),
                    "strike" => request.struck.push(item.index),
                    _ => errors.push(wrong(
                        format!("/items/{}", item.index),
                        format!("Item {}: approve it or strike it out.", item.index),
                    )),
                }
            }
            if errors.len() > MISSING_MAX {
                let detail = format!("{} items are neither approved nor struck out.", errors.len());
                errors = vec![wrong("/items", detail)];
            }
        }
    }
    if errors.is_empty() { Ok(request) } else { Err(errors) }
}

/// Who answered first, when, and what.
pub(in crate::page) fn first_answer(first: &FirstAnswer) -> Markup {
    let FirstAnswer { by, at, seq: _, approve, values, approved, struck, note } = first;
    html! {
        div.notice {
            p {
                strong { (by) } " has answered this" @if let Some(at) = at { " on " (time(*at)) }
                ": " strong { @if *approve { "yes" } @else { "no" } }
                ". The first answer counts. Yours was not recorded."
            }
            @if !approved.is_empty() { p { "Approved: " (item_list(approved)) "." } }
            @if !struck.is_empty() { p { "Struck out: " (item_list(struck)) "." } }
            @if !values.is_null() { p { "With these values:" } pre { (json_text::pretty(values)) } }
            @if let Some(note) = note { p { "Note: " (note) } }
        }
    }
}

fn item_list(items: &[u32]) -> String {
    const SHOWN_MAX: usize = 50;
    let mut text: Vec<String> = items.iter().take(SHOWN_MAX).map(u32::to_string).collect();
    if items.len() > SHOWN_MAX {
        text.push(format!("and {} more", items.len() - SHOWN_MAX));
    }
    format!("{} {}", if items.len() == 1 { "item" } else { "items" }, text.join(", "))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn asked(kind: &str, schema: &Value) -> PendingCheckpoint {
        serde_json::from_value(json!({
            "id": "chk_1", "run_id": "run_1", "step_id": "pay", "item": null, "kind": kind, "risk": "high",
            "question": "?", "schema": schema, "who": [], "opened": "2026-12-01T12:00:00Z", "until": null,
            "on_timeout": "reject", "answer": "/x",
            "items": [{"index": 0, "what": "a", "value": 1}, {"index": 1, "what": "b", "value": 2}],
        }))
        .unwrap()
    }

    fn fields(fields: &[(&str, &str)]) -> Fields {
        Fields(fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn a_review_takes_a_decision_for_each_item() {
        let asked = asked("review", &Value::Null);
        let request = read(Some(&asked), &fields(&[("answer", "yes"), ("item-1", "strike"), ("rest", "approve")]));
        let request = request.unwrap();
        assert_eq!((request.approved, request.struck, request.approve), (vec![0], vec![1], Some(true)));
        let errors = read(Some(&asked), &fields(&[("answer", "yes"), ("item-1", "strike"), ("rest", "ask")]));
        assert_eq!(errors.unwrap_err()[0].pointer, "/items/0");
        let no = read(Some(&asked), &fields(&[("answer", "no"), ("item-1", "strike"), ("/note", " why ")])).unwrap();
        assert_eq!((no.approve, no.struck, no.note), (Some(false), vec![], Some("why".into())));
    }

    #[test]
    fn a_question_takes_its_values() {
        let asked = asked("question", &json!({ "required": ["id"] }));
        let request = read(Some(&asked), &fields(&[("answer", "yes"), ("/values/id", "7")])).unwrap();
        assert_eq!(request.values, Some(json!({ "id": 7 })));
        let errors = read(Some(&asked), &fields(&[("answer", "yes")])).unwrap_err();
        assert_eq!(errors[0].pointer, "/values/id");
        assert!(read(Some(&asked), &fields(&[])).is_err(), "neither yes nor no");
        assert_eq!(read(None, &fields(&[("answer", "yes")])).unwrap().values, None);
    }

    #[test]
    fn the_first_answer_is_told() {
        let first = FirstAnswer {
            by: "eve <b>".into(),
            at: "2026-12-01T12:00:00Z".parse().ok(),
            seq: 7,
            approve: true,
            values: Value::Null,
            approved: vec![0, 2],
            struck: vec![1],
            note: Some("ok".into()),
        };
        let shown = first_answer(&first).into_string();
        assert!(shown.contains("<strong>eve &lt;b&gt;</strong> has answered this on <time"), "{shown}");
        assert!(shown.contains("Approved: items 0, 2.") && shown.contains("Struck out: item 1."), "{shown}");
    }
}
