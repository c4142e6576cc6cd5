//! A run that was read from the store, and one that this process may execute.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use crate::engine::files_snapshot::FilesSnapshot;
use crate::engine::ports::event_sealer::EventSealer;
use crate::engine::scheduler::lease::LeaseProof;
use crate::engine::scheduler::mailbox::ExecutionSlot;
use crate::names::Fence;
use crate::workflow::{Plan, Run};

/// A run as it is in the store, with the parts that a driver needs to execute it.
pub(in crate::engine) struct LoadedRun {
    pub run: Run,
    pub last_event_at: Timestamp,
    pub plan: Arc<Plan>,
    pub snapshot: Arc<FilesSnapshot>,
    pub credentials: BTreeMap<String, String>,
    /// Seals its sensitive values.
    pub sealer: EventSealer,
    /// Whether the run was read from its snapshot, without the earlier events.
    pub from_run_snapshot: bool,
}

/// A run that this process has acquired and loaded.
pub(in crate::engine) struct AcquiredRun {
    pub loaded: LoadedRun,
    pub slot: ExecutionSlot,
    pub fence: Fence,
    /// Taken before the run was acquired.
    pub lease_proof: LeaseProof,
}
