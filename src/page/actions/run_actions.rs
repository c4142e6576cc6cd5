//! What people can do to a run: answer its checkpoints, decide its conflicts, and give it commands.

use axum::extract::{Path, Query};
use axum::response::Response;
use http::StatusCode;
use maud::{Markup, html};
use serde_json::Value;

use crate::admin::types::{ApiProblem, EventRow, OpenConflict, Orchestration, PendingCheckpoint, RunData, RunGraph};
use crate::page::actions::answer_request::{self, first_answer};
use crate::page::actions::checkpoint_form;
use crate::page::actions::command::Command;
use crate::page::actions::command_form;
use crate::page::actions::command_preview::Subject;
use crate::page::actions::command_request;
use crate::page::actions::conflict_form;
use crate::page::actions::conflict_request;
use crate::page::actions::form_state::{FormState, Person};
use crate::page::client::segment;
use crate::page::failure::{Failure, problem_box};
use crate::page::html::respond;
use crate::page::request::{Fields, Submitted, Visit, see_other};

/// The action that answers a checkpoint.
const ANSWER: &str = "answer";
/// The action that decides a conflict.
const RESOLVE: &str = "resolve";

/// What a run waits for from a person, with the forms that answer it, and the other commands that it takes now.
pub(in crate::page) fn panel(visit: &Visit, run: &RunData) -> Markup {
    let person = Person::of(visit);
    let first = FormState::default();
    html! {
        div.acts {
            @for conflict in &run.conflicts { (conflict_form::section(&person, &run.run_id, conflict, &first)) }
            @for asked in &run.checkpoints { (checkpoint_form::section(&person, &run.run_id, asked, &first)) }
            (commands(&person, run))
        }
    }
}

/// The commands that the run takes now, as links to the pages that ask first.
fn commands(person: &Person<'_>, run: &RunData) -> Markup {
    let taken = || Command::ALL.into_iter().filter(|command| command.applies(run));
    let may = |command: &Command| if command.scope() == "run" { person.may_run } else { person.may_decide };
    let mut missing: Vec<&str> = taken().filter(|command| !may(command)).map(Command::scope).collect();
    missing.dedup();
    html! {
        @if taken().next().is_some() {
            section.act aria-labelledby="commands-title" {
                h2 #commands-title { "What you can do with this run" }
                @if taken().any(|command| may(&command)) {
                    ul.commands {
                        @for command in taken().filter(|command| may(command)) {
                            li { a href=(action_path(&run.run_id, command.name())) { (command.title()) " …" } }
                        }
                    }
                }
                @for scope in missing {
                    p.notice { "For more, you need a token with the scope " code { (scope) } "." }
                }
            }
        }
    }
}

fn action_path(run: &str, action: &str) -> String {
    format!("/runs/{}/{action}", segment(run))
}

/// The page that asks before an action is carried out.
pub(in crate::page) async fn show(
    Path((id, action)): Path<(String, String)>,
    Query(query): Query<Vec<(String, String)>>,
    visit: Visit,
) -> Result<Response, Failure> {
    let visit = visit.part("runs");
    let query = Fields(query);
    let state = FormState::filled(&query);
    match action.as_str() {
        ANSWER | RESOLVE => {
            let run = load(&visit, query.get("run").unwrap_or(&id)).await.map_err(|problem| visit.failed(problem))?;
            let section = match action.as_str() {
                ANSWER => checkpoint_of(&run, &query)
                    .map(|asked| checkpoint_form::section(&Person::of(&visit), &id, asked, &FormState::default())),
                _ => conflict_of(&run, &query)
                    .map(|conflict| conflict_form::section(&Person::of(&visit), &id, conflict, &FormState::default())),
            };
            // Answered or decided by now: the page of the run says what it waits for.
            let Some(section) = section else { return Ok(see_other(&format!("/runs/{}", segment(&id)))) };
            Ok(page(&visit, StatusCode::OK, "A decision is needed", &run, &section))
        }
        name => {
            let Some(command) = Command::named(name) else { return Ok(unknown_action(&visit, &id, name)) };
            let run = load(&visit, &id).await.map_err(|problem| visit.failed(problem))?;
            Ok(command_page(&visit, &run, command, &query, &state, StatusCode::OK).await)
        }
    }
}

