//! Samples that are not written to the store yet.
//!
//! Always true: their number is bounded, and for one route and fingerprint no more samples are accepted than the store
//! would keep. After a failed write, the samples that are put back may exceed the second bound.

use crate::limits::Limits;
use crate::names::RouteId;
use crate::store::{SampleRecord, Store, StoreError};

/// The most samples, of all routes together, that wait to be written.
const PENDING_SAMPLES_MAX: usize = 512;

/// A change of stored samples, to be written before the pending samples.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum SampleChange {
    /// Deletes the samples of a route, because its evidence started from zero.
    Clear(RouteId),
    /// Moves the samples of a renamed route to its new id.
    Move { from: RouteId, to: RouteId },
}

impl SampleChange {
    fn concerns(&self, route: &RouteId) -> bool {
        match self {
            Self::Clear(cleared) => cleared == route,
            Self::Move { from, to } => from == route || to == route,
        }
    }
}

/// What a flush has to write in addition to the evidence itself.
#[derive(Default)]
pub(super) struct PendingSamples {
    /// The changes, in the order in which they are written.
    pub(super) changes: Vec<SampleChange>,
    pub(super) samples: Vec<SampleRecord>,
}

impl PendingSamples {
    pub(super) fn wants_sample(&self, route: &RouteId, fingerprint: &str, limits: &Limits) -> bool {
        let same = self.samples.iter().filter(|s| s.route == *route && s.fingerprint == fingerprint).count();
        self.samples.len() < PENDING_SAMPLES_MAX && (same as u64) < limits.samples_per_fingerprint_max
    }
    pub(super) fn push(&mut self, sample: SampleRecord) {
        self.samples.push(sample);
    }
    /// Drops the samples of a route and marks the stored ones for deletion.
    pub(super) fn clear(&mut self, route: &RouteId) {
        self.samples.retain(|s| s.route != *route);
        self.add_change(SampleChange::Clear(route.clone()), route);
    }
    /// Moves the samples of a renamed route to its new id.
    pub(super) fn rename(&mut self, from: &RouteId, to: &RouteId) {
        self.samples.iter_mut().filter(|s| s.route == *from).for_each(|s| s.route = to.clone());
        self.add_change(SampleChange::Move { from: from.clone(), to: to.clone() }, to);
    }
    /// Adds a change, unless the last one of the route is the same.
    fn add_change(&mut self, change: SampleChange, route: &RouteId) {
        if self.changes.iter().rev().find(|other| other.concerns(route)) != Some(&change) {
            self.changes.push(change);
        }
    }
    /// Takes all changes and samples, to write them.
    pub(super) fn take(&mut self) -> Self {
        std::mem::take(self)
    }
    /// Puts back what could not be written: its changes in front of those that were added meanwhile, and as many of its
    /// samples as there is room for.
    pub(super) fn put_back(&mut self, Self { mut changes, samples }: Self) {
        for mut sample in samples {
            // Changes added meanwhile apply to these samples too.
            let mut is_wanted = self.samples.len() < PENDING_SAMPLES_MAX;
            for change in &self.changes {
                match change {
                    SampleChange::Clear(route) => is_wanted &= sample.route != *route,
                    SampleChange::Move { from, to } if sample.route == *from => sample.route = to.clone(),
                    SampleChange::Move { .. } => {}
                }
            }
            if is_wanted {
                self.samples.push(sample);
            }
        }
        changes.append(&mut self.changes);
        self.changes = changes;
    }
    /// Writes the changes, then the samples.
    pub(super) async fn write(&self, store: &dyn Store, limits: &Limits) -> Result<(), StoreError> {
        for change in &self.changes {
            match change {
                SampleChange::Clear(route) => store.clear_samples(route.clone()).await?,
                SampleChange::Move { from, to } => move_samples(store, from, to, limits).await?,
            }
        }
        put_samples(store, self.samples.clone(), limits).await
    }
}

/// Moves stored samples to another route. A repeated move has no further effect.
async fn move_samples(store: &dyn Store, from: &RouteId, to: &RouteId, limits: &Limits) -> Result<(), StoreError> {
    let samples_max = size(limits.samples_per_fingerprint_max.saturating_mul(limits.fingerprints_per_route_max));
    let mut samples = store.samples(from.clone(), samples_max).await?;
    if samples.is_empty() {
        return Ok(());
    }
    samples.iter_mut().for_each(|sample| sample.route = to.clone());
    samples.reverse(); // the oldest first, in the order in which they were stored
    put_samples(store, samples, limits).await?;
    store.clear_samples(from.clone()).await
}

async fn put_samples(store: &dyn Store, samples: Vec<SampleRecord>, limits: &Limits) -> Result<(), StoreError> {
    if samples.is_empty() {
        return Ok(());
    }
    let per_fingerprint = size(limits.samples_per_fingerprint_max);
    store.put_samples(samples, per_fingerprint, size(limits.fingerprints_per_route_max)).await
}

fn size(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}
