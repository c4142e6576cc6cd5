//! The moves that a change of the files makes.
//!
//! Always true:
//!
//! - A file makes a flip by `file` only if its declaration differs from the one of the last reading, and the flip goes
//!   through the same gate as a flip by a person.
//! - A route without any flip has the state of its file up to `shadow`; above that the file needs `force` with a
//!   reason, else the gate decides; a creator also waits for its followers.
//! - A route whose move the gate refuses keeps its state, and the one in the file is shown as requested. The store
//!   keeps the older declaration, so that the move is judged again at the next reading, until a person flips the route.
//!
//! A route in `live` is held at `dark` while retries may come that the engine would perform a second time. There are
//! three causes:
//!
//! - new files make the route match requests that legacy served before without a record of their retry keys;
//! - the store is a copy, which does not know the newest requests;
//! - keys of requests that legacy served are lost.
//!
//! The route's last flip is unchanged, so that it returns to `live` after that time. On a copy the route goes down by a
//! flip instead, and does not return by itself, if its last flip is from before the copy was started: the copy may lack
//! a later one. Files that make a route in `only` match requests without such records need `force`.
//!
//! A move that the gate would allow waits for pairs under way (`pairs_in_flight`). Moves from `only`: `leaving_only`.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;

use super::file_edits::{FileEdit, FileForce, accepted_part, requested_by_edit};
use super::gate::{Gate, MoveRefusal, RequestedMove};
use super::guard_latches::GuardLatches;
use super::holds::{HELD_AT, lower_without_key, not_returned, set_held, why_below};
use super::leaving_only::no_acknowledgement;
use super::positions::{Positions, RoutePosition, UNPROVEN_MAX, state_of};
use super::renamed_back::{flip_of_unlisted_id, was_earlier_id_of_another};
use super::types::{DeclaredFiles, FlipSource, Move, ReadKind};
use super::unlisted_ids::UnlistedIds;
use super::{
    cohort_reasons, follower_requests, forced_files, joined, live_basis, re_added, scopes, separated, taken_ids,
    unlisted_ids,
};
use crate::clock;
use crate::flag::{Freeze, Instance, Route, Shares, State, StateInputs};
use crate::names::RouteId;
use crate::store::{FileState, Overridden};

/// The positions under newly checked files, and the flips by `file`, in order. The positions include these flips.
/// `unlisted_ids` are among the ids of the declared routes.
pub(super) fn apply(
    before: &Positions,
    (declared, unlisted_ids): (DeclaredFiles, UnlistedIds),
    reading: ReadKind,
    gate: &Gate,
    guards: &GuardLatches,
) -> (Positions, Vec<Move>) {
    let mut routes = declared.routes.clone();
    let taken_ids = taken_ids::find(before, &routes, &unlisted_ids);
    let mut after = Positions { declared, unlisted_ids, taken_ids, ..before.clone() };
    after.routes = routes.iter().map(|route| (route.id.clone(), initial_position(&after, route))).collect();
    followers_first(&mut routes);
    // The gate judges by the scopes of the new files.
    after.followers = follower_requests::after_files(&before.followers, &routes);
    after.earlier_ids = unlisted_ids::after_files(&before.earlier_ids, &routes);
    let (now, has_served) = (clock::now(), reading.has_served());
    after.scopes = scopes::after_files(&before.scopes, &after.declared, has_served, now, gate.retry_window);
    if matches!(reading, ReadKind::Start { .. }) {
        // A cohort's reason for `force` that is new in the files may have been written before this start found that
        // keys are lost. It is backdated, so that it does not override the hold.
        let may_repeat = |at: &&RoutePosition| gate.may_repeat_unknown(&after, at);
        let may_repeat: Vec<RouteId> =
            after.routes.values().filter(may_repeat).map(|position| position.route.id.clone()).collect();
        for route in may_repeat {
            cohort_reasons::backdate_new(&mut after.scopes, &route, now);
        }
    }
    after.earlier_scopes = scopes::parse_earlier(&after.scopes, gate.retry_window);
    let gets_force = |route: &Route| {
        let had = |id| match before.routes.get(id) {
            Some(was) => Some(was.route.force.is_some()),
            // At a start only the store says what the files had before.
            None => before.scopes.get(id)?.has_force,
        };
        route.force.is_some() && route.ids().find_map(had) == Some(false)
    };
    let ignores_force = !matches!(reading, ReadKind::Reload) && gate.files_differ();
    let edit_of = |route: &Route| FileEdit {
        gets_force: gets_force(route),
        ignores_force,
        joined: joined::find(before, guards, route),
        separated: after.routes.get(&route.id).and_then(|position| separated::limit(before, position)),
    };
    let edits: Vec<FileEdit> = routes.iter().map(|route| edit_of(route)).collect();
    let moves: Vec<Move> =
        routes.iter().zip(&edits).filter_map(|(route, edit)| reconcile(&mut after, route, edit, gate)).collect();
    // Whoever wrote a `force` that is new in the files has accepted the present workflow, rules and services.
    let accepts = |position: &RoutePosition| {
        let by_cohorts =
            || position.highest() < State::Live && cohort_reasons::are_new(&after.scopes, &position.route, now);
        gets_force(&position.route) || by_cohorts()
    };
    let accepting: BTreeSet<RouteId> =
        after.routes.values().filter(|at| accepts(at)).map(|position| position.route.id.clone()).collect();
    live_basis::update(&mut after, &moves, &accepting, gate);
    re_added::retain_declarations(&mut after, before, &routes);
    forced_files::update(&mut after, now);
    after.taken_ids.clear();
    (after, moves)
}

