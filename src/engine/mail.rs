//! How what is said to a run reaches the one task that moves it.
//!
//! Always true: a run has at most one task in this process, because a task has a seat and a seat is given once; what is
//! said while a task closes is not lost: the seat's end wakes the run again. A mailbox is bounded, and whoever says more
//! waits. Whether a run is moved in another process is not known here.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::alarm::Alarm;
use super::desk::NotDone;
use super::machine::ChildEnd;
use crate::names::{Fence, RunId};
use crate::workflow::{Order, RunSummary};

/// Letters that wait for one run's task.
const LETTERS_MAX: usize = 16;

/// What is said to a run's task.
pub(super) enum Letter {
    /// Somebody asks something.
    Order(Box<Asking>),
    /// A run that it began has ended.
    Child(Box<ChildEnd>),
    /// A run below it waits for somebody: a caller does not wait with it.
    Waits,
}

/// Somebody asks something of a run, and waits.
pub(super) struct Asking {
    pub order: Order,
    pub by: String,
    pub reply: oneshot::Sender<Reply>,
}

/// What whoever asks is told.
#[derive(Debug)]
pub(super) enum Reply {
    /// It is done, and on disk.
    Done(Box<RunSummary>),
    /// It is not.
    Not(NotDone),
    /// Another process moves the run.
    Elsewhere,
    /// The task did not come to it.
    Again,
}

/// Where every moving run of this process sits.
#[derive(Default)]
pub(super) struct Post(Mutex<HashMap<RunId, Slot>>);

struct Slot {
    letters: mpsc::Sender<Letter>,
    looks: Arc<Looks>,
    gone: CancellationToken,
}

/// Whether a run has something to look at outside itself. Set under the lock of [`Post`], so that a task that closes
/// under the same lock either sees it or is woken again.
#[derive(Default)]
struct Looks {
    wanted: AtomicBool,
    /// The highest number under which this process took the run again although a task sits here.
    retaken: AtomicU64,
    notify: Notify,
}

/// What became of a letter.
pub(super) enum Posted {
    /// The task has it.
    Taken,
    /// No task moves the run here.
    NoSeat(Letter),
    /// The task closes: when it is gone, try again.
    Closing(Letter, CancellationToken),
    /// The mailbox is full.
    Full(Letter, mpsc::Sender<Letter>),
}

/// The right to move a run in this process; dropping it gives it back.
pub(super) struct Seat {
    post: Arc<Post>,
    alarm: Arc<Alarm>,
    run: RunId,
    letters: mpsc::Receiver<Letter>,
    looks: Arc<Looks>,
    gone: CancellationToken,
}

impl Post {
    fn slots(&self) -> MutexGuard<'_, HashMap<RunId, Slot>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Takes the run's seat; `None` where a task has it.
    pub fn sit(self: &Arc<Self>, alarm: &Arc<Alarm>, run: RunId) -> Option<Seat> {
        let mut slots = self.slots();
        if slots.contains_key(&run) {
            return None;
        }
        let (sender, letters) = mpsc::channel(LETTERS_MAX);
        let (looks, gone) = (Arc::new(Looks::default()), CancellationToken::new());
        slots.insert(run, Slot { letters: sender, looks: looks.clone(), gone: gone.clone() });
        Some(Seat { post: self.clone(), alarm: alarm.clone(), run, letters, looks, gone })
    }
    /// Hands a letter to the run's task.
    pub fn slip(&self, run: RunId, letter: Letter) -> Posted {
        let slots = self.slots();
        let Some(slot) = slots.get(&run) else { return Posted::NoSeat(letter) };
        match slot.letters.try_send(letter) {
            Ok(()) => Posted::Taken,
            Err(mpsc::error::TrySendError::Full(letter)) => Posted::Full(letter, slot.letters.clone()),
            Err(mpsc::error::TrySendError::Closed(letter)) => Posted::Closing(letter, slot.gone.clone()),
        }
    }
    /// Makes the run's task look outside itself; false where no task moves it here.
    pub fn poke(&self, run: RunId) -> bool {
        match self.slots().get(&run) {
            Some(slot) => {
                slot.looks.wanted.store(true, Ordering::Release);
                slot.looks.notify.notify_one();
                true
            }
            None => false,
        }
    }
    /// Tells the run's task that this process took the run again, under this number: one that owns it under a lower one
    /// has lost it meanwhile, though nothing that it appended told it so. False where no task moves it here.
    pub fn retaken(&self, run: RunId, fence: Fence) -> bool {
        match self.slots().get(&run) {
            Some(slot) => {
                slot.looks.retaken.fetch_max(fence.0, Ordering::AcqRel);
                slot.looks.wanted.store(true, Ordering::Release);
                slot.looks.notify.notify_one();
                true
            }
            None => false,
        }
    }
    /// Whether a task moves the run here.
    pub fn moves(&self, run: RunId) -> bool {
        self.slots().contains_key(&run)
    }
}

impl Seat {
    /// The next letter, or `None` where there is something to look at outside the run.
    pub async fn next(&mut self) -> Option<Letter> {
        loop {
            if self.looks.wanted.swap(false, Ordering::AcqRel) {
                return None;
            }
            tokio::select! {
                Some(letter) = self.letters.recv() => return Some(letter),
                () = self.looks.notify.notified() => {}
            }
        }
    }
    /// Takes no more letters from now on; refused where there is one, or something to look at.
    pub fn close(&mut self) -> bool {
        let _slots = self.post.slots();
        if self.looks.wanted.load(Ordering::Acquire) || !self.letters.is_empty() {
            return false;
        }
        self.letters.close();
        true
    }
    /// The highest number under which this process took the run again since this seat was given.
    pub fn taken_again(&self) -> Option<Fence> {
        Some(self.looks.retaken.load(Ordering::Acquire)).filter(|fence| *fence > 0).map(Fence)
    }
    /// Whose it is.
    pub fn run(&self) -> RunId {
        self.run
    }
    /// Answers every letter in the mailbox, and all that may still come, in this way. Whether a child's end was there.
    pub fn bounce(&mut self, mut say: impl FnMut() -> Reply) -> bool {
        self.letters.close();
        let mut child = false;
        while let Ok(letter) = self.letters.try_recv() {
            match letter {
                Letter::Order(asking) => drop(asking.reply.send(say())), // whoever asks may have gone
                Letter::Child(_) => child = true,
                Letter::Waits => {}
            }
        }
        child
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let unread = self.bounce(|| Reply::Again);
        self.post.slots().remove(&self.run);
        self.gone.cancel();
        if unread || self.looks.wanted.load(Ordering::Acquire) {
            self.alarm.now(self.run);
        }
    }
}
