//! What is pinned, by family: counts, and whether an id was given out twice.
//!
//! Always true: a family that stands here has at least one pin. Readers take no lock.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwap;

use crate::flag::{Arm, PinKey};
use crate::names::{RouteId, RunId};
use crate::store::PinCount;

/// All families with pins. They are routes of the flag files, so there are few.
pub(super) struct Families(ArcSwap<HashMap<RouteId, Arc<Family>>>);

/// One family.
pub(super) struct Family {
    engine: AtomicU64,
    legacy: AtomicU64,
    collided: AtomicBool,
    engine_gauge: metrics::Gauge,
    legacy_gauge: metrics::Gauge,
    collisions: metrics::Counter,
}

impl Families {
    pub(super) fn new(counts: Vec<PinCount>) -> Self {
        let mut families: HashMap<RouteId, Arc<Family>> = HashMap::new();
        for (route, arm, count) in counts {
            let family = families.entry(route).or_insert_with_key(Family::new);
            family.add(arm, count);
        }
        Self(ArcSwap::from_pointee(families))
    }

    pub(super) fn get(&self, family: &RouteId) -> Option<Arc<Family>> {
        self.0.load().get(family).cloned()
    }

    /// One more instance.
    pub(super) fn count(&self, route: &RouteId, arm: Arm) {
        if let Some(family) = self.get(route) {
            return family.add(arm, 1);
        }
        // Two that come first at the same time agree on one entry: what loses the swap is made again from the winner's.
        self.0.rcu(|families| {
            let mut families = HashMap::clone(families);
            families.entry(route.clone()).or_insert_with_key(Family::new);
            families
        });
        if let Some(family) = self.get(route) {
            family.add(arm, 1);
        }
    }
}

impl Family {
    fn new(route: &RouteId) -> Arc<Self> {
        let gauge = |arm: Arm| metrics::gauge!("pointsman_pins", "route" => route.to_string(), "arm" => arm.as_str());
        Arc::new(Self {
            engine: AtomicU64::new(0),
            legacy: AtomicU64::new(0),
            collided: AtomicBool::new(false),
            engine_gauge: gauge(Arm::Engine),
            legacy_gauge: gauge(Arm::Legacy),
            collisions: metrics::counter!("pointsman_pin_collisions_total", "route" => route.to_string()),
        })
    }

    fn add(&self, arm: Arm, count: u64) {
        let (counter, gauge) = match arm {
            Arm::Engine => (&self.engine, &self.engine_gauge),
            Arm::Legacy => (&self.legacy, &self.legacy_gauge),
        };
        counter.fetch_add(count, Ordering::AcqRel);
        gauge.increment(count as f64);
    }

    /// Whether the engine owns any instance.
    pub(super) fn engine_owns(&self) -> bool {
        self.engine.load(Ordering::Acquire) > 0
    }

    /// Both arms have given out one id.
    pub(super) fn collide(&self, key: &PinKey, run: Option<RunId>) {
        self.collided.store(true, Ordering::Release);
        self.collisions.increment(1);
        let run = run.map(|run| run.to_string());
        tracing::error!(
            route = %key.family, id = %key.id, run = run.as_deref(),
            "pin collision: both arms gave out this id; no new engine instances of this family are to be made"
        );
    }

    /// Whether that has happened.
    pub(super) fn collided(&self) -> bool {
        self.collided.load(Ordering::Acquire)
    }
}
