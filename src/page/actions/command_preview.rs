//! What a command will do to a run, in words.

use maud::{Markup, html};
use serde_json::Value;

use crate::admin::types::{EdgeKindRow, RunData, RunGraph, RunStatus, StepRow, UndoState};
use crate::page::actions::command::Command;
use crate::page::actions::json_text;
use crate::page::actions::rerun_preview::rerun_preview;
use crate::page::actions::step_names::{place, step_list};

/// What is known about the run that a command is for.
pub(in crate::page) struct Subject<'a> {
    pub run: &'a RunData,
    /// The run's plan; `None` if it cannot be read.
    pub graph: Option<&'a RunGraph>,
    /// The input that somebody gave the chosen step before.
    pub given_input: Option<&'a Value>,
    /// How the workflow declares the input of the chosen step.
    pub declared_input: Option<&'a Value>,
}

/// What the command will do; `step` is the one that was chosen.
pub(in crate::page) fn what_happens(command: Command, subject: &Subject<'_>, step: Option<&str>) -> Markup {
    let step = step.unwrap_or_default();
    match command {
        Command::Pause => pause(subject.run),
        Command::Resume => resume(subject.run),
        Command::Retry => retry(subject.run),
        Command::Skip => skip(subject, step),
        Command::Adjust => adjust(subject, step),
        Command::Signal => html! {
            p {
                "The signal is recorded and delivered to the step that waits for it. If none waits for it yet, it is \
                kept for later."
            }
        },
        Command::Rerun => rerun(subject, step),
        Command::Cancel => cancel(subject),
    }
}

fn with_status(run: &RunData, is_meant: impl Fn(&str) -> bool) -> Vec<&str> {
    run.steps.iter().filter(|step| is_meant(&step.status)).map(|step| step.step_id.as_str()).collect()
}

fn pause(run: &RunData) -> Markup {
    let under_way = with_status(run, |status| status == "running" || status == "waiting_child");
    html! {
        p { "No further step begins until somebody resumes the run. Nothing is undone." }
        @if !under_way.is_empty() { p { "Under way, and completed: " (step_list(&under_way)) "." } }
        p { "Time limits of questions and of waits for signals stand still meanwhile." }
    }
}

fn resume(run: &RunData) -> Markup {
    let left = with_status(run, |status| matches!(status, "pending" | "retrying" | "waiting_time" | "waiting_lock"));
    html! {
        @if let Some(note) = &run.run.note { p { "It is paused: " (note) } }
        p { "The run goes on from where it stands. Steps that are due begin at once, and send their requests." }
        @if !left.is_empty() { p { "Still to come: " (step_list(&left)) "." } }
        @if run.checkpoints.len() == 1 { p { "A question still waits for its answer." } }
        @if run.checkpoints.len() > 1 { p { (run.checkpoints.len()) " questions still wait for their answers." } }
    }
}

fn retry(run: &RunData) -> Markup {
    let waiting: Vec<&str> = Command::Retry.steps(run, None).into_iter().map(|step| step.step_id.as_str()).collect();
    html! {
        p { "The next attempt is made at once, instead of after its pause. The same request is sent." }
        @if !waiting.is_empty() { p { "Waiting for an attempt: " (step_list(&waiting)) "." } }
        @if !run.conflicts.is_empty() { p { "Open conflicts are not decided by this." } }
    }
}

fn skip(subject: &Subject<'_>, step: &str) -> Markup {
    let after = subject.graph.map(|graph| dependents(graph, step)).unwrap_or_default();
    html! {
        p { code { (step) } " is left out: nothing is sent for it, and it has no result." }
        @if subject.graph.is_none() {
            p { "Steps that need it are skipped too, unless they can do without." }
        } @else if after.is_empty() {
            p { "No other step needs it." }
        } @else {
            p { "These steps need it, and are skipped too, unless they can do without: " (step_list(&after)) "." }
        }
        @if subject.run.steps.iter().any(|row| row.step_id == step && row.status == "conflict") {
            p { "The open conflict of the step is decided by that." }
        }
    }
}

/// All steps that need a step, or need one that needs it.
fn dependents<'a>(graph: &'a RunGraph, step: &str) -> Vec<&'a str> {
    let mut found: Vec<&str> = Vec::new();
    // Steps stand after those that they need, so one pass finds all.
    for row in &graph.steps {
        let name = row.state.step_id.as_str();
        let mut needs = graph.edges.iter().filter(|edge| edge.kind == EdgeKindRow::Needs && edge.to == name);
        if needs.any(|edge| edge.from == step || found.contains(&edge.from.as_str())) {
            found.push(name);
        }
    }
    found
}

fn adjust(subject: &Subject<'_>, step: &str) -> Markup {
    html! {
        p {
            code { (step) } " gets the input below in place of the one that the workflow computes: the body of a call, \
            the value of a computed step, the input of a run. The rest of the run stays as it is."
        }
        p { "If the step needs an approval, people are asked about the new input." }
        @if let Some(declared) = subject.declared_input {
            p { "The workflow declares it like this:" }
            pre { (json_text::readable(declared)) }
        }
    }
}

