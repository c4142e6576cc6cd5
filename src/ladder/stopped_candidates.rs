//! Candidates whose share the guard has set to 0: the *stop* of a candidate. Its gate stays shut until there is new
//! evidence, or a person passes the gate by force.
//!
//! The stop is noted in the evidence of the candidate ([`GuardStop`]). If the process was killed before the note was
//! stored, or an earlier version set the share to 0, the stop is found in the last record of the candidate.

use jiff::Timestamp;

use super::gate::{Gate, judged_route};
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
        let noted = evidence.stopped_by_guard.clone();
        let stop = noted.or_else(|| recorded_stop(positions, position, candidate?, evidence));
        // If files are changed back, the evidence of the earlier files counts again. It may have a stop that a person
        // has passed by force meanwhile.
        let stop =
            stop.filter(|stop| !candidate.is_some_and(|of| is_passed_by_force(positions, position, of, stop.at)));
        let releases = position.route.guard.as_ref().is_some_and(|guard| guard.release == GuardRelease::Evidence);
        let clean = || self.evidence.clean_pairs(&candidate_key(&position.route.id), State::Shadow);
        let stopped = stop.as_ref().map(|stop| (stop, releases.then(clean)));
        evidence::candidate_conditions(&judged_route(positions, position, evidence), stopped)
    }
}

/// The stop in the last record of this candidate; `None` if there is none, or if the evidence started anew since.
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

/// Whether the last record of this candidate says that a person passed its gate by force after the stop.
fn is_passed_by_force(positions: &Positions, position: &RoutePosition, candidate: &PlanSet, stop: Timestamp) -> bool {
    let ids: Vec<&RouteId> = position.route.ids().collect();
    let Some(last) = last_record(positions, &ids).filter(|last| last.forced && last.at > stop) else { return false };
    last.candidate.as_ref().is_some_and(|record| {
        record.candidate.as_ref() == Some(candidate) && gives_requests(record) && last.by != BY_GUARD
    })
}

/// Whether a move of a candidate leaves it a share of new requests.
fn gives_requests(record: &CandidateRecord) -> bool {
    record.share.is_none_or(|share| share > Percent::NONE)
}

impl Mover {
    /// Takes over the last move of a candidate into its evidence: notes a stop by the guard, or removes the note if a
    /// person has passed the gate by force. Its guard counts from zero.
    pub(super) fn note_move_of_candidate(&self, record: &FlipRecord) {
        let Some(of_candidate @ CandidateRecord { route, action, .. }) = &record.candidate else { return };
        let (key, evidence) = (candidate_key(route), &self.gate().evidence);
        match action {
            CandidateAction::Moved | CandidateAction::Promoted => {}
            CandidateAction::Appeared | CandidateAction::Dropped => return,
        }
        evidence.restart_guard(&key);
        if record.by == BY_GUARD {
            let why = record.reason.clone().unwrap_or_default();
            evidence.set_guard_stop(&key, Some(GuardStop { at: record.at, why }));
        } else if record.forced && gives_requests(of_candidate) {
            evidence.set_guard_stop(&key, None);
        }
    }
}
