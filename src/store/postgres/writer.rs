//! The only task of this process that writes appends. It is never cancelled.
//!
//! Always true: appends are acknowledged after their commit; everything that waits is committed together (group commit)
//! without an added delay; real appends come before dark ones, and a batch takes a bounded number of dark events.
//!
//! When the database is slow, the next batch is larger. When the database is gone, each append gets an error that says
//! what is certain (not written, or outcome unknown), and probes find out when the database is back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::acquire::{RunAcquirer, WriterRequest};
use super::commit::Committer;
use crate::limits::Limits;
use crate::store::Priority;
use crate::store::commit_age::CommitAge;
use crate::store::encoded::EncodedAppend;

/// The shortest interval of probes while the store is not healthy.
const PROBE_INTERVAL: Duration = Duration::from_millis(100);

/// The sending ends of the writer's queues.
#[derive(Clone)]
pub(super) struct WriterQueues {
    pub(super) real: mpsc::Sender<EncodedAppend>,
    pub(super) dark: mpsc::Sender<EncodedAppend>,
    pub(super) requests: mpsc::Sender<WriterRequest>,
}

/// The task's own state.
pub(super) struct Writer {
    real: mpsc::Receiver<EncodedAppend>,
    dark: mpsc::Receiver<EncodedAppend>,
    requests: mpsc::Receiver<WriterRequest>,
    committer: Committer,
    run_acquirer: RunAcquirer,
    healthy: Arc<AtomicBool>,
    /// Measures commits and requests; not probes, which run only while the store is not healthy and have a bound of
    /// their own.
    commit_age: Arc<CommitAge>,
    batch_events_max: usize,
    dark_events_max: usize,
    batch_events: metrics::Histogram,
}

impl Writer {
    pub(super) fn new(
        committer: Committer,
        healthy: Arc<AtomicBool>,
        commit_age: Arc<CommitAge>,
        limits: &Limits,
    ) -> (Self, WriterQueues) {
        let size = |value: u64| usize::try_from(value.max(1)).unwrap_or(usize::MAX);
        let queue = size(limits.append_queue_max).min(tokio::sync::Semaphore::MAX_PERMITS);
        let (real_in, real) = mpsc::channel(queue);
        let (dark_in, dark) = mpsc::channel(queue);
        let (requests_in, requests) = mpsc::channel(queue);
        let writer = Self {
            real,
            dark,
            requests,
            committer,
            run_acquirer: RunAcquirer::default(),
            healthy,
            commit_age,
            batch_events_max: size(limits.append_batch_events_max),
            dark_events_max: size(limits.append_dark_batch_events_max),
            batch_events: metrics::histogram!("pointsman_append_batch_events"),
        };
        (writer, WriterQueues { real: real_in, dark: dark_in, requests: requests_in })
    }

    /// Runs until all senders are dropped or a close is requested, and the queues are empty.
    pub(super) async fn run(mut self) {
        let mut on_closed: Vec<oneshot::Sender<()>> = Vec::new();
        loop {
            let healthy = self.healthy.load(Ordering::Acquire);
            let pause = self.committer.session.retry_in().max(PROBE_INTERVAL);
            let mut first = None;
            let mut request = None;
            tokio::select! {
                biased;
                Some(append) = self.real.recv() => first = Some(append),
                Some(append) = self.dark.recv() => first = Some(append),
                Some(received) = self.requests.recv() => request = Some(received),
                // No probes while closing: a dead database must not delay the end.
                () = tokio::time::sleep(pause), if !healthy && !self.real.is_closed() => {
                    self.committer.probe(&self.healthy).await;
                }
                else => break,
            }
            if let Some(first) = first {
                let batch = self.take_batch(first);
                self.batch_events.record(batch.iter().map(|append| append.count()).sum::<usize>() as f64);
                self.commit_age.begin();
                self.committer.commit(batch, &self.healthy).await;
                self.commit_age.end();
            }
            // One request after each batch: appends cannot starve the requests, and wait for one of them at most.
            match request.or_else(|| self.requests.try_recv().ok()) {
                None => {}
                Some(WriterRequest::Close(done)) => {
                    on_closed.push(done);
                    self.real.close();
                    self.dark.close();
                    self.requests.close();
                }
                Some(request) => {
                    self.commit_age.begin();
                    self.run_acquirer.perform(request, &mut self.committer.session).await;
                    self.commit_age.end();
                    self.mark_unhealthy_if_disconnected();
                }
            }
        }
        self.committer.session.close().await;
        self.healthy.store(false, Ordering::Release);
        drop(self);
        for done in on_closed {
            let _ = done.send(());
        }
    }

    /// Marks the store unhealthy if a request lost the connection: callers wait until a probe succeeds.
    fn mark_unhealthy_if_disconnected(&self) {
        if self.committer.session.is_disconnected() && self.healthy.swap(false, Ordering::AcqRel) {
            let error = self.committer.session.last_error();
            tracing::warn!(?error, "the store cannot be reached: appends are refused until it answers again");
            self.committer.note_failure(error);
        }
    }

    /// Takes a batch, real appends first, up to the bounds. A single append may exceed them.
    fn take_batch(&mut self, first: EncodedAppend) -> Vec<EncodedAppend> {
        let (mut real, mut dark) = match first.priority {
            Priority::Real => (first.count(), 0),
            Priority::Dark => (0, first.count()),
        };
        let mut batch = vec![first];
        while real < self.batch_events_max
            && let Ok(append) = self.real.try_recv()
        {
            real += append.count();
            batch.push(append);
        }
        while dark < self.dark_events_max
            && let Ok(append) = self.dark.try_recv()
        {
            dark += append.count();
            batch.push(append);
        }
        batch
    }
}
