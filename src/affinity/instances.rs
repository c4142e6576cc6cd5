//! Which instances of a family are alive, for each arm: what requests have shown, and when instances end.
//!
//! Always true:
//!
//! - Whoever reports something does not wait for the store; what waits for the store is bounded
//!   ([`CHANGES_WAITING_MAX`]).
//! - The count of legacy's instances is never too low: an instance that cannot be recorded sets `has_unknown`.
//! - Of legacy's instances that have not ended, at most [`LEGACY_INSTANCES_MAX`] of a family are recorded; of those
//!   that have ended, the newest [`ENDED_KEPT_MAX`].
//!
//! The counts are those that the store had when it was last asked. [`Instances::refresh`] brings them up to date, for a
//! gate. Which arm owns an instance does not depend on any of this.
//!
//! While the store accepts no writes, reports wait, and are written once it does. A process that is killed loses those
//! of the last moments ([`FLUSH_PAUSE`]): an instance that has ended counts as alive until a request shows its end
//! again; an instance that legacy created is not known until a request follows it up.

mod counted;
mod given_out;
mod recorded;
mod reports;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use tokio::sync::Notify;
use tokio::time::Instant;

pub use self::counted::{ArmInstances, FamilyInstances, TrackedFamily};
use self::recorded::Recorded;
use crate::clock;
use crate::flag::{Arm, Family};
use crate::names::RouteId;
use crate::store::{InstanceChange, InstanceCount, StoreError, StoreHandle};

/// The most changes that wait for the store.
const CHANGES_WAITING_MAX: usize = 65_536;
/// The most changes of one write.
const BATCH_MAX: usize = 1_024;
/// The most instances of legacy that are recorded of a family, without those that have ended.
const LEGACY_INSTANCES_MAX: u64 = 1_000_000;
/// How many instances of legacy that have ended are kept of a family.
const ENDED_KEPT_MAX: usize = 1_000_000;
/// The longest id that is recorded.
const ID_BYTES_MAX: usize = 1_024;
/// How long reports wait for others, to be written together.
const FLUSH_PAUSE: Duration = Duration::from_millis(200);
/// The pause after the store did not take a write.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// The shortest time between two counts of the instances in the store; counts for a gate come in addition.
const COUNT_PAUSE: Duration = Duration::from_secs(1);
/// The longest time between two counts: other processes may have written, and instances end by their age.
const COUNT_INTERVAL: Duration = Duration::from_secs(10);
/// The pause after a count is at least this many times as long as the count took: it reads the pins of all instances
/// that have not ended, which takes seconds with millions of them.
const COUNT_PAUSE_FACTOR: u32 = 20;
/// The interval at which ended instances of legacy beyond [`ENDED_KEPT_MAX`] are forgotten.
const FORGET_INTERVAL: Duration = Duration::from_secs(600);

/// The instances of all families.
pub struct Instances {
    store: StoreHandle,
    state: Mutex<State>,
    families: ArcSwap<Vec<TrackedFamily>>,
    counts: ArcSwap<Counts>,
    /// Held while changes are written and counted.
    writing: tokio::sync::Mutex<()>,
    /// Notified when a change waits for the store.
    changed: Notify,
    /// Whether the counts in the store may have changed since they were last read.
    is_outdated: AtomicBool,
    /// Routes whose metrics were set, so that the metrics of a route that is gone can be set to 0.
    published: Mutex<BTreeSet<RouteId>>,
}

type Counts = HashMap<(RouteId, Arm), InstanceCount>;

#[derive(Default)]
struct State {
    waiting: Vec<InstanceChange>,
    /// The families of which an instance of legacy could not be recorded, and the store does not know that yet.
    unknown: BTreeMap<RouteId, Timestamp>,
    recorded: Recorded,
}

/// Changes that are being written. If they are dropped without [`TakenChanges::mark_stored`], they are queued again:
/// the store refused them, or the task that waited for the store was dropped. Writing a change twice does no harm.
struct TakenChanges<'a> {
    instances: &'a Instances,
    batch: Vec<InstanceChange>,
    unknown: BTreeMap<RouteId, Timestamp>,
}

impl TakenChanges<'_> {
    fn mark_stored(mut self) {
        self.batch.clear();
        self.unknown.clear();
    }
}

impl Drop for TakenChanges<'_> {
    fn drop(&mut self) {
        if !self.batch.is_empty() || !self.unknown.is_empty() {
            let mut state = self.instances.state();
            state.waiting.splice(..0, std::mem::take(&mut self.batch));
            state.unknown.append(&mut self.unknown);
        }
    }
}

