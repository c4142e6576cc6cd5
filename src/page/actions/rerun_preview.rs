//! What a rerun from a step would do again, and what it would keep.
//!
//! It is computed from the run's graph, as the run does it; the run knows more (undos with unknown outcome, decisions
//! about single items), and may refuse a rerun that looks possible here.

use std::collections::BTreeSet;

use maud::{Markup, html};

use crate::admin::types::{EdgeKindRow, RunGraph};
use crate::page::actions::step_names::step_list;

/// What becomes of the steps.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::page) struct RerunPreview<'a> {
    /// They were done, and are done again.
    pub again: Vec<&'a str>,
    /// Of these, the steps whose effect was made and is not undone: it is made a second time.
    pub twice: Vec<&'a str>,
    /// They have not been done, and are carried out.
    pub first: Vec<&'a str>,
    /// Their results are kept.
    pub kept: Vec<&'a str>,
    /// They were skipped, and stay so.
    pub skipped: Vec<&'a str>,
}

/// What a rerun from this step would do.
pub(in crate::page) fn rerun_preview<'a>(graph: &'a RunGraph, from: &str) -> RerunPreview<'a> {
    let is_finished = |status: &str| matches!(status, "done" | "rehearsed" | "skipped" | "replaced");
    let begins = graph.steps.iter().map(|step| &step.state).filter(|state| !is_finished(&state.status));
    let mut again: BTreeSet<&str> = begins.map(|state| state.step_id.as_str()).collect();
    again.extend(graph.steps.iter().map(|step| step.state.step_id.as_str()).filter(|step| *step == from));
    let was_taken = |fallback: &str| {
        let state = graph.steps.iter().map(|step| &step.state).find(|state| state.step_id == fallback);
        state.is_some_and(|state| !matches!(state.status.as_str(), "pending" | "not_run" | "skipped"))
    };
    // A fallback that was not taken has no part in the result of the step that it could have replaced.
    again.retain(|step| {
        *step == from
            || !graph.edges.iter().any(|edge| edge.kind == EdgeKindRow::Fallback && edge.to == *step)
            || was_taken(step)
    });
    loop {
        let before = again.len();
        for edge in &graph.edges {
            let (has_from, has_to) = (again.contains(edge.from.as_str()), again.contains(edge.to.as_str()));
            match edge.kind {
                EdgeKindRow::Needs if has_from => drop(again.insert(&edge.to)),
                // A fallback that was taken and the step that it replaces run again together.
                EdgeKindRow::Fallback if (has_from || has_to) && was_taken(&edge.to) => {
                    again.insert(&edge.from);
                    again.insert(&edge.to);
                }
                EdgeKindRow::Needs | EdgeKindRow::Fallback => {}
            }
        }
        if again.len() == before {
            break;
        }
    }
    let mut preview = RerunPreview::default();
    for state in graph.steps.iter().map(|step| &step.state) {
        let (step, status) = (state.step_id.as_str(), state.status.as_str());
        let has_effect = matches!(state.effect.as_deref(), Some("private" | "shared"));
        match (again.contains(step), status) {
            (true, "done") => {
                preview.again.push(step);
                if has_effect {
                    preview.twice.push(step);
                }
            }
            (true, "rehearsed" | "replaced" | "undone" | "failed" | "unknown" | "conflict") => preview.again.push(step),
            (true, _) => preview.first.push(step),
            (false, "skipped" | "pending" | "not_run") => preview.skipped.push(step),
            (false, _) => preview.kept.push(step),
        }
    }
    preview
}

impl RerunPreview<'_> {
    /// The lists, each with what it means.
    pub(in crate::page) fn markup(&self) -> Markup {
        let group = |title: &str, steps: &[&str]| {
            html! {
                @if !steps.is_empty() {
                    dt { (title) }
                    dd { (step_list(steps)) }
                }
            }
        };
        html! {
            @if !self.twice.is_empty() {
                p.warning {
                    strong { "Done a second time: " } (step_list(&self.twice)) ". What "
                    @if self.twice.len() == 1 { "it" } @else { "they" }
                    " did the first time stays as it is, and the service gets the request again."
                }
            }
            dl.facts {
                (group("Done again", &self.again))
                (group("Done for the first time", &self.first))
                (group("Kept, with their results", &self.kept))
                (group("Left out", &self.skipped))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::actions::command::tests::graph;

    #[test]
    fn what_depends_on_the_step_is_done_again_and_the_rest_is_kept() {
        let steps = [("a", "done"), ("b", "done"), ("c", "done"), ("d", "failed"), ("e", "not_run"), ("f", "skipped")];
        let edges = [("a", "b", "needs"), ("b", "d", "needs"), ("a", "c", "needs"), ("d", "e", "needs")];
        let graph = graph(&steps, &edges);
        let preview = rerun_preview(&graph, "b");
        assert_eq!((preview.again, preview.first), (vec!["b", "d"], vec!["e"]));
        assert_eq!((preview.twice, preview.kept, preview.skipped), (vec!["b"], vec!["a", "c"], vec!["f"]));
        let preview = rerun_preview(&graph, "d");
        assert_eq!((preview.twice, preview.kept), (vec![], vec!["a", "b", "c"]));
    }

    #[test]
    fn a_fallback_runs_again_with_its_step_only_if_it_was_taken() {
        let edges = [("a", "b", "fallback"), ("a", "c", "needs")];
        let taken = graph(&[("a", "replaced"), ("b", "done"), ("c", "done")], &edges);
        assert_eq!(rerun_preview(&taken, "b").again, ["a", "b", "c"]);
        let not_taken = graph(&[("a", "done"), ("b", "not_run"), ("c", "done")], &edges);
        let preview = rerun_preview(&not_taken, "c");
        assert_eq!((preview.again, preview.kept, preview.skipped), (vec!["c"], vec!["a"], vec!["b"]));
    }

    #[test]
    fn a_second_effect_is_announced() {
        let graph = graph(&[("<b>", "done")], &[]);
        let shown = rerun_preview(&graph, "<b>").markup().into_string();
        assert!(shown.contains("Done a second time: </strong><code>&lt;b&gt;</code>"), "{shown}");
    }
}
