//! Counts how the engine has served requests, for the evidence of their routes.
//!
//! Always true: an answer whose body a service sends counts when it has ended, once: as an answer if its client got all
//! of it, as an error of the engine if the service cut it, and not at all if the client or the end of the process did.

use std::sync::Arc;

use super::cut::Cut;
use crate::exchange::{Served, ServedObserver};
use crate::flag::EngineReason;
use crate::names::RouteId;

/// Whether this outcome counts, of a request that went to the engine for this reason.
pub(super) fn counts(reason: EngineReason, served: Served) -> bool {
    match reason {
        EngineReason::Rung | EngineReason::Pin => true,
        // Nobody has judged that the callers of a forced cohort are like the others: their answers do not support
        // `only` for all. An error of the engine counts whoever the caller is.
        EngineReason::ForcedCohort => !matches!(served, Served::Answered | Served::CallerError),
        // What became of the request was counted when its first try was answered.
        EngineReason::Retry => false,
    }
}

/// An answer that counts when its streamed body has ended.
pub(super) struct StreamedServed {
    pub observer: Arc<dyn ServedObserver>,
    pub route: RouteId,
    pub files_version: u64,
    pub reason: EngineReason,
}

impl StreamedServed {
    /// The body has ended; `cut` says why if its client did not get all of it.
    pub(super) fn count(self, cut: Option<Cut>) {
        let served = match cut {
            None => Served::Answered,
            Some(Cut::ServiceReplyBroken | Cut::ServiceReplyStalled | Cut::ServiceReplySlow) => Served::Error,
            Some(_) => return,
        };
        if counts(self.reason, served) {
            self.observer.served(&self.route, self.files_version, served);
        }
    }
}
