//! Counts runs by the set of optional steps that they ran, so that a rare branch cannot hide behind a frequent one.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::add_change::add_change;
use crate::exchange::{Branch, BranchBelow, ComparisonOutcome};
use crate::names::StepId;

/// Branches that are counted separately; the rest is counted together as [`OTHER_BRANCHES`].
const BRANCHES_MAX: usize = 64;
/// Steps that are counted separately.
const STEPS_MAX: usize = 256;
/// The name of all branches together that are not counted separately.
pub(super) const OTHER_BRANCHES: &str = "other steps";
/// The name of the branch without any of the steps that a run may leave out.
const NO_STEP: &str = "none of the optional steps";

/// Which branches the engine's runs took, of a workflow that has steps which not every run performs: those with `if:`,
/// fallbacks, and `fail:` steps. A step of a workflow that it runs is named by its path from the top: `ship/label`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct BranchCounts {
    /// By the steps that ran, for the first 64 branches.
    #[serde(rename = "ways")] // as stored, and in the API
    pub branches: BTreeMap<String, BranchRunCounts>,
    /// For each optional step, how many compared runs reached it.
    pub steps: BTreeMap<String, u64>,
    /// For each optional step, how many runs began it and were then skipped because they could not be run to their end:
    /// which branch they would have taken is not known.
    pub unfinished: BTreeMap<String, u64>,
}

add_change!(BranchCounts { sum branches, sum steps, sum unfinished });

/// The runs that took one branch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "WayCounts")]
pub struct BranchRunCounts {
    /// Runs.
    pub runs: u64,
    /// Of these, those that were compared.
    pub compared: u64,
    /// Of these, those that differ.
    pub mismatched: u64,
    /// Of the compared ones, those for which legacy's calls are watched, but not known.
    #[serde(default)]
    pub calls_unknown: u64,
}

add_change!(BranchRunCounts { sum runs, sum compared, sum mismatched, sum calls_unknown });

impl BranchRunCounts {
    fn without_equal_pairs(self) -> Self {
        Self { compared: self.mismatched, calls_unknown: self.calls_unknown.min(self.mismatched), ..self }
    }
}

/// What became of the comparison of a run.
#[derive(Clone, Copy, Debug)]
pub struct BranchOutcome {
    /// The outcome.
    pub outcome: ComparisonOutcome,
    /// Whether legacy's calls are watched, but those for this request are not known.
    pub calls_unknown: bool,
}

impl From<ComparisonOutcome> for BranchOutcome {
    fn from(outcome: ComparisonOutcome) -> Self {
        Self { outcome, calls_unknown: false }
    }
}

impl BranchCounts {
    /// Counts a run. A workflow whose steps all run has no branches. The branch of each child run and its descendants
    /// (`below`) is counted by itself, because there would be too many combinations with the branch of the run.
    pub(super) fn count(&mut self, branch: &Branch, outcome: impl Into<BranchOutcome>) {
        let outcome = outcome.into();
        let Branch { taken, not_taken, below } = branch;
        self.count_branch(taken, not_taken, || NO_STEP.to_owned(), outcome);
        for BranchBelow { run_by, taken, not_taken } in below {
            self.count_branch(taken, not_taken, || format!("{NO_STEP} of `{run_by}`"), outcome);
        }
    }

    fn count_branch(
        &mut self,
        taken: &[StepId],
        not_taken: &[StepId],
        without_step: impl Fn() -> String,
        BranchOutcome { outcome, calls_unknown }: BranchOutcome,
    ) {
        if taken.is_empty() && not_taken.is_empty() {
            return;
        }
        let (is_compared, differs) = match outcome {
            ComparisonOutcome::Matched | ComparisonOutcome::Ignored => (true, false),
            ComparisonOutcome::Mismatched => (true, true),
            ComparisonOutcome::Skipped(_) | ComparisonOutcome::Failed(_) => (false, false),
        };
        let began = taken.iter().map(|step| (step, u64::from(is_compared)));
        for (step, count) in began.chain(not_taken.iter().map(|step| (step, 0))) {
            if self.steps.len() < STEPS_MAX || self.steps.contains_key(step.as_str()) {
                *self.steps.entry(step.to_string()).or_default() += count;
            }
        }
        if let ComparisonOutcome::Skipped(_) = outcome {
            for step in taken {
                if self.unfinished.len() < STEPS_MAX || self.unfinished.contains_key(step.as_str()) {
                    *self.unfinished.entry(step.to_string()).or_default() += 1;
                }
            }
            return;
        }
        let mut name = match taken.is_empty() {
            true => without_step(),
            false => taken.iter().map(|step| format!("`{step}`")).collect::<Vec<_>>().join(", "),
        };
        if self.branches.len() >= BRANCHES_MAX && !self.branches.contains_key(&name) {
            name = OTHER_BRANCHES.to_owned();
        }
        let branch = self.branches.entry(name).or_default();
        branch.runs += 1;
        branch.compared += u64::from(is_compared);
        branch.mismatched += u64::from(differs);
        branch.calls_unknown += u64::from(is_compared && calls_unknown);
    }

