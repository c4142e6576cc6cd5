//! Which headers of a step's replies are recorded in the run's events.
//!
//! Always true: every header that an expression of the plan can read is recorded. So is every header that the plan
//! declares as sensitive, because its value has to be found wherever it occurs. No other header is recorded: no
//! decision depends on it, and it would be stored with every step.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::expression::ReadPath;

/// Headers of replies, names in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordedHeaders {
    /// An expression may read any of them, so all are recorded.
    All,
    /// Only these are recorded.
    Only(BTreeSet<Arc<str>>),
}

impl RecordedHeaders {
    /// The names; `None` where all headers are recorded.
    pub fn names(&self) -> Option<&BTreeSet<Arc<str>>> {
        match self {
            Self::All => None,
            Self::Only(names) => Some(names),
        }
    }
    /// Adds the headers that a path can read. The path begins with the step's name under `steps`.
    pub(super) fn add(&mut self, path: &ReadPath) {
        match (&mut *self, path.part(1), path.part(2)) {
            (Self::Only(names), Some("headers"), Some(name)) => drop(names.insert(name.into())),
            // The expression reads the step as a whole, or a header whose name is computed.
            (recorded, None | Some("headers"), _) => *recorded = Self::All,
            (_, Some(_), _) => {}
        }
    }
}
