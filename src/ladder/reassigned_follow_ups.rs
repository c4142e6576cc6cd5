//! Finds follow-ups that new files reassign from a follower of one creator to a follower of another creator.
//!
//! Example: `orders.read` follows up `orders.create` and matches `GET /orders/{id}`; `drafts.read` follows up
//! `drafts.create` and matches `GET /drafts/{id}`. New files without `drafts.read`, in which `orders.read` matches
//! `GET /{kind}/{id}`, reassign `GET /drafts/17` to `orders.read`. The caller, `joined_families`, decides whether such
//! files are refused.
//!
//! Always true: it may find too much, never too little. A follow-up counts as reassigned unless a follower of the same
//! family had it before, or the new files surely send it to another route. The follow-ups of earlier files count too,
//! and so do routes without a workflow, because the next edit may add one.

use std::sync::Arc;

use super::family::family;
use super::positions::Positions;
use super::reassigned_requests::conventions;
use crate::flag::{Family, Instance, PathConventions, Route, RouteMatch, ServiceMatch};
use crate::names::RouteId;

/// Follow-ups about instances of one creator that a follower of another creator gets by new files.
pub(super) struct ReassignedFollowUps<'a> {
    /// The route that gets them.
    pub follower: &'a Route,
    /// The family that it follows up by the new files.
    pub own_family: Family,
    /// The route that had them.
    pub earlier_follower: &'a RouteId,
    /// The ids of the creator that `earlier_follower` follows, or followed, up.
    pub other_family: &'a [RouteId],
}

/// Finds the followers of new files that get follow-ups of another creator's follower. If a follower gets those of
/// several routes, only the first is named.
pub(super) fn find<'a>(before: &'a Positions, routes: &'a [Arc<Route>]) -> Vec<ReassignedFollowUps<'a>> {
    let known_follow_ups: Vec<KnownFollowUps<'a>> = before.followers.iter().flat_map(of_follower).collect();
    if known_follow_ups.is_empty() {
        return Vec::new();
    }
    let routes_before = before.scopes.iter().filter_map(|(id, stored)| {
        Some(RouteRequests {
            id,
            matches: stored.matches.as_ref()?.parse().ok()?,
            paths: stored.paths.unwrap_or_default(),
        })
    });
    let edit = FilesEdit { known_follow_ups, routes_before: routes_before.collect(), routes };
    routes.iter().filter_map(|route| edit.reassigned_to(route)).collect()
}

/// The requests that a route of earlier files matched.
struct RouteRequests<'a> {
    id: &'a RouteId,
    matches: RouteMatch,
    paths: PathConventions,
}

impl RouteRequests<'_> {
    fn as_match(&self) -> ServiceMatch<'_> {
        ServiceMatch { matches: &self.matches, paths: self.paths }
    }
}

/// Follow-ups that a follower has by the files before, or had by earlier ones.
struct KnownFollowUps<'a> {
    follower: &'a RouteId,
    /// The ids of the creator.
    family: &'a [RouteId],
    /// `None` if another version stored them in a form that this one cannot read.
    requests: Option<RouteRequests<'a>>,
    /// Whether the follower has them by the files before; `false`: only by earlier files.
    is_present: bool,
}

fn of_follower<'a>(
    (id, followed): (&'a RouteId, &'a crate::store::FollowerRequests),
) -> impl Iterator<Item = KnownFollowUps<'a>> {
    let parse = move |matches: &str, paths: Option<PathConventions>| {
        Some(RouteRequests { id, matches: matches.parse().ok()?, paths: paths.unwrap_or_default() })
    };
    let present = KnownFollowUps {
        follower: id,
        family: &followed.family,
        requests: parse(&followed.matches, followed.paths),
        is_present: !followed.is_absent,
    };
    let earlier = followed.earlier.iter().map(move |earlier| KnownFollowUps {
        follower: id,
        family: &earlier.family,
        requests: parse(&earlier.matches, earlier.paths),
        is_present: false,
    });
    std::iter::once(present).chain(earlier)
}