    /// The steps that were reached by runs, but by none that was compared; each with the number of these runs.
    pub(super) fn only_unfinished(&self) -> impl Iterator<Item = (&str, u64)> {
        let is_compared = |step: &String| self.steps.get(step).is_some_and(|count| *count > 0);
        let never_compared = self.unfinished.iter().filter(move |(step, _)| !is_compared(step));
        never_compared.map(|(step, runs)| (step.as_str(), *runs))
    }

    /// The steps that no compared run reached.
    pub fn never_taken(&self) -> impl Iterator<Item = &str> {
        self.steps.iter().filter(|(_, count)| **count == 0).map(|(step, _)| step.as_str())
    }

    /// Forgets the pairs without a difference: only those that differ still count as compared.
    pub(super) fn without_equal_pairs(self) -> Self {
        let branches = self.branches.into_iter().map(|(name, branch)| (name, branch.without_equal_pairs()));
        let steps = self.steps.into_keys().map(|step| (step, 0)).collect();
        Self { branches: branches.collect(), steps, unfinished: self.unfinished }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flag::SkipReason;

    fn branch(taken: &[&str], not_taken: &[&str]) -> Branch {
        let ids = |names: &[&str]| names.iter().map(|name| StepId::from(*name)).collect();
        Branch { taken: ids(taken), not_taken: ids(not_taken), below: Vec::new() }
    }

    #[test]
    fn the_branches_of_runs_below_are_counted_apart_from_those_of_the_run() {
        let mut counts = BranchCounts::default();
        let with = |gift: bool, below: &Branch| {
            let mut run = if gift { branch(&["gift"], &[]) } else { branch(&[], &["gift"]) };
            run.add_below(&"ship".into(), below.clone());
            run
        };
        let (plain, rare) = (branch(&[], &["insure"]), branch(&["insure"], &[]));
        counts.count(&with(true, &plain), ComparisonOutcome::Matched);
        counts.count(&with(false, &plain), ComparisonOutcome::Matched);
        counts.count(&with(false, &rare), ComparisonOutcome::Failed("timeout"));
        let of = |runs, compared| BranchRunCounts { runs, compared, mismatched: 0, calls_unknown: 0 };
        let expected = [
            ("`gift`", of(1, 1)),
            ("`ship/insure`", of(1, 0)),
            (NO_STEP, of(2, 1)),
            ("none of the optional steps of `ship`", of(2, 2)),
        ];
        let expected: BTreeMap<_, _> = expected.map(|(name, of)| (name.to_owned(), of)).into();
        assert_eq!(counts.branches, expected);
        assert_eq!(counts.never_taken().collect::<Vec<_>>(), ["ship/insure"]);
    }

    #[test]
    fn a_branch_is_counted_whether_its_runs_are_compared_or_not() {
        let mut counts = BranchCounts::default();
        counts.count(&branch(&[], &["gift", "refuse"]), ComparisonOutcome::Matched);
        counts.count(&branch(&["gift"], &["refuse"]), ComparisonOutcome::Failed("timeout"));
        counts.count(&branch(&["gift", "refuse"], &[]), ComparisonOutcome::Skipped(SkipReason::UnresolvedEffect));
        counts.count(&branch(&["gift"], &["refuse"]), ComparisonOutcome::Mismatched);
        assert_eq!(
            counts.branches["`gift`"],
            BranchRunCounts { runs: 2, compared: 1, mismatched: 1, calls_unknown: 0 }
        );
        assert_eq!(counts.only_unfinished().collect::<Vec<_>>(), [("refuse", 1)]);
        assert_eq!(counts.branches[NO_STEP], BranchRunCounts { runs: 1, compared: 1, mismatched: 0, calls_unknown: 0 });
        assert_eq!(counts.never_taken().collect::<Vec<_>>(), ["refuse"]);
        let stored = serde_json::to_value(&counts).unwrap();
        assert_eq!(stored["ways"]["`gift`"]["runs"], 2, "earlier processes find what they stored: {stored}");
        let counts = counts.without_equal_pairs();
        assert_eq!((counts.branches["`gift`"].compared, counts.branches[NO_STEP].compared), (1, 0));
    }

    #[test]
    fn a_workflow_without_such_steps_has_no_branches_and_many_branches_are_counted_together() {
        let mut counts = BranchCounts::default();
        counts.count(&branch(&[], &[]), ComparisonOutcome::Matched);
        assert_eq!(counts, BranchCounts::default());
        for n in 0..100 {
            counts.count(&branch(&[&format!("s{n}")], &[]), ComparisonOutcome::Matched);
        }
        assert_eq!(
            (counts.branches.len(), counts.branches[OTHER_BRANCHES].runs),
            (BRANCHES_MAX + 1, 100 - BRANCHES_MAX as u64)
        );
    }
}
