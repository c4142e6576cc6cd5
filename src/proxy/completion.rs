//! What remains to be done for an exchange when hyper has its whole reply.
//!
//! hyper drops a reply's body when it has the last frame, and writes the bytes that it still buffers afterwards: if the
//! client reads slowly, much later or never. Always true: an exchange is compared only if the client's socket took the
//! last byte of the reply; its answer is counted exactly once, when the socket took that byte or when the connection
//! ends earlier.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use super::answered_exchange::AnsweredExchange;
use super::copied_exchange::CopiedReply;
use super::cut_reason::CutReason;
use super::settler::Settler;
use crate::flag::SkipReason;

/// An exchange of which hyper has the whole reply, or which was cut.
pub(super) struct Completion {
    exchange_number: u32,
    /// What was copied, if the reply was not cut.
    copied: Option<Box<CopiedReply>>,
    answered: Option<AnsweredExchange>,
}

impl Completion {
    pub(super) fn new(
        exchange_number: u32,
        copied: Option<Box<CopiedReply>>,
        answered: Option<AnsweredExchange>,
    ) -> Self {
        Self { exchange_number, copied, answered }
    }
    /// Hands on what was copied of the exchange, which has ended; `cut` says why if the socket did not take the last
    /// byte.
    fn settle(mut self, settler: &Settler, cut: Option<CutReason>) {
        if let Some(copied) = self.copied.take() {
            settler.settle(copied, cut.map(|_| SkipReason::ClientWentAway));
        }
        if let Some(answered) = &mut self.answered {
            answered.cut = answered.cut.or(cut);
            if let Some(after) = answered.after.take() {
                settler.follow(after);
            }
        }
    }
}

impl Drop for Completion {
    fn drop(&mut self) {
        if let Some(answered) = self.answered.take() {
            answered.end();
        }
    }
}

/// The completions of one connection that wait until hyper's buffer is written: nearly always none or one. A client
/// that pipelines requests may have as many as there are replies in hyper's buffer.
#[derive(Default)]
pub(super) struct Unflushed {
    is_any: AtomicBool,
    // Only the connection's own task takes the lock.
    completions: Mutex<(Option<Completion>, Vec<Completion>)>,
}

impl Unflushed {
    /// Adds an exchange of which hyper has the whole reply.
    pub(super) fn push(&self, completion: Completion) {
        let mut completions = self.completions.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *completions {
            (first @ None, _) => *first = Some(completion),
            (Some(_), later) => later.push(completion),
        }
        self.is_any.store(true, Relaxed);
    }

    /// Settles the waiting exchanges: the socket has taken all bytes that hyper held. Returns the number of the last of
    /// them.
    pub(super) fn flushed(&self, settler: &Settler) -> Option<u32> {
        let (first, later) = self.take()?;
        let last = later.last().unwrap_or(&first).exchange_number;
        first.settle(settler, None);
        later.into_iter().for_each(|completion| completion.settle(settler, None));
        Some(last)
    }

    /// Settles the waiting exchanges, which were not flushed before the connection ended for this reason. They are not
    /// compared; but their copies are handed on, because legacy has done their work and may have created an instance.
    pub(super) fn abandon(&self, settler: &Settler, cut: CutReason) {
        let Some((first, later)) = self.take() else { return };
        for completion in [first].into_iter().chain(later) {
            completion.settle(settler, Some(cut));
        }
    }

    /// Whether there is a reply that the socket has not taken completely.
    pub(super) fn is_any(&self) -> bool {
        self.is_any.load(Relaxed)
    }

    fn take(&self) -> Option<(Completion, Vec<Completion>)> {
        if !self.is_any.load(Relaxed) {
            return None;
        }
        self.is_any.store(false, Relaxed);
        let mut completions = self.completions.lock().unwrap_or_else(PoisonError::into_inner);
        let (first, later) = std::mem::take(&mut *completions);
        first.map(|first| (first, later))
    }
}
