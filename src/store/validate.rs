//! Which appends of a batch may be written, given what is stored.
//!
//! Always true: appends are judged in their order, each against what is stored *and* what the ones before it will
//! write, so that those that pass can be written together without breaking a rule. One bad append fails alone.

use std::collections::HashMap;

use uuid::Uuid;

use super::encoded::EncodedAppend;
use crate::flag::{Arm, PinKey, RetryKey};
use crate::names::{Fence, RunId, Seq};
use crate::store::{AppendError, Conflict, NewPin};

/// What is stored of all that a batch touches.
#[derive(Default)]
pub(super) struct StoredState {
    /// The last seq of each run and its owner's number; `None` where nobody looked: the schema will say.
    pub(super) heads: Option<HashMap<RunId, (u64, Fence)>>,
    /// The batch of the append that brought the event at a place.
    pub(super) batches: HashMap<(RunId, u64), Uuid>,
    /// Retry keys within their window.
    pub(super) claims: HashMap<RetryKey, (RunId, Option<[u8; 32]>)>,
    /// Pins.
    pub(super) pins: HashMap<PinKey, (Arm, Option<RunId>)>,
}

/// What becomes of an append.
#[derive(Debug, PartialEq)]
pub(super) enum AppendOutcome {
    /// Written, with those of its pins that do not stand already.
    Write(Vec<NewPin>),
    /// Stored already, or written by an equal one of this batch: acknowledged with the commit.
    AlreadyStored,
    /// Not written.
    Reject(AppendError),
}

/// Judges a batch in order.
pub(super) fn validate_batch(appends: &[EncodedAppend], mut stored: StoredState) -> Vec<AppendOutcome> {
    appends.iter().map(|append| validate_one(append, &mut stored)).collect()
}

fn validate_one(append: &EncodedAppend, stored: &mut StoredState) -> AppendOutcome {
    if let Some(heads) = &stored.heads {
        if stored.batches.get(&(append.run_id, append.first)) == Some(&append.batch) {
            return AppendOutcome::AlreadyStored;
        }
        let (stored, fence) = heads.get(&append.run_id).copied().unwrap_or((0, append.fence));
        if append.fence != fence {
            return AppendOutcome::Reject(AppendError::Fenced(append.run_id));
        }
        if append.first != stored + 1 {
            return AppendOutcome::Reject(AppendError::Conflict(Conflict::Seq { stored: Seq(stored) }));
        }
    }
    if let Some((claim, key, (run, request))) = append.claim.as_ref().and_then(|claim| {
        let held =
            |key| stored.claims.get(&key).filter(|(run, _)| *run != append.run_id).map(|held| (claim, key, held));
        claim.keys().find_map(held)
    }) {
        // Another caller's answer is nobody else's.
        let same_request = key == claim.key && *request == Some(claim.request);
        return AppendOutcome::Reject(AppendError::Conflict(Conflict::Claim { run: *run, same_request }));
    }
    let mut fresh: HashMap<PinKey, Arm> = HashMap::new();
    for pin in &append.original.pins {
        let other = match stored.pins.get(&pin.key) {
            Some((arm, run)) => (*arm != pin.arm || *run != Some(append.run_id)).then_some(*arm),
            None => fresh.insert(pin.key.clone(), pin.arm).filter(|arm| *arm != pin.arm),
        };
        if let Some(owner) = other {
            return AppendOutcome::Reject(AppendError::Conflict(Conflict::Pin { key: pin.key.clone(), owner }));
        }
    }

    let fresh: Vec<NewPin> =
        append.original.pins.iter().filter(|pin| fresh.remove(&pin.key).is_some()).cloned().collect();
    for pin in &fresh {
        stored.pins.insert(pin.key.clone(), (pin.arm, Some(append.run_id)));
    }
    if let Some(claim) = &append.claim {
        for key in claim.keys() {
            stored.claims.entry(key).or_insert((append.run_id, Some(claim.request)));
        }
    }
    if let Some(heads) = &mut stored.heads {
        heads.insert(append.run_id, (append.last(), append.fence));
        stored.batches.extend((append.first..=append.last()).map(|seq| ((append.run_id, seq), append.batch)));
    }
    AppendOutcome::Write(fresh)
}
