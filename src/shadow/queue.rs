//! What waits for the other arm, and the bytes that it may keep alive.
//!
//! Always true: the bytes of all entries that exist, waiting or under way, are within the budget.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::evidence::Epoch;
use crate::exchange::{Answered, Ticket};

/// An answered request on its way to the other arm.
pub(super) struct Entry {
    pub(super) ticket: Ticket,
    pub(super) answered: Answered,
    /// The evidence that it will count for.
    pub(super) epoch: Epoch,
    pub(super) offered: Instant,
    /// Given back when the entry is gone.
    pub(super) held: Held,
}

impl Entry {
    pub(super) fn new(ticket: Ticket, answered: Answered, epoch: Epoch, held: Held) -> Self {
        Self { ticket, answered, epoch, offered: Instant::now(), held }
    }
}

/// Bytes that entries may keep alive.
pub(super) struct Budget {
    free: AtomicU64,
}

/// Bytes that an entry keeps alive.
pub(super) struct Held {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Budget {
    pub(super) fn new(bytes_max: u64) -> Self {
        Self { free: AtomicU64::new(bytes_max) }
    }
    /// Takes bytes, or nothing where there are not enough.
    pub(super) fn hold(self: &Arc<Self>, bytes: usize) -> Option<Held> {
        let bytes = bytes as u64;
        let take = |free: u64| free.checked_sub(bytes);
        self.free.fetch_update(Ordering::AcqRel, Ordering::Acquire, take).ok()?;
        Some(Held { budget: Arc::clone(self), bytes })
    }
    pub(super) fn has_room(&self) -> bool {
        self.free.load(Ordering::Acquire) > 0
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.budget.free.fetch_add(self.bytes, Ordering::AcqRel);
    }
}
