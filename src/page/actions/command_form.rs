//! The page that asks before a command is given to a run: what will happen, the reason, the values, the button.

use maud::{Markup, html};

use crate::admin::types::{RunGraph, RunStatus, StepActionRow};
use crate::page::actions::command::Command;
use crate::page::actions::command_preview::{Subject, what_happens};
use crate::page::actions::form_field::{FormField, free_text, recorded_as};
use crate::page::actions::form_state::{FormState, Person};
use crate::page::actions::json_text;
use crate::page::client::segment;
use crate::page::html::form_key;

/// The content of the page below its heading. `step` is the step that was chosen.
pub(in crate::page) fn content(
    person: &Person<'_>,
    subject: &Subject<'_>,
    command: Command,
    step: Option<&str>,
    state: &FormState<'_>,
) -> Markup {
    let may = if command.scope() == "run" { person.may_run } else { person.may_decide };
    if !may {
        return html! { p.notice { "For this, you need a token with the scope " code { (command.scope()) } "." } };
    }
    // Also where the plan waits for a signal later.
    let is_early_signal =
        command == Command::Signal && !subject.run.status.is_final() && !signals(subject.graph).is_empty();
    if !command.applies(subject.run) && !is_early_signal && !state.is_refused() {
        return html! { p.notice { (command.why_not(subject.run)) } };
    }
    let known = step.filter(|step| subject.run.steps.iter().any(|row| row.step_id == *step));
    match (command.needs_step(), known) {
        (true, None) => html! { (state.problem()) (choose(subject, command, step)) },
        (_, step) => form(person, subject, command, step, state),
    }
}

/// Asks which step is meant.
fn choose(subject: &Subject<'_>, command: Command, unknown: Option<&str>) -> Markup {
    let steps: Vec<(String, String)> = command
        .steps(subject.run, subject.graph)
        .into_iter()
        .map(|step| (step.step_id.clone(), format!("{} ({})", step.step_id, step.status.replace('_', " "))))
        .collect();
    let field = FormField { id: "step", name: "step", label: "Step", hint: "", is_required: true };
    html! {
        @if let Some(unknown) = unknown.filter(|name| !name.is_empty()) {
            p.field-error role="alert" { "▲ The run has no step " code { (unknown) } "." }
        }
        @if steps.is_empty() { p.notice { (command.why_not(subject.run)) } }
        @else {
            form.act-form method="get" action=(path(subject, command)) {
                (field.choice(&FormState::default(), &steps, ""))
                p.hint { "Next you see what will happen. Nothing is done yet." }
                div.buttons { button type="submit" { "See what will happen" } }
            }
        }
    }
}

fn path(subject: &Subject<'_>, command: Command) -> String {
    format!("/runs/{}/{}", segment(&subject.run.run_id), command.name())
}

fn form(
    person: &Person<'_>,
    subject: &Subject<'_>,
    command: Command,
    step: Option<&str>,
    state: &FormState<'_>,
) -> Markup {
    let class = if command == Command::Cancel { "danger" } else { "primary" };
    html! {
        div.act {
            h2 { "What will happen" }
            (what_happens(command, subject, step))
            (state.problem())
            form.act-form method="post" action=(path(subject, command)) {
                (form_key(person.frame))
                @if let Some(step) = step { input type="hidden" name="step" value=(step); }
                (values(subject, command, step, state))
                @if !matches!(command, Command::Retry | Command::Rerun | Command::Signal) {
                    (free_text(state, "reason", "/reason", "Reason", "the command"))
                }
                p.hint { (recorded_as(person.name)) }
                div.buttons {
                    button class=(class) type="submit" { (button(command, step)) }
                    @if command.needs_step() { a href=(path(subject, command)) { "Choose another step" } }
                    a href=(format!("/runs/{}", segment(&subject.run.run_id))) { "Back, do nothing" }
                }
            }
        }
    }
}

/// The text of the button: what it does.
fn button(command: Command, step: Option<&str>) -> String {
    match (command, step) {
        (Command::Skip, Some(step)) => format!("Skip {step}"),
        (Command::Adjust, Some(step)) => format!("Give {step} this input"),
        (Command::Rerun, Some(step)) => format!("Run again from {step}"),
        _ => command.title().to_owned(),
    }
}

/// The fields of a command beside the reason.
fn values(subject: &Subject<'_>, command: Command, step: Option<&str>, state: &FormState<'_>) -> Markup {
    match command {
        Command::Pause | Command::Resume | Command::Retry | Command::Skip | Command::Rerun => html! {},
        Command::Cancel => undo_choice(subject, state),
        Command::Adjust => {
            let has_items =
                subject.run.steps.iter().any(|row| Some(row.step_id.as_str()) == step && row.items.is_some());
            let item = FormField {
                id: "item",
                name: "item",
                label: "Item",
                hint: "The number of the item that gets this input. The first is 0.",
                is_required: true,
            };
            let input = FormField {
                id: "input",
                name: "/input",
                label: "New input",
                hint: "JSON; a text stands in double quotes.",
                is_required: true,
            };
            let first = subject.given_input.map(json_text::pretty).unwrap_or_default();
            html! {
                @if has_items { (item.line(state, "text", Some("numeric"), "")) }
                (input.json(state, &first))
                @for error in state.errors_at("") { p.field-error { "▲ " (error) } }
            }
        }
        Command::Signal => signal_fields(subject, state),
    }
}

