//! What both forms of the chart say: the texts of a step, the line of an edge, the chart in one sentence.

use std::collections::BTreeMap;
use std::fmt::Write;

use jiff::Timestamp;

use super::layout::Point;
use super::state_look::{Look, look};
use crate::admin::types::{GraphStepRow, RunGraph, StepActionRow, StepRow};
use crate::page::duration::duration_text;

/// How many columns of text fit into a box: of its name, and of the smaller lines below.
pub(in crate::page) const NAME_COLUMNS: usize = 23;
pub(in crate::page) const LINE_COLUMNS: usize = 32;

/// The numbers of the steps, by name.
pub(in crate::page) fn step_numbers(graph: &RunGraph) -> BTreeMap<&str, usize> {
    graph.steps.iter().enumerate().map(|(at, step)| (step.state.step_id.as_str(), at)).collect()
}

/// The ends of each edge. An end that is no step has a number that is no box, so that the edge is not drawn.
pub(in crate::page) fn edge_ends(graph: &RunGraph, numbers: &BTreeMap<&str, usize>) -> Vec<(usize, usize)> {
    let number = |step: &str| numbers.get(step).copied().unwrap_or(usize::MAX);
    graph.edges.iter().map(|edge| (number(&edge.from), number(&edge.to))).collect()
}

/// The run in one sentence, for those who do not see the chart.
pub(in crate::page) fn sentence(graph: &RunGraph) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for step in &graph.steps {
        *counts.entry(look(&step.state.status).word).or_default() += 1;
    }
    let counts: Vec<String> = counts.iter().map(|(word, count)| format!("{count} {word}")).collect();
    let note = graph.note.as_ref().map_or(String::new(), |note| format!(" {note}"));
    format!(
        "Run {} of {}, {}: {} steps, {}.{note}",
        graph.run_id,
        graph.workflow,
        graph.status.as_str(),
        graph.steps.len(),
        counts.join(", ")
    )
}

/// The line of an edge, a curve downwards through its points; `None` for an edge that is not drawn.
pub(in crate::page) fn edge_line(route: &[Point]) -> Option<String> {
    let (first, rest) = route.split_first()?;
    let mut line = format!("M{:.1} {:.1}", first.x, first.y);
    let mut at = *first;
    for next in rest {
        let middle = (at.y + next.y) / 2.0;
        let _ = write!(line, "C{:.1} {middle:.1} {:.1} {middle:.1} {:.1} {:.1}", at.x, next.x, next.x, next.y);
        at = *next;
    }
    Some(line)
}

/// What the step does, in one line.
pub(in crate::page) fn action(step: &GraphStepRow) -> String {
    let action = match &step.action {
        StepActionRow::Call { method, service, path } => format!("{method} {service} {path}"),
        StepActionRow::Compute => "computes a value".to_owned(),
        StepActionRow::Ask => "asks a person".to_owned(),
        StepActionRow::WaitForTime => "waits for a time".to_owned(),
        StepActionRow::WaitForSignal { signal } => format!("waits for the signal {signal}"),
        StepActionRow::Run { workflow } => format!("runs {workflow}"),
        StepActionRow::Fail => "ends the run".to_owned(),
        StepActionRow::Other => "does something else".to_owned(),
    };
    match step.state.effect.as_deref().filter(|_| matches!(step.action, StepActionRow::Call { .. })) {
        Some(effect) => format!("{effect}: {action}"),
        None => action,
    }
}

/// The status in a word, and its figures. The duration of a step that goes on counts up to `until`.
pub(in crate::page) fn figures(state: &StepRow, look: Look, until: Option<Timestamp>) -> String {
    let mut parts = vec![look.word.to_owned()];
    if let (Some(ended), Some(items)) = (state.items_ended, state.items) {
        parts.push(format!("{ended} of {items} items"));
    }
    if state.attempts > 1 && state.items.is_none() {
        parts.push(format!("{} attempts", state.attempts));
    }
    if let Some(status) = state.http_status.filter(|_| look.is_exception) {
        parts.push(format!("HTTP {status}"));
    }
    if let Some(seconds) = seconds(state, until).filter(|_| state.attempts > 0 || until.is_some()) {
        parts.push(duration_text(seconds));
    }
    parts.join(" · ")
}

/// How long a step took, or has taken until now.
fn seconds(state: &StepRow, until: Option<Timestamp>) -> Option<f64> {
    if let (Some(until), Some(started), true) = (until, state.started, is_open(&state.status)) {
        return Some(until.duration_since(started).as_secs_f64().max(0.0));
    }
    state.duration_ms.map(|ms| std::time::Duration::from_millis(ms).as_secs_f64())
}

/// Whether a step with this status has begun and not ended.
pub(in crate::page) fn is_open(status: &str) -> bool {
    matches!(status, "running" | "retrying" | "conflict" | "undoing") || status.starts_with("waiting")
}

/// The text in at most so many columns; what is cut ends with an ellipsis. A character of an East Asian script counts
/// as two columns.
pub(in crate::page) fn cut(text: &str, columns: usize) -> String {
    let width = |character: char| if ('\u{1100}'..='\u{ffdc}').contains(&character) { 2 } else { 1 };
    if text.chars().map(width).sum::<usize>() <= columns {
        return text.to_owned();
    }
    let mut left = columns - 1;
    let kept = text.chars().take_while(|character| {
        let fits = width(*character) <= left;
        left = left.saturating_sub(width(*character));
        fits
    });
    kept.chain(['…']).collect()
}

/// What a person should know before the step is performed, in a few words each.
pub(in crate::page) fn cautions(step: &GraphStepRow) -> Vec<String> {
    let mut cautions = Vec::new();
    if let Some(risk) = step.risk {
        cautions.push(format!("{} risk", risk.as_str()));
    }
    if step.irreversible {
        cautions.push("cannot be undone".to_owned());
    }
    if step.takes_lock {
        cautions.push("takes a lock".to_owned());
    }
    cautions
}
