//! Candidates whose share the guard has set to 0: their gates say so until there is new evidence, or a person passes
//! them by force.
//!
//! It is noted in the evidence of the candidate ([`GuardStop`]). If the process was killed before that was stored, or
//! an earlier version acted, the last record of the candidate says it.

use super::gate::{Gate, judged};
use super::guard_actions::BY_GUARD;
use super::mover::Mover;
use super::plans::last_record;
use super::positions::{Positions, RoutePosition};
use crate::evidence::{self, Condition, GuardStop, RouteEvidence};
use crate::flag::{GuardRelease, Percent, State};
use crate::names::{PlanSet, RouteId};
use crate::store::{CandidateAction, CandidateRecord, FlipRecord, candidate_key};

impl Gate {
    /// The conditions for a larger share of the candidate of a route, and for putting it in force.
    pub(super) fn conditions_of_candidate(
        &self,
        positions: &Positions,
        position: &RoutePosition,
        candidate: Option<&PlanSet>,
        evidence: &RouteEvidence,
    ) -> Vec<Condition> {
        let stop =
            evidence.stopped_by_guard.clone().or_else(|| recorded_stop(positions, position, candidate?, evidence));
        let releases = position.route.guard.as_ref().is_some_and(|guard| guard.release == GuardRelease::Evidence);
        let clean = || self.evidence.clean_pairs(&candidate_key(&position.route.id), State::Shadow);
        let stopped = stop.as_ref().map(|stop| (stop, releases.then(clean)));
        evidence::candidate_conditions(&judged(positions, position, evidence), stopped)
    }
}

/// What the last record of this candidate says, unless its evidence started anew since.
fn recorded_stop(
    positions: &Positions,
    position: &RoutePosition,
    candidate: &PlanSet,
    evidence: &RouteEvidence,
) -> Option<GuardStop> {
    let ids: Vec<&RouteId> = position.route.ids().collect();
    let last = last_record(positions, &ids).filter(|last| last.by == BY_GUARD)?;
    let is_of_candidate = last.candidate.as_ref()?.candidate.as_ref() == Some(candidate);
    let is_older = evidence.restarted.as_ref().is_some_and(|restart| restart.at > last.at);
    let why = last.reason.clone().unwrap_or_default();
    (is_of_candidate && !is_older).then_some(GuardStop { at: last.at, why })
}

impl Mover {
    /// Notes in the evidence of a candidate what its last move says: that the guard has stopped it, or that a person
    /// has passed its gate by force since. What its guard counts begins from zero.
    pub(super) fn note_move_of_candidate(&self, record: &FlipRecord) {
        let Some(CandidateRecord { route, action, share, .. }) = &record.candidate else { return };
        let (key, evidence) = (candidate_key(route), &self.gate().evidence);
        match action {
            CandidateAction::Moved | CandidateAction::Promoted => {}
            CandidateAction::Appeared | CandidateAction::Dropped => return,
        }
        evidence.restart_guard(&key);
        let gets_requests = share.is_none_or(|share| share > Percent::NONE);
        if record.by == BY_GUARD {
            let why = record.reason.clone().unwrap_or_default();
            evidence.set_guard_stop(&key, Some(GuardStop { at: record.at, why }));
        } else if record.forced && gets_requests {
            evidence.set_guard_stop(&key, None);
        }
    }
}
