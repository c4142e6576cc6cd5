//! Whether a route may move: up one rung at a time and only through the gate, down any distance.
//!
//! Always true: going down is refused only from `only` without an acknowledgement. Force with a reason overrides a gate
//! whose conditions do not hold, but never an impossible move (no workflow, a share without a key, a creator above its
//! followers).

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::positions::{Positions, RoutePosition, state_of};
use super::types::{FlipSource, GateCondition, Unrecorded};
use super::{moved, scopes};
use crate::clock;
use crate::evidence::{Evidence, RouteEvidence, gate};
use crate::flag::{Cohort, Instance, Percent, Shares, State};
use crate::names::RouteId;
use crate::store::Overridden;

/// Judges moves, by evidence and other conditions.
pub(super) struct Gate {
    pub evidence: Arc<Evidence>,
    /// The conditions of a gate other than evidence.
    pub conditions: Vec<Arc<dyn GateCondition>>,
    /// How long after a first try a client's retry may come.
    pub retry_window: Duration,
    /// See [`super::LadderParts::copy_started`].
    pub copy_started: Option<Timestamp>,
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
pub(super) enum Refusal {
    /// The gate is shut: each condition that does not hold. Force with a reason overrides it.
    GateShut(Vec<String>),
    /// The move is impossible, even with force.
    Impossible(String),
}

/// An allowed move.
pub(super) struct AllowedMove {
    /// The lowest gate that force overrides: by this move, or by an earlier one if that gate would still be shut.
    pub overridden: Option<Overridden>,
}

impl Gate {
    /// Judges a move. The acknowledgement on the way down from `only` is checked by the mover, because it needs the
    /// horizon.
    pub fn judge(
        &self,
        positions: &Positions,
        at: &RoutePosition,
        requested: &RequestedMove,
    ) -> Result<AllowedMove, Refusal> {
        if requested.force && requested.reason.as_ref().is_none_or(|reason| reason.trim().is_empty()) {
            return Err(Refusal::Impossible("overriding the gate needs a reason".into()));
        }
        if let Some(sentence) = impossible(positions, at, requested).into_iter().next() {
            return Err(Refusal::Impossible(sentence));
        }
        let stays = requested.to == at.rung();
        // The share of callers who are on the requested rung or above it now.
        let rungs = State::ALL.into_iter().filter(|rung| (requested.to..=at.rung()).contains(rung));
        let reached = rungs.map(|rung| at.inputs.shares.of(rung)).max();
        let is_raised = reached.is_some_and(|reached| requested.shares.of(requested.to) > reached);
        // An overridden gate stays recorded as such while the route is above it, until it is open without force.
        let earlier = self.overridden(positions, at, requested.to);
        // More callers on a rung pass its gate again, also on the way down to it: it may have been forced, or the
        // evidence may have turned bad since.
        let missing = match requested.to.below().filter(|_| is_raised) {
            Some(below) => self.unmet_conditions_of_gate(positions, at, below, requested.to),
            None => self.unmet_conditions(positions, at, requested.to),
        };
        let Some(reason) = requested.reason.clone().filter(|_| requested.force) else {
            return if missing.is_empty() {
                Ok(AllowedMove { overridden: earlier })
            } else {
                Err(Refusal::GateShut(missing))
            };
        };
        // A flip by force to the state that only the file had set overrides every gate below that state.
        let below = if stays { at.rung().below().unwrap_or(State::Off) } else { at.rung() };
        let overridden_now = if at.inputs.has_no_flip && stays {
            Some(State::Off)
        } else if missing.is_empty() {
            // On the way down to `live` no gate is shut, but the route would be held.
            self.harmful_in_live(positions, at).filter(|_| requested.to == State::Live).map(|_| State::Dark)
        } else {
            Some(below)
        };
        let forced_at = match requested.source {
            FlipSource::Api => Some(clock::now()),
            FlipSource::File => earlier.as_ref().and_then(|earlier| earlier.forced_at),
        };
        let from = earlier.as_ref().map(|earlier| earlier.from).into_iter().chain(overridden_now).min();
        let reason = earlier.filter(|_| overridden_now.is_none()).map_or(reason, |earlier| earlier.reason);
        Ok(AllowedMove { overridden: from.map(|from| Overridden { from, reason, forced_at }) })
    }

