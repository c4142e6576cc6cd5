//! Which intents were held against a real call.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::names::StepId;

/// How many of the engine's intents of one pair were held against a call that legacy made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EffectCoverage {
    /// By step; a step that recorded no intent is not listed, and neither is one whose intents are not judged.
    pub steps: BTreeMap<StepId, StepCoverage>,
    /// Calls of legacy that count neither as compared nor as missing: reads, and calls of which the engine records
    /// no intent.
    pub calls_not_judged: u32,
}

/// The intents of one step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepCoverage {
    /// Those that were held against a call of legacy.
    pub compared: u32,
    /// Those for which legacy made no call.
    pub unmatched: u32,
}
