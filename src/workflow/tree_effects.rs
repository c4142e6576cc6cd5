//! What a run reports to the run that began it: the effects of its whole tree, which is the run and all runs below it,
//! and whether it was decided there that something is not to be done.
//!
//! Always true: an attempt at any depth counts unless it is certain that it did nothing. Events of earlier versions
//! have no report; then everything that depends on it assumes the worst.

use serde::{Deserialize, Serialize};

/// The effects of a run and of all runs below it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TreeEffects {
    /// Whether a private step was done, or may have been.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub private: bool,
    /// Whether a shared step was done, or may have been.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub shared: bool,
    /// Whether any step has an unknown outcome: it may have been done or not.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub unknown: bool,
    /// What was done, or may have been, and is not undone, in words; of a completed run only steps with unknown
    /// outcome.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left: Option<String>,
    /// Whether it was decided that something is not to be done ([`super::Run::is_decided_against`]).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub decided_against: bool,
}

/// What child runs of one step left behind.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct LeftByChildren {
    /// How many child runs reported that they left something behind.
    pub runs: usize,
    /// The first of them, and what it left, in words.
    pub first: Option<(String, String)>,
    /// Whether any child run of the step has a step with an unknown outcome, or did not complete and sent no report.
    pub unknown: bool,
}

impl LeftByChildren {
    /// What they left, in words.
    pub fn in_words(&self) -> Option<String> {
        let (child, left) = self.first.as_ref()?;
        Some(match self.runs {
            1 => format!("{child}: {left}"),
            2 => format!("{child}: {left}; and 1 more run"),
            runs => format!("{child}: {left}; and {} more runs", runs - 1),
        })
    }
}

impl TreeEffects {
    /// Whether anything but reads was done, or may have been.
    pub fn any(&self) -> bool {
        self.private || self.shared
    }
}
