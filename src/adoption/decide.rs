//! Records a person's decision which arm owns an instance whose adoption has an unknown outcome.

use std::time::Duration;

use super::Adoptions;
use super::move_outcome::MoveOutcome;
use crate::flag::{Arm, InstanceKey};
use crate::store::{AdoptionState, StoreError};
use crate::workflow::ControlCommand;

/// How long the end of a cancelled run is waited for.
const CANCELLED_WITHIN: Duration = Duration::from_secs(5);
/// Why a decision came too late.
const ENDED_MEANWHILE: &str = "its run has ended meanwhile, and the outcome of the run decides which arm owns it";

/// Why a decision changed nothing.
#[derive(Debug, thiserror::Error)]
pub enum DecideRefusal {
    /// Nobody has to decide about the instance.
    #[error("nobody has to decide about `{id}`: {why}")]
    NothingToDecide {
        /// The instance.
        id: String,
        /// Why not.
        why: String,
    },
    /// Its run has not ended, and could not be cancelled.
    #[error("nothing was decided: its run {0} is still open and could not be cancelled ({1}): `pointsman explain {0}`")]
    RunGoesOn(crate::names::RunId, String),
    /// The store does not answer.
    #[error("the store does not answer: {0}")]
    Store(#[from] StoreError),
}

impl Adoptions {
    /// Decides which arm owns an instance whose adoption has an unknown outcome. Its run is cancelled first, without
    /// undoing, so that it cannot go on.
    ///
    /// # Errors
    /// Nothing was decided.
    pub async fn decide(
        &self,
        key: &InstanceKey,
        owner: Arm,
        by: String,
        reason: String,
    ) -> Result<AdoptionState, DecideRefusal> {
        let nothing_to_decide =
            |why: &str| DecideRefusal::NothingToDecide { id: key.id.to_string(), why: why.to_owned() };
        let Some(adoption) = self.adoption_of(key).await? else {
            return Err(nothing_to_decide("it was never moved"));
        };
        match adoption.state {
            AdoptionState::Unknown => {}
            AdoptionState::Moving => return Err(nothing_to_decide("it is being moved")),
            AdoptionState::Adopted => return Err(nothing_to_decide("it is the engine's")),
            AdoptionState::GivenBack => return Err(nothing_to_decide("it is legacy's")),
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
        let mark = self.affinity.requests_at_legacy().begin(&self.instance_key(&adoption));
        let _mark = mark.map_err(|_| nothing_to_decide("it is being moved"))?;
        let state = match owner {
            Arm::Legacy => AdoptionState::GivenBack,
            Arm::Engine => AdoptionState::Adopted,
        };
        // So that the instance's next write does not try to move it again at once.
        self.mark_tried(key.stored_key());
        // If the run has ended by itself meanwhile, what it did counts, and not the decision.
        if let Some((ended, why)) = self.late_outcome(&adoption).await?.filter(|(ended, _)| *ended != state) {
            self.record_outcome(&adoption, ended, why, None).await;
            return Err(nothing_to_decide(ENDED_MEANWHILE));
        }
        match self.record_outcome(&adoption, state, Some(reason), Some(by)).await {
            MoveOutcome::Moving => Err(DecideRefusal::Store(StoreError("this process is shutting down".into()))),
            _ => match self.store.adoption(adoption.key.clone()).await? {
                Some(stored) if stored.state == state => Ok(state),
                _ => Err(nothing_to_decide(ENDED_MEANWHILE)),
            },
        }
    }
}
