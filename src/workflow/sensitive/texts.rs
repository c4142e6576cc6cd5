//! The texts about a run that people are shown: stars stand for what was made from sensitive values.
//!
//! Always true: a text is hidden by its origin, however short it is and whatever it looks like; the same texts are
//! sealed in the run's events ([`super::parts`]). In all other texts stars stand for the values that the run knows.

use std::borrow::Cow;
use std::sync::Arc;

use super::known::KnownValues;
use super::quotes::{cancelled_over_sensitive_lock, conflict_quotes, failure_quotes, question_quotes};
use super::taint::Taint;
use crate::names::StepId;
use crate::workflow::{Conflict, Failure, FailureKind, OpenCheckpoint, Plan, Run, STARS, StepPart};

/// The texts about one run.
pub struct ShownTexts {
    /// `None` where all texts are in clear.
    taint: Option<Taint>,
    known: Arc<KnownValues>,
}

impl ShownTexts {
    /// As people are shown them.
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
    /// In clear, for whoever may have the run's values.
    pub(in crate::workflow) fn in_clear() -> Self {
        Self { taint: None, known: Arc::default() }
    }
    /// A text that is not hidden by its origin.
    pub fn text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        match self.known.are_in(text) {
            true => self.known.hide(text, &|_| Some(STARS.to_owned())).unwrap_or_else(|| STARS.to_owned()).into(),
            false => text.into(),
        }
    }
    /// Why a run ended early.
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
    /// Why a run was cancelled.
    pub fn cancelled<'a>(&self, why: &'a str) -> Cow<'a, str> {
        match self.taint.as_ref().and_then(|taint| cancelled_over_sensitive_lock(taint, why)) {
            Some(step) => format!("`{step}` cancelled it: {STARS}").into(),
            None => self.text(why),
        }
    }
    /// What a person decides about.
    pub fn conflict<'a>(&self, conflict: &'a Conflict) -> Cow<'a, str> {
        match self.taint.as_ref().is_some_and(|taint| conflict_quotes(taint, conflict)) {
            true => about(&conflict.step, conflict.kind.as_str()).into(),
            false => self.text(&conflict.message),
        }
    }
    /// A question to people, without its step.
    pub fn question<'a>(&self, asked: &'a OpenCheckpoint) -> Cow<'a, str> {
        let step = self.taint.as_ref().and_then(|taint| taint.steps.get(&asked.step));
        match step.is_some_and(|step| question_quotes(step, asked)) {
            true => STARS.into(),
            false => self.text(&asked.question),
        }
    }
    /// A question to people, with its step where the question itself is hidden.
    pub fn question_of_step<'a>(&self, asked: &'a OpenCheckpoint) -> Cow<'a, str> {
        let question = self.question(asked);
        if question == STARS { format!("`{}`: {STARS}", asked.step).into() } else { question }
    }
    /// The URL of a call.
    pub fn url<'a>(&self, step: &StepId, part: StepPart, url: &'a str) -> Cow<'a, str> {
        let step = self.taint.as_ref().and_then(|taint| taint.steps.get(step));
        if step.is_some_and(|step| step.of_part(part).url) { STARS.into() } else { self.text(url) }
    }
}

/// What is shown of a hidden text about a step: the kind of failure or conflict.
fn about(step: &StepId, kind: &str) -> String {
    format!("`{step}` ({}): {STARS}", kind.replace('_', " "))
}
