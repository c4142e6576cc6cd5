//! One step of a run, as people look at it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::names::StepId;
use crate::workflow::StepStatus;

/// One step of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepView {
    /// Its name.
    pub step: StepId,
    /// Where it stands.
    pub status: StepStatus,
    /// Attempts made, all items together.
    pub attempts: u32,
    /// Items of a `for_each`.
    pub items: Option<u32>,
    /// Items that have ended.
    pub items_ended: Option<u32>,
    /// When it began.
    pub started: Timestamp,
    /// From its beginning to its last event, milliseconds.
    pub duration_ms: u64,
    /// The status that a service answered with (the last one, of a fan-out).
    pub http_status: Option<u16>,
    /// What is worth saying.
    pub note: Option<String>,
}
