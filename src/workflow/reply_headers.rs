//! Which headers of a step's replies are kept in the run's events.
//!
//! Always true: what an expression of the plan can read is kept, and so is what the plan names as sensitive, since its
//! value has to be found wherever else it stands. No other header is: nothing decides by it, and each would be stored with
//! every step.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::expression::ReadPath;

/// Headers of replies, names in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeptHeaders {
    /// An expression may read any of them.
    All,
    /// These.
    Only(BTreeSet<Arc<str>>),
}

impl KeptHeaders {
    /// What this path, which begins with the step's name under `steps`, can lead to is kept too.
    pub(super) fn add(&mut self, path: &ReadPath) {
        match (&mut *self, path.part(1), path.part(2)) {
            (Self::Only(names), Some("headers"), Some(name)) => drop(names.insert(name.into())),
            // The step as a whole, or a header whose name is computed.
            (kept, None | Some("headers"), _) => *kept = Self::All,
            (_, Some(_), _) => {}
        }
    }
}
