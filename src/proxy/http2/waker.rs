//! Wakes the task of a connection, unless the task is being polled: then the task polls again itself.
//!
//! The streams of a connection and the h2 crate wake each other in the connection's own task, several times for each
//! request; without this, each wake would schedule the task anew.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::AcqRel};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;

/// No work is pending.
const IDLE: u8 = 0;
/// The task is being polled, and has not been woken since that poll began.
const POLLING: u8 = 1;
/// Work is pending: the task was woken, or polls again at the end of its current poll.
const WOKEN: u8 = 2;

/// The most polls in one run of the task: if it was woken meanwhile, it is polled again at once.
const ROUNDS_MAX: usize = 8;

/// The source of wakers for a connection's task.
pub(super) struct ConnectionWaker {
    wake_state: Arc<WakeState>,
    waker: Waker,
}

/// The task to wake, and whether work is pending for it.
struct WakeState {
    task: AtomicWaker,
    state: AtomicU8,
}

impl Wake for WakeState {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }
    fn wake_by_ref(self: &Arc<Self>) {
        if self.state.swap(WOKEN, AcqRel) == IDLE {
            self.task.wake();
        }
    }
}

impl ConnectionWaker {
    pub(super) fn new() -> Self {
        let wake_state = Arc::new(WakeState { task: AtomicWaker::new(), state: AtomicU8::new(WOKEN) });
        Self { waker: wake_state.clone().into(), wake_state }
    }

    /// Polls until no work is pending, at most [`ROUNDS_MAX`] times; after these the task is woken.
    pub(super) fn poll<T>(&self, cx: &mut Context<'_>, mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
        let Self { wake_state, waker } = self;
        wake_state.task.register(cx.waker());
        for _ in 0..ROUNDS_MAX {
            wake_state.state.swap(POLLING, AcqRel);
            let polled = poll(&mut Context::from_waker(waker));
            let is_done =
                wake_state.state.compare_exchange(POLLING, IDLE, AcqRel, std::sync::atomic::Ordering::Acquire);
            if polled.is_ready() || is_done.is_ok() {
                return polled;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    fn poll(connection: &ConnectionWaker, task: &Arc<Count>, wakes: usize) -> (usize, Option<Waker>) {
        let (mut rounds, mut inner) = (0, None);
        let polled: Poll<()> = connection.poll(&mut Context::from_waker(&task.clone().into()), |cx| {
            rounds += 1;
            inner = Some(cx.waker().clone());
            if rounds <= wakes {
                cx.waker().wake_by_ref();
            }
            Poll::Pending
        });
        assert!(polled.is_pending());
        (rounds, inner)
    }

    #[test]
    fn a_wake_during_a_poll_repeats_it_and_one_between_polls_wakes_the_task() {
        let (connection, task) = (ConnectionWaker::new(), Arc::<Count>::default());
        let woken = || task.0.load(SeqCst);
        let (rounds, waker) = poll(&connection, &task, 2);
        assert_eq!((rounds, woken()), (3, 0));
        let waker = waker.unwrap();
        waker.wake_by_ref();
        waker.wake_by_ref();
        assert_eq!(woken(), 1, "the task is woken once");
        assert_eq!((poll(&connection, &task, 0).0, woken()), (1, 1));
    }

    #[test]
    fn a_task_that_is_woken_in_every_poll_lets_others_run() {
        let (connection, task) = (ConnectionWaker::new(), Arc::<Count>::default());
        assert_eq!(poll(&connection, &task, usize::MAX).0, ROUNDS_MAX);
        assert_eq!(task.0.load(SeqCst), 1);
    }
}
