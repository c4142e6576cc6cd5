//! The preview of one action on several runs, and what became of it.

use maud::{Markup, html};

use crate::admin::types::{ApiProblem, RunData, RunStatus};
use crate::page::actions::command::Command;
use crate::page::actions::form_field::{free_text, recorded_as};
use crate::page::actions::form_state::{FormState, Person};
use crate::page::client::segment;
use crate::page::failure::problem_box;
use crate::page::html::{count, form_key};

/// An action on several runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::page) enum BulkAction {
    Pause,
    Resume,
    Retry,
    Cancel,
    CancelWithoutUndo,
}

impl BulkAction {
    /// All of them: name, and what it is called.
    pub(in crate::page) const ALL: [(BulkAction, &'static str, &'static str); 5] = [
        (BulkAction::Pause, "pause", "Pause"),
        (BulkAction::Resume, "resume", "Resume"),
        (BulkAction::Retry, "retry", "Try again now"),
        (BulkAction::Cancel, "cancel", "Cancel and undo"),
        (BulkAction::CancelWithoutUndo, "cancel_without_undo", "Cancel without undo"),
    ];

    /// The action with this name.
    pub(in crate::page) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(_, known, _)| *known == name).map(|(action, ..)| action)
    }

    fn words(self) -> (&'static str, &'static str) {
        let found = Self::ALL.into_iter().find(|(action, ..)| *action == self);
        found.map_or(("", ""), |(_, name, title)| (name, title))
    }

    /// The command that it gives to each run.
    pub(in crate::page) fn command(self) -> Command {
        match self {
            BulkAction::Pause => Command::Pause,
            BulkAction::Resume => Command::Resume,
            BulkAction::Retry => Command::Retry,
            BulkAction::Cancel | BulkAction::CancelWithoutUndo => Command::Cancel,
        }
    }

    /// What it will do to a run.
    ///
    /// # Errors
    /// Why the run will refuse it.
    fn on(self, run: &RunData) -> Result<String, &'static str> {
        if !self.command().applies(run) {
            return Err(self.command().why_not(run));
        }
        if self == BulkAction::Cancel && (run.trouble.is_some() || run.status == RunStatus::Compensating) {
            return Err("It can only be cancelled without undo.");
        }
        let waiting = || Command::Retry.steps(run, None).len();
        Ok(match self {
            BulkAction::Pause => "No further step begins. Calls under way are completed.".into(),
            BulkAction::Resume => "It goes on from where it stands.".into(),
            BulkAction::Retry => format!("The next attempt is made at once: {} waiting.", steps(waiting())),
            BulkAction::Cancel => match effects(run) {
                0 => "It ends. It has changed nothing outside yet.".into(),
                done => format!("It ends. What {} did is undone where the workflow says how.", steps(done)),
            },
            BulkAction::CancelWithoutUndo => match effects(run) {
                0 => "It ends. It has changed nothing outside yet.".into(),
                done => format!("It ends. What {} did is left as it is.", steps(done)),
            },
        })
    }
}

fn steps(count: usize) -> String {
    if count == 1 { "1 step".into() } else { format!("{count} steps") }
}

/// How many finished steps have changed something outside.
fn effects(run: &RunData) -> usize {
    let is_effect = |effect: Option<&str>| matches!(effect, Some("private" | "shared"));
    run.steps.iter().filter(|step| step.status == "done" && is_effect(step.effect.as_deref())).count()
}

/// A run of the selection; the error says why it cannot be shown.
pub(in crate::page) type SelectedRun = (String, Result<Box<RunData>, Box<ApiProblem>>);

/// What will happen to each run, and the button that does it.
pub(in crate::page) fn preview(person: &Person<'_>, action: BulkAction, runs: &[SelectedRun]) -> Markup {
    let (name, title) = action.words();
    let does = |run: &SelectedRun| run.1.as_ref().is_ok_and(|run| action.on(run).is_ok());
    let acting = runs.iter().filter(|run| does(run)).count();
    let class = if action.command() == Command::Cancel { "danger" } else { "primary" };
    html! {
        h1 { (title) ": " (amount(runs.len())) }
        p {
            @if acting == runs.len() { "Nothing has been done yet. This is what will happen." }
            @else {
                "Nothing has been done yet. " (amount(acting)) " of " (count(runs.len() as u64))
                " will take this; the others stay as they are."
            }
        }
        (table(runs, |run| match run {
            Ok(run) => match action.on(run) {
                Ok(will) => html! { (will) },
                Err(why) => html! { span.refused { "▲ Stays as it is: " } (why) },
            },
            Err(problem) => html! { span.refused { "▲ Stays as it is: " } (problem.title) ". " (problem.detail) },
        }))
        @if acting > 0 {
            form.act-form method="post" action="/runs" {
                (form_key(person.frame))
                input type="hidden" name="action" value=(name);
                input type="hidden" name="confirmed" value="yes";
                @for run in runs.iter().filter(|run| does(run)) { input type="hidden" name="run" value=(run.0); }
                @if action != BulkAction::Retry {
                    (free_text(&FormState::default(), "reason", "/reason", "Reason", "each run"))
                }
                p.hint { (recorded_as(person.name)) }
                div.buttons {
                    button class=(class) type="submit" { (title) ": " (amount(acting)) }
                    a href="/runs" { "Back, do nothing" }
                }
            }
        } @else {
            p { a href="/runs" { "Back to the runs" } }
        }
    }
}

