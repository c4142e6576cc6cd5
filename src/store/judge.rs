//! Which appends of a batch may be written, given what is stored.
//!
//! Always true: appends are judged in their order, each against what is stored *and* what the ones before it will
//! write, so that those that pass can be written together without breaking a rule. One bad append fails alone.

use std::collections::HashMap;

use uuid::Uuid;

use super::job::Job;
use crate::flag::{Arm, PinKey, RetryKey};
use crate::names::{Fence, RunId, Seq};
use crate::store::{AppendError, Conflict, NewPin};

/// What is stored of all that a batch touches.
#[derive(Default)]
pub(super) struct Known {
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
pub(super) enum Fate {
    /// Written, with those of its pins that do not stand already.
    Write(Vec<NewPin>),
    /// Stored already, or written by an equal one of this batch: acknowledged with the commit.
    Rides,
    /// Not written.
    Reject(AppendError),
}

/// Judges a batch in order.
pub(super) fn judge(jobs: &[Job], mut known: Known) -> Vec<Fate> {
    jobs.iter().map(|job| one(job, &mut known)).collect()
}

fn one(job: &Job, known: &mut Known) -> Fate {
    if let Some(heads) = &known.heads {
        if known.batches.get(&(job.run_id, job.first)) == Some(&job.batch) {
            return Fate::Rides;
        }
        let (stored, fence) = heads.get(&job.run_id).copied().unwrap_or((0, job.fence));
        if job.fence != fence {
            return Fate::Reject(AppendError::Fenced(job.run_id));
        }
        if job.first != stored + 1 {
            return Fate::Reject(AppendError::Conflict(Conflict::Seq { stored: Seq(stored) }));
        }
    }
    if let Some((claim, key, (run, request))) = job.claim.as_ref().and_then(|claim| {
        let held = |key| known.claims.get(&key).filter(|(run, _)| *run != job.run_id).map(|held| (claim, key, held));
        claim.keys().find_map(held)
    }) {
        // Another caller's answer is nobody else's.
        let same_request = key == claim.key && *request == Some(claim.request);
        return Fate::Reject(AppendError::Conflict(Conflict::Claim { run: *run, same_request }));
    }
    let mut fresh: HashMap<PinKey, Arm> = HashMap::new();
    for pin in &job.append.pins {
        let other = match known.pins.get(&pin.key) {
            Some((arm, run)) => (*arm != pin.arm || *run != Some(job.run_id)).then_some(*arm),
            None => fresh.insert(pin.key.clone(), pin.arm).filter(|arm| *arm != pin.arm),
        };
        if let Some(owner) = other {
            return Fate::Reject(AppendError::Conflict(Conflict::Pin { key: pin.key.clone(), owner }));
        }
    }

    let fresh: Vec<NewPin> = job.append.pins.iter().filter(|pin| fresh.remove(&pin.key).is_some()).cloned().collect();
    for pin in &fresh {
        known.pins.insert(pin.key.clone(), (pin.arm, Some(job.run_id)));
    }
    if let Some(claim) = &job.claim {
        for key in claim.keys() {
            known.claims.entry(key).or_insert((job.run_id, Some(claim.request)));
        }
    }
    if let Some(heads) = &mut known.heads {
        heads.insert(job.run_id, (job.last(), job.fence));
        known.batches.extend((job.first..=job.last()).map(|seq| ((job.run_id, seq), job.batch)));
    }
    Fate::Write(fresh)
}
