//! New files under which a route would leave `only`, where legacy is not called at all.
//!
//! Files lower a route from `only` only with `force` beside its state: that takes the place of the acknowledgement that
//! a flip needs. Without it a reload is refused as a whole, also if the files remove the route. A start is not refused,
//! because all other routes would be without service: the route stays in `only` and its status says why; if the files
//! have removed it, an error is logged.

use super::positions::{Positions, RoutePosition, state_of};
use super::separated;
use crate::flag::State;
use crate::names::RouteId;

/// Why a route in `only` does not go down as its file says.
pub(super) fn no_acknowledgement(id: &RouteId, to: State) -> String {
    format!(
        "`{id}` is in `only`, where legacy is not called at all, and going down needs an acknowledgement: write \
         `force: {{ reason: … }}` beside `state: {to}`, or flip it down first (`pointsman flip {id} {to} --yes`)"
    )
}

/// A sentence for each route in `only` that new files lower or remove without an acknowledgement. At a start nothing
/// was in force before, so there are none.
pub(super) fn lowered_without_acknowledgement(before: &Positions, after: &Positions) -> Vec<String> {
    let in_only = before.routes.values().filter(|at| at.rung() == State::Only);
    let sentence = |(id, next): (&RouteId, &RoutePosition)| {
        let (next_id, declared, rung) = (&next.route.id, next.route.declared, next.rung());
        let refused = no_acknowledgement(next_id, declared);
        if next.refused.contains(&refused) {
            return Some(refused);
        }
        // A route may also go down without an edit of `state:`: the file has lost its workflow; the file has lost the
        // `force` which had put it in `only` without a flip; or another route takes its place and keeps its own state.
        (rung < State::Only && next.route.force.is_none()).then(|| {
            format!(
                "`{id}` is in `only`, where legacy is not called at all, and these files would put `{next_id}` in `{rung}`: \
                 that needs an acknowledgement. Write `force: {{ reason: … }}` beside `state: {declared}` (a route keeps its \
                 state under another id only with `was:`), or flip it down first (`pointsman flip {id} {rung} --yes`)"
            )
        })
    };
    let sentences = |position: &RoutePosition| {
        let id = &position.route.id;
        // The routes that have its id now: several if it was a joined route that is separated again.
        let takes_place = |own: &RouteId| own == id || separated::has_joined(before, id, own);
        let next: Vec<_> = after.routes.values().filter(|next| next.route.ids().any(takes_place)).collect();
        if next.is_empty() {
            return vec![format!(
                "`{id}` is in `only`, where legacy is not called at all, and without it legacy would get its requests. Flip \
                 it down first (`pointsman flip {id} off --yes`), then remove it; if it has another id now, add `was: [{id}]` \
                 to it"
            )];
        }
        next.into_iter().filter_map(|next| sentence((id, next))).collect()
    };
    in_only.flat_map(sentences).collect()
}

/// Logs at a start which routes in `only` have left the files, or lost their workflow.
pub(super) fn log_removed(before: &Positions, after: &Positions) {
    for id in removed_in_only(before, after) {
        tracing::error!(
            route = %id,
            "this route was in `only`, and the files do not have it or its workflow any more: legacy gets its requests \
             now. To undo this, put the route back into the files and flip it up again; it starts as a new route"
        );
    }
}

/// At a start: the routes that a flip put in `only` and that have left the files, or lost their workflow, since the
/// files were last read.
pub(super) fn removed_in_only<'a>(before: &'a Positions, after: &'a Positions) -> impl Iterator<Item = &'a RouteId> {
    let with_workflow = || after.routes.values().filter(|at| at.route.workflow.is_some());
    let is_present = move |id: &RouteId| with_workflow().any(|position| position.route.ids().any(|own| own == id));
    let was_present = |id: &RouteId| before.scopes.get(id).is_some_and(|scopes| scopes.present.is_some());
    let in_only = before.flips.iter().filter(|(_, flip)| state_of(flip) == State::Only).map(|(id, _)| id);
    in_only.filter(move |id| was_present(id) && !is_present(id))
}
