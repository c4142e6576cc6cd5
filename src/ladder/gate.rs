//! Whether a route may move: up one rung at a time and only through the gate, down any distance.
//!
//! Always true: going down is refused only from `only` without an acknowledgement. Force with a reason overrides a gate
//! whose conditions do not hold, but never an impossible move (no workflow, a share without a key, a creator above its
//! followers).

use std::sync::Arc;
use std::time::Duration;

use super::positions::{Positions, RoutePosition};
use super::scopes::{self, Unrecorded};
use super::types::GateCondition;
use crate::clock;
use crate::evidence::{Evidence, RouteEvidence, gate};
use crate::flag::{Instance, Percent, Shares, State};

/// What moves are judged by.
pub(super) struct Gate {
    pub evidence: Arc<Evidence>,
    /// The conditions other than evidence.
    pub conditions: Vec<Arc<dyn GateCondition>>,
    /// How long after a first try a client's retry may come.
    pub retry_window: Duration,
}

/// The requested move of a route.
pub(super) struct Wanted {
    pub to: State,
    pub shares: Shares,
    /// Override the gate.
    pub force: bool,
    pub reason: Option<String>,
}

/// Why a move is refused.
pub(super) enum Refusal {
    /// The gate is shut: each condition that does not hold. Force with a reason overrides it.
    GateShut(Vec<String>),
    /// The move is impossible, also with force.
    Impossible(String),
}

/// An allowed move.
pub(super) struct Passed {
    pub forced: bool,
}

impl Gate {
    /// Judges a move. The acknowledgement on the way down from `only` is checked by the mover, because it needs the
    /// horizon.
    pub fn judge(&self, positions: &Positions, at: &RoutePosition, wanted: &Wanted) -> Result<Passed, Refusal> {
        if wanted.force && wanted.reason.as_ref().is_none_or(|reason| reason.trim().is_empty()) {
            return Err(Refusal::Impossible("passing the gate by hand wants a reason".into()));
        }
        if let Some(sentence) = impossible(positions, at, wanted).into_iter().next() {
            return Err(Refusal::Impossible(sentence));
        }
        // The mark of a gate that was overridden stays where only the share changes.
        let is_unproven = wanted.to == at.rung() && self.still_forced(positions, at).is_some();
        let is_raised = wanted.shares.of(wanted.to) > at.inputs.shares.of(wanted.to);
        let missing = match wanted.to.below().filter(|_| is_unproven && is_raised) {
            Some(below) => self.shut(positions, at, below, wanted.to),
            None => self.missing(positions, at, wanted.to),
        };
        if missing.is_empty() {
            return Ok(Passed { forced: is_unproven });
        }
        if wanted.force { Ok(Passed { forced: true }) } else { Err(Refusal::GateShut(missing)) }
    }

    /// The next rung up, and the conditions for it that do not hold; `None` on the highest rung.
    pub fn next(&self, positions: &Positions, at: &RoutePosition) -> Option<(State, Vec<String>)> {
        let from = at.rung();
        let to = State::ALL.into_iter().find(|state| state.below() == Some(from))?;
        let wanted = Wanted { to, shares: at.inputs.shares, force: false, reason: None };
        let mut sentences = impossible(positions, at, &wanted);
        sentences.extend(self.missing(positions, at, to));
        Some((to, sentences))
    }

    /// The reason that was given with `force`, for as long as a gate that was overridden would still be shut. It comes
    /// from the last flip, or from the file if the route has no flip.
    pub fn still_forced(&self, positions: &Positions, at: &RoutePosition) -> Option<String> {
        let (from, to, reason) = match &at.last {
            Some(flip) if flip.forced => {
                let reason = flip.reason.clone().unwrap_or_default();
                let (Ok(from), Ok(to)) = (flip.from.parse::<State>(), flip.to.parse::<State>()) else {
                    return Some(reason);
                };
                // A flip by force to the state that the file had set, unproven, overrides every gate below it.
                (if from < to { from } else { State::Off }, to, reason)
            }
            Some(_) => return None,
            None => (State::Off, at.rung(), at.route.force.clone()?),
        };
        let rungs = State::ALL.windows(2).filter(|pair| pair[0] >= from && pair[1] <= to);
        let shut = rungs.into_iter().any(|pair| !self.shut(positions, at, pair[0], pair[1]).is_empty());
        shut.then_some(reason)
    }

