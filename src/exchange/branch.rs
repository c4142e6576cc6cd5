//! Which way a run took through its workflow.

use crate::names::StepId;

/// Which of the steps that not every run performs (those with `if:`, fallbacks, and `fail:` steps) a run performed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Branch {
    /// The steps that began, in the order of the plan.
    pub taken: Vec<StepId>,
    /// The steps that did not.
    pub not_taken: Vec<StepId>,
}
