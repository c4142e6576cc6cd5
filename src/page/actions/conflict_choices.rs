//! What each choice of a conflict is called, and what it will do, in a sentence.

use crate::admin::types::{ChoiceName, ConflictKind, OpenConflict, StepPart};

/// One way to resolve a conflict.
pub(in crate::page) struct OfferedChoice {
    pub name: ChoiceName,
    /// What it is called.
    pub label: &'static str,
    /// What it will do.
    pub sentence: String,
}

/// The name of a choice in the API.
pub(in crate::page) fn api_name(choice: ChoiceName) -> &'static str {
    match choice {
        ChoiceName::Retry => "retry",
        ChoiceName::RetryWith => "retry_with",
        ChoiceName::Skip => "skip",
        ChoiceName::Take => "take",
        ChoiceName::Fallback => "fallback",
        ChoiceName::Wait => "wait",
        ChoiceName::Cancel => "cancel",
        ChoiceName::CancelWithoutUndo => "cancel_without_undo",
    }
}

/// The choice with this name.
pub(in crate::page) fn choice_named(name: &str) -> Option<ChoiceName> {
    serde_json::from_value(name.into()).ok()
}

/// The choices of a conflict. A conflict that offers a cancel offers it with undo and without. Names that this version
/// does not know are in the second list.
pub(in crate::page) fn offered(conflict: &OpenConflict) -> (Vec<OfferedChoice>, Vec<&str>) {
    let mut names = Vec::new();
    let mut unknown = Vec::new();
    for name in &conflict.choices {
        match choice_named(name) {
            // An earlier version recorded `cancel` for a run that is being undone, where only a cancel without undo is
            // possible.
            Some(ChoiceName::Cancel) if conflict.part == StepPart::Undo => names.push(ChoiceName::CancelWithoutUndo),
            Some(ChoiceName::Cancel) => names.extend([ChoiceName::Cancel, ChoiceName::CancelWithoutUndo]),
            Some(choice) => names.push(choice),
            None => unknown.push(name.as_str()),
        }
    }
    names.dedup();
    let choices = names.into_iter().map(|name| {
        let (label, sentence) = words(name, conflict);
        OfferedChoice { name, label, sentence }
    });
    (choices.collect(), unknown)
}

/// What a choice is called, and what it will do.
fn words(choice: ChoiceName, conflict: &OpenConflict) -> (&'static str, String) {
    let step = match conflict.item {
        Some(item) => format!("item {item} of “{}”", conflict.step_id),
        None => format!("“{}”", conflict.step_id),
    };
    let is_undo = conflict.part == StepPart::Undo;
    match choice {
        ChoiceName::Retry => retry(conflict, &step),
        ChoiceName::RetryWith => (
            "Send something else",
            format!(
                "{step} is tried again with the content below, under a new Idempotency-Key: the service takes it for a \
                 new request. If the step needs an approval, people are asked again.{}",
                match conflict.kind {
                    ConflictKind::OutcomeUnknown =>
                        " If the earlier attempt took effect, that effect stays, and the work is done twice.",
                    _ => "",
                }
            ),
        ),
        ChoiceName::Skip if is_undo => (
            "Leave it as it is",
            format!("What {step} did is not undone, and is listed as such. The other steps are undone as before."),
        ),
        ChoiceName::Skip => (
            "Skip the step",
            format!(
                "{step} ends without a result, and nothing more is sent for it. Steps that need it are skipped too, \
                 unless they can do without.{}",
                match conflict.kind {
                    ConflictKind::OutcomeUnknown => " It stays listed as unknown whether it was done.",
                    _ => "",
                }
            ),
        ),
        ChoiceName::Take if is_undo => (
            "It was undone by hand",
            format!("{step} counts as undone. Nothing is sent. The content below is recorded, and nothing reads it."),
        ),
        ChoiceName::Take if conflict.kind == ConflictKind::Answer => {
            ("Give the answer yourself", "The content below is the run's answer to its caller.".into())
        }
        ChoiceName::Take => (
            "Count it as done",
            format!("Nothing is sent. {step} counts as done with the content below as its output; the run goes on."),
        ),
        ChoiceName::Fallback => (
            "Take the fallback",
            format!("The step that the workflow declares as the fallback of {step} is carried out in its place."),
        ),
        ChoiceName::Wait => {
            ("Wait for the lock", format!("{step} waits until the lock is released, and is carried out then."))
        }
        ChoiceName::Cancel => (
            "Cancel the run and undo",
            "The run ends. What its finished steps did is undone where the workflow says how, the last step first."
                .into(),
        ),
        ChoiceName::CancelWithoutUndo if is_undo => {
            ("End the run now", "The run ends. What is not undone yet is left as it is.".into())
        }
        ChoiceName::CancelWithoutUndo => {
            ("Cancel the run, undo nothing", "The run ends. What its finished steps did is left as it is.".into())
        }
    }
}

