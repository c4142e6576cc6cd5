//! A run as a flowchart in the page of the run: each box is a link that opens the step beside the chart.
//!
//! Always true: it has no style of its own (the classes are in `runs.css`), so that the page's content security policy
//! allows it; every text is escaped and cut to its box, and the whole of it is in the name of the link; a state has a
//! colour, a shape and a word. The time to draw it grows linearly with the steps.

use std::collections::BTreeMap;

use jiff::Timestamp;
use maud::{Markup, html};

use super::layout::{BOX, Point, Size, lay_out};
use super::parts::{
    LINE_COLUMNS, NAME_COLUMNS, action, cautions, cut, edge_ends, edge_line, figures, sentence, step_numbers,
};
use super::state_look::{Look, look, outline};
use crate::admin::types::{EdgeKindRow, GraphEdgeRow, GraphStepRow, RunGraph};
use crate::page::client::segment;
use crate::page::recorded_text::clean;

/// The space around all.
const MARGIN: f64 = 14.0;
/// The height of a box with a fourth line, which names cautions and child runs.
const TALL: f64 = 86.0;

/// How large the chart is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::page) enum Zoom {
    /// As a whole.
    Fit,
    /// In percent of its natural size.
    Percent(u16),
}

impl Zoom {
    /// The sizes that the page offers.
    pub(in crate::page) const ALL: [Zoom; 5] =
        [Zoom::Fit, Zoom::Percent(50), Zoom::Percent(100), Zoom::Percent(150), Zoom::Percent(200)];

    /// The size with this name in a query; the natural size for any other text.
    pub(in crate::page) fn named(name: Option<&str>) -> Self {
        Self::ALL.into_iter().find(|zoom| Some(zoom.name().as_str()) == name).unwrap_or(Zoom::Percent(100))
    }

    /// Its name in a query.
    pub(in crate::page) fn name(self) -> String {
        match self {
            Zoom::Fit => "fit".to_owned(),
            Zoom::Percent(percent) => percent.to_string(),
        }
    }
}

/// What is shown of a chart.
pub(in crate::page) struct ChartView<'a> {
    /// The step that is shown beside the chart.
    pub chosen: Option<&'a str>,
    pub zoom: Zoom,
    /// Until when the durations of steps that go on count.
    pub until: Timestamp,
    /// The link that opens a step.
    pub step_link: &'a dyn Fn(&str) -> String,
}

/// The chart of a run.
pub(in crate::page) fn page_chart(graph: &RunGraph, view: &ChartView<'_>) -> Markup {
    let numbers = step_numbers(graph);
    let has_fourth_lines = graph.steps.iter().any(|step| !cautions(step).is_empty() || !step.child_runs.is_empty());
    let size = Size { height: if has_fourth_lines { TALL } else { BOX.height }, ..BOX };
    let layout = lay_out(graph.steps.len(), &edge_ends(graph, &numbers), size);
    let (width, height) = (layout.size.width + 2.0 * MARGIN, layout.size.height + 2.0 * MARGIN);
    let scale = match view.zoom {
        Zoom::Fit => None,
        Zoom::Percent(percent) => Some(f64::from(percent) / 100.0),
    };
    html! {
        svg #flowchart.flowchart.fit[scale.is_none()] data-live role="group" aria-label=(clean(&sentence(graph)))
            viewBox={ "0 0 " (whole(width)) " " (whole(height)) }
            width=[scale.map(|scale| whole(width * scale))] height=[scale.map(|scale| whole(height * scale))] {
            defs {
                marker #flowchart-tip viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7"
                    orient="auto" {
                    path.tip d="M0 0L8 4L0 8z" {}
                }
            }
            g transform={ "translate(" (MARGIN) " " (MARGIN) ")" } {
                @for (edge, route) in graph.edges.iter().zip(&layout.edges) {
                    (self::edge(graph, edge, route, &numbers))
                }
                @for (number, (step, corner)) in graph.steps.iter().zip(&layout.boxes).enumerate() {
                    (self::step(step, number, *corner, size, view))
                }
            }
        }
    }
}

fn whole(length: f64) -> String {
    format!("{length:.0}")
}

/// Whether the step did not run and does not run now.
fn is_not_taken(step: &GraphStepRow) -> bool {
    step.state.started.is_none() || matches!(step.state.status.as_str(), "pending" | "not_run" | "skipped")
}

/// An edge leads downwards in a curve. It is paler if the later step has not begun, or was skipped.
fn edge(graph: &RunGraph, edge: &GraphEdgeRow, route: &[Point], numbers: &BTreeMap<&str, usize>) -> Markup {
    let is_pale = numbers.get(edge.to.as_str()).is_none_or(|at| is_not_taken(&graph.steps[*at]));
    html! {
        @if let Some(line) = edge_line(route) {
            path.edge.fallback[edge.kind == EdgeKindRow::Fallback].pale[is_pale]
                marker-end="url(#flowchart-tip)" d=(line) {}
        }
    }
}

