//! Whether the client's socket has taken what was passed on of a reply.
//!
//! hyper and h2 discard what they buffer when the body of a reply fails. So a body that fails waits with its error
//! until nothing is buffered any more. Always true: the waiting task is woken when nothing is buffered any more; a
//! client that does not read is cut by the limit of the reply's phase.

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::task::Context;

/// The socket has taken everything that was passed on.
const DONE: u8 = 0;
/// hyper or h2 may still buffer some of it.
const DUE: u8 = 1;
/// hyper or h2 may still buffer some of it, and the reply's body waits until they do not.
const AWAITED: u8 = 2;

/// The state of one reply.
#[derive(Default)]
pub(in crate::proxy) struct ReplyFlush(AtomicU8);

impl ReplyFlush {
    /// Records that the reply's head or a frame of its body was passed on to hyper or h2.
    pub(in crate::proxy) fn note_passed_on(&self) {
        self.0.store(DUE, Relaxed);
    }
    /// Whether hyper or h2 may still buffer some of the reply. If so, the task is woken when they do not any more.
    pub(in crate::proxy) fn is_due(&self, cx: &mut Context<'_>) -> bool {
        if self.0.compare_exchange(DUE, AWAITED, Relaxed, Relaxed).is_ok() {
            // The connection flushes when it is polled again.
            cx.waker().wake_by_ref();
        }
        self.is_awaited()
    }
    /// Whether the reply's body waits until nothing is buffered.
    pub(in crate::proxy) fn is_awaited(&self) -> bool {
        self.0.load(Relaxed) == AWAITED
    }
    /// Records that the socket has taken everything. Returns whether the reply's body waits for that.
    pub(in crate::proxy) fn end(&self) -> bool {
        self.0.swap(DONE, Relaxed) == AWAITED
    }
}
