//! A step that was read and checked, before the order of all steps is known.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::expression::Expression;
use crate::names::StepId;
use crate::workflow::rules::Safeguards;
use crate::workflow::{Call, ForEach, OnTrouble, Probe, Schema, StepKind};

/// A step before the order of all is known.
pub(super) struct Built {
    pub(super) id: StepId,
    /// By name; only steps that exist.
    pub(super) needs: BTreeSet<String>,
    pub(super) needs_any: bool,
    pub(super) condition: Option<Expression>,
    pub(super) for_each: Option<ForEach>,
    /// `None` where something is wrong with it, and has been noted.
    pub(super) kind: Option<StepKind>,
    pub(super) failing: Failing,
    /// The same.
    pub(super) safeguards: Option<Safeguards>,
}

/// How a step handles failures, before the order of all is known.
#[derive(Default)]
pub(super) struct Failing {
    pub(super) fallback: Option<String>,
    pub(super) fallback_only: bool,
    pub(super) on_conflict: Option<OnTrouble>,
    pub(super) on_failure: Option<OnTrouble>,
    pub(super) deadline: Option<Duration>,
    pub(super) output: Option<Schema>,
    pub(super) undo: Option<Box<Call>>,
    pub(super) probe: Option<Box<Probe>>,
}
