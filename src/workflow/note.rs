//! Why a run is paused or ended early, in a sentence.
//!
//! Always true: the note follows from the run's state; as people are shown it, stars stand for texts that were made
//! from sensitive values.

use super::run::{End, Pause};
use super::{ConflictKind, Creates, Plan, Run, ShownTexts, Superseded, may_create_instance};

impl Run {
    /// Why it is paused or ended early, in a sentence, in clear.
    pub fn note(&self) -> Option<String> {
        self.note_in(&ShownTexts::in_clear())
    }
    /// As [`Run::note`], with stars in place of what was made from sensitive values.
    pub fn shown_note(&self, plan: &Plan) -> Option<String> {
        match self.is_sensitive(plan) {
            true => self.note_in(&ShownTexts::of(plan, self)),
            false => self.note(),
        }
    }
    fn note_about_missing_id(&self) -> Option<String> {
        let answer = self.answer()?;
        (may_create_instance(answer.status) && self.lacks_instance_id()).then(|| {
            "its answer has no id of the instance that it created (`instance.creates` of its route): legacy gets the later \
             requests about it"
                .to_owned()
        })
    }
    /// Whether it creates an instance and has pinned no id of it, if it has answered. The id may have been pinned by
    /// the pending answer, or by an earlier run of the job. A run that failed need not have created an instance.
    pub fn lacks_instance_id(&self) -> bool {
        let started = self.started();
        matches!(started.creates, Some(Creates::Engine { .. }))
            && self.pinned().is_none()
            && started.pinned_before.is_empty()
            && self.failure().is_none()
    }
    pub(super) fn note_in(&self, texts: &ShownTexts) -> Option<String> {
        let note = match (&self.end, self.conflicts.first(), &self.pause) {
            // A run that a `fail` step ended has completed as the workflow declares; its note names the failure, and
            // what was undone.
            (Some(End::Completed), _, _) if self.failing.is_none() => return self.note_about_missing_id(),
            (Some(End::Completed), _, _) => texts.failure(self.failing.as_ref()?),
            (Some(End::Failed(failure)), _, _) => texts.failure(failure),
            (Some(End::Cancelled(why)), _, _) => texts.cancelled(why),
            (Some(End::Abandoned(why)), _, _) => texts.text(why),
            (Some(End::CancelledUnread(why)), _, _) => return Some(texts.cancelled(why).into_owned()),
            (Some(End::Superseded(superseded)), _, _) => {
                let Superseded { successor, from, requested_by: who, .. } = &**superseded;
                return Some(format!("{who} reran it from `{from}` on: {successor} takes over its results"));
            }
            (None, Some(first), _) => {
                // A conflict that a reload may resolve is preferred, because such a conflict is recognised by the note.
                let missing = self.conflicts.iter().find(|conflict| conflict.kind == ConflictKind::Missing);
                let message = texts.conflict(missing.unwrap_or(first));
                return Some(match self.conflicts.len() {
                    1 => message.into_owned(),
                    more => format!("{message} ({more} conflicts are open)"),
                });
            }
            (None, None, Some(Pause { by, reason, at: _ })) => {
                return Some(match reason {
                    Some(reason) => format!("{by} paused it: {}", texts.text(reason)),
                    None => format!("{by} paused it"),
                });
            }
            (None, None, None) => texts.failure(self.failing.as_ref()?),
        };
        Some(match self.undo_report(&note) {
            Some(undo_report) => format!("{note}; {undo_report}"),
            None => note.into_owned(),
        })
    }
}
