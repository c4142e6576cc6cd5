//! Files that would put other callers in the share of a route. The callers are drawn by the route's oldest id.

use super::positions::{Positions, RoutePosition};
use crate::flag::{Percent, State};

/// A sentence for each route with a share below 100 % in `dark` or `live` whose oldest id new files change.
pub(super) fn drawn_anew(before: &Positions, after: &Positions) -> Vec<String> {
    let sentence = |at: &RoutePosition| {
        let scopes = at.route.ids().find_map(|id| before.scopes.get(id)?.present.as_ref());
        let oldest = scopes.map(|scope| &scope.route).filter(|oldest| *oldest != at.route.first_id())?;
        let (id, next) = (&at.route.id, at.route.first_id());
        has_share(at).then(|| {
            format!(
                "the callers in the share of `{id}` are drawn by its oldest id, which is `{oldest}` and would be `{next}` \
                 now: callers would change between legacy and the engine. Leave `{oldest}` the oldest id (the last in \
                 `was:`; another one may be left out), or first give the route a share of 100 % or a state below `dark`"
            )
        })
    };
    after.routes.values().filter_map(sentence).collect()
}

/// Whether some callers are in a share of the route and others are not.
fn has_share(at: &RoutePosition) -> bool {
    let shares = [State::Dark, State::Live].into_iter().filter(|rung| *rung <= at.rung());
    at.rung() < State::Only && shares.into_iter().any(|rung| at.inputs.shares.of(rung) < Percent::ALL)
}
