//! What a rerun takes over of a step from the earlier run: the content of [`super::StepEvent::ResultTaken`].

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::SensitivePath;
use crate::expression::SharedJson;
use crate::names::{RunId, StepId, WorkflowName};

/// What a rerun takes over of a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ResultTaken {
    /// The step.
    pub step: StepId,
    /// The run that performed it: the idempotency keys were derived from that run's id.
    pub origin: RunId,
    /// Whether the step was skipped.
    pub skipped: bool,
    /// Whether a person skipped it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub by_hand: bool,
    /// An item that a person skipped, or to which a person gave another input, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided_item: Option<u32>,
    /// What expressions see of it: `output`, `status`, `skipped` and the other fields of its kind.
    pub fields: Arc<Value>,
    /// Its calls that were done and are not undone, in the order of completion.
    pub done: Vec<DoneBefore>,
    /// Its calls whose effect stays unknown.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<UnknownBefore>,
    /// Sensitive parts of its output (of each item's) that the plan does not declare.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sensitive: Vec<SensitivePath>,
}

/// A call of the earlier run whose effect stays unknown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UnknownBefore {
    /// The item of a `for_each`.
    pub item: Option<u32>,
    /// Why it is unknown, in a sentence.
    pub why: String,
}

/// A call that the earlier run did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "StoredDoneBefore")]
pub struct DoneBefore {
    /// The item of a `for_each`.
    pub item: Option<u32>,
    /// The item's value; always there where `item` is.
    pub value: Option<Arc<Value>>,
    /// The status that the service answered with.
    pub status: Option<u16>,
    /// Its output.
    pub output: SharedJson,
    /// Whether it was a child run without effects.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub harmless: bool,
    /// The child run and its workflow, where the step began one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub child: Option<(RunId, WorkflowName)>,
    /// Its group, where it has an `undo`: the calls of a group had overlapped in time and are undone together, and a
    /// group with a greater number is undone first. Without a number a call is undone alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<u32>,
}

/// The form in which [`DoneBefore`] is deserialised. serde reads a null `value` as absent; where `item` is present, an
/// absent value therefore means null.
#[derive(Deserialize)]
struct StoredDoneBefore {
    item: Option<u32>,
    value: Option<Arc<Value>>,
    status: Option<u16>,
    output: SharedJson,
    /// Absent in events of earlier versions, as are `child` and `group`.
    #[serde(default)]
    harmless: bool,
    #[serde(default)]
    child: Option<(RunId, WorkflowName)>,
    #[serde(default)]
    group: Option<u32>,
}

impl From<StoredDoneBefore> for DoneBefore {
    fn from(StoredDoneBefore { item, value, status, output, harmless, child, group }: StoredDoneBefore) -> Self {
        let value = value.or_else(|| item.map(|_| Arc::default()));
        Self { item, value, status, output, harmless, child, group }
    }
}
