//! The texts about a run as people are shown them: asterisks replace what was made from sensitive values.
//!
//! Always true: a text is hidden by its origin, however short it is and whatever it looks like; the same texts are
//! sealed in the run's events ([`super::parts`]). In all other texts, asterisks replace the sensitive values that the
//! run knows.

use std::borrow::Cow;
use std::sync::Arc;

use super::known::KnownValues;
use super::quotes::{cancelled_over_sensitive_lock, conflict_quotes, failure_quotes, question_quotes};
use super::taint::Taint;
use crate::names::StepId;
use crate::workflow::{Conflict, Failure, FailureKind, OpenCheckpoint, Plan, Run, STARS, StepPart};

/// Redacts the texts about one run.
pub struct ShownTexts {
    /// `None` where all texts are in clear.
    taint: Option<Taint>,
    known: Arc<KnownValues>,
}

impl ShownTexts {
    /// Shows the texts as people may see them.
    pub fn of(plan: &Plan, run: &Run) -> Self {
        match Taint::of(plan, run) {
            Some(taint) => Self { taint: Some(taint), known: run.known_values() },
            None => Self::in_clear(),
        }
    }
    #[cfg(test)]
    pub(super) fn of_taint(taint: Taint) -> Self {
        Self { taint: Some(taint), known: Arc::default() }
    }
    /// Shows the texts in clear, to whoever may have the run's values.
    pub(in crate::workflow) fn in_clear() -> Self {
        Self { taint: None, known: Arc::default() }
    }
    /// Redacts a text that is not hidden by its origin.
    pub fn text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        match self.known.are_in(text) {
            true => self.known.hide(text, &|_| Some(STARS.to_owned())).unwrap_or_else(|| STARS.to_owned()).into(),
            false => text.into(),
        }
    }
    /// Redacts the message of a failure.
    pub fn failure<'a>(&self, failure: &'a Failure) -> Cow<'a, str> {
        match &self.taint {
            Some(_) if failure.kind == FailureKind::Cancelled => self.cancelled(&failure.message),
            Some(taint) if failure_quotes(taint, failure) => match &failure.step {
                Some(step) => about(step, failure.kind.as_str()).into(),
                None => STARS.into(),
            },
            _ => self.text(&failure.message),
        }
    }
    /// Redacts the message that says why a run was cancelled.
    pub fn cancelled<'a>(&self, why: &'a str) -> Cow<'a, str> {
        match self.taint.as_ref().and_then(|taint| cancelled_over_sensitive_lock(taint, why)) {
            Some(step) => format!("`{step}` cancelled it: {STARS}").into(),
            None => self.text(why),
        }
    }
    /// Redacts the message of a conflict.
    pub fn conflict<'a>(&self, conflict: &'a Conflict) -> Cow<'a, str> {
        match self.taint.as_ref().is_some_and(|taint| conflict_quotes(taint, conflict)) {
            true => about(&conflict.step, conflict.kind.as_str()).into(),
            false => self.text(&conflict.message),
        }
    }
    /// Redacts a question to people, without naming its step.
    pub fn question<'a>(&self, asked: &'a OpenCheckpoint) -> Cow<'a, str> {
        let step = self.taint.as_ref().and_then(|taint| taint.steps.get(&asked.step));
        match step.is_some_and(|step| question_quotes(step, asked)) {
            true => STARS.into(),
            false => self.text(&asked.question),
        }
    }
    /// Redacts a question to people, and names its step if the question is hidden.
    pub fn question_of_step<'a>(&self, asked: &'a OpenCheckpoint) -> Cow<'a, str> {
        let question = self.question(asked);
        if question == STARS { format!("`{}`: {STARS}", asked.step).into() } else { question }
    }
    /// Redacts the URL of a call.
    pub fn url<'a>(&self, step: &StepId, part: StepPart, url: &'a str) -> Cow<'a, str> {
        let step = self.taint.as_ref().and_then(|taint| taint.steps.get(step));
        if step.is_some_and(|step| step.of_part(part).url) { STARS.into() } else { self.text(url) }
    }
}

/// Returns what is shown instead of a hidden text about a step: the kind of failure or conflict.
fn about(step: &StepId, kind: &str) -> String {
    format!("`{step}` ({}): {STARS}", kind.replace('_', " "))
}