fn step(step: &GraphStepRow, number: usize, corner: Point, size: Size, view: &ChartView<'_>) -> Markup {
    let state = &step.state;
    let look = look(&state.status);
    let (does, figures, cautions) = (action(step), figures(state, look, Some(view.until)), cautions(step).join(" · "));
    let name = link_name(step, &does, &figures, &cautions);
    let is_chosen = view.chosen == Some(state.step_id.as_str());
    let Size { width, height } = size;
    html! {
        g id={ "box-" (number) } class=(classes(step, look, is_chosen))
            transform=(format!("translate({:.1} {:.1})", corner.x, corner.y)) {
            a href=((view.step_link)(&state.step_id)) aria-current=[is_chosen.then_some("true")] {
                // The name for screen readers too. The lines of the box may be cut.
                title { (name) }
                @if is_chosen { rect.frame x="-6" y="-6" width=(width + 12.0) height=(height + 12.0) rx="9" {} }
                // A second box behind it: the step runs once for each item.
                @if step.for_each { rect.box x="5" y="-5" width=(width) height=(height) rx="6" {} }
                rect.box width=(width) height=(height) rx="6" {}
                path.mark d=(outline(look.shape)) {}
                text.name x="32" y="22" { (cut(&clean(&state.step_id), NAME_COLUMNS)) }
                text.line x="12" y="41" { (cut(&clean(&does), LINE_COLUMNS)) }
                text.word x="12" y="58" { (cut(&clean(&figures), LINE_COLUMNS)) }
                @if !cautions.is_empty() { text.caution x="12" y="76" { (cut(&cautions, caution_columns(step))) } }
            }
            @if let Some((first, rest)) = step.child_runs.split_first() {
                a.child href={ "/runs/" (segment(first)) } {
                    title { "its run " (clean(first)) ", begun by " (clean(&state.step_id)) }
                    text x=(width - 12.0) y="76" text-anchor="end" {
                        "its run" @if !rest.is_empty() { " (of " (step.child_runs.len()) ")" }
                    }
                }
            }
        }
    }
}

/// The link to a child run stands in the same line.
fn caution_columns(step: &GraphStepRow) -> usize {
    if step.child_runs.is_empty() { LINE_COLUMNS } else { LINE_COLUMNS - 14 }
}

fn classes(step: &GraphStepRow, look: Look, is_chosen: bool) -> String {
    let exception = if look.is_exception { " exception" } else { "" };
    let pale = if is_not_taken(step) { " pale" } else { "" };
    let chosen = if is_chosen { " chosen" } else { "" };
    format!("step {}{exception}{pale}{chosen}", look.class)
}

/// All that the box says, and what is cut there.
fn link_name(step: &GraphStepRow, does: &str, figures: &str, cautions: &str) -> String {
    let takes_place = step.fallback_of.as_ref().map(|replaced| format!("fallback of {replaced}"));
    let if_needed = step.conditional.then_some("only under a condition");
    let parts = [
        Some(step.state.step_id.as_str()),
        Some(figures),
        Some(does),
        Some(cautions).filter(|cautions| !cautions.is_empty()),
        if_needed,
        takes_place.as_deref(),
        step.state.note.as_deref(),
    ];
    let parts: Vec<&str> = parts.into_iter().flatten().collect();
    clean(&parts.join(". ")).into_owned()
}

#[cfg(test)]
mod tests {
    use roxmltree::Document;
    use serde_json::json;

    use super::*;

    fn step(name: &str, status: &str) -> serde_json::Value {
        json!({
            "state": { "step_id": name, "status": status, "started": "2026-12-01T12:00:00Z", "duration_ms": 61_000,
                "attempts": 2, "effect": "shared", "items": null, "items_ended": null, "http_status": 409, "note": null },
            "action": { "kind": "call", "method": "POST", "service": "bank", "path": "/charges" },
            "for_each": false, "conditional": false, "risk": null, "irreversible": false, "has_undo": false,
            "takes_lock": false, "fallback_of": null, "child_runs": [],
        })
    }

    fn graph(steps: Vec<serde_json::Value>, edges: &[(&str, &str)]) -> RunGraph {
        let edges: Vec<_> = edges.iter().map(|(from, to)| json!({ "from": from, "to": to, "kind": "needs" })).collect();
        let graph = json!({ "run_id": "run_1", "workflow": "orders", "plan_id": "plan_1", "status": "paused",
            "mode": "real", "note": null, "steps": steps, "edges": edges });
        serde_json::from_value(graph).unwrap()
    }