    /// The next rung up, and the conditions for it that do not hold; `None` on the highest rung.
    pub fn next(&self, positions: &Positions, at: &RoutePosition) -> Option<(State, Vec<String>)> {
        let from = at.rung();
        let to = State::ALL.into_iter().find(|state| state.below() == Some(from))?;
        let requested =
            RequestedMove { to, shares: at.inputs.shares, force: false, reason: None, source: FlipSource::Api };
        let mut sentences = impossible(positions, at, &requested);
        sentences.extend(self.unmet_conditions(positions, at, to));
        Some((to, sentences))
    }

    /// The reason that was given with `force`, for as long as a gate that was overridden would still be shut, or the
    /// route would be held below `live`.
    pub fn still_forced(&self, positions: &Positions, at: &RoutePosition) -> Option<String> {
        let overridden = self.overridden(positions, at, State::Only).map(|overridden| overridden.reason);
        let by_file = || at.route.force.clone().filter(|_| self.harmful_retries(positions, at).is_some());
        overridden.or_else(by_file)
    }

    /// The lowest gate up to a rung that was overridden on the way to the present state and is still shut. The last
    /// flip or one before it overrode that gate, or the file did if the route has no flip.
    fn overridden(&self, positions: &Positions, at: &RoutePosition, up_to: State) -> Option<Overridden> {
        let (from, to, reason, forced_at) = match &at.last {
            Some(flip) => {
                let to = state_of(flip);
                match (&flip.overridden, flip.forced) {
                    (Some(Overridden { from, reason, forced_at }), _) => (*from, to, reason.clone(), *forced_at),
                    // Recorded by an earlier version.
                    (None, true) => {
                        let from = flip.from.parse().ok().filter(|from| *from < to).unwrap_or(State::Off);
                        (from, to, flip.reason.clone().unwrap_or_default(), forced_at(at))
                    }
                    (None, false) => return None,
                }
            }
            None => (State::Off, at.rung(), at.route.force.clone()?, None),
        };
        let mut gates = State::ALL.windows(2).filter(|pair| pair[0] >= from && pair[1] <= to.min(up_to));
        let shut = gates.find(|pair| !self.unmet_conditions_of_gate(positions, at, pair[0], pair[1]).is_empty())?;
        Some(Overridden { from: shut[0], reason, forced_at })
    }

    /// The highest rung that a route reached by evidence and for all callers: cohorts go up to it without `force`.
    pub fn proven(&self, positions: &Positions, at: &RoutePosition) -> State {
        let rung = at.rung();
        let mut proven = self.overridden(positions, at, rung).map_or(rung, |overridden| overridden.from);
        while let Some(below) = proven.below().filter(|_| at.inputs.shares.of(proven) < Percent::ALL) {
            proven = below;
        }
        proven
    }

    /// Which conditions of the gate do not hold, as sentences; none on the way down.
    fn unmet_conditions(&self, positions: &Positions, at: &RoutePosition, to: State) -> Vec<String> {
        let from = at.rung();
        if to <= from {
            return Vec::new();
        }
        if to.below() != Some(from) {
            return vec![format!("goes up one rung at a time, and `{from}` to `{to}` is more than one")];
        }
        self.unmet_conditions_of_gate(positions, at, from, to)
    }

