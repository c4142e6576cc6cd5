//! Requests to read the files now, and their answers.
//!
//! Always true: a request gets the outcome of the first reading that begins after it, or none if the files are no
//! longer watched because the process stops. Requests whose caller has gone are dropped when the next request is
//! made, so that no more of them wait than the API has connections.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use tokio::sync::oneshot;

use crate::admin::Reloaded;
use crate::config::ReloadTrigger;

/// The requests that wait for a reading.
pub(super) struct ReloadRequests {
    trigger: ReloadTrigger,
    /// The requests, by the number of the reading that was asked for; `None` once the files are no longer watched.
    waiting: Mutex<Option<BTreeMap<u64, oneshot::Sender<Reloaded>>>>,
}

impl ReloadRequests {
    pub(super) fn new(trigger: ReloadTrigger) -> Self {
        Self { trigger, waiting: Mutex::new(Some(BTreeMap::new())) }
    }

    /// Requests that the files are read, and returns a receiver for the outcome.
    pub(super) fn ask(&self) -> oneshot::Receiver<Reloaded> {
        let (answer, outcome) = oneshot::channel();
        // Held while the number is assigned: the outcome must not come before the request is listed.
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(waiting) = &mut *waiting {
            waiting.retain(|_, waiting| !waiting.is_closed());
            waiting.insert(self.trigger.force(), answer);
        }
        outcome
    }

    /// Sends the outcome to every request that was made before the files were read.
    pub(super) fn answer(&self, asked: u64, outcome: &Reloaded) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(waiting) = &mut *waiting else { return };
        let later = waiting.split_off(&(asked + 1));
        for answer in std::mem::replace(waiting, later).into_values() {
            let _ = answer.send(outcome.clone()); // the caller may have gone
        }
    }

    /// Closes all requests, because the files are no longer watched; later requests get no answer.
    pub(super) fn close(&self) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}
