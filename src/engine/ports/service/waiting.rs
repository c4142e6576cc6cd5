//! Which runs have calls that wait for a permit of a service.
//!
//! Always true: a run is listed exactly as long as one of its calls waits; a call that is dropped no longer waits.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::names::RunId;

/// How many calls of each run wait.
#[derive(Clone, Default)]
pub(super) struct WaitingCalls(Arc<Mutex<HashMap<RunId, usize>>>);

impl WaitingCalls {
    /// Counts a waiting call of this run until the guard is dropped.
    pub fn add(&self, run: RunId) -> WaitingCall {
        *self.all().entry(run).or_insert(0) += 1;
        WaitingCall { waiting: self.clone(), run }
    }
    /// How many calls wait.
    pub fn count(&self) -> usize {
        self.all().values().sum()
    }
    /// Whether a call of this run waits.
    pub fn contains(&self, run: RunId) -> bool {
        self.all().contains_key(&run)
    }
    fn all(&self) -> MutexGuard<'_, HashMap<RunId, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Guard of one waiting call.
pub(super) struct WaitingCall {
    waiting: WaitingCalls,
    run: RunId,
}

impl Drop for WaitingCall {
    fn drop(&mut self) {
        let mut all = self.waiting.all();
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
        let (waiting, a, b) = (WaitingCalls::default(), RunId(Uuid::from_u128(1)), RunId(Uuid::from_u128(2)));
        let (first, second, other) = (waiting.add(a), waiting.add(a), waiting.add(b));
        assert_eq!((waiting.count(), waiting.contains(a)), (3, true));
        drop(first);
        drop(other);
        assert_eq!((waiting.count(), waiting.contains(a), waiting.contains(b)), (1, true, false));
        drop(second);
        assert!(!waiting.contains(a));
    }
}