/// The positions after the release of routes whose hold is over, and the flips by `file` of these routes. The other
/// routes are not judged, because the files were not read again.
pub(super) fn release(before: &Positions, now: Timestamp, gate: &Gate) -> (Positions, Vec<Move>) {
    let mut after = before.clone();
    after.scopes = scopes::current(&before.scopes, now, gate.retry_window);
    after.earlier_scopes = scopes::parse_earlier(&after.scopes, gate.retry_window);
    let is_due = |at: &&RoutePosition| at.held_until.is_some_and(|until| until <= now);
    let mut due: Vec<Arc<Route>> =
        before.routes.values().filter(is_due).map(|position| position.route.clone()).collect();
    followers_first(&mut due);
    let moves: Vec<Move> =
        due.iter().filter_map(|route| reconcile(&mut after, route, &FileEdit::default(), gate)).collect();
    live_basis::update(&mut after, &moves, &BTreeSet::new(), gate);
    forced_files::update(&mut after, now);
    (after, moves)
}

/// Sorts followers before creators: a creator cannot go above its followers, so their new rungs have to be known first.
fn followers_first(routes: &mut [Arc<Route>]) {
    routes.sort_by_key(|route| !matches!(route.instance, Some(Instance::Follows { .. })));
}

/// The position of a route before its new file is judged: as it was, else by its last flip, else by the stored
/// declaration, else by the file.
fn initial_position(before: &Positions, route: &Arc<Route>) -> RoutePosition {
    let last = before.last_flip_also_under_taken_ids(route).cloned();
    if let Some(known) = before.routes.get(&route.id) {
        return RoutePosition { route: route.clone(), last, ..known.clone() };
    }
    let mut inputs = StateInputs::declared(route);
    inputs.proven_cohorts = before.proven_cohorts(route);
    if let Some(flip) = &last {
        inputs.requested = state_of(flip);
        inputs.shares = flip.shares.unwrap_or(inputs.shares);
        inputs.has_no_flip = false;
    } else if let Some(stored) = before.stored_declaration(route) {
        // The store does not record whether that state was in force.
        inputs.requested = stored.state.min(UNPROVEN_MAX);
        inputs.shares = stored.shares;
    }
    RoutePosition {
        route: route.clone(),
        inputs,
        last,
        overrides_gate: false,
        refused: Vec::new(),
        held_until: None,
        cohorts_held_until: None,
        awaits_pairs: None,
    }
}

