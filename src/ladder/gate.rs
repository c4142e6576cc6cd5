//! Whether a route may move: up one rung at a time and only through the gate, down any distance. Which routes are held
//! below `live`, because retries may come that the engine would perform again, is left to `unknown_retries`.
//!
//! Always true: a move that only lowers the rung is refused in one case: from `only` without an acknowledgement. (A
//! share that is asked for together with it may be impossible on that rung, and force needs a reason also on the way
//! down.) Force with a reason overrides a gate whose conditions do not hold, but never an impossible move: without a
//! workflow, to a share without a key, of a creator above its followers, or to `only` during a freeze.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::gate_condition::{GateCondition, Unmet};
use super::gate_judgement::{JudgedGates, sentences};
use super::opening_gates::OpeningGates;
use super::positions::{Positions, RoutePosition, state_of};
use super::types::{FlipSource, NextRung};
use crate::clock;
use crate::evidence::{self, Condition, Evidence, JudgedRoute, RouteEvidence};
use crate::flag::{Cohort, Freeze, Instance, Percent, Shares, State};
use crate::store::Overridden;

/// Judges moves, by evidence and other conditions.
pub(super) struct Gate {
    pub evidence: Arc<Evidence>,
    /// The conditions of a gate other than evidence.
    pub conditions: Vec<Arc<dyn GateCondition>>,
    /// See [`super::LadderParts::conditions_of_moves`].
    pub conditions_of_moves: Vec<Arc<dyn GateCondition>>,
    /// How long after a first try a client's retry may come.
    pub retry_window: Duration,
    /// See [`super::LadderParts::copy_started`].
    pub copy_started: Option<Timestamp>,
    /// The gates of cohorts, and of routes that a guard has lowered, that only wait for pairs under way.
    pub opening: OpeningGates,
}

/// The requested move of a route.
pub(super) struct RequestedMove {
    pub to: State,
    pub shares: Shares,
    /// Override the gate.
    pub force: bool,
    pub reason: Option<String>,
    /// Who asks for the move: a person or a file.
    pub source: FlipSource,
}

/// Why a move is refused.
pub(super) enum MoveRefusal {
    /// The gate is shut: each condition that does not hold. Force with a reason overrides it.
    GateShut(Vec<String>),
    /// The move is impossible, even with force.
    Impossible(String),
}

/// An allowed move.
pub(super) struct AllowedMove {
    /// The lowest gate that force overrides: by this move, or by an earlier one if that gate is still shut.
    pub overridden: Option<Overridden>,
    /// What the gates that this move overrides still require, as sentences.
    pub still_required: Vec<String>,
    /// The gates on its way, as they were judged.
    pub gates: JudgedGates,
}

impl Gate {
    /// Judges a move: whether it is possible, which conditions of gates do not hold, which gates force overrides. The
    /// acknowledgement on the way down from `only` is checked by the mover, because it needs the horizon.
    pub fn judge(
        &self,
        positions: &Positions,
        position: &RoutePosition,
        requested: &RequestedMove,
    ) -> Result<AllowedMove, MoveRefusal> {
        if requested.force && requested.reason.as_ref().is_none_or(|reason| reason.trim().is_empty()) {
            return Err(MoveRefusal::Impossible("overriding the gate needs a reason".into()));
        }
        if let Some(sentence) = impossible(positions, position, requested).into_iter().next() {
            return Err(MoveRefusal::Impossible(sentence));
        }
        let stays = requested.to == position.rung();
        // A gate that an earlier move overrode and that is still shut stays recorded while the route is above it.
        let earlier = self.overridden(positions, position, requested.to);
        let judged = self.judged_gates(positions, position, requested);
        let unmet = judged.unmet();
        let Some(reason) = requested.reason.clone().filter(|_| requested.force) else {
            return match unmet.is_empty() {
                true => Ok(AllowedMove { overridden: earlier, still_required: unmet, gates: judged }),
                false => Err(MoveRefusal::GateShut(unmet)),
            };
        };
        // The rung below the lowest gate that this move overrides. A change in `live` that evidence does not support,
        // and what waits for a person to accept it, count as an override of the gate from `dark` to `live`.
        let accepts_change = requested.to >= State::Live && self.is_changed_since_evidence(positions, position);
        let accepts = accepts_change || self.awaits_acceptance(position, requested.to, requested.source);
        let below = match (judged.is_dark_shut(), accepts_change) {
            (true, _) => State::Shadow,
            (false, true) => State::Dark,
            (false, false) if requested.to > position.rung() => position.rung(),
            // A larger share of this rung, or of a lower one.
            (false, false) => requested.to.below().unwrap_or(State::Off),
        };
        // A flip by force to the state that only the file had set overrides every gate below that state.
        let overridden_now = if position.inputs.has_no_flip && stays {
            Some(State::Off)
        } else if unmet.is_empty() {
            // On the way down to `live` no gate is shut, but the route would be held.
            let is_held = requested.to == State::Live && self.harmful_in_live(positions, position).is_some();
            (is_held || accepts).then_some(State::Dark)
        } else {
            Some(below)
        };
        let forced_at = match requested.source {
            FlipSource::Api => Some(clock::now()),
            FlipSource::File => earlier.as_ref().and_then(|earlier| earlier.forced_at),
        };
        let from = earlier.as_ref().map(|earlier| earlier.from).into_iter().chain(overridden_now).min();
        let reason = earlier.filter(|_| overridden_now.is_none()).map_or(reason, |earlier| earlier.reason);
        let overridden = from.map(|from| Overridden { from, reason, forced_at, by_this_move: overridden_now });
        Ok(AllowedMove { overridden, still_required: unmet, gates: judged })
    }

