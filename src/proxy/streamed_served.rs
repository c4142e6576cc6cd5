//! Counts how the engine has served requests, for the evidence of their routes.
//!
//! Always true: an answer whose body a service sends counts when it has ended, once: as an answer if its client got all
//! of it, as an error of the engine if the service cut it, and not at all if the client or the end of the process did.

use std::sync::Arc;
use std::time::Duration;

use super::cut_reason::CutReason;
use crate::exchange::{EngineAnswer, Served, ServedObserver};
use crate::flag::{EngineReason, State};
use crate::names::{RouteId, RunId};

/// Whether this outcome counts for the evidence, if the request went to the engine for this reason.
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
    /// Counts the request, with the time that the engine took and its run.
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

/// An answer that counts when its streamed body has ended.
pub(super) struct StreamedServed {
    pub request: ServedRequest,
    /// How long the engine took until the body began.
    pub took: Duration,
    pub run: Option<RunId>,
}

impl StreamedServed {
    /// Counts the answer, whose body has ended; `cut` says why if its client did not get all of it.
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