/// Carries out an action.
pub(in crate::page) async fn perform(
    Path((id, action)): Path<(String, String)>,
    Submitted { visit, fields }: Submitted,
) -> Result<Response, Failure> {
    let visit = visit.part("runs");
    match action.as_str() {
        ANSWER => Ok(answer(&visit, &id, &fields).await),
        RESOLVE => Ok(resolve(&visit, &id, &fields).await),
        name => match Command::named(name) {
            Some(command) => Ok(give_command(&visit, &id, command, &fields).await),
            None => Ok(unknown_action(&visit, &id, name)),
        },
    }
}

async fn answer(visit: &Visit, id: &str, fields: &Fields) -> Response {
    let run_id = fields.get("run").unwrap_or(id);
    let run = match load(visit, run_id).await {
        Ok(run) => run,
        Err(problem) => return not_done(visit, id, fields, &problem),
    };
    let asked = checkpoint_of(&run, fields);
    let section = |asked: &PendingCheckpoint, state: &FormState<'_>| {
        checkpoint_form::section(&Person::of(visit), id, asked, state)
    };
    let request = match (answer_request::read(asked, fields), asked) {
        (Ok(request), _) => request,
        (Err(errors), Some(asked)) => {
            let section = section(asked, &FormState::wrong(fields, errors));
            return page(visit, StatusCode::UNPROCESSABLE_ENTITY, "The answer was not sent", &run, &section);
        }
        (Err(_), None) => return see_other(&format!("/runs/{}", segment(id))),
    };
    let checkpoint = segment(fields.get("checkpoint").unwrap_or_default());
    let path = format!("{}/checkpoints/{checkpoint}", api_path(run_id));
    match (visit.client.post::<Value>(&path, &request).await, asked) {
        (Ok(_), _) => see_other(&format!("/runs/{}", segment(id))),
        (Err(problem), Some(asked)) if problem.first.is_none() => {
            let state = FormState::refused(fields, (*problem).clone());
            page(visit, status_of(&problem), "The answer was refused", &run, &section(asked, &state))
        }
        (Err(problem), _) => not_done(visit, id, fields, &problem),
    }
}

async fn resolve(visit: &Visit, id: &str, fields: &Fields) -> Response {
    let run_id = fields.get("run").unwrap_or(id);
    let (problem, errors) = match conflict_request::read(fields) {
        Err(errors) => (None, errors),
        Ok(request) => match visit.client.post::<Value>(&format!("{}/resolve", api_path(run_id)), &request).await {
            Ok(_) => return see_other(&format!("/runs/{}", segment(id))),
            Err(problem) => (Some(problem), Vec::new()),
        },
    };
    // As it is now: the conflict may be another one, or decided.
    let run = match load(visit, run_id).await {
        Ok(run) => run,
        Err(unreadable) => return not_done(visit, id, fields, &problem.unwrap_or(unreadable)),
    };
    match (conflict_of(&run, fields), problem) {
        (Some(conflict), problem) => {
            let status = problem.as_deref().map_or(StatusCode::UNPROCESSABLE_ENTITY, status_of);
            let state = match problem {
                Some(problem) => FormState::refused(fields, *problem),
                None => FormState::wrong(fields, errors),
            };
            let section = conflict_form::section(&Person::of(visit), id, conflict, &state);
            page(visit, status, "The decision was not carried out", &run, &section)
        }
        (None, Some(problem)) => not_done(visit, id, fields, &problem),
        (None, None) => see_other(&format!("/runs/{}", segment(id))),
    }
}

