//! What is done with an answer of the engine once its client has it: it is compared with the route's candidate, its
//! invariants are judged, and some requests are sent to legacy for a reverse comparison.
//!
//! The settler does this: it takes locks that threads of lower priority may hold.

use std::sync::Arc;

use super::candidate::CandidateOffer;
use crate::exchange::{EngineAnswered, Offer};
use crate::flag::SkipReason;

/// What is done with one answer.
pub(super) struct AfterAnswer {
    pub candidate: Option<CandidateOffer>,
    pub check: Option<(EngineAnswered, Arc<dyn Offer>)>,
}

impl AfterAnswer {
    /// `None` if there is nothing to do.
    pub(super) fn new(
        candidate: Option<CandidateOffer>,
        check: Option<(EngineAnswered, Arc<dyn Offer>)>,
    ) -> Option<Box<Self>> {
        (candidate.is_some() || check.is_some()).then(|| Box::new(Self { candidate, check }))
    }

    /// How many bytes it keeps in memory.
    pub(super) fn bytes(&self) -> usize {
        let of_candidate = self.candidate.as_ref().map_or(0, |candidate| candidate.answered.bytes());
        of_candidate.saturating_add(self.check.as_ref().map_or(0, |(answered, _)| answered.bytes()))
    }

    /// Like [`Self::end`], but without the comparison with the candidate, for which there is no room.
    pub(super) fn end_without_room(mut self) {
        if let Some(candidate) = self.candidate.take() {
            candidate.ticket.skip(SkipReason::QueueFull);
        }
        self.end();
    }

    /// Does what follows the exchange, which has ended. A request whose client went away is judged too: the engine has
    /// performed it.
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
