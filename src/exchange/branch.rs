//! Which branches a run, and the runs below it, took through their workflows.

use crate::names::{StepId, step_below};

/// At most this many branches of the runs below a run are recorded; further ones are dropped.
const BRANCHES_BELOW_MAX: usize = 32;

/// Which of the steps that not every run performs (those with `if:`, fallbacks, and `fail:` steps) a run performed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Branch {
    /// The steps that began, in the order of the plan.
    pub taken: Vec<StepId>,
    /// The steps that did not begin.
    pub not_taken: Vec<StepId>,
    /// The branches of the runs below this one (its child runs and all their descendants) whose workflows have such
    /// steps. A branch that several items of a step took is listed once.
    pub below: Vec<BranchBelow>,
}

/// Which branch a run below another one took. The names of the steps begin with those of the steps above: `ship/label`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BranchBelow {
    /// The step that began the run.
    pub run_by: StepId,
    /// As [`Branch::taken`].
    pub taken: Vec<StepId>,
    /// As [`Branch::not_taken`].
    pub not_taken: Vec<StepId>,
}

impl Branch {
    /// Adds the branches of a run that this step began, and of the runs below it.
    pub fn add_below(&mut self, step: &StepId, branch: Self) {
        let named = |steps: Vec<StepId>| steps.iter().map(|below| step_below(step, below.as_str())).collect();
        let Self { taken, not_taken, below } = branch;
        let child = BranchBelow { run_by: step.clone(), taken: named(taken), not_taken: named(not_taken) };
        let deeper = below.into_iter().map(|BranchBelow { run_by, taken, not_taken }| BranchBelow {
            run_by: step_below(step, run_by.as_str()),
            taken: named(taken),
            not_taken: named(not_taken),
        });
        for branch_below in std::iter::once(child).chain(deeper) {
            let has_steps = !branch_below.taken.is_empty() || !branch_below.not_taken.is_empty();
            if has_steps && self.below.len() < BRANCHES_BELOW_MAX && !self.below.contains(&branch_below) {
                self.below.push(branch_below);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn branch(taken: &[&str], not_taken: &[&str]) -> Branch {
        let ids = |names: &[&str]| names.iter().map(|name| StepId::from(*name)).collect();
        Branch { taken: ids(taken), not_taken: ids(not_taken), below: Vec::new() }
    }

    fn branch_below(run_by: &str, taken: &[&str], not_taken: &[&str]) -> BranchBelow {
        let Branch { taken, not_taken, .. } = branch(taken, not_taken);
        BranchBelow { run_by: run_by.into(), taken, not_taken }
    }

    #[test]
    fn the_branches_below_are_named_from_the_top_and_stand_once() {
        let mut ship = branch(&["label"], &["gift"]);
        ship.add_below(&"pack".into(), branch(&[], &["box"]));
        let mut top = branch(&["charge"], &[]);
        top.add_below(&"pay".into(), Branch::default());
        (0..3).for_each(|_| top.add_below(&"ship".into(), ship.clone()));
        let expected =
            [branch_below("ship", &["ship/label"], &["ship/gift"]), branch_below("ship/pack", &[], &["ship/pack/box"])];
        assert_eq!(top.below, expected);
        (0..99).for_each(|n| top.add_below(&"ship".into(), branch(&[&format!("s{n}")], &[])));
        assert_eq!(top.below.len(), BRANCHES_BELOW_MAX);
    }
}