    /// Why one gate is shut: first what the evidence lacks, then the other conditions.
    fn unmet_conditions_of_gate(
        &self,
        positions: &Positions,
        at: &RoutePosition,
        from: State,
        to: State,
    ) -> Vec<String> {
        // Until its creator is dark, a follower has no instances on which it could be compared; and the creator cannot
        // go to dark before the follower. So this gate asks for no evidence.
        let follows = matches!(at.route.instance, Some(Instance::Follows { .. }));
        if follows && (from, to) == (State::Shadow, State::Dark) {
            return Vec::new();
        }
        let is_live_for_all = at.inputs.shares.live == Percent::ALL;
        let mut missing = gate(&self.evidence_of(positions, at), from, to, is_live_for_all).err().unwrap_or_default();
        missing.extend(self.conditions.iter().flat_map(|condition| condition.missing(&at.route, from, to)));
        if (from, to) == (State::Live, State::Only) {
            let below = at.route.cohorts.iter().filter(|cohort| cohort.state < State::Live);
            missing.extend(below.map(|Cohort { name, state, .. }| {
                format!(
                    "the cohort `{name}` keeps callers in `{state}`: `only` holds for everybody, so the engine would get \
                     their requests too"
                )
            }));
        }
        if to == State::Live {
            let unrecorded = self.unknown_retries(positions, at).into_iter();
            let unrecorded =
                unrecorded.chain(self.unrecorded(positions, at)).chain(self.unrecorded_since_copy(positions, at));
            missing.extend(unrecorded.map(|unrecorded| unrecorded.why));
        }
        missing
    }

    /// Requests of a route whose retry keys are not known: their scope is forgotten, or a condition of the gate says
    /// so. Empty if a repeat does no harm.
    fn unknown_retries(&self, positions: &Positions, at: &RoutePosition) -> Vec<Unrecorded> {
        if !does_harm(positions, at) {
            return Vec::new();
        }
        let scopes = positions.scopes.get(&at.route.id);
        let forgotten = scopes.and_then(|scopes| scopes::forgotten(scopes, clock::now(), self.retry_window));
        let own: Vec<&RouteId> = at.route.ids().collect();
        let other = moved::sources(&positions.scopes, &at.route).map(|(id, since)| (vec![id], Some(since)));
        let of_conditions = [(own, None)].into_iter().chain(other).flat_map(|(ids, since)| {
            let unknown = self.conditions.iter().flat_map(move |condition| condition.unknown_retries(&ids));
            unknown.map(move |(until, why)| {
                let served = until.checked_sub(self.retry_window).unwrap_or(until);
                Unrecorded { exposed: since.map_or(served, |since| since.max(served)), until, why }
            })
        });
        let mut unknown: Vec<Unrecorded> = forgotten.into_iter().chain(of_conditions).collect();
        // What holds for every route is found once for this one and once for each route of which it got requests.
        unknown.sort_by(|a, b| (&a.why, b.exposed).cmp(&(&b.why, a.exposed)));
        unknown.dedup_by(|a, b| a.why == b.why);
        unknown
    }

    /// Requests that legacy served without a record and whose retries may still come; `None` if a repeat does no harm.
    fn unrecorded(&self, positions: &Positions, at: &RoutePosition) -> Option<Unrecorded> {
        let scopes = positions.scopes.get(&at.route.id)?;
        let unrecorded = scopes::before_recorded(scopes, clock::now(), self.retry_window);
        unrecorded.filter(|_| does_harm(positions, at))
    }

    /// If the store is a copy: requests that came after it was made and whose retries may still come.
    pub fn since_copy(&self) -> Option<Unrecorded> {
        scopes::since_copy(self.copy_started?, clock::now(), self.retry_window)
    }

    /// Whether retries may come of requests of a route that are not known: the store is a copy, or keys are lost.
    pub fn may_repeat_unknown(&self, positions: &Positions, at: &RoutePosition) -> bool {
        // On a copy also if a repeat does no harm now: later files may change that.
        self.since_copy().is_some() || !self.unknown_retries(positions, at).is_empty()
    }

    /// As [`Gate::since_copy`], for a route; `None` if a repeat does no harm.
    fn unrecorded_since_copy(&self, positions: &Positions, at: &RoutePosition) -> Option<Unrecorded> {
        self.since_copy().filter(|_| does_harm(positions, at))
    }

