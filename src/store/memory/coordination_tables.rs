//! Commands to runs, the queues of locks, and messages to webhooks.
//!
//! Always true: positions and numbers are ascending and never reused; the first answer to a command is kept.

use std::collections::HashMap;

use jiff::Timestamp;
use serde_json::Value;
use uuid::Uuid;

use crate::names::RunId;
use crate::store::{CommandRecord, LockChange, LockRow, RunCursor, StoreNotification, WebhookMessage, run_has_ended};

#[derive(Default)]
pub(super) struct CoordinationTables {
    /// Oldest first; the map has the index of each.
    commands: Vec<CommandRecord>,
    command_indexes: HashMap<Uuid, usize>,
    /// In the order of positions.
    locks: Vec<LockRow>,
    last_position: u64,
    webhook_messages: Vec<WebhookMessage>,
    last_message: u64,
    /// For each run the number of its last append, in the order of appends of all runs.
    changes: HashMap<RunId, i64>,
    last_change: i64,
}

impl CoordinationTables {
    pub(super) fn change_locks(
        &mut self,
        run: RunId,
        changes: Vec<LockChange>,
        since: Timestamp,
        notifications: &mut Vec<StoreNotification>,
    ) {
        for change in changes {
            match change {
                LockChange::Queue { name, step, item } => {
                    let is_queued =
                        |row: &LockRow| row.run == run && row.name == name && row.step == step && row.item == item;
                    if !self.locks.iter().any(is_queued) {
                        self.last_position += 1;
                        let position = self.last_position;
                        self.locks.push(LockRow { name, position, run, step, item, since });
                    }
                }
                LockChange::Leave { name, step, item } => {
                    self.locks
                        .retain(|row| !(row.run == run && row.name == name && row.step == step && row.item == item));
                    notifications.push(StoreNotification::Lock(name));
                }
            }
        }
    }

    pub(super) fn locks(&self, names: Option<&[String]>, limit: usize) -> Vec<LockRow> {
        let asked = self.locks.iter().filter(|row| names.is_none_or(|names| names.contains(&row.name)));
        asked.take(limit).cloned().collect()
    }

    pub(super) fn add_webhook_messages(
        &mut self,
        webhook_messages: Vec<WebhookMessage>,
        notifications: &mut Vec<StoreNotification>,
    ) {
        for message in webhook_messages {
            self.last_message += 1;
            self.webhook_messages.push(WebhookMessage { number: self.last_message, ..message });
            notifications.push(StoreNotification::WebhookMessage);
        }
    }

    pub(super) fn webhook_messages(&self, after: u64, limit: usize) -> Vec<WebhookMessage> {
        self.webhook_messages.iter().filter(|message| message.number > after).take(limit).cloned().collect()
    }

    pub(super) fn remove_webhook_message(&mut self, number: u64) {
        self.webhook_messages.retain(|message| message.number != number);
    }

    /// `refused` is the answer if the run cannot carry the command out.
    pub(super) fn put_command(
        &mut self,
        command: CommandRecord,
        refused: Option<Value>,
        notifications: &mut Vec<StoreNotification>,
    ) {
        if self.command_indexes.contains_key(&command.id) {
            return;
        }
        notifications.push(match &refused {
            Some(_) => StoreNotification::Command(command.id),
            None => StoreNotification::Run(command.run),
        });
        self.command_indexes.insert(command.id, self.commands.len());
        self.commands.push(CommandRecord { answer: refused, ..command });
    }

    pub(super) fn commands(&self, run: RunId) -> Vec<CommandRecord> {
        self.commands.iter().filter(|command| command.run == run && command.answer.is_none()).cloned().collect()
    }

    pub(super) fn command(&self, id: Uuid) -> Option<CommandRecord> {
        self.command_indexes.get(&id).map(|index| self.commands[*index].clone())
    }

    pub(super) fn has_open_command(&self, run: RunId) -> bool {
        self.commands.iter().any(|command| command.run == run && command.answer.is_none())
    }

    pub(super) fn answer_command(&mut self, id: Uuid, answer: Value, notifications: &mut Vec<StoreNotification>) {
        let command = self.command_indexes.get(&id).map(|index| &mut self.commands[*index]);
        if let Some(command) = command.filter(|command| command.answer.is_none()) {
            command.answer = Some(answer);
            notifications.push(StoreNotification::Command(id));
        }
    }

    /// Frees the locks of a run that ended, and answers the commands to it.
    pub(super) fn end_run(&mut self, run: RunId, notifications: &mut Vec<StoreNotification>) {
        let freed = self.locks.extract_if(.., |row| row.run == run);
        notifications.extend(freed.map(|row| StoreNotification::Lock(row.name)));
        for command in self.commands.iter_mut().filter(|command| command.run == run && command.answer.is_none()) {
            command.answer = Some(run_has_ended());
            notifications.push(StoreNotification::Command(command.id));
        }
    }

    /// Removes the commands of a purged run.
    pub(super) fn run_changed(&mut self, run: RunId) {
        self.last_change += 1;
        self.changes.insert(run, self.last_change);
    }

    /// At most `limit` runs that have changed since the cursor, the last ones first, and the cursor after them.
    pub(super) fn changed_runs(&self, since: Option<RunCursor>, limit: usize) -> (Vec<RunId>, RunCursor) {
        let since = since.map_or(i64::MAX, |RunCursor(number)| number);
        let mut changed: Vec<(i64, RunId)> = Vec::new();
        if since < self.last_change {
            let later = self.changes.iter().filter(|(_, number)| **number > since);
            changed.extend(later.map(|(run, number)| (*number, *run)));
            changed.sort_unstable_by_key(|(number, _)| std::cmp::Reverse(*number));
            changed.truncate(limit);
        }
        (changed.into_iter().map(|(_, run)| run).collect(), RunCursor(self.last_change))
    }

    pub(super) fn purge_run(&mut self, run: RunId) {
        self.changes.remove(&run);
        self.commands.retain(|command| command.run != run);
        self.command_indexes = self.commands.iter().enumerate().map(|(index, command)| (command.id, index)).collect();
    }
}
