//! Sets and ends a freeze.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant as TokioInstant, timeout, timeout_at};

use super::Ladder;
use super::export::log;
use super::kill_switch::{FreezeEnd, UnrecordedFreeze};
use super::mover::{Mover, MovesLock};
use super::record::RecordBatch;
use super::types::{FlipSource, FreezeError, Frozen, Unconfirmed};
use crate::flag::Freeze;
use crate::store::{FlipRecord, StoreError};

/// How long the caller of a freeze waits for its record. The freeze is in force before that.
const FREEZE_RECORDED_WITHIN: Duration = Duration::from_secs(1);

impl Mover {
    /// Puts a freeze in force, even if the store does not answer. Returns once everything that obeys the kill switch
    /// has confirmed; after that nothing begins that the freeze forbids.
    pub async fn freeze(
        &self,
        freeze: Freeze,
        reason: Option<String>,
        by: String,
    ) -> Result<UnrecordedFreeze, FreezeError> {
        let unrecorded = self.kill_switch().freeze(self.in_force(), freeze, reason, by)?;
        self.obey(unrecorded.version, freeze).await;
        let FlipRecord { to, by, reason, .. } = &unrecorded.flip;
        tracing::warn!(freeze = %to, %by, reason = reason.as_deref(), "the kill switch is in force");
        Ok(unrecorded)
    }

    /// Records the end of a freeze, then puts the end in force. If the store does not have the freeze yet, both are
    /// recorded together. `requested` and `followed`: see
    /// [`FreezeRecords::prepare_end`](super::kill_switch::FreezeRecords).
    pub async fn end_freeze(
        &self,
        moves_lock: MovesLock,
        (requested, followed): (u64, u64),
        reason: Option<String>,
        by: String,
    ) -> Result<FlipRecord, FreezeError> {
        let (positions, all_recorded) = self.record_unrecorded_first(&moves_lock).await;
        all_recorded?;
        let FreezeEnd { flip, unrecorded } =
            self.kill_switch().prepare_end(self.in_force(), (requested, followed), reason, by)?;
        let flips = unrecorded.into_iter().chain([flip]).collect();
        let recorded = self
            .record(RecordBatch { flips, declared: None, judged_by: Some(self.recorder.newest_in_force()) }, &positions)
            .await?;
        let last = recorded.last().ok_or_else(|| StoreError("the store gave the flip no number".into()))?;
        if let Some(version) = self.kill_switch().apply_recorded_end(self.in_force(), requested, last) {
            self.obey(version, Freeze::No).await;
        }
        recorded.iter().for_each(|flip| log(flip, FlipSource::Api));
        Ok(last.clone())
    }

    pub(super) async fn obey(&self, version: u64, freeze: Freeze) {
        let listeners = self.kill_switch_listeners().clone();
        for listener in listeners {
            listener.apply_freeze(version, freeze).await;
        }
    }
}

impl Ladder {
    /// Sets the kill switch. When this returns, everything that obeys it has confirmed: nothing that it forbids begins
    /// any more, also for requests that were decided earlier. A freeze is recorded after it is in force, so that it
    /// works without the store; the end of a freeze is recorded first.
    ///
    /// # Errors
    /// See [`FreezeError`]; nothing changed, unless it is [`Unconfirmed::Pending`] or [`Unconfirmed::TaskEnded`].
    pub async fn freeze(&self, freeze: Freeze, reason: Option<String>, by: String) -> Result<Frozen, FreezeError> {
        let mover = Arc::clone(&self.mover);
        if freeze == Freeze::No {
            // With the number of the newest flip that is in force here: a freeze that another process has recorded, and
            // that comes into force here while the end waits, has a higher number, and is not ended.
            let request = (mover.kill_switch().request_end(), mover.recorder.newest_in_force());
            let until = TokioInstant::now() + self.answer_within;
            mover.catch_up::<FreezeError>(until).await?;
            let moves_lock = timeout_at(until, mover.lock_moves()).await.map_err(|_| Unconfirmed::Busy)?;
            let work = tokio::spawn(async move { mover.end_freeze(moves_lock, request, reason, by).await });
            let joined = timeout_at(until, work).await.map_err(|_| Unconfirmed::Pending)?;
            let flip = joined.unwrap_or_else(|error| Err(Unconfirmed::task_ended(&error).into()))?;
            return Ok(Frozen { flip, recorded: true });
        }
        let work = tokio::spawn(async move {
            let unrecorded = mover.freeze(freeze, reason, by).await?;
            let recording = mover.clone();
            tokio::spawn(async move { recording.record_freezes().await });
            let recorded = mover.kill_switch().wait_recorded(unrecorded.version);
            let recorded = timeout(FREEZE_RECORDED_WITHIN, recorded).await.ok().flatten();
            Ok(Frozen { recorded: recorded.is_some(), flip: recorded.unwrap_or(unrecorded.flip) })
        });
        work.await.unwrap_or_else(|error| Err(Unconfirmed::task_ended(&error).into()))
    }
}
