//! How many intents were compared with a real call.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::names::StepId;

/// How many of the engine's intents of one pair were compared with a call that legacy made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EffectCoverage {
    /// The counts by step. A step that recorded no intent, or whose intents are not judged, is not listed.
    pub steps: BTreeMap<StepId, StepCoverage>,
    /// Calls by legacy that are equal to a read that the run made with a method that is not safe, by the step of the
    /// read.
    #[serde(default)]
    pub reads_of_both: BTreeMap<StepId, u32>,
    /// Calls by legacy that count neither as compared nor as missing: reads, and calls for which the engine records no
    /// intent.
    pub calls_not_judged: u32,
}

impl EffectCoverage {
    /// Whether a call of the engine was compared with one by legacy.
    pub fn has_compared(&self) -> bool {
        self.steps.values().any(|step| step.compared > 0)
    }
}

/// What the intents of one step of a pair were compared with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IntentCounts {
    /// All of them.
    pub intents: u32,
    /// Those that were compared with a call by legacy.
    pub compared: u32,
    /// Of the others, those that an `assert` reads.
    pub asserted: u32,
}

/// The intents of one step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepCoverage {
    /// The intents that were compared with a call by legacy.
    pub compared: u32,
    /// The intents for which legacy made no call.
    pub unmatched: u32,
}
