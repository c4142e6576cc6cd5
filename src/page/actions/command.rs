//! The commands that people give to a run: what each is called, and when a run takes it.
//!
//! What is said here about a run is a help for choosing: the run itself has the last word, and says why it refuses.

use crate::admin::types::{Mode, RunData, RunGraph, RunStatus, StepActionRow, StepRow};

/// A command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::page) enum Command {
    Pause,
    Resume,
    Retry,
    Skip,
    Adjust,
    Signal,
    Rerun,
    Cancel,
}

impl Command {
    /// All commands, in the order in which they are offered.
    pub(in crate::page) const ALL: [Command; 8] = [
        Command::Pause,
        Command::Resume,
        Command::Retry,
        Command::Skip,
        Command::Adjust,
        Command::Signal,
        Command::Rerun,
        Command::Cancel,
    ];

    /// Its name in paths.
    pub(in crate::page) fn name(self) -> &'static str {
        match self {
            Command::Pause => "pause",
            Command::Resume => "resume",
            Command::Retry => "retry",
            Command::Skip => "skip",
            Command::Adjust => "adjust",
            Command::Signal => "signal",
            Command::Rerun => "rerun",
            Command::Cancel => "cancel",
        }
    }

    /// The command with this name.
    pub(in crate::page) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|command| command.name() == name)
    }

    /// What it does, in a few words: the text of its link and its button.
    pub(in crate::page) fn title(self) -> &'static str {
        match self {
            Command::Pause => "Pause the run",
            Command::Resume => "Resume the run",
            Command::Retry => "Try again now",
            Command::Skip => "Skip a step",
            Command::Adjust => "Change the input of a step",
            Command::Signal => "Send a signal",
            Command::Rerun => "Run again from a step",
            Command::Cancel => "Cancel the run",
        }
    }

    /// The scope that it needs.
    pub(in crate::page) fn scope(self) -> &'static str {
        if self == Command::Signal { "run" } else { "decide" }
    }

    /// Whether it is about a step that has to be chosen first.
    pub(in crate::page) fn needs_step(self) -> bool {
        matches!(self, Command::Skip | Command::Adjust | Command::Rerun)
    }

    /// Whether it makes sense for a run in this state.
    pub(in crate::page) fn applies(self, run: &RunData) -> bool {
        use RunStatus::{Abandoned, Cancelled, Compensating, Completed, Failed, Paused};
        let is_open = !run.status.is_final();
        // A run that this process cannot execute takes only a cancel without undo.
        if run.trouble.is_some() {
            return is_open && self == Command::Cancel;
        }
        let goes_on = is_open && run.status != Compensating;
        match self {
            Command::Pause => goes_on && run.status != Paused,
            // While a conflict of its own is open, the decision about it resumes the run.
            Command::Resume => {
                run.status == Paused && run.conflicts.iter().all(|conflict| conflict.run_id != run.run_id)
            }
            Command::Retry => is_open && run.steps.iter().any(waits_for_attempt),
            Command::Skip | Command::Adjust => goes_on && !self.steps(run, None).is_empty(),
            Command::Signal => goes_on && run.steps.iter().any(|step| step.status == "waiting_signal"),
            Command::Rerun => match run.status {
                _ if run.run.mode != Mode::Real => false,
                Completed | Failed | Cancelled => true,
                Paused => run.run.parent.is_none(),
                Abandoned | Compensating => false,
                RunStatus::Queued | RunStatus::Running | RunStatus::WaitingCheckpoint | RunStatus::WaitingSignal => {
                    false
                }
            },
            Command::Cancel => is_open,
        }
    }

    /// Why it does not make sense for a run in this state.
    pub(in crate::page) fn why_not(self, run: &RunData) -> &'static str {
        match self {
            _ if run.trouble.is_some() => {
                "This process cannot execute the run: it can only be cancelled, without undo."
            }
            Command::Rerun if run.run.mode != Mode::Real => "Only a real run can be run again.",
            Command::Rerun => "A run can be run again when it has ended, or is paused. Pause or cancel it first.",
            _ if run.status.is_final() => "The run has ended.",
            Command::Pause if run.status == RunStatus::Paused => "The run is paused already.",
            Command::Resume if run.status == RunStatus::Paused => {
                "The run waits for a decision, and goes on when that is made."
            }
            Command::Resume => "The run is not paused.",
            Command::Retry => "No step waits for another attempt.",
            _ if run.status == RunStatus::Compensating => "What the run did is being undone: no step begins any more.",
            Command::Skip => "No step can be skipped now: those that are left have begun.",
            Command::Adjust => "No step is left whose input could be changed: all have begun.",
            Command::Signal => "No step waits for a signal.",
            Command::Pause | Command::Cancel => "The run does not take this command now.",
        }
    }

    /// The steps that the command can be about. More are left out where the graph is known.
    pub(in crate::page) fn steps<'a>(self, run: &'a RunData, graph: Option<&RunGraph>) -> Vec<&'a StepRow> {
        let fits = |step: &&StepRow| {
            let has_not_begun = matches!(step.status.as_str(), "pending" | "waiting_checkpoint" | "waiting_lock");
            let planned = graph.and_then(|graph| graph.steps.iter().find(|row| row.state.step_id == step.step_id));
            let is_fallback_to_come =
                step.status == "pending" && planned.is_some_and(|planned| planned.fallback_of.is_some());
            match self {
                Command::Retry => waits_for_attempt(step),
                Command::Skip => {
                    let waits = ["retrying", "waiting_time", "waiting_signal", "conflict"];
                    (has_not_begun || waits.contains(&step.status.as_str())) && !is_fallback_to_come
                }
                Command::Adjust => {
                    let has_items_left = step.items > step.items_ended;
                    let takes_input = planned.is_none_or(|planned| match &planned.action {
                        StepActionRow::Call { .. } | StepActionRow::Run { .. } => {
                            !(planned.for_each && step.status == "pending")
                        }
                        StepActionRow::Compute => !planned.for_each,
                        StepActionRow::Ask
                        | StepActionRow::WaitForTime
                        | StepActionRow::WaitForSignal { .. }
                        | StepActionRow::Fail => false,
                        StepActionRow::Other => true,
                    });
                    (has_not_begun || has_items_left) && takes_input
                }
                Command::Rerun => true,
                Command::Pause | Command::Resume | Command::Signal | Command::Cancel => false,
            }
        };
        run.steps.iter().filter(fits).collect()
    }
}

