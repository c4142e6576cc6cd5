//! What waits for the writer.
//!
//! The question it answers: "what is written next, and how much of it together?" Always true: live appends go first, and
//! a batch takes a bounded number of dark events; each of the three queues is bounded, and a full one refuses at once;
//! what was taken in before the queue was closed is handed out before its end.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::encoded::EncodedAppend;
use super::other_writes::OtherWrite;
use crate::store::Priority;

/// The sizes of what waits and of what goes together.
pub(super) struct Sizes {
    pub(super) queue: usize,
    pub(super) batch_events: usize,
    pub(super) dark_events: usize,
}

/// Why something was not taken in.
#[derive(Debug, PartialEq)]
pub(super) enum QueueError {
    Full,
    Closed,
}

/// What the writer does next.
pub(super) enum NextWork {
    /// Appends that are committed together, and at most one other write after them. One of the two is there.
    Writes(Vec<EncodedAppend>, Option<OtherWrite>),
    /// Nothing came for as long as was waited.
    TimedOut,
    /// Nothing comes any more; whoever waits for that is told.
    Closed(Vec<oneshot::Sender<()>>),
}

#[derive(Default)]
struct QueueState {
    live: VecDeque<EncodedAppend>,
    dark: VecDeque<EncodedAppend>,
    other: VecDeque<OtherWrite>,
    closed: bool,
    on_closed: Vec<oneshot::Sender<()>>,
    /// The writer is gone.
    ended: bool,
    /// The writer waits for a signal.
    idle: bool,
    /// A test keeps the writer from taking anything.
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
        // Each change is whole before anything can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn signal(&self, mut state: MutexGuard<'_, QueueState>) {
        let idle = std::mem::take(&mut state.idle);
        drop(state);
        if idle {
            self.changed.notify_one();
        }
    }

    pub(super) fn push(&self, append: EncodedAppend) -> Result<(), QueueError> {
        let mut state = self.state();
        if state.closed {
            return Err(QueueError::Closed);
        }
        let queue = match append.priority {
            Priority::Live => &mut state.live,
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

    /// Takes nothing more in. Where the end is to be told, it is, once all that waits is written; at once where it was.
    pub(super) fn close(&self, on_closed: Option<oneshot::Sender<()>>) {
        let mut state = self.state();
        state.closed = true;
        if !state.ended {
            state.on_closed.extend(on_closed);
        }
        self.signal(state);
    }

    /// The writer is gone: what waits is dropped, and with it the senders of its answers.
    pub(super) fn abandon(&self) {
        let closed_state = QueueState { closed: true, ended: true, ..QueueState::default() };
        let left = std::mem::replace(&mut *self.state(), closed_state);
        drop(left);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state().closed
    }

    /// Whether nothing waits for the writer.
    pub(super) fn is_idle(&self) -> bool {
        let waiting = self.waiting();
        waiting.live.is_empty() && waiting.dark.is_empty() && waiting.aside.is_empty()
    }

    #[cfg(test)]
    pub(super) fn pause(&self, is_paused: bool) {
        self.state().is_paused = is_paused;
        self.changed.notify_one();
    }

    /// What is next; waited for, no longer than is said.
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
            state.idle = true;
            state = match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(Duration::ZERO) => {
                    state.idle = false;
                    return NextWork::TimedOut;
                }
                Some(left) => self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0,
            };
        }
    }

    /// Whatever waits, live first, up to the bounds. A single append may be larger than they are.
    fn take_batch(&self, state: &mut QueueState) -> Vec<EncodedAppend> {
        let QueueState { live, dark, .. } = state;
        let mut batch = Vec::new();
        for (queue, max) in [(live, self.sizes.batch_events), (dark, self.sizes.dark_events)] {
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
