//! Checks in the background whether the engine owns an id that legacy gave out (a pin collision).
//!
//! Always true: no request waits for a check; the queue is bounded. An id for which the queue has no room is not
//! checked, and the log says so. While the store does not answer, the ids wait.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::pin_counts::PinCountsById;
use crate::flag::{Arm, PinKey};
use crate::store::StoreHandle;

/// The most checks that wait in the queue.
const QUEUE_MAX: usize = 16_384;
/// The most checks that are taken from the queue together.
const BATCH_MAX: usize = 512;
/// How many times a healthy store is asked about one id.
const TRIES_MAX: u32 = 8;
/// The pauses before the store is asked again, each twice as long as the one before.
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(50);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(5);

/// A message to the task that checks.
pub(super) enum CheckMessage {
    /// Legacy created an instance in a family of which the engine owns some.
    Instance(PinKey),
    /// Replies when all messages before this one are processed.
    Flush(oneshot::Sender<()>),
}

/// The sending end of the queue.
pub(super) struct CollisionChecks {
    queue: mpsc::Sender<CheckMessage>,
}

impl CollisionChecks {
    pub(super) fn start(store: StoreHandle, families: Arc<PinCountsById>) -> Self {
        let (queue, received) = mpsc::channel(QUEUE_MAX);
        tokio::spawn(run(received, store, families));
        Self { queue }
    }

    pub(super) fn send(&self, message: CheckMessage) {
        if self.queue.try_send(message).is_err() {
            tracing::warn!(
                queue = QUEUE_MAX,
                "an id that legacy gave out is not checked for a pin collision: too many checks wait"
            );
        }
    }

    /// Waits until everything in the queue is checked, however long the store takes.
    pub(super) async fn flush(&self) {
        let (done, flushed) = oneshot::channel();
        if self.queue.send(CheckMessage::Flush(done)).await.is_ok() {
            let _ = flushed.await;
        }
    }
}

/// Runs until the sending end is dropped.
async fn run(mut received: mpsc::Receiver<CheckMessage>, store: StoreHandle, families: Arc<PinCountsById>) {
    let mut batch = Vec::with_capacity(BATCH_MAX);
    while received.recv_many(&mut batch, BATCH_MAX).await > 0 {
        for message in batch.drain(..) {
            match message {
                CheckMessage::Instance(key) => check(&store, &families, key).await,
                CheckMessage::Flush(done) => drop(done.send(())),
            }
        }
    }
}

/// Asks until the store answers. Must not give up while the store is down: during that time the engine falls back, so
/// legacy creates most instances, and their ids have to be checked.
async fn check(store: &StoreHandle, families: &PinCountsById, key: PinKey) {
    let (mut pause, mut tries) = (RETRY_PAUSE_MIN, 0);
    loop {
        match store.pin(key.clone()).await {
            // Legacy itself gave out the id of an instance that was adopted.
            Ok(Some(pin)) if pin.arm == Arm::Engine && pin.adoption.is_none() => {
                families.record_collision(&key, pin.run);
                return;
            }
            Ok(Some(_) | None) => return,
            Err(error) => {
                // A row that cannot be read must not keep all other ids from being checked.
                tries = if store.healthy() { tries + 1 } else { 0 };
                if tries >= TRIES_MAX {
                    tracing::error!(
                        %error, route = %key.family, id = %key.id,
                        "whether the engine owns this id cannot be read: a pin collision may go unnoticed"
                    );
                    return;
                }
                if pause == RETRY_PAUSE_MIN {
                    tracing::warn!(
                        %error, route = %key.family, id = %key.id,
                        "whether the engine owns this id is not known; the store is asked again"
                    );
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(RETRY_PAUSE_MAX);
            }
        }
    }
}
