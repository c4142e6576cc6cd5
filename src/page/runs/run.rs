//! The page of a run: what it does or waits for, what can be done about it, its chart, its timeline and its events.
//!
//! Always true: what one of the API's endpoints refuses is said in its place, and the rest of the page is shown. The
//! time to render grows linearly with the steps and the events that are shown.

use axum::extract::{Path, Query};
use axum::response::Response;
use http::StatusCode;
use jiff::Timestamp;
use maud::{Markup, html};
use serde_json::Value;

use crate::admin::types::{ApiProblem, EventRow, ExplanationView, Mode, Orchestration, RunData, RunGraph, StepRow};
use crate::page::actions::run_actions;
use crate::page::client::segment;
use crate::page::failure::{Failure, problem_box};
use crate::page::html::respond;
use crate::page::recorded_text::clean;
use crate::page::request::Visit;
use crate::page::runs::flowchart::{ChartView, Zoom, look, page_chart};
use crate::page::runs::rehearsed_run::{intents, rehearsed};
use crate::page::runs::run_facts;
use crate::page::runs::run_filters::{RunFilters, search_form};
use crate::page::runs::run_links::RunLinks;
use crate::page::runs::run_list::shown_id;
use crate::page::runs::run_loading::{first_read, kept_events, newest_events, run_path, some_events};
use crate::page::runs::run_step::{StepView, chosen, step_panel};
use crate::page::runs::run_timeline::timeline;
use crate::page::runs::run_trail::{EVENTS_SHOWN_MAX, first_shown, trail};

/// How many steps that stand out are named above the chart.
const EXCEPTIONS_MAX: usize = 20;
/// Of a step with more items than this, the outputs are not put together: each item has its own.
const OUTPUT_ITEMS_MAX: u32 = 1_000;

type Read<T> = Result<T, Box<ApiProblem>>;

pub(in crate::page) async fn show(
    Path(id): Path<String>,
    Query(query): Query<Vec<(String, String)>>,
    visit: Visit,
) -> Result<Response, Failure> {
    let visit = visit.part("runs");
    let links = RunLinks::of(&query);
    let title = shown_id(&id);
    let run = match visit.client.get::<Orchestration>(&run_path(&id)).await {
        Ok(run) => run.data,
        Err(problem) => {
            let (status, content) = not_stored(&id, &visit, &links, &problem).await;
            return Ok(respond(status, &visit.frame, &title, content));
        }
    };
    let loaded = Loaded::read(&visit, run, &links).await;
    let content = loaded.shown(run_actions::panel(&visit, &loaded.run), &links, Timestamp::now());
    Ok(respond(StatusCode::OK, &visit.frame, &title, content))
}

/// The page of a run that the store does not have: a rehearsal of which a sample is kept, or the problem.
async fn not_stored(id: &str, visit: &Visit, links: &RunLinks, problem: &ApiProblem) -> (StatusCode, Markup) {
    if problem.status == StatusCode::NOT_FOUND.as_u16() {
        let kept = kept_events(&visit.client, id).await.unwrap_or_default();
        if !kept.is_empty() {
            return rehearsed(id, &kept, links);
        }
    }
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, unknown(id, problem))
}

fn unknown(id: &str, problem: &ApiProblem) -> Markup {
    let typed = RunFilters { id: Some(id.to_owned()), ..RunFilters::default() };
    html! {
        h1 { "Run " code { (shown_id(id)) } }
        (problem_box(problem))
        h2 { "Search for another run" }
        (search_form(&typed))
    }
}

/// What the API says of a run.
struct Loaded {
    run: RunData,
    explained: Option<ExplanationView>,
    graph: Read<RunGraph>,
    /// The newest events.
    events: Read<Vec<EventRow>>,
    /// The events that the trail shows, where they are not among those above.
    trail: Option<Vec<EventRow>>,
    /// The output of the chosen step.
    output: Option<Value>,
}

impl Loaded {
    async fn read(visit: &Visit, run: RunData, links: &RunLinks) -> Self {
        // By the run's id: the newest run of a job may be another one by now.
        let path = run_path(&run.run_id);
        let (explain_path, graph_path) = (format!("{path}/explain"), format!("{path}/graph"));
        let first = first_shown(links.events_after, run.run.seq);
        let trail = async {
            let is_read = first >= first_read(run.run.seq);
            if is_read { None } else { some_events(&visit.client, &run.run_id, first, EVENTS_SHOWN_MAX).await.ok() }
        };
        let output = async {
            let step = chosen(&run.steps, links.step.as_deref()).filter(|step| has_output(step))?;
            visit.client.get::<Value>(&format!("{path}/steps/{}/output", segment(&step.step_id))).await.ok()
        };
        let (explained, graph, events, trail, output) = tokio::join!(
            visit.client.get::<ExplanationView>(&explain_path),
            visit.client.get::<RunGraph>(&graph_path),
            newest_events(&visit.client, &run.run_id, run.run.seq),
            trail,
            output,
        );
        Self { explained: explained.ok(), graph, events, trail, output, run }
    }

