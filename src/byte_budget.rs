//! Budgets of memory: how many bytes of calls and bodies are kept while they wait.
//!
//! Always true: the bytes that are reserved from a budget are at most its bound. Nobody waits for a budget: what finds
//! no room in it is not kept.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A budget of bytes.
pub struct ByteBudget {
    bytes_max: u64,
    used: AtomicU64,
    /// How many reservations there are.
    entries: AtomicU64,
}

/// Bytes that are reserved from a budget until this value is dropped.
pub struct ReservedBytes {
    budget: Arc<ByteBudget>,
    bytes: u64,
}

impl ByteBudget {
    /// A budget with this bound.
    pub fn new(bytes_max: u64) -> Arc<Self> {
        Arc::new(Self { bytes_max, used: AtomicU64::new(0), entries: AtomicU64::new(0) })
    }

    /// Reserves this many bytes; `None` if fewer are left.
    pub fn reserve(self: &Arc<Self>, bytes: usize) -> Option<ReservedBytes> {
        let bytes = bytes as u64;
        let add = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= self.bytes_max);
        self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, add).ok()?;
        self.entries.fetch_add(1, Ordering::AcqRel);
        Some(ReservedBytes { budget: Arc::clone(self), bytes })
    }

    /// How many reservations there are.
    pub fn entries(&self) -> u64 {
        self.entries.load(Ordering::Acquire)
    }

    /// How many bytes are reserved.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Acquire)
    }
}

impl Drop for ReservedBytes {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::AcqRel);
        self.budget.entries.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_refuses_what_exceeds_it_and_gets_back_what_is_dropped() {
        let budget = ByteBudget::new(10);
        let (first, second) = (budget.reserve(6), budget.reserve(4));
        assert!(first.is_some() && second.is_some() && budget.reserve(1).is_none());
        assert!(budget.reserve(usize::MAX).is_none(), "a sum above the largest number");
        assert_eq!((budget.entries(), budget.used()), (2, 10));
        drop(first);
        assert_eq!((budget.entries(), budget.used()), (1, 4));
        assert!(budget.reserve(6).is_some());
    }
}
