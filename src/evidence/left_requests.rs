//! The requests that a route has given up, and the routes that take them over.
//!
//! Always true: a route has given up a request if, by the files, the route no longer matches the request, or no longer
//! has a workflow (without one, nothing is compared). What its evidence says of differences is handed over to each
//! route that gets some of the requests. This ends when one route gets exactly the same requests: that route's evidence
//! tells of the differences from then on.

use super::basis::{EvidenceBasis, WantedPairs};
use super::counters::Counters;
use super::matched_requests::MatchedRequests;
use crate::names::RouteId;

/// Whether the route that has given up its requests is still in the files.
#[derive(Clone, Copy)]
pub(super) enum LeavingRoute {
    /// It is not in the files any more.
    IsAbsent,
    /// It is in the files, with other requests, or without a workflow.
    HasOthers,
}

/// Requests that a route has given up and another route takes over unchanged: the other route matches exactly these.
pub(super) struct TakenRequests {
    /// Set if the requests that the first route had until now are taken over: says whether that route is still in
    /// the files.
    present: Option<LeavingRoute>,
    /// The texts of the requests that the first route had in earlier files and that are taken over.
    earlier: Vec<String>,
}

impl TakenRequests {
    pub(super) fn is_empty(&self) -> bool {
        self.present.is_none() && self.earlier.is_empty()
    }
}

/// The requests that a route has given up.
pub(super) struct LeftRequests {
    /// The requests that it had until now; `None` if it still has them.
    present: Option<MatchedRequests>,
    /// The requests that it had in earlier files, each with its text in the store.
    earlier: Vec<(String, MatchedRequests)>,
    leaving: LeavingRoute,
}

impl LeftRequests {
    /// `next`: the basis that the files give the route; `None` if it is not in the files.
    pub(super) fn of(counters: &Counters, next: Option<&EvidenceBasis>) -> Self {
        let kept = next.filter(|next| next.plan.is_some()).and_then(|next| MatchedRequests::of(&next.parts));
        let is_left = |requests: &MatchedRequests| !kept.as_ref().is_some_and(|kept| kept.cover(requests));
        let parse = |text: &String| Some((text.clone(), MatchedRequests::parse(text)?));
        Self {
            present: MatchedRequests::of(&counters.parts).filter(is_left),
            earlier: counters
                .earlier_matches
                .iter()
                .filter_map(parse)
                .filter(|(_, earlier)| is_left(earlier))
                .collect(),
            leaving: next.map_or(LeavingRoute::IsAbsent, |_| LeavingRoute::HasOthers),
        }
    }

    /// Whether `successor` takes over some of these requests now. What was given up in earlier files counts only if
    /// `successor` matches other requests than before: otherwise it has taken those over already.
    pub(super) fn are_taken_by(&self, successor: &SuccessorRoute<'_>) -> bool {
        let mut earlier = self.earlier.iter().filter(|_| successor.has_others_than_before);
        self.present.as_ref().is_some_and(|present| present.overlap(&successor.requests))
            || earlier.any(|(_, earlier)| earlier.overlap(&successor.requests))
    }

    /// The requests that one of `successors` takes over unchanged. `route`: the route that has given them up.
    pub(super) fn taken_unchanged(&self, route: &RouteId, successors: &[SuccessorRoute<'_>]) -> TakenRequests {
        let is_taken = |requests: &MatchedRequests| {
            successors.iter().any(|successor| successor.route != route && successor.requests.are_same_as(requests))
        };
        let earlier = self.earlier.iter().filter(|(_, requests)| is_taken(requests));
        TakenRequests {
            present: self.present.as_ref().filter(|present| is_taken(present)).map(|_| self.leaving),
            earlier: earlier.map(|(text, _)| text.clone()).collect(),
        }
    }
}

/// A route in the files that may take over requests.
pub(super) struct SuccessorRoute<'a> {
    pub(super) route: &'a RouteId,
    pub(super) requests: MatchedRequests,
    pub(super) has_others_than_before: bool,
    pub(super) wanted: WantedPairs,
}

impl Counters {
    /// Forgets requests that another route has taken over unchanged: that route's evidence tells of them from now on.
    pub(super) fn forget_requests(&mut self, taken: &TakenRequests) {
        match taken.present {
            Some(LeavingRoute::IsAbsent) => MatchedRequests::remove_from(&mut self.parts),
            Some(LeavingRoute::HasOthers) => self.is_match_handed_over = true,
            None => {}
        }
        self.earlier_matches.retain(|earlier| !taken.earlier.contains(earlier));
        self.dirty |= taken.present.is_some() || !taken.earlier.is_empty();
    }
}