    /// The next rung up and the conditions for it; `None` on the highest rung.
    pub fn next(&self, positions: &Positions, position: &RoutePosition) -> Option<NextRung> {
        let from = position.rung();
        let to = State::ALL.into_iter().find(|state| state.below() == Some(from))?;
        let requested =
            RequestedMove { to, shares: position.inputs.shares, force: false, reason: None, source: FlipSource::Api };
        let mut missing = impossible(positions, position, &requested);
        missing.extend(self.unmet_of_family(positions, position, from, to).map(|unmet| unmet.why));
        Some(NextRung { to, missing, conditions: self.conditions(positions, position, from, to) })
    }

    /// The reason that was given with `force`, for as long as an overridden gate is still shut, or the route would be
    /// held below `live` without it.
    pub fn still_forced(&self, positions: &Positions, position: &RoutePosition) -> Option<String> {
        let overridden = self.overridden(positions, position, State::Only).map(|overridden| overridden.reason);
        let by_file = || position.route.force.clone().filter(|_| self.harmful_retries(positions, position).is_some());
        overridden.or_else(by_file)
    }

    /// The lowest gate, up to a rung, that force overrode on the way to the present state and that is still shut. The
    /// last flip carries the overrides of earlier flips; without a flip, the `force` of the file counts. A condition
    /// that is known to have failed only after the override does not count: nobody overrode it.
    pub(super) fn overridden(
        &self,
        positions: &Positions,
        position: &RoutePosition,
        up_to: State,
    ) -> Option<Overridden> {
        let (from, to, reason, forced_at) = match &position.last {
            Some(flip) => {
                let to = state_of(flip);
                match (&flip.overridden, flip.forced) {
                    (Some(before), _) => (before.from, to, before.reason.clone(), before.forced_at),
                    // Recorded by an earlier version.
                    (None, true) => {
                        let from = flip.from.parse().ok().filter(|from| *from < to).unwrap_or(State::Off);
                        (from, to, flip.reason.clone().unwrap_or_default(), position.forced_at())
                    }
                    (None, false) => return None,
                }
            }
            None => (State::Off, position.rung(), position.route.force.clone()?, None),
        };
        let came_later = |unmet: &Unmet| forced_at.is_some() && unmet.since > forced_at;
        let mut gates = State::ALL.windows(2).filter(|pair| pair[0] >= from && pair[1] <= to.min(up_to));
        let is_overridden = |pair: &&[State]| {
            !self.unmet_of_family(positions, position, pair[0], pair[1]).all(|unmet| came_later(&unmet))
        };
        let shut = gates.find(is_overridden)?;
        Some(Overridden { from: shut[0], reason, forced_at, by_this_move: None })
    }

    /// The highest rung that a route reached by evidence and for all callers: cohorts go up to it without `force`.
    pub fn proven(&self, positions: &Positions, position: &RoutePosition) -> State {
        let rung = position.rung();
        let mut proven = self.overridden(positions, position, rung).map_or(rung, |overridden| overridden.from);
        while let Some(below) = proven.below().filter(|_| position.inputs.shares.of(proven) < Percent::ALL) {
            proven = below;
        }
        proven
    }

