//! Evidence over a store in memory, and access to its counts, for tests of other modules.

use std::sync::Arc;

use jiff::Timestamp;

use super::{Evidence, Sample};
use crate::limits::Limits;
use crate::names::RouteId;
/// The store in memory.
pub(crate) use crate::store::MemoryStore as Memory;
use crate::store::{Store, StoreError, StoreHandle};

impl Evidence {
    /// Loads the evidence in the store, with the default bounds on samples.
    pub(crate) async fn load(store: StoreHandle) -> Result<Arc<Self>, StoreError> {
        Self::load_with(store, &Limits::default()).await
    }
}

/// Returns evidence over a store in memory, and the store.
pub(crate) async fn evidence() -> (Arc<Evidence>, Arc<Memory>) {
    let store = Arc::new(Memory::new());
    let evidence = Evidence::load(store.clone()).await.expect("a store in memory answers");
    (evidence, store)
}

/// The number of offered requests and the sum of all outcomes, read together.
pub(crate) fn sums(evidence: &Evidence, route: &RouteId) -> (u64, u64) {
    let totals = evidence.counters(route).lock().totals.clone();
    (totals.offered, totals.outcomes())
}

/// Flushes the evidence, and returns the route's samples in the store.
pub(crate) async fn samples(evidence: &Arc<Evidence>, store: &Memory, route: &RouteId) -> Vec<Sample> {
    evidence.flush().await.expect("a store in memory answers");
    store.samples(route.clone(), 1_000).await.expect("a store in memory answers")
}

/// A sample without content.
pub(crate) fn sample(route: RouteId, fingerprint: &str) -> Sample {
    Sample {
        route,
        fingerprint: fingerprint.into(),
        at: Timestamp::UNIX_EPOCH,
        run: None,
        differences: Vec::new(),
        legacy: "{}".into(),
        engine: "{}".into(),
        request: "POST /orders".into(),
        kept: None,
        events: Vec::new(),
        events_not_kept: 0,
        children: Vec::new(),
        children_not_kept: 0,
    }
}
