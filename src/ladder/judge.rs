//! Whether a route may go there: one rung up at a time and only through the gate, down any distance.
//!
//! Always true: going down is refused only from `only` without an acknowledgement; what makes no sense (no workflow,
//! a share without a key, a creator above its followers) no force passes; what evidence lacks, force and a reason do.

use super::FlipError;
use super::board::{Board, Place};
use crate::evidence::Evidence;
use crate::flag::{Instance, Percent, Shares, State};

/// A wish to move, by whomever.
pub(super) struct Wish {
    pub to: State,
    pub shares: Shares,
    /// Pass the gate by hand, and why.
    pub force: bool,
    pub reason: Option<String>,
}

/// Whether the gate had to be passed by hand.
pub(super) struct Passed {
    pub forced: bool,
}

/// Judges a wish. The acknowledgement on the way down from `only` is asked for elsewhere: it needs the horizon.
pub(super) fn judge(board: &Board, evidence: &Evidence, place: &Place, wish: &Wish) -> Result<Passed, FlipError> {
    if wish.force && wish.reason.as_ref().is_none_or(|reason| reason.trim().is_empty()) {
        return Err(FlipError::Refused("passing the gate by hand wants a reason".into()));
    }
    if let Some(sentence) = senseless(board, place, wish).into_iter().next() {
        return Err(FlipError::Refused(sentence));
    }
    let missing = missing(evidence, place, wish.to);
    if missing.is_empty() {
        return Ok(Passed { forced: false });
    }
    if wish.force { Ok(Passed { forced: true }) } else { Err(FlipError::GateShut(missing)) }
}

/// What no evidence and no force can mend.
fn senseless(board: &Board, place: &Place, wish: &Wish) -> Vec<String> {
    let id = &place.route.id;
    let mut sentences = Vec::new();
    if wish.to > State::Off && place.route.workflow.is_none() {
        sentences.push(format!("`{id}` has no workflow: it can only be off"));
    }
    let below_all = |rung: State| wish.shares.of(rung) < Percent::ALL;
    if matches!(wish.to, State::Dark | State::Live) && below_all(wish.to) && place.route.key.is_none() {
        sentences.push(format!(
            "a share below 100 % in `{}` wants a `key` on `{id}`, or a caller would change sides with each request",
            wish.to
        ));
    }
    if wish.to > place.stands() {
        let below = board.followers(id).filter(|follower| follower.stands() < wish.to);
        let below: Vec<_> = below.map(|f| format!("`{}` is `{}`", f.route.id, f.stands())).collect();
        if !below.is_empty() {
            sentences.push(format!("`{id}` cannot go above its followers, they go first: {}", below.join(", ")));
        }
    }
    sentences
}

/// Which conditions of the gate do not hold, as sentences; none on the way down.
fn missing(evidence: &Evidence, place: &Place, to: State) -> Vec<String> {
    let from = place.stands();
    if to <= from {
        return Vec::new();
    }
    if to.below() != Some(from) {
        return vec![format!("goes up one rung at a time, and `{from}` to `{to}` is more than one")];
    }
    // Nothing that a follower could be compared on exists before its creator is dark, which waits for the follower.
    let follows = matches!(place.route.instance, Some(Instance::Follows { .. }));
    if follows && (from, to) == (State::Shadow, State::Dark) {
        return Vec::new();
    }
    evidence.gate(&place.route.id, from, to, place.standing.shares.live == Percent::ALL).err().unwrap_or_default()
}

/// The rung above and everything that it still takes; `None` at the top.
pub(super) fn next(board: &Board, evidence: &Evidence, place: &Place) -> Option<(State, Vec<String>)> {
    let from = place.stands();
    let to = State::ALL.into_iter().find(|state| state.below() == Some(from))?;
    let wish = Wish { to, shares: place.standing.shares, force: false, reason: None };
    let mut sentences = senseless(board, place, &wish);
    sentences.extend(missing(evidence, place, to));
    Some((to, sentences))
}

/// Whether a forced flip still stands on nothing: some gate that it passed by hand is shut to this day.
pub(super) fn is_still_forced(evidence: &Evidence, place: &Place) -> bool {
    let Some(flip) = place.last.as_ref().filter(|flip| flip.forced) else { return false };
    let (Ok(from), Ok(to)) = (flip.from.parse::<State>(), flip.to.parse::<State>()) else { return true };
    // Forced to where it stood, unproven, it passed every gate below by hand.
    let from = if from < to { from } else { State::Off };
    let all = place.standing.shares.live == Percent::ALL;
    let rungs = State::ALL.windows(2).filter(|pair| pair[0] >= from && pair[1] <= to);
    let mut gates = rungs.map(|pair| evidence.gate(&place.route.id, pair[0], pair[1], all));
    gates.any(|gate| gate.is_err())
}
