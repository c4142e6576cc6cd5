//! Writes behind what legacy took, and looks behind whether legacy gave out an id of the engine's.
//!
//! Always true: noting never waits; the queue and what could not be written yet are bounded. What does not fit is lost
//! to the store (it stays in memory for as long as the process lives) and said in the log.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::families::Families;
use crate::flag::{Arm, PinKey, RetryKey};
use crate::store::SharedStore;

/// Notes that wait.
const QUEUE_MAX: usize = 16_384;
/// Keys written together.
const BATCH_MAX: usize = 512;
/// Keys kept for later while the store does not take them.
const UNWRITTEN_MAX: usize = 16_384;
/// Then they are tried again this often.
const AGAIN: Duration = Duration::from_secs(1);

/// What is noted.
pub(super) enum Note {
    /// Legacy took a first try.
    Try(RetryKey),
    /// Legacy created an instance in a family of which the engine owns some.
    Instance(PinKey),
    /// Somebody wants to know when all that came before is written.
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
            tracing::warn!(queue = QUEUE_MAX, "a note of what legacy took is not written: too many wait");
        }
    }

    pub(super) async fn flush(&self) {
        let (done, flushed) = oneshot::channel();
        if self.notes.send(Note::Flush(done)).await.is_ok() {
            let _ = flushed.await;
        }
    }
}

/// Ends when the entrance is gone and all is tried once.
async fn work(mut noted: mpsc::Receiver<Note>, store: SharedStore, families: Arc<Families>) {
    let mut unwritten: Vec<RetryKey> = Vec::new();
    let mut batch = Vec::with_capacity(BATCH_MAX);
    loop {
        tokio::select! {
            biased;
            taken = noted.recv_many(&mut batch, BATCH_MAX) => if taken == 0 {
                write(&store, &mut unwritten).await;
                return;
            },
            () = tokio::time::sleep(AGAIN), if !unwritten.is_empty() => {}
        }
        let mut flushes = Vec::new();
        for note in batch.drain(..) {
            match note {
                Note::Try(key) => unwritten.push(key),
                Note::Instance(key) => check(&store, &families, key).await,
                Note::Flush(done) => flushes.push(done),
            }
        }
        write(&store, &mut unwritten).await;
        for done in flushes {
            let _ = done.send(());
        }
    }
}

async fn write(store: &SharedStore, unwritten: &mut Vec<RetryKey>) {
    while !unwritten.is_empty() {
        let now = unwritten.len().min(BATCH_MAX);
        if let Err(error) = store.note_legacy_tries(unwritten[..now].to_vec()).await {
            let lost = unwritten.len().saturating_sub(UNWRITTEN_MAX);
            unwritten.drain(..lost);
            tracing::warn!(%error, waiting = unwritten.len(), lost, "retry keys of legacy are not written yet");
            return;
        }
        unwritten.drain(..now);
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
