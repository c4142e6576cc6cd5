//! Changed rules, and what they would make of the samples that are kept.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::file_problem::FileProblem;
use crate::compare::Difference;
use crate::names::RouteId;

/// A request to judge the samples of a route again. Nothing is changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TryRules {
    /// The whole `compare:` of the route as it would be, as YAML, with or without that key.
    pub rules: String,
}

/// What the samples of a route look like under other rules.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TriedRules {
    /// The route.
    pub route: RouteId,
    /// The number of comparisons since the evidence was last started from zero.
    pub pairs: u64,
    /// How many of these comparisons differ. Only of these, and only of some, a sample is kept: whether pairs that are
    /// equal now would differ is not known.
    pub mismatched: u64,
    /// What became of all samples.
    pub samples: TriedSamples,
    /// The groups of differences, the most frequent first.
    pub groups: Vec<TriedGroup>,
    /// The warnings of `check` about the rules.
    pub warnings: Vec<FileProblem>,
}

/// Counts samples by what other rules make of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TriedSamples {
    /// All samples.
    pub kept: u64,
    /// Those that would be equal.
    pub equal: u64,
    /// Those that would differ.
    pub differ: u64,
    /// Those that cannot be judged again; they count neither as equal nor as different.
    pub not_judged: u64,
}

/// What the samples of one group of differences look like under other rules.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TriedGroup {
    /// A hash of the set of paths and kinds.
    pub fingerprint: String,
    /// How many pairs differed in this way.
    pub pairs: u64,
    /// What became of the group's samples.
    pub samples: TriedSamples,
    /// Where the arms differ under the rules in force.
    pub before: Vec<Difference>,
    /// What would differ still, in some sample.
    pub still: Vec<Difference>,
    /// What would differ in addition, in some sample.
    pub new: Vec<Difference>,
    /// By rule: the number of samples in which it would make different values equal.
    pub equal_by: BTreeMap<String, u64>,
    /// Why samples cannot be judged again.
    pub not_judged: Vec<NotJudgedSamples>,
}

/// Samples that cannot be judged again for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NotJudgedSamples {
    /// The reason, as a sentence.
    pub reason: String,
    /// The number of samples.
    pub samples: u64,
}