    /// Whether a route is in `only` on a copy of a store. It is not held: by then all its callers and instances are the
    /// engine's, and legacy would not know them.
    pub fn is_only_on_copy(&self, positions: &Positions, at: &RoutePosition) -> bool {
        at.rung() == State::Only && self.unrecorded_since_copy(positions, at).is_some()
    }

    /// Why a route that a flip put in `live` is held below that state: files that came after the flip give it requests
    /// whose retries the engine would perform a second time, the store is a copy, or legacy served requests whose keys
    /// are not known. A flip by force after that releases the route, and so does `force` in the file. A route in `only`
    /// is never held, because legacy is not called for it: files that would give it such requests are refused
    /// ([`Gate::unaccepted_retries_in_only`]).
    pub fn held(&self, positions: &Positions, at: &RoutePosition) -> Option<Unrecorded> {
        let is_live = at.rung() == State::Live;
        self.harmful_retries(positions, at).filter(|_| is_live && at.route.force.is_none())
    }

    /// As [`Gate::held`], for a route that goes to `live`.
    fn harmful_in_live(&self, positions: &Positions, at: &RoutePosition) -> Option<Unrecorded> {
        let mut next = at.clone();
        (next.inputs.requested, next.inputs.gate) = (State::Live, None);
        self.harmful_retries(positions, &next)
    }

    /// The cohorts whose `force` does not let them above the rung at which routes are held, and why: it was written
    /// before the edit that gave the route such requests, before the store became a copy, or before legacy served
    /// requests whose keys are not known. Whoever wrote it did not know of them. A forced flip of the route to `live`
    /// after that, or `force` of the route, counts for its cohorts too.
    pub fn held_cohorts<'a>(
        &self,
        positions: &Positions,
        at: &'a RoutePosition,
    ) -> impl Iterator<Item = (&'a Cohort, Unrecorded)> {
        let scopes = positions.scopes.get(&at.route.id);
        let forced = scopes.and_then(|scopes| scopes.forced_cohorts.clone()).unwrap_or_default();
        let is_exempt = at.rung() == State::Only || at.route.force.is_some();
        let candidates = at.route.cohorts.iter().filter(move |cohort| !is_exempt && cohort.force.is_some());
        candidates.filter(|cohort| cohort.state >= State::Live).filter_map(move |cohort| {
            let since = forced.get(&cohort.name).map(|forced| forced.since);
            let is_accepted = |unrecorded: &Unrecorded| {
                let by_flip = at.rung() == State::Live && is_accepted_by_flip(at, unrecorded);
                by_flip || since >= Some(unrecorded.exposed)
            };
            let harmful = self.unrecorded(positions, at).into_iter().chain(self.unrecorded_since_copy(positions, at));
            let harmful = harmful.chain(self.unknown_retries(positions, at));
            let last = harmful.filter(|unrecorded| !is_accepted(unrecorded)).max_by_key(|unrecorded| unrecorded.until);
            last.map(|unrecorded| (cohort, unrecorded))
        })
    }

    /// For a route that is or was in `only`: the requests whose retries the engine would perform a second time, unless
    /// a flip by force or an earlier `force` in the file has accepted that. It does not matter whether these files or
    /// earlier ones brought them: an older version stored them while it held the route at `dark`, and accepted nothing.
    pub fn unaccepted_retries_in_only(&self, after: &Positions, at: &RoutePosition) -> Option<Unrecorded> {
        let was_in_only =
            at.rung() == State::Only || at.last.as_ref().is_some_and(|flip| state_of(flip) == State::Only);
        if !was_in_only || at.rung() < State::Live {
            return None;
        }
        let accepted = after.scopes.get(&at.route.id).and_then(|scopes| scopes.accepted);
        let unrecorded = self.unrecorded(after, at)?;
        (accepted < Some(unrecorded.exposed) && !is_accepted_by_flip(at, &unrecorded)).then_some(unrecorded)
    }

