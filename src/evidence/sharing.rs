//! The processes that share the evidence, as one of them sees them.

use std::collections::BTreeMap;
use std::time::Instant;

use jiff::Timestamp;
use uuid::Uuid;

use crate::clock;
use crate::names::{RouteId, WorkerId};
use crate::store::EvidenceVersion;

/// This process, and which other processes are alive.
pub(super) struct SharingProcesses {
    pub(super) own: WorkerId,
    pub(super) name: String,
    /// The processes that have a share and are not alive, each with the time since when it has been missing.
    pub(super) missing: BTreeMap<WorkerId, Instant>,
    /// Whether, as far as is known, no other process is alive.
    pub(super) is_alone: bool,
    /// The time of the last exchange; see [`Evidence::exchanged_until`](super::Evidence::exchanged_until).
    pub(super) exchanged_until: Timestamp,
    /// The rows that belong to no route here, each with the version that was read.
    pub(super) unowned: BTreeMap<RouteId, EvidenceVersion>,
}

impl Default for SharingProcesses {
    /// For a process that has not joined the others yet: a random id, and no name.
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
