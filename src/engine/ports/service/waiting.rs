//! Which runs wait for their turn at a service.
//!
//! Always true: a run is here exactly as long as one of its calls waits; a call that is dropped waits no more.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::names::RunId;

/// Runs, and how many of their calls wait.
#[derive(Clone, Default)]
pub(super) struct Waiting(Arc<Mutex<HashMap<RunId, usize>>>);

impl Waiting {
    /// A call of this run waits, until what is given back is dropped.
    pub fn one(&self, run: RunId) -> Waits {
        *self.all().entry(run).or_insert(0) += 1;
        Waits { of: self.clone(), run }
    }
    /// How many calls wait.
    pub fn count(&self) -> usize {
        self.all().values().sum()
    }
    /// Whether a call of this run does.
    pub fn has(&self, run: RunId) -> bool {
        self.all().contains_key(&run)
    }
    fn all(&self) -> MutexGuard<'_, HashMap<RunId, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One call that waits.
pub(super) struct Waits {
    of: Waiting,
    run: RunId,
}

impl Drop for Waits {
    fn drop(&mut self) {
        let mut all = self.of.all();
        if let Some(calls) = all.get_mut(&self.run) {
            *calls -= 1;
            if *calls == 0 {
                all.remove(&self.run);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_run_waits_as_long_as_one_of_its_calls_does() {
        let (waiting, a, b) = (Waiting::default(), RunId(Uuid::from_u128(1)), RunId(Uuid::from_u128(2)));
        let (first, second, other) = (waiting.one(a), waiting.one(a), waiting.one(b));
        assert_eq!((waiting.count(), waiting.has(a)), (3, true));
        drop(first);
        drop(other);
        assert_eq!((waiting.count(), waiting.has(a), waiting.has(b)), (1, true, false));
        drop(second);
        assert!(!waiting.has(a));
    }
}
