//! A run as a flowchart in SVG (W3C, Scalable Vector Graphics 1.1): one file that needs nothing else.
//!
//! Always true: every text is escaped and cut to its box, the whole of it is in the box's `<title>`; a state has a
//! colour, a shape and a word; a step that somebody has to look at has a thick outline.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::layout::{BOX, Layout, Point, Size, lay_out};
use super::parts::{LINE_COLUMNS, NAME_COLUMNS, action, cut, edge_ends, edge_line, figures, sentence, step_numbers};
use super::state_look::{look, outline};
use crate::admin::types::{EdgeKindRow, GraphEdgeRow, GraphStepRow, Mode, RunGraph};

/// The space around all.
const MARGIN: f64 = 16.0;
/// The height of the lines above the chart.
const HEAD: f64 = 64.0;
/// The least width, so that the lines above the chart have room.
const WIDTH_MIN: f64 = 520.0;
/// How many columns the lines above the chart have.
const HEAD_COLUMNS: usize = 72;

/// How the classes look in light surroundings and in dark ones. The contrast of text is at least 4.5 to 1 (WCAG 2.2).
/// Without custom properties, which not every viewer of images knows.
const STYLE: &str = "\
text{font-family:system-ui,sans-serif;fill:#1b1f24}.head{font-size:16px;font-weight:600}\
.name{font-size:13px;font-weight:600}.line{font-size:11px;fill:#57606a}.word{font-size:11px;font-weight:600}\
.paper{fill:#fff}.box{fill:#fff;stroke:#8c959f;stroke-width:1.2}.exception .box{stroke-width:3.5}\
.edge{fill:none;stroke:#8c959f;stroke-width:1.6}.later{opacity:.45}.fallback{stroke-dasharray:5 4}.tip{fill:#8c959f}\
.good .mark,.good .word{fill:#116329}.good .box{stroke:#116329}.busy .mark,.busy .word{fill:#0550ae}\
.busy .box{stroke:#0550ae}.wait .mark,.wait .word{fill:#7d4e00}.wait .box{stroke:#7d4e00}\
.bad .mark,.bad .word{fill:#a40e26}.bad .box{stroke:#a40e26}.rehearsed .mark,.rehearsed .word{fill:#6639ba}\
.rehearsed .box{stroke:#6639ba;stroke-dasharray:6 3}.idle .mark,.idle .word{fill:#57606a}.idle .name{fill:#57606a}\
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.line{fill:#9da7b3}.paper{fill:#0d1117}\
.box{fill:#161b22;stroke:#6e7681}.edge{stroke:#6e7681}.tip{fill:#6e7681}\
.good .mark,.good .word{fill:#56d364}.good .box{stroke:#56d364}.busy .mark,.busy .word{fill:#79c0ff}\
.busy .box{stroke:#79c0ff}.wait .mark,.wait .word{fill:#e3b341}.wait .box{stroke:#e3b341}\
.bad .mark,.bad .word{fill:#ff9492}.bad .box{stroke:#ff9492}.rehearsed .mark,.rehearsed .word{fill:#d2a8ff}\
.rehearsed .box{stroke:#d2a8ff}.idle .mark,.idle .word,.idle .name{fill:#9da7b3}}";

/// The chart of a run.
pub fn svg(graph: &RunGraph) -> String {
    let numbers = step_numbers(graph);
    let layout = lay_out(graph.steps.len(), &edge_ends(graph, &numbers), BOX);
    let size = Size {
        width: layout.size.width.max(WIDTH_MIN) + 2.0 * MARGIN,
        height: layout.size.height + HEAD + 2.0 * MARGIN,
    };
    let mut out = String::with_capacity(graph.steps.len() * 900 + 4_000);
    let _ = write!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {w:.0} {h:.0}\" width=\"{w:.0}\" height=\"{h:.0}\" \
         role=\"img\" aria-labelledby=\"about\"><title id=\"about\">{}</title><style>{STYLE}</style>\
         <defs><marker id=\"tip\" viewBox=\"0 0 8 8\" refX=\"7\" refY=\"4\" markerWidth=\"7\" markerHeight=\"7\" \
         orient=\"auto\"><path class=\"tip\" d=\"M0 0L8 4L0 8z\"/></marker></defs>\
         <rect class=\"paper\" width=\"100%\" height=\"100%\"/>",
        escaped(&sentence(graph)),
        w = size.width,
        h = size.height,
    );
    head(&mut out, graph);
    let _ = write!(out, "<g transform=\"translate({MARGIN:.0} {:.0})\">", MARGIN + HEAD);
    for (edge, route) in graph.edges.iter().zip(&layout.edges) {
        self::edge(&mut out, graph, edge, route, &numbers);
    }
    steps(&mut out, graph, &layout);
    out.push_str("</g></svg>\n");
    out
}

