//! Flips to `only` that a freeze overtook: it came in force while they waited for the store.
//!
//! A freeze does not lower a route in `only`, so such a flip must not come in force. The store has it by then, so it is
//! taken back by another flip.
//!
//! Always true: while a freeze is in force, no set is in force in which another route is in `only` than before the
//! freeze. In the store, the flip that takes back comes before the freeze, so that a restart does not find the route in
//! `only` during a recorded freeze.

use super::mover::{Mover, log};
use super::positions::{Positions, RoutePosition};
use super::record::{Recording, record};
use super::types::{FlipSource, Move};
use super::{files, holds};
use crate::flag::{Route, State};
use crate::names::RouteId;

/// The reason of the flips that take back.
const REASON: &str =
    "taken back: a freeze came in force before the flip to `only` did, and would not stop the engine there";

/// Keeps routes that come to `only` on the rung that they had before, and returns them.
pub(super) fn keep_below_only(before: &Positions, after: &mut Positions) -> Vec<RouteId> {
    let is_in_only = |at: &RoutePosition| at.rung() == State::Only;
    let mut kept = Vec::new();
    for (id, at) in after.routes.iter_mut().filter(|(_, at)| is_in_only(at)) {
        if before.routes.get(id).is_some_and(is_in_only) {
            continue;
        }
        // The route by its earlier ids, and the one of which it was a part.
        let is_own = |other: &&RoutePosition| other.route.ids().any(|id| at.route.ids().any(|own| own == id));
        let rungs: Vec<State> = before.routes.values().filter(is_own).map(RoutePosition::rung).collect();
        if rungs.contains(&State::Only) {
            continue;
        }
        at.inputs.gate = Some(rungs.into_iter().min().unwrap_or(files::UNPROVEN_MAX));
        at.inputs.is_held = false;
        at.inputs.returns_at_restart = true;
        kept.push(id.clone());
    }
    kept
}

/// What the caller of a flip is told.
pub(super) fn refusal(route: &RouteId, stays: State) -> String {
    format!(
        "a freeze came in force while this flip waited for the store: it is taken back, and `{route}` stays in `{stays}`. \
         End the freeze first (`pointsman freeze --off`)"
    )
}

fn position_before<'a>(before: &'a Positions, route: &Route) -> Option<&'a RoutePosition> {
    route.ids().find_map(|id| before.routes.get(id))
}

impl Mover {
    /// Records that these routes, which are kept below `only` already, are not there. Where the store refuses that,
    /// they stay below it all the same; the caller starts the task that records it later.
    pub(super) async fn take_back(&self, overtaken: &[RouteId], before: &Positions) {
        let mut positions = self.in_force().inputs().positions;
        let mut flips = Vec::new();
        for id in overtaken {
            let Some(at) = positions.routes.get(id) else { continue };
            let (was, to) = (position_before(before, &at.route), at.rung());
            tracing::warn!(route = %id, stays = %to, "a freeze overtook the flip of this route to `only`: it is taken back");
            let step = Move {
                route: id.clone(),
                from: State::Only,
                to,
                shares: was.map_or(at.inputs.shares, |was| was.inputs.shares),
                reason: Some(REASON.to_owned()),
                overridden: was.and_then(|was| self.gate().overridden(before, was, to)),
            };
            let by = at.last.as_ref().map_or(FlipSource::File.as_str(), |flip| flip.by.as_str()).to_owned();
            flips.push(self.flip_record(&positions, step, by));
            // A move that the file asks for is judged again at the next reading.
            match before.remembered(&at.route) {
                Some(declared) => positions.remembered.insert(id.clone(), declared),
                None => positions.remembered.remove(id),
            };
        }
        let recording = Recording { flips: flips.clone(), declared: Some(positions.rows()) };
        let outcome = match self.check_no_flips_wait() {
            Ok(()) => record(&self.store, recording).await,
            Err(error) => Err(error),
        };
        let is_recorded = outcome.is_ok();
        if let Err(error) = &outcome {
            tracing::warn!(%error, "the store has not recorded it: a restart would put these routes in `only`");
        }
        for flip in outcome.unwrap_or(flips) {
            let Some(route) = flip.route.clone() else { continue };
            let source = if flip.by == FlipSource::File.as_str() { FlipSource::File } else { FlipSource::Api };
            let flip = if is_recorded { flip } else { self.unrecorded_flips.add(flip, State::Only, &positions) };
            if is_recorded {
                log(&flip, source);
            }
            positions.apply_flip(&route, flip);
            holds::lower_after_flip(&mut positions, &route, self.gate());
        }
        let _already_kept = self.put_in_force(positions);
    }
}
