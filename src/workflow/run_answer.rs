//! What the caller of a run was told, and whether the run failed although the caller was not told of the failure.

use std::sync::Arc;

use super::run::End;
use super::{AnswerRecord, MissingForRehearsal, Pinned, Run, RunStatus};

impl Run {
    /// The caller's answer, once it is fixed.
    pub fn answer(&self) -> Option<&Arc<AnswerRecord>> {
        self.answer.as_ref()
    }
    /// What the caller got while the run went on.
    pub fn pending(&self) -> Option<&Arc<AnswerRecord>> {
        self.pending.as_ref()
    }
    /// Whether the caller got `respond.pending` while the run was paused with an open conflict.
    pub fn is_pending_in_conflict(&self) -> bool {
        self.pending_in_conflict
    }
    /// What the answer pinned.
    pub fn pinned(&self) -> Option<&Pinned> {
        self.pinned.as_ref()
    }
    /// Whether it failed, or is paused because of a conflict, although an answer was given that tells nothing of it:
    /// the final one, or a pending one. One that was given because of a conflict says that the outcome is unknown. A
    /// run that ends as its workflow declares, on purpose, or for lack of something that only a rehearsal lacks, has
    /// not failed.
    pub fn failed_after_answer(&self) -> bool {
        let is_answered = match self.pending {
            Some(_) => !self.pending_in_conflict,
            None => self.answer.is_some(),
        };
        if !is_answered || self.answer_tells_failure {
            return false;
        }
        match &self.end {
            None => self.is_paused_in_conflict(),
            Some(End::Failed(failure)) => {
                !self.ended_on_purpose()
                    && failure
                        .kind
                        .missing_for_rehearsal()
                        .is_none_or(|missing| missing == MissingForRehearsal::Decision)
            }
            Some(_) => false,
        }
    }
    /// Whether it is paused with an open conflict.
    pub fn is_paused_in_conflict(&self) -> bool {
        self.status() == RunStatus::Paused && !self.conflicts.is_empty()
    }
}
