//! Reverts the flips to `only` that a freeze overtook, by a second flip.

use std::sync::Arc;

use tokio::sync::watch;

use super::holds;
use super::in_force::Inputs;
use super::mover::Mover;
use super::positions::{Positions, RoutePosition};
use super::types::{FlipSource, Move};
use super::unrecorded_flips::UnrecordedFlip;
use crate::flag::{Route, State};
use crate::names::RouteId;

/// The reason in the records of these second flips.
const REASON: &str =
    "reverted: a freeze came into force before the flip to `only` did, and would not stop the engine there";

fn position_before<'a>(before: &'a Positions, route: &Route) -> Option<&'a RoutePosition> {
    route.ids().find_map(|id| before.routes.get(id))
}

impl Mover {
    /// For each of these routes, which are capped below `only` already: makes a flip from `only` down to the route's
    /// present rung, and records it. If the store does not record the flips, the routes stay capped all the same, and
    /// the caller starts the task that records the flips later. The caller holds the lock of moves.
    pub(super) async fn revert_overtaken(&self, overtaken: &[RouteId], before: &Positions) {
        loop {
            let Inputs { mut positions, mut unrecorded, positions_version, .. } = self.in_force().inputs();
            for id in overtaken {
                // From here on the `restart_state` of the unrecorded flip says that a restart would find `only`.
                positions
                    .routes
                    .get_mut(id)
                    .into_iter()
                    .for_each(|position| position.inputs.returns_at_restart = false);
                // A person has lowered the route meanwhile: that unrecorded flip takes the place of this one.
                if unrecorded.iter().any(|unrecorded| unrecorded.is_of(id)) {
                    continue;
                }
                unrecorded.extend(self.lower_overtaken(
                    &mut positions,
                    id,
                    before,
                    positions_version + 1 + unrecorded.len() as u64,
                ));
            }
            let _already_capped = match self.set_positions(positions, unrecorded, positions_version) {
                Some(capped) => capped,
                None => continue,
            };
            break;
        }
        if let Err(error) = self.record_unrecorded_flips().await {
            tracing::warn!(
                %error, routes = ?overtaken,
                "the store has not recorded that these routes' flips to `only` were reverted: a restart would put \
                 them in `only`"
            );
        }
    }

    fn lower_overtaken(
        &self,
        positions: &mut Positions,
        id: &RouteId,
        before: &Positions,
        new: u64,
    ) -> Option<UnrecordedFlip> {
        let position = positions.routes.get(id)?;
        let (was, to) = (position_before(before, &position.route), position.rung());
        tracing::warn!(route = %id, stays = %to, "a freeze overtook the flip of this route to `only`: it is reverted");
        let made = Move {
            route: id.clone(),
            from: State::Only,
            to,
            shares: was.map_or(position.inputs.shares, |was| was.inputs.shares),
            reason: Some(REASON.to_owned()),
            overridden: was.and_then(|was| self.gate().overridden(before, was, to)),
            gates: Vec::new(),
        };
        let by = position.last.as_ref().map_or(FlipSource::File.as_str(), |flip| flip.by.as_str()).to_owned();
        let flip = self.flip_record(positions, made, by);
        // The declaration from before the flip to `only` is stored again, so that a move by the file is judged again at
        // the next reading. If the route had no flip before, it is removed: the file may have asked for `only` by a new
        // `force` alone, which is not a part of the declaration.
        let has_flip = was.is_some_and(|was| was.last.is_some());
        // A route in `live` without a stored declaration looks as if its id had been an earlier id of another route
        // (`renamed_back::was_earlier_id_of_another`), and would go down for good.
        match before.stored_declaration(&position.route).filter(|_| has_flip || to == State::Live) {
            Some(declared) => positions.stored_declarations.insert(id.clone(), declared),
            None => positions.stored_declarations.remove(id),
        };
        let recorded = Arc::new(watch::Sender::new(None));
        let unrecorded = UnrecordedFlip {
            id: new,
            asked: None,
            flip,
            percent: None,
            may_be_raised_elsewhere: false,
            changed_nothing: false,
            restart_state: State::Only,
            recorded,
        };
        positions.apply_flip(id, unrecorded.provisional());
        holds::lower_after_flip(positions, id, self.gate());
        Some(unrecorded)
    }
}
