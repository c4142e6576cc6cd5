//! Sends spans to the collector.
//!
//! Always true: one batch is sent at a time, and its number of spans and of tries is bounded. After an answer that asks
//! for a repeat (429, 502, 503, 504, as OTLP says), a connection that fails, or no answer in time, the batch is sent
//! again, after the pause that the answer's `Retry-After` asks for (bounded), or one that doubles; any other refusal is
//! final. What was given up is counted, and logged at most once a minute.
//!
//! Spans may be sent twice: if a collector has taken a batch but its answer comes too late, after the time-out or after
//! the process has begun to stop.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use metrics::{Counter, counter};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::collector::Connector;
use super::otlp::export_request;
use super::settings::TracesSettings;
use super::span::Span;
use crate::limits::{
    LAST_SPANS_WAIT_MAX, Limits, SPANS_ANSWER_WAIT_MAX, SPANS_BATCH_MAX, SPANS_RETRY_WAIT_MAX, SPANS_TRIES_MAX,
};

/// How long a batch that is not full waits for more spans.
const BATCH_WAIT: Duration = Duration::from_secs(1);
/// The pause after the first failure; it doubles.
const PAUSE: Duration = Duration::from_millis(500);
/// The shortest time between two warnings.
const WARN_EVERY: Duration = Duration::from_secs(60);
/// The most bytes of the collector's answer that are read.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Sends the spans of the process.
pub struct Exporter {
    spans: mpsc::Receiver<Span>,
    target: Uri,
    service_name: String,
    headers: HeaderMap,
    client: Client<Connector, Full<Bytes>>,
    exported: Counter,
    given_up: Counter,
    /// When the last warning was logged.
    warned: Option<Instant>,
    /// Whether no batch was accepted since the last warning.
    is_failing: bool,
    stop: CancellationToken,
    _ended: DropGuard,
}

/// Why a batch was not accepted.
struct Refusal {
    why: String,
    may_repeat: bool,
    /// After which pause the collector asks for a repeat.
    pause: Option<Duration>,
}

impl Exporter {
    pub(super) fn new(
        settings: TracesSettings,
        limits: &Limits,
        spans: mpsc::Receiver<Span>,
        given_up: Counter,
        stop: CancellationToken,
        ended: DropGuard,
    ) -> Self {
        let TracesSettings { otlp, tls, headers, sample: _, trust_sampled: _, service_name } = settings;
        let exported = counter!("pointsman_spans_exported_total");
        exported.absolute(0);
        given_up.absolute(0);
        let client = Client::builder(TokioExecutor::new()).build(Connector::new(&otlp, tls, limits));
        let (target, warned, is_failing) = (target(&otlp), None, false);
        Self {
            spans,
            target,
            service_name,
            headers,
            client,
            exported,
            given_up,
            warned,
            is_failing,
            stop,
            _ended: ended,
        }
    }

    /// Sends spans until the process stops, and then those that wait, for a bounded time.
    pub async fn run(mut self) {
        let (mut batch, stop) = (Vec::new(), self.stop.clone());
        while stop.run_until_cancelled(self.fill(&mut batch)).await.is_some() {
            // A stop does not wait for a collector that is gone.
            if stop.run_until_cancelled(self.export(&batch)).await.is_none() {
                break;
            }
            batch.clear();
        }
        let last = async {
            loop {
                while batch.len() < SPANS_BATCH_MAX
                    && let Ok(span) = self.spans.try_recv()
                {
                    batch.push(span);
                }
                if batch.is_empty() {
                    return;
                }
                self.export(&batch).await;
                batch.clear();
            }
        };
        if timeout(LAST_SPANS_WAIT_MAX, last).await.is_err() {
            self.given_up.increment((batch.len() + self.spans.len()) as u64);
            tracing::warn!("the last spans were not sent to the collector in time");
        }
    }

    /// Waits for the spans of a batch.
    async fn fill(&mut self, batch: &mut Vec<Span>) {
        // The queue is never closed: its sender lives as long as the process.
        while batch.is_empty() && self.spans.recv_many(batch, SPANS_BATCH_MAX).await > 0 {}
        let more = async {
            while batch.len() < SPANS_BATCH_MAX {
                let room = SPANS_BATCH_MAX - batch.len();
                self.spans.recv_many(batch, room).await;
            }
        };
        let _ = timeout(BATCH_WAIT, more).await; // after the timeout, the batch is sent although it is not full
    }

