//! Orders to runs, the queues of locks, and messages to webhooks.
//!
//! Always true: positions and numbers are ascending and never reused; the first answer to an order is kept.

use std::collections::HashMap;

use jiff::Timestamp;
use serde_json::Value;
use uuid::Uuid;

use crate::names::RunId;
use crate::store::{LockChange, LockRow, OrderRecord, StoreNotification, WebhookMessage, run_has_ended};

#[derive(Default)]
pub(super) struct CoordinationTables {
    /// Oldest first; the map has the index of each.
    orders: Vec<OrderRecord>,
    order_indexes: HashMap<Uuid, usize>,
    /// In the order of positions.
    locks: Vec<LockRow>,
    last_position: u64,
    webhook_messages: Vec<WebhookMessage>,
    last_message: u64,
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
                        let place = self.last_position;
                        self.locks.push(LockRow { name, place, run, step, item, since });
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

    /// `refused` is the answer if the run cannot carry the order out.
    pub(super) fn put_order(
        &mut self,
        order: OrderRecord,
        refused: Option<Value>,
        notifications: &mut Vec<StoreNotification>,
    ) {
        if self.order_indexes.contains_key(&order.id) {
            return;
        }
        notifications.push(match &refused {
            Some(_) => StoreNotification::Order(order.id),
            None => StoreNotification::Run(order.run),
        });
        self.order_indexes.insert(order.id, self.orders.len());
        self.orders.push(OrderRecord { answer: refused, ..order });
    }

    pub(super) fn orders(&self, run: RunId) -> Vec<OrderRecord> {
        self.orders.iter().filter(|order| order.run == run && order.answer.is_none()).cloned().collect()
    }

    pub(super) fn order(&self, id: Uuid) -> Option<OrderRecord> {
        self.order_indexes.get(&id).map(|index| self.orders[*index].clone())
    }

    pub(super) fn has_open_order(&self, run: RunId) -> bool {
        self.orders.iter().any(|order| order.run == run && order.answer.is_none())
    }

    pub(super) fn settle(&mut self, id: Uuid, answer: Value, notifications: &mut Vec<StoreNotification>) {
        let order = self.order_indexes.get(&id).map(|index| &mut self.orders[*index]);
        if let Some(order) = order.filter(|order| order.answer.is_none()) {
            order.answer = Some(answer);
            notifications.push(StoreNotification::Order(id));
        }
    }

    /// Frees the locks of a run that ended, and answers the orders to it.
    pub(super) fn end_run(&mut self, run: RunId, notifications: &mut Vec<StoreNotification>) {
        let freed = self.locks.extract_if(.., |row| row.run == run);
        notifications.extend(freed.map(|row| StoreNotification::Lock(row.name)));
        for order in self.orders.iter_mut().filter(|order| order.run == run && order.answer.is_none()) {
            order.answer = Some(run_has_ended());
            notifications.push(StoreNotification::Order(order.id));
        }
    }

    /// Removes the orders of a purged run.
    pub(super) fn purge_run(&mut self, run: RunId) {
        self.orders.retain(|order| order.run != run);
        self.order_indexes = self.orders.iter().enumerate().map(|(index, order)| (order.id, index)).collect();
    }
}
