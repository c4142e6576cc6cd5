//! The outcome of moving an instance.

use crate::exchange::AdoptionAnswer;
use crate::store::{Adoption, AdoptionState};

/// What became of the move of an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum MoveOutcome {
    /// The instance is the engine's.
    Adopted,
    /// It is legacy's, for this reason: its workflow said so, or legacy was not told to release it.
    GivenBack(String),
    /// It was not tried, for this reason.
    NotTried(String),
    /// Whether legacy released it is not known.
    Unknown(String),
    /// The move is not over: another task makes it, or this process is ending and the next one resumes it.
    Moving,
    /// The engine made it: there is nothing to adopt.
    EngineOwns,
}

impl MoveOutcome {
    pub(super) fn answer(&self) -> AdoptionAnswer {
        match self {
            MoveOutcome::NotTried(_) => AdoptionAnswer::AtLegacy,
            // The proxy looks the owner up again: of an instance that was given back, it is legacy.
            MoveOutcome::Adopted | MoveOutcome::GivenBack(_) | MoveOutcome::Unknown(_) | MoveOutcome::EngineOwns => {
                AdoptionAnswer::Settled
            }
            MoveOutcome::Moving => AdoptionAnswer::Moving,
        }
    }

    /// The outcome of the move of an adoption in this state.
    pub(super) fn of(adoption: &Adoption) -> Self {
        let reason = || adoption.reason.clone().unwrap_or_default();
        match adoption.state {
            AdoptionState::Moving => MoveOutcome::Moving,
            AdoptionState::Unknown => MoveOutcome::Unknown(reason()),
            AdoptionState::Adopted => MoveOutcome::Adopted,
            AdoptionState::GivenBack => MoveOutcome::GivenBack(reason()),
        }
    }
}
