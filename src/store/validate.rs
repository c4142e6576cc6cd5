//! Decides which appends of a batch may be written, given the stored rows.
//!
//! Always true: each append is checked against what is stored *and* what the appends before it in the batch will write,
//! so that all that pass can be written in one transaction. An invalid append is rejected alone.

use std::collections::HashMap;

use uuid::Uuid;

use super::encoded::EncodedAppend;
use crate::flag::{Arm, PinKey, RetryKey};
use crate::names::{Fence, RunId, Seq};
use crate::store::{AppendConflict, AppendError, NewPin};

/// The stored rows that a batch may conflict with.
#[derive(Default)]
pub(super) struct StoredState {
    /// The last seq and the fencing token of each run. `None` if they were not read, because the schema checks them.
    pub(super) heads: Option<HashMap<RunId, (u64, Fence)>>,
    /// The batch id of the append that holds the event with this seq.
    pub(super) batches: HashMap<(RunId, u64), Uuid>,
    /// First tries whose keys are still bound to an arm ([`super::bound_keys`]).
    pub(super) claims: HashMap<RetryKey, FirstTryHolder>,
    pub(super) pins: HashMap<PinKey, StoredPin>,
}

/// A stored pin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StoredPin {
    /// The arm that owns the instance.
    pub(super) arm: Arm,
    pub(super) run: Option<RunId>,
    /// Whether the engine adopts, or has adopted, an instance that legacy made.
    pub(super) is_adopted: bool,
}

impl StoredPin {
    /// The arm that gave out the id.
    pub(super) fn made_by(self) -> Arm {
        if self.is_adopted { Arm::Legacy } else { self.arm }
    }
}

/// Who took a first try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FirstTryHolder {
    Legacy,
    /// This run; with the hash of its request, if that is known.
    Run(RunId, Option<[u8; 32]>),
}

/// What the writer does with an append.
#[derive(Debug, PartialEq)]
pub(super) enum AppendDecision {
    /// It is written, with those of its pins that are not stored.
    Write(Vec<NewPin>),
    /// It is stored, or equal to another append of the batch: acknowledged with the commit.
    AlreadyStored,
    /// It is not written.
    Reject(AppendError),
}

/// Decides on each append of a batch, in order.
pub(super) fn validate_batch(appends: &[EncodedAppend], mut stored: StoredState) -> Vec<AppendDecision> {
    appends.iter().map(|append| validate_one(append, &mut stored)).collect()
}

fn validate_one(append: &EncodedAppend, stored: &mut StoredState) -> AppendDecision {
    if let Some(heads) = &stored.heads {
        if stored.batches.get(&(append.run_id, append.first)) == Some(&append.batch) {
            return AppendDecision::AlreadyStored;
        }
        let (last_seq, fence) = heads.get(&append.run_id).copied().unwrap_or((0, append.fence));
        if append.fence != fence {
            return AppendDecision::Reject(AppendError::Fenced(append.run_id));
        }
        if append.first != last_seq + 1 {
            return AppendDecision::Reject(AppendError::Conflict(AppendConflict::Seq { stored: Seq(last_seq) }));
        }
    }
    for (claim, key) in append.claim.iter().flat_map(|claim| claim.keys().map(move |key| (claim, key))) {
        match stored.claims.get(&key) {
            Some(FirstTryHolder::Legacy) => {
                return AppendDecision::Reject(AppendError::Conflict(AppendConflict::LegacyClaim));
            }
            Some(FirstTryHolder::Run(run, request)) if *run != append.run_id => {
                let request = claim.compare(key, *request);
                return AppendDecision::Reject(AppendError::Conflict(AppendConflict::Claim { run: *run, request }));
            }
            Some(FirstTryHolder::Run(..)) | None => {}
        }
    }
    let legacy_keys = append.claim.iter().flat_map(|claim| claim.legacy_keys).flatten();
    if legacy_keys.into_iter().any(|key| stored.claims.get(&key) == Some(&FirstTryHolder::Legacy)) {
        return AppendDecision::Reject(AppendError::Conflict(AppendConflict::LegacyClaim));
    }
    let mut new_pins: HashMap<PinKey, Arm> = HashMap::new();
    for pin in &append.original.pins {
        let other = match stored.pins.get(&pin.key) {
            Some(other) if other.arm == pin.arm && other.run == Some(append.run_id) => None,
            Some(other) => Some((other.arm, other.made_by())),
            None => new_pins.insert(pin.key.clone(), pin.arm).filter(|arm| *arm != pin.arm).map(|arm| (arm, arm)),
        };
        if let Some((owner, made_by)) = other {
            let conflict = AppendConflict::Pin { key: pin.key.clone(), owner, made_by };
            return AppendDecision::Reject(AppendError::Conflict(conflict));
        }
    }

    let new_pins: Vec<NewPin> =
        append.original.pins.iter().filter(|pin| new_pins.remove(&pin.key).is_some()).cloned().collect();
    for pin in &new_pins {
        let added = StoredPin { arm: pin.arm, run: Some(append.run_id), is_adopted: false };
        stored.pins.insert(pin.key.clone(), added);
    }
    if let Some(claim) = &append.claim {
        for key in claim.keys() {
            stored.claims.entry(key).or_insert(FirstTryHolder::Run(append.run_id, Some(claim.request)));
        }
    }
    if let Some(heads) = &mut stored.heads {
        heads.insert(append.run_id, (append.last(), append.fence));
        stored.batches.extend((append.first..=append.last()).map(|seq| ((append.run_id, seq), append.batch)));
    }
    AppendDecision::Write(new_pins)
}
