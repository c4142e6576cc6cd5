//! The one task of this process that writes appends. Nobody cancels it.
//!
//! The question it answers: "in which order, and how many together?" Always true: appends are acknowledged after
//! their commit; whatever waits is committed together, with no added delay; live appends go first, and a batch takes a
//! bounded number of dark events. When the database is slow, more comes together in the next batch; when it is gone,
//! each append is answered by what is known of it, and a probe finds out that it is back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::claim::{Aside, Claims};
use super::commit::Committer;
use crate::limits::Limits;
use crate::store::Priority;
use crate::store::job::Job;

/// While the store is not healthy, it is not tried more often than this.
const PROBE_EVERY: Duration = Duration::from_millis(100);

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
    claims: Claims,
    healthy: Arc<AtomicBool>,
    batch_events_max: usize,
    dark_events_max: usize,
    batch_events: metrics::Histogram,
}

impl Writer {
    pub(super) fn new(committer: Committer, healthy: Arc<AtomicBool>, limits: &Limits) -> (Self, Inlet) {
        let size = |value: u64| usize::try_from(value.max(1)).unwrap_or(usize::MAX);
        let queue = size(limits.append_queue_max).min(tokio::sync::Semaphore::MAX_PERMITS);
        let (live_in, live) = mpsc::channel(queue);
        let (dark_in, dark) = mpsc::channel(queue);
        let (aside_in, aside) = mpsc::channel(queue);
        let writer = Self {
            live,
            dark,
            aside,
            committer,
            claims: Claims::default(),
            healthy,
            batch_events_max: size(limits.append_batch_events_max),
            dark_events_max: size(limits.append_dark_batch_events_max),
            batch_events: metrics::histogram!("pointsman_append_batch_events"),
        };
        (writer, Inlet { live: live_in, dark: dark_in, aside: aside_in })
    }

    /// Runs until everybody who could hand something in is gone, or until it is told to close; either way what was
    /// handed in is finished first.
    pub(super) async fn run(mut self) {
        let mut closing: Vec<oneshot::Sender<()>> = Vec::new();
        loop {
            let healthy = self.healthy.load(Ordering::Acquire);
            let pause = self.committer.session.next_try().max(PROBE_EVERY);
            let mut first = None;
            let mut beside = None;
            tokio::select! {
                biased;
                Some(job) = self.live.recv() => first = Some(job),
                Some(job) = self.dark.recv() => first = Some(job),
                Some(aside) = self.aside.recv() => beside = Some(aside),
                // Not while closing: a dead database must not hold the end up.
                () = tokio::time::sleep(pause), if !healthy && !self.live.is_closed() => {
                    self.committer.probe(&self.healthy).await;
                }
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
                Some(aside) => {
                    self.claims.perform(aside, &mut self.committer.session).await;
                    self.is_noticed();
                }
            }
        }
        self.committer.session.close().await;
        self.healthy.store(false, Ordering::Release);
        drop(self);
        for done in closing {
            let _ = done.send(());
        }
    }

    /// Whoever claimed runs has found the database gone: nobody is sent here before the probe has found it again.
    fn is_noticed(&self) {
        if self.committer.session.is_away() && self.healthy.swap(false, Ordering::AcqRel) {
            self.committer.told(self.committer.session.why());
            tracing::warn!("the store cannot be reached");
        }
    }

    /// Whatever waits, live first, up to the bounds. A single append may be larger than they are.
    fn gather(&mut self, first: Job) -> Vec<Job> {
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
