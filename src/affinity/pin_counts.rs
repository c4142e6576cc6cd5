//! Counts of pins and of collisions, by the route id under which the pins are stored: the id that the creating route
//! had when the pin was made.
//!
//! Always true: an id in this map has, or had, a pin. Readers take no lock.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use tokio::sync::Notify;

use super::family_collisions::{FamilyCollisions, UnstoredTimes};
use crate::flag::{self, Arm, PinKey};
use crate::names::{RouteId, RunId};
use crate::store::{PinCollision, PinCount};

/// What a pin collision that nobody has accepted means, and what to do.
const CONSEQUENCE: &str = "The engine creates no more instances of this family below `only`. Let the arms give out \
                           different ids, then accept this by a flip by force of the route that creates them \
                           (`pointsman flip ROUTE STATE --force --reason …`, `pointsman help ladder`)";

/// All ids with pins. They are routes of the flag files, so there are few.
pub(super) struct PinCountsById {
    by_id: ArcSwap<HashMap<RouteId, Arc<PinCounts>>>,
    /// Routes whose metrics were set, so that the metrics of a route that has no pins any more can be set to 0.
    published: Mutex<HashSet<RouteId>>,
    /// Notified when a collision is found or accepted that the store does not have yet.
    collisions_changed: Notify,
}

/// The counts of pins under one id.
#[derive(Default)]
pub(super) struct PinCounts {
    engine: AtomicU64,
    legacy: AtomicU64,
    /// Whether the engine owns, or may own, instances that are not counted here: instances that move, or pins of other
    /// processes.
    has_others: AtomicBool,
    collisions: FamilyCollisions,
}

impl PinCountsById {
    pub(super) fn new(counts: Vec<PinCount>, collisions: Vec<PinCollision>) -> Self {
        let with_collisions = collisions.into_iter().map(|PinCollision { family, since, accepted }| {
            if accepted.is_none() {
                tracing::warn!(
                    route = %family, %since,
                    "an earlier process found a pin collision that nobody has accepted: {CONSEQUENCE}"
                );
            }
            let collisions = FamilyCollisions::from_store(since, accepted);
            (family, Arc::new(PinCounts { collisions, ..PinCounts::default() }))
        });
        let mut families: HashMap<RouteId, Arc<PinCounts>> = with_collisions.collect();
        for (route, arm, count) in counts {
            let family = families.entry(route).or_default();
            family.add(arm, count);
        }
        let (by_id, published, collisions_changed) = (ArcSwap::from_pointee(families), Mutex::default(), Notify::new());
        Self { by_id, published, collisions_changed }
    }

    pub(super) fn get(&self, family: &RouteId) -> Option<Arc<PinCounts>> {
        self.by_id.load().get(family).cloned()
    }

    /// The ids under which the engine owns instances and no collision stands, each with the time when a person last
    /// accepted one.
    pub(super) fn without_open_collision(&self) -> Vec<(RouteId, Option<Timestamp>)> {
        let by_id = self.by_id.load();
        let of_engine = by_id.iter().filter(|(_, counts)| counts.engine_owns() && counts.collisions.since().is_none());
        of_engine.map(|(id, counts)| (id.clone(), counts.collisions.accepted())).collect()
    }

