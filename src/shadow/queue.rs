//! Answered requests that wait for the engine, and the memory that they may hold.
//!
//! Always true: the bytes of all entries that exist, waiting or under way, are within a bound: that of the queue, that
//! of the requests that wait for calls by legacy, or that of the requests that wait for their turn on a twin.

use std::time::Instant;

use super::instance_order::TwinTurn;
use super::shared_bound::RouteReservation;
use crate::byte_budget::ReservedBytes;
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
    /// The memory of its bodies.
    pub(super) memory: HeldMemory,
    /// Its turn among the requests of its instance; `None` where it is in no order with others.
    pub(super) turn: Option<Box<TwinTurn>>,
}

/// The memory that one entry holds, given back when this is dropped.
pub(super) enum HeldMemory {
    /// Of the queue's bound, which routes share.
    OfQueue { _bytes: RouteReservation },
    /// Of the budget for requests that wait for calls by legacy, or for their turn on a twin.
    OfBudget { _bytes: ReservedBytes },
}

impl QueuedRequest {
    pub(super) fn new(
        ticket: ComparisonTicket,
        answered: Answered,
        generation: EvidenceGeneration,
        (place, bytes): (RouteReservation, RouteReservation),
        turn: Option<Box<TwinTurn>>,
    ) -> Self {
        let memory = HeldMemory::OfQueue { _bytes: bytes };
        Self { ticket, answered, generation, offered: Instant::now(), place: Some(place), memory, turn }
    }
}

impl From<ReservedBytes> for HeldMemory {
    fn from(bytes: ReservedBytes) -> Self {
        Self::OfBudget { _bytes: bytes }
    }
}
