//! Messages to webhooks: recorded with the event that they tell of, then sent.
//!
//! The question it answers: "does whoever has to decide hear of it?" Always true: a message is on disk before it is sent,
//! and goes from there when it was delivered, given up or dropped, which is counted and logged; so it may come twice, and
//! its `id` tells. No body and no secret is in it. Each destination has a queue of its own ([`queues`]), in the order in
//! which messages were recorded; the store is asked only where there is news of one.
//!
//! When a receiver is slow or gone, its messages wait, within their bounds (`notices_waiting_max`, `notice_age_s`,
//! `notice_attempts_max`), and are sent in order when it is back; those of others go on meanwhile. Where several processes
//! share the store, the one that recorded a message sends it; the others look after it once in a while.

mod queues;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use jiff::SignedDuration;
use serde_json::json;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::task::JoinSet;
use tokio::time::Instant;

use self::queues::{Attempt, Bounds, Queues};
use crate::engine::bounds::usize_of;
use crate::engine::context::Core;
use crate::limits::Limits;
use crate::names::ServiceName;
use crate::store::{StoreError, StoreNotification, WebhookMessage};

/// Messages that are read together.
const PAGE: usize = 100;
/// One delivery.
const DELIVERY: Duration = Duration::from_secs(5);
/// Deliveries under way at the same time.
const SENDING_MAX: usize = 64;
/// Until a store that did not answer is asked again.
const AGAIN: Duration = Duration::from_secs(1);

type Webhooks = Client<HttpConnector, Full<Bytes>>;

