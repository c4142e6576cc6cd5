//! Mailboxes of runs: how a message reaches the one task that executes its run.
//!
//! Always true: a run has at most one task in this process, because its task holds the run's only slot. A message that
//! comes while a task ends is not lost: dropping the slot wakes the run again. A mailbox is bounded, and a sender waits
//! while it is full. Whether another process executes the run is not known here.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::engine::machine::ChildEnd;
use crate::engine::scheduler::command_error::CommandError;
use crate::engine::scheduler::timers::Timers;
use crate::names::{Fence, RunId};
use crate::workflow::{ControlCommand, RunSummary};

/// Capacity of a mailbox.
const MESSAGES_MAX: usize = 16;

/// A message for a run's task.
pub(in crate::engine) enum Message {
    Command(Box<CommandRequest>),
    ChildEnded(Box<ChildEnd>),
    /// A descendant waits for a person or a signal, so the run's caller is answered now instead of waiting for the run.
    DescendantWaits,
}

/// A command for a run, and the channel for its answer.
pub(in crate::engine) struct CommandRequest {
    pub command: ControlCommand,
    pub by: String,
    pub reply: oneshot::Sender<CommandReply>,
}

/// The answer to a command.
#[derive(Debug)]
pub(in crate::engine) enum CommandReply {
    /// The command was carried out, and its events are durable.
    Done(Box<RunSummary>),
    Error(CommandError),
    /// Another process executes the run.
    Elsewhere,
    /// The task ended before it handled the command: send it again.
    Retry,
}

/// The mailboxes of all runs that have a task in this process.
#[derive(Default)]
pub(in crate::engine) struct Mailboxes(Mutex<HashMap<RunId, Mailbox>>);

struct Mailbox {
    messages: mpsc::Sender<Message>,
    changes: Arc<ChangeNotice>,
    released: CancellationToken,
}

/// Notifies a run's task that something outside the run may have changed. Set under the lock of [`Mailboxes`], so that
/// a task that closes its mailbox under the same lock either sees the change or is woken by it.
#[derive(Default)]
struct ChangeNotice {
    is_set: AtomicBool,
    /// The newest fencing token under which this process acquired the run again while a task holds its slot; 0 means
    /// none.
    reacquired: AtomicU64,
    notify: Notify,
}

/// The result of sending a message.
pub(in crate::engine) enum SendOutcome {
    Delivered,
    /// No task holds the run's slot here.
    NoSlot(Message),
    /// The task has closed its mailbox: send again when its slot is released.
    Closing(Message, CancellationToken),
    /// The mailbox is full.
    Full(Message, mpsc::Sender<Message>),
}

/// The right to execute a run in this process, with its mailbox. Dropping it releases the right.
pub(in crate::engine) struct ExecutionSlot {
    mailboxes: Arc<Mailboxes>,
    timers: Arc<Timers>,
    run: RunId,
    messages: mpsc::Receiver<Message>,
    changes: Arc<ChangeNotice>,
    released: CancellationToken,
}

