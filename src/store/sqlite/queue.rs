//! What waits for the writer.
//!
//! The question it answers: "what is written next, and how much of it together?" Always true: live appends go first, and
//! a batch takes a bounded number of dark events; each of the three queues is bounded, and a full one refuses at once;
//! what was taken in before the queue was closed is handed out before its end.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::aside::Aside;
use super::job::Job;
use crate::store::Priority;

/// The sizes of what waits and of what goes together.
pub(super) struct Sizes {
    pub(super) queue: usize,
    pub(super) batch_events: usize,
    pub(super) dark_events: usize,
}

/// Why something was not taken in.
#[derive(Debug, PartialEq)]
pub(super) enum NotTaken {
    Full,
    Closed,
}

/// What the writer does next.
pub(super) enum Next {
    /// Appends that are committed together, and at most one other write after them. One of the two is there.
    Work(Vec<Job>, Option<Aside>),
    /// Nothing came for as long as was waited.
    Nothing,
    /// Nothing comes any more; whoever waits for that is told.
    End(Vec<oneshot::Sender<()>>),
}

#[derive(Default)]
struct Waiting {
    live: VecDeque<Job>,
    dark: VecDeque<Job>,
    aside: VecDeque<Aside>,
    closed: bool,
    closing: Vec<oneshot::Sender<()>>,
    /// The writer is gone.
    ended: bool,
    /// The writer waits for a signal.
    idle: bool,
    /// A test keeps the writer from taking anything.
    held: bool,
}

pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    came: Condvar,
    sizes: Sizes,
}

impl Queue {
    pub(super) fn new(sizes: Sizes) -> Self {
        Self { waiting: Mutex::default(), came: Condvar::new(), sizes }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Each change is whole before anything can panic.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn signal(&self, mut waiting: MutexGuard<'_, Waiting>) {
        let idle = std::mem::take(&mut waiting.idle);
        drop(waiting);
        if idle {
            self.came.notify_one();
        }
    }

    pub(super) fn push(&self, job: Job) -> Result<(), NotTaken> {
        let mut waiting = self.waiting();
        if waiting.closed {
            return Err(NotTaken::Closed);
        }
        let queue = match job.priority {
            Priority::Live => &mut waiting.live,
            Priority::Dark => &mut waiting.dark,
        };
        if queue.len() >= self.sizes.queue {
            return Err(NotTaken::Full);
        }
        queue.push_back(job);
        self.signal(waiting);
        Ok(())
    }

    pub(super) fn push_aside(&self, aside: Aside) -> Result<(), NotTaken> {
        let mut waiting = self.waiting();
        if waiting.closed {
            return Err(NotTaken::Closed);
        }
        if waiting.aside.len() >= self.sizes.queue {
            return Err(NotTaken::Full);
        }
        waiting.aside.push_back(aside);
        self.signal(waiting);
        Ok(())
    }

    /// Takes nothing more in. Where the end is to be told, it is, once all that waits is written; at once where it was.
    pub(super) fn close(&self, told: Option<oneshot::Sender<()>>) {
        let mut waiting = self.waiting();
        waiting.closed = true;
        if !waiting.ended {
            waiting.closing.extend(told);
        }
        self.signal(waiting);
    }

    /// The writer is gone: what waits is dropped, and with it the senders of its answers.
    pub(super) fn abandon(&self) {
        let gone = Waiting { closed: true, ended: true, ..Waiting::default() };
        let left = std::mem::replace(&mut *self.waiting(), gone);
        drop(left);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.waiting().closed
    }

    /// Whether nothing waits for the writer.
    pub(super) fn is_idle(&self) -> bool {
        let waiting = self.waiting();
        waiting.live.is_empty() && waiting.dark.is_empty() && waiting.aside.is_empty()
    }

    #[cfg(test)]
    pub(super) fn hold(&self, held: bool) {
        self.waiting().held = held;
        self.came.notify_one();
    }

    /// What is next; waited for, no longer than is said.
    pub(super) fn next(&self, patience: Option<Duration>) -> Next {
        let deadline = patience.map(|patience| Instant::now() + patience);
        let mut waiting = self.waiting();
        loop {
            if !waiting.held {
                let batch = self.gather(&mut waiting);
                let aside = waiting.aside.pop_front();
                if !batch.is_empty() || aside.is_some() {
                    return Next::Work(batch, aside);
                }
                if waiting.closed {
                    return Next::End(std::mem::take(&mut waiting.closing));
                }
            }
            waiting.idle = true;
            waiting = match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
                None => self.came.wait(waiting).unwrap_or_else(PoisonError::into_inner),
                Some(Duration::ZERO) => {
                    waiting.idle = false;
                    return Next::Nothing;
                }
                Some(left) => self.came.wait_timeout(waiting, left).unwrap_or_else(PoisonError::into_inner).0,
            };
        }
    }

    /// Whatever waits, live first, up to the bounds. A single append may be larger than they are.
    fn gather(&self, waiting: &mut Waiting) -> Vec<Job> {
        let Waiting { live, dark, .. } = waiting;
        let mut batch = Vec::new();
        for (queue, max) in [(live, self.sizes.batch_events), (dark, self.sizes.dark_events)] {
            let mut events = 0;
            while events < max
                && let Some(job) = queue.pop_front()
            {
                events += job.count();
                batch.push(job);
            }
        }
        batch
    }
}
