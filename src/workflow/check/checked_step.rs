//! A step that was read and checked, before the order of all steps is known.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::expression::Expression;
use crate::names::StepId;
use crate::workflow::rules::Safeguards;
use crate::workflow::{Call, ForEach, PauseOrFail, Probe, Schema, StepKind};

/// A checked step, before the order of all steps is known.
pub(super) struct CheckedStep {
    pub(super) id: StepId,
    /// The names of the steps that this step needs. Unknown names, which were reported, are left out.
    pub(super) needs: BTreeSet<String>,
    pub(super) needs_any: bool,
    pub(super) condition: Option<Expression>,
    pub(super) for_each: Option<ForEach>,
    /// `None` if the kind's settings have an error, which was reported.
    pub(super) kind: Option<StepKind>,
    pub(super) failure_settings: FailureSettings,
    /// `None` if the safeguards have an error, which was reported.
    pub(super) safeguards: Option<Safeguards>,
}

/// How a step handles failures, before the order of all steps is known.
#[derive(Default)]
pub(super) struct FailureSettings {
    pub(super) fallback: Option<String>,
    pub(super) fallback_only: bool,
    pub(super) on_conflict: Option<PauseOrFail>,
    pub(super) on_failure: Option<PauseOrFail>,
    pub(super) deadline: Option<Duration>,
    pub(super) output: Option<Schema>,
    pub(super) undo: Option<Box<Call>>,
    pub(super) probe: Option<Box<Probe>>,
}