fn head(out: &mut String, graph: &RunGraph) {
    let title = format!("{}: {}", graph.workflow, graph.status.as_str().replace('_', " "));
    let sent = match graph.mode {
        Mode::Real => "",
        Mode::Dark => ", in dark: effects that others see were recorded, not sent",
        Mode::Rehearse => ", rehearsed: nothing was sent",
    };
    let below = match &graph.note {
        Some(note) => format!("{note}{sent}"),
        None => format!("{}{sent}", graph.run_id),
    };
    text(out, "head", MARGIN, MARGIN + 16.0, &cut(&title, HEAD_COLUMNS));
    text(out, "line", MARGIN, MARGIN + 36.0, &cut(&below, HEAD_COLUMNS));
}

/// An edge leads downwards in a curve through its points. It is paler until the later step has begun.
fn edge(out: &mut String, graph: &RunGraph, edge: &GraphEdgeRow, route: &[Point], numbers: &BTreeMap<&str, usize>) {
    let Some(line) = edge_line(route) else { return };
    let has_begun = |step: &str| numbers.get(step).is_some_and(|at| graph.steps[*at].state.started.is_some());
    let later = if has_begun(&edge.to) { "" } else { " later" };
    let kind = match edge.kind {
        EdgeKindRow::Needs => "",
        EdgeKindRow::Fallback => " fallback",
    };
    let _ = write!(out, "<path class=\"edge{kind}{later}\" marker-end=\"url(#tip)\" d=\"{line}\"/>");
}

fn steps(out: &mut String, graph: &RunGraph, layout: &Layout) {
    for (step, corner) in graph.steps.iter().zip(&layout.boxes) {
        self::step(out, step, *corner);
    }
}

fn step(out: &mut String, step: &GraphStepRow, corner: Point) {
    let state = &step.state;
    let look = look(&state.status);
    let exception = if look.is_exception { " exception" } else { "" };
    let (action, figures) = (action(step), figures(state, look, None));
    let whole = [Some(state.step_id.as_str()), Some(&action), Some(&figures), state.note.as_deref()];
    let whole: Vec<&str> = whole.into_iter().flatten().collect();
    let _ = write!(
        out,
        "<g class=\"{}{exception}\" transform=\"translate({:.1} {:.1})\"><title>{}</title>",
        look.class,
        corner.x,
        corner.y,
        escaped(&whole.join("\n"))
    );
    let Size { width, height } = BOX;
    if step.for_each {
        // A second box behind it: the step runs once for each item.
        let _ =
            write!(out, "<rect class=\"box\" x=\"5\" y=\"-5\" width=\"{width:.0}\" height=\"{height:.0}\" rx=\"6\"/>");
    }
    let _ = write!(out, "<rect class=\"box\" width=\"{width:.0}\" height=\"{height:.0}\" rx=\"6\"/>");
    let _ = write!(out, "<path class=\"mark\" d=\"{}\"/>", outline(look.shape));
    text(out, "name", 32.0, 22.0, &cut(&state.step_id, NAME_COLUMNS));
    text(out, "line", 12.0, 41.0, &cut(&action, LINE_COLUMNS));
    text(out, "word", 12.0, 58.0, &cut(&figures, LINE_COLUMNS));
    out.push_str("</g>");
}

fn text(out: &mut String, class: &str, x: f64, y: f64, content: &str) {
    let _ = write!(out, "<text class=\"{class}\" x=\"{x:.0}\" y=\"{y:.0}\">{}</text>", escaped(content));
}

