//! The conditions of a gate, each with its verdict.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a condition, or a gate as a whole, says. Only `pass` opens a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum GateVerdict {
    /// It holds.
    Pass,
    /// There is not enough evidence yet.
    Inconclusive,
    /// There was enough evidence, and it is too old.
    Stale,
    /// The evidence speaks against the move.
    Fail,
}

impl GateVerdict {
    /// All verdicts: the closed set of the metric's labels.
    pub const ALL: [GateVerdict; 4] = [Self::Pass, Self::Inconclusive, Self::Stale, Self::Fail];
    /// The name in JSON and in tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Inconclusive => "inconclusive",
            Self::Stale => "stale",
            Self::Fail => "fail",
        }
    }
}

/// Which condition it is: the key of `promote:` that sets it, where there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ConditionName {
    /// A route goes up one rung at a time.
    OneRung,
    /// `pairs`.
    Pairs,
    /// `open_differences`.
    OpenDifferences,
    /// `mismatch_below`.
    MismatchBelow,
    /// `coverage_at_least`.
    CoverageAtLeast,
    /// `strata_at_least`.
    StrataAtLeast,
    /// `effects_compared`.
    EffectsCompared,
    /// Private steps whose calls legacy makes too.
    PrivateSteps,
    /// Reads with a method that is not safe, which legacy makes too.
    SentReads,
    /// `errors_not_worse_by`.
    ErrorsNotWorseBy,
    /// `errors_not_worse_by`, of what a candidate answered callers itself.
    CandidateErrors,
    /// `noise_not_worse_by`.
    NoiseNotWorseBy,
    /// `p99_ratio_below`.
    P99RatioBelow,
    /// `age_at_most`.
    AgeAtMost,
    /// The share of dark requests without a twin.
    Twins,
    /// The share of the route in `live`.
    Share,
    /// `answers`.
    Answers,
    /// `window`.
    Window,
    /// The engine's answers with a 4xx status.
    ClientErrors,
    /// The guard has stopped the candidate.
    StoppedByGuard,
    /// `invariants`: what the engine's answers have to meet.
    Invariants,
}

impl ConditionName {
    /// The name in JSON and in tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OneRung => "one_rung",
            Self::Pairs => "pairs",
            Self::OpenDifferences => "open_differences",
            Self::MismatchBelow => "mismatch_below",
            Self::CoverageAtLeast => "coverage_at_least",
            Self::StrataAtLeast => "strata_at_least",
            Self::EffectsCompared => "effects_compared",
            Self::PrivateSteps => "private_steps",
            Self::SentReads => "sent_reads",
            Self::ErrorsNotWorseBy => "errors_not_worse_by",
            Self::CandidateErrors => "candidate_errors",
            Self::NoiseNotWorseBy => "noise_not_worse_by",
            Self::P99RatioBelow => "p99_ratio_below",
            Self::AgeAtMost => "age_at_most",
            Self::Twins => "twins",
            Self::Share => "share",
            Self::Answers => "answers",
            Self::Window => "window",
            Self::ClientErrors => "client_errors",
            Self::StoppedByGuard => "stopped_by_guard",
            Self::Invariants => "invariants",
        }
    }
}

/// One condition of a gate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Condition {
    /// Which one.
    pub name: ConditionName,
    /// Whether it holds.
    pub verdict: GateVerdict,
    /// What was found; where it does not hold, what is missing and what to do.
    pub detail: String,
}

/// The verdict of a gate: the worst of its conditions; `pass` without any.
pub fn overall(conditions: &[Condition]) -> GateVerdict {
    conditions.iter().map(|condition| condition.verdict).max().unwrap_or(GateVerdict::Pass)
}

/// A condition that holds.
pub(super) fn pass(name: ConditionName, detail: String) -> Condition {
    Condition { name, verdict: GateVerdict::Pass, detail }
}

/// A condition for which there is nothing to judge.
pub(super) fn nothing_yet(name: ConditionName, detail: &str) -> Condition {
    Condition { name, verdict: GateVerdict::Inconclusive, detail: detail.to_owned() }
}
