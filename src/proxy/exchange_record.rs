//! What the access log gets of an exchange.
//!
//! Always true: without an access log nothing is recorded, which costs a branch; with one, an exchange has one record,
//! which its connection holds until there is an answer, and which is handed over once, when the exchange has ended.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::header::{REFERER, USER_AGENT};
use http::{HeaderMap, HeaderName, Method, Request, Uri};

use super::cut::Cut;
use super::headers::{X_FORWARDED_FOR, trace_id};
use super::monotonic::now;
use crate::access_log::{AccessLog, Record, RequestHead, Text};
use crate::clock;

/// The record of an exchange that has not ended.
pub(super) struct ExchangeRecord {
    log: Arc<AccessLog>,
    record: Box<Record>,
    /// When the request's head was complete, in microseconds of `monotonic::now`.
    began: u64,
}

impl ExchangeRecord {
    /// Adds what became known.
    pub(super) fn note(&mut self, note: impl FnOnce(&mut Record)) {
        note(&mut self.record);
    }

    /// Logs the exchange, which has ended; `cut` says why if it was cut. A reason that was recorded before is kept.
    pub(super) fn end(mut self, cut: Option<Cut>) {
        let Record { ended, duration, failure, .. } = &mut *self.record;
        *ended = clock::now();
        *duration = Duration::from_micros(now().saturating_sub(self.began));
        *failure = failure.take().or(cut.map(|cut| cut.as_str().into()));
        self.log.log(self.record);
    }
}

/// The record of the exchange that a connection waits for an answer to.
pub(super) struct CurrentRecord {
    log: Option<Arc<AccessLog>>,
    // Only the connection's own task takes the lock.
    current: Mutex<Option<ExchangeRecord>>,
}

impl CurrentRecord {
    pub(super) fn new(log: Option<Arc<AccessLog>>) -> Self {
        Self { log, current: Mutex::default() }
    }

    /// An exchange begins. `x-forwarded-for` is recorded where it is trusted.
    pub(super) fn begin<B>(&self, client: IpAddr, trust: bool, request: &Request<B>, began: u64) {
        let Some(log) = &self.log else { return };
        let text = |name: &HeaderName| request.headers().get(name).map(|value| Text::copy(value.as_bytes()));
        let head = RequestHead {
            method: request.method().clone(),
            target: target(request.method(), request.uri()),
            version: request.version(),
            user_agent: text(&USER_AGENT),
            referer: text(&REFERER),
            forwarded_for: trust.then(|| joined(request.headers())).flatten(),
        };
        let mut record = Box::new(Record::new(client, Some(head)));
        record.trace_id = trace_id(request.headers());
        *self.lock() = Some(ExchangeRecord { log: log.clone(), record, began });
    }

    /// Adds what became known of the exchange.
    pub(super) fn note(&self, note: impl FnOnce(&mut Record)) {
        if self.log.is_some()
            && let Some(current) = &mut *self.lock()
        {
            current.note(note);
        }
    }

    /// The record, for the answer.
    pub(super) fn take(&self) -> Option<ExchangeRecord> {
        if self.log.is_some() { self.lock().take() } else { None }
    }

    /// A head that could not be read was answered.
    pub(super) fn unreadable(&self, client: IpAddr, status: u16, failure: &'static str) {
        let Some(log) = &self.log else { return };
        let mut record = Box::new(Record::new(client, None));
        (record.status, record.arm, record.failure) = (Some(status), Some("proxy"), Some(failure.into()));
        ExchangeRecord { log: log.clone(), record, began: now() }.end(None);
    }

    fn lock(&self) -> MutexGuard<'_, Option<ExchangeRecord>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The target as it came.
fn target(method: &Method, uri: &Uri) -> Text {
    match uri.path_and_query() {
        Some(path) if uri.authority().is_none() => Text::copy(path.as_str().as_bytes()),
        // The target of CONNECT has no path. `user:password@` is left out.
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
