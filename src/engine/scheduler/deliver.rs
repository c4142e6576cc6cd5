//! Delivers a message to a run.

use std::sync::Arc;

use crate::engine::context::Core;
use crate::engine::scheduler::mailbox::{Message, SendOutcome};
use crate::names::RunId;

/// Why a message was not delivered.
#[derive(Debug)]
pub(in crate::engine) enum Undelivered {
    /// The run has no task, and a draining process starts none.
    Draining,
}

impl Core {
    /// Puts a message into the mailbox of the run's task; starts a task where the run has none. Waits while the mailbox
    /// is full.
    pub(in crate::engine) async fn deliver(
        self: &Arc<Self>,
        run: RunId,
        mut message: Message,
    ) -> Result<(), Undelivered> {
        loop {
            message = match self.schedule.mailboxes.send(run, message) {
                SendOutcome::Delivered => return Ok(()),
                SendOutcome::Closing(message, released) => {
                    released.cancelled().await;
                    message
                }
                SendOutcome::Full(message, sender) => match sender.send(message).await {
                    Ok(()) => return Ok(()),
                    Err(refused) => {
                        tokio::task::yield_now().await;
                        refused.0
                    }
                },
                SendOutcome::NoSlot(message) if *self.process.draining.borrow() => {
                    drop(message);
                    return Err(Undelivered::Draining);
                }
                SendOutcome::NoSlot(message) => {
                    if let Some(slot) = self.schedule.mailboxes.claim_slot(&self.schedule.timers, run) {
                        // A message does not wait for a permit: if none is free, the task starts without one.
                        let permit = self.schedule.wake_permits.clone().try_acquire_owned().ok();
                        self.run_tasks.start_run_task(self.clone(), slot, None, permit);
                    }
                    message
                }
            };
        }
    }
}
