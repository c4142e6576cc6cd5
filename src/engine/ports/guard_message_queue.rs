//! The queue of messages to webhooks about what the guards of routes did. They are about no run and not in the store.
//!
//! Always true: whoever posts a message never waits; the queue is bounded by [`QUEUED_MAX`], and a message that is
//! dropped is logged and counted. `webhooks::guard_messages` sends them.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use serde_json::Value;
use tokio::sync::Notify;
use uuid::Uuid;

use crate::names::{RunId, ServiceName};
use crate::store::WebhookMessage;

/// How many messages wait until the task that sends them takes them.
const QUEUED_MAX: usize = 1_000;

/// A message to a webhook about what a guard did.
#[derive(Clone, Debug, PartialEq)]
pub struct GuardMessage {
    /// `notify:` as it is written: messages to one destination are sent in order.
    pub destination: String,
    /// The service that receives it.
    pub service: ServiceName,
    /// The path and query after the service's base URL.
    pub path: String,
    /// The content, with an `id` by which the receiver recognises a repeated message. It holds no secret.
    pub body: Value,
}

/// The messages that the task has not taken yet.
#[derive(Default)]
pub(in crate::engine) struct GuardMessages {
    queued: Mutex<VecDeque<WebhookMessage>>,
    numbers: AtomicU64,
    added: Notify,
}

impl GuardMessages {
    /// Adds a message; the oldest is dropped if too many wait.
    pub(in crate::engine) fn post(&self, message: GuardMessage, at: jiff::Timestamp) {
        let GuardMessage { destination, service, path, body } = message;
        let number = self.numbers.fetch_add(1, Ordering::Relaxed) + 1;
        let (run, service) = (RunId(Uuid::nil()), Some(service));
        let url = String::new();
        let message = WebhookMessage { number, run, destination, service, by: None, path: Some(path), url, body, at };
        let mut queued = self.queued();
        queued.push_back(message);
        let dropped = if queued.len() > QUEUED_MAX { queued.pop_front() } else { None };
        drop(queued);
        dropped.into_iter().for_each(|dropped| log_end(&dropped, "dropped"));
        self.added.notify_one();
    }

    /// Takes all messages.
    pub(in crate::engine) fn take(&self) -> VecDeque<WebhookMessage> {
        std::mem::take(&mut *self.queued())
    }

    /// Waits until a message is added.
    pub(in crate::engine) async fn added(&self) {
        self.added.notified().await;
    }

    fn queued(&self) -> std::sync::MutexGuard<'_, VecDeque<WebhookMessage>> {
        // A poisoned lock is usable: a message is added or taken in one step.
        self.queued.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Logs and counts a message that is not sent: it was `dropped`, because too many waited, or `given_up`, because it was
/// refused or became too old.
pub(in crate::engine) fn log_end(message: &WebhookMessage, outcome: &'static str) {
    let service = message.service.as_ref().map(ToString::to_string).unwrap_or_default();
    let id = message.body.get("id").and_then(Value::as_str);
    tracing::error!(id, service, outcome, "a message to a webhook about a guard is not sent");
    metrics::counter!("pointsman_notices_total", "service" => service, "outcome" => outcome).increment(1);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_queue_is_bounded_and_drops_the_oldest() {
        let messages = GuardMessages::default();
        for n in 0..QUEUED_MAX + 3 {
            let (destination, path) = ("${services.ops}/hooks".to_owned(), "/hooks".to_owned());
            let message =
                GuardMessage { destination, service: ServiceName::new("ops"), path, body: json!({ "id": n }) };
            messages.post(message, jiff::Timestamp::UNIX_EPOCH);
        }
        let queued = messages.take();
        let ids: Vec<u64> = queued.iter().filter_map(|message| message.body["id"].as_u64()).collect();
        assert_eq!((ids.len(), ids[0], messages.take().len()), (QUEUED_MAX, 3, 0));
        assert!(queued.iter().zip(queued.iter().skip(1)).all(|(one, next)| one.number < next.number));
    }
}
