//! Requests that were left out because there was no room: they were refused, or evicted from the index.
//!
//! Always true: each of them is among the [`EarlierRequests`] from then on, so that a call that it may have caused is
//! not given to another request that is in the same trace, or has the same header or value. Where its value has not
//! been read, it gets there by its trace at first and by its value once that is known, unless too many wait for theirs.

use std::collections::VecDeque;
use std::sync::Arc;

use super::late_calls::EarlierRequests;
use super::watched::{KnownValue, WatchedRequest};

/// The most requests that wait for their values.
const UNREAD_MAX: usize = 1_024;

/// Requests that were left out and whose values have not been read.
#[derive(Default)]
pub(super) struct LeftOutRequests(VecDeque<Arc<WatchedRequest>>);

impl LeftOutRequests {
    /// Adds requests that were left out, and those whose values are known by now, to `earlier`. Not called by threads
    /// that serve clients: it reads values.
    pub(super) fn add(
        &mut self,
        left_out: impl IntoIterator<Item = Arc<WatchedRequest>>,
        now_us: u64,
        earlier: &mut EarlierRequests,
    ) {
        self.0.retain(|one| {
            let is_waiting = is_value_unknown(one) && one.accepts_calls(now_us);
            if !is_waiting {
                earlier.add(one, now_us);
            }
            is_waiting
        });
        for one in left_out {
            let is_waiting = is_value_unknown(&one) && one.accepts_calls(now_us);
            earlier.add(&one, now_us);
            if is_waiting {
                self.0.push_back(one);
            }
            if self.0.len() > UNREAD_MAX {
                self.0.pop_front();
            }
        }
    }
}

/// Reads the value if that is possible now.
fn is_value_unknown(one: &WatchedRequest) -> bool {
    let is_unknown = || matches!(one.known_value(), KnownValue::Unknown);
    is_unknown() && {
        one.value_key();
        is_unknown()
    }
}
