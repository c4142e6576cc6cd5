//! Samples that are not written to the store yet.
//!
//! Always true: their number is bounded ([`PENDING_SAMPLES_MAX`]). For one route and fingerprint, as many are accepted
//! as the store keeps, and then one a minute, because building a sample takes much longer than comparing. Only the
//! samples that are put back after a failed write may exceed this second bound.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use tokio::time::Instant;

use crate::limits::Limits;
use crate::names::RouteId;
use crate::store::{SampleRecord, Store, StoreError};

/// The most samples, of all routes together, that wait to be written.
const PENDING_SAMPLES_MAX: usize = 512;
/// Once a fingerprint has enough samples: how long after its last one another one is accepted.
const RENEWED_AFTER: Duration = Duration::from_secs(60);
/// For how many fingerprints it is remembered how many samples were accepted. Beyond that, all are forgotten, and more
/// samples are built than needed.
const REMEMBERED_MAX: usize = 4_096;

/// A change of stored samples, to be written before the pending samples.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum SampleChange {
    /// Deletes the samples of a route, because its evidence started from zero.
    Clear(RouteId),
    /// Deletes these samples of a route, because they were judged again. Those that another process has written
    /// meanwhile stay.
    Remove(RouteId, Vec<SampleRecord>),
    /// Moves the samples of a renamed route to its new id.
    Move { from: RouteId, to: RouteId },
}