    /// Sets the metrics to the present counts. A family is shown under the present id of its creator; pins whose
    /// creator is in no file are shown under the id that is stored with them.
    pub(super) fn publish<'a>(&self, families: impl Iterator<Item = &'a flag::Family>) {
        let by_id = self.by_id.load();
        let present_ids: HashMap<&RouteId, &RouteId> =
            families.flat_map(|family| family.ids().map(|id| (id, family.id()))).collect();
        let mut counts: HashMap<RouteId, Counts> = HashMap::new();
        for (id, family) in &**by_id {
            let shown = present_ids.get(id).copied().unwrap_or(id);
            let counts = counts.entry(shown.clone()).or_default();
            counts.engine += family.engine.load(Ordering::Acquire);
            counts.legacy += family.legacy.load(Ordering::Acquire);
            counts.collisions += family.collisions.count();
            counts.has_open_collision |= family.collisions.since().is_some();
        }
        let mut published = self.published.lock().unwrap_or_else(PoisonError::into_inner);
        for without_pins in published.iter().filter(|id| !counts.contains_key(*id)) {
            set_metrics(without_pins, Counts::default());
        }
        counts.iter().for_each(|(id, counts)| set_metrics(id, *counts));
        *published = counts.into_keys().collect();
    }

    /// Records that the engine owns, or may own, instances of this family that are not counted here.
    pub(super) fn expect_engine_pins(&self, route: &RouteId) {
        self.with(route, |family| family.has_others.store(true, Ordering::Release));
    }

    /// Counts one more instance.
    pub(super) fn count(&self, route: &RouteId, arm: Arm) {
        self.with(route, |family| family.add(arm, 1));
    }

    /// Records that both arms have given out this id.
    pub(super) fn record_collision(&self, key: &PinKey, run: Option<RunId>) {
        self.with(&key.family, |family| {
            if family.collisions.record(&key.id) {
                let run = run.map(|run| run.to_string());
                tracing::error!(
                    route = %key.family, id = %key.id, run = run.as_deref(),
                    "pin collision: this id was given out for two instances. {CONSEQUENCE}"
                );
                self.collisions_changed.notify_one();
            }
        });
    }

    /// Records that a person accepts the collisions of a family that were found up to this time.
    pub(super) fn accept_collisions(&self, family: &flag::Family, at: Timestamp) {
        for id in family.ids() {
            if self.get(id).is_some_and(|family| family.collisions.accept(at)) {
                tracing::warn!(
                    route = %id,
                    "the pin collisions of this family are accepted: the engine creates instances of it again, until \
                     both arms give out one more id"
                );
                self.collisions_changed.notify_one();
            }
        }
    }

    /// Waits until a collision is found or accepted.
    pub(super) async fn collisions_changed(&self) {
        self.collisions_changed.notified().await;
    }

    /// How many changes of collisions by this process the store has.
    pub(super) fn stored_collision_changes(&self) -> u64 {
        self.by_id.load().values().map(|family| family.collisions.stored_changes()).sum()
    }

    /// Takes over what other processes have found and accepted.
    pub(super) fn follow_collisions(&self, stored: Vec<PinCollision>) {
        for PinCollision { family, since, accepted } in stored {
            self.with(&family, |counts| counts.collisions.follow(since, accepted));
        }
    }

    /// The families of which the store does not have all that was found and accepted.
    pub(super) fn unstored_collisions(&self) -> Vec<(RouteId, Arc<PinCounts>, UnstoredTimes)> {
        let by_id = self.by_id.load();
        let unstored = by_id.iter().filter_map(|(id, family)| Some((id, family, family.collisions.unstored()?)));
        unstored.map(|(id, family, times)| (id.clone(), family.clone(), times)).collect()
    }

    fn with(&self, route: &RouteId, change: impl Fn(&PinCounts)) {
        if let Some(family) = self.get(route) {
            return change(&family);
        }
        // If two threads add an entry at the same time, the one that loses the swap runs the closure again.
        self.by_id.rcu(|families| {
            let mut families = HashMap::clone(families);
            families.entry(route.clone()).or_default();
            families
        });
        if let Some(family) = self.get(route) {
            change(&family);
        }
    }
}

/// The values of a route's metrics.
#[derive(Clone, Copy, Default)]
struct Counts {
    engine: u64,
    legacy: u64,
    collisions: u64,
    /// Whether there is a collision that nobody has accepted.
    has_open_collision: bool,
}

fn set_metrics(route: &RouteId, Counts { engine, legacy, collisions, has_open_collision }: Counts) {
    for (arm, count) in [(Arm::Engine, engine), (Arm::Legacy, legacy)] {
        metrics::gauge!("pointsman_pins", "route" => route.to_string(), "arm" => arm.as_str()).set(count as f64);
    }
    metrics::counter!("pointsman_pin_collisions_total", "route" => route.to_string()).absolute(collisions);
    let open = f64::from(u8::from(has_open_collision));
    metrics::gauge!("pointsman_pin_collision_open", "route" => route.to_string()).set(open);
}

impl PinCounts {
    fn add(&self, arm: Arm, count: u64) {
        let counter = match arm {
            Arm::Engine => &self.engine,
            Arm::Legacy => &self.legacy,
        };
        counter.fetch_add(count, Ordering::AcqRel);
    }

    /// Whether the engine owns any instance.
    pub(super) fn engine_owns(&self) -> bool {
        self.engine.load(Ordering::Acquire) > 0 || self.has_others.load(Ordering::Acquire)
    }

    pub(super) fn collisions(&self) -> &FamilyCollisions {
        &self.collisions
    }
}
