//! What the access log and the traces record of an exchange.
//!
//! Always true: without an access log and without traces nothing is recorded, at the cost of one branch; otherwise an
//! exchange has one record, which its connection holds until there is an answer, and which is handed over once, when
//! the exchange has ended.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::header::{REFERER, USER_AGENT};
use http::{HeaderMap, HeaderName, Method, Request, Uri};

use super::cut_reason::CutReason;
use super::exchange_spans::ExchangeSpans;
use super::headers::{set_trace_context, trace_context};
use super::monotonic::now;
use super::removed_fields::X_FORWARDED_FOR;
use crate::access_log::{AccessLog, AccessLogRecord, RequestHead, Text};
use crate::clock;
use crate::flag::{RouteFlag, Service};
use crate::names::RouteId;
use crate::traces::{self, TraceContext, Traces};

/// The record of an exchange that has not ended.
pub(super) struct ExchangeRecord {
    log: Option<Arc<AccessLog>>,
    record: Box<AccessLogRecord>,
    /// `None` if the exchange's trace is not recorded.
    spans: Option<Box<ExchangeSpans>>,
    /// When the request's head was complete, in microseconds of `monotonic::now`.
    began: u64,
}

impl ExchangeRecord {
    /// Lets `note` add to the record.
    pub(super) fn note(&mut self, note: impl FnOnce(&mut AccessLogRecord)) {
        note(&mut self.record);
    }

    /// Logs the exchange, which has ended; `cut` says why if it was cut. A reason that was recorded before is kept.
    pub(super) fn end(mut self, cut: Option<CutReason>) {
        let AccessLogRecord { ended, duration, failure, .. } = &mut *self.record;
        *ended = clock::now();
        *duration = Duration::from_micros(now().saturating_sub(self.began));
        *failure = failure.take().or(cut.map(|cut| cut.as_str().into()));
        if let Some(spans) = self.spans {
            spans.end(&self.record);
        }
        if let Some(log) = self.log {
            log.log(self.record);
        }
    }
}

/// The record of the exchange whose answer a connection waits for.
pub(super) struct CurrentRecord {
    log: Option<Arc<AccessLog>>,
    traces: Option<&'static Traces>,
    // Only the connection's own task takes the lock.
    current: Mutex<Option<ExchangeRecord>>,
}

impl CurrentRecord {
    pub(super) fn new(log: Option<Arc<AccessLog>>) -> Self {
        Self { log, traces: traces::installed(), current: Mutex::default() }
    }

    fn is_on(&self) -> bool {
        self.log.is_some() || self.traces.is_some()
    }

    /// Begins an exchange. `trust`: whether the peer is trusted, so that its trace and its `x-forwarded-for` count.
    pub(super) fn begin<B>(&self, client: IpAddr, trust: bool, request: &Request<B>, began: u64) {
        if !self.is_on() {
            return;
        }
        let caller = || trace_context(request.headers());
        let spans = self.traces.and_then(|traces| ExchangeSpans::begin(traces, caller(), trust));
        if self.log.is_none() && spans.is_none() {
            return;
        }
        let text = |name: &HeaderName| request.headers().get(name).map(|value| Text::copy(value.as_bytes()));
        let head = RequestHead {
            method: request.method().clone(),
            target: target(request.method(), request.uri()),
            template: None,
            version: request.version(),
            user_agent: text(&USER_AGENT),
            referer: text(&REFERER),
            forwarded_for: trust.then(|| joined(request.headers())).flatten(),
        };
        let mut record = Box::new(AccessLogRecord::new(client, Some(head)));
        record.trace_id = trace_context(request.headers()).map(|context| context.trace_id);
        *self.lock() = Some(ExchangeRecord { log: self.log.clone(), record, spans: spans.map(Box::new), began });
    }

