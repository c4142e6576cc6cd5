//! What a run that ends early had done, and whether each call is undone, still to be undone, or left as it is.
//!
//! Always true: while a compensation is under way, the sentence about it takes the same time however many calls are
//! undone, because every append needs it for the run's summary. The whole list is made only on request.

use std::collections::BTreeMap;

use super::calls::{DoneCall, UnknownEffect};
use super::run::{Cancel, End};
use super::tree_effects::LeftByChildren;
use super::undo_state::{UndoCall, UndoStatus, Undoing};
use super::work_count::count_work;
use super::{FailureKind, Mode, Run};
use crate::names::StepId;

/// By step: how many items, and a text about the item where it is only one.
type Counts<'a> = BTreeMap<&'a StepId, (usize, Option<String>)>;

impl Run {
    /// Whether the run ends early, or has ended without an answer: what it did may not be what was asked for.
    pub(super) fn ends_early(&self) -> bool {
        self.failing.is_some() || self.ended_without_answer() || self.ended_at_conflict()
    }

    /// Whether it was a dark run that ended because a person would have had to decide.
    fn ended_at_conflict(&self) -> bool {
        self.mode() == Mode::Dark
            && matches!(&self.end, Some(End::Failed(failure))
                if failure.kind == FailureKind::WouldPause && self.failing.as_ref() != Some(failure))
    }

    fn ended_without_answer(&self) -> bool {
        self.unanswered.is_some() && self.end.is_some()
    }

    /// Every step (item) that was done or may have been, of a run that ends early or has ended without an answer, and
    /// whether it was undone: first the calls that certainly were done, in the order of undoing, the last one first;
    /// then those with unknown effect, and what child runs left. Empty while the run goes on.
    pub fn undone(&self) -> Vec<(&StepId, Option<u32>, UndoStatus)> {
        let all = self.undone_calls();
        let mut all: Vec<_> = all.map(|(done, _, undone)| (&done.step, done.item, undone)).collect();
        if self.ends_early() {
            let unknown = |call: &UnknownEffect| UndoStatus::Left(call.why.clone());
            all.extend(self.unknown.iter().map(|call| (&call.step, call.item, unknown(call))));
            let left = |(step, left): (_, &LeftByChildren)| Some((step, None, UndoStatus::Left(left.in_words()?)));
            all.extend(self.left_by_children.iter().filter_map(left));
        }
        all
    }

    /// Of a rehearsal: the first step whose `undo` could not be built, and why. A run of a caller would pause there.
    pub fn unbuilt_undo(&self) -> Option<(&StepId, &str)> {
        let calls = self.undoing.iter().flat_map(|undoing| &undoing.calls);
        calls.into_iter().find_map(|((step, _), call)| match &call.undone {
            UndoStatus::Left(why) if self.done.get(call.done).is_some_and(|done| done.rehearsed) => {
                Some((step, why.as_str()))
            }
            UndoStatus::Left(_) | UndoStatus::NotYet | UndoStatus::Undone | UndoStatus::Rehearsed => None,
        })
    }

    /// As [`Run::undone`], only for calls that certainly were done.
    fn undone_calls(&self) -> impl Iterator<Item = (&DoneCall, Option<&UndoCall>, UndoStatus)> {
        let done = if self.ends_early() { self.done.as_slice() } else { &[] };
        done.iter().rev().filter_map(|done| {
            count_work();
            let call = self.undoing.as_ref().and_then(|undoing| undoing.calls.get(&(done.step.clone(), done.item)));
            let is_listed = call.is_some() || !(done.rehearsed || done.harmless);
            is_listed.then(|| (done, call, self.undone_call(done, call)))
        })
    }

    /// Whether this call was undone.
    pub(super) fn was_undone(&self, done: &DoneCall) -> bool {
        let call = self.undoing.as_ref().and_then(|undoing| undoing.calls.get(&(done.step.clone(), done.item)));
        call.is_some_and(|call| call.undone == UndoStatus::Undone)
    }

    /// Steps of which it is unknown whether a call was undone.
    pub(super) fn steps_with_unknown_undo(&self) -> impl Iterator<Item = &StepId> {
        let calls = self.undoing.iter().flat_map(|undoing| &undoing.calls);
        calls.filter(|(_, call)| call.is_unknown).map(|((step, _), _)| step)
    }

    fn undone_call(&self, done: &DoneCall, call: Option<&UndoCall>) -> UndoStatus {
        match (call, &self.cancel) {
            (Some(call), _) if call.undone == UndoStatus::NotYet && self.end.is_some() => {
                UndoStatus::Left("undoing was called off".into())
            }
            (Some(call), _) => call.undone.clone(),
            (None, Some(Cancel { compensate: false, .. })) => {
                UndoStatus::Left("the run was cancelled without undoing".into())
            }
            (None, _) if self.undoing.is_none() && self.end.is_none() => UndoStatus::NotYet,
            (None, _) if self.undoing.is_none() && self.ended_at_conflict() => {
                UndoStatus::Left("a run in dark that would need a person ends without undoing".into())
            }
            (None, _) if self.undoing.is_none() && self.ended_without_answer() => {
                UndoStatus::Left("all steps have ended, only the answer is missing".into())
            }
            (None, _) => UndoStatus::Left(done.child.as_ref().map_or_else(
                || "it declares no `undo`".to_owned(),
                |(run, workflow)| format!("{run} `{workflow}`: completed, and its step declares no `undo`"),
            )),
        }
    }

