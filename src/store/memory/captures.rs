//! Captures, in memory.

use futures_util::future::BoxFuture;

use super::MemoryStore;
use crate::names::RouteId;
use crate::store::{CaptureBounds, CaptureRecord, CaptureStore, StoreError};

impl CaptureStore for MemoryStore {
    fn put_captures(
        &self,
        captures: Vec<CaptureRecord>,
        bounds: CaptureBounds,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        self.with(|tables| tables.captures.put(captures, bounds))
    }

    fn captures(
        &self,
        route: RouteId,
        after: u64,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<(u64, CaptureRecord)>, StoreError>> {
        self.with(|tables| tables.captures.of_route(&route, after, limit))
    }
}
