//! What the store knows of files of retry keys: which may hold keys that it does not have.
//!
//! Always true: a change that the store did not take is tried again until it does; a file whose keys were taken over
//! stays locked until the store does not list it any more, so that nobody uses and lists it again in between.

use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use uuid::Uuid;

use super::key_file::KeyFile;
use crate::store::{KeyFileRecord, SharedStore};

/// See the module.
#[derive(Default)]
pub(super) struct KeyFileList {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    own: Option<Uuid>,
    /// Files whose keys are unknown.
    unread: Vec<KeyFileRecord>,
    changes: ListChanges,
}

/// What the store is to be told.
#[derive(Default)]
pub(super) struct ListChanges {
    pub put: Vec<KeyFileRecord>,
    pub remove: Vec<Uuid>,
    /// Files that were taken over.
    pub locked: Vec<KeyFile>,
}

impl KeyFileList {
    fn state(&self) -> MutexGuard<'_, State> {
        // A panic of another holder leaves a whole state.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This process's file is this one, the keys of those are unknown, and the store does not know that yet.
    pub(super) fn set(&self, own: Uuid, unread: Vec<KeyFileRecord>, changes: ListChanges) {
        *self.state() = State { own: Some(own), unread, changes };
    }

    /// This process's file holds nothing that the store does not have.
    pub(super) fn remove_own(&self) {
        let mut state = self.state();
        let own = state.own.take();
        state.changes.put.retain(|record| Some(record.id) != own);
        state.changes.remove.extend(own);
    }

    /// Tells the store what it does not know yet. Whether it knows all of it now.
    pub(super) async fn write(&self, store: &SharedStore) -> bool {
        let (put, remove) = {
            let changes = &self.state().changes;
            (changes.put.clone(), changes.remove.clone())
        };
        let told = match put.is_empty() && remove.is_empty() {
            true => Ok(()),
            false => store.put_key_files(put.clone(), remove.clone()).await,
        };
        if let Err(error) = told {
            tracing::warn!(%error, "the store does not know yet which files of retry keys are in use");
            return false;
        }
        let mut state = self.state();
        state.changes.put.retain(|record| !put.contains(record));
        state.changes.remove.retain(|id| !remove.contains(id));
        let is_done = state.changes.put.is_empty() && state.changes.remove.is_empty();
        if is_done {
            state.changes.locked.clear();
        }
        is_done
    }

    /// The files whose keys are unknown, each with the time when that was found.
    pub(super) fn unread(&self) -> Vec<(KeyFileRecord, Timestamp)> {
        let since = |record: &KeyFileRecord| Some((record.clone(), record.unread.as_ref()?.since));
        self.state().unread.iter().filter_map(since).collect()
    }
}
