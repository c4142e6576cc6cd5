//! Whether a route may go there: one rung up at a time and only through the gate, down any distance.
//!
//! Always true: going down is refused only from `only` without an acknowledgement; what makes no sense (no workflow,
//! a share without a key, a creator above its followers) no force passes; what evidence lacks, force and a reason do.

use std::sync::Arc;
use std::time::Duration;

use super::positions::{Positions, RoutePosition};
use super::scopes;
use super::types::GateCondition;
use crate::clock;
use crate::evidence::{Evidence, RouteEvidence, gate};
use crate::flag::{Instance, Percent, Shares, State};

/// What gates look at.
pub(super) struct Gate {
    pub evidence: Arc<Evidence>,
    /// Beside evidence.
    pub conditions: Vec<Arc<dyn GateCondition>>,
    /// How long a client's retry may come.
    pub retry_window: Duration,
}

/// Where somebody wants a route to go.
pub(super) struct Wanted {
    pub to: State,
    pub shares: Shares,
    /// Pass the gate by hand, and why.
    pub force: bool,
    pub reason: Option<String>,
}

/// Why a move is refused.
pub(super) enum Shut {
    /// Each condition that does not hold; force with a reason passes.
    Gate(Vec<String>),
    /// It makes no sense, and no force passes.
    Senseless(String),
}

/// Whether the gate had to be passed by hand.
pub(super) struct Passed {
    pub forced: bool,
}

impl Gate {
    /// Judges a move. The acknowledgement on the way down from `only` is asked for elsewhere: it needs the horizon.
    pub fn judge(&self, positions: &Positions, at: &RoutePosition, wanted: &Wanted) -> Result<Passed, Shut> {
        if wanted.force && wanted.reason.as_ref().is_none_or(|reason| reason.trim().is_empty()) {
            return Err(Shut::Senseless("passing the gate by hand wants a reason".into()));
        }
        if let Some(sentence) = senseless(positions, at, wanted).into_iter().next() {
            return Err(Shut::Senseless(sentence));
        }
        let missing = self.missing(positions, at, wanted.to);
        if missing.is_empty() {
            return Ok(Passed { forced: false });
        }
        if wanted.force { Ok(Passed { forced: true }) } else { Err(Shut::Gate(missing)) }
    }

    /// The rung above and everything that it still takes; `None` at the top.
    pub fn next(&self, positions: &Positions, at: &RoutePosition) -> Option<(State, Vec<String>)> {
        let from = at.stands();
        let to = State::ALL.into_iter().find(|state| state.below() == Some(from))?;
        let wanted = Wanted { to, shares: at.inputs.shares, force: false, reason: None };
        let mut sentences = senseless(positions, at, &wanted);
        sentences.extend(self.missing(positions, at, to));
        Some((to, sentences))
    }

    /// Why a route stands where it does without proof: the reason given when a gate was passed by hand that is shut to
    /// this day. By a flip, or by the file where no flip stands behind it.
    pub fn still_forced(&self, positions: &Positions, at: &RoutePosition) -> Option<String> {
        let (from, to, reason) = match &at.last {
            Some(flip) if flip.forced => {
                let reason = flip.reason.clone().unwrap_or_default();
                let (Ok(from), Ok(to)) = (flip.from.parse::<State>(), flip.to.parse::<State>()) else {
                    return Some(reason);
                };
                // Forced to where it stood, unproven, it passed every gate below by hand.
                (if from < to { from } else { State::Off }, to, reason)
            }
            Some(_) => return None,
            None => (State::Off, at.stands(), at.route.force.clone()?),
        };
        let rungs = State::ALL.windows(2).filter(|pair| pair[0] >= from && pair[1] <= to);
        let shut = rungs.into_iter().any(|pair| !self.shut(positions, at, pair[0], pair[1]).is_empty());
        shut.then_some(reason)
    }

    /// Which conditions of the gate do not hold, as sentences; none on the way down.
    fn missing(&self, positions: &Positions, at: &RoutePosition, to: State) -> Vec<String> {
        let from = at.stands();
        if to <= from {
            return Vec::new();
        }
        if to.below() != Some(from) {
            return vec![format!("goes up one rung at a time, and `{from}` to `{to}` is more than one")];
        }
        // Nothing that a follower could be compared on exists before its creator is dark, which waits for the follower.
        let follows = matches!(at.route.instance, Some(Instance::Follows { .. }));
        if follows && (from, to) == (State::Shadow, State::Dark) {
            return Vec::new();
        }
        self.shut(positions, at, from, to)
    }

    /// What keeps one gate shut: first what evidence lacks, then the other conditions.
    fn shut(&self, positions: &Positions, at: &RoutePosition, from: State, to: State) -> Vec<String> {
        let all = at.inputs.shares.live == Percent::ALL;
        let mut missing = gate(&self.evidence_of(positions, at), from, to, all).err().unwrap_or_default();
        missing.extend(self.conditions.iter().flat_map(|condition| condition.missing(&at.route, from, to)));
        if let (State::Live, Some(scopes)) = (to, positions.scopes.get(&at.route.id)) {
            let (now, window) = (clock::now(), self.retry_window);
            missing.extend(scopes::forgotten(scopes, now, window));
            if !positions.declared.read_only.contains(&at.route.id) {
                missing.extend(scopes::before_recorded(scopes, now, window));
            }
        }
        missing
    }

    /// Evidence that counts under the files that these positions belong to. While a route is being renamed, that stands
    /// under its earlier id.
    pub fn evidence_of(&self, positions: &Positions, at: &RoutePosition) -> RouteEvidence {
        match positions.declared.bases.get(&at.route.id) {
            Some(basis) => self.evidence.of_basis(at.route.ids(), basis),
            None => self.evidence.of(&at.route.id),
        }
    }
}

/// What no evidence and no force can mend.
fn senseless(positions: &Positions, at: &RoutePosition, wanted: &Wanted) -> Vec<String> {
    let id = &at.route.id;
    let mut sentences = Vec::new();
    if wanted.to > State::Off && at.route.workflow.is_none() {
        sentences.push(format!("`{id}` has no workflow: it can only be off"));
    }
    let below_all = |rung: State| wanted.shares.of(rung) < Percent::ALL;
    if matches!(wanted.to, State::Dark | State::Live) && below_all(wanted.to) && at.route.key.is_none() {
        sentences.push(format!(
            "a share below 100 % in `{}` wants a `key` on `{id}`, or a caller would change sides with each request",
            wanted.to
        ));
    }
    if wanted.to > at.stands() {
        let below = positions.followers(id).filter(|follower| follower.stands() < wanted.to);
        let below: Vec<_> = below.map(|f| format!("`{}` is `{}`", f.route.id, f.stands())).collect();
        if !below.is_empty() {
            sentences.push(format!("`{id}` cannot go above its followers, they go first: {}", below.join(", ")));
        }
    }
    sentences
}
