//! The intents that a comparison reads, and therefore waits for.

use std::sync::Arc;

use crate::names::StepId;

/// The intents that the asserts of a route read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AwaitedIntents {
    /// No intents.
    None,
    /// The intents of these steps.
    OfSteps(Arc<[StepId]>),
    /// All intents. Also used if an assert reads the intents of an `undo:`, because which undos are sent is known only
    /// when the run has ended.
    All,
}

impl AwaitedIntents {
    /// Whether a run that has not ended may still record one of these intents. `has_ended` tells whether a step of the
    /// run has ended; for a step of a child run (`ship/label`) it is asked about the step that began that run (`ship`).
    pub fn may_still_be_recorded(&self, has_ended: impl Fn(&StepId) -> bool) -> bool {
        let has_ended = |step: &StepId| match step.as_str().split_once('/') {
            None => has_ended(step),
            Some((run_by, _)) => has_ended(&run_by.into()),
        };
        match self {
            AwaitedIntents::None => false,
            AwaitedIntents::OfSteps(steps) => !steps.iter().all(has_ended),
            AwaitedIntents::All => true,
        }
    }
}
