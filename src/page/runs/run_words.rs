//! How the status of a run looks, and what its mode means.

use maud::{Markup, html};

use crate::admin::types::{Mode, RunStatus};
use crate::page::runs::flowchart::{Look, Shape, outline};

/// How a run's status looks: a colour, a shape and a word, as for a step.
pub(in crate::page) fn run_look(status: RunStatus) -> Look {
    let calm = |class, shape, word| Look { class, shape, word, is_exception: false };
    let exception = |class, shape, word| Look { class, shape, word, is_exception: true };
    match status {
        RunStatus::Queued => calm("busy", Shape::Square, "queued"),
        RunStatus::Running => calm("busy", Shape::Circle, "running"),
        RunStatus::WaitingCheckpoint => exception("wait", Shape::Square, "waits for an answer"),
        RunStatus::WaitingSignal => calm("wait", Shape::Square, "waits for a signal"),
        RunStatus::Paused => exception("bad", Shape::Triangle, "paused"),
        RunStatus::Compensating => calm("wait", Shape::Diamond, "undoes its effects"),
        RunStatus::Completed => calm("good", Shape::Circle, "completed"),
        RunStatus::Failed => exception("bad", Shape::Triangle, "failed"),
        RunStatus::Cancelled => calm("idle", Shape::Diamond, "cancelled"),
        RunStatus::Abandoned => calm("idle", Shape::Dash, "abandoned"),
    }
}

/// A status in a line of text. The shape is left to the eye: the word says the same.
pub(in crate::page) fn badge(look: Look) -> Markup {
    html! {
        span class={ "run-state " (look.class) } {
            svg viewBox="10 10 16 16" width="14" height="14" aria-hidden="true" focusable="false" {
                path d=(outline(look.shape)) {}
            }
            " " (look.word)
        }
    }
}

/// What a run of this mode did not send; `None` for a real run, which sends everything.
pub(in crate::page) fn not_sent(mode: Mode) -> Option<&'static str> {
    match mode {
        Mode::Real => None,
        Mode::Dark => Some("dark: shared effects were not sent"),
        Mode::Rehearse => Some("rehearsed: nothing was sent"),
    }
}

/// A run's mode in a list.
pub(in crate::page) fn mode_badge(mode: Mode) -> Markup {
    html! {
        @match not_sent(mode) {
            Some(words) => span.not-sent { (words) },
            None => "real",
        }
    }
}

/// A step's or a choice's name in the API as words.
pub(in crate::page) fn words(name: &str) -> String {
    name.replace('_', " ")
}

/// An enum's name as JSON writes it, as words.
pub(in crate::page) fn name_words(value: &impl serde::Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|name| name.as_str().map(words)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_a_word_of_its_own() {
        let all = RunStatus::OPEN.into_iter().chain(RunStatus::ENDED);
        let found: std::collections::BTreeSet<&str> = all.map(|status| run_look(status).word).collect();
        assert_eq!(found.len(), RunStatus::OPEN.len() + RunStatus::ENDED.len());
    }

    #[test]
    fn a_badge_has_a_shape_and_a_word() {
        let shown = badge(run_look(RunStatus::Paused)).into_string();
        assert!(shown.contains(outline(Shape::Triangle)) && shown.contains("paused"), "{shown}");
        assert!(mode_badge(Mode::Rehearse).into_string().contains("nothing was sent"));
    }
}
