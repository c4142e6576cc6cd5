//! Sends notifications of changes in the store to receivers in this process.
//!
//! Always true: notifications of this process's own writes are sent directly; those of other processes come over one
//! connection with `LISTEN`. Some are lost while that connection is down: receivers also poll.
//!
//! When the database does not answer, the connection is dropped and opened again, with back-off.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use sqlx::postgres::{PgListener, PgPoolOptions};
use sqlx::{Executor, SqlSafeStr};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::address::Address;
use crate::names::RunId;
use crate::store::StoreNotification;
use crate::store::coordination::NOTIFICATIONS_MAX;

const CHANNEL: &str = "pointsman";
/// A connection without a notification for this long is pinged.
const PING_AFTER: Duration = Duration::from_secs(20);
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Sends notifications; clones share the receivers.
#[derive(Clone)]
pub(super) struct Notifier {
    /// Identifies this store in messages on the channel; a store ignores its own messages.
    pub(super) origin: Arc<str>,
    sender: broadcast::Sender<StoreNotification>,
}

/// A message on the channel.
#[derive(Deserialize)]
struct ChannelMessage {
    from: String,
    #[serde(rename = "news")]
    notifications: Vec<String>,
}

impl Notifier {
    pub(super) fn new() -> Self {
        let origin = Uuid::from_u128(fastrand::u128(..)).simple().to_string().into();
        Self { origin, sender: broadcast::channel(NOTIFICATIONS_MAX).0 }
    }

    pub(super) fn subscribe(&self) -> broadcast::Receiver<StoreNotification> {
        self.sender.subscribe()
    }

    /// Sends the notifications that a statement of this process returned.
    pub(super) fn publish(&self, notifications: &[String]) {
        self.send(notifications, true);
    }

    fn send(&self, notifications: &[String], by_this_process: bool) {
        for notification in notifications.iter().filter_map(|text| parse(text, by_this_process)) {
            // There may be no receiver.
            let _ = self.sender.send(notification);
        }
    }

    /// Receives the notifications of other processes until `stop`.
    pub(super) async fn listen(self, address: Address, stop: CancellationToken) {
        let mut pause = PAUSE_MIN;
        loop {
            let ended = async {
                let mut is_listening = false;
                let error = self.listen_once(&address, &mut is_listening).await;
                (is_listening, error)
            };
            let (is_listening, error) = tokio::select! {
                () = stop.cancelled() => return,
                ended = ended => ended,
            };
            if is_listening {
                pause = PAUSE_MIN;
            }
            tracing::debug!(%error, "the connection for notifications of other processes was lost; it is opened again");
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64())) => {}
            }
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Receives on one connection; returns why it ended.
    async fn listen_once(&self, address: &Address, is_listening: &mut bool) -> sqlx::Error {
        let pool = PgPoolOptions::new().max_connections(1).acquire_timeout(address.connect).max_lifetime(None);
        let pool = pool.idle_timeout(None).connect_lazy_with(address.options.clone());
        let listening = address.within(async {
            let mut listener = PgListener::connect_with(&pool).await?;
            listener.eager_reconnect(false);
            listener.listen(CHANNEL).await?;
            Ok(listener)
        });
        let mut listener = match listening.await {
            Ok(listener) => listener,
            Err(error) => return error,
        };
        *is_listening = true;
        loop {
            match tokio::time::timeout(PING_AFTER, listener.try_recv()).await {
                Ok(Ok(Some(message))) => self.forward(message.payload()),
                Ok(Ok(None)) => return sqlx::Error::Io(std::io::ErrorKind::ConnectionReset.into()),
                Ok(Err(error)) => return error,
                Err(_) => {
                    if let Err(error) = address.within(listener.execute("SELECT 1".into_sql_str())).await {
                        return error;
                    }
                }
            }
        }
    }

    fn forward(&self, payload: &str) {
        match serde_json::from_str::<ChannelMessage>(payload) {
            Ok(message) if message.from == *self.origin => {}
            Ok(message) => self.send(&message.notifications, false),
            Err(error) => tracing::debug!(%error, "a notification cannot be parsed; it is ignored"),
        }
    }
}

fn parse(text: &str, by_this_process: bool) -> Option<StoreNotification> {
    let (kind, of) = text.split_once(':').unwrap_or((text, ""));
    let id = || Uuid::try_parse(of).ok();
    match kind {
        "run" => id().map(|id| StoreNotification::Run(RunId(id))),
        "ended" => id().map(|id| StoreNotification::Ended { run: RunId(id), by_this_process }),
        "order" => id().map(StoreNotification::Command),
        "lock" => unhex(of).map(StoreNotification::Lock),
        "notice" => Some(StoreNotification::WebhookMessage),
        "birth" => Some(StoreNotification::PendingRun),
        "process" => Some(StoreNotification::Process),
        _ => None,
    }
}

/// Decodes the name of a lock, which is sent as hex digits.
fn unhex(digits: &str) -> Option<String> {
    let (pairs, []) = digits.as_bytes().as_chunks::<2>() else { return None };
    let bytes = pairs.iter().map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
    String::from_utf8(bytes.collect::<Option<Vec<u8>>>()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notifications_of_the_database_are_parsed() {
        assert_eq!(parse("lock:736b753ac3a9", true), Some(StoreNotification::Lock("sku:é".into())));
        assert_eq!(parse("notice", true), Some(StoreNotification::WebhookMessage));
        assert_eq!(parse("process", true), Some(StoreNotification::Process));
        let id = Uuid::from_u128(7);
        assert_eq!(parse(&format!("run:{}", id.simple()), true), Some(StoreNotification::Run(RunId(id))));
        for by_this_process in [true, false] {
            let ended = StoreNotification::Ended { run: RunId(id), by_this_process };
            assert_eq!(parse(&format!("ended:{}", id.simple()), by_this_process), Some(ended));
        }
        for odd in ["", "run:", "lock:7", "lock:zz", "lock:ff", "later:1"] {
            assert_eq!(parse(odd, true), None, "{odd}");
        }
    }
}
