//! Sends messages to webhooks. A message is recorded in the same append as the event that it reports.
//!
//! The question it answers: "are the people who have to decide notified?" Always true: a message is in the store before
//! it is sent. It is removed after it was delivered, given up or dropped: each of these is counted, and the last two
//! are logged. If the process ends before the removal, the message is sent again, and the receiver recognises it by
//! its `id`. A message contains no body and no secret. Each destination has a queue of its own ([`queues`]), in the
//! order in which messages were recorded. The store is read at the start and after a notification of a new message; a
//! store that several processes share is also read every `sweep_ms`. A message goes to one of the addresses that its
//! service has when it is sent (`receiver`); a reload that changes its URLs ends the pause after failures.
//!
//! When a receiver is slow or unreachable, its messages wait, within their bounds (`notices_waiting_max`,
//! `notice_age_s`, `notice_attempts_max`), and are sent in order when it answers again; messages to other receivers are
//! sent meanwhile. Where several processes share the store, the process that recorded a message sends it; the others
//! take it over if it stays in the store too long.

pub(in crate::engine) mod guard_messages;
mod queues;
mod receiver;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use jiff::SignedDuration;
use serde_json::json;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::task::JoinSet;
use tokio::time::Instant;

use self::queues::{DeliveryResult, QueueBounds, Queues};
use self::receiver::{Receiver, post};
use crate::engine::bounds::usize_of;
use crate::engine::context::Core;
use crate::engine::files_snapshot::FilesSnapshot;
use crate::engine::ports::connections::ConnectionPool;
use crate::engine::ports::service::ServiceLimits;
use crate::limits::Limits;
use crate::names::ServiceName;
use crate::store::{StoreError, StoreNotification, WebhookMessage};