    fn drawn(graph: &RunGraph, chosen: Option<&str>, zoom: Zoom) -> String {
        let until = "2026-12-01T12:10:00Z".parse().unwrap();
        let step_link = |step: &str| format!("?step={}#step", segment(step));
        // XML, unlike HTML, has no attributes without a value.
        page_chart(graph, &ChartView { chosen, zoom, until, step_link: &step_link })
            .into_string()
            .replace(" data-live", "")
    }

    #[test]
    fn a_box_is_a_link_that_says_everything() {
        let mut pay = step("pay", "conflict");
        pay["risk"] = json!("high");
        pay["irreversible"] = json!(true);
        pay["takes_lock"] = json!(true);
        pay["child_runs"] = json!(["run_2", "run_3"]);
        let shown =
            drawn(&graph(vec![step("total", "done"), pay], &[("total", "pay")]), Some("pay"), Zoom::Percent(100));
        let document = Document::parse(&shown).unwrap();
        let links: Vec<_> = document.descendants().filter(|node| node.has_tag_name("a")).collect();
        assert_eq!(links.len(), 3);
        let name =
            links[1].descendants().find_map(|node| node.has_tag_name("title").then(|| node.text())).flatten().unwrap();
        for expected in [
            "pay",
            "needs a decision · 2 attempts · HTTP 409 · 10 min",
            "POST bank /charges",
            "high risk",
            "takes a lock",
        ] {
            assert!(name.contains(expected), "{expected}: {name}");
        }
        assert_eq!(
            (links[1].attribute("href"), links[1].attribute("aria-current")),
            (Some("?step=pay#step"), Some("true"))
        );
        assert_eq!((links[2].attribute("href"), links[0].attribute("aria-current")), (Some("/runs/run%5F2"), None));
        assert!(shown.contains("class=\"step bad exception chosen\"") && shown.contains("its run (of 2)"), "{shown}");
        assert!(!shown.contains("<style") && !shown.contains(" style="), "the policy of the page forbids it");
    }

    #[test]
    fn a_path_that_was_not_taken_is_paler() {
        let mut later = step("mail", "pending");
        later["state"]["started"] = json!(null);
        let shown = drawn(
            &graph(vec![step("pay", "done"), later, step("note", "skipped")], &[("pay", "mail"), ("pay", "note")]),
            None,
            Zoom::Percent(100),
        );
        assert_eq!(shown.matches("class=\"edge pale\"").count(), 2, "{shown}");
        assert_eq!(shown.matches("class=\"step idle pale\"").count(), 2);
    }

    #[test]
    fn the_zoom_sets_the_size_and_fit_leaves_it_to_the_style() {
        let graph = graph(vec![step("pay", "done")], &[]);
        let width = |zoom| {
            let shown = drawn(&graph, None, zoom);
            Document::parse(&shown).unwrap().root_element().attribute("width").map(str::to_owned)
        };
        assert_eq!((width(Zoom::Percent(100)), width(Zoom::Percent(200))), (Some("260".into()), Some("520".into())));
        assert_eq!(width(Zoom::Fit), None);
        assert_eq!((Zoom::named(Some("fit")), Zoom::named(Some("7"))), (Zoom::Fit, Zoom::Percent(100)));
    }

    #[test]
    fn recorded_text_is_never_markup() {
        const HOSTILE: &str = "</text></svg><script>alert(1)</script>\"' onload='x' \u{0} \u{202e} \u{1b}[31m";
        let mut hostile = step(HOSTILE, HOSTILE);
        hostile["state"]["note"] = json!(HOSTILE);
        hostile["action"]["path"] = json!(HOSTILE);
        hostile["child_runs"] = json!([HOSTILE]);
        let shown = drawn(&graph(vec![hostile], &[(HOSTILE, "nowhere")]), Some(HOSTILE), Zoom::Fit);
        let document = Document::parse(&shown).unwrap_or_else(|error| panic!("{error}: {shown}"));
        assert!(!document.descendants().any(|node| node.has_tag_name("script")));
        assert!(document.descendants().all(|node| node.attributes().all(|at| !at.name().starts_with("on"))));
        assert!(!shown.contains('\u{202e}') && !shown.contains('\u{1b}'));
    }

    #[test]
    fn each_of_a_thousand_steps_has_its_box() {
        let steps = (0..1_000).map(|at| step(&format!("step-{at}"), "done")).collect();
        let shown = drawn(&graph(steps, &[]), Some("step-7"), Zoom::Percent(100));
        assert_eq!(shown.matches("<g id=\"box-").count(), 1_000);
        assert_eq!(shown.matches("class=\"frame\"").count(), 1, "only the chosen step has a frame");
    }
}
