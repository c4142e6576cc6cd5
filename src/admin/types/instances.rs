//! The instances of a family.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::flag::Arm;

/// The instances of one arm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct InstancesRow {
    /// The arm.
    pub arm: Arm,
    /// The instances that have not ended. Of legacy's, those that requests have shown, or that legacy lists (`alive:`).
    pub alive: u64,
    /// Whether legacy has others, whose ids were not recorded.
    pub has_unknown: bool,
    /// Legacy's instances that have not ended and whose twin lacks something: their requests are not compared.
    pub twins_incomplete: u64,
    /// Of legacy's: whether legacy is asked for all of them (`alive:`). If not, those that no request has shown are not
    /// known.
    #[serde(default)]
    pub is_listed: bool,
    /// When the oldest was created; of legacy's, when a request first showed it. `null` if there is none.
    pub oldest: Option<Timestamp>,
    /// Since when all that the arm had have ended; `null` if some have not.
    pub drained: Option<Timestamp>,
}
