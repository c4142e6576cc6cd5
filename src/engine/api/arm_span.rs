//! The span of the engine's arm: one request to the engine, from its checks to its reply.
//!
//! Always true: the span of the run that begins for the request is a child of this span, which is itself a child of the
//! exchange's span; so the run's first event names this span. A request whose caller no longer waits for the reply has
//! a span too.

use std::sync::Arc;

use jiff::Timestamp;

use super::arm;
use crate::clock;
use crate::engine::context::Core;
use crate::engine::run_trace::traceparent;
use crate::exchange::{ArmReply, ArmRequest, RequestCopy};
use crate::traces::{self, Attributes, HTTP_STATUS, Span, SpanKind, TraceContext, Traces};

/// Answers a request and records its span.
pub(in crate::engine) async fn handle(core: Arc<Core>, mut request: ArmRequest) -> ArmReply {
    let Some(mut span) = ArmSpan::begin(&mut request) else { return arm::handle(core, request).await };
    let reply = arm::handle(core, request).await;
    span.set_reply(&reply);
    reply
}

/// The span of a request that is being answered; recorded when this is dropped.
struct ArmSpan {
    traces: &'static Traces,
    context: TraceContext,
    parent: u64,
    start: Timestamp,
    attributes: Attributes,
    /// Why there is no answer, or the status of an answer with a server error.
    error: Option<String>,
}

impl ArmSpan {
    /// Begins the span; `None` if the request's trace is not recorded.
    fn begin(request: &mut ArmRequest) -> Option<Self> {
        let traces = traces::installed()?;
        let caller = request.request.caller_trace().and_then(|value| TraceContext::parse(value.as_bytes()));
        let caller = caller.filter(|caller| caller.is_sampled)?;
        let context = Traces::child(caller);
        request.request = Arc::new(RequestCopy { traceparent: traceparent(context), ..(*request.request).clone() });
        let mut attributes = Attributes::new();
        attributes.add("pointsman.route", Some(request.route.as_str()));
        attributes.add("pointsman.workflow", request.workflow.as_ref().map(|workflow| workflow.as_str()));
        attributes.add("pointsman.mode", Some(request.mode.as_str()));
        let error = Some("no_reply".to_owned());
        Some(Self { traces, context, parent: caller.span_id, start: clock::now(), attributes, error })
    }

    fn set_reply(&mut self, reply: &ArmReply) {
        let (status, run) = match reply {
            ArmReply::Answer(answer) => {
                self.error = answer.status.is_server_error().then(|| format!("status {}", answer.status.as_u16()));
                (Some(answer.status.as_u16()), answer.report.run)
            }
            ArmReply::Refused(problem, report) => {
                self.error = Some(problem.kind.clone());
                (Some(problem.status), problem.run.or(report.run))
            }
            ArmReply::Abandoned(abandoned) => {
                self.error = Some(format!("given back: {}", abandoned.reason));
                (None, abandoned.run)
            }
        };
        self.attributes.add(HTTP_STATUS, status.map(u64::from));
        self.attributes.add("pointsman.run", run.map(|run| run.to_string()).as_deref());
    }
}

impl Drop for ArmSpan {
    fn drop(&mut self) {
        let Self { traces, context, parent, start, attributes, error } = self;
        let mut attributes = std::mem::take(attributes);
        attributes.add("error.type", error.as_deref());
        traces.record(Span {
            context: *context,
            parent: Some(*parent),
            name: "engine".to_owned(),
            kind: SpanKind::Internal,
            start: *start,
            end: clock::now(),
            attributes,
            error: error.take(),
        });
    }
}
