//! Rules that are proposed for the differences of a route.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::trial::TriedSamples;
use crate::compare::{Difference, DifferenceKind};
use crate::names::RouteId;

/// Rules that explain the differences of a route. Nothing is changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SuggestedRules {
    /// The route.
    pub route: RouteId,
    /// The number of comparisons since the evidence was last started from zero.
    pub pairs: u64,
    /// How many of these comparisons differ.
    pub mismatched: u64,
    /// The whole `compare:` of the route, as YAML: the rules in force, with those that are proposed.
    pub rules: String,
    /// The rules that are proposed, those that hide least first.
    pub added: Vec<SuggestedRuleRow>,
    /// Rules that would compare more, and by which no sample differs. With them the evidence is counted from zero.
    #[serde(default)]
    pub stricter: Vec<StricterRuleRow>,
    /// The whole `compare:` with the stricter rules too, as YAML; empty if there are none.
    #[serde(default)]
    pub stricter_rules: String,
    /// What would differ still.
    pub unexplained: Vec<UnexplainedPlace>,
    /// What became of all samples when they were judged again under the rules.
    pub samples: TriedSamples,
}

/// A rule that would compare more.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StricterRuleRow {
    /// What it would compare, for people.
    pub compares: String,
    /// In how many samples both arms have what it compares.
    pub samples: u64,
}

/// A rule that is proposed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SuggestedRuleRow {
    /// The rule alone, as YAML.
    pub rule: String,
    /// What would differ without it, and with all the others.
    pub hides: Vec<HiddenPlace>,
    /// How many samples would differ in more places without it.
    pub samples: u64,
    /// How many pairs these samples stand for, about.
    pub pairs: u64,
    /// What to know before the rule is used. Left out if there is nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
}

/// What a rule hides at one place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HiddenPlace {
    /// The path.
    pub path: String,
    /// Some of the differences.
    pub examples: Vec<Difference>,
}

/// A difference for which no rule is proposed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct UnexplainedPlace {
    /// The path.
    pub path: String,
    /// The kind.
    pub kind: DifferenceKind,
    /// In how many samples it is.
    pub samples: u64,
    /// How many pairs these samples stand for, about.
    pub pairs: u64,
    /// Why no rule is proposed.
    pub why: String,
    /// One of the differences.
    pub example: Option<Difference>,
}
