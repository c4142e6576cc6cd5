//! Moves up wait for the pairs that are under way, some of which may differ.
//!
//! Always true: a move that the gates would allow is judged once more, after a wait. The wait ends when no pair is
//! under way, or after the longest time that a pair takes (`pairs_within`): while requests go on coming, some are
//! always under way. How each kind of move waits:
//!
//! - A person's flip, and the move of a candidate, wait before they take the lock of moves.
//! - A move by a file must not keep other changes of the files waiting. It is refused until the wait is over, and then
//!   the files are judged once more ([`super::Ladder::has_moves_to_judge_again`]).
//! - The gates of cohorts, and of routes that clean evidence releases from their guards, stay shut until the wait is
//!   over. They are judged periodically (`opening_gates`).
//! - A move by force, and a move that raises nothing, do not wait. A flip down with a larger share is in force at once;
//!   only the larger share waits.

use std::time::{Duration, Instant};

use super::awaited_pairs::AwaitedPairs;
use super::declared_plans::CandidateMove;
use super::gate::{AllowedMove, Gate, MoveRefusal, RequestedMove};
use super::mover::Mover;
use super::positions::{Positions, RoutePosition};
use super::types::MoveRequest;
use crate::flag::State;
use crate::names::RouteId;
use crate::store::candidate_key;

/// How often it is checked whether pairs are still under way.
const PAIRS_POLL: Duration = Duration::from_millis(50);

/// Whether a move takes the route, or more of its callers, up to `dark` or `live`, whose gates require pairs.
fn is_raised_by(position: &RoutePosition, requested: &RequestedMove) -> bool {
    let is_larger = |rung: State| position.reached(rung).is_some_and(|reached| requested.shares.of(rung) > reached);
    let goes_up = requested.to > position.rung() && matches!(requested.to, State::Dark | State::Live);
    goes_up || [State::Dark, State::Live].into_iter().any(is_larger)
}

impl Gate {
    /// Whether pairs of a route are under way, under whichever of its ids.
    fn has_pairs_in_flight(&self, position: &RoutePosition) -> bool {
        position.route.ids().any(|id| self.evidence.in_flight(id) > 0)
    }

    /// For gates that are judged periodically: if `missing` is empty and the gate has to wait for pairs under way, adds
    /// a sentence that says so. `missing`: what the gate of the route, or of a cohort of it, still requires.
    pub(super) fn add_awaited_pairs(
        &self,
        positions: &Positions,
        position: &RoutePosition,
        (cohort, to): (Option<&str>, State),
        missing: &mut Vec<String>,
    ) {
        let id = &position.route.id;
        if !missing.is_empty() {
            return self.opening.note_shut(id, cohort, to);
        }
        let followers = positions.followers(id).filter(|_| to == State::Live);
        let is_under_way = [position].into_iter().chain(followers).any(|at| self.has_pairs_in_flight(at));
        if is_under_way && self.opening.waits(id, cohort, to, positions.declared.pairs_within) {
            missing.push(format!(
                "requests of `{id}` are still being compared, and some of them may differ: it is judged again by itself \
                 once they are"
            ));
        }
    }

    /// Judges the move by a file. One that the gates would allow is refused while pairs are under way.
    pub(super) fn judge_by_file(
        &self,
        positions: &Positions,
        position: &mut RoutePosition,
        requested: &RequestedMove,
    ) -> Result<AllowedMove, MoveRefusal> {
        let allowed = self.judge(positions, position, requested)?;
        if requested.force || !is_raised_by(position, requested) || !self.has_pairs_in_flight(position) {
            return Ok(allowed);
        }
        let (asked, now, within) = (position.declared(), Instant::now(), positions.declared.pairs_within);
        let until = position.awaits_pairs.filter(|awaited| awaited.asked == asked).map_or(now + within, |of| of.until);
        if now >= until {
            return Ok(allowed);
        }
        position.awaits_pairs = Some(AwaitedPairs { asked, until, is_waiting: true });
        Err(MoveRefusal::GateShut(vec![format!(
            "requests of `{}` are still being compared, and some of them may differ: it is judged again by itself once \
             they are (within {within:.0?})",
            position.route.id
        )]))
    }

    /// Whether the move by a file has waited for pairs, and is to be judged again.
    pub(super) fn is_to_be_judged_again(&self, position: &RoutePosition) -> bool {
        let awaited = position.awaits_pairs.filter(|awaited| awaited.is_waiting);
        awaited.is_some_and(|awaited| Instant::now() >= awaited.until || !self.has_pairs_in_flight(position))
    }
}

impl Mover {
    /// Waits for pairs before a flip up that the gate would allow. To be called without the lock of moves, so that a
    /// flip down does not wait.
    pub(super) async fn wait_for_pairs(&self, route: &RouteId, request: &MoveRequest) {
        let positions = self.in_force().inputs().positions;
        let Some(position) = positions.routes.get(route) else { return };
        let is_judged = !request.force && request.to <= State::Live && position.is_raised_by(request);
        if is_judged {
            self.gate().evidence.refresh().await;
        }
        let until = Instant::now() + positions.declared.pairs_within;
        if !is_judged || !self.must_wait(route, until) || self.judge(&positions, position, request).is_err() {
            return;
        }
        self.wait_until_compared(route, until).await;
    }

    /// As [`Self::wait_for_pairs`], before the candidate of a route gets a larger share or comes into force.
    pub(super) async fn wait_for_pairs_of_candidate(&self, asked: &CandidateMove) {
        let positions = self.in_force().inputs().positions;
        let Some(position) = positions.routes.get(&asked.route) else { return };
        self.gate().evidence.refresh().await;
        let Some(status) = self.gate().candidate(&positions, position) else { return };
        let is_judged = !asked.force && asked.share.is_none_or(|share| share > status.share);
        if !is_judged || !status.missing.is_empty() {
            return;
        }
        let until = Instant::now() + positions.declared.candidate_pairs_within;
        self.wait_until_compared(&candidate_key(&asked.route), until).await;
    }

    async fn wait_until_compared(&self, route: &RouteId, until: Instant) {
        while self.must_wait(route, until) {
            tokio::time::sleep(PAIRS_POLL).await;
        }
    }

    fn must_wait(&self, route: &RouteId, until: Instant) -> bool {
        self.gate().evidence.in_flight(route) > 0 && Instant::now() < until
    }
}
