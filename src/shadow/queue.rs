//! Answered requests that wait for the engine, and the memory that they may hold.
//!
//! Always true: the bytes of all entries that exist, waiting or under way, are within a budget: that of the queue, or
//! that of the requests that wait for calls by legacy.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::instance_order::TwinTurn;
use super::shared_bound::RouteReservation;
use crate::evidence::EvidenceGeneration;
use crate::exchange::{Answered, ComparisonTicket};

/// An answered request that waits for the engine, or is run by it.
pub(super) struct QueuedRequest {
    pub(super) ticket: ComparisonTicket,
    pub(super) answered: Answered,
    /// The generation of the route's evidence in which the result counts.
    pub(super) generation: EvidenceGeneration,
    pub(super) offered: Instant,
    /// Its place in the queue, until it gets a slot.
    pub(super) place: Option<RouteReservation>,
    /// Returned when the entry is dropped.
    pub(super) reserved: ReservedBytes,
    /// Its turn among the requests of its instance; `None` where it is in no order with others.
    pub(super) turn: Option<Box<TwinTurn>>,
}

impl QueuedRequest {
    pub(super) fn new(
        ticket: ComparisonTicket,
        answered: Answered,
        generation: EvidenceGeneration,
        (place, bytes): (RouteReservation, RouteReservation),
        turn: Option<Box<TwinTurn>>,
    ) -> Self {
        let reserved = ReservedBytes { of_budget: None, _of_route: Some(bytes) };
        Self { ticket, answered, generation, offered: Instant::now(), place: Some(place), reserved, turn }
    }
}

/// Bytes that all entries together may hold in memory.
pub(super) struct ByteBudget {
    free: AtomicU64,
    bytes_max: u64,
    /// How many entries hold some.
    entries: AtomicU64,
}

/// Bytes that one entry holds in memory.
pub(super) struct ReservedBytes {
    of_budget: Option<(Arc<ByteBudget>, u64)>,
    /// Where the budget is one that routes share.
    _of_route: Option<RouteReservation>,
}

impl ByteBudget {
    pub(super) fn new(bytes_max: u64) -> Self {
        Self { free: AtomicU64::new(bytes_max), bytes_max, entries: AtomicU64::new(0) }
    }
    /// Reserves this many bytes; `None` if fewer are free.
    pub(super) fn reserve(self: &Arc<Self>, bytes: usize) -> Option<ReservedBytes> {
        let bytes = bytes as u64;
        let take = |free: u64| free.checked_sub(bytes);
        self.free.fetch_update(Ordering::AcqRel, Ordering::Acquire, take).ok()?;
        self.entries.fetch_add(1, Ordering::AcqRel);
        Some(ReservedBytes { of_budget: Some((Arc::clone(self), bytes)), _of_route: None })
    }
    /// How many entries hold some of it.
    pub(super) fn entries(&self) -> u64 {
        self.entries.load(Ordering::Acquire)
    }
    /// How many bytes of it are in use.
    pub(super) fn used(&self) -> u64 {
        self.bytes_max.saturating_sub(self.free.load(Ordering::Acquire))
    }
}

impl Drop for ReservedBytes {
    fn drop(&mut self) {
        let Some((budget, bytes)) = &self.of_budget else { return };
        budget.free.fetch_add(*bytes, Ordering::AcqRel);
        budget.entries.fetch_sub(1, Ordering::AcqRel);
    }
}