/// How many messages are read at a time.
const PAGE_SIZE: usize = 100;
/// How many deliveries may be in flight at the same time.
const IN_FLIGHT_MAX: usize = 64;
/// The pause before a store that did not answer is read again.
const STORE_RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Sends recorded messages until the process ends.
pub(in crate::engine) async fn send(core: &Arc<Core>) {
    let mut notifications = core.ports.store.notifications();
    let mut notifier = WebhookSender::new(core.clone());
    let mut read_at = Some(Instant::now()); // messages that the last process left
    loop {
        notifier.start_due();
        notifier.update_gauges();
        let next = [notifier.queues.next_due(Instant::now()), read_at].into_iter().flatten().min();
        tokio::select! {
            () = new_message(&mut notifications) => read_at = notifier.read_new(read_at).await,
            () = core.ports.webhook_message_stored.notified() => read_at = notifier.read_new(read_at).await,
            Some(sent) = notifier.in_flight.join_next() => match sent {
                Ok((message, attempt)) => notifier.record_result(&message, &attempt).await,
                Err(error) => tracing::error!(%error, "the task of a delivery to a webhook failed"),
            },
            () = core.files.reloaded_for_webhooks.notified() => notifier.use_newest_files(),
            () = until(next) => if read_at.is_some_and(|at| at <= Instant::now()) {
                read_at = notifier.read_all().await;
            },
        }
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Waits for the notification of a new message.
async fn new_message(notifications: &mut broadcast::Receiver<StoreNotification>) {
    loop {
        match notifications.recv().await {
            Ok(StoreNotification::WebhookMessage) | Err(RecvError::Lagged(_)) => return,
            Ok(_) => {}
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

struct WebhookSender {
    core: Arc<Core>,
    connections: Arc<ConnectionPool>,
    queues: Queues,
    /// The number of the last message that was read.
    last_read: u64,
    in_flight: JoinSet<(Arc<WebhookMessage>, DeliveryResult)>,
    /// The files in force, with the addresses of services.
    files: Arc<FilesSnapshot>,
    /// Services whose gauge of waiting messages was set, to be set to zero when none is left.
    gauge_labels: BTreeSet<Option<ServiceName>>,
}

impl WebhookSender {
    fn new(core: Arc<Core>) -> Self {
        let connections = ConnectionPool::new(&core.files.limits);
        let bounds = bounds(&core);
        let files = core.files.snapshot.load_full();
        Self {
            core,
            files,
            connections,
            queues: Queues::new(bounds),
            last_read: 0,
            in_flight: JoinSet::new(),
            gauge_labels: BTreeSet::new(),
        }
    }

    /// Reads the messages after the last one that was read; returns when to read all messages again.
    async fn read_new(&mut self, read_at: Option<Instant>) -> Option<Instant> {
        match self.read().await {
            Ok(_) => read_at,
            Err(error) => read_failed(&error),
        }
    }

    /// Reads all messages, and removes from the queues those that other processes have sent; returns when to do so
    /// again.
    async fn read_all(&mut self) -> Option<Instant> {
        self.last_read = 0;
        match self.read().await {
            Ok(stored) => {
                self.queues.keep_only(&stored);
                // With several writers numbers do not become visible in order, and notifications may be lost.
                self.core.ports.store.is_shared().then(|| Instant::now() + Limits::ms(self.core.files.limits.sweep_ms))
            }
            Err(error) => read_failed(&error),
        }
    }

    /// Reads the messages after the last one into the queues; returns their numbers.
    async fn read(&mut self) -> Result<BTreeSet<u64>, StoreError> {
        let mut numbers = BTreeSet::new();
        loop {
            let page = self.core.ports.store.webhook_messages(self.last_read, PAGE_SIZE).await?;
            let full = page.len() == PAGE_SIZE;
            for message in page {
                self.last_read = self.last_read.max(message.number);
                numbers.insert(message.number);
                let not_before = self.not_before(&message);
                if let Some(dropped) = self.queues.add(message, not_before) {
                    tracing::error!(
                        run = %dropped.run, number = dropped.number, service = service(&dropped),
                        "a message to a webhook is dropped: too many wait for it (notices_waiting_max)"
                    );
                    remove(&self.core, &dropped, "dropped").await;
                }
            }
            if !full {
                return Ok(numbers);
            }
        }
    }

    /// When this process may send a message: one that another process recorded is left to that process for a while.
    fn not_before(&self, message: &WebhookMessage) -> Instant {
        let now = Instant::now();
        if !self.core.ports.store.is_shared() || message.by == Some(self.core.schedule.worker) {
            return now;
        }
        let grace = Limits::ms(self.core.files.limits.sweep_ms).saturating_mul(2);
        let age = Duration::try_from(self.core.process.clock.now().duration_since(message.at)).unwrap_or_default();
        now + grace.saturating_sub(age)
    }

    /// After a reload: messages to services that have moved are sent to their new URLs at once.
    fn use_newest_files(&mut self) {
        let before = std::mem::replace(&mut self.files, self.core.files.snapshot.load_full());
        let urls = |files: &FilesSnapshot, service: &ServiceName| {
            files.services.get(service).map(|service_limits| service_limits.urls().to_vec())
        };
        self.queues.retry_now(|service| urls(&before, service) != urls(&self.files, service));
    }

    fn start_due(&mut self) {
        for message in self.queues.start_due(Instant::now()) {
            let (core, connections) = (self.core.clone(), self.connections.clone());
            let service_limits = message.service.as_ref().and_then(|service| self.files.services.get(service));
            let receiver = receiver_of(&message, service_limits.map(|limits| &**limits), &core.files.limits);
            self.in_flight.spawn(async move {
                let attempt = match receiver {
                    Ok(receiver) => deliver(&connections, &message, &receiver).await,
                    Err(not_sent) => not_sent,
                };
                if attempt == DeliveryResult::Delivered {
                    remove(&core, &message, "sent").await;
                }
                (message, attempt)
            });
        }
    }

    async fn record_result(&mut self, message: &WebhookMessage, attempt: &DeliveryResult) {
        let after = self.queues.record_result(message, attempt, Instant::now(), self.core.process.clock.now());
        let (run, number, service) = (message.run, message.number, service(message));
        if let DeliveryResult::Refused(why) | DeliveryResult::Failed(why) = attempt {
            metrics::counter!("pointsman_notice_failures_total", "service" => service.clone()).increment(1);
            let again_in = after.pause.unwrap_or_default();
            tracing::warn!(%run, number, service, why, ?again_in, "a message to a webhook was not delivered");
        }
        if let Some(failures) = after.recovered_after {
            tracing::info!(%run, number, service, failures, "a webhook accepts messages again");
        }
        for given_up in after.given_up {
            let (run, number) = (given_up.run, given_up.number);
            tracing::error!(%run, number, service, "a message to a webhook is given up: it is too old, or was refused");
            remove(&self.core, &given_up, "given_up").await;
        }
    }

    /// Sets the gauges of waiting messages.
    fn update_gauges(&mut self) {
        let counts = self.queues.waiting();
        self.gauge_labels.extend(counts.keys().cloned());
        for service in &self.gauge_labels {
            let waiting = counts.get(service).copied().unwrap_or(0);
            #[allow(clippy::cast_precision_loss)] // bounded far below 2^53
            metrics::gauge!("pointsman_notices_waiting", "service" => label(service.as_ref())).set(waiting as f64);
        }
    }
}

fn bounds(core: &Core) -> QueueBounds {
    let age_s = i64::try_from(core.files.limits.notice_age_s).unwrap_or(i64::MAX);
    QueueBounds {
        waiting_max: usize_of(core.files.limits.notices_waiting_max),
        refusals_max: core.files.limits.notice_attempts_max,
        age_max: SignedDuration::from_secs(age_s),
        in_flight_max: IN_FLIGHT_MAX,
    }
}

/// Logs that the store did not answer; returns when to read all messages again.
fn read_failed(error: &StoreError) -> Option<Instant> {
    tracing::warn!(%error, "the messages to webhooks cannot be read: it is tried again");
    Some(Instant::now() + STORE_RETRY_PAUSE)
}

/// The receiver's service as a metric's label; unknown for messages of an older version.
fn label(service: Option<&ServiceName>) -> String {
    service.map_or_else(|| "unknown".to_owned(), ToString::to_string)
}

fn service(message: &WebhookMessage) -> String {
    label(message.service.as_ref())
}

/// Where a message goes: to the URLs that its service has now, else to the one that was recorded.
///
/// # Errors
/// The service is not in the files in force, and was not when the message was recorded; or its URL cannot be used.
fn receiver_of(
    message: &WebhookMessage,
    service_limits: Option<&ServiceLimits>,
    limits: &Limits,
) -> Result<Receiver, DeliveryResult> {
    match service_limits.and_then(|service_limits| Some((service_limits, path_of(message, service_limits)?))) {
        Some((service_limits, path)) => Receiver::at_service(service_limits, path),
        None if message.url.is_empty() => {
            Err(DeliveryResult::Failed("its service is not in the files in force".to_owned()))
        }
        None => Receiver::at_url(&service(message), &message.url, limits),
    }
}

/// The path of a message at the base URLs of its service. `None` for a message of an older version, which recorded only
/// its URL, if its service has moved since.
fn path_of<'m>(message: &'m WebhookMessage, service_limits: &ServiceLimits) -> Option<&'m str> {
    let is_path = |rest: &&str| rest.is_empty() || rest.starts_with(['/', '?']);
    let recorded = || service_limits.urls().iter().find_map(|base| message.url.strip_prefix(&**base).filter(is_path));
    message.path.as_deref().or_else(recorded)
}

async fn deliver(connections: &Arc<ConnectionPool>, message: &WebhookMessage, receiver: &Receiver) -> DeliveryResult {
    let mut body = message.body.clone();
    if let Some(body) = body.as_object_mut() {
        // A message that is about no run has an id of its own.
        body.entry("id").or_insert_with(|| json!(format!("{}-{}", message.run, message.number)));
    }
    let mut request = Request::new(Full::new(Bytes::from(body.to_string())));
    *request.method_mut() = Method::POST;
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let status = match post(connections, receiver, request).await {
        Ok(status) => status,
        Err(why) => return DeliveryResult::Failed(why),
    };
    let why = || format!("it answered {}", status.as_u16());
    match status {
        status if status.is_success() => DeliveryResult::Delivered,
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => {
            DeliveryResult::Failed(why())
        }
        status if status.is_client_error() => DeliveryResult::Refused(why()),
        _ => DeliveryResult::Failed(why()),
    }
}

fn count_outcome(message: &WebhookMessage, outcome: &'static str) {
    metrics::counter!("pointsman_notices_total", "service" => service(message), "outcome" => outcome).increment(1);
}

/// Removes a message from the store, because it is not sent again, and counts its outcome.
async fn remove(core: &Core, message: &WebhookMessage, outcome: &'static str) {
    count_outcome(message, outcome);
    if let Err(error) = core.ports.store.remove_webhook_message(message.number).await {
        tracing::warn!(number = message.number, %error, "a message to a webhook was not removed from the store: it may be sent again");
    }
}

#[cfg(test)]
mod tests;
