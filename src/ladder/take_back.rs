//! Takes back the flips to `only` that a freeze overtook, by a second flip.

use super::holds;
use super::mover::{Mover, log};
use super::positions::{Positions, RoutePosition};
use super::record::Recording;
use super::types::{FlipSource, Move};
use crate::flag::{Route, State};
use crate::names::RouteId;

/// The reason of the flips that take back.
const REASON: &str =
    "taken back: a freeze came in force before the flip to `only` did, and would not stop the engine there";

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
            // A move that the file asks for is judged again at the next reading. Without a flip before this one, the file
            // may have asked for it by its `force` alone, which is not a part of the declaration.
            let has_flip = was.is_some_and(|was| was.last.is_some());
            // Without a declaration a route in `live` would count as parted from another one.
            match before.remembered(&at.route).filter(|_| has_flip || to == State::Live) {
                Some(declared) => positions.remembered.insert(id.clone(), declared),
                None => positions.remembered.remove(id),
            };
        }
        let recording = Recording { flips: flips.clone(), declared: Some(positions.rows()) };
        let outcome = match self.check_no_flips_wait() {
            Ok(()) => self.recorder.record(recording).await,
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