/// Judges the file of one route: sets the route's position, and returns the flip by `file` that this makes, if any.
fn reconcile(positions: &mut Positions, route: &Route, changed_file: &FileEdit, gate: &Gate) -> Option<Move> {
    let FileEdit { gets_force, joined, separated, ignores_force } = changed_file;
    let mut position = positions.routes.get(&route.id)?.clone();
    if re_added::is_re_added(positions, &position) {
        position.refused.clear();
        let made = re_added::judge(positions, &mut position, gate);
        positions.stored_declarations.insert(route.id.clone(), position.declared());
        limit_and_set(positions, position);
        return made;
    }
    // Forgets the last refusal: below, the move is judged anew if the file still requests it.
    position.inputs.requested = position.last.as_ref().map_or_else(|| position.rung(), state_of);
    position.inputs.gate = None;
    position.refused.clear();
    position.held_until = None;
    position.awaits_pairs = position.awaits_pairs.and_then(|awaited| awaited.for_next_judgement(position.declared()));
    let joined_reason = joined.as_ref().and_then(|joined| joined.lower(&mut position));
    let held = gate.why_held(positions, &position);
    let copy_reason = gate.may_miss_later_flip(positions, &position);
    let separated_reason = separated.as_ref().map(|separated| &*separated.why);
    let merged_reason = separated_reason.or_else(|| was_earlier_id_of_another(positions, &position));
    let unmet = if held.is_none() { gate.unmet_for_return(positions, &position) } else { Vec::new() };
    let is_below_live = held.is_some() || merged_reason.is_some() || !unmet.is_empty();
    let highest = separated.as_ref().map(|separated| separated.highest);
    position.inputs.gate = highest.or(is_below_live.then_some(HELD_AT));
    position.inputs.is_held = false;

    let now = position.declared();
    let force = route.force.as_ref().map(|reason| FileForce { reason, overrides_gates: !ignores_force });
    let stored = positions.stored_declaration(route);
    let replaced_reason = positions.has_flip_of_another(route).then(|| match positions.taken_ids.contains(&route.id) {
        true => "its id was an earlier one of another route, and the flips under it are those of that route",
        false => "it keeps its own state and not that of the route whose place it takes",
    });
    let has_flip = position.last.is_some();
    let changed = positions.check_declaration_change(route, has_flip, now);
    let edit = stored.filter(|_| has_flip).map_or(now, |stored| requested_by_edit(&position, stored, now));
    let mut made = None;
    if !changed && !has_flip {
        position.inputs.has_no_flip = true;
        position.inputs.shares = now.shares;
        position.inputs.requested = now.state;
        // A new file puts no creator above its followers, and no route in `only` during a freeze, not even by force. It
        // counts as new until the followers are as high and the freeze has ended. A file whose `force` is new counts as
        // new, too.
        let is_new = stored.is_none() || *gets_force;
        let is_frozen = now.state == State::Only && positions.freeze != Freeze::No;
        let followers_are_below = || positions.followers(&route.id).any(|follower| follower.rung() < now.state);
        let waits = is_new && (is_frozen || followers_are_below());
        if now.state > UNPROVEN_MAX && (route.force.is_none() || waits) {
            position.inputs.requested = UNPROVEN_MAX;
            made = judge_and_move(positions, &mut position, now, force, gate);
        }
        if waits {
            // The stored declaration is dropped under all ids, so that the file counts as new at the next reading, also
            // if the same edit renames the route.
            positions.stored_declarations.retain(|id, _| !route.ids().any(|own| own == id));
        } else {
            positions.stored_declarations.insert(route.id.clone(), now);
        }
    } else if !changed || position.is_at(edit.state, edit.shares) {
        positions.stored_declarations.insert(route.id.clone(), now);
    } else {
        // Without a flip only the `force` of its file supports a state above `shadow`. So an edit that removes `force`
        // takes the route down to `shadow`, unless it asks for a lower state than the present one itself.
        if !has_flip && route.force.is_none() && edit.state > UNPROVEN_MAX && edit.state >= position.rung() {
            position.inputs.requested = position.inputs.requested.min(UNPROVEN_MAX);
        }
        made = judge_and_move(positions, &mut position, edit, force, gate);
        if made.is_some()
            && let Some(accepted) = accepted_part(stored, now, &position)
        {
            positions.stored_declarations.insert(route.id.clone(), accepted);
        }
    }
    let reason = joined_reason.as_deref().or(replaced_reason).or(copy_reason).or(merged_reason);
    if let Some(reason) = reason.filter(|_| made.is_none()) {
        // The route goes down by a flip, also if it is held: neither a person nor a gate has said that it may be live.
        let (from, to) = (position.last.as_ref().map_or(position.rung(), state_of), position.rung());
        let requested = position.inputs.requested;
        // An edit of the shares alone does not ask for the state that the route loses. The edit is judged on the lower
        // rung.
        if changed && has_flip && stored.is_some_and(|stored| stored.state == now.state) {
            let mut lowered = RoutePosition { refused: Vec::new(), ..position.clone() };
            (lowered.inputs.requested, lowered.inputs.gate) = (to, None);
            let wanted = FileState { state: to, shares: edit.shares };
            if judge_and_move(positions, &mut lowered, wanted, force, gate).is_some() {
                position.inputs.shares = lowered.inputs.shares;
                if let Some(accepted) = accepted_part(stored, now, &lowered) {
                    positions.stored_declarations.insert(route.id.clone(), accepted);
                }
            }
            position.refused = lowered.refused;
        }
        let shares = position.inputs.shares;
        let others = merged_reason.filter(|why| *why != reason);
        let below = (requested > to).then(|| why_below(held.as_ref(), others, &unmet)).flatten();
        let reason = Some(below.map_or_else(|| reason.to_owned(), |below| format!("{reason}; {below}")));
        let by_file = || {
            let reason = route.force.clone().filter(|_| position.rung() > UNPROVEN_MAX)?;
            Some(Overridden { from: State::Off, reason, forced_at: None, by_this_move: Some(State::Off) })
        };
        let overridden = position.last.as_ref().map_or_else(by_file, |flip| flip.overridden.clone());
        made = Some(Move { route: route.id.clone(), from, to, shares, reason, overridden, gates: Vec::new() });
        (position.inputs.requested, position.inputs.gate, position.inputs.has_no_flip) = (to, None, false);
    }
    made = made.or_else(|| flip_of_unlisted_id(positions, &position));
    if let Some(unknown_retries) = held
        && position.inputs.requested > HELD_AT
    {
        set_held(&mut position, unknown_retries);
    } else if made.is_none() && !unmet.is_empty() {
        position.refused.push(not_returned(&position, &unmet));
    }
    limit_and_set(positions, position);
    made
}