/// Sends what is recorded, for as long as the process lives.
pub(in crate::engine) async fn send(core: &Arc<Core>) {
    let mut news = core.ports.store.notifications();
    let mut notifier = Notifier::new(core.clone());
    let mut read_at = Some(Instant::now()); // what the last process left
    loop {
        notifier.start_due();
        notifier.publish();
        let next = [notifier.queues.next_due(Instant::now()), read_at].into_iter().flatten().min();
        tokio::select! {
            () = told_of_one(&mut news) => read_at = notifier.read_new(read_at).await,
            () = core.ports.notice_stored.notified() => read_at = notifier.read_new(read_at).await,
            Some(sent) = notifier.under_way.join_next() => match sent {
                Ok((notice, attempt)) => notifier.settle(&notice, &attempt).await,
                Err(error) => tracing::error!(%error, "a delivery to a webhook ended badly"),
            },
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

/// Waits for news of a message.
async fn told_of_one(news: &mut broadcast::Receiver<StoreNotification>) {
    loop {
        match news.recv().await {
            Ok(StoreNotification::WebhookMessage) | Err(RecvError::Lagged(_)) => return,
            Ok(_) => {}
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

struct Notifier {
    core: Arc<Core>,
    webhooks: Webhooks,
    queues: Queues,
    /// The last message that was read.
    last: u64,
    under_way: JoinSet<(Arc<WebhookMessage>, Attempt)>,
    /// Services whose number of waiting messages is shown.
    shown: BTreeSet<Option<ServiceName>>,
}

impl Notifier {
    fn new(core: Arc<Core>) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(Limits::ms(core.files.limits.connect_ms)));
        let age_s = i64::try_from(core.files.limits.notice_age_s).unwrap_or(i64::MAX);
        let bounds = Bounds {
            waiting_max: usize_of(core.files.limits.notices_waiting_max),
            refusals_max: core.files.limits.notice_attempts_max,
            age_max: SignedDuration::from_secs(age_s),
            sending_max: SENDING_MAX,
        };
        Self {
            core,
            webhooks: Client::builder(TokioExecutor::new()).build(connector),
            queues: Queues::new(bounds),
            last: 0,
            under_way: JoinSet::new(),
            shown: BTreeSet::new(),
        }
    }

    /// Reads what was recorded since the last time; when to read everything.
    async fn read_new(&mut self, read_at: Option<Instant>) -> Option<Instant> {
        match self.read().await {
            Ok(_) => read_at,
            Err(error) => unread(&error),
        }
    }

    /// Reads everything, and forgets what others have sent; when to do so again.
    async fn read_all(&mut self) -> Option<Instant> {
        self.last = 0;
        match self.read().await {
            Ok(stored) => {
                self.queues.keep_only(&stored);
                // Numbers of several writers do not come in order, and news may be lost.
                self.core.ports.store.is_shared().then(|| Instant::now() + Limits::ms(self.core.files.limits.sweep_ms))
            }
            Err(error) => unread(&error),
        }
    }

    /// Reads on from the last message; the numbers that were read.
    async fn read(&mut self) -> Result<BTreeSet<u64>, StoreError> {
        let mut numbers = BTreeSet::new();
        loop {
            let page = self.core.ports.store.webhook_messages(self.last, PAGE).await?;
            let full = page.len() == PAGE;
            for notice in page {
                self.last = self.last.max(notice.number);
                numbers.insert(notice.number);
                let not_before = self.not_before(&notice);
                if let Some(dropped) = self.queues.add(notice, not_before) {
                    tracing::error!(
                        run = %dropped.run, number = dropped.number, service = service(&dropped),
                        "a message to a webhook is dropped: too many wait for it (notices_waiting_max)"
                    );
                    done(&self.core, &dropped, "dropped").await;
                }
            }
            if !full {
                return Ok(numbers);
            }
        }
    }

    /// From when on a message is this process's to send: one that another process recorded is left to it for a while.
    fn not_before(&self, notice: &WebhookMessage) -> Instant {
        let now = Instant::now();
        if !self.core.ports.store.is_shared() || notice.by == Some(self.core.schedule.worker) {
            return now;
        }
        let patience = Limits::ms(self.core.files.limits.sweep_ms).saturating_mul(2);
        let age = Duration::try_from(self.core.process.clock.now().duration_since(notice.at)).unwrap_or_default();
        now + patience.saturating_sub(age)
    }

    fn start_due(&mut self) {
        for notice in self.queues.start_due(Instant::now()) {
            let (core, webhooks) = (self.core.clone(), self.webhooks.clone());
            self.under_way.spawn(async move {
                let attempt = match tokio::time::timeout(DELIVERY, deliver(&webhooks, &notice)).await {
                    Ok(attempt) => attempt,
                    Err(_) => Attempt::Failed(format!("no answer within {} s", DELIVERY.as_secs())),
                };
                if attempt == Attempt::Delivered {
                    done(&core, &notice, "sent").await;
                }
                (notice, attempt)
            });
        }
    }

    async fn settle(&mut self, notice: &WebhookMessage, attempt: &Attempt) {
        let settled = self.queues.settle(notice, attempt, Instant::now(), self.core.process.clock.now());
        let (run, number, service) = (notice.run, notice.number, service(notice));
        if let Attempt::Refused(why) | Attempt::Failed(why) = attempt {
            metrics::counter!("pointsman_notice_failures_total", "service" => service.clone()).increment(1);
            let again_in = settled.pause.unwrap_or_default();
            tracing::warn!(%run, number, service, why, ?again_in, "a message to a webhook was not delivered");
        }
        if let Some(failures) = settled.recovered_after {
            tracing::info!(%run, number, service, failures, "a webhook takes messages again");
        }
        for given_up in settled.given_up {
            let (run, number) = (given_up.run, given_up.number);
            tracing::error!(%run, number, service, "a message to a webhook is given up: it is too old, or was refused");
            done(&self.core, &given_up, "given_up").await;
        }
    }

    /// Shows how many messages wait.
    fn publish(&mut self) {
        let counts = self.queues.waiting();
        self.shown.extend(counts.keys().cloned());
        for shown in &self.shown {
            let waiting = counts.get(shown).copied().unwrap_or(0);
            #[allow(clippy::cast_precision_loss)] // bounded far below 2^53
            metrics::gauge!("pointsman_notices_waiting", "service" => label(shown.as_ref())).set(waiting as f64);
        }
    }
}

/// The store did not answer: when everything is read again.
fn unread(error: &StoreError) -> Option<Instant> {
    tracing::warn!(%error, "the messages to webhooks cannot be read; it is tried again");
    Some(Instant::now() + AGAIN)
}

/// The receiver's service, as a metric's label; of messages of an older version it is not known.
fn label(service: Option<&ServiceName>) -> String {
    service.map_or_else(|| "unknown".to_owned(), ToString::to_string)
}

fn service(notice: &WebhookMessage) -> String {
    label(notice.service.as_ref())
}

async fn deliver(webhooks: &Webhooks, notice: &WebhookMessage) -> Attempt {
    let mut body = notice.body.clone();
    if let Some(body) = body.as_object_mut() {
        body.insert("id".into(), json!(format!("{}-{}", notice.run, notice.number)));
    }
    let mut request = Request::new(Full::new(Bytes::from(body.to_string())));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = match notice.url.parse() {
        Ok(url) => url,
        Err(error) => return Attempt::Refused(format!("its URL is none: {error}")),
    };
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let reply = match webhooks.request(request).await {
        Ok(reply) => reply,
        Err(error) => return Attempt::Failed(error.to_string()),
    };
    let status = reply.status();
    let _ = reply.into_body().frame().await; // what it says does not matter; the connection may be used again
    let why = || format!("it answered {}", status.as_u16());
    match status {
        status if status.is_success() => Attempt::Delivered,
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => Attempt::Failed(why()),
        status if status.is_client_error() => Attempt::Refused(why()),
        _ => Attempt::Failed(why()),
    }
}

/// The message is not sent any more.
async fn done(core: &Core, notice: &WebhookMessage, outcome: &'static str) {
    metrics::counter!("pointsman_notices_total", "service" => service(notice), "outcome" => outcome).increment(1);
    if let Err(error) = core.ports.store.remove_webhook_message(notice.number).await {
        tracing::warn!(number = notice.number, %error, "a message to a webhook that is done may come again");
    }
}
