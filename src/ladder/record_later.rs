//! Records what is in force before the store has it: freezes, and flips down that the store refused.
//!
//! Always true: it is tried again until the store has it, each time under the lock of moves.

use std::sync::Arc;
use std::time::Duration;

use super::kill_switch::Pending;
use super::mover::{FlipGuard, Mover, log};
use super::record::Recording;
use super::types::FlipSource;
use crate::store::StoreError;

/// The pauses between attempts to record: the first and the longest.
const RETRY_PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

impl Mover {
    /// Records the flips that wait, and gives them their numbers.
    ///
    /// # Errors
    /// The store did not record them: they still wait.
    pub(super) async fn record_waiting_flips(&self, _guard: &FlipGuard) -> Result<(), StoreError> {
        let flips = self.unrecorded_flips.all();
        if flips.is_empty() {
            return Ok(());
        }
        let mut positions = self.in_force().inputs().positions;
        let recorded = self.recorder.record(Recording { flips, declared: Some(positions.rows()) }).await?;
        for flip in &recorded {
            if let Some(route) = &flip.route {
                positions.set_last_flip(route, flip.clone());
            }
            log(flip, FlipSource::Api);
        }
        self.unrecorded_flips.clear();
        // Flips down put no route in `only`.
        let _no_overtaken = self.put_in_force(positions);
        Ok(())
    }

    /// Fails while flips wait: what is recorded now would come before them.
    pub(super) fn check_no_flips_wait(&self) -> Result<(), StoreError> {
        match self.unrecorded_flips.count() {
            0 => Ok(()),
            n => Err(StoreError(format!(
                "{n} flips down are in force that have to be recorded first; pointsman tries again until they are"
            ))),
        }
    }

    /// Records the flips that wait, however often it takes.
    pub(super) async fn record_flips(self: Arc<Self>) {
        let mut pause = RETRY_PAUSES.0;
        loop {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_PAUSES.1);
            let guard = self.lock_moves().await;
            if self.record_waiting_flips(&guard).await.is_ok() {
                self.unrecorded_flips.end_recording();
                return;
            }
        }
    }

    /// Records the pending freeze, and those that replace it meanwhile, until the store has the newest.
    pub(super) async fn record_freezes(&self) {
        let mut pause = RETRY_PAUSES.0;
        let mut next = self.kill_switch().begin_recording();
        while next.is_some() {
            let guard = self.lock_moves().await;
            // While this waited for the lock, the end of the freeze may have been recorded, or a newer freeze set.
            next = self.kill_switch().next_pending();
            let Some(Pending { version, flip }) = &next else { return };
            // First the flips that wait: one of them may take back a flip to `only` that this freeze overtook.
            let outcome = match self.record_waiting_flips(&guard).await {
                Ok(()) => self.record_one(flip.clone(), None).await,
                Err(error) => Err(error),
            };
            match outcome {
                Ok(flip) => {
                    self.kill_switch().mark_freeze_recorded(*version, &flip);
                    log(&flip, FlipSource::Api);
                    pause = RETRY_PAUSES.0;
                }
                Err(error) => {
                    tracing::warn!(%error, freeze = %flip.to, "the freeze is in force, but not recorded: a restart would lose it; trying again after a pause");
                    drop(guard);
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(RETRY_PAUSES.1);
                }
            }
            next = self.kill_switch().next_pending();
        }
    }
}
