//! What the gates of a route require by the files, and what the last change of that was.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What the gates of a route require by the files that were put in force last, and the last change of that. If the
/// change has no entry in the record yet, the next start makes the entry from this.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeclaredPromote {
    /// The value of each key of `promote:`, as text.
    pub requires: BTreeMap<String, String>,
    /// How often it changed.
    #[serde(default)]
    pub changes: u64,
    /// The last change; `None` if there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_change: Option<PromoteChange>,
}

/// A change of what the gates of a route require.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromoteChange {
    /// The [`source`](super::RecordEntry::source) of its entry in the record.
    pub source: String,
    /// Of each key that differs, the value before and the new one. `None` where a version has no such key.
    pub keys: BTreeMap<String, (Option<String>, Option<String>)>,
}
