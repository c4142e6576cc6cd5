//! The queues of the writer. They decide what it writes next, and how much of that in one commit.
//!
//! Always true: real appends come before dark ones, and a batch takes a bounded number of dark events; each of the
//! three queues is bounded, and a full one refuses at once; everything that was accepted before the queue was closed is
//! returned before [`NextWork::Closed`].

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::encoded::EncodedAppend;
use super::other_writes::OtherWrite;
use crate::limits::Limits;
use crate::store::Priority;

/// The bounds of the queues and of a batch.
pub(super) struct Sizes {
    pub(super) queue: usize,
    pub(super) batch_events: usize,
    pub(super) dark_events: usize,
}

impl Sizes {
    pub(super) fn of(limits: &Limits) -> Self {
        Self {
            queue: size(limits.append_queue_max),
            batch_events: size(limits.append_batch_events_max),
            dark_events: size(limits.append_dark_batch_events_max),
        }
    }
}

/// A limit as a size, at least 1.
pub(super) fn size(limit: u64) -> usize {
    usize::try_from(limit.max(1)).unwrap_or(usize::MAX)
}

/// Why a write was not accepted.
#[derive(Debug, PartialEq)]
pub(super) enum QueueError {
    Full,
    Closed,
}

/// What the writer has to do next.
pub(super) enum NextWork {
    /// Appends to commit together, then at most one other write. At least one of the two is present.
    Writes(Vec<EncodedAppend>, Option<OtherWrite>),
    /// Nothing came before the timeout.
    TimedOut,
    /// The queue is closed and empty. The channels are to be signalled at the writer's end.
    Closed(Vec<oneshot::Sender<()>>),
}

#[derive(Default)]
struct QueueState {
    real: VecDeque<EncodedAppend>,
    dark: VecDeque<EncodedAppend>,
    other: VecDeque<OtherWrite>,
    closed: bool,
    on_closed: Vec<oneshot::Sender<()>>,
    /// Whether the writer has ended.
    ended: bool,
    /// Whether the writer waits for a signal.
    is_writer_waiting: bool,
    /// Whether a test stops the writer from taking work.
    is_paused: bool,
}

pub(super) struct Queue {
    state: Mutex<QueueState>,
    changed: Condvar,
    sizes: Sizes,
}

impl Queue {
    pub(super) fn new(sizes: Sizes) -> Self {
        Self { state: Mutex::default(), changed: Condvar::new(), sizes }
    }

    fn state(&self) -> MutexGuard<'_, QueueState> {
        // A poisoned lock is usable: no change can panic halfway.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn signal(&self, mut state: MutexGuard<'_, QueueState>) {
        let was_waiting = std::mem::take(&mut state.is_writer_waiting);
        drop(state);
        if was_waiting {
            self.changed.notify_one();
        }
    }

    pub(super) fn push(&self, append: EncodedAppend) -> Result<(), QueueError> {
        let mut state = self.state();
        if state.closed {
            return Err(QueueError::Closed);
        }
        let queue = match append.priority {
            Priority::Real => &mut state.real,
            Priority::Dark => &mut state.dark,
        };
        if queue.len() >= self.sizes.queue {
            return Err(QueueError::Full);
        }
        queue.push_back(append);
        self.signal(state);
        Ok(())
    }

    pub(super) fn push_other(&self, other: OtherWrite) -> Result<(), QueueError> {
        let mut state = self.state();
        if state.closed {
            return Err(QueueError::Closed);
        }
        if state.other.len() >= self.sizes.queue {
            return Err(QueueError::Full);
        }
        state.other.push_back(other);
        self.signal(state);
        Ok(())
    }

    /// Accepts nothing more. Signals `on_closed` when everything that waits is written; if the writer has ended, drops
    /// `on_closed`.
    pub(super) fn close(&self, on_closed: Option<oneshot::Sender<()>>) {
        let mut state = self.state();
        state.closed = true;
        if !state.ended {
            state.on_closed.extend(on_closed);
        }
        self.signal(state);
    }

    /// Marks the writer as ended and drops what waits, with the reply channels.
    pub(super) fn abandon(&self) {
        let closed_state = QueueState { closed: true, ended: true, ..QueueState::default() };
        let abandoned = std::mem::replace(&mut *self.state(), closed_state);
        drop(abandoned);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state().closed
    }

    /// Whether nothing waits for the writer.
    pub(super) fn is_empty(&self) -> bool {
        let state = self.state();
        state.real.is_empty() && state.dark.is_empty() && state.other.is_empty()
    }

    #[cfg(test)]
    pub(super) fn pause(&self, is_paused: bool) {
        self.state().is_paused = is_paused;
        self.changed.notify_one();
    }

    /// Waits for what is next, at most for this timeout.
    pub(super) fn next(&self, timeout: Option<Duration>) -> NextWork {
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        let mut state = self.state();
        loop {
            if !state.is_paused {
                let batch = self.take_batch(&mut state);
                let other = state.other.pop_front();
                if !batch.is_empty() || other.is_some() {
                    return NextWork::Writes(batch, other);
                }
                if state.closed {
                    return NextWork::Closed(std::mem::take(&mut state.on_closed));
                }
            }
            state.is_writer_waiting = true;
            state = match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(Duration::ZERO) => {
                    state.is_writer_waiting = false;
                    return NextWork::TimedOut;
                }
                Some(left) => self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0,
            };
        }
    }

    /// Takes a batch, real appends first, up to the bounds. A single append may exceed them.
    fn take_batch(&self, state: &mut QueueState) -> Vec<EncodedAppend> {
        let QueueState { real, dark, .. } = state;
        let mut batch = Vec::new();
        for (queue, max) in [(real, self.sizes.batch_events), (dark, self.sizes.dark_events)] {
            let mut events = 0;
            while events < max
                && let Some(append) = queue.pop_front()
            {
                events += append.count();
                batch.push(append);
            }
        }
        batch
    }
}
