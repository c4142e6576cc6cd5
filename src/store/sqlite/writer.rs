//! The one task that writes. Nobody cancels it.
//!
//! The question it answers: "in which order, and how many together?" Always true: appends are acknowledged after
//! their commit; whatever waits is committed together, with no added delay; live appends go first, and a batch takes a
//! bounded number of dark events. When the disk is slow, more comes together in the next batch; when it is gone, each
//! append is answered by what is known of it, and a probe a second finds out that it is back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::aside::{self, Aside};
use super::commit::Committer;
use super::job::Job;
use super::lock::Ownership;

/// While the store is not healthy, it is tried this often.
const PROBE_EVERY: Duration = Duration::from_secs(1);

/// Where appends and the rest are handed in.
#[derive(Clone)]
pub(super) struct Inlet {
    pub(super) live: mpsc::Sender<Job>,
    pub(super) dark: mpsc::Sender<Job>,
    pub(super) aside: mpsc::Sender<Aside>,
}

/// The task's own state.
pub(super) struct Writer {
    live: mpsc::Receiver<Job>,
    dark: mpsc::Receiver<Job>,
    aside: mpsc::Receiver<Aside>,
    committer: Committer,
    healthy: Arc<AtomicBool>,
    batch_events_max: usize,
    dark_events_max: usize,
    batch_events: metrics::Histogram,
    /// Given back when the writer has ended: not before its last commit.
    _ownership: Ownership,
}

/// The sizes of what waits and of what goes together.
pub(super) struct Sizes {
    pub(super) queue: usize,
    pub(super) batch_events: usize,
    pub(super) dark_events: usize,
}

impl Writer {
    pub(super) fn new(
        committer: Committer,
        healthy: Arc<AtomicBool>,
        sizes: &Sizes,
        ownership: Ownership,
    ) -> (Self, Inlet) {
        let (live_in, live) = mpsc::channel(sizes.queue);
        let (dark_in, dark) = mpsc::channel(sizes.queue);
        let (aside_in, aside) = mpsc::channel(sizes.queue);
        let writer = Self {
            live,
            dark,
            aside,
            committer,
            healthy,
            batch_events_max: sizes.batch_events,
            dark_events_max: sizes.dark_events,
            batch_events: metrics::histogram!("pointsman_append_batch_events"),
            _ownership: ownership,
        };
        (writer, Inlet { live: live_in, dark: dark_in, aside: aside_in })
    }

    /// Runs until everybody who could hand something in is gone, or until it is told to close; either way what was
    /// handed in is finished first.
    pub(super) async fn run(mut self) {
        let mut closing: Vec<oneshot::Sender<()>> = Vec::new();
        loop {
            let healthy = self.healthy.load(Ordering::Acquire);
            let mut first = None;
            let mut beside = None;
            tokio::select! {
                biased;
                Some(job) = self.live.recv() => first = Some(job),
                Some(job) = self.dark.recv() => first = Some(job),
                Some(aside) = self.aside.recv() => beside = Some(aside),
                // Not while closing: a dead disk must not hold the end up.
                () = tokio::time::sleep(PROBE_EVERY), if !healthy && !self.live.is_closed() => self.committer.probe(&self.healthy).await,
                else => break,
            }
            if let Some(first) = first {
                let batch = self.gather(first);
                self.batch_events.record(batch.iter().map(|job| job.count()).sum::<usize>() as f64);
                self.committer.commit(batch, &self.healthy).await;
            }
            // One at a time between batches: never kept out by appends, and never more than one in their way.
            match beside.or_else(|| self.aside.try_recv().ok()) {
                None => {}
                Some(Aside::Close(done)) => {
                    closing.push(done);
                    self.live.close();
                    self.dark.close();
                    self.aside.close();
                }
                Some(aside) => aside::perform(aside, &mut self.committer, &self.healthy).await,
            }
        }
        self.committer.close().await;
        self.healthy.store(false, Ordering::Release);
        drop(self);
        for done in closing {
            let _ = done.send(());
        }
    }

    /// Whatever waits, live first, up to the bounds. A single append may be larger than they are.
    fn gather(&mut self, first: Job) -> Vec<Job> {
        use crate::store::Priority;
        let (mut live, mut dark) = match first.priority {
            Priority::Live => (first.count(), 0),
            Priority::Dark => (0, first.count()),
        };
        let mut batch = vec![first];
        while live < self.batch_events_max
            && let Ok(job) = self.live.try_recv()
        {
            live += job.count();
            batch.push(job);
        }
        while dark < self.dark_events_max
            && let Ok(job) = self.dark.try_recv()
        {
            dark += job.count();
            batch.push(job);
        }
        batch
    }
}
