//! The state of a compensation, as a part of a [`super::Run`].
//!
//! Always true: only [`super::evolve`] changes it. The undo of a call ends once.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::calls::StepItem;
use super::serde_forms::pairs;
use crate::names::StepId;

/// A compensation under way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Undoing {
    /// The groups, undone one after the other; the calls of a group are undone concurrently.
    pub groups: Vec<Vec<StepItem>>,
    /// The index of the current group.
    pub at: usize,
    /// The index of the first call of that group whose undo has not begun; all before it have begun or ended.
    pub next: usize,
    /// How many undos of that group have not ended.
    pub to_come: usize,
    /// The state of each call's undo.
    #[serde(with = "pairs")]
    pub calls: BTreeMap<StepItem, UndoCall>,
    /// By step: how many of its calls are undone. Updated with each call, because every append needs it for the run's
    /// summary.
    pub progress: BTreeMap<StepId, UndoProgress>,
}

/// The progress of undoing a step's calls, as counts.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct UndoProgress {
    pub undone: usize,
    /// How many undos have not ended.
    pub to_come: usize,
    /// Items that are left as they are: no undo is to come for them. Each with its index in the run's list of calls
    /// that were done.
    #[serde(with = "pairs")]
    pub left: BTreeMap<Option<u32>, usize>,
}

/// The undoing of one call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct UndoCall {
    /// Its index in the run's list of calls that were done.
    pub done: usize,
    /// The index of its group.
    pub group: usize,
    pub undone: UndoStatus,
    /// Whether it is left as it is, and may have been undone.
    pub is_unknown: bool,
}

/// The state of a call's undo.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UndoStatus {
    /// Its `undo` has not ended.
    NotYet,
    /// It was undone.
    Undone,
    /// The undo was not sent: only its intent was recorded.
    Rehearsed,
    /// It was not undone, for this reason.
    Left(String),
}