impl Instances {
    /// Knows what the store knows once [`Instances::refresh`] has returned.
    pub(super) fn new(store: StoreHandle) -> Arc<Self> {
        Arc::new(Self {
            store,
            state: Mutex::default(),
            families: ArcSwap::default(),
            counts: ArcSwap::default(),
            writing: tokio::sync::Mutex::default(),
            changed: Notify::new(),
            is_outdated: AtomicBool::new(true),
            published: Mutex::default(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A poisoned lock is usable: no change can panic halfway.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the families of the files in force.
    pub fn set_families(&self, families: Vec<TrackedFamily>) {
        self.families.store(Arc::new(families));
        self.count_soon();
    }

    /// The family whose creator has, or had, this id according to the files in force. If there is none: a family whose
    /// creator has only this id.
    pub fn family_of(&self, creator: &RouteId) -> Family {
        let families = self.families.load();
        let found = families.iter().map(|tracked| &tracked.family).find(|family| family.ids().any(|id| id == creator));
        found.cloned().unwrap_or_else(|| Family::from(creator.clone()))
    }

    /// Has the instances counted soon, because the pins in the store have changed.
    pub(super) fn count_soon(&self) {
        if !self.is_outdated.swap(true, Ordering::AcqRel) {
            self.changed.notify_one();
        }
    }

    /// The instances of a family, at the last count.
    pub fn of(&self, family: &Family) -> FamilyInstances {
        let counts = self.counts.load();
        let mut found = FamilyInstances { is_counted: true, ..FamilyInstances::default() };
        for id in family.ids() {
            for (arm, sum) in [(Arm::Engine, &mut found.engine), (Arm::Legacy, &mut found.legacy)] {
                match counts.get(&(id.clone(), arm)) {
                    Some(count) => sum.add(count),
                    None => found.is_counted = false,
                }
            }
        }
        let state = self.state();
        let is_seen = |change: &&InstanceChange| match change {
            InstanceChange::LegacySeen(key, _)
            | InstanceChange::LegacyListed(key, _)
            | InstanceChange::LegacyCreated(key, _) => family.ids().any(|id| *id == key.family),
            _ => false,
        };
        found.legacy_waiting = state.waiting.iter().filter(is_seen).count() as u64;
        found.legacy.has_unknown |= family.ids().any(|id| state.unknown.contains_key(id));
        found
    }

    /// Sets the metrics to the counts.
    pub fn publish(&self) {
        let mut published = self.published.lock().unwrap_or_else(PoisonError::into_inner);
        let families = self.families.load();
        let present = || families.iter().map(|tracked| &tracked.family);
        for gone in published.iter().filter(|id| !present().any(|family| family.id() == *id)) {
            set_metrics(gone, &FamilyInstances::default());
        }
        present().for_each(|family| set_metrics(family.id(), &self.of(family)));
        *published = present().map(|family| family.id().clone()).collect();
    }

    /// Writes everything that was reported before, ends the instances that are too old, and counts the instances,
    /// including those of the family `also`. When this has returned, [`Instances::of`] returns what the store has.
    ///
    /// # Errors
    /// The store does not answer, or accepts no writes.
    pub async fn refresh(&self, also: Option<&Family>) -> Result<(), StoreError> {
        let _writing = self.writing.lock().await;
        self.write().await?;
        self.end_by_age().await?;
        self.count(also).await
    }

    /// Stores changes of a family that the caller has found, and counts the instances. An instance that legacy lists
    /// although the engine has adopted it is not recorded, under whichever id of the family it was adopted.
    ///
    /// # Errors
    /// The store does not take them, or does not say what was adopted.
    pub async fn apply(&self, family: &Family, changes: Vec<InstanceChange>) -> Result<(), StoreError> {
        let changes = self.without_adopted(family, changes).await?;
        let _writing = self.writing.lock().await;
        for batch in changes.chunks(BATCH_MAX) {
            self.store.change_instances(batch.to_vec()).await?;
        }
        self.count(Some(family)).await
    }

    fn take(&self) -> TakenChanges<'_> {
        let mut state = self.state();
        let count = state.waiting.len().min(BATCH_MAX);
        let batch = state.waiting.drain(..count).collect();
        TakenChanges { instances: self, batch, unknown: std::mem::take(&mut state.unknown) }
    }

    /// Writes what waits.
    async fn write(&self) -> Result<(), StoreError> {
        loop {
            let taken = self.take();
            if taken.batch.is_empty() && taken.unknown.is_empty() {
                return Ok(());
            }
            let of_unknown =
                taken.unknown.iter().map(|(family, at)| InstanceChange::LegacyUnknown(family.clone(), *at));
            let changes = taken.batch.iter().cloned().chain(of_unknown).collect();
            self.is_outdated.store(true, Ordering::Release);
            self.store.change_instances(changes).await?;
            taken.mark_stored();
        }
    }

    async fn end_by_age(&self) -> Result<(), StoreError> {
        let at = clock::now();
        let families = self.families.load_full();
        let old = families.iter().flat_map(|TrackedFamily { family, ends_after }| {
            let before = ends_after.and_then(|age| at.checked_sub(age).ok());
            let ids = before.into_iter().flat_map(|before| family.ids().map(move |id| (id.clone(), before)));
            ids.map(|(family, before)| InstanceChange::Aged { family, before, at })
        });
        let changes: Vec<_> = old.collect();
        match changes.is_empty() {
            true => Ok(()),
            false => self.store.change_instances(changes).await,
        }
    }

    async fn forget_ended(&self) -> Result<(), StoreError> {
        let families = self.families.load_full();
        let ids = families.iter().flat_map(|tracked| tracked.family.ids().cloned());
        let changes = ids.map(|family| InstanceChange::ForgetEnded { family, keep: ENDED_KEPT_MAX });
        self.store.change_instances(changes.collect()).await
    }

    /// Counts the instances of the families in force and of another one.
    async fn count(&self, also: Option<&Family>) -> Result<(), StoreError> {
        self.is_outdated.store(false, Ordering::Release);
        let families = self.families.load_full();
        let families = families.iter().map(|tracked| &tracked.family).chain(also);
        let ids: BTreeSet<RouteId> = families.flat_map(|family| family.ids().cloned()).collect();
        let counted = self.store.instance_counts(ids.into_iter().collect()).await;
        let counted = counted.inspect_err(|_| self.is_outdated.store(true, Ordering::Release))?;
        let by_family = counted.into_iter().map(|count| ((count.family.clone(), count.arm), count)).collect();
        self.counts.store(Arc::new(by_family));
        Ok(())
    }

    /// Writes and counts from time to time, for ever.
    pub(super) async fn maintain(self: Arc<Self>) {
        let (mut counted, mut forgot): (Option<Instant>, Option<Instant>) = (None, None);
        let mut took = Duration::ZERO;
        let is_over = |last: Option<Instant>, pause: Duration| last.is_none_or(|last| last.elapsed() >= pause);
        loop {
            let writing = self.writing.lock().await;
            let written = self.write().await;
            let wait = match self.is_outdated.load(Ordering::Acquire) {
                true => COUNT_PAUSE,
                false => COUNT_INTERVAL,
            };
            let done = match written {
                Ok(()) if is_over(counted, wait.max(took * COUNT_PAUSE_FACTOR)) => {
                    let begun = Instant::now();
                    let done = match self.end_by_age().await {
                        Ok(()) => self.count(None).await,
                        Err(error) => Err(error),
                    };
                    took = done.as_ref().map_or(Duration::ZERO, |()| begun.elapsed());
                    counted = Some(Instant::now());
                    done
                }
                written => written,
            };
            let done = match done {
                Ok(()) if is_over(forgot, FORGET_INTERVAL) => {
                    forgot = Some(Instant::now());
                    self.forget_ended().await
                }
                done => done,
            };
            drop(writing);
            if let Err(error) = done {
                tracing::debug!(%error, "what is known of instances is not stored yet; it is tried again");
                tokio::time::sleep(RETRY_PAUSE).await;
                continue;
            }
            let wait = match self.is_outdated.load(Ordering::Acquire) {
                true => COUNT_PAUSE,
                false => COUNT_INTERVAL,
            };
            // A timeout is as good as a notification.
            let _ = tokio::time::timeout(wait, self.changed.notified()).await;
            tokio::time::sleep(FLUSH_PAUSE).await;
        }
    }
}

fn set_metrics(route: &RouteId, FamilyInstances { engine, legacy, .. }: &FamilyInstances) {
    for (arm, instances) in [(Arm::Engine, engine), (Arm::Legacy, legacy)] {
        let gauge = metrics::gauge!("pointsman_instances", "route" => route.to_string(), "arm" => arm.as_str());
        gauge.set(instances.alive as f64);
    }
    let incomplete = metrics::gauge!("pointsman_instances_twin_incomplete", "route" => route.to_string());
    incomplete.set(legacy.twins_incomplete as f64);
}
