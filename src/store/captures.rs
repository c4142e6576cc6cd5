//! Captured pairs: kept within bounds, the oldest leave first.

use futures_util::future::{BoxFuture, FutureExt};
use jiff::Timestamp;
use uuid::Uuid;

use super::StoreError;
use crate::names::RouteId;

/// A captured pair, opaque to the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaptureRecord {
    /// Identifies it: it is stored once.
    pub id: Uuid,
    /// The route.
    pub route: RouteId,
    /// When it was compared.
    pub at: Timestamp,
    /// The capture as JSON, redacted before it came here.
    pub body: Vec<u8>,
}

/// How many captures are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CaptureBounds {
    /// Of one route, the newest.
    pub per_route: usize,
    /// Of one route, the newest that together have at most this many bytes.
    pub bytes_per_route: u64,
    /// Of all routes, those that are not older.
    pub since: Timestamp,
}

/// Keeps captures.
pub trait CaptureStore: Send + Sync {
    /// Stores captures, and removes those that are beyond the bounds: of all routes those that are too old, and of the
    /// routes of these captures the oldest. Idempotent by the captures' ids.
    fn put_captures(
        &self,
        _captures: Vec<CaptureRecord>,
        _bounds: CaptureBounds,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        std::future::ready(Ok(())).boxed()
    }
    /// Up to `limit` captures of a route after the position `after`, in the order in which they were stored, each with
    /// its position.
    fn captures(
        &self,
        _route: RouteId,
        _after: u64,
        _limit: usize,
    ) -> BoxFuture<'_, Result<Vec<(u64, CaptureRecord)>, StoreError>> {
        std::future::ready(Ok(Vec::new())).boxed()
    }
}