    /// Sets the request's `traceparent`. To be called once the request has a valid one.
    /// - If the client sent none and the trace is recorded, the exchange's own replaces it.
    /// - One that the client sent is kept, because expressions may read it. But if its sampled flag is set and the
    ///   trace is not recorded here (the peer is not trusted), the flag is cleared, so that neither the engine nor
    ///   legacy records the trace.
    pub(super) fn set_trace(&self, headers: &mut HeaderMap) {
        if !self.is_on() {
            return;
        }
        let mut current = self.lock();
        let is_recorded = current.as_ref().is_some_and(|current| current.spans.is_some());
        if self.traces.is_some()
            && !is_recorded
            && let Some(asked) = trace_context(headers).filter(|context| context.is_sampled)
        {
            set_trace_context(headers, TraceContext { is_sampled: false, ..asked });
        }
        if let Some(ExchangeRecord { record, spans, .. }) = &mut *current {
            if let Some(begun) = spans.as_ref().and_then(|spans| spans.begun_trace()) {
                set_trace_context(headers, begun);
            }
            record.trace_id = trace_context(headers).map(|context| context.trace_id);
        }
    }

    /// Returns the exchange's span, as the parent of other spans. `None` if its trace is not recorded.
    pub(super) fn trace(&self) -> Option<TraceContext> {
        self.traces.and_then(|_| self.lock().as_ref()?.spans.as_ref().map(|spans| spans.context()))
    }

    /// Records the exchange's route; `template` is that of its path, if it has parameters.
    pub(super) fn set_route(&self, flag: &RouteFlag, template: Option<&Arc<str>>) {
        if self.is_on()
            && let Some(ExchangeRecord { record, spans, .. }) = &mut *self.lock()
        {
            record.set_route(flag, template);
            if let Some(spans) = spans {
                spans.set_template(&flag.route.matches.path);
            }
        }
    }

    /// Begins the span of a call to the route's legacy service, and puts it into the headers as `traceparent`.
    pub(super) fn begin_legacy_call(&self, service: &Service, headers: &mut HeaderMap) {
        if self.traces.is_some()
            && let Some(ExchangeRecord { spans: Some(spans), .. }) = &mut *self.lock()
        {
            set_trace_context(headers, spans.begin_call("legacy", service));
        }
    }

    /// Begins the span of a call that legacy makes to this service; the headers are not changed.
    pub(super) fn begin_service_call(&self, service: &Service) {
        if self.traces.is_some()
            && let Some(ExchangeRecord { spans: Some(spans), .. }) = &mut *self.lock()
        {
            spans.begin_call("service", service);
        }
    }

    /// Records that the exchange is a call by legacy, with its target.
    pub(super) fn set_egress(&self, route: &RouteId) {
        if self.is_on()
            && let Some(ExchangeRecord { record, spans, .. }) = &mut *self.lock()
        {
            record.route = Some(route.clone());
            if let Some(spans) = spans {
                spans.set_target(route.as_str());
            }
        }
    }

    /// Lets `note` add to the record of the exchange.
    pub(super) fn note(&self, note: impl FnOnce(&mut AccessLogRecord)) {
        if self.is_on()
            && let Some(current) = &mut *self.lock()
        {
            current.note(note);
        }
    }

    /// Takes the record, for the answer.
    pub(super) fn take(&self) -> Option<ExchangeRecord> {
        if self.is_on() { self.lock().take() } else { None }
    }

    /// Logs the answer to a head that could not be read.
    pub(super) fn log_unreadable_head(&self, client: IpAddr, status: u16, failure: &'static str) {
        let Some(log) = &self.log else { return };
        let mut record = Box::new(AccessLogRecord::new(client, None));
        (record.status, record.arm, record.failure) = (Some(status), Some("proxy"), Some(failure.into()));
        ExchangeRecord { log: Some(log.clone()), record, spans: None, began: now() }.end(None);
    }

    fn lock(&self) -> MutexGuard<'_, Option<ExchangeRecord>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the target as the client sent it.
fn target(method: &Method, uri: &Uri) -> Text {
    match uri.path_and_query() {
        Some(path) if uri.authority().is_none() => Text::copy(path.as_str().as_bytes()),
        // The target of CONNECT has no path; `user:password@` is omitted.
        _ if *method == Method::CONNECT => {
            let authority = uri.authority().map_or("", |at| at.as_str());
            Text::copy(authority.rsplit('@').next().unwrap_or_default().as_bytes())
        }
        _ => Text::copy(uri.to_string().as_bytes()),
    }
}

/// All values of `x-forwarded-for`.
fn joined(headers: &HeaderMap) -> Option<Text> {
    let values: Vec<&[u8]> = headers.get_all(X_FORWARDED_FOR).iter().map(|value| value.as_bytes()).collect();
    (!values.is_empty()).then(|| Text::copy(&values.join(&b", "[..])))
}
