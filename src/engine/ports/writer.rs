//! The port through which a run's events go to the store.
//!
//! Always true: a run's plan and the key to its credentials are in the store before its first event; pins are known to
//! this process before the machine gets the result of their append; a private or shared call carries the lease proof of
//! the last acknowledged append. While a commit of the store has stalled, the first append of a run is refused before
//! anything of it is handed over. `machine` decides what the outcome of an append means for the run.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::affinity::{PinsVersion, StoreAffinity};
use crate::engine::ports::event_sealer::EventSealer;
use crate::engine::scheduler::lease::{Lease, LeaseProof};
use crate::engine::scheduler::run_snapshots::RunSnapshots;
use crate::flag::PinKey;
use crate::names::{PlanId, RunId, Seq};
use crate::store::{Append, AppendConflict, AppendError, NewPin, StoreHandle, stall_text};
use crate::workflow::Plan;

const KNOWN_PLANS_MAX: usize = 1_024;

/// Plans that the store is known to have.
#[derive(Clone, Default)]
pub(in crate::engine) struct KnownPlans(Arc<Mutex<HashSet<PlanId>>>);

impl KnownPlans {
    fn has(&self, id: &PlanId) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(id)
    }
    fn insert(&self, id: &PlanId) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KNOWN_PLANS_MAX {
            known.clear(); // the plans are only stored again, which changes nothing
        }
        known.insert(id.clone());
    }
}

/// The parts that every append of a run needs.
#[derive(Clone)]
pub(in crate::engine) struct WriterParts {
    pub store: StoreHandle,
    /// Learns of new pins before the answer is sent.
    pub affinity: Arc<StoreAffinity>,
    pub plans: KnownPlans,
    pub plan: Arc<Plan>,
    /// Opens the run's sealed credentials.
    pub run_key: Option<Vec<u8>>,
    pub lease: Arc<Lease>,
    /// Learns of stored appends.
    pub snapshots: Arc<RunSnapshots>,
    /// Seals the run's sensitive values.
    pub sealer: EventSealer,
}

/// Writes the events of one run: one append at a time.
pub(in crate::engine) struct Writer {
    parts: WriterParts,
    in_flight: Option<BoxFuture<'static, Result<(), AppendError>>>,
    pins: Vec<NewPin>,
    /// Taken before the first try of the append in flight.
    pins_version: Option<PinsVersion>,
    run: Option<RunId>,
    /// The append in flight.
    appending: Option<Arc<Append>>,
    /// The last acknowledged append, until it is taken.
    stored: Option<Arc<Append>>,
    /// The proof, from the last acknowledged append or from the acquisition, that this process owns the run.
    lease_proof: LeaseProof,
    /// The proof that replaces `lease_proof` when the append in flight is acknowledged.
    next_lease_proof: Option<LeaseProof>,
}

impl Writer {
    /// `lease_proof` is that of the run's acquisition; `None` for a new run.
    pub fn new(parts: WriterParts, lease_proof: Option<LeaseProof>) -> Self {
        let lease_proof = lease_proof.unwrap_or_else(|| parts.lease.proof());
        Self {
            parts,
            in_flight: None,
            pins: Vec::new(),
            pins_version: None,
            run: None,
            appending: None,
            stored: None,
            lease_proof,
            next_lease_proof: None,
        }
    }
    /// The proof that this process owns the run.
    pub fn lease_proof(&self) -> LeaseProof {
        self.lease_proof.clone()
    }
    /// Begins an append, after a pause.
    pub fn begin_append(&mut self, append: Arc<Append>, pause: Duration) {
        self.run = Some(append.run_id);
        self.pins.clone_from(&append.pins);
        if !self.pins.is_empty() {
            self.pins_version.get_or_insert_with(|| self.parts.affinity.pins_version());
        }
        if pause.is_zero() {
            self.next_lease_proof = Some(self.parts.lease.proof());
        }
        let sealed = self.parts.sealer.seal(append);
        self.appending.clone_from(&sealed); // subscribers get the append as it is stored: sealed
        self.in_flight = Some(match sealed {
            Some(append) => perform(self.parts.clone(), append, pause),
            None => Box::pin(std::future::ready(Err(AppendError::Refused(
                "sensitive values cannot be sealed: there is no store_key, or no randomness".into(),
            )))),
        });
    }
    /// The result of the append in flight; waits for ever where there is none. The returned future may be dropped and
    /// requested again without losing the result.
    pub async fn finished(&mut self) -> Result<(), AppendError> {
        let Some(future) = &mut self.in_flight else { return std::future::pending().await };
        let result = future.await;
        self.in_flight = None;
        let append = self.appending.take();
        if result.is_ok() {
            if let Some(append) = append.as_ref().filter(|_| !self.parts.sealer.is_active()) {
                self.parts.snapshots.request_if_due(append);
            }
            self.stored = append;
            if let Some(lease_proof) = self.next_lease_proof.take() {
                self.lease_proof = lease_proof;
            }
            let pins = std::mem::take(&mut self.pins);
            if let (Some(run), Some(before)) = (self.run, self.pins_version.take()) {
                pins.iter().for_each(|pin| self.parts.affinity.record_pin(pin, run, before));
            }
        }
        result
    }
    /// Takes the append that was acknowledged last.
    pub fn take_stored(&mut self) -> Option<Arc<Append>> {
        self.stored.take()
    }
    /// Reports that the id of the run's new instance belongs to the other arm.
    pub fn report_collision(&self, key: &PinKey, run: RunId) {
        self.parts.affinity.record_collision(key, run);
    }
}

fn perform(parts: WriterParts, append: Arc<Append>, pause: Duration) -> BoxFuture<'static, Result<(), AppendError>> {
    Box::pin(async move {
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        // Nothing of the run was handed to the store, so the machine may still give the request back. If this repeats
        // an append whose outcome is unknown, the machine repeats it once more after this error, as after any other.
        if append.first == Seq::FIRST
            && let Some(age) = parts.store.stalled_for()
        {
            return Err(AppendError::Refused(stall_text(age)));
        }
        let WriterParts { store, affinity: _, plans, plan, run_key, lease: _, snapshots: _, sealer: _ } = parts;
        if !plans.has(&plan.id) {
            let put = store.put_plan(plan.id.clone(), (*plan.source).clone()).await;
            put.map_err(|error| AppendError::Refused(format!("the plan was not stored: {error}")))?;
            plans.insert(&plan.id);
        }
        let (run, first) = (append.run_id, append.first);
        let Some(key) = run_key.filter(|_| first == Seq::FIRST) else { return store.append(append).await };
        let put = store.put_run_key(run, Some(key)).await;
        put.map_err(|error| AppendError::Refused(format!("the run's key was not stored: {error}")))?;
        let result = store.append(append).await;
        let is_certainly_not_created = match &result {
            // An earlier try may have had an outcome that is not known: then the run may exist, and needs its key.
            Err(AppendError::Refused(_)) => pause.is_zero(),
            Err(AppendError::LeaseOver(_)) => true,
            Err(AppendError::Conflict(conflict)) => {
                matches!(conflict, AppendConflict::Claim { .. } | AppendConflict::LegacyClaim)
            }
            Err(AppendError::Unavailable(_) | AppendError::Fenced(_)) | Ok(_) => false,
        };
        if is_certainly_not_created && let Err(error) = store.put_run_key(run, None).await {
            tracing::debug!(%run, %error, "the key of a run that was not created stays in the store: it opens nothing");
        }
        result
    })
}
