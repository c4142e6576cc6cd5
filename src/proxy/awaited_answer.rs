//! Counts clients that leave before the engine has answered them.
//!
//! If the client has waited long, its request counts as one with an unknown outcome: otherwise an engine that hangs
//! longer than its clients wait would show no errors. A request that is cut by the end of the process does not count.

use std::time::Duration;

use super::drain;
use super::monotonic::now;
use super::shared::Shared;
use super::streamed_served::ServedRequest;
use crate::exchange::Served;

/// Exists while the engine has a request and has not answered it. If this value is dropped without a call of
/// [`AwaitedAnswer::end`], the client has left: if it waited long, its request counts as one with an unknown outcome.
pub(super) struct AwaitedAnswer<'a> {
    shared: &'a Shared,
    request: Option<&'a ServedRequest>,
    /// When the engine was asked, by [`now`].
    asked: u64,
}

impl<'a> AwaitedAnswer<'a> {
    pub(super) fn begin(shared: &'a Shared, request: &'a ServedRequest, asked: u64) -> Self {
        Self { shared, request: Some(request), asked }
    }

    /// Notes that the engine has answered: nothing is counted.
    pub(super) fn end(mut self) {
        self.request = None;
    }
}

impl Drop for AwaitedAnswer<'_> {
    fn drop(&mut self) {
        let Some(request) = self.request.filter(|_| !drain::cuts_workflows(self.shared)) else { return };
        let waited = Duration::from_micros(now().saturating_sub(self.asked));
        if request.observer.exceeds_usual_wait_at_legacy(&request.route, waited) {
            request.count(Served::Unknown, Some(waited), None);
        }
    }
}
