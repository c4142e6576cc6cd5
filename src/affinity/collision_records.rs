//! Writes pin collisions and their acceptances to the store.
//!
//! Always true: whoever finds or accepts a collision does not wait for the store. A write that the store does not take
//! is tried again. If the process is killed before the store has a collision, the next process finds it again if the
//! engine's pin was the later of the two (`collision_check`), and does not if it was legacy's reply.

use std::sync::Arc;
use std::time::Duration;

use super::family_collisions::CollisionTimes;
use super::pin_counts::PinCountsById;
use crate::store::{PinCollision, StoreError, StoreHandle};

/// The pauses before a write is tried again, each twice as long as the one before.
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(50);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(5);

/// The writer of collisions.
pub(super) struct CollisionRecords {
    store: StoreHandle,
    families: Arc<PinCountsById>,
    /// Held during a write, so that [`CollisionRecords::flush`] waits for a write that is under way.
    writing: tokio::sync::Mutex<()>,
}

impl CollisionRecords {
    pub(super) fn new(store: StoreHandle, families: Arc<PinCountsById>) -> Arc<Self> {
        Arc::new(Self { store, families, writing: tokio::sync::Mutex::default() })
    }

    /// Writes what is found and accepted from now on. Does not end.
    pub(super) async fn maintain(self: Arc<Self>) {
        loop {
            self.families.collisions_changed().await;
            self.flush().await;
        }
    }

    /// Waits until the store has everything that was found and accepted, however long it takes.
    pub(super) async fn flush(&self) {
        let mut pause = RETRY_PAUSE_MIN;
        while let Err(error) = self.put_unstored().await {
            if pause == RETRY_PAUSE_MIN {
                tracing::warn!(
                    %error,
                    "a pin collision, or that a person has accepted it, is not in the store yet: a restart would \
                     forget it; the write is tried again"
                );
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_PAUSE_MAX);
        }
    }

    async fn put_unstored(&self) -> Result<(), StoreError> {
        let _writing = self.writing.lock().await;
        let unstored = self.families.unstored_collisions();
        if unstored.is_empty() {
            return Ok(());
        }
        let rows = unstored.iter().map(|(family, _, unstored)| {
            let CollisionTimes { since, accepted, .. } = unstored.times;
            PinCollision { family: family.clone(), since, accepted }
        });
        self.store.put_pin_collisions(rows.collect()).await?;
        unstored.iter().for_each(|(_, counts, unstored)| counts.collisions().mark_stored(*unstored));
        Ok(())
    }
}
