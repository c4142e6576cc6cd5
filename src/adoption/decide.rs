//! A person decides whose an instance is of which it is not known whether legacy let go of it.

use std::time::Duration;

use super::Adoptions;
use super::moved::Moved;
use super::resume::instance_key;
use crate::flag::InstanceKey;
use crate::store::{AdoptionState, StoreError};
use crate::workflow::ControlCommand;

/// How long the end of a cancelled run is waited for.
const CANCELLED_WITHIN: Duration = Duration::from_secs(5);
/// Why a decision came too late.
const ENDED_MEANWHILE: &str = "its run has ended meanwhile, and its end says whose it is";

/// Whose the instance is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Legacy's: it did not let go.
    Legacy,
    /// The engine's: legacy did let go.
    Engine,
}

/// Why a decision changed nothing.
#[derive(Debug, thiserror::Error)]
pub enum DecideRefusal {
    /// Nobody has to decide about the instance.
    #[error("nobody has to decide about `{id}`: {why}")]
    NotUnknown {
        /// The instance.
        id: String,
        /// What it is.
        why: String,
    },
    /// Its run has not ended, and could not be cancelled.
    #[error("its run {0} goes on and was not cancelled: {1}")]
    RunGoesOn(crate::names::RunId, String),
    /// The store does not answer.
    #[error("the store does not answer: {0}")]
    Store(#[from] StoreError),
}

impl Adoptions {
    /// Decides whose an instance is. Its run is cancelled first, without undoing, so that it cannot go on.
    ///
    /// # Errors
    /// Nothing was decided.
    pub async fn decide(
        &self,
        key: &InstanceKey,
        decision: Decision,
        by: String,
        reason: String,
    ) -> Result<AdoptionState, DecideRefusal> {
        let not_unknown = |why: &str| DecideRefusal::NotUnknown { id: key.id.to_string(), why: why.to_owned() };
        let Some(adoption) = self.store.adoption(key.stored_key()).await? else {
            return Err(not_unknown("it was never moved"));
        };
        match adoption.state {
            AdoptionState::Unknown => {}
            AdoptionState::Moving => return Err(not_unknown("it is being moved")),
            AdoptionState::Adopted => return Err(not_unknown("it is the engine's")),
            AdoptionState::GivenBack => return Err(not_unknown("it is legacy's")),
        }
        let run = adoption.run;
        if let Some(summary) = self.store.run(run).await?.filter(|summary| !summary.status.is_final()) {
            let cancel = ControlCommand::Cancel { compensate: false, reason: Some(reason.clone()), automatic: false };
            let cancelled = self.engine.give_command(run, cancel, by.clone()).await;
            let ended = self.engine.wait_until_ended_or_awaits_input(run, CANCELLED_WITHIN).await;
            if !ended.is_some_and(|ended| ended.status.is_final()) {
                let why = cancelled.err().map_or_else(|| summary.status.as_str().to_owned(), |error| error.to_string());
                return Err(DecideRefusal::RunGoesOn(run, why));
            }
        }
        let mover = self.affinity.moves().begin(&instance_key(&adoption));
        let _mover = mover.map_err(|_| not_unknown("it is being moved"))?;
        let state = match decision {
            Decision::Legacy => AdoptionState::GivenBack,
            Decision::Engine => AdoptionState::Adopted,
        };
        // Its run may have ended by itself since it became unknown, and what it did counts.
        if let Some((ended, why)) = self.known_of_unknown(&adoption).await?.filter(|(ended, _)| *ended != state) {
            self.settle(&adoption, ended, why, None).await;
            return Err(not_unknown(ENDED_MEANWHILE));
        }
        // The next write does not move it at once again.
        self.note_tried(key.stored_key());
        match self.settle(&adoption, state, Some(reason), Some(by)).await {
            Moved::Moving => Err(DecideRefusal::Store(StoreError("this process is shutting down".into()))),
            _ => match self.store.adoption(key.stored_key()).await? {
                Some(stored) if stored.state == state => Ok(state),
                _ => Err(not_unknown(ENDED_MEANWHILE)),
            },
        }
    }
}
