//! The store's list of the files that may hold retry keys which the store does not have. A store of one process also
//! goes on listing a file when the store has all of its keys, and marks it so ([`KeyFileRecord::all_stored`]).
//!
//! Example: the store lists the file F1 of a process that was killed. The next process uses the file F2. It copies the
//! waiting keys of F1 to F2, so its changes of the list are: put F2, remove F1. The store does not answer. The list
//! still names F1 alone, and F1 stays locked ([`ListChanges::locked`]): a third process can neither use F1 nor take
//! over its keys. Once the store answers, the list names F2 alone, no changes are left, and F1 is unlocked.
//!
//! Always true: a change of the list that the store did not take is tried again until the store takes it. A file whose
//! keys were taken over stays locked until it is off the list, so that no other process uses and lists it in between.

use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use uuid::Uuid;

use super::key_file::KeyFile;
use crate::store::{KeyFileRecord, RepeatedFailures, StoreHandle};

/// The store's list, as this process last changed it, and the changes that the store has not taken yet.
#[derive(Default)]
pub(super) struct KeyFileList {
    state: Mutex<ListState>,
    logged_failures: RepeatedFailures,
}

#[derive(Default)]
struct ListState {
    own: Option<KeyFileRecord>,
    /// Files whose keys are unknown.
    unread: Vec<KeyFileRecord>,
    changes: ListChanges,
}

/// Changes of the list that the store has not taken yet.
#[derive(Default)]
pub(super) struct ListChanges {
    pub put: Vec<KeyFileRecord>,
    pub remove: Vec<Uuid>,
    /// Files that were taken over, locked until `remove` is written.
    pub locked: Vec<KeyFile>,
}

impl KeyFileList {
    fn state(&self) -> MutexGuard<'_, ListState> {
        // A poisoned lock is usable: no change can panic halfway.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets this process's file, the files whose keys are unknown, and the changes that the store is to take.
    pub(super) fn set(&self, own: KeyFileRecord, unread: Vec<KeyFileRecord>, changes: ListChanges) {
        *self.state() = ListState { own: Some(own), unread, changes };
    }

    /// The id of this process's file, as long as the store lists it.
    pub(super) fn own_id(&self) -> Option<Uuid> {
        self.state().own.as_ref().map(|own| own.id)
    }

    /// Records that the store has all keys of this process's file. A shared store takes the file off the list; a store
    /// of one process keeps the record, from which a copy of the store knows where the original was.
    pub(super) fn record_own_stored(&self, is_shared: bool) {
        let mut state = self.state();
        let Some(own) = state.own.take() else { return };
        state.changes.put.retain(|record| record.id != own.id);
        match is_shared {
            true => state.changes.remove.push(own.id),
            false => state.changes.put.push(KeyFileRecord { all_stored: true, ..own }),
        }
    }

    /// Writes the outstanding changes to the store. Returns whether none is left.
    pub(super) async fn write(&self, store: &StoreHandle) -> bool {
        let (put, remove) = {
            let changes = &self.state().changes;
            (changes.put.clone(), changes.remove.clone())
        };
        let written = match put.is_empty() && remove.is_empty() {
            true => Ok(()),
            false => store.put_key_files(put.clone(), remove.clone()).await,
        };
        if let Err(error) = written {
            if let Some(unlogged) = self.logged_failures.count(&error.0) {
                tracing::warn!(%error, unlogged, "the store's list of files of retry keys was not updated; this is tried again");
            }
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