fn retry(conflict: &OpenConflict, step: &str) -> (&'static str, String) {
    match (conflict.part, conflict.kind) {
        (StepPart::Undo, ConflictKind::UndoUnknown) => (
            "Undo it again",
            format!(
                "The request that undoes {step} is sent again, with the same content and Idempotency-Key. If the \
                 earlier one took effect and the service does not recognise the key, it is undone twice."
            ),
        ),
        (StepPart::Undo, _) => (
            "Undo it again",
            format!("The request that undoes {step} is sent again, with the same content and Idempotency-Key."),
        ),
        (StepPart::Probe, _) => (
            "Ask the service again",
            format!("The request that asks whether {step} was done is sent again. {step} itself is not."),
        ),
        (StepPart::Do, ConflictKind::OutcomeUnknown) => (
            "Send it again",
            format!(
                "The request of {step} is sent again, with the same content and Idempotency-Key. If the earlier one \
                 took effect and the service does not recognise the key, the work is done twice."
            ),
        ),
        (StepPart::Do, ConflictKind::ChildFailed) => {
            ("Try again", format!("{step} begins again, with a new run of its workflow."))
        }
        (StepPart::Do, _) if conflict.attempt == 0 => {
            ("Try again", format!("{step} begins again: what it needs is looked up and computed anew."))
        }
        (StepPart::Do, _) => (
            "Send it again",
            format!("The request of {step} is sent again, with the same content and Idempotency-Key."),
        ),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn conflict(kind: &str, part: &str, choices: &[&str]) -> OpenConflict {
        serde_json::from_value(json!({
            "kind": kind, "run_id": "run_1", "step_id": "pay", "item": null, "part": part, "attempt": 2,
            "message": "", "expected": null, "status": null, "request": null, "response": null, "choices": choices,
            "resolve": "/x",
        }))
        .unwrap()
    }

    const ALL: &[&str] = &["retry", "retry_with", "skip", "take", "fallback", "wait", "cancel", "newer"];

    #[test]
    fn every_choice_has_a_sentence_of_its_own() {
        let conflict = conflict("outcome_unknown", "do", ALL);
        let (choices, unknown) = offered(&conflict);
        assert_eq!(unknown, ["newer"]);
        assert_eq!(choices.len(), ALL.len(), "the cancel is offered with undo and without");
        let sentences: std::collections::BTreeSet<&str> = choices.iter().map(|choice| &*choice.sentence).collect();
        assert_eq!(sentences.len(), choices.len());
        assert!(choices[0].sentence.contains("done twice"), "{}", choices[0].sentence);
        for choice in &choices {
            assert_eq!(choice_named(api_name(choice.name)), Some(choice.name));
        }
    }

    #[test]
    fn an_undo_is_cancelled_only_without_undo() {
        for choices in [["retry", "skip", "take", "cancel"], ["retry", "skip", "take", "cancel_without_undo"]] {
            let conflict = conflict("undo_failed", "undo", &choices);
            let names: Vec<_> = offered(&conflict).0.into_iter().map(|choice| api_name(choice.name)).collect();
            assert_eq!(names, ["retry", "skip", "take", "cancel_without_undo"]);
        }
    }
}