fn amount(runs: usize) -> String {
    if runs == 1 { "1 run".into() } else { format!("{} runs", count(runs as u64)) }
}

/// What became of each run: its status after the action, or why it refused.
pub(in crate::page) fn outcome(action: BulkAction, runs: &[SelectedRun]) -> Markup {
    let (_, title) = action.words();
    let done = runs.iter().filter(|(_, run)| run.is_ok()).count();
    html! {
        h1 {
            (title) ": "
            @if done == runs.len() { (amount(done)) } @else { (count(done as u64)) " of " (amount(runs.len())) }
        }
        p role="status" {
            @if done == runs.len() { "Every run has taken it." }
            @else { (amount(runs.len() - done)) " refused it, and are as they were. The reason stands beside each." }
        }
        (table(runs, |run| match run {
            Ok(_) => html! { "✓ done" },
            Err(problem) => problem_box(problem),
        }))
        p { a href="/runs" { "Back to the runs" } }
    }
}

fn table(runs: &[SelectedRun], last: impl Fn(Result<&RunData, &ApiProblem>) -> Markup) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label="The selected runs" {
            table {
                thead {
                    tr {
                        th scope="col" { "Run" } th scope="col" { "Workflow" } th scope="col" { "Status" }
                        th scope="col" { "What happens" }
                    }
                }
                tbody {
                    @for (id, run) in runs {
                        tr {
                            th scope="row" { a href=(format!("/runs/{}", segment(id))) { (id) } }
                            @match run {
                                Ok(run) => { td { (run.run.workflow) } td { (run.status.as_str().replace('_', " ")) } }
                                Err(_) => { td { "–" } td { "–" } }
                            }
                            td { (last(run.as_deref().map_err(|problem| &**problem))) }
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::actions::command::tests::run;
    use crate::page::client::problem;
    use crate::page::html::Frame;

    fn selection() -> Vec<SelectedRun> {
        let no_run = problem(http::StatusCode::NOT_FOUND, "There is no run <script>");
        vec![
            ("run_1".into(), Ok(Box::new(run("running", &[("pay", "done"), ("mail", "pending")])))),
            ("run_2".into(), Ok(Box::new(run("completed", &[])))),
            ("run_\"3".into(), Err(Box::new(no_run))),
        ]
    }

    fn shown(action: BulkAction, runs: &[SelectedRun]) -> String {
        let frame = Frame { viewer: None, form_key: "key".into(), path: "/runs".into(), part: "runs" };
        let person = Person { frame: &frame, name: Some("ann"), may_decide: true, may_run: true };
        preview(&person, action, runs).into_string()
    }

    #[test]
    fn a_preview_says_what_happens_to_each_run() {
        let page = shown(BulkAction::Cancel, &selection());
        assert!(page.contains("1 run of 3 will take this"), "{page}");
        assert!(page.contains("What 1 step did is undone"), "{page}");
        assert!(page.contains("Stays as it is: </span>The run has ended."), "{page}");
        assert!(page.contains("There is no run &lt;script&gt;") && !page.contains("<script"), "{page}");
        assert_eq!(page.matches(r#"name="run""#).count(), 1, "only runs that take it are sent: {page}");
        assert!(page.contains(r#"<button class="danger" type="submit">Cancel and undo: 1 run</button>"#), "{page}");
    }

    #[test]
    fn nothing_to_do_has_no_button() {
        let page = shown(BulkAction::Resume, &selection());
        assert!(!page.contains("<button") && page.contains("The run is not paused."), "{page}");
    }

    #[test]
    fn a_refusal_stands_beside_its_run() {
        let page = outcome(BulkAction::Pause, &selection()[1..]).into_string();
        assert!(page.contains("Pause: 1 of 2 runs") && page.contains("✓ done"), "{page}");
        assert!(page.contains("There is no run &lt;script&gt;"), "{page}");
    }

    #[test]
    fn every_action_has_a_name() {
        for (action, name, _) in BulkAction::ALL {
            assert_eq!(BulkAction::named(name), Some(action));
        }
        assert_eq!(BulkAction::named("rerun"), None);
    }
}
