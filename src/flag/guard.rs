//! The guard of a route (`guard:`): when the route is lowered automatically, and how it returns.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::names::ServiceName;

/// When a route is lowered automatically. Rates are from 0.0 to 1.0.
#[derive(Clone, Debug, PartialEq)]
pub struct Guard {
    /// The highest accepted rate of compared pairs that differ; `None`: not watched.
    pub mismatch: Option<f64>,
    /// The highest accepted rate of requests in `live` that the engine fails, above legacy's own rate; `None`: not
    /// watched.
    pub errors: Option<f64>,
    /// The highest accepted ratio of the engine's 99th percentile of latency in `live` to legacy's; `None`: not
    /// watched.
    pub p99_ratio: Option<f64>,
    /// How many of the last requests, or compared pairs, count.
    pub over: u64,
    /// How many of these have to be bad at least.
    pub at_least: u64,
    /// Whether the guard also watches a route in `dark`, which it lowers to `shadow`.
    pub in_dark: bool,
    /// How a lowered route returns.
    pub release: GuardRelease,
    /// Where each action is posted; `None`: nowhere.
    pub notify: Option<GuardWebhook>,
}

/// How a route that the guard lowered returns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum GuardRelease {
    /// By a person.
    #[default]
    Hand,
    /// By a person, or once enough pairs in a row were compared without a difference or a failed run.
    Evidence,
}

impl GuardRelease {
    /// The name in files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hand => "hand",
            Self::Evidence => "evidence",
        }
    }
}

/// Where the actions of a guard are posted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuardWebhook {
    /// `notify:` as it is written.
    pub source: String,
    /// The service.
    pub service: ServiceName,
    /// The path and query after the service's base URL; empty, or begins with `/` or `?`.
    pub path: String,
}

/// What a guard watches: the key of `guard:` that sets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GuardCondition {
    /// `mismatch`.
    Mismatch,
    /// `errors`.
    Errors,
    /// `p99_ratio`.
    P99Ratio,
}

impl GuardCondition {
    /// All conditions: the closed set of the metric's labels.
    pub const ALL: [GuardCondition; 3] = [Self::Mismatch, Self::Errors, Self::P99Ratio];

    /// The name in files, JSON and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mismatch => "mismatch",
            Self::Errors => "errors",
            Self::P99Ratio => "p99_ratio",
        }
    }
}

impl Guard {
    /// Whether the guard watches this condition.
    pub fn watches(&self, condition: GuardCondition) -> bool {
        match condition {
            GuardCondition::Mismatch => self.mismatch.is_some(),
            GuardCondition::Errors => self.errors.is_some(),
            GuardCondition::P99Ratio => self.p99_ratio.is_some(),
        }
    }
}
