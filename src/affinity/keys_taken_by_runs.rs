//! Keys that this process, or an earlier one, took for legacy although a run has them in the store.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::sets::Sets;
use super::tries::Tries;
use crate::flag::RetryKey;

/// Handles keys that legacy took here and that runs of other processes have in the store. Such a key becomes "perhaps
/// the engine's", so that the next try asks the store. If an earlier process took it for legacy (only its file says
/// so), it is forgotten here; if this process did, its claim has failed and is repeated at the next try. The tries
/// before got 503, because their claims did not succeed.
pub(super) fn on_keys_taken_by_runs(tries: &Arc<Tries>, sets: &Arc<Sets>) -> impl Fn(Vec<RetryKey>) + use<> {
    let (tries, sets) = (Arc::clone(tries), Arc::clone(sets));
    move |keys| {
        for key in keys {
            sets.insert_engine_key(&key, Instant::now(), Duration::ZERO);
            if !tries.forget(&key, false) {
                tries.set_unclaimed(&key, true);
            }
        }
    }
}
