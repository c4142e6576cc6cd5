//! For the tests of rooms that settle: evidence without a disk, and a look into it.

use std::sync::Arc;

use super::{Evidence, Sample};
use crate::names::RouteId;
/// The store in memory.
pub(crate) use crate::store::MemoryStore as Memory;
use crate::store::Store;

/// Evidence over a store in memory.
pub(crate) async fn evidence() -> (Arc<Evidence>, Arc<Memory>) {
    let store = Arc::new(Memory::new());
    let evidence = Evidence::load(store.clone()).await.expect("a store in memory answers");
    (evidence, store)
}

/// What was offered, and the sum of the outcomes, in one look.
pub(crate) fn sums(evidence: &Evidence, route: &RouteId) -> (u64, u64) {
    let totals = evidence.book(route).page().totals.clone();
    (totals.offered, totals.outcomes())
}

/// The samples that were kept.
pub(crate) async fn samples(evidence: &Evidence, store: &Memory, route: &RouteId) -> Vec<Sample> {
    evidence.flush().await.expect("a store in memory answers");
    store.samples(route.clone(), 1_000).await.expect("a store in memory answers")
}
