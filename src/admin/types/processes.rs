//! The processes that share a store, as the API shows them.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A process in one row. Of a process of an earlier version only its name and its lease are known: texts are empty, and
/// numbers 0.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ProcessRow {
    /// The process's name.
    pub name: String,
    /// Whether it is the one that answers.
    pub is_this: bool,
    /// The name of its machine or container.
    pub host: String,
    /// Its process id there.
    pub pid: u32,
    /// The version of its program.
    pub version: String,
    /// When it started; `null` if that is not known.
    pub started: Option<Timestamp>,
    /// The addresses of its proxy.
    pub listen: Vec<String>,
    /// The address of its API and metrics.
    pub admin: String,
    /// The edition of its flag files: equal for files that mean the same.
    pub edition: String,
    /// Whether its files are those of the process that answers.
    pub files: FilesComparison,
    /// The number of the newest flip that it has in force; `null` if its version does not follow those of others.
    pub newest_flip: Option<u64>,
    /// How far the clock of its machine is ahead of the store's, in milliseconds; `null` if that is not measured.
    pub clock_ahead_ms: Option<i64>,
    /// How long it counts as alive unless it renews its lease, in milliseconds; `null` where processes have no leases,
    /// because the store belongs to one process.
    pub lease_left_ms: Option<u64>,
}

/// Whether a process has the flag files of the one that answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FilesComparison {
    /// It has the same.
    Same,
    /// It has others.
    Other,
    /// It does not say.
    Unknown,
}

impl FilesComparison {
    /// All.
    pub const ALL: [Self; 3] = [Self::Same, Self::Other, Self::Unknown];
    /// The name in the API and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Other => "other",
            Self::Unknown => "unknown",
        }
    }
}
