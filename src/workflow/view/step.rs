//! One step of a run, as it is shown to people.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::names::StepId;
use crate::workflow::StepStatus;

/// One step of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepView {
    /// Its name.
    pub step: StepId,
    /// Its status.
    pub status: StepStatus,
    /// How many attempts were made, for all items together.
    pub attempts: u32,
    /// How many items a `for_each` has.
    pub items: Option<u32>,
    /// How many items have ended.
    pub items_ended: Option<u32>,
    /// When it began.
    pub started: Timestamp,
    /// From its beginning to its last event, in milliseconds.
    pub duration_ms: u64,
    /// The status that a service answered with (the last one, of a fan-out).
    pub http_status: Option<u16>,
    /// A remark for people: what it waits for, or why it failed.
    pub note: Option<String>,
}
