//! Unwatched requests whose values have not been read: they were refused, or evicted from the index.
//!
//! Always true: each unwatched request is among the [`EarlierRequests`] from then on, so that a call that it may have
//! caused is not given to another request that is in the same trace, or has the same header or value. A request whose
//! value has not been read is added by its trace at first, and again by its value once that is known. If too many wait
//! for their values, the oldest ones stay known by their traces alone.

use std::collections::VecDeque;
use std::sync::Arc;

use super::earlier_requests::EarlierRequests;
use super::watched::{KnownValue, WatchedRequest};

/// The most requests that wait for their values.
const UNREAD_MAX: usize = 1_024;

/// Unwatched requests whose values have not been read.
#[derive(Default)]
pub(super) struct UnreadUnwatchedRequests(VecDeque<Arc<WatchedRequest>>);

impl UnreadUnwatchedRequests {
    /// Adds requests that are unwatched from now on, and those whose values are known by now, to `earlier`. Not called
    /// by threads that serve clients: it reads values.
    pub(super) fn add(
        &mut self,
        unwatched: impl IntoIterator<Item = Arc<WatchedRequest>>,
        now_us: u64,
        earlier: &mut EarlierRequests,
    ) {
        self.0.retain(|one| {
            let is_waiting = !try_read_value(one) && one.accepts_calls(now_us);
            if !is_waiting {
                earlier.add(one, now_us);
            }
            is_waiting
        });
        for one in unwatched {
            let is_waiting = !try_read_value(&one) && one.accepts_calls(now_us);
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

/// Reads the value if it is not known and can be read now. Returns whether it is known then.
fn try_read_value(one: &WatchedRequest) -> bool {
    let is_known = || !matches!(one.known_value(), KnownValue::Unknown);
    is_known() || {
        one.value_key();
        is_known()
    }
}