/// Whether a call of the step waits for its next attempt.
fn waits_for_attempt(step: &StepRow) -> bool {
    matches!(step.status.as_str(), "retrying" | "undoing" | "unknown")
}

#[cfg(test)]
pub(in crate::page) mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A run with this status and these steps: name and status.
    pub(in crate::page) fn run(status: &str, steps: &[(&str, &str)]) -> RunData {
        let at = "2026-12-01T12:00:00Z";
        let steps: Vec<Value> = steps.iter().map(|(name, status)| step(name, status)).collect();
        serde_json::from_value(json!({
            "job_id": "job_1", "run_id": "run_1", "plan_id": format!("plan_{}", "0".repeat(32)), "status": status,
            "job": { "object": "job", "id": "job_1", "kind": "orchestration", "status": status, "mode": "sync",
                "durability": "persisted", "run_id": "run_1" },
            "run": { "object": "run", "id": "run_1", "job_id": "job_1", "status": status, "mode": "real",
                "plan_id": format!("plan_{}", "0".repeat(32)), "workflow": "refund", "route": null, "parent": null,
                "rerun_of": null, "started_by": "ann", "started": at, "updated": at, "seq": 7, "note": null },
            "steps": steps, "pending_checkpoint": null, "checkpoints": [], "conflicts": [], "output": null,
            "undone": [], "error": null,
            "audit_receipt": { "object": "audit_receipt", "request_id": "req_1", "auth_mode": "token",
                "source": { "method": "POST", "route": "/x" } },
            "links": { "self": "/x", "stream": "/x", "events": "/x", "explain": "/x" },
        }))
        .unwrap()
    }

    fn step(name: &str, status: &str) -> Value {
        json!({ "step_id": name, "status": status, "started": null, "duration_ms": null, "attempts": 1,
            "effect": "shared", "items": null, "items_ended": null, "http_status": null, "note": null })
    }

    /// A graph with these steps (name, status) and edges (from, to, kind).
    pub(in crate::page) fn graph(steps: &[(&str, &str)], edges: &[(&str, &str, &str)]) -> RunGraph {
        let rows: Vec<Value> = steps
            .iter()
            .map(|(name, status)| {
                let fallback_of = edges.iter().find(|(_, to, kind)| *kind == "fallback" && to == name);
                json!({ "state": step(name, status), "for_each": false, "conditional": false, "risk": null,
                    "action": { "kind": "call", "method": "POST", "service": "bank", "path": "/charges" },
                    "irreversible": false, "has_undo": !name.starts_with("mail"), "takes_lock": false,
                    "fallback_of": fallback_of.map(|(from, ..)| *from), "child_runs": [] })
            })
            .collect();
        let edges: Vec<Value> =
            edges.iter().map(|(from, to, kind)| json!({ "from": from, "to": to, "kind": kind })).collect();
        serde_json::from_value(json!({
            "run_id": "run_1", "workflow": "refund", "plan_id": format!("plan_{}", "0".repeat(32)),
            "status": "running", "mode": "real", "note": null, "steps": rows, "edges": edges,
        }))
        .unwrap()
    }

    fn offered(run: &RunData) -> Vec<&'static str> {
        Command::ALL.into_iter().filter(|command| command.applies(run)).map(Command::name).collect()
    }

    #[test]
    fn only_commands_that_make_sense_are_offered() {
        let steps = [("a", "done"), ("b", "retrying"), ("c", "pending")];
        assert_eq!(offered(&run("running", &steps)), ["pause", "retry", "skip", "adjust", "cancel"]);
        assert_eq!(offered(&run("paused", &steps)), ["resume", "retry", "skip", "adjust", "rerun", "cancel"]);
        assert_eq!(offered(&run("compensating", &[("a", "undoing")])), ["retry", "cancel"]);
        assert_eq!(offered(&run("completed", &[("a", "done")])), ["rerun"]);
        assert_eq!(offered(&run("abandoned", &[])), [""; 0]);
        let waits = run("waiting_signal", &[("w", "waiting_signal")]);
        assert_eq!(offered(&waits), ["pause", "skip", "signal", "cancel"]);
        let stuck = RunData { trouble: Some("its plan cannot be read".into()), ..run("running", &steps) };
        assert_eq!(offered(&stuck), ["cancel"]);
    }

    #[test]
    fn steps_that_a_command_cannot_be_about_are_left_out() {
        let steps = [("a", "done"), ("b", "pending"), ("c", "pending")];
        let (run, graph) = (run("running", &steps), graph(&steps, &[("b", "c", "fallback")]));
        let names = |command: Command, graph: Option<&RunGraph>| {
            command.steps(&run, graph).into_iter().map(|step| step.step_id.clone()).collect::<Vec<_>>()
        };
        assert_eq!(names(Command::Skip, None), ["b", "c"]);
        assert_eq!(names(Command::Skip, Some(&graph)), ["b"], "a fallback has not taken its place yet");
        assert_eq!(names(Command::Rerun, Some(&graph)), ["a", "b", "c"]);
    }

    #[test]
    fn every_command_has_a_name_of_its_own() {
        for command in Command::ALL {
            assert_eq!(Command::named(command.name()), Some(command));
        }
        assert_eq!(Command::named("flip"), None);
    }
}