fn rerun(subject: &Subject<'_>, step: &str) -> Markup {
    html! {
        p {
            "A new run of the same job begins at " code { (step) } ". What depends on it is done again. Results of \
            other finished steps are kept. People are asked again about the steps that run again."
        }
        @if subject.run.status == RunStatus::Paused { p { "This run ends, and its last event names the new one." } }
        @match subject.graph {
            Some(graph) => (rerun_preview(graph, step).markup()),
            None => p { "The plan of the run cannot be read, so the steps cannot be listed." },
        }
    }
}

fn cancel(subject: &Subject<'_>) -> Markup {
    let run = subject.run;
    let under_way = with_status(run, |status| status == "running");
    let children = with_status(run, |status| status == "waiting_child");
    html! {
        @if run.trouble.is_some() {
            p {
                "This process cannot execute the run, so nothing can be undone: the run ends, and what it did is left \
                as it is."
            }
        } @else if run.status == RunStatus::Compensating {
            p {
                "What the run did is being undone already. Cancelled now, it ends, and what is not undone yet is left \
                as it is."
            }
            (undone(run))
        } @else {
            p { "The run ends, and cannot be resumed. Choose what becomes of what it did." }
            (effects(subject))
        }
        @if !under_way.is_empty() { p { "Under way, and completed first: " (step_list(&under_way)) "." } }
        @if !children.is_empty() { p { "Runs that these steps began are cancelled too: " (step_list(&children)) "." } }
    }
}

/// What would be undone, and what would stay.
fn effects(subject: &Subject<'_>) -> Markup {
    let has_undo = |step: &StepRow| {
        let planned = subject.graph?.steps.iter().find(|row| row.state.step_id == step.step_id)?;
        Some(planned.has_undo)
    };
    let is_effect = |step: &&StepRow| {
        let is_sent = matches!(step.effect.as_deref(), Some("private" | "shared"));
        is_sent && (step.status == "done" || step.items_ended.is_some_and(|ended| ended > 0))
    };
    // The last step that began is undone first.
    let done: Vec<&StepRow> = subject.run.steps.iter().rev().filter(is_effect).collect();
    let names = |undo: Option<bool>| -> Vec<&str> {
        done.iter().filter(|step| has_undo(step) == undo).map(|step| step.step_id.as_str()).collect()
    };
    let (undone, left, unknown) = (names(Some(true)), names(Some(false)), names(None));
    html! {
        @if done.is_empty() { p { "No finished step has changed anything outside, so there is nothing to undo." } }
        @else {
            dl.facts {
                @if !undone.is_empty() { dt { "With undo, these are undone" } dd { (step_list(&undone)) } }
                @if !left.is_empty() { dt { "These have no undo, and stay" } dd { (step_list(&left)) } }
                @if !unknown.is_empty() { dt { "Undone if their workflow says how" } dd { (step_list(&unknown)) } }
            }
        }
    }
}

fn undone(run: &RunData) -> Markup {
    html! {
        @if !run.undone.is_empty() {
            ul {
                @for row in &run.undone {
                    li {
                        (place(&row.step_id, row.item)) ": "
                        @match row.state {
                            UndoState::NotYet => "not undone yet",
                            UndoState::Undone => "undone",
                            UndoState::Rehearsed => "was not sent, nothing to undo",
                            UndoState::NotUndone => "not undone",
                        }
                        @if let Some(why) = &row.why { " (" (why) ")" }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::actions::command::tests::{graph, run};

    fn shown(command: Command, run: &RunData, graph: Option<&RunGraph>, step: Option<&str>) -> String {
        let subject = Subject { run, graph, given_input: None, declared_input: None };
        what_happens(command, &subject, step).into_string()
    }

    #[test]
    fn a_cancel_lists_what_would_be_undone_the_last_step_first() {
        let steps = [("pay", "done"), ("mail", "done"), ("book", "done"), ("ship", "running"), ("x", "pending")];
        let (run, graph) = (run("running", &steps), graph(&steps, &[]));
        let text = shown(Command::Cancel, &run, Some(&graph), None);
        assert!(text.contains("these are undone</dt><dd><code>book</code>, <code>pay</code></dd>"), "{text}");
        assert!(text.contains("and stay</dt><dd><code>mail</code></dd>"), "{text}");
        assert!(text.contains("completed first: <code>ship</code>"), "{text}");
        let text = shown(Command::Cancel, &run, None, None);
        assert!(text.contains("if their workflow says how</dt><dd><code>book</code>"), "{text}");
    }

    #[test]
    fn a_skip_names_all_steps_that_need_the_step() {
        let steps = [("a", "pending"), ("b", "pending"), ("c", "pending"), ("d", "pending")];
        let graph = graph(&steps, &[("a", "b", "needs"), ("b", "c", "needs")]);
        let text = shown(Command::Skip, &run("running", &steps), Some(&graph), Some("a"));
        assert!(text.contains("without: <code>b</code>, <code>c</code>."), "{text}");
        let text = shown(Command::Skip, &run("running", &steps), Some(&graph), Some("d"));
        assert!(text.contains("No other step needs it."), "{text}");
    }

    #[test]
    fn names_are_escaped() {
        let run = run("running", &[("<script>", "running")]);
        let text = shown(Command::Pause, &run, None, None);
        assert!(text.contains("<code>&lt;script&gt;</code>") && !text.contains("<script"), "{text}");
    }
}