/// The edit from the files before to the new files.
struct FilesEdit<'a> {
    known_follow_ups: Vec<KnownFollowUps<'a>>,
    routes_before: Vec<RouteRequests<'a>>,
    /// The routes of the new files.
    routes: &'a [Arc<Route>],
}

impl<'a> FilesEdit<'a> {
    /// The first follow-ups of another family that may be reassigned to this route of the new files.
    fn reassigned_to(&self, route: &'a Route) -> Option<ReassignedFollowUps<'a>> {
        route.instance.as_ref().filter(|instance| matches!(instance, Instance::Follows { .. }))?;
        let own_family = family(route, self.routes)?;
        let is_own = |family: &[RouteId]| own_family.ids().any(|id| family.contains(id));
        // What followers of the same family had by the files before.
        let own_before: Vec<&RouteRequests<'_>> = self
            .known_follow_ups
            .iter()
            .filter(|known| known.is_present && is_own(known.family))
            .filter_map(|known| known.requests.as_ref())
            .collect();
        let mut of_others = self.known_follow_ups.iter().filter(|known| !is_own(known.family));
        let first = of_others.find(|known| match &known.requests {
            Some(requests) => self.may_newly_get(route, &own_before, requests),
            None => true,
        })?;
        let (earlier_follower, other_family) = (first.follower, first.family);
        Some(ReassignedFollowUps { follower: route, own_family: own_family.clone(), earlier_follower, other_family })
    }

    /// Whether this route may get some of these follow-ups of another family that no follower of its own family had.
    /// `own_before`: what the followers of its own family matched by the files before.
    fn may_newly_get(&self, route: &Route, own_before: &[&RouteRequests<'_>], requests: &RouteRequests<'_>) -> bool {
        let (own, others) = (ServiceMatch::of(route), requests.as_match());
        if !own.overlaps(&others) {
            return false;
        }
        let had_all = |was: &&&RouteRequests<'_>| {
            was.matches.covers(&route.matches)
                && was.paths.match_all_of(&requests.paths)
                && !self.loses_winner(route, own_before, was, requests)
        };
        let another_gets_all = || {
            let gets_all = |other: &Arc<Route>| {
                is_another(other, route)
                    && other.matches.covers(&requests.matches)
                    && conventions(other).match_all_of(&requests.paths)
                    && ServiceMatch::of(other).surely_wins_over(&own)
            };
            self.routes.iter().any(gets_all)
        };
        !own_before.iter().any(|was| had_all(&was)) && !another_gets_all()
    }

    /// Whether some of these requests may have gone, by the files before, to a route that won over `was` (a follower of
    /// the same family as `route`), and may go to `route` now, because no route of the new files takes that route's
    /// place. Then `was` matched the requests, but did not get them.
    fn loses_winner(
        &self,
        route: &Route,
        own_before: &[&RouteRequests<'_>],
        was: &RouteRequests<'_>,
        requests: &RouteRequests<'_>,
    ) -> bool {
        let own = ServiceMatch::of(route);
        let is_unchanged = own.normal_form() == was.as_match().normal_form();
        let stays = |winner: &RouteRequests<'_>| {
            let takes_its_place = |other: &Arc<Route>| {
                let match_now = ServiceMatch::of(other);
                let is_winner = match_now.normal_form() == winner.as_match().normal_form();
                is_another(other, route)
                    && other.matches.covers(&winner.matches)
                    && conventions(other).match_all_of(&winner.paths)
                    && (match_now.surely_wins_over(&own) || (is_winner && is_unchanged))
            };
            self.routes.iter().any(takes_its_place)
        };
        self.routes_before.iter().any(|winner| {
            let is_of_own_family = own_before.iter().any(|own| own.id == winner.id);
            let won = winner.as_match();
            !is_of_own_family
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