/// A text as XML 1.0 has it: markup is escaped, and characters that XML does not allow, or that change the direction of
/// the text around them, are replaced.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(character),
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            _ if character.is_control() => out.push('\u{fffd}'),
            _ => out.push(character),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use roxmltree::Document;

    use super::super::state_look::Shape;
    use super::*;
    use crate::admin::types::{RunStatus, StepActionRow, StepRow};

    fn step(name: &str, status: &str, action: StepActionRow) -> GraphStepRow {
        GraphStepRow {
            state: StepRow {
                step_id: name.to_owned(),
                status: status.to_owned(),
                started: None,
                duration_ms: Some(61_000),
                attempts: 2,
                effect: Some("shared".to_owned()),
                items: None,
                items_ended: None,
                http_status: Some(409),
                note: None,
            },
            action,
            for_each: false,
            conditional: false,
            risk: None,
            irreversible: false,
            has_undo: false,
            takes_lock: false,
            fallback_of: None,
            child_runs: Vec::new(),
        }
    }

    fn call(path: &str) -> StepActionRow {
        StepActionRow::Call { method: "POST".into(), service: "bank".into(), path: path.into() }
    }

    fn graph(steps: Vec<GraphStepRow>, edges: &[(&str, &str)]) -> RunGraph {
        let edge = |(from, to): &(&str, &str)| GraphEdgeRow {
            from: (*from).to_owned(),
            to: (*to).to_owned(),
            kind: EdgeKindRow::Needs,
        };
        RunGraph {
            run_id: "run_1".into(),
            workflow: "orders".into(),
            plan_id: "plan_1".into(),
            status: RunStatus::Paused,
            mode: Mode::Real,
            note: Some("`pay` needs a decision".into()),
            steps,
            edges: edges.iter().map(edge).collect(),
        }
    }

    /// The texts of an element and what is in it, a line each.
    fn texts(svg: &str, class: &str) -> Vec<String> {
        let document = Document::parse(svg).unwrap();
        let found = document.descendants().filter(|node| node.attribute("class") == Some(class));
        found
            .map(|node| {
                node.descendants()
                    .filter(|node| node.is_text())
                    .filter_map(|node| node.text())
                    .collect::<Vec<_>>()
                    .join("\n")
            })
            .collect()
    }

    #[test]
    fn a_step_is_shown_with_its_action_its_status_as_word_and_shape_and_its_figures() {
        let paid = step("pay", "conflict", call("/charges"));
        let drawn = svg(&graph(vec![step("total", "done", StepActionRow::Compute), paid], &[("total", "pay")]));
        let pay = texts(&drawn, "bad exception").join("\n");
        for expected in ["pay", "shared: POST bank /charges", "needs a decision · 2 attempts · HTTP 409 · 61 s"] {
            assert!(pay.contains(expected), "{expected}: {pay}");
        }
        assert!(drawn.contains(outline(Shape::Triangle)) && drawn.contains(outline(Shape::Circle)));
        assert_eq!(texts(&drawn, "head"), ["orders: paused"]);
        assert!(drawn.contains("2 steps, 1 done, 1 needs a decision."), "the title is for screen readers: {drawn}");
        let edges = Document::parse(&drawn).unwrap();
        let edges = edges.descendants().filter(|node| node.attribute("class") == Some("edge later")).count();
        assert_eq!(edges, 1, "the later step has not begun");
    }

    /// Every text that is recorded or declared somewhere is planted with markup, controls and marks of direction.
    #[test]
    fn recorded_text_is_never_markup() {
        const HOSTILE: &str = "</text><script>alert(1)</script>\"' onload='x' &lt; \u{0} \u{202e} ]]> \u{1b}[31m";
        let mut hostile = step(HOSTILE, HOSTILE, StepActionRow::WaitForSignal { signal: HOSTILE.into() });
        hostile.state.note = Some(HOSTILE.into());
        hostile.state.effect = Some(HOSTILE.into());
        hostile.for_each = true;
        let mut planted =
            graph(vec![hostile, step("b", "done", call(HOSTILE))], &[(HOSTILE, "b"), (HOSTILE, "nowhere")]);
        planted.run_id = HOSTILE.into();
        planted.note = Some(HOSTILE.into());
        for note in [Some(HOSTILE.to_owned()), None] {
            planted.note = note;
            let drawn = svg(&planted);
            let document = Document::parse(&drawn).unwrap_or_else(|error| panic!("{error}: {drawn}"));
            for node in document.descendants().filter(|node| node.is_element()) {
                let name = node.tag_name().name();
                let known = ["svg", "title", "style", "defs", "marker", "path", "rect", "g", "text"];
                assert!(known.contains(&name), "{name}");
                assert!(node.attributes().all(|at| !at.name().starts_with("on") && !at.name().ends_with("href")));
            }
            assert!(!drawn.contains('\u{202e}') && !drawn.contains('\u{1b}'));
        }
    }

    #[test]
    fn a_long_text_is_cut_and_whole_in_the_title() {
        let name = "a-very-long-name-of-a-step-that-does-not-fit";
        let drawn = svg(&graph(vec![step(name, "done", call("/漢字漢字漢字漢字漢字漢字漢字漢字漢字"))], &[]));
        let shown = texts(&drawn, "name");
        assert_eq!(shown, ["a-very-long-name-of-a-…"]);
        assert!(texts(&drawn, "good")[0].starts_with(name));
        let line = texts(&drawn, "line").into_iter().find(|line| line.contains("bank")).unwrap();
        assert!(line.ends_with('…'), "{line}");
    }
}
