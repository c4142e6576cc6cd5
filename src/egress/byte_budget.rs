//! The memory budget for calls and bodies that are kept for the comparison.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// A budget of bytes.
pub(super) struct ByteBudget {
    used: AtomicUsize,
    bytes_max: usize,
}

/// Bytes of the budget, in use until this value is dropped.
pub(super) struct ReservedBytes {
    budget: Arc<ByteBudget>,
    bytes: usize,
}

impl ByteBudget {
    pub(super) fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { used: AtomicUsize::new(0), bytes_max })
    }
    /// Reserves bytes of the budget; `None` if fewer are left.
    pub(super) fn reserve(self: &Arc<Self>, bytes: usize) -> Option<ReservedBytes> {
        let add = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= self.bytes_max);
        self.used.fetch_update(Relaxed, Relaxed, add).ok()?;
        Some(ReservedBytes { budget: self.clone(), bytes })
    }
    #[cfg(test)]
    pub(super) fn used(&self) -> usize {
        self.used.load(Relaxed)
    }
}

impl Drop for ReservedBytes {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Relaxed);
    }
}
