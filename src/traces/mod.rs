//! Traces: spans of exchanges, calls to legacy, runs and their steps, sent to an OpenTelemetry collector.
//!
//! The question it answers: "where did the time of this one request go, in which arm?" Whoever has done something hands
//! over a [`Span`] once it has ended; all spans of one request have the trace that its `traceparent` names, which the
//! engine keeps with the run, so that a run that another process resumes stays in it.
//!
//! Always true: handing a span over never waits and never sends. A task (`exporter`) sends them in batches as OTLP/HTTP
//! with JSON (`otlp`); at most `spans_waiting_max` wait for it, and one that finds no room is dropped, counted, and
//! logged at most once a minute. Whether a trace is recorded is decided once: by the flag in the
//! `traceparent` of a trusted caller, else by the share in the files. The flag in `traceparent` passes that on. Spans
//! have no bytes of bodies, queries or headers. Without `traces:` in the files nothing is recorded, and the cost is one
//! branch.
//!
//! When the collector is slow or gone, batches are given up after some tries, and counted; requests and runs go on.

mod collector;
mod context;
mod exporter;
mod otlp;
mod settings;
mod span;

use std::sync::OnceLock;

use metrics::{Counter, counter};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::limits::{LAST_SPANS_WAIT_MAX, Limits};
use crate::names::RunId;
use crate::telemetry::LogThrottle;
pub use context::TraceContext;
pub use exporter::Exporter;
pub use settings::{TracesSettings, TrustSampled};
pub use span::{Attribute, Attributes, HTTP_METHOD, HTTP_STATUS, Span, SpanKind};

static INSTALLED: OnceLock<Traces> = OnceLock::new();

/// Collects the spans of the process.
pub struct Traces {
    spans: mpsc::Sender<Span>,
    sample: f64,
    trust_sampled: TrustSampled,
    /// Spans that found no room.
    dropped: Counter,
    drop_log: LogThrottle,
    /// Cancelled to make the exporter send the queued spans and end.
    stop: CancellationToken,
    /// Cancelled when the exporter has ended.
    ended: CancellationToken,
}

/// What takes the process's spans; `None` if the files have no `traces:`.
pub fn installed() -> Option<&'static Traces> {
    INSTALLED.get()
}

/// Starts to take the process's spans. Returns the exporter that sends them; `None` if one was installed before: a
/// process that starts again, after a failed hand-over, keeps it.
pub fn install(settings: TracesSettings, limits: &Limits) -> Option<Exporter> {
    let (traces, exporter) = Traces::new(settings, limits);
    INSTALLED.set(traces).ok().map(|()| exporter)
}

/// Sends the queued spans when the process ends, within a bounded time.
pub async fn finish() {
    let Some(traces) = installed() else { return };
    traces.stop.cancel();
    // The exporter sends for at most `LAST_SPANS_WAIT_MAX`, and ends soon after that.
    let _in_time = timeout(LAST_SPANS_WAIT_MAX * 2, traces.ended.cancelled()).await;
}

impl Traces {
    fn new(settings: TracesSettings, limits: &Limits) -> (Self, Exporter) {
        let waiting_max = usize::try_from(limits.spans_waiting_max).unwrap_or(usize::MAX).max(1);
        let (spans, received) = mpsc::channel(waiting_max.min(tokio::sync::Semaphore::MAX_PERMITS));
        let [dropped, given_up] =
            ["queue", "export"].map(|reason| counter!("pointsman_spans_dropped_total", "reason" => reason));
        dropped.absolute(0);
        let (stop, ended) = (CancellationToken::new(), CancellationToken::new());
        let (sample, trust_sampled) = (settings.sample, settings.trust_sampled);
        let exporter = Exporter::new(settings, limits, received, given_up, stop.clone(), ended.clone().drop_guard());
        (Self { spans, sample, trust_sampled, dropped, drop_log: LogThrottle::new(), stop, ended }, exporter)
    }

    /// The context of the span of an exchange: a child of `caller`, or the first of a new trace. Whether the trace is
    /// recorded is decided here: by the caller, if it is trusted.
    pub fn begin(&self, caller: Option<TraceContext>, is_peer_trusted: bool) -> TraceContext {
        match caller {
            Some(caller) if self.trust_sampled.trusts(is_peer_trusted) => Self::child(caller),
            Some(caller) => TraceContext { is_sampled: self.draw_sample(), ..Self::child(caller) },
            None => TraceContext::random(self.draw_sample()),
        }
    }

    /// A context with a new span id in the trace of `parent`.
    pub fn child(parent: TraceContext) -> TraceContext {
        TraceContext { span_id: context::random_span_id(), ..parent }
    }

    fn draw_sample(&self) -> bool {
        fastrand::f64() < self.sample
    }

    /// The context of a run's span, and the span that it is a child of. `begun_by` is the `traceparent` in the run's
    /// first event, `parent` the run whose step began it.
    pub fn of_run(
        &self,
        run: RunId,
        begun_by: Option<TraceContext>,
        parent: Option<RunId>,
    ) -> (TraceContext, Option<u64>) {
        // By the run's id, so that each process decides alike.
        let is_drawn = f64::from(run.0.as_u128() as u32) < self.sample * (f64::from(u32::MAX) + 1.0);
        let own = TraceContext::of_run(run, is_drawn);
        let Some(TraceContext { trace_id, span_id, is_sampled }) = begun_by else { return (own, None) };
        let parent_span = parent.map_or(span_id, context::run_span_id);
        // The `traceparent` of a run that begins a trace names the run's own span: then there is no parent.
        (TraceContext { trace_id, is_sampled, ..own }, (parent_span != own.span_id).then_some(parent_span))
    }

    /// Takes a span that has ended, unless its trace is not recorded. Never waits.
    pub fn record(&self, span: Span) {
        if span.context.is_sampled && self.spans.try_send(span).is_err() {
            self.dropped.increment(1);
            if let Some(dropped) = self.drop_log.count() {
                tracing::warn!(
                    dropped,
                    "spans are dropped: too many wait for the collector (limits: spans_waiting_max); requests are not \
                     affected"
                );
            }
        }
    }
}

#[cfg(test)]
mod tests;
