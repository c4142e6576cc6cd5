//! The spans of an exchange: one for the whole exchange, and one for its call to legacy.
//!
//! Always true: these spans exist only if the exchange's trace is recorded. The engine records its own spans, as
//! children of the exchange's. Of the request target only the path is recorded, redacted and shortened as in the access
//! log.

use jiff::Timestamp;

use crate::access_log::AccessLogRecord;
use crate::clock;
use crate::flag::Service;
use crate::traces::{Attributes, HTTP_METHOD, HTTP_STATUS, Span, SpanKind, TraceContext, Traces};

/// The spans of an exchange that has not ended.
pub(super) struct ExchangeSpans {
    traces: &'static Traces,
    context: TraceContext,
    /// The span that the caller sent.
    parent: Option<u64>,
    began: Timestamp,
    /// The path template of the exchange's route.
    template: Option<Box<str>>,
    /// The target of a call that legacy makes, which has no template.
    target: Option<Box<str>>,
    call: Option<ServiceCall>,
}

/// The span of the exchange's call: to the legacy service, or, if legacy is the caller, to the service that it calls.
struct ServiceCall {
    name: &'static str,
    context: TraceContext,
    start: Timestamp,
    attributes: Attributes,
}

impl ExchangeSpans {
    /// Begins the spans of an exchange. `None` if its trace is not recorded.
    pub(super) fn begin(traces: &'static Traces, caller: Option<TraceContext>, is_peer_trusted: bool) -> Option<Self> {
        let context = traces.begin(caller, is_peer_trusted);
        let parent = caller.map(|caller| caller.span_id);
        context.is_sampled.then(|| Self {
            traces,
            context,
            parent,
            began: clock::now(),
            template: None,
            target: None,
            call: None,
        })
    }

    /// The exchange's span.
    pub(super) fn context(&self) -> TraceContext {
        self.context
    }

    /// The exchange's span, if its trace begins here.
    pub(super) fn begun_trace(&self) -> Option<TraceContext> {
        self.parent.is_none().then_some(self.context)
    }

    /// Sets the path template of the exchange's route.
    pub(super) fn set_template(&mut self, template: &str) {
        self.template = Some(template.into());
    }

    /// Records that the exchange is a call by legacy to this target.
    pub(super) fn set_target(&mut self, target: &str) {
        self.target = Some(target.into());
    }

    /// Begins the span of a call to a service, and returns its context.
    pub(super) fn begin_call(&mut self, name: &'static str, service: &Service) -> TraceContext {
        let context = Traces::child(self.context);
        let mut attributes = Attributes::new();
        attributes.add("pointsman.service", Some(service.name.as_str()));
        // If there are several URLs, the one that is called is not known here.
        if let [base] = &service.urls[..] {
            attributes.add_server(Some(&base.uri));
        }
        self.call = Some(ServiceCall { name, context, start: clock::now(), attributes });
        context
    }

    /// Records the spans of the exchange, which has ended.
    pub(super) fn end(self, record: &AccessLogRecord) {
        let Self { traces, context, parent, began, template, target, call } = self;
        let failed_status = record.status.filter(|status| *status >= 500).map(|status| format!("status {status}"));
        let error = record.failure.as_deref().map(str::to_owned).or(failed_status);
        let method = record.head.as_ref().map_or("HTTP", |head| known_method(head.method.as_str()));
        if let Some(ServiceCall { name, context: called, start, mut attributes }) = call {
            let micros = |time: std::time::Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
            attributes.add(HTTP_METHOD, Some(method));
            attributes.add("pointsman.connect_us", record.connect.map(micros));
            attributes.add("pointsman.first_byte_us", record.first_byte.map(micros));
            // If the proxy answered the exchange itself, the call's status is not known.
            let is_answer = matches!(record.arm, Some("legacy" | "service"));
            attributes.add(HTTP_STATUS, record.status.map(u64::from).filter(|_| is_answer));
            attributes.add("error.type", error.as_deref());
            traces.record(Span {
                context: called,
                parent: Some(context.span_id),
                name: name.to_owned(),
                kind: SpanKind::Client,
                start,
                end: record.ended,
                attributes,
                error: error.clone(),
            });
        }
        let mut attributes = Attributes::new();
        attributes.add(HTTP_METHOD, Some(method));
        attributes.add("http.route", template.as_deref());
        attributes.add("url.path", record.head.as_ref().map(|head| head.redacted_path()).as_deref());
        attributes.add("network.protocol.version", record.head.as_ref().map(|head| head.version_name()));
        attributes.add("client.address", Some(&*record.client.to_canonical().to_string()));
        attributes.add(HTTP_STATUS, record.status.map(u64::from));
        attributes.add("http.request.body.size", Some(record.request_bytes));
        attributes.add("http.response.body.size", Some(record.reply_bytes));
        attributes.add("pointsman.route", record.route.as_ref().map(|route| route.as_str()));
        attributes.add("pointsman.state", record.state.map(|state| state.as_str()));
        attributes.add("pointsman.rung", record.rung.map(|rung| rung.as_str()));
        attributes.add("pointsman.decision", record.decision);
        attributes.add("pointsman.reason", record.reason);
        attributes.add("pointsman.arm", record.arm);
        attributes.add("error.type", error.as_deref());
        traces.record(Span {
            context,
            parent,
            name: template.or(target).map_or_else(|| method.to_owned(), |what| format!("{method} {what}")),
            kind: SpanKind::Server,
            start: began,
            end: record.ended,
            attributes,
            error,
        });
    }
}

/// The method, or `_OTHER`: a client may send any word.
fn known_method(method: &str) -> &str {
    match method {
        "GET" | "HEAD" | "POST" | "PUT" | "DELETE" | "CONNECT" | "OPTIONS" | "TRACE" | "PATCH" => method,
        _ => "_OTHER",
    }
}
