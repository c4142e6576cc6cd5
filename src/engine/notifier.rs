//! Messages to webhooks: recorded with the event that they tell of, then sent.
//!
//! Always true: a message is on disk before it is sent, and goes from there when it was delivered or given up; so it may
//! come twice, and its `id` tells. No body and no secret is in it. Messages are sent one after the other, the oldest
//! first; the store is asked only where there is news of one, or a try is due.
//!
//! When the other side is slow or gone, a message is tried again after a growing pause, within its bounds
//! (`notice_attempts_max`, `notice_age_s`), and the others go on meanwhile. Where several processes share the store, the
//! one that recorded a message sends it; the others look after it once in a while.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use jiff::SignedDuration;
use serde_json::json;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;

use super::Core;
use crate::limits::Limits;
use crate::store::{News, Notice};

/// Messages that are read together.
const PAGE: usize = 100;
/// One delivery.
const DELIVERY: Duration = Duration::from_secs(5);
/// The first pause after a delivery that failed; it doubles.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(600);

type Webhooks = Client<HttpConnector, Full<Bytes>>;

/// Tries of messages that were not delivered, by number: how many, and when the next one is due.
type Tries = HashMap<u64, (u64, Instant)>;

/// Sends what is recorded, for as long as the process lives.
pub(super) async fn send(core: &Arc<Core>) {
    let mut connector = HttpConnector::new();
    connector.set_connect_timeout(Some(Limits::ms(core.limits.connect_ms)));
    let webhooks: Webhooks = Client::builder(TokioExecutor::new()).build(connector);
    let mut news = core.store.news();
    let mut tries = Tries::new();
    let mut ours = true; // what the last process left is this one's
    loop {
        let next = round(core, &webhooks, &mut tries, ours).await;
        ours = false;
        let sweep = core.store.is_shared().then(|| Instant::now() + Limits::ms(core.limits.sweep_ms));
        let next = [next, sweep].into_iter().flatten().min();
        let heard = async {
            loop {
                match news.recv().await {
                    Ok(News::Notice) | Err(RecvError::Lagged(_)) => return,
                    Ok(_) => {}
                    Err(RecvError::Closed) => std::future::pending().await,
                }
            }
        };
        tokio::select! {
            () = heard => {}
            () = core.recorded.notified() => ours = true,
            () = until(next) => {}
        }
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Sends what is due now; when the next one is.
async fn round(core: &Core, webhooks: &Webhooks, tries: &mut Tries, ours: bool) -> Option<Instant> {
    let notices = match core.store.notices(PAGE).await {
        Ok(notices) => notices,
        Err(error) => {
            tracing::warn!(%error, "the messages to webhooks cannot be read");
            return Some(Instant::now() + PAUSE);
        }
    };
    tries.retain(|number, _| notices.iter().any(|notice| notice.number == *number));
    let full = notices.len() == PAGE;
    let mut next: Option<Instant> = None;
    for notice in notices {
        let age = core.clock.now().duration_since(notice.at);
        let others = core.store.is_shared() && !ours && age < patience(core);
        if others && !tries.contains_key(&notice.number) {
            continue;
        }
        let (count, due) = tries.get(&notice.number).copied().unwrap_or((0, Instant::now()));
        if due > Instant::now() {
            next = Some(next.map_or(due, |next| next.min(due)));
            continue;
        }
        let sent = tokio::time::timeout(DELIVERY, deliver(webhooks, &notice)).await;
        let failed = match sent {
            Ok(Ok(())) => None,
            Ok(Err(why)) => Some(why),
            Err(_) => Some(format!("no answer within {} s", DELIVERY.as_secs())),
        };
        let Some(why) = failed else {
            done(core, &notice, "sent").await;
            continue;
        };
        let (count, age_max) = (count + 1, i64::try_from(core.limits.notice_age_s).unwrap_or(i64::MAX));
        if count >= core.limits.notice_attempts_max || age > SignedDuration::from_secs(age_max) {
            tracing::error!(run = %notice.run, number = notice.number, why, "a message to a webhook is given up");
            done(core, &notice, "given_up").await;
            continue;
        }
        tracing::warn!(run = %notice.run, number = notice.number, why, count, "a message to a webhook is tried again");
        let doubled = PAUSE.saturating_mul(1 << count.min(20));
        let due = Instant::now() + doubled.min(PAUSE_MAX);
        tries.insert(notice.number, (count, due));
        next = Some(next.map_or(due, |next| next.min(due)));
    }
    if full && next.is_none() { Some(Instant::now()) } else { next }
}

/// For how long another process that recorded a message is left alone with it.
fn patience(core: &Core) -> SignedDuration {
    SignedDuration::try_from(Limits::ms(core.limits.sweep_ms).saturating_mul(2)).unwrap_or(SignedDuration::MAX)
}

async fn deliver(webhooks: &Webhooks, notice: &Notice) -> Result<(), String> {
    let mut body = notice.body.clone();
    if let Some(body) = body.as_object_mut() {
        body.insert("id".into(), json!(format!("{}-{}", notice.run, notice.number)));
    }
    let mut request = Request::new(Full::new(Bytes::from(body.to_string())));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = notice.url.parse().map_err(|error| format!("its URL is none: {error}"))?;
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let reply = webhooks.request(request).await.map_err(|error| error.to_string())?;
    let status = reply.status();
    let _ = reply.into_body().frame().await; // what it says does not matter; the connection may be used again
    if status.is_success() { Ok(()) } else { Err(format!("it answered {}", status.as_u16())) }
}

async fn done(core: &Core, notice: &Notice, outcome: &'static str) {
    metrics::counter!("pointsman_notices_total", "outcome" => outcome).increment(1);
    if let Err(error) = core.store.notice_done(notice.number).await {
        tracing::warn!(number = notice.number, %error, "a message that is done comes again");
    }
}
