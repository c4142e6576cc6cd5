//! What is done with an answer of the engine once its client has it: it is compared with the route's candidate, its
//! invariants are judged, and some requests are sent to legacy for a reverse comparison.
//!
//! Always true: nothing here waits.

use std::sync::Arc;

use super::candidate::CandidateOffer;
use crate::exchange::{EngineAnswered, Offer};

/// What is done with one answer.
pub(super) struct AfterAnswer {
    pub candidate: Option<CandidateOffer>,
    pub check: Option<(EngineAnswered, Arc<dyn Offer>)>,
}

impl AfterAnswer {
    /// `None` if there is nothing to do.
    pub(super) fn of(
        candidate: Option<CandidateOffer>,
        check: Option<(EngineAnswered, Arc<dyn Offer>)>,
    ) -> Option<Box<Self>> {
        (candidate.is_some() || check.is_some()).then(|| Box::new(Self { candidate, check }))
    }

    /// The exchange has ended. A request whose client went away is judged too: the engine has performed it.
    pub(super) fn end(self) {
        let Self { candidate, check } = self;
        if let Some(candidate) = candidate {
            candidate.end();
        }
        if let Some((answered, offer)) = check {
            offer.check(answered);
        }
    }
}
