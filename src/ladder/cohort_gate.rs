//! How far the cohorts of a route may go by the evidence of their own requests.
//!
//! Always true, of a cohort without `force`:
//!
//! - It is above its route only if it has passed each gate on the way: by its own evidence, and by the other conditions
//!   of these gates.
//! - It is in `off` with its route, because in `off` nothing is compared.
//! - Once it has passed a gate, conditions that only stop moves up do not lower it below that gate again.
//! - While pairs are under way, no further gate opens for it (`opening_gates`).
//!
//! Cohorts are judged with each change of the positions, and periodically in between (`cohorts_again`).

use std::collections::BTreeMap;

use super::gate::{Gate, judged_route};
use super::gate_judgement::sentences;
use super::positions::{Positions, RoutePosition};
use crate::evidence::{Condition, ConditionName, GateVerdict, cohort_conditions};
use crate::flag::{Cohort, Instance, State};

/// The gates that a cohort passes by its own evidence.
const GATES: [(State, State); 2] = [(State::Shadow, State::Dark), (State::Dark, State::Live)];

/// A cohort that is below the state of its rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CohortBelow {
    /// Its name.
    pub name: String,
    /// The state of its rule.
    pub rule: State,
    /// The highest rung that its callers may be on.
    pub reached: State,
    /// What the next gate still requires.
    pub missing: Vec<String>,
}

/// Why cohorts are judged.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum CohortJudgement {
    /// A route was moved or files were read: all conditions of each gate are judged again.
    AfterMove,
    /// Some time has passed: of a gate that the cohort has passed, only conditions count that cannot recover by
    /// themselves ([`may_recover`]). So a figure that varies around its limit, such as the coverage, does not move
    /// callers back and forth.
    Periodic,
}

/// Whether a condition that does not hold may hold again after further requests, without a change of the files or an
/// act of a person.
fn may_recover(name: ConditionName) -> bool {
    match name {
        ConditionName::OneRung
        | ConditionName::OpenDifferences
        | ConditionName::MismatchBelow
        | ConditionName::EffectsCompared
        | ConditionName::PrivateSteps
        | ConditionName::SentReads
        | ConditionName::StoppedByGuard
        | ConditionName::Invariants => false,
        ConditionName::Pairs
        | ConditionName::CoverageAtLeast
        | ConditionName::StrataAtLeast
        | ConditionName::ErrorsNotWorseBy
        | ConditionName::CandidateErrors
        | ConditionName::NoiseNotWorseBy
        | ConditionName::P99RatioBelow
        | ConditionName::AgeAtMost
        | ConditionName::Twins
        | ConditionName::Share
        | ConditionName::Answers
        | ConditionName::Window
        | ConditionName::ClientErrors => true,
    }
}

impl Gate {
    /// The rungs that the cohorts of a route reached by their own evidence. A cohort that is missing in the result has
    /// reached `shadow`.
    pub(super) fn proven_cohorts(
        &self,
        positions: &Positions,
        position: &RoutePosition,
        judgement: CohortJudgement,
    ) -> BTreeMap<String, State> {
        let cohorts = position.route.cohorts.iter().filter(|cohort| cohort.force.is_none());
        let rung = |cohort| self.reached(positions, position, cohort, judgement).0;
        let reached = cohorts.map(|cohort| (cohort.name.clone(), rung(cohort)));
        reached.filter(|(_, reached)| *reached > State::Shadow).collect()
    }

    /// The cohorts without `force` that lack evidence for the state of their rules.
    pub(super) fn cohorts_below(&self, positions: &Positions, position: &RoutePosition) -> Vec<CohortBelow> {
        let below = position
            .route
            .cohorts
            .iter()
            .filter(|cohort| cohort.force.is_none() && cohort.state > position.inputs.proven_for(cohort));
        let shown = below.map(|cohort| {
            let (_, missing) = self.reached(positions, position, cohort, CohortJudgement::Periodic);
            let (name, rule, reached) = (cohort.name.clone(), cohort.state, position.inputs.proven_for(cohort));
            CohortBelow { name, rule, reached, missing }
        });
        shown.collect()
    }

    /// The rung that a cohort reached, at most that of its rule, and what it lacks for the next one.
    fn reached(
        &self,
        positions: &Positions,
        position: &RoutePosition,
        cohort: &Cohort,
        judgement: CohortJudgement,
    ) -> (State, Vec<String>) {
        let passed_up_to = position.inputs.proven_cohorts.get(&cohort.name).copied().unwrap_or(State::Shadow);
        let (reached, missing) = self.reached_from(passed_up_to, positions, position, cohort, judgement);
        // Of the gates above `reached`, only the next one was judged; the others have to wait for pairs anew.
        let next = GATES.into_iter().map(|(_, to)| to).find(|to| *to > reached).unwrap_or(reached);
        let up_to = if missing.is_empty() { reached } else { next };
        self.opening.keep_between(&position.route.id, Some(&cohort.name), (passed_up_to, up_to));
        (reached, missing)
    }

