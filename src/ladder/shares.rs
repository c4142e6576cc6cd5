//! Finds files that would put other callers in the share of a route. The callers are selected by a hash of their key
//! and of the oldest id of the route; for a follower, of the oldest id of its creator.

use super::plans;
use super::positions::{Positions, RoutePosition};
use crate::flag::{Instance, Percent, State};
use crate::names::RouteId;

/// A sentence for each route whose share would get other callers by the new files, because the oldest id in the hash
/// would be another one. Only shares below 100 % count: of the route, in `dark` or `live`, or of its candidate.
pub(super) fn changed_share_sentences(before: &Positions, after: &Positions) -> Vec<String> {
    let sentence = |position: &RoutePosition| {
        let hashed_route = match &position.route.instance {
            Some(Instance::Follows { creator, .. }) => &after.routes.get(creator)?.route,
            _ => &position.route,
        };
        let scopes = hashed_route.ids().filter_map(|id| before.scopes.get(id)?.present.as_ref());
        let oldest: Vec<&RouteId> = scopes.map(|scope| &scope.route).collect();
        let (id, next) = (&position.route.id, hashed_route.first_id());
        // A route that takes the place of several has the oldest id of one of them.
        let oldest = oldest.first().filter(|_| !oldest.contains(&next))?;
        let whose = if hashed_route.id == *id { "its oldest id" } else { "the oldest id of its creator" };
        let (share, between, or_first) = match (has_share(position), candidate_has_share(after, position)) {
            (true, _) => (
                "the share",
                "legacy and the engine",
                "give the route a share of 100 % or a state below `dark`".to_owned(),
            ),
            (false, true) => (
                "the share of the candidate",
                "the plan in force and the candidate",
                format!("take that share away (`pointsman flip {id} --candidate shadow`)"),
            ),
            (false, false) => return None,
        };
        Some(format!(
            "the callers in {share} of `{id}` are chosen by a hash of {whose}, which is `{oldest}` and would be `{next}` \
             now: callers would change between {between}. Leave `{oldest}` the oldest id (the last in `was:`; another \
             one may be left out), or first {or_first}"
        ))
    };
    after.routes.values().filter_map(sentence).collect()
}

/// Whether some callers are in the share of the route's candidate and others are not, by a hash.
fn candidate_has_share(positions: &Positions, position: &RoutePosition) -> bool {
    let is_by_hash = position.route.key.is_some() || matches!(position.route.instance, Some(Instance::Follows { .. }));
    is_by_hash && plans::has_part_of_requests(positions, &position.route.id)
}

/// Whether some callers are in the share of the route's rung and others are not.
fn has_share(position: &RoutePosition) -> bool {
    matches!(position.rung(), State::Dark | State::Live) && position.inputs.shares.of(position.rung()) < Percent::ALL
}
