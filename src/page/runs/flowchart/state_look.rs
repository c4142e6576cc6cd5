//! How the status of a step looks: a colour, a shape and a word, so that none of them alone has to be recognised.

/// The outline beside the word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::page) enum Shape {
    /// It goes on or went well.
    Circle,
    /// It waits.
    Square,
    /// Somebody has to look.
    Triangle,
    /// It has no effect: nothing was sent, or what was done was undone.
    Diamond,
    /// Nothing happened.
    Dash,
}

/// How a status looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::page) struct Look {
    /// The class that gives the colour.
    pub class: &'static str,
    pub shape: Shape,
    pub word: &'static str,
    /// Whether it stands out among the others.
    pub is_exception: bool,
}

/// How a step's status looks, by its name in the API.
pub(in crate::page) fn look(status: &str) -> Look {
    let calm = |class, shape, word| Look { class, shape, word, is_exception: false };
    let exception = |class, word| Look { class, shape: Shape::Triangle, word, is_exception: true };
    match status {
        "done" => calm("good", Shape::Circle, "done"),
        "running" => calm("busy", Shape::Circle, "running"),
        "retrying" => calm("wait", Shape::Square, "waits for its next attempt"),
        "waiting_checkpoint" => Look { is_exception: true, ..calm("wait", Shape::Square, "waits for an answer") },
        "waiting_signal" => calm("wait", Shape::Square, "waits for a signal"),
        "waiting_time" => calm("wait", Shape::Square, "waits for a time"),
        "waiting_lock" => calm("wait", Shape::Square, "waits for a lock"),
        "waiting_child" => calm("busy", Shape::Circle, "runs a workflow"),
        "rehearsed" => calm("rehearsed", Shape::Diamond, "not sent"),
        "skipped" => calm("idle", Shape::Dash, "skipped"),
        "pending" => calm("idle", Shape::Dash, "not begun"),
        "not_run" => calm("idle", Shape::Dash, "not run"),
        "replaced" => calm("wait", Shape::Square, "its fallback took over"),
        "undoing" => calm("wait", Shape::Square, "is being undone"),
        "undone" => calm("idle", Shape::Diamond, "undone"),
        "failed" => exception("bad", "failed"),
        "unknown" => exception("bad", "outcome unknown"),
        "conflict" => exception("bad", "needs a decision"),
        // A newer server may have more.
        _ => calm("idle", Shape::Dash, "other"),
    }
}

/// An outline of 12 pixels around (18, 18).
pub(in crate::page) fn outline(shape: Shape) -> &'static str {
    match shape {
        Shape::Circle => "M12 18a6 6 0 1 0 12 0a6 6 0 1 0 -12 0z",
        Shape::Square => "M12.5 12.5h11v11h-11z",
        Shape::Triangle => "M18 11L25 24H11z",
        Shape::Diamond => "M18 11L25 18L18 25L11 18z",
        Shape::Dash => "M12 16.5h12v3h-12z",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::types::StepRow;

    #[test]
    fn every_status_has_a_look_and_a_word_of_its_own() {
        let looks: Vec<Look> = StepRow::STATUSES.iter().map(|status| look(status)).collect();
        assert!(looks.iter().all(|look| look.word != "other"), "{looks:?}");
        let words: std::collections::BTreeSet<&str> = looks.iter().map(|look| look.word).collect();
        assert_eq!(words.len(), looks.len(), "each status has a word of its own");
    }
}