    /// Requests whose retries the engine would perform a second time, unless a flip by force accepts that.
    fn harmful_retries(&self, positions: &Positions, at: &RoutePosition) -> Option<Unrecorded> {
        let by_files = (at.rung() >= State::Live).then(|| self.unrecorded(positions, at)).flatten();
        let is_live = at.rung() == State::Live;
        let by_copy = is_live.then(|| self.unrecorded_since_copy(positions, at)).flatten();
        let unknown = if is_live { self.unknown_retries(positions, at) } else { Vec::new() };
        let harmful = unknown.into_iter().chain(by_copy).chain(by_files);
        let harmful = harmful.filter(|unrecorded| !is_accepted_by_flip(at, unrecorded));
        harmful.max_by_key(|unrecorded| unrecorded.until)
    }

    /// The evidence that counts under the files of these positions. While a route is being renamed, the evidence is
    /// stored under its earlier id.
    pub fn evidence_of(&self, positions: &Positions, at: &RoutePosition) -> RouteEvidence {
        match positions.declared.bases.get(&at.route.id) {
            Some(basis) => self.evidence.of_basis(at.route.ids(), basis),
            None => self.evidence.of(&at.route.id),
        }
    }
}

/// Whether a person's flip by force has accepted that the engine performs such requests a second time. A flip by
/// `file`, or without force, keeps what was forced before and accepts nothing new: only `force` in the file does that.
fn is_accepted_by_flip(at: &RoutePosition, unrecorded: &Unrecorded) -> bool {
    forced_at(at) >= Some(unrecorded.exposed)
}

/// When a person last gave `--force` for the present state of a route.
fn forced_at(at: &RoutePosition) -> Option<Timestamp> {
    let flip = at.last.as_ref()?;
    match &flip.overridden {
        Some(overridden) => overridden.forced_at,
        // Recorded by an earlier version.
        None => (flip.forced && flip.by != FlipSource::File.as_str()).then_some(flip.at),
    }
}

/// Why files must not be put in force that let the engine perform such requests of a route in `only` a second time.
pub(super) fn exposed_sentence(id: &RouteId, until: Timestamp) -> String {
    format!(
        "`{id}` is in `only`, where legacy is never called, and its files give it requests whose retry keys were not \
         recorded when legacy served them, or a workflow that no longer only reads: until {until:.0} a retry of such \
         a request may come, and the engine would perform it a second time. Lower the route first, or accept that with \
         `force: {{ reason: … }}` on the route"
    )
}

/// Whether a request that the engine performs a second time does harm.
fn does_harm(positions: &Positions, at: &RoutePosition) -> bool {
    !positions.declared.read_only.contains(&at.route.id)
}

/// Why a move is impossible, whatever the evidence and even with force.
fn impossible(positions: &Positions, at: &RoutePosition, requested: &RequestedMove) -> Vec<String> {
    let id = &at.route.id;
    let mut sentences = Vec::new();
    if requested.to > State::Off && at.route.workflow.is_none() {
        sentences.push(format!("`{id}` has no workflow: it can only be off"));
    }
    let share = requested.shares.of(requested.to);
    // A route goes down whatever share it keeps there; the mover lowers it further where it has no callers on that
    // rung.
    let is_asked = requested.to >= at.rung() || share != at.inputs.shares.of(requested.to);
    let takes_keys = matches!(requested.to, State::Dark | State::Live) && share < Percent::ALL;
    if takes_keys && is_asked && at.route.key.is_none() {
        sentences.push(format!(
            "a share below 100 % in `{}` needs a `key` on `{id}`, or one caller's requests would go to both arms",
            requested.to
        ));
    }
    if requested.to > at.rung() {
        let below = positions.followers(id).filter(|follower| follower.rung() < requested.to);
        let below: Vec<_> = below.map(|f| format!("`{}` is `{}`", f.route.id, f.rung())).collect();
        if !below.is_empty() {
            sentences.push(format!("`{id}` cannot go above its followers, they go first: {}", below.join(", ")));
        }
    }
    sentences
}