    /// As [`Self::reached`], for a cohort that has passed the gates up to this rung before.
    fn reached_from(
        &self,
        passed_up_to: State,
        positions: &Positions,
        position: &RoutePosition,
        cohort: &Cohort,
        judgement: CohortJudgement,
    ) -> (State, Vec<String>) {
        let mut reached = State::Shadow;
        if position.rung() < State::Shadow {
            let why = format!("`{}` is `off`, where nothing is compared", position.route.id);
            return (reached, vec![why]);
        }
        for (from, to) in GATES.into_iter().filter(|(_, to)| *to <= cohort.state) {
            let missing = match (to <= passed_up_to, judgement) {
                (true, CohortJudgement::Periodic) => self.failed_of_cohort(positions, position, cohort, from, to),
                (has_passed, _) => {
                    let judged = (judgement, has_passed);
                    let mut missing = self.unmet_of_cohort(positions, position, cohort, (from, to), judged);
                    if !has_passed {
                        self.add_awaited_pairs(positions, position, (Some(cohort.name.as_str()), to), &mut missing);
                    }
                    missing
                }
            };
            if !missing.is_empty() {
                return (reached, missing);
            }
            reached = to;
        }
        (reached, Vec::new())
    }

    /// The conditions of a gate that a cohort has passed which fail now and cannot recover by further requests.
    fn failed_of_cohort(
        &self,
        positions: &Positions,
        position: &RoutePosition,
        cohort: &Cohort,
        from: State,
        to: State,
    ) -> Vec<String> {
        let mut conditions = self.conditions_of_cohort(positions, position, cohort, from, to);
        conditions.retain(|condition| condition.verdict == GateVerdict::Fail && !may_recover(condition.name));
        sentences(conditions).collect()
    }

    /// All conditions of a gate that a cohort does not meet, as sentences. `has_passed`: the cohort has passed this
    /// gate before.
    fn unmet_of_cohort(
        &self,
        positions: &Positions,
        position: &RoutePosition,
        cohort: &Cohort,
        (from, to): (State, State),
        (judgement, has_passed): (CohortJudgement, bool),
    ) -> Vec<String> {
        let followers = positions.followers(&position.route.id).filter(|follower| follower.rung() < to);
        let reaches = |follower: &RoutePosition, other: &Cohort| {
            other.state >= to && (other.force.is_some() || self.reached(positions, follower, other, judgement).0 >= to)
        };
        let goes_along = |follower: &&RoutePosition| {
            let mut same_name = follower.route.cohorts.iter().filter(|other| other.name == cohort.name);
            same_name.any(|other| reaches(follower, other))
        };
        let left_behind = followers.filter(|follower| !goes_along(follower)).map(|follower| {
            format!(
                "the follower `{}` is `{}`, and has no cohort `{}` that reached `{to}`: it would answer requests about the \
                 cohort's instances that were never compared",
                follower.route.id,
                follower.rung(),
                cohort.name
            )
        });
        let other_conditions = match has_passed {
            true => self.unmet_lasting_conditions(positions, position, from, to),
            false => self.unmet_other_conditions(positions, position, from, to),
        };
        let conditions = self.conditions_of_cohort(positions, position, cohort, from, to);
        let of_followers =
            (to == State::Live).then(|| self.unmet_of_followers(positions, position)).into_iter().flatten();
        let other_conditions = other_conditions.into_iter().map(|unmet| unmet.why);
        sentences(conditions).chain(other_conditions).chain(left_behind).chain(of_followers).collect()
    }

    fn conditions_of_cohort(
        &self,
        positions: &Positions,
        position: &RoutePosition,
        cohort: &Cohort,
        from: State,
        to: State,
    ) -> Vec<Condition> {
        // As for the route itself: in `shadow` a follower has no instances on which it could be compared.
        let follows = matches!(position.route.instance, Some(Instance::Follows { .. }));
        if follows && from == State::Shadow {
            return Vec::new();
        }
        let evidence = self.evidence_of(positions, position);
        let rules = position.route.cohort_rules();
        let rule = rules.get(&cohort.name).map_or("", String::as_str);
        cohort_conditions(&judged_route(positions, position, &evidence), (&cohort.name, rule), from, to)
    }
}
