//! Mailboxes of runs: how a message reaches the one task that moves its run.
//!
//! Always true: a run has at most one task in this process, because a task holds the run's slot, and there is one. A
//! message that comes while a task ends is not lost: dropping the slot wakes the run again. A mailbox is bounded, and a
//! sender waits where it is full. Whether another process moves the run is not known here.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::engine::api::types::NotDone;
use crate::engine::machine::ChildEnd;
use crate::engine::scheduler::timers::Timers;
use crate::names::{Fence, RunId};
use crate::workflow::{Order, RunSummary};

/// Messages that wait for one run's task.
const MESSAGES_MAX: usize = 16;

/// What is sent to a run's task.
pub(in crate::engine) enum Message {
    /// An order, and who waits for its answer.
    Order(Box<Asking>),
    /// A child has ended.
    Child(Box<ChildEnd>),
    /// A run below it waits for a person or a signal: a caller does not wait with it.
    Waits,
}

/// An order for a run, and where the answer goes.
pub(in crate::engine) struct Asking {
    pub order: Order,
    pub by: String,
    pub reply: oneshot::Sender<Reply>,
}

/// The answer to an order.
#[derive(Debug)]
pub(in crate::engine) enum Reply {
    /// It is done, and on disk.
    Done(Box<RunSummary>),
    /// It is not done, for this reason.
    Not(NotDone),
    /// Another process moves the run.
    Elsewhere,
    /// The task ended before it came to it: send it again.
    Again,
}

/// The mailboxes of all runs that have a task in this process.
#[derive(Default)]
pub(in crate::engine) struct Mailboxes(Mutex<HashMap<RunId, Entry>>);

struct Entry {
    messages: mpsc::Sender<Message>,
    looks: Arc<Looks>,
    gone: CancellationToken,
}

/// Whether something outside a run may have changed. Set under the lock of [`Mailboxes`], so that a task that closes
/// under the same lock either sees it or is woken again.
#[derive(Default)]
struct Looks {
    wanted: AtomicBool,
    /// The highest number under which this process took the run again although a task has its slot.
    retaken: AtomicU64,
    notify: Notify,
}

/// What became of a message.
pub(in crate::engine) enum Sent {
    /// The task has it.
    Taken,
    /// No task moves the run here.
    NoSlot(Message),
    /// The task closes: when it is gone, try again.
    Closing(Message, CancellationToken),
    /// The mailbox is full.
    Full(Message, mpsc::Sender<Message>),
}

/// The right to move a run in this process, with its mailbox; dropping it gives it up.
pub(in crate::engine) struct Slot {
    mailboxes: Arc<Mailboxes>,
    timers: Arc<Timers>,
    run: RunId,
    messages: mpsc::Receiver<Message>,
    looks: Arc<Looks>,
    gone: CancellationToken,
}

impl Mailboxes {
    fn entries(&self) -> MutexGuard<'_, HashMap<RunId, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Takes the run's slot; `None` where a task has it.
    pub fn claim_slot(self: &Arc<Self>, timers: &Arc<Timers>, run: RunId) -> Option<Slot> {
        let mut entries = self.entries();
        if entries.contains_key(&run) {
            return None;
        }
        let (sender, messages) = mpsc::channel(MESSAGES_MAX);
        let (looks, gone) = (Arc::new(Looks::default()), CancellationToken::new());
        entries.insert(run, Entry { messages: sender, looks: looks.clone(), gone: gone.clone() });
        Some(Slot { mailboxes: self.clone(), timers: timers.clone(), run, messages, looks, gone })
    }
    /// Puts a message into the run's mailbox.
    pub fn send(&self, run: RunId, message: Message) -> Sent {
        let entries = self.entries();
        let Some(entry) = entries.get(&run) else { return Sent::NoSlot(message) };
        match entry.messages.try_send(message) {
            Ok(()) => Sent::Taken,
            Err(mpsc::error::TrySendError::Full(message)) => Sent::Full(message, entry.messages.clone()),
            Err(mpsc::error::TrySendError::Closed(message)) => Sent::Closing(message, entry.gone.clone()),
        }
    }
    /// Tells the run's task that something outside the run may have changed; false where it has no task here.
    pub fn notify(&self, run: RunId) -> bool {
        match self.entries().get(&run) {
            Some(entry) => {
                entry.looks.wanted.store(true, Ordering::Release);
                entry.looks.notify.notify_one();
                true
            }
            None => false,
        }
    }
    /// Tells the run's task that this process took the run again, under this number: a task that owns it under a lower
    /// number lost it in between, and no append has told it so. False where it has no task here.
    pub fn retaken(&self, run: RunId, fence: Fence) -> bool {
        match self.entries().get(&run) {
            Some(entry) => {
                entry.looks.retaken.fetch_max(fence.0, Ordering::AcqRel);
                entry.looks.wanted.store(true, Ordering::Release);
                entry.looks.notify.notify_one();
                true
            }
            None => false,
        }
    }
    /// Whether the run has a task here.
    pub fn moves(&self, run: RunId) -> bool {
        self.entries().contains_key(&run)
    }
}

impl Slot {
    /// The next message; `None`: something outside the run may have changed.
    pub async fn next(&mut self) -> Option<Message> {
        loop {
            if self.looks.wanted.swap(false, Ordering::AcqRel) {
                return None;
            }
            tokio::select! {
                Some(message) = self.messages.recv() => return Some(message),
                () = self.looks.notify.notified() => {}
            }
        }
    }
    /// Closes the mailbox; refused where a message is in it, or something outside the run may have changed.
    pub fn close(&mut self) -> bool {
        let _slots = self.mailboxes.entries();
        if self.looks.wanted.load(Ordering::Acquire) || !self.messages.is_empty() {
            return false;
        }
        self.messages.close();
        true
    }
    /// The highest number under which this process took the run again since this slot was given.
    pub fn taken_again(&self) -> Option<Fence> {
        Some(self.looks.retaken.load(Ordering::Acquire)).filter(|fence| *fence > 0).map(Fence)
    }
    /// The run.
    pub fn run(&self) -> RunId {
        self.run
    }
    /// Closes the mailbox and answers every order in it; whether the end of a child was in it.
    pub fn reject_all(&mut self, mut say: impl FnMut() -> Reply) -> bool {
        self.messages.close();
        let mut child = false;
        while let Ok(message) = self.messages.try_recv() {
            match message {
                Message::Order(asking) => drop(asking.reply.send(say())), // whoever asks may have gone
                Message::Child(_) => child = true,
                Message::Waits => {}
            }
        }
        child
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let unread = self.reject_all(|| Reply::Again);
        self.mailboxes.entries().remove(&self.run);
        self.gone.cancel();
        if unread || self.looks.wanted.load(Ordering::Acquire) {
            self.timers.now(self.run);
        }
    }
}
