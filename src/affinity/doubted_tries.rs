//! Keys that legacy took here and that the store has as taken by runs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::sets::Sets;
use super::tries::Tries;
use crate::flag::RetryKey;

/// What becomes of keys that legacy took here and that runs of other processes have in the store: the next try finds
/// that they are the engine's. The tries before got 503, since their claims did not succeed. Of a key that an earlier
/// process took nothing is known but its file, and the store knows better.
pub(super) fn doubt_taken_by_runs(tries: &Arc<Tries>, sets: &Arc<Sets>) -> impl Fn(Vec<RetryKey>) + use<> {
    let (tries, sets) = (Arc::clone(tries), Arc::clone(sets));
    move |keys| {
        for key in keys {
            sets.insert_engine_key(&key, Instant::now(), Duration::ZERO);
            if !tries.forget(&key, false) {
                tries.set_unproven(&key, true);
            }
        }
    }
}
