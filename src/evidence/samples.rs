//! Samples that wait to be written.
//!
//! Always true: bounded in number; of one route and fingerprint no more wait than the store would keep.

use crate::limits::Limits;
use crate::names::RouteId;
use crate::store::{SampleRecord, Store, StoreError};

/// Samples waiting for the store, all routes together.
const WAITING_MAX: usize = 512;

/// A change of what the store keeps, before the samples that wait are put there.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Change {
    /// The samples of a route belong to evidence that is no more.
    Clear(RouteId),
    /// The samples of one route are another's now: the route has another id.
    Move { from: RouteId, to: RouteId },
}

impl Change {
    fn concerns(&self, route: &RouteId) -> bool {
        match self {
            Self::Clear(cleared) => cleared == route,
            Self::Move { from, to } => from == route || to == route,
        }
    }
}

/// What waits for the store beside the evidence itself.
#[derive(Default)]
pub(super) struct Waiting {
    /// In this order.
    pub(super) changes: Vec<Change>,
    pub(super) samples: Vec<SampleRecord>,
}

impl Waiting {
    pub(super) fn wants(&self, route: &RouteId, fingerprint: &str, limits: &Limits) -> bool {
        let same = self.samples.iter().filter(|s| s.route == *route && s.fingerprint == fingerprint).count();
        self.samples.len() < WAITING_MAX && (same as u64) < limits.samples_per_fingerprint_max
    }
    pub(super) fn push(&mut self, sample: SampleRecord) {
        self.samples.push(sample);
    }
    /// The evidence of a route starts anew: what it rested on goes.
    pub(super) fn clear(&mut self, route: &RouteId) {
        self.samples.retain(|s| s.route != *route);
        self.change(Change::Clear(route.clone()), route);
    }
    /// A route has another id now.
    pub(super) fn move_to(&mut self, from: &RouteId, to: &RouteId) {
        self.samples.iter_mut().filter(|s| s.route == *from).for_each(|s| s.route = to.clone());
        self.change(Change::Move { from: from.clone(), to: to.clone() }, to);
    }
    /// Notes a change, unless the last one of the route is the same.
    fn change(&mut self, change: Change, route: &RouteId) {
        if self.changes.iter().rev().find(|other| other.concerns(route)) != Some(&change) {
            self.changes.push(change);
        }
    }
    /// Takes everything, to be written.
    pub(super) fn take(&mut self) -> Self {
        std::mem::take(self)
    }
    /// Puts back what could not be written, in front of what came meanwhile.
    pub(super) fn put_back(&mut self, Self { mut changes, samples }: Self) {
        for mut sample in samples {
            // What was changed meanwhile concerns these too.
            let mut is_wanted = self.samples.len() < WAITING_MAX;
            for change in &self.changes {
                match change {
                    Change::Clear(route) => is_wanted &= sample.route != *route,
                    Change::Move { from, to } if sample.route == *from => sample.route = to.clone(),
                    Change::Move { .. } => {}
                }
            }
            if is_wanted {
                self.samples.push(sample);
            }
        }
        changes.append(&mut self.changes);
        self.changes = changes;
    }
    /// Writes all of it.
    pub(super) async fn write(&self, store: &dyn Store, limits: &Limits) -> Result<(), StoreError> {
        for change in &self.changes {
            match change {
                Change::Clear(route) => store.clear_samples(route.clone()).await?,
                Change::Move { from, to } => move_samples(store, from, to, limits).await?,
            }
        }
        put_samples(store, self.samples.clone(), limits).await
    }
}

/// Gives stored samples to another route. Done twice, it has the same result.
async fn move_samples(store: &dyn Store, from: &RouteId, to: &RouteId, limits: &Limits) -> Result<(), StoreError> {
    let kept = size(limits.samples_per_fingerprint_max.saturating_mul(limits.fingerprints_per_route_max));
    let mut samples = store.samples(from.clone(), kept).await?;
    if samples.is_empty() {
        return Ok(());
    }
    let there = store.samples(to.clone(), kept).await?;
    samples.iter_mut().for_each(|sample| sample.route = to.clone());
    samples.retain(|sample| !there.contains(sample));
    samples.reverse(); // the oldest first, as they were kept
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
