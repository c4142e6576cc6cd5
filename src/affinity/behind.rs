//! Looks behind whether legacy gave out an id of the engine's.
//!
//! Always true: nobody waits for a look; the queue is bounded. What does not fit is not looked at, and the log says so.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::families::Families;
use crate::flag::{Arm, PinKey};
use crate::store::SharedStore;

/// Looks that wait.
const QUEUE_MAX: usize = 16_384;
/// Looks taken together.
const BATCH_MAX: usize = 512;

/// What is to be done.
pub(super) enum Note {
    /// Legacy created an instance in a family of which the engine owns some.
    Instance(PinKey),
    /// Somebody wants to know when all that came before is done.
    Flush(oneshot::Sender<()>),
}

/// The queue's entrance.
pub(super) struct Behind {
    notes: mpsc::Sender<Note>,
}

impl Behind {
    pub(super) fn start(store: SharedStore, families: Arc<Families>) -> Self {
        let (notes, noted) = mpsc::channel(QUEUE_MAX);
        tokio::spawn(work(noted, store, families));
        Self { notes }
    }

    pub(super) fn note(&self, note: Note) {
        if self.notes.try_send(note).is_err() {
            tracing::warn!(
                queue = QUEUE_MAX,
                "whether the engine owns an id that legacy gave out is not looked up: too many wait"
            );
        }
    }

    pub(super) async fn flush(&self) {
        let (done, flushed) = oneshot::channel();
        if self.notes.send(Note::Flush(done)).await.is_ok() {
            let _ = flushed.await;
        }
    }
}

/// Ends when the entrance is gone.
async fn work(mut noted: mpsc::Receiver<Note>, store: SharedStore, families: Arc<Families>) {
    let mut batch = Vec::with_capacity(BATCH_MAX);
    while noted.recv_many(&mut batch, BATCH_MAX).await > 0 {
        for note in batch.drain(..) {
            match note {
                Note::Instance(key) => check(&store, &families, key).await,
                Note::Flush(done) => drop(done.send(())),
            }
        }
    }
}

async fn check(store: &SharedStore, families: &Families, key: PinKey) {
    match store.pin(key.clone()).await {
        Ok(Some(pin)) if pin.arm == Arm::Engine => {
            if let Some(family) = families.get(&key.family) {
                family.collide(&key, pin.run);
            }
        }
        Ok(Some(_) | None) => {}
        Err(error) => {
            tracing::warn!(%error, route = %key.family, id = %key.id, "cannot tell whether the engine owns this id");
        }
    }
}
