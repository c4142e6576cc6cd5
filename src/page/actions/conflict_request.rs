//! Reads the decision about a conflict from its form.

use serde_json::Value;

use crate::admin::types::{ChoiceName, ResolveRequest, ValueError};
use crate::page::actions::conflict_choices::choice_named;
use crate::page::actions::form_state::{typed_lines, wrong};
use crate::page::actions::json_text;
use crate::page::request::Fields;

/// The decision in a form.
///
/// # Errors
/// What is wrong with the fields.
pub(in crate::page) fn read(fields: &Fields) -> Result<ResolveRequest, Vec<ValueError>> {
    let Some(choice) = fields.get("choice").and_then(choice_named) else {
        return Err(vec![wrong("/choice", "Choose what is to be done.")]);
    };
    let mut errors = Vec::new();
    let mut request = ResolveRequest {
        step: fields.get("step").unwrap_or_default().to_owned(),
        item: index(fields, "item", &mut errors),
        attempt: index(fields, "attempt", &mut errors),
        choice,
        input: None,
        output: None,
        compensate: None,
        reason: fields.get("/reason").map(typed_lines),
        by: None,
    };
    // Without the attempt, a decision that is sent twice could decide the next conflict too.
    if request.attempt.is_none() && errors.is_empty() {
        errors.push(wrong("attempt", "The form does not say which attempt is meant: load the page again."));
    }
    match choice {
        ChoiceName::RetryWith => request.input = content(fields, "/input", &mut errors),
        ChoiceName::Take => request.output = content(fields, "/output", &mut errors),
        ChoiceName::Retry
        | ChoiceName::Skip
        | ChoiceName::Fallback
        | ChoiceName::Wait
        | ChoiceName::Cancel
        | ChoiceName::CancelWithoutUndo => {}
    }
    if errors.is_empty() { Ok(request) } else { Err(errors) }
}

fn content(fields: &Fields, pointer: &str, errors: &mut Vec<ValueError>) -> Option<Value> {
    json_text::parse_to_send(fields.get(pointer).unwrap_or_default())
        .map_err(|why| errors.push(wrong(pointer, why)))
        .ok()
}

/// A number in a field; `None` if the form does not have it.
pub(in crate::page) fn index(fields: &Fields, name: &str, errors: &mut Vec<ValueError>) -> Option<u32> {
    let text = fields.get(name)?;
    text.parse().map_err(|_| errors.push(wrong(name, format!("{name}: “{text}” is no number")))).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read_with(more: &[(&str, &str)]) -> Result<ResolveRequest, Vec<ValueError>> {
        let fixed = [("step", "pay"), ("attempt", "2"), ("/reason", ""), ("/input", "{\"a\": \"***\"}")];
        let all = more.iter().chain(&fixed);
        read(&Fields(all.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()))
    }

    #[test]
    fn a_decision_names_its_attempt_and_only_its_own_content() {
        let request = read_with(&[("choice", "take"), ("/output", "{\"id\": 1}"), ("item", "3")]).unwrap();
        assert_eq!((request.attempt, request.item, request.output), (Some(2), Some(3), Some(json!({"id": 1}))));
        assert_eq!((request.input, request.reason), (None, None));
        let request = read_with(&[("choice", "cancel_without_undo")]).unwrap();
        assert_eq!(request.choice, ChoiceName::CancelWithoutUndo);
    }

    #[test]
    fn what_is_missing_or_hidden_is_refused_at_its_field() {
        let pointer = |more: &[(&str, &str)]| read_with(more).unwrap_err()[0].pointer.clone();
        assert_eq!(pointer(&[]), "/choice");
        assert_eq!(pointer(&[("choice", "take")]), "/output");
        assert_eq!(pointer(&[("choice", "retry_with")]), "/input");
        assert_eq!(pointer(&[("choice", "skip"), ("attempt", "x")]), "attempt");
    }
}
