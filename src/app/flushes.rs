//! What is written at the end of a process: each within a bounded time, with a log line that says what was lost.

use std::time::Duration;

use super::opened_store::LockedFiles;
use super::parts::Parts;
use crate::limits::Limits;

/// How long the store may take to end the lease.
const DEREGISTER_WITHIN: Duration = Duration::from_secs(2);

impl Parts {
    /// Drains the shadow queue and the engine's runs, then writes what is still only in memory: retry keys, evidence,
    /// flips that lowered a route, the freeze. Returns until when
    /// [`Ladder::end_freezes`](crate::ladder::Ladder::end_freezes) may wait for the store.
    pub async fn drain(&self, limits: &Limits) -> tokio::time::Instant {
        self.ladder.log_unrecorded();
        self.shadow.drain(Limits::ms(limits.shadow_drain_ms)).await;
        self.engine.drain(Limits::ms(limits.drain_ms)).await;
        let within = Limits::ms(limits.drain_ms);
        let until = tokio::time::Instant::now() + within;
        // Concurrently, so that a store that does not answer delays the end by the longest of these times, not by their
        // sum.
        let (has_all_keys, ..) = tokio::join!(
            self.flush_keys(within),
            self.finish_collision_checks(within),
            self.flush_instances(within),
            self.flush_evidence(within),
            self.flush_captures(within),
            self.ladder.end_moves(within)
        );
        // Calls that end later were noted when they began.
        let _ = tokio::time::timeout_at(until, self.caller_notes.finish()).await;
        // After the last moves. The next process adds the entries that are not written in time.
        let _ = tokio::time::timeout_at(until, self.recorder.catch_up()).await;
        self.deregister(has_all_keys).await;
        until
    }

    /// Called after [`Parts::drain`]: closes the store and the files beside it, so that another process can open them.
    /// Returns whether they were closed in time.
    pub async fn release(&self, limits: &Limits) -> bool {
        let (store, evidence, affinity) = (self.store.clone(), self.evidence.clone(), self.affinity.clone());
        LockedFiles { store, evidence, affinity }.release(limits).await
    }

    pub(super) async fn finish_collision_checks(&self, within: Duration) {
        if tokio::time::timeout(within, self.affinity.finish_collision_checks()).await.is_err() {
            tracing::error!(
                "the store does not answer: whether the engine owns the last ids that legacy gave out was not checked, \
                 or the last pin collisions were not written. One may go unnoticed, and the engine may create \
                 instances of its family after the restart"
            );
        }
    }

    pub(super) async fn flush_instances(&self, within: Duration) {
        if !matches!(tokio::time::timeout(within, self.affinity.instances().refresh(None)).await, Ok(Ok(()))) {
            tracing::error!(
                "the store does not answer: the last instances that requests have shown at legacy, and those that have \
                 ended, were not written"
            );
        }
    }

    /// Returns whether the store has all that the retries of this process's requests need.
    pub(super) async fn flush_keys(&self, within: Duration) -> bool {
        let until = tokio::time::Instant::now() + within;
        if tokio::time::timeout_at(until, self.affinity.flush()).await.is_err() {
            tracing::error!(
                "the store or the disk does not answer: the last retry keys that legacy took may not be in the store, and \
                 stay in the file of retry keys"
            );
        }
        let finished = tokio::time::timeout_at(until, self.affinity.finish_key_file()).await;
        if finished.is_err() {
            tracing::warn!(
                "the store or the disk does not answer: the store still lists the file of retry keys of this process as one that may have keys"
            );
        }
        let lost = self.affinity.unwritten_keys();
        if lost > 0 {
            tracing::error!(
                lost,
                "retry keys of requests that legacy took were not written, because the disk hangs: after the restart \
                 their retries are taken for first tries. Do not flip their routes to `live` before `retry_window_s` is over"
            );
        }
        finished == Ok(true) && lost == 0
    }

    /// Deregisters this process from a shared store, which ends its lease. Does not deregister if retries may come
    /// whose keys the store does not have: then the other processes name this one, and no route goes up to `live`,
    /// until a process takes over its file of retry keys.
    pub(super) async fn deregister(&self, has_all_keys: bool) {
        if !self.store.is_shared() {
            return;
        }
        if !has_all_keys {
            tracing::warn!(
                "this process ends without deregistering in the shared store, because the store does not know all \
                 requests that legacy served here: until a process takes over its file of retry keys, the other \
                 processes open no gate to `live`"
            );
            return;
        }
        match tokio::time::timeout(DEREGISTER_WITHIN, self.store.deregister(self.engine.worker())).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(%error, "the lease was not given up: other processes wait until it is over");
            }
            Err(_) => tracing::warn!("the lease was not given up in time: other processes wait until it is over"),
        }
    }

    pub(super) async fn flush_captures(&self, within: Duration) {
        if !matches!(tokio::time::timeout(within, self.captures.flush()).await, Ok(Ok(()))) {
            tracing::warn!("the store does not answer: the last captures were not written and are lost");
        }
    }

    pub(super) async fn flush_evidence(&self, within: Duration) {
        self.uncompared_calls.iter().for_each(|calls| calls.update_evidence());
        self.evidence.leave();
        match tokio::time::timeout(within, self.evidence.flush()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::error!(%error, "the last evidence was not written: pairs since the last write are lost")
            }
            Err(_) => tracing::error!(
                "the last evidence was not written, because the store does not answer: pairs since the last write are lost"
            ),
        }
    }
}
