//! The last failure of each address and the last lookup of each name, kept only to be shown (`view`).
//!
//! Always true: these records are written only on failures and lookups, and decide nothing.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// The last failure of an address: when it happened, in microseconds of `ServiceState::now`, and why.
#[derive(Clone, Debug)]
pub(super) struct AddressFailure {
    pub at: u64,
    pub why: String,
}

/// The last lookup of each name: when it ended, and why it failed.
#[derive(Debug, Default)]
pub(super) struct LastLookups(Mutex<BTreeMap<String, (u64, Option<String>)>>);

impl LastLookups {
    pub(super) fn note(&self, name: &str, at: u64, failure: Option<String>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), (at, failure));
    }
    /// Returns when the last lookup of a name ended, and why it failed, if it did; `None` before the first one.
    pub(super) fn of(&self, name: &str) -> Option<(u64, Option<String>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }
}