async fn give_command(visit: &Visit, id: &str, command: Command, fields: &Fields) -> Response {
    let (problem, errors) = match command_request::read(command, fields) {
        Err(errors) => (None, errors),
        Ok(call) => {
            let path = format!("{}{}", api_path(id), call.path);
            match visit.client.post::<Value>(&path, &call.body).await {
                // After a rerun, the new run is shown.
                Ok(answered) => {
                    let run = answered.pointer("/data/run_id").or(answered.get("run_id")).and_then(Value::as_str);
                    return see_other(&format!("/runs/{}", segment(run.unwrap_or(id))));
                }
                Err(problem) => (Some(problem), Vec::new()),
            }
        }
    };
    let run = match load(visit, id).await {
        Ok(run) => run,
        Err(unreadable) => return not_done(visit, id, fields, &problem.unwrap_or(unreadable)),
    };
    let status = problem.as_deref().map_or(StatusCode::UNPROCESSABLE_ENTITY, status_of);
    let state = match problem {
        Some(problem) => FormState::refused(fields, *problem),
        None => FormState::wrong(fields, errors),
    };
    command_page(visit, &run, command, fields, &state, status).await
}

/// The page of a command, with what is known about the run.
async fn command_page(
    visit: &Visit,
    run: &RunData,
    command: Command,
    fields: &Fields,
    state: &FormState<'_>,
    status: StatusCode,
) -> Response {
    let step = fields.get("step");
    let base = api_path(&run.run_id);
    // What cannot be read is left out: the page still says what the command does.
    let graph: Option<RunGraph> = match command {
        Command::Skip | Command::Adjust | Command::Signal | Command::Rerun | Command::Cancel => {
            visit.client.get(&format!("{base}/graph")).await.ok()
        }
        Command::Pause | Command::Resume | Command::Retry => None,
    };
    let (given, declared) = match (command, step) {
        (Command::Adjust, Some(step)) => {
            let events: Vec<EventRow> = visit.client.get(&format!("{base}/events")).await.unwrap_or_default();
            let plan: Value = visit.client.get(&format!("{base}/plan")).await.unwrap_or_default();
            (given_input(&events, step), declared_input(&plan, step).cloned())
        }
        _ => (None, None),
    };
    let subject =
        Subject { run, graph: graph.as_ref(), given_input: given.as_ref(), declared_input: declared.as_ref() };
    let content = command_form::content(&Person::of(visit), &subject, command, step, state);
    page(visit, status, command.title(), run, &content)
}

/// The input that somebody gave a step last.
fn given_input(events: &[EventRow], step: &str) -> Option<Value> {
    let given = events.iter().rev().filter(|event| event.kind == "input_adjusted");
    let mut given = given.filter_map(|event| event.event.get("input_adjusted"));
    given.find(|given| given["step"] == step)?.get("input").cloned()
}

/// How a plan declares the input of a step.
fn declared_input<'a>(plan: &'a Value, step: &str) -> Option<&'a Value> {
    let step = plan.get("steps")?.get(step)?;
    ["body", "form", "text", "set", "input"].into_iter().find_map(|key| step.get(key))
}

async fn load(visit: &Visit, run: &str) -> Result<RunData, Box<ApiProblem>> {
    visit.client.get::<Orchestration>(&api_path(run)).await.map(|envelope| envelope.data)
}

fn api_path(run: &str) -> String {
    format!("/api/v2/orchestrate/run/{}", segment(run))
}

fn status_of(problem: &ApiProblem) -> StatusCode {
    StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

fn checkpoint_of<'a>(run: &'a RunData, fields: &Fields) -> Option<&'a PendingCheckpoint> {
    let id = fields.get("checkpoint")?;
    run.checkpoints.iter().find(|asked| asked.id == id)
}

fn conflict_of<'a>(run: &'a RunData, fields: &Fields) -> Option<&'a OpenConflict> {
    let (step, item) = (fields.get("step")?, fields.get("item").and_then(|item| item.parse().ok()));
    let is_meant = |open: &&OpenConflict| open.run_id == run.run_id && open.step_id == step && open.item == item;
    run.conflicts.iter().find(is_meant)
}

fn page(visit: &Visit, status: StatusCode, title: &str, run: &RunData, content: &Markup) -> Response {
    let content = html! {
        h1 { (title) }
        p {
            "Run " a href=(format!("/runs/{}", segment(&run.run_id))) { (run.run_id) }
            " of " strong { (run.run.workflow) } ": " (run.status.as_str().replace('_', " ")) "."
        }
        (content)
    };
    respond(status, &visit.frame, title, content)
}