    /// Why one gate is shut: first the conditions of the route itself, then those of its followers.
    pub(super) fn unmet_of_family<'a>(
        &'a self,
        positions: &'a Positions,
        position: &'a RoutePosition,
        from: State,
        to: State,
    ) -> impl Iterator<Item = Unmet> + 'a {
        let of_followers =
            (to == State::Live).then(|| self.unmet_of_followers(positions, position)).into_iter().flatten();
        self.unmet(positions, position, from, to).into_iter().chain(of_followers.map(Unmet::from))
    }

    /// The conditions of one gate that the route itself does not meet: first of its evidence, then the others.
    fn unmet(&self, positions: &Positions, position: &RoutePosition, from: State, to: State) -> Vec<Unmet> {
        let unmet = sentences(self.conditions(positions, position, from, to));
        let other_conditions = self.unmet_other_conditions(positions, position, from, to);
        unmet.map(Unmet::from).chain(other_conditions).collect()
    }

    /// The conditions of one gate on the route's own evidence, whether they hold or not; none for a follower that goes
    /// to `dark`.
    pub(super) fn conditions(
        &self,
        positions: &Positions,
        position: &RoutePosition,
        from: State,
        to: State,
    ) -> Vec<Condition> {
        // Until its creator is dark, a follower has no instances on which it could be compared; and the creator cannot
        // go to dark before the follower. So this gate asks for no evidence.
        let follows = matches!(position.route.instance, Some(Instance::Follows { .. }));
        if follows && (from, to) == (State::Shadow, State::Dark) {
            return Vec::new();
        }
        let evidence = self.evidence_of(positions, position);
        evidence::conditions(&judged_route(positions, position, &evidence), from, to)
    }

    /// A sentence that says how many differences are open, if there are more than the gates allow.
    pub(super) fn open_differences(&self, positions: &Positions, position: &RoutePosition) -> Option<String> {
        let evidence = self.evidence_of(positions, position);
        sentences(vec![judged_route(positions, position, &evidence).open_differences()]).next()
    }

    /// The conditions of the gate to `live` that the evidence of a creator's followers does not meet, as sentences.
    ///
    /// The followers went to `live` first, but the engine answers their requests only for instances that it has
    /// created. So their gate is judged again when the creator goes to `live`: changed files may have started their
    /// evidence anew. A follower whose gate was overridden by force is skipped. Asked only when a creator moves, and of
    /// a creator whose own gate to `live` force overrode: what happens to a follower later does not change what its
    /// creator has reached by evidence.
    pub(super) fn unmet_of_followers<'a>(
        &'a self,
        positions: &'a Positions,
        position: &'a RoutePosition,
    ) -> impl Iterator<Item = String> + 'a {
        let in_live = positions.followers(&position.route.id).filter(|follower| follower.rung() >= State::Live);
        let is_forced = |follower: &RoutePosition| {
            follower.overrides_gate || self.overridden(positions, follower, State::Live).is_some()
        };
        in_live.filter(move |follower| !is_forced(follower)).flat_map(|follower| {
            let unmet = sentences(self.conditions(positions, follower, State::Dark, State::Live));
            let not_compared = match follower.rung() {
                State::Only => ", but nothing is compared in `only`: flip it down to `live` first",
                _ => "",
            };
            unmet.map(move |why| format!("of its follower `{}`: {why}{not_compared}", follower.route.id))
        })
    }

    /// The conditions of one gate, other than evidence, that do not hold and that are asked only when something goes up
    /// through the gate.
    pub(super) fn unmet_of_moves<'a>(
        &'a self,
        position: &'a RoutePosition,
        from: State,
        to: State,
    ) -> impl Iterator<Item = Unmet> + 'a {
        self.conditions_of_moves.iter().flat_map(move |condition| condition.unmet(&position.route, from, to))
    }

    /// See [`GateCondition::files_differ`].
    pub(super) fn files_differ(&self) -> bool {
        self.conditions_of_moves.iter().any(|condition| condition.files_differ())
    }

    /// The conditions of one gate, other than evidence, that do not hold.
    pub(super) fn unmet_other_conditions(
        &self,
        positions: &Positions,
        position: &RoutePosition,
        from: State,
        to: State,
    ) -> Vec<Unmet> {
        let of_moves = self.unmet_of_moves(position, from, to);
        of_moves.chain(self.unmet_lasting_conditions(positions, position, from, to)).collect()
    }

    /// The conditions of one gate, other than evidence, that do not hold and that are asked also of a route or cohort
    /// that has passed the gate.
    pub(super) fn unmet_lasting_conditions(
        &self,
        positions: &Positions,
        position: &RoutePosition,
        from: State,
        to: State,
    ) -> Vec<Unmet> {
        let conditions = self.conditions.iter().flat_map(|condition| condition.unmet(&position.route, from, to));
        let mut unmet: Vec<Unmet> = conditions.collect();
        if (from, to) == (State::Live, State::Only) {
            let below = position.route.cohorts.iter().filter(|cohort| cohort.state < State::Live);
            unmet.extend(below.map(|Cohort { name, state, .. }| {
                format!(
                    "the cohort `{name}` keeps callers in `{state}`: `only` holds for everybody, so the engine would get \
                     their requests too"
                )
                .into()
            }));
            if self.is_changed_since_evidence(positions, position) {
                unmet.push(
                    format!(
                        "its workflow, rules, `match` or services were changed since its evidence, and the new version was not \
                         compared: flip `{}` to `dark` or lower to have it compared, and raise it again",
                        position.route.id
                    )
                    .into(),
                );
            }
            unmet.extend(self.unmet_of_instances(positions, position));
            // In `only` nothing is held, so a route that is held now must not go there.
            unmet.extend(self.why_held(positions, position).map(|unknown| unknown.why.into()));
        }
        if to == State::Live {
            let unknown = self.unknown_retries(positions, position).into_iter();
            let unknown = unknown
                .chain(self.requests_without_record(positions, position))
                .chain(self.harmful_since_copy(positions, position));
            unmet.extend(unknown.map(|unknown| {
                let todo = "wait until then, or pass the gate with `--force --reason …` if no client sends it again";
                format!("{}; {todo}", unknown.why).into()
            }));
        }
        unmet
    }

    /// The evidence that counts under the files of these positions. While a route is being renamed, the evidence is
    /// stored under its earlier id.
    pub fn evidence_of(&self, positions: &Positions, position: &RoutePosition) -> RouteEvidence {
        match positions.declared.bases.get(&position.route.id) {
            Some(basis) => self.evidence.of_basis(position.route.ids(), basis),
            None => self.evidence.of(&position.route.id),
        }
    }
}

