//! Which headers of a step's replies are kept in the run's events.
//!
//! Always true: every header that an expression of the plan can read is kept, and so is every header that the plan
//! declares as sensitive, because its value has to be found wherever it occurs. No other header is kept: no decision
//! depends on it, and it would be stored with every step.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::expression::ReadPath;

/// Headers of replies, names in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeptHeaders {
    /// An expression may read any of them, so all are kept.
    All,
    /// Only these are kept.
    Only(BTreeSet<Arc<str>>),
}

impl KeptHeaders {
    /// Keeps the headers that a path can read, too. The path begins with the step's name under `steps`.
    pub(super) fn add(&mut self, path: &ReadPath) {
        match (&mut *self, path.part(1), path.part(2)) {
            (Self::Only(names), Some("headers"), Some(name)) => drop(names.insert(name.into())),
            // The step as a whole, or a header whose name is computed.
            (kept, None | Some("headers"), _) => *kept = Self::All,
            (_, Some(_), _) => {}
        }
    }
}
