//! Writes evidence and samples to the store, in the background.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::Evidence;
use super::marks::UncountedDifference;
use crate::clock;
use crate::names::RouteId;
use crate::store::{EvidenceRecord, RepeatedFailures, StoreError};

/// How long a difference that other processes should know of waits to be written, so that many are written together.
const SOON: Duration = Duration::from_millis(100);

impl Evidence {
    /// Writes what changed since the last flush.
    ///
    /// # Errors
    /// The store does not answer. Nothing is lost: the next flush tries again.
    pub async fn flush(self: &Arc<Self>) -> Result<(), StoreError> {
        // A task of its own: if the caller goes away meanwhile, what is not written yet must not be dropped.
        let one_at_a_time = self.flushing.clone().lock_owned().await;
        let evidence = self.clone();
        let write = async move {
            let written = evidence.write_changes().await;
            drop(one_at_a_time);
            written
        };
        let flushed = tokio::spawn(write).await;
        flushed.unwrap_or_else(|error| Err(StoreError(error.to_string())))
    }

    /// Unlocks the file of marks, so that another process can use it. To be called at the end of a process: nothing is
    /// marked afterwards.
    pub async fn release_marks(&self) {
        self.marks.release().await;
    }

    /// Writes the pending samples. The stored samples of the routes in `cleared` are not removed first: they are
    /// removed already.
    pub(super) async fn write_samples(&self, cleared: &BTreeSet<RouteId>) -> Result<(), StoreError> {
        let mut pending = self.pending().take();
        pending.skip_clearing(cleared);
        let written = pending.write(&*self.store, &self.limits).await;
        if written.is_err() {
            self.pending().put_back(pending);
        }
        written
    }

    async fn write_changes(&self) -> Result<(), StoreError> {
        if let Some(shared) = self.store.shared_evidence() {
            return self.write_shared(shared).await;
        }
        let clearable = self.marks.clearable();
        self.write_samples(&BTreeSet::new()).await?;
        let mut rows = Vec::new();
        let mut written = BTreeMap::new();
        for (route, shared) in self.all() {
            let mut counters = shared.lock();
            if !std::mem::take(&mut counters.dirty) {
                continue;
            }
            let stored = counters.to_stored();
            drop(counters);
            let value = serde_json::to_value(stored).map_err(|e| StoreError(e.to_string()))?;
            rows.push(EvidenceRecord { route: route.clone(), at: clock::now(), value });
            written.insert(route, shared);
        }
        let outcome = if rows.is_empty() { Ok(()) } else { self.store.put_evidence(rows).await };
        match outcome {
            // Everything that was counted when `clearable` was taken is stored now.
            Ok(()) => {
                self.marks.clear(clearable).await;
                for shared in written.values() {
                    shared.lock().stored_under.retain(|id| !written.contains_key(id));
                }
            }
            Err(_) => written.values().for_each(|shared| shared.lock().dirty = true),
        }
        outcome
    }

    /// Flushes at an interval, and soon after a difference, until the task is aborted. Calls `before` before each
    /// flush. Whoever aborts the task flushes once more.
    pub async fn write_behind(self: Arc<Self>, every: Duration, before: impl Fn()) {
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let failures = RepeatedFailures::default();
        loop {
            let soon = async {
                self.difference_signal.notified().await;
                tokio::time::sleep(SOON).await;
            };
            tokio::select! {
                _ = ticks.tick() => {}
                () = soon => {}
            }
            before();
            if let Err(error) = self.flush().await
                && let Some(unlogged) = failures.count(&error.0)
            {
                tracing::warn!(%error, unlogged, "evidence is not written yet; it is kept in memory and written at the next flush");
            }
        }
    }

    /// Marks a route, also under the earlier ids under which the store may still have its evidence.
    pub(super) fn mark(&self, route: &RouteId) -> Vec<UncountedDifference<'_>> {
        if self.store.shared_evidence().is_some() {
            self.difference_signal.notify_one();
        }
        let (stored_under, row) = {
            let shared = self.counters(route);
            let counters = shared.lock();
            (counters.stored_under.clone(), counters.row_id().cloned())
        };
        let ids = stored_under.into_iter().chain(row).chain([self.current_id(route)]);
        ids.map(|id| self.marks.mark(&id)).collect()
    }
}