    /// What was undone and what was not, in a sentence that follows this note; `None` where nothing was done.
    pub(super) fn undo_report(&self, note: &str) -> Option<String> {
        let children = self.ends_early().then(|| self.left_by_children_in_words(note)).flatten();
        let parts: Vec<_> = self.undo_report_by_kind().into_iter().chain([children]).flatten().collect();
        (!parts.is_empty()).then(|| parts.join("; "))
    }

    /// What was undone, what is still to be undone, and what is not undone.
    pub(super) fn undo_report_by_kind(&self) -> [Option<String>; 3] {
        let counts = match &self.undoing {
            Some(undoing) if self.end.is_none() => self.counts_under_way(undoing),
            _ => self.counts_of_all(),
        };
        let list = |what: &str, steps: &Counts<'_>| {
            let name = |(step, (items, why)): (&&StepId, &(usize, Option<String>))| match (items, why) {
                (1, None) => format!("`{step}`"),
                (1, Some(why)) => format!("`{step}` ({why})"),
                (items, _) => format!("`{step}` ({items} items)"),
            };
            let names: Vec<_> = steps.iter().map(name).collect();
            (!names.is_empty()).then(|| format!("{what}: {}", names.join(", ")))
        };
        let [undone, to_come, left] = &counts;
        [list("undone", undone), list("still to be undone", to_come), list("not undone", left)]
    }

    /// By step, what is undone, still to be undone, and left, as counted by the compensation under way.
    fn counts_under_way<'a>(&'a self, undoing: &'a Undoing) -> [Counts<'a>; 3] {
        let [mut undone, mut to_come, mut left] = <[Counts<'_>; 3]>::default();
        for (step, progress) in &undoing.progress {
            count_work();
            let counted = [(&mut undone, progress.undone), (&mut to_come, progress.to_come)];
            for (counts, items) in counted.into_iter().filter(|(_, items)| *items > 0) {
                counts.insert(step, (items, None));
            }
            if let Some((item, at)) = progress.left.first_key_value() {
                let done = self.done.get(*at).filter(|_| progress.left.len() == 1);
                let call = undoing.calls.get(&(step.clone(), *item));
                let why = done.and_then(|done| reason_text(done, call, &self.undone_call(done, call)));
                left.insert(step, (progress.left.len(), why));
            }
        }
        for call in &self.unknown {
            count_work();
            let is_new = undoing.progress.get(&call.step).is_none_or(|known| !known.left.contains_key(&call.item));
            if is_new {
                let (items, why) = left.entry(&call.step).or_default();
                (*items, *why) = (*items + 1, None);
            }
        }
        [undone, to_come, left]
    }

    /// Whether the counts of the compensation under way equal those made from the list of calls; for tests.
    #[cfg(test)]
    pub(super) fn undo_counts_agree(&self) -> bool {
        let under_way = self.undoing.as_ref().filter(|_| self.end.is_none());
        under_way.is_none_or(|undoing| self.counts_under_way(undoing) == self.counts_of_all())
    }

    /// As `counts_under_way`, counted from the list of calls.
    fn counts_of_all(&self) -> [Counts<'_>; 3] {
        let mut all = <[BTreeMap<&StepId, BTreeMap<Option<u32>, Option<String>>>; 3]>::default();
        for (done, call, undone) in self.undone_calls() {
            let (kind, why) = match &undone {
                UndoStatus::Undone | UndoStatus::Rehearsed => (0, None),
                UndoStatus::NotYet => (1, None),
                UndoStatus::Left(_) => (2, reason_text(done, call, &undone)),
            };
            all[kind].entry(&done.step).or_default().insert(done.item, why);
        }
        for call in self.unknown.iter().filter(|_| self.ends_early()) {
            all[2].entry(&call.step).or_default().entry(call.item).or_default();
        }
        all.map(|steps| {
            // For several items the text gives only their number.
            let count = |mut items: BTreeMap<_, Option<String>>| match items.len() {
                1 => (1, items.pop_first().and_then(|(_, why)| why)),
                several => (several, None),
            };
            steps.into_iter().map(|(step, items)| (step, count(items))).collect()
        })
    }
}

/// The reason that is shown with a call that was left as it is: for a child run, what is known of its effects; for a
/// call that may have been undone, that this is unknown; for one that the service refused, its status, because there
/// may be nothing to undo. `None` for all other calls.
fn reason_text(done: &DoneCall, call: Option<&UndoCall>, undone: &UndoStatus) -> Option<String> {
    match undone {
        UndoStatus::Left(why) if done.child.is_some() || call.is_some_and(|call| call.is_unknown) => Some(why.clone()),
        UndoStatus::Left(_) => {
            done.status.filter(|status| *status >= 400).map(|status| format!("its reply was {status}"))
        }
        UndoStatus::NotYet | UndoStatus::Undone | UndoStatus::Rehearsed => None,
    }
}
