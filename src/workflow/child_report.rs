//! What a run reports to its parent run when it ends, and what a parent stores of its children's reports.
//!
//! Always true: effects that a run did not undo, or whose outcome is unknown, are reported to all runs above it, as a
//! text of bounded length. A run's note does not repeat a child's report whose text it contains already.

use std::collections::BTreeSet;

use super::conflict::cut;
use super::tree_effects::LeftByChildren;
use super::{Run, TreeEffects};
use crate::names::StepId;

impl Run {
    /// The effects of this run and of the runs below it that have ended.
    pub fn tree_effects(&self) -> TreeEffects {
        let unknown = !self.unknown.is_empty() || self.left_by_children.values().any(|left| left.unknown);
        TreeEffects {
            private: self.private_begun(),
            shared: self.shared_begun(),
            unknown,
            left: self.left_behind(),
            decided_against: self.decided_against,
        }
    }

    /// Records what a child run left behind.
    pub(super) fn record_left_by_child(&mut self, step: &StepId, child: &str, tree: &TreeEffects) {
        let TreeEffects { private: _, shared: _, unknown, left, decided_against: _ } = tree;
        if !unknown && left.is_none() {
            return;
        }
        let by_step = self.left_by_children.entry(step.clone()).or_default();
        by_step.unknown |= unknown;
        if let Some(left) = left {
            by_step.runs += 1;
            by_step.first.get_or_insert_with(|| (child.to_owned(), left.clone()));
        }
    }

    /// What child runs left behind, in words, without what the given text already says.
    pub(super) fn left_by_children_in_words(&self, text_before: &str) -> Option<String> {
        let is_new = |left: &&LeftByChildren| {
            left.runs > 1 || left.first.as_ref().is_some_and(|(_, left)| !text_before.contains(left.as_str()))
        };
        let of_step = |(step, left): (&StepId, &LeftByChildren)| {
            let text = Some(left).filter(is_new)?.in_words()?;
            Some(format!("`{step}` ({text})"))
        };
        let names: Vec<_> = self.left_by_children.iter().filter_map(of_step).collect();
        (!names.is_empty()).then(|| format!("left by child runs: {}", names.join(", ")))
    }

    /// What this run leaves behind, in words.
    fn left_behind(&self) -> Option<String> {
        let [_, to_come, left] = self.undo_report_by_kind();
        let unknown: BTreeSet<_> = self.unknown.iter().map(|call| format!("`{}`", call.step)).collect();
        // Where the run ended early, `left` lists the unknown steps too.
        let is_listed = self.ends_early() || unknown.is_empty();
        let unknown = (!is_listed).then(|| Vec::from_iter(unknown).join(", "));
        let unknown = unknown.map(|steps| format!("it is unknown whether these steps were done: {steps}"));
        let parts: Vec<_> =
            [to_come, left, unknown, self.left_by_children_in_words("")].into_iter().flatten().collect();
        (!parts.is_empty()).then(|| cut(&parts.join("; ")))
    }
}