fn undo_choice(subject: &Subject<'_>, state: &FormState<'_>) -> Markup {
    if subject.run.trouble.is_some() || subject.run.status == RunStatus::Compensating {
        return html! { input type="hidden" name="undo" value="no"; };
    }
    let radio = |value: &str, label: &str, is_first: bool| {
        let id = format!("undo-{value}");
        html! {
            div.radio {
                input type="radio" id=(id) name="undo" value=(value) required
                    checked[state.is_chosen("undo", value, is_first)];
                label for=(id) { (label) }
            }
        }
    };
    html! {
        fieldset.group {
            legend { "What becomes of what the run did?" }
            @for error in state.errors_at("/compensate") { p.field-error { "▲ " (error) } }
            (radio("yes", "Undo it where the workflow says how, the last step first", true))
            (radio("no", "Leave everything as it is, undo nothing", false))
        }
    }
}

/// The signals that the plan waits for.
fn signals(graph: Option<&RunGraph>) -> Vec<&str> {
    let steps = graph.into_iter().flat_map(|graph| &graph.steps);
    let mut names: Vec<&str> = steps
        .filter_map(|step| match &step.action {
            StepActionRow::WaitForSignal { signal } => Some(signal.as_str()),
            _ => None,
        })
        .collect();
    names.dedup();
    names
}

fn signal_fields(subject: &Subject<'_>, state: &FormState<'_>) -> Markup {
    let known: Vec<(String, String)> =
        signals(subject.graph).into_iter().map(|name| (name.to_owned(), name.to_owned())).collect();
    let name = FormField { id: "name", name: "name", label: "Signal", hint: "", is_required: true };
    let payload = FormField {
        id: "payload",
        name: "/payload",
        label: "Content",
        hint: "JSON; a text stands in double quotes. Empty for none.",
        is_required: false,
    };
    let delivery = FormField {
        id: "delivery",
        name: "/id",
        label: "Id of the delivery",
        hint: "A second delivery with the same id changes nothing, so that pressing the button twice is harmless.",
        is_required: false,
    };
    // Another id for each page that is loaded.
    let id = format!("page-{}", jiff::Timestamp::now().as_nanosecond());
    html! {
        @match &known[..] {
            [] => (name.line(state, "text", None, "")),
            [(only, _)] => (name.choice(state, &known, only)),
            _ => (name.choice(state, &known, "")),
        }
        (payload.json(state, ""))
        (delivery.line(state, "text", None, &id))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::page::actions::command::tests::{graph, run};
    use crate::page::client::problem;
    use crate::page::html::Frame;
    use crate::page::request::Fields;

    const STEPS: &[(&str, &str)] = &[("pay", "done"), ("mail", "pending"), ("<b>", "pending")];

    fn shown(command: Command, step: Option<&str>, status: &str, may: bool, state: &FormState<'_>) -> String {
        let frame = Frame { viewer: None, form_key: "key".into(), path: "/runs/run_1/x".into(), part: "runs" };
        let person = Person { frame: &frame, name: None, may_decide: may, may_run: may };
        let (run, graph) = (run(status, STEPS), graph(STEPS, &[]));
        let given = json!({ "to": "ann" });
        let subject = Subject { run: &run, graph: Some(&graph), given_input: Some(&given), declared_input: None };
        content(&person, &subject, command, step, state).into_string()
    }

    #[test]
    fn a_step_is_chosen_first() {
        let page = shown(Command::Skip, None, "running", true, &FormState::default());
        assert!(page.contains(r#"method="get""#) && !page.contains(r#"method="post""#), "{page}");
        assert!(page.contains(r#"<option value="&lt;b&gt;">&lt;b&gt; (pending)</option>"#), "{page}");
        assert!(!page.contains(r#"<option value="pay""#), "it has been done: {page}");
        let page = shown(Command::Skip, Some("none"), "running", true, &FormState::default());
        assert!(page.contains("The run has no step <code>none</code>"), "{page}");
    }

    #[test]
    fn the_button_says_what_it_does() {
        let page = shown(Command::Skip, Some("mail"), "running", true, &FormState::default());
        assert!(page.contains(r#"<button class="primary" type="submit">Skip mail</button>"#), "{page}");
        assert!(page.contains(r#"name="step" value="mail""#) && page.contains("No other step needs it"), "{page}");
        let page = shown(Command::Cancel, None, "running", true, &FormState::default());
        assert!(page.contains(r#"id="undo-yes" name="undo" value="yes" required checked"#), "{page}");
        let page = shown(Command::Cancel, None, "compensating", true, &FormState::default());
        assert!(page.contains(r#"type="hidden" name="undo" value="no""#), "{page}");
    }

    #[test]
    fn a_known_input_is_filled_in() {
        let page = shown(Command::Adjust, Some("mail"), "running", true, &FormState::default());
        assert!(page.contains("{\n  &quot;to&quot;: &quot;ann&quot;\n}</textarea>"), "{page}");
    }

    #[test]
    fn a_refused_command_keeps_what_was_typed() {
        let fields = Fields(vec![("/reason".into(), "looks odd".into()), ("undo".into(), "no".into())]);
        let state = FormState::refused(&fields, problem(http::StatusCode::CONFLICT, "ann has cancelled it"));
        let page = shown(Command::Cancel, None, "cancelled", true, &state);
        assert!(page.contains("ann has cancelled it") && page.contains("looks odd</textarea>"), "{page}");
        assert!(page.contains(r#"value="no" required checked"#), "{page}");
    }

    #[test]
    fn what_is_not_possible_has_no_button() {
        let page = shown(Command::Pause, None, "completed", true, &FormState::default());
        assert!(page.contains("The run has ended.") && !page.contains("<button"), "{page}");
        let page = shown(Command::Signal, None, "running", false, &FormState::default());
        assert!(page.contains("scope <code>run</code>") && !page.contains("<button"), "{page}");
    }
}
