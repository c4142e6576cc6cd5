//! The lease under which this process owns runs in a shared store, as far as this process knows.
//!
//! Always true: appends are guarded by fencing tokens, and the lease only keeps other processes from taking runs that
//! this process executes. Private and shared calls, which no token guards, need a [`LeaseProof`]: a call is sent only
//! where the lease certainly did not run out between the append of its `StepStarted` and the sending. Times are those
//! of the steady clock, which counts the machine's sleep: the database's clock goes on meanwhile.
//!
//! When renewals fail for the duration of the lease, other processes take the runs. Then the store refuses this
//! process's appends, and this process sends no private or shared call.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::Moment;

/// The lease of this process.
pub(in crate::engine) struct Lease {
    /// `None` where no other process uses the store: the lease never runs out.
    duration: Option<Duration>,
    state: Mutex<LeaseState>,
}

#[derive(Default)]
struct LeaseState {
    /// The number of the present tenure: a new one begins each time the lease may have run out.
    tenure: u64,
    /// When the last successful renewal was sent.
    renewal_sent: Option<Moment>,
}

impl Lease {
    /// A lease that has not been acquired yet.
    pub fn new(duration: Option<Duration>) -> Arc<Self> {
        Arc::new(Self { duration, state: Mutex::default() })
    }
    fn state(&self) -> MutexGuard<'_, LeaseState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Records that a renewal, which was sent at this time, has succeeded.
    pub fn record_renewal(&self, sent_at: Moment) {
        let Some(duration) = self.duration else { return };
        let mut state = self.state();
        // The store may have received the renewal only now, after the lease had run out.
        if state.renewal_sent.is_none_or(|before| before.elapsed() >= duration) {
            state.tenure += 1;
        }
        state.renewal_sent = Some(sent_at);
    }
    /// The number of the present tenure, if the lease certainly has not run out.
    pub fn tenure(self: &Arc<Self>) -> Option<u64> {
        let proof = self.proof();
        proof.is_valid().then_some(proof.tenure)
    }
    /// Sets the state as if the lease had run out.
    #[cfg(test)]
    pub fn lapse(&self) {
        self.state().tenure += 1;
    }
    /// A proof for an append or acquisition that the store accepts after this call. It has to be taken before the
    /// request to the store, because the lease may run out while the answer is on its way.
    pub fn proof(self: &Arc<Self>) -> LeaseProof {
        LeaseProof { lease: self.clone(), tenure: self.state().tenure }
    }
}

/// Proves that this process has owned a run without interruption since the store last accepted an append or an
/// acquisition of the run.
#[derive(Clone)]
pub(in crate::engine) struct LeaseProof {
    lease: Arc<Lease>,
    tenure: u64,
}

impl LeaseProof {
    /// Whether it is certain that no other process has taken the run since that append or acquisition.
    pub fn is_valid(&self) -> bool {
        let Some(duration) = self.lease.duration else { return true };
        let state = self.lease.state();
        state.tenure == self.tenure && state.renewal_sent.is_some_and(|sent_at| sent_at.elapsed() < duration)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn begin_simulation() {
        crate::clock::simulated::begin("2026-03-01T12:00:00Z".parse().unwrap());
    }

    /// Timers and the monotonic clock stand still while the machine sleeps, and other processes take its runs.
    #[tokio::test(start_paused = true)]
    async fn a_lease_runs_out_while_the_machine_sleeps() {
        begin_simulation();
        let lease = Lease::new(Some(s(10)));
        lease.record_renewal(Moment::now());
        let proof = lease.proof();
        crate::clock::simulated::suspend_machine(s(9));
        assert!(proof.is_valid());
        crate::clock::simulated::suspend_machine(s(2));
        assert!(!proof.is_valid());
        crate::clock::simulated::end();
    }

    #[tokio::test(start_paused = true)]
    async fn a_proof_stays_invalid_once_the_lease_may_have_run_out() {
        begin_simulation();
        let lease = Lease::new(Some(s(10)));
        assert!(!lease.proof().is_valid(), "the lease was never acquired");
        lease.record_renewal(Moment::now());
        let first = lease.proof();
        tokio::time::sleep(s(9)).await;
        assert!(first.is_valid());
        let sent_at = Moment::now();
        tokio::time::sleep(s(2)).await;
        assert!(!first.is_valid(), "the renewal is still unanswered");
        lease.record_renewal(sent_at);
        assert!(!first.is_valid(), "the store may have received it too late, and others may have taken the run");
        let second = lease.proof();
        assert!(second.is_valid(), "it was taken after the renewal");
        lease.record_renewal(Moment::now());
        tokio::time::sleep(s(9)).await;
        lease.record_renewal(Moment::now());
        tokio::time::sleep(s(9)).await;
        assert!(second.is_valid(), "each renewal came in time");
        tokio::time::sleep(s(1)).await;
        assert!(!second.is_valid());
        assert!(Lease::new(None).proof().is_valid(), "no other process exists");
        crate::clock::simulated::end();
    }
}
