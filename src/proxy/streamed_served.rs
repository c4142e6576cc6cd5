//! Counts how the engine has served requests, for the evidence of their routes.
//!
//! Always true: an answer whose body a service sends counts when it has ended, once: as an answer if its client got all
//! of it, as an error of the engine if the service cut it, and not at all if the client or the end of the process did.
//! A client that leaves before the engine has answered, after a long time, counts too: otherwise an engine that hangs
//! longer than its clients wait would show no errors. One whose request is cut by the end of the process does not.

use std::sync::Arc;
use std::time::Duration;

use super::cut_reason::CutReason;
use super::drain;
use super::monotonic::now;
use super::shared::Shared;
use crate::exchange::{EngineAnswer, Served, ServedObserver};
use crate::flag::{EngineReason, State};
use crate::names::{RouteId, RunId};

/// Whether this outcome counts, of a request that went to the engine for this reason.
fn counts(reason: EngineReason, served: Served) -> bool {
    match reason {
        EngineReason::Rung | EngineReason::Pin | EngineReason::Adopted => true,
        // Nobody has judged that the callers of a cohort that is ahead of its route are like the others: their answers
        // do not support `only` for all. An error of the engine counts whoever the caller is.
        EngineReason::Cohort => !matches!(served, Served::Answered | Served::CallerError),
        // What became of the request was counted when its first try was answered.
        EngineReason::Retry => false,
    }
}

/// Counts how the engine has served one request.
#[derive(Clone)]
pub(super) struct ServedRequest {
    pub observer: Arc<dyn ServedObserver>,
    pub route: RouteId,
    pub files_version: u64,
    pub rung: State,
    pub reason: EngineReason,
}

impl ServedRequest {
    /// Counts it, with the time that the engine took and its run.
    pub(super) fn count(&self, served: Served, took: Option<Duration>, run: Option<RunId>) {
        let Self { observer, route, files_version, rung, reason } = self;
        if counts(*reason, served) {
            observer.served(route, *files_version, served);
        }
        // A retry was counted when its first try was answered.
        if *reason != EngineReason::Retry {
            observer.answered(route, EngineAnswer { files_version: *files_version, rung: *rung, served, took, run });
        }
    }

    /// Counts a request whose body is too large for the engine. That says nothing of what the engine does with others,
    /// so the guard does not learn of it.
    pub(super) fn count_too_large(&self) {
        if counts(self.reason, Served::FellBack) {
            self.observer.served(&self.route, self.files_version, Served::FellBack);
        }
    }
}

/// Exists while the engine has a request and has not answered it. If it is dropped before [`AwaitedAnswer::came`], the
/// client has left: the request counts as one with an unknown outcome if the client waited long.
pub(super) struct AwaitedAnswer<'a> {
    shared: &'a Shared,
    request: Option<&'a ServedRequest>,
    /// When the engine was asked, by [`now`].
    asked: u64,
}

impl<'a> AwaitedAnswer<'a> {
    pub(super) fn of(shared: &'a Shared, request: &'a ServedRequest, asked: u64) -> Self {
        Self { shared, request: Some(request), asked }
    }

    /// The engine has answered.
    pub(super) fn came(mut self) {
        self.request = None;
    }
}

impl Drop for AwaitedAnswer<'_> {
    fn drop(&mut self) {
        let Some(request) = self.request.filter(|_| !drain::cuts_workflows(self.shared)) else { return };
        let waited = Duration::from_micros(now().saturating_sub(self.asked));
        if request.observer.is_long_for_legacy(&request.route, waited) {
            request.count(Served::Unknown, Some(waited), None);
        }
    }
}

/// An answer that counts when its streamed body has ended.
pub(super) struct StreamedServed {
    pub request: ServedRequest,
    /// How long the engine took until the body began.
    pub took: Duration,
    pub run: Option<RunId>,
}

impl StreamedServed {
    /// The body has ended; `cut` says why if its client did not get all of it.
    pub(super) fn count(self, cut: Option<CutReason>) {
        let served = match cut {
            None => Served::Answered,
            Some(CutReason::ServiceReplyBroken | CutReason::ServiceReplyStalled | CutReason::ServiceReplySlow) => {
                Served::Error
            }
            Some(_) => return,
        };
        self.request.count(served, Some(self.took), self.run);
    }
}
