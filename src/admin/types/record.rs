//! The record of moves, as the API shows it.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use crate::store::{ChainHead, RecordEntry};

/// A part of the record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RecordPage {
    /// Entries, the oldest first.
    pub entries: Vec<RecordEntry>,
    /// The number of the newest entry in the store; 0 if there is none.
    pub newest: u64,
    /// Its hash, which covers all entries before it; empty if there is none.
    pub newest_hash: String,
    /// What the store notes, outside of the entries, as the newest entry: it is missing above if entries were removed.
    /// `null` where no entry was added, or an older version added all.
    #[serde(default)]
    pub head: Option<ChainHead>,
    /// The server's time when it read them.
    pub read_at: Timestamp,
}
