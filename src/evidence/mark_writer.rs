//! The thread that writes the files of evidence marks.
//!
//! Always true: writes happen in the order in which they were requested, so that a route that is marked again after its
//! mark was cleared is marked in the file in the end; no lock is held during a write.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use super::mark_file::MarkFile;
use super::marks_state::{MarkSlots, MarksState};
use crate::slot_file::SlotRoute;

/// How long a thread waits for a mark to be written: long enough for a busy disk, short enough for a thread that other
/// requests wait for.
pub(super) const MARK_WAIT_MAX: Duration = Duration::from_millis(250);

enum MarkCommand {
    /// Marks a route, and then sends what is marked: the route, or every route; `None` if the write failed.
    Mark(SlotRoute, SyncSender<Option<SlotRoute>>),
    /// Clears slots, and sends a message when this is done.
    Clear(Vec<(SlotRoute, MarkSlots)>, oneshot::Sender<()>),
    /// Unlocks the files, and sends a message when this is done.
    Release(oneshot::Sender<()>),
    /// Waits until the sender is dropped.
    #[cfg(test)]
    Hang(Receiver<()>),
}

/// The handle of the thread that writes the files of marks; see the module.
pub(super) struct MarkWriter {
    /// The channel of commands; `None` once the thread is to end.
    commands: Option<Sender<MarkCommand>>,
    /// Disconnected when the thread has ended.
    ended: Mutex<Receiver<()>>,
}

struct MarkFiles {
    /// The first file is this process's own; the others are of processes that have ended.
    files: Vec<MarkFile>,
    state: Arc<Mutex<MarksState>>,
}

impl MarkWriter {
    /// Starts the thread; `None` if this fails, in which case nothing is marked.
    pub fn start(files: Vec<MarkFile>, state: Arc<Mutex<MarksState>>) -> Option<Self> {
        let (commands, received) = channel();
        let (end, ended) = channel();
        let mut files = MarkFiles { files, state };
        let write_until_ended = move || {
            for command in received {
                files.perform(command);
            }
            drop(files); // unlocks them
            drop(end);
        };
        match std::thread::Builder::new().name("evidence-marks".into()).spawn(write_until_ended) {
            Ok(_) => Some(Self { commands: Some(commands), ended: Mutex::new(ended) }),
            Err(error) => {
                tracing::error!(
                    %error,
                    "the thread that writes the file of evidence marks could not be started: differences are counted \
                     without marks, and if this process is killed, the next one may miss the last ones; restart to have \
                     marks"
                );
                None
            }
        }
    }

    /// Makes the thread hang as during a write, until the result is dropped.
    #[cfg(test)]
    pub fn hold(&self) -> SyncSender<()> {
        let (end, ended) = sync_channel(0);
        self.commands.as_ref().map(|commands| commands.send(MarkCommand::Hang(ended)));
        end
    }

    /// Requests a mark.
    pub fn mark(&self, state: &mut MarksState, route: SlotRoute) -> Receiver<Option<SlotRoute>> {
        let (reply, reply_receiver) = sync_channel(1);
        self.send(state, MarkCommand::Mark(route, reply));
        reply_receiver
    }

    /// Requests that slots are cleared.
    pub fn clear(&self, state: &mut MarksState, slots: Vec<(SlotRoute, MarkSlots)>) -> oneshot::Receiver<()> {
        let (reply, reply_receiver) = oneshot::channel();
        self.send(state, MarkCommand::Clear(slots, reply));
        reply_receiver
    }

    /// Requests that the files are unlocked.
    pub fn release(&self, state: &mut MarksState) -> oneshot::Receiver<()> {
        let (reply, reply_receiver) = oneshot::channel();
        self.send(state, MarkCommand::Release(reply));
        reply_receiver
    }

    fn send(&self, state: &mut MarksState, command: MarkCommand) {
        if self.commands.as_ref().is_some_and(|commands| commands.send(command).is_ok()) {
            state.outstanding += 1;
        }
    }
}

impl Drop for MarkWriter {
    /// Waits until the files are unlocked, unless the disk hangs.
    fn drop(&mut self) {
        self.commands = None;
        let ended = self.ended.get_mut().unwrap_or_else(PoisonError::into_inner);
        if ended.recv_timeout(MARK_WAIT_MAX) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!("the thread that writes the file of evidence marks does not end: the disk may hang");
        }
    }
}

impl MarkFiles {
    fn state(&self) -> MutexGuard<'_, MarksState> {
        // A poisoned lock is usable: at worst there is a superfluous mark.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn perform(&mut self, command: MarkCommand) {
        match command {
            MarkCommand::Mark(route, reply) => {
                let marked = self.mark(route);
                self.state().record_write_end();
                let _nobody_waits = reply.send(marked);
            }
            MarkCommand::Clear(slots, reply) => {
                for (route, slots) in slots {
                    self.clear(route, slots);
                }
                self.state().record_write_end();
                let _nobody_waits = reply.send(());
            }
            MarkCommand::Release(reply) => {
                self.files.clear();
                self.state().record_write_end();
                let _nobody_waits = reply.send(());
            }
            #[cfg(test)]
            MarkCommand::Hang(until) => drop(until.recv()),
        }
    }

    fn mark(&mut self, route: SlotRoute) -> Option<SlotRoute> {
        if self.state().is_marked(route) {
            return Some(route);
        }
        match self.files.first_mut()?.write(route) {
            Ok((marked, slot)) => {
                let mut state = self.state();
                state.add(marked, vec![(0, slot)]);
                state.record_success();
                Some(marked)
            }
            Err(error) => {
                self.state().log_failure(&error.to_string());
                None
            }
        }
    }

    fn clear(&mut self, route: SlotRoute, mut slots: MarkSlots) {
        let files = &mut self.files;
        // A mark that cannot be cleared stays, and is cleared after the next flush. If the process ends before the next
        // flush, the route's evidence is restarted although nothing was lost.
        slots.retain(|(file, slot)| files.get_mut(*file).is_some_and(|file| file.clear(*slot).is_err()));
        if !slots.is_empty() {
            self.state().add(route, slots);
        }
    }
}