impl SampleChange {
    fn concerns(&self, route: &RouteId) -> bool {
        match self {
            Self::Clear(cleared) | Self::Remove(cleared, _) => cleared == route,
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
    accepted: AcceptedSamples,
    /// Routes whose stored samples are being judged again and will then be replaced. New samples of these routes are
    /// written only after that.
    held: HashSet<RouteId>,
}

/// By route and fingerprint: how many samples were accepted, and when the last one was.
type AcceptedSamples = HashMap<RouteId, HashMap<String, (u64, Instant)>>;

impl PendingSamples {
    pub(super) fn wants_sample(&self, route: &RouteId, fingerprint: &str, limits: &Limits) -> bool {
        let same = self.samples.iter().filter(|s| s.route == *route && s.fingerprint == fingerprint).count();
        let accepted = self.accepted.get(route).and_then(|of_route| of_route.get(fingerprint));
        let is_enough = |(count, last): &(u64, Instant)| {
            *count >= limits.samples_per_fingerprint_max && last.elapsed() < RENEWED_AFTER
        };
        self.samples.len() < PENDING_SAMPLES_MAX
            && (same as u64) < limits.samples_per_fingerprint_max
            && !accepted.is_some_and(is_enough)
    }
    pub(super) fn push(&mut self, sample: SampleRecord) {
        if self.accepted.values().map(HashMap::len).sum::<usize>() >= REMEMBERED_MAX {
            self.accepted.clear();
        }
        let of_route = self.accepted.entry(sample.route.clone()).or_default();
        let (count, last) = of_route.entry(sample.fingerprint.clone()).or_insert((0, Instant::now()));
        (*count, *last) = (count.saturating_add(1), Instant::now());
        self.samples.push(sample);
    }
    /// Drops the samples of a route and marks the stored ones for deletion.
    pub(super) fn clear(&mut self, route: &RouteId) {
        self.accepted.remove(route);
        self.samples.retain(|s| s.route != *route);
        self.add_change(SampleChange::Clear(route.clone()), route);
    }
    /// Replaces the stored samples that were `read` by these samples, as far as there is room. Pending samples of the
    /// route stay.
    pub(super) fn replace(&mut self, route: &RouteId, read: Vec<SampleRecord>, samples: Vec<SampleRecord>) {
        self.add_change(SampleChange::Remove(route.clone(), read), route);
        let room = PENDING_SAMPLES_MAX.saturating_sub(self.samples.len());
        // The oldest first, as the store keeps the newest of too many.
        samples.into_iter().take(room).rev().for_each(|sample| self.push(sample));
    }
    /// Moves the samples of a renamed route to its new id.
    pub(super) fn rename(&mut self, from: &RouteId, to: &RouteId) {
        self.samples.iter_mut().filter(|s| s.route == *from).for_each(|s| s.route = to.clone());
        if self.held.remove(from) {
            self.held.insert(to.clone());
        }
        if let Some(accepted) = self.accepted.remove(from) {
            self.accepted.insert(to.clone(), accepted);
        }
        self.add_change(SampleChange::Move { from: from.clone(), to: to.clone() }, to);
    }
    /// Adds a change, unless the last one of the route is the same.
    fn add_change(&mut self, change: SampleChange, route: &RouteId) {
        if self.changes.iter().rev().find(|other| other.concerns(route)) != Some(&change) {
            self.changes.push(change);
        }
    }
    /// Sets whether new samples of a route are held back from the store.
    pub(super) fn set_held(&mut self, route: &RouteId, is_held: bool) {
        match is_held {
            true => self.held.insert(route.clone()),
            false => self.held.remove(route),
        };
    }
    /// Takes all changes, and the samples that may be written, to write them.
    pub(super) fn take(&mut self) -> Self {
        let (held, written) = std::mem::take(&mut self.samples).into_iter().partition(|s| self.held.contains(&s.route));
        self.samples = held;
        Self { changes: std::mem::take(&mut self.changes), samples: written, ..Self::default() }
    }
    /// Drops the pending `Clear` changes of these routes: their stored samples are removed already.
    pub(super) fn skip_clearing(&mut self, routes: &BTreeSet<RouteId>) {
        self.changes.retain(|change| !matches!(change, SampleChange::Clear(route) if routes.contains(route)));
    }
    /// Puts back what could not be written: its changes in front of those that were added meanwhile, and as many of its
    /// samples as there is room for.
    pub(super) fn put_back(&mut self, Self { mut changes, samples, .. }: Self) {
        for mut sample in samples {
            // Changes added meanwhile apply to these samples too.
            let mut is_wanted = self.samples.len() < PENDING_SAMPLES_MAX;
            for change in &self.changes {
                match change {
                    SampleChange::Clear(route) => is_wanted &= sample.route != *route,
                    SampleChange::Move { from, to } if sample.route == *from => sample.route = to.clone(),
                    SampleChange::Move { .. } | SampleChange::Remove(..) => {}
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
                SampleChange::Remove(route, read) => remove_samples(store, route, read, limits).await?,
                SampleChange::Move { from, to } => move_samples(store, from, to, limits).await?,
            }
        }
        put_samples(store, self.samples.clone(), limits).await
    }
}

impl Limits {
    /// The most samples that the store keeps of one route.
    pub fn samples_per_route_max(&self) -> usize {
        size(self.samples_per_fingerprint_max.saturating_mul(self.fingerprints_per_route_max))
    }
}

/// Removes these samples of a route; a repetition has no further effect.
async fn remove_samples(
    store: &dyn Store,
    route: &RouteId,
    read: &[SampleRecord],
    limits: &Limits,
) -> Result<(), StoreError> {
    let mut others = store.samples(route.clone(), limits.samples_per_route_max()).await?;
    others.retain(|sample| !read.contains(sample));
    store.clear_samples(route.clone()).await?;
    others.reverse(); // the oldest first, in the order in which they were stored
    put_samples(store, others, limits).await
}

/// Moves stored samples to another route. A repeated move has no further effect.
async fn move_samples(store: &dyn Store, from: &RouteId, to: &RouteId, limits: &Limits) -> Result<(), StoreError> {
    let mut samples = store.samples(from.clone(), limits.samples_per_route_max()).await?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::testing::sample;

    #[tokio::test(start_paused = true)]
    async fn after_the_first_samples_of_a_fingerprint_one_a_minute_is_accepted() {
        let mut pending = PendingSamples::default();
        let limits = Limits::default();
        let route = sample("orders".into(), "same").route;
        let accept = |pending: &mut PendingSamples| {
            for _ in 0..9 {
                if pending.wants_sample(&route, "same", &limits) {
                    pending.push(sample("orders".into(), "same"));
                }
            }
            pending.take().samples.len()
        };
        assert_eq!((accept(&mut pending), accept(&mut pending)), (3, 0), "also after they were written");
        tokio::time::advance(RENEWED_AFTER).await;
        assert_eq!((accept(&mut pending), accept(&mut pending)), (1, 0));
        pending.clear(&route);
        assert_eq!(accept(&mut pending), 3, "the earlier ones are deleted with their evidence");
    }
}