/// What a person sent was not done, and the form is not valid any more: why, and what was typed.
fn not_done(visit: &Visit, id: &str, fields: &Fields, problem: &ApiProblem) -> Response {
    let title = if problem.first.is_some() { "Somebody answered first" } else { "It was not carried out" };
    let content = html! {
        h1 { (title) }
        @match &problem.first {
            Some(first) => (first_answer(first)),
            None => (problem_box(problem)),
        }
        p { a href=(format!("/runs/{}", segment(id))) { "See how the run stands now" } }
        (typed(fields))
    };
    respond(status_of(problem), &visit.frame, title, content)
}

/// What was typed into a form, to be copied.
fn typed(fields: &Fields) -> Markup {
    let is_typed = |(name, value): &&(String, String)| name.starts_with('/') && !value.trim().is_empty();
    let typed: Vec<_> = fields.0.iter().filter(is_typed).collect();
    html! {
        @if !typed.is_empty() {
            h2 { "What you had written" }
            dl.facts { @for (name, value) in typed { dt { (name.trim_start_matches('/')) } dd { pre { (value) } } } }
        }
    }
}

/// The page for an action that does not exist: those that do.
fn unknown_action(visit: &Visit, id: &str, action: &str) -> Response {
    let content = html! {
        h1 { "There is no such action" }
        p { "A run has no action " code { (action) } ". These exist:" }
        ul {
            @for command in Command::ALL { li { a href=(action_path(id, command.name())) { (command.title()) } } }
        }
        p {
            "Questions and conflicts are answered on "
            a href=(format!("/runs/{}", segment(id))) { "the page of the run" } "."
        }
    };
    respond(StatusCode::NOT_FOUND, &visit.frame, "There is no such action", content)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::page::actions::command::tests::run;
    use crate::page::html::Frame;

    #[test]
    fn the_commands_of_a_run_are_links_for_who_may_give_them() {
        let frame = Frame { viewer: None, form_key: "key".into(), path: "/runs/run_1".into(), part: "runs" };
        let waits = run("waiting_signal", &[("w", "waiting_signal")]);
        let shown = |may_decide, may_run| {
            commands(&Person { frame: &frame, name: None, may_decide, may_run }, &waits).into_string()
        };
        let all = shown(true, true);
        assert!(all.contains(r#"<a href="/runs/run%5F1/pause">Pause the run …</a>"#), "{all}");
        assert!(all.contains("/signal") && !all.contains("/resume") && !all.contains("scope"), "{all}");
        let few = shown(false, true);
        assert!(!few.contains("/pause") && few.contains("/signal"), "{few}");
        assert_eq!(few.matches("scope <code>decide</code>").count(), 1, "{few}");
        let ended = run("abandoned", &[]);
        let none = commands(&Person { frame: &frame, name: None, may_decide: true, may_run: true }, &ended);
        assert_eq!(none.into_string(), "");
    }

    #[test]
    fn the_input_that_was_given_last_is_found() {
        let event = |seq, step: &str, input: Value| EventRow {
            seq,
            at: "2026-12-01T12:00:00Z".parse().unwrap(),
            kind: "input_adjusted".into(),
            event: json!({ "input_adjusted": { "step": step, "item": null, "input": input, "by": "ann" } }),
        };
        let events = [event(2, "pay", json!(1)), event(3, "pay", json!(2)), event(4, "mail", json!(3))];
        assert_eq!(given_input(&events, "pay"), Some(json!(2)));
        assert_eq!(given_input(&events, "ship"), None);
        let plan = json!({ "steps": { "pay": { "call": "POST x", "body": { "amount": "${x}" } } } });
        assert_eq!(declared_input(&plan, "pay"), Some(&json!({ "amount": "${x}" })));
        assert_eq!(declared_input(&plan, "ship"), None);
    }

    #[test]
    fn what_was_typed_can_be_copied() {
        let fields = Fields(vec![
            ("/note".into(), "why <b>".into()),
            ("/values/a".into(), " ".into()),
            ("form_key".into(), "secret".into()),
        ]);
        let shown = typed(&fields).into_string();
        assert!(shown.contains("<dt>note</dt><dd><pre>why &lt;b&gt;</pre>"), "{shown}");
        assert!(!shown.contains("values") && !shown.contains("secret"), "{shown}");
    }
}
