//! A route that is re-added: the files that were read last did not have it, and it has a flip from before that.
//!
//! Always true: it counts as new. Its state is at most that of its last flip and at most the one in its file, and it is
//! above `shadow` only through the gates of this moment, or by `force` in its file. Example: a bad deployment left the
//! route out of the files; when the good files are read again, they do not raise the route without its gates. And if
//! another route gets its id, the state does not come with the id.

use std::sync::Arc;

use super::gate::{Gate, RequestedMove};
use super::gate_judgement::recorded_gate;
use super::positions::{Positions, RoutePosition, UNPROVEN_MAX, state_of};
use super::types::{FlipSource, Move, NextRung};
use crate::flag::{Route, State};
use crate::names::RouteId;

/// Whether the files that were read last did not have this route under any of its ids, and earlier ones did.
pub(super) fn is_re_added(positions: &Positions, position: &RoutePosition) -> bool {
    let mut known = position.route.ids().filter(|id| positions.stored_declarations.contains_key(*id)).peekable();
    position.last.is_some() && known.peek().is_some() && known.all(|id| positions.absent.contains(id))
}

/// Sets the position of a re-added route. Returns the flip by `file` that this makes, if any.
pub(super) fn judge(positions: &Positions, position: &mut RoutePosition, gate: &Gate) -> Option<Move> {
    // Removed while the gates are judged, because what earlier flips overrode by force does not count.
    let last = position.last.take()?;
    let (from, declared) = (state_of(&last), position.declared());
    let (wanted, shares_before) = (from.min(declared.state), last.shares.unwrap_or(declared.shares));
    let rungs = [State::Shadow, State::Dark, State::Live].into_iter();
    let shares =
        rungs.fold(declared.shares, |shares, rung| shares.with(rung, shares.of(rung).min(shares_before.of(rung))));
    (position.inputs.requested, position.inputs.shares, position.inputs.has_no_flip) =
        (wanted.min(UNPROVEN_MAX), shares, false);
    (position.inputs.gate, position.inputs.is_held) = (None, false);
    let (mut shut, mut gates) = (None, Vec::new());
    while position.rung() < wanted {
        match gate.next(positions, position) {
            Some(NextRung { to, missing, conditions }) if missing.is_empty() => {
                let between = (position.rung().as_str(), to.as_str());
                if !conditions.is_empty() {
                    gates.push(recorded_gate(between, &conditions, &position.route.promote));
                }
                position.inputs.requested = to;
            }
            Some(NextRung { to, missing, .. }) => {
                shut = Some(format!("the gate to `{to}` is shut: {}", missing.join("; ")));
                break;
            }
            None => break,
        }
    }
    let mut overridden = None;
    let by_force = RequestedMove {
        to: wanted,
        shares,
        force: position.route.force.is_some(),
        reason: position.route.force.clone(),
        source: FlipSource::File,
    };
    if by_force.force
        && shut.is_some()
        && let Ok(allowed) = gate.judge(positions, position, &by_force)
    {
        (position.inputs.requested, overridden, shut) = (wanted, allowed.overridden, None);
        gates.extend(allowed.gates.recorded(&position.route.promote));
        position.overrides_gate = overridden.as_ref().is_some_and(|overridden| overridden.from < State::Live);
    }
    let to = position.rung();
    position.last = Some(last);
    let mut reason = "the files that were read last did not have it, so it counts as new".to_owned();
    if let Some(shut) = shut {
        reason = format!("{reason}, and {shut}");
        position.refused.push(reason.clone());
    }
    let is_moved = to != from || shares != shares_before;
    let route = position.route.id.clone();
    is_moved.then_some(Move { route, from, to, shares, reason: Some(reason), overridden, gates })
}

/// Keeps the stored declarations of flipped routes that are in no file now, so that such a route is recognised when it
/// is re-added. Moves the declaration of a renamed route to its present id.
pub(super) fn retain_declarations(after: &mut Positions, before: &Positions, routes: &[Arc<Route>]) {
    // The declaration of a renamed route whose move was refused is still under its earlier id.
    for route in routes.iter().filter(|route| !before.stored_declarations.contains_key(&route.id)) {
        if let Some(declared) = after.stored_declaration(route) {
            after.stored_declarations.insert(route.id.clone(), declared);
        }
    }
    let is_earlier = |id: &RouteId| routes.iter().any(|route| route.was.contains(id));
    // Before the files are read at a start, it is not known which ids a removed route had before.
    let has_flip_of_renamed = before.flips.keys().any(|id| !before.stored_declarations.contains_key(id));
    let has_flip = |id: &RouteId| {
        let of_renamed = || before.routes.get(id).map_or(has_flip_of_renamed, |position| position.last.is_some());
        before.flips.contains_key(id) || of_renamed()
    };
    after.stored_declarations.retain(|id, _| after.routes.contains_key(id) || (has_flip(id) && !is_earlier(id)));
    after.absent = after.stored_declarations.keys().filter(|id| !after.routes.contains_key(*id)).cloned().collect();
}
