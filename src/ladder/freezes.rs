//! Sets and ends a freeze.

use super::export::log;
use super::kill_switch::{FreezeEnd, UnrecordedFreeze};
use super::mover::{Mover, MovesLock};
use super::record::Recording;
use super::types::{FlipSource, FreezeError};
use crate::flag::Freeze;
use crate::store::{FlipRecord, StoreError};

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

    /// Records the end of a freeze, together with the freeze if the store does not have that yet, then puts it in
    /// force.
    pub async fn end_freeze(
        &self,
        guard: MovesLock,
        version: u64,
        reason: Option<String>,
        by: String,
    ) -> Result<FlipRecord, FreezeError> {
        let (positions, all_recorded) = self.record_unrecorded_first(&guard).await;
        all_recorded?;
        let FreezeEnd { flip, unrecorded } = self.kill_switch().prepare_end(self.in_force(), version, reason, by)?;
        let flips = unrecorded.into_iter().chain([flip]).collect();
        let recorded = self.record(Recording { flips, declared: None }, &positions).await?;
        let last = recorded.last().ok_or_else(|| StoreError("the store gave the flip no number".into()))?;
        self.kill_switch().apply_recorded_end(self.in_force(), version, last);
        self.obey(version, Freeze::No).await;
        recorded.iter().for_each(|flip| log(flip, FlipSource::Api));
        Ok(last.clone())
    }

    async fn obey(&self, version: u64, freeze: Freeze) {
        let connected = self.connected().clone();
        for other in connected {
            other.apply_freeze(version, freeze).await;
        }
    }
}
