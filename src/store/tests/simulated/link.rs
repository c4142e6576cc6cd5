//! The link between one simulated process and the store.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use super::unknown_result;
use crate::store::StoreError;

/// How long an operation takes that fails because the link is cut.
const CUT_AFTER: Duration = Duration::from_millis(400);

/// What a process and its link do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinkState {
    /// The process reaches the store.
    Up,
    /// The process runs, and does not reach the store.
    Cut,
    /// The process is stopped: nothing goes out and nothing comes in until it goes on. Its timers go on meanwhile.
    Stopped,
    /// The process was killed.
    Ended,
}

/// The link of one process.
pub(crate) struct Link(watch::Sender<LinkState>);

impl Link {
    /// The link of a process that reaches the store.
    pub(crate) fn up() -> Arc<Self> {
        Arc::new(Self(watch::Sender::new(LinkState::Up)))
    }
    /// A killed process stays so.
    pub(crate) fn set(&self, state: LinkState) {
        self.0.send_if_modified(|present| {
            let changes = *present != LinkState::Ended && *present != state;
            if changes {
                *present = state;
            }
            changes
        });
    }
    pub(crate) fn state(&self) -> LinkState {
        *self.0.borrow()
    }
    /// Waits until the process runs; for ever once it was killed.
    pub(crate) async fn wait_until_running(&self) {
        let mut state = self.0.subscribe();
        let _never_closed = state.wait_for(|state| matches!(state, LinkState::Up | LinkState::Cut)).await;
    }
    /// Waits until it is known whether a message passes.
    ///
    /// # Errors
    /// The link is cut.
    pub(crate) async fn passes(&self) -> Result<(), StoreError> {
        self.wait_until_running().await;
        if self.state() == LinkState::Cut {
            sleep(CUT_AFTER).await;
            self.wait_until_running().await;
            return Err(unknown_result());
        }
        Ok(())
    }
}