/// A route in the form in which the conditions on its evidence are judged.
pub(super) fn judged_route<'a>(
    positions: &'a Positions,
    position: &'a RoutePosition,
    evidence: &'a RouteEvidence,
) -> JudgedRoute<'a> {
    let id = &position.route.id;
    JudgedRoute {
        evidence,
        promote: &position.route.promote,
        shared_steps: positions.declared.shared_steps.get(id).map_or(&[], Vec::as_slice),
        private_steps: positions.declared.private_steps.get(id).map_or(&[], Vec::as_slice),
        sent_reads: positions.declared.sent_reads.get(id).map_or(&[], Vec::as_slice),
        shared_steps_below: positions.declared.plans.shared_steps_below.get(id).map_or(&[], Vec::as_slice),
        invariants: &position.route.invariants,
        live_share_is_all: position.inputs.shares.live == Percent::ALL,
        now: clock::now(),
    }
}

/// Why a move is impossible, whatever the evidence and even with force.
fn impossible(positions: &Positions, position: &RoutePosition, requested: &RequestedMove) -> Vec<String> {
    let id = &position.route.id;
    let mut sentences = Vec::new();
    if requested.to > State::Off && position.route.workflow.is_none() {
        sentences.push(format!("`{id}` has no workflow: it can only be off"));
    }
    let share = requested.shares.of(requested.to);
    // A route may always go down with the share that it has there; if that share has lost its `key`, the mover lowers
    // the route further (`holds::lower_without_key`).
    let is_asked = requested.to >= position.rung() || share != position.inputs.shares.of(requested.to);
    let takes_keys = matches!(requested.to, State::Dark | State::Live) && share < Percent::ALL;
    if takes_keys && is_asked && position.route.key.is_none() {
        sentences.push(format!(
            "a share below 100 % in `{}` needs a `key` on `{id}`, or one caller's requests would go to both arms",
            requested.to
        ));
    }
    // A freeze does not lower a route in `only`. So a route that a freeze has lowered must not go there to escape it.
    if requested.to == State::Only && position.rung() < State::Only && positions.freeze != Freeze::No {
        sentences.push(format!(
            "`{id}` cannot go to `only` while new instances of the engine are frozen, because a freeze does not stop them there: \
             end the freeze first (`pointsman freeze --off`)"
        ));
    }
    if requested.to > position.rung() {
        let below = positions.followers(id).filter(|follower| follower.rung() < requested.to);
        let below: Vec<_> = below.map(|f| format!("`{}` is `{}`", f.route.id, f.rung())).collect();
        if !below.is_empty() {
            sentences.push(format!("`{id}` cannot go above its followers, they go first: {}", below.join(", ")));
        }
    }
    sentences
}
