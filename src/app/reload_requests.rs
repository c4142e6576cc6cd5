//! Requests to read the files now, and their answers.
//!
//! Always true: a request gets the outcome of the first reading that began after it was made, or none if the files are
//! no longer watched because the process stops. Requests whose caller has gone are dropped with the next one, so that
//! not more of them wait than the API has connections.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use tokio::sync::oneshot;

use crate::admin::Reloaded;
use crate::config::ReloadTrigger;

/// The requests that wait for their reading.
pub(super) struct ReloadRequests {
    trigger: ReloadTrigger,
    /// By the number of the reading that was asked for; `None` once the files are no longer watched.
    waiting: Mutex<Option<BTreeMap<u64, oneshot::Sender<Reloaded>>>>,
}

impl ReloadRequests {
    pub(super) fn new(trigger: ReloadTrigger) -> Self {
        Self { trigger, waiting: Mutex::new(Some(BTreeMap::new())) }
    }

    /// Has the files read, and returns where the outcome comes.
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

    /// Answers every request that was made before the files were read.
    pub(super) fn answer(&self, asked: u64, outcome: &Reloaded) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(waiting) = &mut *waiting else { return };
        let later = waiting.split_off(&(asked + 1));
        for answer in std::mem::replace(waiting, later).into_values() {
            let _ = answer.send(outcome.clone()); // the caller may have gone
        }
    }

    /// The files are no longer watched: no request is answered any more.
    pub(super) fn close(&self) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}
