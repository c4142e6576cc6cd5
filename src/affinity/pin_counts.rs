//! Counts of pins and of collisions, by the route id under which the pins are stored: the id that the creating route
//! had when the pin was made.
//!
//! Always true: an id in this map has, or had, a pin. Readers take no lock.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arc_swap::ArcSwap;
use jiff::Timestamp;

use crate::clock;
use crate::flag::{self, Arm, PinKey};
use crate::names::{RouteId, RunId};
use crate::store::PinCount;

/// All ids with pins. They are routes of the flag files, so there are few.
pub(super) struct PinCountsById {
    by_id: ArcSwap<HashMap<RouteId, Arc<PinCounts>>>,
    /// Routes whose metrics were set, so that the metrics of a route that has no pins any more can be set to 0.
    published: Mutex<HashSet<RouteId>>,
}

/// The counts of pins under one id.
#[derive(Default)]
pub(super) struct PinCounts {
    engine: AtomicU64,
    legacy: AtomicU64,
    /// Whether the engine owns some that are not counted here: instances that move, or pins of other processes.
    has_others: AtomicBool,
    collided_since: OnceLock<Timestamp>,
    collisions: AtomicU64,
    /// The ids that both arms have given out, up to [`COLLIDED_IDS_MAX`].
    collided_ids: Mutex<HashSet<Arc<str>>>,
}

/// How many ids are remembered that both arms have given out, so that each counts once: legacy's reply may show one,
/// and the dark run that cannot pin it.
const COLLIDED_IDS_MAX: usize = 4_096;

impl PinCountsById {
    pub(super) fn new(counts: Vec<PinCount>) -> Self {
        let mut families: HashMap<RouteId, Arc<PinCounts>> = HashMap::new();
        for (route, arm, count) in counts {
            let family = families.entry(route).or_default();
            family.add(arm, count);
        }
        Self { by_id: ArcSwap::from_pointee(families), published: Mutex::default() }
    }

    pub(super) fn get(&self, family: &RouteId) -> Option<Arc<PinCounts>> {
        self.by_id.load().get(family).cloned()
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
            counts.collisions += family.collisions.load(Ordering::Acquire);
        }
        let mut published = self.published.lock().unwrap_or_else(PoisonError::into_inner);
        for without_pins in published.iter().filter(|id| !counts.contains_key(*id)) {
            set_metrics(without_pins, Counts::default());
        }
        counts.iter().for_each(|(id, counts)| set_metrics(id, *counts));
        *published = counts.into_keys().collect();
    }

    /// The engine owns an instance of this family, which is not counted here.
    pub(super) fn ensure(&self, route: &RouteId) {
        self.with(route, |family| family.has_others.store(true, Ordering::Release));
    }

    /// Counts one more instance.
    pub(super) fn count(&self, route: &RouteId, arm: Arm) {
        self.with(route, |family| family.add(arm, 1));
    }

    fn with(&self, route: &RouteId, change: impl Fn(&PinCounts)) {
        if let Some(family) = self.get(route) {
            return change(&family);
        }
        // Of two threads that add an entry at the same time, the one that loses the swap repeats the closure.
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
}

fn set_metrics(route: &RouteId, Counts { engine, legacy, collisions }: Counts) {
    for (arm, count) in [(Arm::Engine, engine), (Arm::Legacy, legacy)] {
        metrics::gauge!("pointsman_pins", "route" => route.to_string(), "arm" => arm.as_str()).set(count as f64);
    }
    metrics::counter!("pointsman_pin_collisions_total", "route" => route.to_string()).absolute(collisions);
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

    /// Records that both arms have given out this id.
    pub(super) fn record_collision(&self, key: &PinKey, run: Option<RunId>) {
        self.collided_since.get_or_init(clock::now);
        {
            let mut ids = self.collided_ids.lock().unwrap_or_else(PoisonError::into_inner);
            if ids.contains(&key.id) {
                return;
            }
            if ids.len() < COLLIDED_IDS_MAX {
                ids.insert(key.id.clone());
            }
        }
        self.collisions.fetch_add(1, Ordering::AcqRel);
        let run = run.map(|run| run.to_string());
        tracing::error!(
            route = %key.family, id = %key.id, run = run.as_deref(),
            "pin collision: both arms gave out this id; no new engine instances of this family are to be made"
        );
    }

    /// When it was found for the first time that both arms have given out one id.
    pub(super) fn collided_since(&self) -> Option<Timestamp> {
        self.collided_since.get().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_id_that_both_arms_gave_out_counts_once() {
        let counts = PinCounts::default();
        let key = |id: &str| PinKey { family: "orders.create".into(), id: id.into() };
        assert_eq!(counts.collided_since(), None);
        // Legacy's reply shows it, and the dark run cannot pin it.
        ["17", "17", "18"].iter().for_each(|id| counts.record_collision(&key(id), None));
        assert_eq!(counts.collisions.load(Ordering::Acquire), 2);
        assert!(counts.collided_since().is_some());
    }
}
