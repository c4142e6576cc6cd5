//! The processes that share the evidence, as one of them sees them.

use std::collections::BTreeMap;
use std::time::Instant;

use jiff::Timestamp;
use uuid::Uuid;

use crate::clock;
use crate::names::{RouteId, WorkerId};
use crate::store::EvidenceVersion;

/// This process, and which others live.
pub(super) struct SharingProcesses {
    pub(super) own: WorkerId,
    pub(super) name: String,
    /// By process with a share that is not alive: since when this was seen.
    pub(super) missing: BTreeMap<WorkerId, Instant>,
    /// No other process lives, as far as is known.
    pub(super) is_alone: bool,
    /// The rows have what this process had counted by then, and this process what they had.
    pub(super) exchanged_until: Timestamp,
    /// Rows that no route has here, as they were read.
    pub(super) unowned: BTreeMap<RouteId, EvidenceVersion>,
}

impl Default for SharingProcesses {
    /// A process that writes before it has joined the others.
    fn default() -> Self {
        Self::of(WorkerId(Uuid::from_u128(fastrand::u128(..))), String::new())
    }
}

impl SharingProcesses {
    pub(super) fn of(own: WorkerId, name: String) -> Self {
        let (missing, unowned) = Default::default();
        Self { own, name, missing, is_alone: false, exchanged_until: clock::now(), unowned }
    }
}
