//! Sends notifications of what the writer committed.
//!
//! Always true: a superfluous notification is harmless, and receivers poll for lost ones. The caches here keep a lock
//! or a command at most until its run ends, even if the lock is released or the command is answered before.

use std::collections::{HashMap, HashSet};

use rusqlite::Connection;
use tokio::sync::broadcast;
use uuid::Uuid;

use super::encoded::EncodedAppend;
use super::stored_state::run_id;
use crate::names::{RunId, WorkerId};
use crate::store::StoreNotification;
use crate::store::write_error::WriteError;

pub(super) struct Notifier {
    notifications: broadcast::Sender<StoreNotification>,
    /// The locks that a run may have queued for: its end frees them.
    locks: HashMap<RunId, HashSet<String>>,
    /// The unanswered commands to a run: its end answers them.
    commands: HashMap<RunId, HashSet<Uuid>>,
    /// The worker that called `acquire_due` last. All other workers are dead.
    last_worker: Option<WorkerId>,
    /// Whether other workers may own runs.
    has_other_owners: bool,
}

impl Notifier {
    pub(super) fn load(
        conn: &Connection,
        notifications: broadcast::Sender<StoreNotification>,
    ) -> Result<Self, WriteError> {
        let mut notifier = Self {
            notifications,
            locks: HashMap::new(),
            commands: HashMap::new(),
            last_worker: None,
            has_other_owners: true,
        };
        let mut locks = conn.prepare("SELECT DISTINCT run_id, name FROM locks")?;
        for row in locks.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))? {
            let (run, name): (Vec<u8>, String) = row?;
            notifier.locks.entry(run_id(run).unwrap_or(RunId(Uuid::nil()))).or_default().insert(name);
        }
        let mut commands = conn.prepare("SELECT run_id, id FROM orders WHERE answer IS NULL")?;
        for row in commands.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))? {
            let (run, id): (Vec<u8>, Vec<u8>) = row?;
            if let (Some(run), Ok(id)) = (run_id(run), Uuid::from_slice(&id)) {
                notifier.commands.entry(run).or_default().insert(id);
            }
        }
        Ok(notifier)
    }

    /// Updates the caches for an append that was committed, and sends its notifications.
    pub(super) fn append_committed(&mut self, append: &EncodedAppend, now_ns: i64) {
        self.has_other_owners |= append.run.owner.is_some_and(|owner| Some(owner) != self.last_worker);
        for update in append.locks.iter().filter(|update| update.is_enqueue) {
            self.locks.entry(append.run_id).or_default().insert(update.entry.name.clone());
        }
        for (id, _) in &append.answered_commands {
            self.command_answered(append.run_id, *id);
        }
        self.send(append.notifications(now_ns));
        if append.run.ended {
            let locks = self.locks.remove(&append.run_id).unwrap_or_default();
            self.send(locks.into_iter().map(StoreNotification::Lock));
            let commands = self.commands.remove(&append.run_id).unwrap_or_default();
            self.send(commands.into_iter().map(StoreNotification::Command));
        }
    }

    /// Caches a command to a run that has not ended.
    pub(super) fn command_added(&mut self, run: RunId, id: Uuid) {
        self.commands.entry(run).or_default().insert(id);
    }

    pub(super) fn command_answered(&mut self, run: RunId, id: Uuid) {
        if let Some(open) = self.commands.get_mut(&run) {
            open.remove(&id);
            if open.is_empty() {
                self.commands.remove(&run);
            }
        }
    }

    /// Whether workers other than this one may own runs.
    pub(super) fn may_have_other_owners(&self, worker: WorkerId) -> bool {
        self.has_other_owners || self.last_worker != Some(worker)
    }

    /// Records that this worker is now the only one that owns runs.
    pub(super) fn acquired_all_due(&mut self, worker: WorkerId) {
        self.last_worker = Some(worker);
        self.has_other_owners = false;
    }

    /// Records that this worker acquired a run.
    pub(super) fn acquired_run(&mut self, worker: WorkerId) {
        self.has_other_owners |= self.last_worker != Some(worker);
    }

    pub(super) fn send(&self, notifications: impl IntoIterator<Item = StoreNotification>) {
        for one in notifications {
            // There may be no receiver.
            let _ = self.notifications.send(one);
        }
    }
}
