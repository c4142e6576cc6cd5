//! The tables by which requests may still be answered.
//!
//! Always true: a table is added before a request can have it; so once the flag set was replaced and the table of the
//! new set is in force ([`Shared::table`](super::shared::Shared::table)), each request that an older set decides has
//! one of the tables here.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::table::Table;

/// Weak references to the tables that exist. A request holds a strong one to its table while it is answered.
pub(super) struct TablesInUse(Mutex<Vec<Weak<Table>>>);

impl TablesInUse {
    pub(super) fn new(first: &Arc<Table>) -> Self {
        Self(Mutex::new(vec![Arc::downgrade(first)]))
    }

    pub(super) fn add(&self, table: &Arc<Table>) {
        let mut tables = self.lock();
        tables.retain(|table| table.strong_count() > 0);
        tables.push(Arc::downgrade(table));
    }

    /// Returns the number of the oldest flag set by which a run may still begin.
    pub(super) fn oldest_set(&self) -> Option<u64> {
        let existing: Vec<Arc<Table>> = self.lock().iter().filter_map(Weak::upgrade).collect();
        // The lock is free by now: dropping these references may drop a table.
        existing.iter().filter(|table| table.is_in_use()).map(|table| table.set.set_number).min()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Weak<Table>>> {
        // A poisoned lock is usable: each change is one step.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