    /// Sends a batch, several times if need be.
    async fn export(&mut self, batch: &[Span]) {
        let body = match export_request(&self.service_name, batch) {
            Ok(body) => Bytes::from(body),
            Err(error) => return self.give_up(batch.len(), &error.to_string()),
        };
        let mut pause = PAUSE;
        for attempt in 1..=SPANS_TRIES_MAX {
            match self.post(body.clone()).await {
                Ok(()) => {
                    self.exported.increment(batch.len() as u64);
                    if std::mem::take(&mut self.is_failing) {
                        tracing::info!("the collector accepts spans again");
                    }
                    return;
                }
                Err(Refusal { why, may_repeat, .. }) if !may_repeat || attempt == SPANS_TRIES_MAX => {
                    return self.give_up(batch.len(), &why);
                }
                Err(Refusal { pause: asked, .. }) => {
                    sleep(asked.unwrap_or(pause)).await;
                    pause *= 2;
                }
            }
        }
    }

    fn give_up(&mut self, spans: usize, why: &str) {
        self.given_up.increment(spans as u64);
        if self.warned.is_none_or(|warned| warned.elapsed() >= WARN_EVERY) {
            (self.warned, self.is_failing) = (Some(Instant::now()), true);
            tracing::warn!(collector = %self.target, why, "spans are dropped: the collector does not accept them");
        }
    }

    async fn post(&self, body: Bytes) -> Result<(), Refusal> {
        let request = Request::builder().method(Method::POST).uri(&self.target);
        let request = request.header(CONTENT_TYPE, "application/json").body(Full::new(body));
        let request = request.map_err(|error| Refusal { why: error.to_string(), may_repeat: false, pause: None });
        let mut request = request?;
        request.headers_mut().extend(self.headers.clone());
        let answered = async {
            let response = self.client.request(request).await.map_err(|error| with_source(&error))?;
            let (head, body) = response.into_parts();
            // Read, so that the connection can be used again.
            let _ = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
            Ok::<_, String>(head)
        };
        let repeatable = |why: String| Refusal { why, may_repeat: true, pause: None };
        let answered = timeout(SPANS_ANSWER_WAIT_MAX, answered).await;
        let head = answered.map_err(|_| repeatable("no answer in time".to_owned()))?.map_err(repeatable)?;
        let status = head.status;
        if status.is_success() {
            return Ok(());
        }
        let may_repeat = matches!(
            status,
            StatusCode::TOO_MANY_REQUESTS
                | StatusCode::BAD_GATEWAY
                | StatusCode::SERVICE_UNAVAILABLE
                | StatusCode::GATEWAY_TIMEOUT
        );
        Err(Refusal { why: format!("it answers {status}"), may_repeat, pause: retry_after(&head.headers) })
    }
}

/// The error with the one that it comes from: why there is no connection.
fn with_source(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// The pause that an answer asks for, in seconds; a date counts as none.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(SPANS_RETRY_WAIT_MAX))
}

/// The URL to which spans are posted.
fn target(base: &Uri) -> Uri {
    let path = format!("{}/v1/traces", base.path().trim_end_matches('/'));
    let mut parts = base.clone().into_parts();
    parts.path_and_query = path.parse().ok();
    // The base was checked, so that it stays a URL with another path: this cannot fail.
    Uri::from_parts(parts).unwrap_or_else(|_| base.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_that_a_collector_asks_for_is_bounded() {
        let asked = |value: &str| retry_after(&HeaderMap::from_iter([(RETRY_AFTER, value.parse().unwrap())]));
        assert_eq!(asked("3"), Some(Duration::from_secs(3)));
        assert_eq!(asked("86400"), Some(SPANS_RETRY_WAIT_MAX));
        assert_eq!((asked("Tue, 24 Nov 2026 10:00:00 GMT"), retry_after(&HeaderMap::new())), (None, None));
    }

    #[test]
    fn the_path_for_spans_is_below_the_base() {
        for (base, path) in
            [("http://c:4318", "/v1/traces"), ("http://c/", "/v1/traces"), ("http://c/a/", "/a/v1/traces")]
        {
            assert_eq!(target(&base.parse().unwrap()).path(), path, "{base}");
        }
    }
}
