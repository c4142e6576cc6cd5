//! The processes that share a store: each keeps a row about itself beside its lease.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::names::WorkerId;

/// What a process says about itself to the others. A field that a newer version adds is ignored, and one that an older
/// version lacks is empty.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProcessRecord {
    /// The name of its machine or container.
    pub host: String,
    /// Its process id there.
    pub pid: u32,
    /// The version of its program.
    pub version: String,
    /// When it started.
    pub started: Timestamp,
    /// The addresses of its proxy.
    pub listen: Vec<String>,
    /// The address of its API and metrics.
    pub admin: String,
    /// The edition of the flag files that it has in force: equal for files that say the same.
    pub edition: String,
    /// How far its machine's clock is ahead of the store's, in milliseconds; `None` as long as that is not measured.
    pub clock_ahead_ms: Option<i64>,
}

/// A process whose lease is not over.
#[derive(Clone, Debug, PartialEq)]
pub struct LivingProcess {
    /// Identifies it in the store.
    pub worker: WorkerId,
    /// Its name, for people.
    pub name: String,
    /// How long its lease lasts unless it renews it, by the store's clock.
    pub lease_left: Duration,
    /// What it says about itself; `None` if it is of a version that says nothing, or has said nothing yet.
    pub record: Option<ProcessRecord>,
}

/// The processes that share a store at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct LivingProcesses {
    /// The store's time.
    pub at: Timestamp,
    /// The processes, in the order of their starts.
    pub processes: Vec<LivingProcess>,
}
