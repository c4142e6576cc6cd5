//! The texts about a run that people are shown: stars stand for what was made from sensitive values.
//!
//! Always true: a text is hidden by its origin, however short it is and whatever it looks like; the same texts are
//! sealed in the run's events ([`super::parts`]).

use std::borrow::Cow;

use super::quotes::{cancelled_over_sensitive_lock, conflict_quotes, failure_quotes, question_quotes};
use super::taint::Taint;
use crate::names::StepId;
use crate::workflow::{Conflict, Failure, FailureKind, OpenCheckpoint, Part, Plan, Run, STARS};

/// The texts about one run.
pub struct ShownTexts(Option<Taint>);

impl ShownTexts {
    /// As people are shown them.
    pub fn of(plan: &Plan, run: &Run) -> Self {
        Self(Taint::of(plan, run))
    }
    #[cfg(test)]
    pub(super) fn of_taint(taint: Taint) -> Self {
        Self(Some(taint))
    }
    /// In clear, for whoever may have the run's values.
    pub(in crate::workflow) fn in_clear() -> Self {
        Self(None)
    }
    /// Why a run ended early.
    pub fn failure<'a>(&self, failure: &'a Failure) -> Cow<'a, str> {
        match &self.0 {
            Some(_) if failure.kind == FailureKind::Cancelled => self.cancelled(&failure.message),
            Some(taint) if failure_quotes(taint, failure) => match &failure.step {
                Some(step) => about(step, failure.kind.as_str()).into(),
                None => STARS.into(),
            },
            _ => failure.message.as_str().into(),
        }
    }
    /// Why a run was cancelled.
    pub fn cancelled<'a>(&self, why: &'a str) -> Cow<'a, str> {
        match self.0.as_ref().and_then(|taint| cancelled_over_sensitive_lock(taint, why)) {
            Some(step) => format!("`{step}` cancelled it: {STARS}").into(),
            None => why.into(),
        }
    }
    /// What a person decides about.
    pub fn conflict<'a>(&self, conflict: &'a Conflict) -> Cow<'a, str> {
        match self.0.as_ref().is_some_and(|taint| conflict_quotes(taint, conflict)) {
            true => about(&conflict.step, conflict.kind.as_str()).into(),
            false => conflict.message.as_str().into(),
        }
    }
    /// A question to people, without its step.
    pub fn question<'a>(&self, asked: &'a OpenCheckpoint) -> &'a str {
        let step = self.0.as_ref().and_then(|taint| taint.steps.get(&asked.step));
        if step.is_some_and(|step| question_quotes(step, asked)) { STARS } else { &asked.question }
    }
    /// A question to people, with its step where the question itself is hidden.
    pub fn question_of_step<'a>(&self, asked: &'a OpenCheckpoint) -> Cow<'a, str> {
        match self.question(asked) {
            STARS => format!("`{}`: {STARS}", asked.step).into(),
            question => question.into(),
        }
    }
    /// The URL of a call.
    pub fn url<'a>(&self, step: &StepId, part: Part, url: &'a str) -> &'a str {
        let step = self.0.as_ref().and_then(|taint| taint.steps.get(step));
        if step.is_some_and(|step| step.of_part(part).url) { STARS } else { url }
    }
}

/// What is shown of a hidden text about a step: the kind of failure or conflict.
fn about(step: &StepId, kind: &str) -> String {
    format!("`{step}` ({}): {STARS}", kind.replace('_', " "))
}