    /// The page. `actions` is what can be done about the run.
    fn shown(&self, actions: Markup, links: &RunLinks, now: Timestamp) -> Markup {
        let run = &self.run;
        let until = if run.status.is_final() { run.run.updated } else { now.max(run.run.updated) };
        let step = chosen(&run.steps, links.step.as_deref());
        let events = self.events.as_deref().unwrap_or_default();
        html! {
            h1 { "Run of " bdi { (run.run.workflow) } }
            p.sub { code { (clean(&run.run_id)) } }
            (run_facts::summary(run, self.explained.as_ref()))
            (actions)
            (run_facts::facts(run, self.explained.as_ref(), now))
            (run_facts::results(run))
            h2 #chart { "Steps" }
            (exceptions(&run.steps, links))
            div.run-body {
                div.run-chart { (self.chart(step, links, until)) }
                section #step.run-step data-live aria-label="The chosen step" {
                    @match step {
                        Some(state) => (step_panel(&self.step_view(state, events, links, until))),
                        None => (no_step(links.step.as_deref())),
                    }
                }
            }
            h2 { "Timeline" }
            (timeline(&run.steps, run.run.started, until, links))
            @if run.run.mode != Mode::Real {
                h2 { "What was recorded and not sent" }
                (intents(events))
            }
            h2 #events { "Events" }
            (self.trail(links))
        }
    }

    fn chart(&self, step: Option<&StepRow>, links: &RunLinks, until: Timestamp) -> Markup {
        let graph = match &self.graph {
            Ok(graph) => graph,
            Err(problem) => return problem_box(problem),
        };
        let step_link = |step: &str| links.to_step(step);
        let chosen = step.map(|step| step.step_id.as_str());
        html! {
            nav.zoom aria-label="Size of the chart" {
                @for zoom in Zoom::ALL {
                    a href=(links.zoomed(zoom)) aria-current=[(zoom == links.zoom).then_some("true")] {
                        @match zoom { Zoom::Fit => "fit", Zoom::Percent(percent) => { (percent) " %" } }
                    }
                }
            }
            div.scroll.tall tabindex="0" role="region" aria-label="Flowchart" {
                (page_chart(graph, &ChartView { chosen, zoom: links.zoom, until, step_link: &step_link }))
            }
        }
    }

    fn step_view<'a>(
        &'a self,
        state: &'a StepRow,
        events: &'a [EventRow],
        links: &'a RunLinks,
        until: Timestamp,
    ) -> StepView<'a> {
        let steps = self.graph.as_ref().map(|graph| graph.steps.as_slice()).unwrap_or_default();
        let number = steps.iter().position(|step| step.state.step_id == state.step_id);
        let planned = number.map(|number| &steps[number]);
        StepView { state, planned, number, events, output: self.output.as_ref(), until, links }
    }

    fn trail(&self, links: &RunLinks) -> Markup {
        let last = self.run.run.seq;
        html! {
            @match (&self.trail, &self.events) {
                (Some(rows), _) | (None, Ok(rows)) => (trail(rows, first_shown(links.events_after, last), last, links)),
                (None, Err(problem)) => (problem_box(problem)),
            }
        }
    }
}

/// Whether the step may have an output that is worth reading.
fn has_output(step: &StepRow) -> bool {
    matches!(step.status.as_str(), "done" | "rehearsed" | "undone" | "undoing")
        && step.items.unwrap_or(0) <= OUTPUT_ITEMS_MAX
}

/// The steps that somebody has to look at.
fn exceptions(steps: &[StepRow], links: &RunLinks) -> Markup {
    let found: Vec<&StepRow> = steps.iter().filter(|step| look(&step.status).is_exception).collect();
    html! {
        div #exceptions data-live {
            @if !found.is_empty() {
                p { "Somebody has to look at:" }
                ul.exceptions {
                    @for step in found.iter().take(EXCEPTIONS_MAX) {
                        li {
                            a href=(links.to_step(&step.step_id)) { bdi { (clean(&step.step_id)) } } " "
                            (crate::page::runs::run_words::badge(look(&step.status)))
                        }
                    }
                }
                @if found.len() > EXCEPTIONS_MAX { p.hint { "And " (found.len() - EXCEPTIONS_MAX) " more steps." } }
            }
        }
    }
}

fn no_step(asked: Option<&str>) -> Markup {
    html! {
        @match asked {
            Some(asked) => p { "The run has no step " code { (clean(asked)) } ". Choose one in the chart." },
            None => p { "Choose a step in the chart to see what it sent and what came back." },
        }
    }
}

#[cfg(test)]
mod tests;
