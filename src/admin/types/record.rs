//! The record of moves, as the API shows it.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use crate::store::RecordEntry;

/// A part of the record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RecordPage {
    /// Entries, the oldest first.
    pub entries: Vec<RecordEntry>,
    /// The number of the newest entry in the store; 0 if there is none.
    pub newest: u64,
    /// Its hash, which covers all entries before it; empty if there is none.
    pub newest_hash: String,
    /// The server's time when it read them.
    pub read_at: Timestamp,
}
