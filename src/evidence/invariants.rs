//! How often the engine's answers met the invariants of their route.
//!
//! Always true: an invariant that could not be evaluated counts as broken. One that was not judged counts neither as
//! held nor as broken. When the text of an invariant changes, it is counted from zero.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::add_change::AddChange;
use crate::flag::{Invariant, State};
use crate::names::RunId;

/// How often the engine's answers met one invariant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct InvariantCounts {
    /// The invariant as it was in the files.
    pub text: String,
    /// Answers for which it held.
    pub held: u64,
    /// Answers for which it did not hold, or could not be evaluated.
    pub broken: u64,
    /// Answers for which it was not judged, by reason.
    pub not_judged: BTreeMap<String, u64>,
    /// The last answer for which it did not hold.
    pub last_broken: Option<BrokenInvariant>,
}

impl AddChange for InvariantCounts {
    fn add_change(&mut self, before: &Self, after: &Self) {
        if self.text != after.text {
            // What the others counted is about another text of the invariant.
            if before.text != after.text {
                self.clone_from(after);
            }
            return;
        }
        let other_text = Self::default();
        let before = if before.text == after.text { before } else { &other_text };
        self.held.add_change(&before.held, &after.held);
        self.broken.add_change(&before.broken, &after.broken);
        self.not_judged.add_change(&before.not_judged, &after.not_judged);
        let found_last = [&self.last_broken, &after.last_broken].into_iter().flatten().max_by_key(|broken| broken.at);
        self.last_broken = found_last.cloned();
    }
}

/// An answer for which an invariant did not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BrokenInvariant {
    /// When that was found.
    pub at: Timestamp,
    /// The run; `null` if none was made.
    pub run: Option<String>,
    /// Why it could not be evaluated; `null` if it was.
    pub error: Option<String>,
}

/// What was found out about one invariant and one answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InvariantVerdict {
    /// It held.
    Held,
    /// It did not hold.
    Broken,
    /// It could not be evaluated, and why.
    Error(String),
    /// It was not judged, and why: a closed set.
    NotJudged(&'static str),
}

/// How the guard counts an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuardedAnswer {
    /// It met all its invariants.
    Good,
    /// It broke one.
    Bad,
}

impl InvariantVerdict {
    pub(super) fn label(&self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Broken | Self::Error(_) => "broken",
            Self::NotJudged(_) => "not_judged",
        }
    }
    /// Whether it did not hold, or could not be evaluated.
    pub fn is_broken(&self) -> bool {
        matches!(self, Self::Broken | Self::Error(_))
    }
}

/// One answer of the engine that was judged.
#[derive(Clone, Copy, Debug)]
pub struct JudgedAnswer {
    /// The version of the files that decided its request.
    pub files_version: u64,
    /// The caller's rung; that of the route where the engine owns the instance.
    pub rung: State,
    /// When it was given.
    pub answered_at: Timestamp,
    /// How the guard counts the answer; `None`: not at all, or not now.
    pub for_guard: Option<GuardedAnswer>,
    /// Whether the answer counts for the gate to `only` if it met the invariant.
    pub supports_only: bool,
    /// The run.
    pub run: Option<RunId>,
}

impl InvariantCounts {
    /// Counts the verdict on one answer. Returns how many answers so far broke the invariant.
    pub(super) fn count(
        &mut self,
        invariant: &Invariant,
        verdict: &InvariantVerdict,
        answer: &JudgedAnswer,
        now: Timestamp,
    ) -> u64 {
        if self.text != invariant.text {
            *self = Self { text: invariant.text.clone(), ..Self::default() };
        }
        let error = match verdict {
            InvariantVerdict::Held => {
                self.held += u64::from(answer.supports_only);
                return self.broken;
            }
            InvariantVerdict::NotJudged(why) => {
                // As above: an answer that does not count for `only` if it met the invariant does not count here
                // either.
                if answer.supports_only {
                    *self.not_judged.entry((*why).to_owned()).or_default() += 1;
                }
                return self.broken;
            }
            InvariantVerdict::Broken => None,
            InvariantVerdict::Error(why) => Some(why.clone()),
        };
        self.broken += 1;
        self.last_broken = Some(BrokenInvariant { at: now, run: answer.run.map(|run| run.to_string()), error });
        self.broken
    }
    /// Counts answers that were not judged because the process ended.
    pub(super) fn count_lost(&mut self, text: &str, lost: u64) {
        text.clone_into(&mut self.text);
        *self.not_judged.entry("shutting_down".to_owned()).or_default() += lost;
    }
    /// How many answers were judged.
    pub(super) fn judged(&self) -> u64 {
        self.held + self.broken
    }
    pub(super) fn not_judged(&self) -> u64 {
        self.not_judged.values().sum()
    }
    /// Sets the answers for which it held to zero, and keeps the others.
    pub(super) fn without_held(self) -> Self {
        Self { held: 0, ..self }
    }
}