    /// Which conditions of the gate do not hold, as sentences; none on the way down.
    fn missing(&self, positions: &Positions, at: &RoutePosition, to: State) -> Vec<String> {
        let from = at.rung();
        if to <= from {
            return Vec::new();
        }
        if to.below() != Some(from) {
            return vec![format!("goes up one rung at a time, and `{from}` to `{to}` is more than one")];
        }
        // Before its creator is dark there are no instances on which a follower could be compared, and the creator waits
        // for the follower.
        let follows = matches!(at.route.instance, Some(Instance::Follows { .. }));
        if follows && (from, to) == (State::Shadow, State::Dark) {
            return Vec::new();
        }
        self.shut(positions, at, from, to)
    }

    /// Why one gate is shut: first what the evidence lacks, then the other conditions.
    fn shut(&self, positions: &Positions, at: &RoutePosition, from: State, to: State) -> Vec<String> {
        let all = at.inputs.shares.live == Percent::ALL;
        let mut missing = gate(&self.evidence_of(positions, at), from, to, all).err().unwrap_or_default();
        missing.extend(self.conditions.iter().flat_map(|condition| condition.missing(&at.route, from, to)));
        if let (State::Live, Some(scopes)) = (to, positions.scopes.get(&at.route.id)) {
            let (now, window) = (clock::now(), self.retry_window);
            missing.extend(scopes::forgotten(scopes, now, window));
            missing.extend(self.unrecorded(positions, at).map(|unrecorded| unrecorded.why));
        }
        missing
    }

    /// Retries that may come of requests that legacy served without a record, where repeating one does harm.
    fn unrecorded(&self, positions: &Positions, at: &RoutePosition) -> Option<Unrecorded> {
        let scopes = positions.scopes.get(&at.route.id)?;
        let does_harm = !positions.declared.read_only.contains(&at.route.id);
        scopes::before_recorded(scopes, clock::now(), self.retry_window).filter(|_| does_harm)
    }

    /// Why a route that a flip put in `live` or `only` is held below it: files that came after that flip let such retries
    /// come. A flip by force after these files releases it, and so does `force` in the file.
    pub fn held(&self, positions: &Positions, at: &RoutePosition) -> Option<Unrecorded> {
        let overridden =
            |unrecorded: &Unrecorded| at.last.as_ref().is_some_and(|flip| flip.forced && flip.at >= unrecorded.exposed);
        let may_be_held = at.rung() >= State::Live && at.route.force.is_none();
        may_be_held.then(|| self.unrecorded(positions, at))?.filter(|unrecorded| !overridden(unrecorded))
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

/// Why a move is impossible, whatever the evidence and also with force.
fn impossible(positions: &Positions, at: &RoutePosition, wanted: &Wanted) -> Vec<String> {
    let id = &at.route.id;
    let mut sentences = Vec::new();
    if wanted.to > State::Off && at.route.workflow.is_none() {
        sentences.push(format!("`{id}` has no workflow: it can only be off"));
    }
    let below_all = |rung: State| wanted.shares.of(rung) < Percent::ALL;
    if matches!(wanted.to, State::Dark | State::Live) && below_all(wanted.to) && at.route.key.is_none() {
        sentences.push(format!(
            "a share below 100 % in `{}` wants a `key` on `{id}`, or a caller's requests would go to either arm",
            wanted.to
        ));
    }
    if wanted.to > at.rung() {
        let below = positions.followers(id).filter(|follower| follower.rung() < wanted.to);
        let below: Vec<_> = below.map(|f| format!("`{}` is `{}`", f.route.id, f.rung())).collect();
        if !below.is_empty() {
            sentences.push(format!("`{id}` cannot go above its followers, they go first: {}", below.join(", ")));
        }
    }
    sentences
}
