//! Requests by which routes of the files before, or of earlier ones, followed up instances of one creator, and that new
//! files give to a follower of another creator.
//!
//! Always true: what is found here may be too much, never too little. A request counts as taken unless a follower of
//! the same family had it before, or another route of the new files surely gets it. It makes no difference which of the
//! routes have a workflow: it may be added by the next edit.

use std::sync::Arc;

use super::family::family;
use super::positions::Positions;
use super::reassigned_requests::conventions;
use crate::flag::{Family, Instance, PathConventions, Route, RouteMatch, ServiceMatch};
use crate::names::RouteId;

/// A follower of new files that gets requests about instances of another creator than its own.
pub(super) struct TakenRequests<'a> {
    pub route: &'a Route,
    /// The family that it follows up.
    pub own: Family,
    /// The follower that had these requests.
    pub earlier_follower: &'a RouteId,
    /// The ids of the creator of the instances that the requests are about.
    pub other_family: &'a [RouteId],
}

/// Finds the followers of new files that get such requests, each with the first of them.
pub(super) fn find<'a>(before: &'a Positions, routes: &'a [Arc<Route>]) -> Vec<TakenRequests<'a>> {
    let sources: Vec<FollowedRequests<'a>> = before.followers.iter().flat_map(of_follower).collect();
    if sources.is_empty() {
        return Vec::new();
    }
    let known = before.scopes.iter().filter_map(|(id, stored)| {
        Some(Requests { id, matches: stored.matches.as_ref()?.parse().ok()?, paths: stored.paths.unwrap_or_default() })
    });
    let edit = Edit { sources, before: known.collect(), routes };
    routes.iter().filter_map(|route| edit.taken_by(route)).collect()
}

/// The requests of a route of the files before.
struct Requests<'a> {
    id: &'a RouteId,
    matches: RouteMatch,
    paths: PathConventions,
}

impl Requests<'_> {
    fn as_match(&self) -> ServiceMatch<'_> {
        ServiceMatch { matches: &self.matches, paths: self.paths }
    }
}

/// Requests by which a route followed up instances.
struct FollowedRequests<'a> {
    follower: &'a RouteId,
    family: &'a [RouteId],
    /// `None` if another version stored it, and this one cannot read it.
    requests: Option<Requests<'a>>,
    /// Whether the files before had them.
    is_present: bool,
}

fn of_follower<'a>(
    (id, followed): (&'a RouteId, &'a crate::store::FollowerRequests),
) -> impl Iterator<Item = FollowedRequests<'a>> {
    let parse = move |matches: &str, paths: Option<PathConventions>| {
        Some(Requests { id, matches: matches.parse().ok()?, paths: paths.unwrap_or_default() })
    };
    let present = FollowedRequests {
        follower: id,
        family: &followed.family,
        requests: parse(&followed.matches, followed.paths),
        is_present: !followed.is_absent,
    };
    let earlier = followed.earlier.iter().map(move |earlier| FollowedRequests {
        follower: id,
        family: &earlier.family,
        requests: parse(&earlier.matches, earlier.paths),
        is_present: false,
    });
    std::iter::once(present).chain(earlier)
}

/// What an edit of the files may move from one route to another.
struct Edit<'a> {
    sources: Vec<FollowedRequests<'a>>,
    /// The routes of the files before.
    before: Vec<Requests<'a>>,
    /// The routes of the new files.
    routes: &'a [Arc<Route>],
}

impl<'a> Edit<'a> {
    fn taken_by(&self, route: &'a Route) -> Option<TakenRequests<'a>> {
        route.instance.as_ref().filter(|instance| matches!(instance, Instance::Follows { .. }))?;
        let own = family(route, self.routes)?;
        let is_own = |family: &[RouteId]| own.ids().any(|id| family.contains(id));
        // By the files before: what followers of the same family matched.
        let own_before: Vec<&Requests<'_>> = self
            .sources
            .iter()
            .filter(|source| source.is_present && is_own(source.family))
            .filter_map(|source| source.requests.as_ref())
            .collect();
        let mut of_others = self.sources.iter().filter(|source| !is_own(source.family));
        let taken = of_others.find(|source| match &source.requests {
            Some(requests) => self.may_newly_get(route, &own_before, requests),
            None => true,
        })?;
        Some(TakenRequests { route, own: own.clone(), earlier_follower: taken.follower, other_family: taken.family })
    }

    /// Whether a follower may get some of these requests that no follower of its family had.
    fn may_newly_get(&self, route: &Route, own_before: &[&Requests<'_>], requests: &Requests<'_>) -> bool {
        let (own, others) = (ServiceMatch::of(route), requests.as_match());
        if !own.overlaps(&others) {
            return false;
        }
        let had_all = |was: &&&Requests<'_>| {
            was.matches.covers(&route.matches)
                && was.paths.match_all_of(&requests.paths)
                && !self.gets_from_another(route, own_before, was, requests)
        };
        let has_winner = || {
            let keeps = |other: &Arc<Route>| {
                is_another(other, route)
                    && other.matches.covers(&requests.matches)
                    && conventions(other).match_all_of(&requests.paths)
                    && ServiceMatch::of(other).surely_wins_over(&own)
            };
            self.routes.iter().any(keeps)
        };
        !own_before.iter().any(|was| had_all(&was)) && !has_winner()
    }

    /// Whether a route of the files before may have won some of these requests from `was`, which matched them too, and
    /// leaves them to this follower now.
    fn gets_from_another(
        &self,
        route: &Route,
        own_before: &[&Requests<'_>],
        was: &Requests<'_>,
        requests: &Requests<'_>,
    ) -> bool {
        let own = ServiceMatch::of(route);
        let is_unchanged = own.normal_form() == was.as_match().normal_form();
        let stays = |winner: &Requests<'_>| {
            let keeps = |other: &Arc<Route>| {
                let wins = ServiceMatch::of(other);
                let is_winner = wins.normal_form() == winner.as_match().normal_form();
                is_another(other, route)
                    && other.matches.covers(&winner.matches)
                    && conventions(other).match_all_of(&winner.paths)
                    && (wins.surely_wins_over(&own) || (is_winner && is_unchanged))
            };
            self.routes.iter().any(keeps)
        };
        self.before.iter().any(|winner| {
            let is_own = own_before.iter().any(|own| own.id == winner.id);
            let won = winner.as_match();
            !is_own
                && won.overlaps(&own)
                && won.overlaps(&requests.as_match())
                && won.may_win_over(&was.as_match())
                && !stays(winner)
        })
    }
}

fn is_another(other: &Route, route: &Route) -> bool {
    other.id != route.id
}
