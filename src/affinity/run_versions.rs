//! With which version of its route's workflow each run that created an instance began.
//!
//! Always true: a run keeps its version for its whole life, so an answer stays true. It comes from the store, where the
//! run is before its instance can be followed up: a restart, also after a kill, changes no answer.
//!
//! When the store is slow or gone, a question ends without an answer after a bounded time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::names::{PlanSet, RunId};
use crate::store::{StoreHandle, run_began_with};

/// How many answers are remembered. They are asked for only while a route and the creator of its instances have
/// candidates.
const ANSWERS_MAX: usize = 10_000;

/// What is known of runs.
#[derive(Default)]
pub(super) struct RunVersions(Mutex<HashMap<(RunId, Arc<PlanSet>), bool>>);

impl RunVersions {
    /// Whether a run began with these plans; `None` if that is not known. Waits at most `at_most`.
    pub(super) async fn began_with(
        &self,
        store: &StoreHandle,
        run: RunId,
        plans: &Arc<PlanSet>,
        at_most: Duration,
    ) -> Option<bool> {
        let question = (run, Arc::clone(plans));
        if let Some(known) = self.lock().get(&question) {
            return Some(*known);
        }
        let found = match tokio::time::timeout(at_most, run_began_with(&**store, run, plans)).await {
            Ok(Ok(found)) => found?,
            Ok(Err(error)) => {
                tracing::warn!(%run, %error, "the store could not say which version of its workflow created an instance");
                return None;
            }
            Err(_) => {
                tracing::warn!(%run, waited = ?at_most, "the store did not say in time which version created an instance");
                return None;
            }
        };
        let mut answers = self.lock();
        if answers.len() >= ANSWERS_MAX {
            answers.clear();
        }
        answers.insert(question, found);
        Some(found)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<(RunId, Arc<PlanSet>), bool>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