impl Mailboxes {
    fn entries(&self) -> MutexGuard<'_, HashMap<RunId, Mailbox>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Claims the run's slot; `None` where a task holds it.
    pub fn claim_slot(self: &Arc<Self>, timers: &Arc<Timers>, run: RunId) -> Option<ExecutionSlot> {
        let mut entries = self.entries();
        if entries.contains_key(&run) {
            return None;
        }
        let (sender, messages) = mpsc::channel(MESSAGES_MAX);
        let (changes, released) = (Arc::new(ChangeNotice::default()), CancellationToken::new());
        entries.insert(run, Mailbox { messages: sender, changes: changes.clone(), released: released.clone() });
        Some(ExecutionSlot { mailboxes: self.clone(), timers: timers.clone(), run, messages, changes, released })
    }
    /// Claims the run's slot; waits while a task holds it.
    pub async fn claim_free_slot(self: &Arc<Self>, timers: &Arc<Timers>, run: RunId) -> ExecutionSlot {
        loop {
            if let Some(slot) = self.claim_slot(timers, run) {
                return slot;
            }
            let released = self.entries().get(&run).map(|entry| entry.released.clone());
            if let Some(released) = released {
                released.cancelled().await;
            }
        }
    }
    /// Puts a message into the run's mailbox, without waiting.
    pub fn send(&self, run: RunId, message: Message) -> SendOutcome {
        let entries = self.entries();
        let Some(entry) = entries.get(&run) else { return SendOutcome::NoSlot(message) };
        match entry.messages.try_send(message) {
            Ok(()) => SendOutcome::Delivered,
            Err(mpsc::error::TrySendError::Full(message)) => SendOutcome::Full(message, entry.messages.clone()),
            Err(mpsc::error::TrySendError::Closed(message)) => SendOutcome::Closing(message, entry.released.clone()),
        }
    }
    /// Notifies the run's task that something outside the run may have changed; false where it has no task here.
    pub fn notify(&self, run: RunId) -> bool {
        match self.entries().get(&run) {
            Some(entry) => {
                entry.changes.is_set.store(true, Ordering::Release);
                entry.changes.notify.notify_one();
                true
            }
            None => false,
        }
    }
    /// Notifies the run's task that this process acquired the run again under this fencing token: a task with an older
    /// token lost the run in between, and does not know that before its next append. False where the run has no task
    /// here.
    pub fn notify_reacquired(&self, run: RunId, fence: Fence) -> bool {
        match self.entries().get(&run) {
            Some(entry) => {
                entry.changes.reacquired.fetch_max(fence.0, Ordering::AcqRel);
                entry.changes.is_set.store(true, Ordering::Release);
                entry.changes.notify.notify_one();
                true
            }
            None => false,
        }
    }
    /// Whether the run has a task here.
    pub fn has_task(&self, run: RunId) -> bool {
        self.entries().contains_key(&run)
    }
}

impl ExecutionSlot {
    /// The next message; `None` means that something outside the run may have changed.
    pub async fn next(&mut self) -> Option<Message> {
        loop {
            if self.changes.is_set.swap(false, Ordering::AcqRel) {
                return None;
            }
            tokio::select! {
                Some(message) = self.messages.recv() => return Some(message),
                () = self.changes.notify.notified() => {}
            }
        }
    }
    /// Closes the mailbox. Returns false, and leaves it open, if it holds a message or something outside the run may
    /// have changed.
    pub fn close(&mut self) -> bool {
        let _entries = self.mailboxes.entries();
        if self.changes.is_set.load(Ordering::Acquire) || !self.messages.is_empty() {
            return false;
        }
        self.messages.close();
        true
    }
    /// The newest fencing token under which this process acquired the run again since this slot was claimed.
    pub fn reacquired(&self) -> Option<Fence> {
        Some(self.changes.reacquired.load(Ordering::Acquire)).filter(|fence| *fence > 0).map(Fence)
    }
    pub fn run(&self) -> RunId {
        self.run
    }
    /// Closes the mailbox and takes every command out of it. Other messages are dropped: a run that cannot be read has
    /// no use for them.
    pub fn take_commands(&mut self) -> Vec<CommandRequest> {
        let command = |message| match message {
            Message::Command(request) => Some(*request),
            Message::ChildEnded(_) | Message::DescendantWaits => None,
        };
        self.drain().into_iter().filter_map(command).collect()
    }
    /// Closes the mailbox and answers every command in it. Returns whether it held the end of a child: then the child's
    /// end has to be read from the store.
    pub fn reject_all(&mut self, mut reply: impl FnMut() -> CommandReply) -> bool {
        let mut held_child_end = false;
        for message in self.drain() {
            match message {
                Message::Command(request) => drop(request.reply.send(reply())), // the sender may have stopped waiting
                Message::ChildEnded(_) => held_child_end = true,
                Message::DescendantWaits => {}
            }
        }
        held_child_end
    }
    /// Closes and empties the mailbox under the lock that senders hold, so that no message is put into it afterwards
    /// and lost.
    fn drain(&mut self) -> Vec<Message> {
        let _entries = self.mailboxes.entries();
        self.messages.close();
        std::iter::from_fn(|| self.messages.try_recv().ok()).collect()
    }
}

impl Drop for ExecutionSlot {
    fn drop(&mut self) {
        let held_child_end = self.reject_all(|| CommandReply::Retry);
        self.mailboxes.entries().remove(&self.run);
        self.released.cancel();
        if held_child_end || self.changes.is_set.load(Ordering::Acquire) {
            self.timers.wake_now(self.run);
        }
    }
}
