//! What a comparison says.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Match, ignored (equal only because a rule said so), or mismatch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Equal.
    Match,
    /// Equal by a rule: counted, per rule.
    Ignored,
    /// Different.
    Mismatch,
}

/// What kind of difference: the label `kind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)] // the names of the others say it
pub enum Kind {
    Status,
    Header,
    Missing,
    Extra,
    Value,
    Type,
    Order,
    Intent,
    Assert,
    /// Any difference in the body, if the workflow has a `volatile: true` read, which is sent after legacy acted.
    StaleRead,
}

impl Kind {
    /// The label.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Status => "status",
            Kind::Header => "header",
            Kind::Missing => "missing",
            Kind::Extra => "extra",
            Kind::Value => "value",
            Kind::Type => "type",
            Kind::Order => "order",
            Kind::Intent => "intent",
            Kind::Assert => "assert",
            Kind::StaleRead => "stale_read",
        }
    }
}

/// One path at which two observations differ.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Difference {
    /// Where: `status`, `headers.location`, `$.items[*].price`, `intents.charge.body.amount`. Array indexes are `[*]`,
    /// so that the same difference in another element has the same path.
    pub path: String,
    /// What kind.
    pub kind: Kind,
    /// Legacy's value, shortened.
    pub legacy: Option<String>,
    /// The engine's value, shortened.
    pub engine: Option<String>,
}

/// The result of comparing two observations.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The verdict.
    pub verdict: Verdict,
    /// Where they differ; empty unless a mismatch.
    pub differences: Vec<Difference>,
    /// Whether there may be more differences than are listed: there were more than the limit, the time was used up, or
    /// two texts were too long to align.
    pub truncated: bool,
    /// How often each rule made something equal, by the rule's text.
    pub ignored_by: Vec<(String, u32)>,
    /// Equal for equal sets of paths and kinds.
    pub fingerprint: String,
}
