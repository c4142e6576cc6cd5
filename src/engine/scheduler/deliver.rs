//! Brings a message to a run: to its driver, or to one that is begun for it.

use std::sync::Arc;

use crate::engine::context::Core;
use crate::engine::scheduler::mailbox::{Message, Sent};
use crate::names::RunId;

/// Why a message was not posted.
#[derive(Debug)]
pub(in crate::engine) enum Undelivered {
    /// The process begins nothing more.
    Draining,
}

impl Core {
    /// Brings a message to a run: to its task, or to one that is begun for it.
    pub(in crate::engine) async fn deliver(
        self: &Arc<Self>,
        run: RunId,
        mut message: Message,
    ) -> Result<(), Undelivered> {
        loop {
            message = match self.schedule.mailboxes.send(run, message) {
                Sent::Taken => return Ok(()),
                Sent::Closing(message, gone) => {
                    gone.cancelled().await;
                    message
                }
                Sent::Full(message, sender) => match sender.send(message).await {
                    Ok(()) => return Ok(()),
                    Err(refused) => {
                        tokio::task::yield_now().await;
                        refused.0
                    }
                },
                Sent::NoSlot(message) if *self.process.draining.borrow() => {
                    drop(message);
                    return Err(Undelivered::Draining);
                }
                Sent::NoSlot(message) => {
                    if let Some(slot) = self.schedule.mailboxes.claim_slot(&self.schedule.timers, run) {
                        // Where there is no room, a person does not wait for it.
                        let permit = self.schedule.woken.clone().try_acquire_owned().ok();
                        self.run_tasks.open(self.clone(), slot, None, permit);
                    }
                    message
                }
            };
        }
    }
}