/// Sets the position of a route, lowered by what its file lacks: a workflow, its own or a follower's, or the `key`.
fn limit_and_set(positions: &mut Positions, mut position: RoutePosition) {
    let route = Arc::clone(&position.route);
    // The last flip may be above `off` although the file has no workflow any more.
    if route.workflow.is_none() && position.rung() > State::Off {
        position.refused.push(format!("`{}` has no workflow: it can only be off", route.id));
        position.inputs.gate = Some(State::Off);
    }
    // A route in `only` stays, because legacy is not called for it.
    if let Some(sentence) = positions.follower_without_workflow(&route).filter(|_| position.rung() == State::Live) {
        position.refused.push(sentence);
        position.inputs.gate = Some(HELD_AT);
    }
    lower_without_key(&mut position);
    positions.routes.insert(route.id.clone(), position);
}

/// Moves a position as its file requests, through the gate. If the gate refuses, the position stays as it is and gets
/// the reasons.
fn judge_and_move(
    positions: &Positions,
    position: &mut RoutePosition,
    FileState { state: to, shares }: FileState,
    force: Option<FileForce<'_>>,
    gate: &Gate,
) -> Option<Move> {
    let route = Arc::clone(&position.route);
    let reason = force.filter(|force| force.overrides_gates || to < position.rung()).map(|force| force.reason.clone());
    let mut requested = RequestedMove { to, shares, force: reason.is_some(), reason, source: FlipSource::File };
    if position.rung() == State::Only && to < State::Only && !requested.force {
        position.refused = vec![no_acknowledgement(&route.id, to)];
        return None;
    }
    let mut judged = gate.judge_by_file(positions, position, &requested);
    // A shut gate of a larger share stops only that share, which keeps its present size: the move down, and edits of
    // other shares, go on.
    if matches!(judged, Err(MoveRefusal::GateShut(_))) && to <= position.rung() {
        let (present, asked) = (position.inputs.shares, requested.shares);
        let mut refused = Vec::new();
        let raised = [State::Dark, State::Live].into_iter().filter(|rung| *rung <= to);
        let raised: Vec<State> = raised.filter(|rung| asked.of(*rung) > present.of(*rung)).collect();
        requested.shares = raised.iter().fold(asked, |shares, rung| shares.with(*rung, present.of(*rung)));
        for rung in raised {
            let without = requested.shares;
            requested.shares = without.with(rung, asked.of(rung));
            if let Err(MoveRefusal::GateShut(why)) = gate.judge_by_file(positions, position, &requested) {
                refused.push(format!("its share of `{rung}` stays {}: {}", present.of(rung), why.join("; ")));
                requested.shares = without;
            }
        }
        let goes_down = to < position.rung() || position.last.as_ref().is_some_and(|flip| to < state_of(flip));
        if goes_down || requested.shares != present {
            position.refused = refused;
            judged = gate.judge_by_file(positions, position, &requested);
        }
    }
    let shares: Shares = requested.shares;
    match judged {
        Ok(allowed) => {
            let from = position.rung();
            position.inputs.requested = to;
            position.inputs.shares = shares;
            position.inputs.has_no_flip = false;
            position.inputs.gate = None;
            position.overrides_gate =
                allowed.overridden.as_ref().is_some_and(|overridden| overridden.from < State::Live);
            Some(Move {
                route: route.id.clone(),
                from,
                to,
                shares,
                reason: requested.reason,
                overridden: allowed.overridden,
                gates: allowed.gates.recorded(&route.promote),
            })
        }
        Err(refusal) => {
            position.refused = match refusal {
                MoveRefusal::GateShut(sentences) => sentences,
                MoveRefusal::Impossible(sentence) => vec![sentence],
            };
            let stays = position.rung();
            if position.last.is_none() && force.is_none() {
                position.refused.push(format!(
                    "neither a flip nor evidence supports `state: {to}` of the file: `force: {{ reason: … }}` beside it \
                     overrides the gate"
                ));
            }
            position.inputs.gate = Some(stays);
            position.inputs.requested = to;
            None
        }
    }
}
