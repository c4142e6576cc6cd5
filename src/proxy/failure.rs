//! Why a request has no answer from an arm, and the problem that its client gets.
//!
//! Always true: each detail says whether trying again could do the work twice; the reasons are a closed set, which
//! `pointsman help failures` lists.

use std::borrow::Cow;

use http::StatusCode;

use super::egress_refusal::EgressRefusal;
use super::hygiene::HeadRefusal;
use super::legacy::CallError;
pub(super) use super::unreadable_head::{HEAD_TOO_LARGE, MALFORMED_HEAD};
use super::wait::Overdue;
use super::workflow_gate::NoStore;
use crate::exchange::{ProblemDocument, Source};
use crate::flag::PathRefusal;
use crate::transport::ConnectError;

/// Why a request has no answer from an arm.
#[derive(Debug)]
pub(super) enum Failure {
    /// The head is refused.
    Head(HeadRefusal),
    /// The head has too many fields.
    HeadTooLarge,
    /// The path is refused.
    Path(PathRefusal),
    /// The resolved path and the query together do not form a valid target.
    Target,
    /// The client's body ended early or is framed wrongly.
    Body,
    /// The body is larger than the engine takes, and legacy may not be called.
    TooLarge,
    /// Like [`Failure::TooLarge`], but the engine may have taken an earlier try of the request.
    RetryTooLarge,
    /// The process has as many requests in flight as it may have.
    Overloaded,
    /// The route has as many requests in flight as it may have, and this one did not get its turn.
    RouteBusy,
    /// A wait exceeded its limit.
    Overdue(Overdue),
    /// The request's whole time was over while the request waited for this, before any part of it was sent to an arm.
    OverdueUnsent(WaitedFor),
    /// Legacy gave no reply.
    Legacy(CallError),
    /// Legacy's reply has a transfer coding that this proxy does not know, so the end of the body is not certain.
    TransferCoding,
    /// Legacy switched to another protocol without being asked.
    Switched,
    /// Legacy did not switch to the protocol that a client's extended CONNECT (HTTP/2) asked for.
    NotSwitched,
    /// No arm can answer safely.
    NoSafeArm(&'static str),
    /// It is not known which arm took the first try.
    FirstTryUnknown,
    /// The decision is for legacy, but the retry key cannot be recorded.
    KeyNotNoted,
    /// The store belongs to another process.
    NoStore(NoStore),
    /// The engine's answer does not meet the request's conditions.
    Precondition,
    /// A call by legacy may not be passed on.
    Egress(EgressRefusal),
    /// The engine refused the request with this problem.
    Engine(ProblemDocument),
    /// The engine did not answer by its own deadline.
    EngineSilent,
    /// The engine gave back a request that legacy may not answer.
    EngineGaveBack,
}

/// What a request waited for when its time was over.
#[derive(Debug)]
pub(super) enum WaitedFor {
    /// A turn at the service, or a connection to it.
    Service,
    /// A turn at the route.
    Route,
    /// The store, which this process takes over from another one.
    Store,
}

/// The end of a detail if nothing was sent to the service.
const NOTHING_SENT: &str = "Nothing was sent to it, so trying again cannot do the work twice.";
/// The end of a detail if the request was sent and may have been carried out.
const PERHAPS_DONE: &str =
    "The request was sent to it and may have been carried out: trying again could do the work twice.";
/// The end of a detail if the request was refused before any arm got it.
pub(super) const NOT_BEGUN: &str = "Nothing was begun, so trying again cannot do the work twice.";

/// The reason of a request whose head was not complete when its connection had to close during a drain.
pub(super) const HEAD_TIMEOUT: &str = "head-timeout";

/// Returns the problem's parts: status, kind, title, detail, and whether the connection must be closed.
pub(super) fn describe(failure: &Failure) -> (StatusCode, &'static str, &'static str, String, bool) {
    use StatusCode as S;
    let bad = |kind, title, why: String| (S::BAD_REQUEST, kind, title, format!("{why}. Nothing was forwarded."), true);
    match failure {
        Failure::Head(HeadRefusal::Ambiguous(why)) => {
            bad("ambiguous-request", "The request is ambiguous", capitalise(why))
        }
        Failure::Head(HeadRefusal::Connect) => {
            let detail = "CONNECT is not served; nothing was forwarded.".into();
            (S::NOT_IMPLEMENTED, "no-tunnel", "CONNECT is not served", detail, true)
        }
        Failure::Head(HeadRefusal::Trace) => {
            let detail = "TRACE is not served; nothing was forwarded.".into();
            (S::NOT_IMPLEMENTED, "no-trace", "TRACE is not served", detail, true)
        }
        Failure::Head(HeadRefusal::Expectation) => {
            let detail = format!("Only `Expect: 100-continue` can be met. {NOT_BEGUN}");
            (S::EXPECTATION_FAILED, "expectation-failed", "The expectation cannot be met", detail, true)
        }
        Failure::Head(HeadRefusal::Loop) => {
            let detail = format!(
                "The request has passed through Pointsman too many times: a service's address leads back to it. {NOT_BEGUN}"
            );
            (S::LOOP_DETECTED, "loop", "The request came back to this proxy", detail, true)
        }
        Failure::HeadTooLarge => {
            let detail = format!("The request has too many header fields (limits: head_fields_max). {NOT_BEGUN}");
            (S::REQUEST_HEADER_FIELDS_TOO_LARGE, HEAD_TOO_LARGE, "The head is too large", detail, true)
        }
        Failure::Path(why) => bad("bad-path", "The path is ambiguous or broken", capitalise(&why.to_string())),
        Failure::Target => bad("bad-path", "The path is ambiguous or broken", "The target cannot be read".into()),
        Failure::Body => {
            let detail =
                "The request's body ended early or is framed wrongly. No workflow was begun. If a part of it was \
                 forwarded, the service may have acted on that, and trying again could do the work twice."
                    .into();
            (S::BAD_REQUEST, "bad-body", "The body is broken", detail, true)
        }
        Failure::TooLarge => {
            let detail =
                format!("The body is larger than a workflow takes (limits: body_engine_bytes_max). {NOT_BEGUN}");
            (S::PAYLOAD_TOO_LARGE, "body-too-large", "The body is too large", detail, true)
        }
        Failure::RetryTooLarge => {
            let detail =
                "The body is larger than a workflow takes now (limits: body_engine_bytes_max), and the engine \
                          may have taken an earlier try of this request. Nothing was begun now; that try may have been \
                          carried out, so trying again under another key could do the work twice."
                    .into();
            (S::PAYLOAD_TOO_LARGE, "body-too-large", "The body is too large", detail, true)
        }
        Failure::Overdue(Overdue::Client) => {
            let detail =
                "No more of the request's body arrived (`idle`; limits: body_idle_ms). No workflow was begun. If a \
                          part of it was forwarded, the service may have acted on that, and trying again could do the \
                          work twice."
                    .into();
            (S::REQUEST_TIMEOUT, "body-timeout", "The body did not arrive in time", detail, true)
        }
        Failure::Overdue(Overdue::ClientSlow) => {
            let detail =
                "The request's body came too slowly (limits: client_send_bytes_per_s_min). No workflow was begun. \
                          If a part of it was forwarded, the service may have acted on that, and trying again could do \
                          the work twice."
                    .into();
            (S::REQUEST_TIMEOUT, "body-too-slow", "The body came too slowly", detail, true)
        }
        Failure::Overdue(Overdue::Upload) => {
            let detail = format!("The service stopped taking the body (`idle`; limits: body_idle_ms). {PERHAPS_DONE}");
            (S::GATEWAY_TIMEOUT, "legacy-upload-timeout", "The service stopped reading", detail, true)
        }
        Failure::Overdue(Overdue::FirstByte) => {
            let detail =
                format!("The service did not answer in time (`first_byte`; limits: first_byte_ms). {PERHAPS_DONE}");
            (S::GATEWAY_TIMEOUT, "legacy-timeout", "The service did not answer in time", detail, false)
        }
        Failure::Overdue(Overdue::Total | Overdue::Cut) => {
            let detail =
                "The request took longer than it may in all (`total`; limits: total_ms). It may have been carried out: \
                          trying again could do the work twice."
                    .into();
            (S::GATEWAY_TIMEOUT, "timeout", "The request took too long", detail, true)
        }
        Failure::OverdueUnsent(waited_for) => {
            let (title, what, nothing_done) = match waited_for {
                WaitedFor::Service => (
                    "The request waited too long for the service",
                    "for its turn at the service or for a connection to it",
                    NOTHING_SENT,
                ),
                WaitedFor::Route => (
                    "The request waited too long for its turn",
                    "for its turn at its route (`requests_max`)",
                    NOT_BEGUN,
                ),
                WaitedFor::Store => (
                    "The request waited too long for the store",
                    "for this process to take over the store of its predecessor",
                    NOT_BEGUN,
                ),
            };
            let detail =
                format!("The request's whole time (limits: total_ms) was over while it waited {what}. {nothing_done}");
            (S::GATEWAY_TIMEOUT, "timeout-not-sent", title, detail, true)
        }
        Failure::Overloaded => {
            let detail = format!(
                "Pointsman has as many requests as it may have at the same time (limits: requests_in_flight_max). \
                 {NOT_BEGUN}"
            );
            (S::SERVICE_UNAVAILABLE, "overloaded", "There are too many requests", detail, false)
        }
        Failure::RouteBusy => {
            let detail = format!(
                "The route has as many requests as it may have at the same time (`requests_max`), and this one did not \
                 get its turn (limits: legacy_turn_ms, legacy_waiting_max). {NOT_BEGUN}"
            );
            (S::SERVICE_UNAVAILABLE, "route-busy", "There are too many such requests", detail, false)
        }
        Failure::Legacy(CallError::Busy) => {
            let detail = format!(
                "The service has as many requests as it may get at the same time (`requests_max`), and this one did not \
                 get its turn (limits: legacy_turn_ms, legacy_waiting_max). {NOTHING_SENT}"
            );
            (S::SERVICE_UNAVAILABLE, "legacy-busy", "The service is busy", detail, false)
        }
        Failure::Legacy(CallError::Unreachable(ConnectError::Unresolved(_))) => {
            let detail = format!("The address of the service cannot be looked up now. {NOTHING_SENT}");
            (S::BAD_GATEWAY, "legacy-unresolved", "The service has no address", detail, false)
        }
        Failure::Legacy(CallError::Unreachable(ConnectError::TimedOut)) => {
            let detail = format!("No connection to the service could be made in time. {NOTHING_SENT}");
            (S::GATEWAY_TIMEOUT, "legacy-connect-timeout", "The service cannot be reached", detail, false)
        }
        Failure::Legacy(CallError::Unreachable(ConnectError::Tls(_))) => {
            let detail = format!(
                "The TLS handshake with the service failed, for example because its certificate is not trusted; the \
                 log says why. {NOTHING_SENT}"
            );
            (S::BAD_GATEWAY, "legacy-tls", "The service cannot be trusted", detail, false)
        }
        Failure::Legacy(CallError::NotProcessed) => {
            let detail =
                "The service says that it has not processed the request (HTTP/2), so trying again cannot do the \
                          work twice."
                    .into();
            (S::SERVICE_UNAVAILABLE, "legacy-not-processed", "The service has refused the request", detail, false)
        }
        Failure::Legacy(CallError::Unreachable(ConnectError::Refused(_) | ConnectError::Handshake(_))) => {
            let detail = format!("No connection to the service could be made. {NOTHING_SENT}");
            (S::BAD_GATEWAY, "legacy-unreachable", "The service cannot be reached", detail, false)
        }
        Failure::Legacy(CallError::Closed(_)) => {
            let detail = format!("The service closed the connection before it answered. {PERHAPS_DONE}");
            (S::BAD_GATEWAY, "legacy-closed", "The service closed the connection", detail, false)
        }
        Failure::Legacy(CallError::Invalid(error)) => {
            let why = match error.is_parse_too_large() {
                true => "head is too large, or has too many fields (limits: head_bytes_max, reply_fields_max)",
                false => "reply is not HTTP",
            };
            let detail = format!("The service's {why}. {PERHAPS_DONE}");
            (S::BAD_GATEWAY, "legacy-invalid", "The service's reply is broken", detail, false)
        }
        Failure::TransferCoding => {
            let detail = format!("The service's reply has a transfer coding other than `chunked`. {PERHAPS_DONE}");
            (S::BAD_GATEWAY, "legacy-invalid", "The service's reply is broken", detail, false)
        }
        Failure::Switched => {
            let detail = format!("The service switched to another protocol without being asked. {PERHAPS_DONE}");
            (S::BAD_GATEWAY, "legacy-invalid", "The service's reply is broken", detail, false)
        }
        Failure::NotSwitched => {
            let detail = format!("The service did not switch to the protocol that was asked for. {PERHAPS_DONE}");
            (S::BAD_GATEWAY, "legacy-invalid", "The service did not switch", detail, false)
        }
        Failure::NoSafeArm(why) => {
            let detail = format!("{}.", capitalise(why));
            (S::SERVICE_UNAVAILABLE, "no-safe-arm", "Neither arm can answer safely now", detail, false)
        }
        Failure::FirstTryUnknown => {
            let detail = format!("It is not known now which arm took the first try of this request. {NOT_BEGUN}");
            (S::SERVICE_UNAVAILABLE, "no-safe-arm", "Neither arm can answer safely now", detail, false)
        }
        Failure::KeyNotNoted => {
            let detail = format!(
                "Legacy would answer this request, but its retry key cannot be recorded, so on a retry the workflow \
                 could perform it a second time (limits: retry_keys_file_bytes_max). {NOT_BEGUN}"
            );
            (S::SERVICE_UNAVAILABLE, "retry-key-not-noted", "Not started", detail, false)
        }
        Failure::NoStore(NoStore::NotTakenOver) => {
            let detail = format!(
                "This process takes over from another one, and does not have the store yet (limits: \
                 succession_wait_ms, succession_waiting_max). {NOT_BEGUN}"
            );
            (S::SERVICE_UNAVAILABLE, "taking-over", "Not started", detail, false)
        }
        Failure::NoStore(NoStore::HandedOver) => {
            let detail = format!("This process has handed over its store: send the request again. {NOT_BEGUN}");
            (S::SERVICE_UNAVAILABLE, "handed-over", "Not started", detail, true)
        }
        Failure::Legacy(CallError::OwnListener) => describe(&Failure::Egress(EgressRefusal::Loop)),
        Failure::Egress(refusal) => {
            let (status, kind, title, why) = refusal.describe();
            (status, kind, title, format!("{why} {NOT_BEGUN}"), false)
        }
        Failure::Precondition => {
            let detail =
                "The workflow has answered, and its answer does not meet the request's condition (`If-Match`, \
                          `If-Unmodified-Since`). Trying again runs the workflow again, as every repeated GET or HEAD \
                          does."
                    .into();
            (S::PRECONDITION_FAILED, "precondition-failed", "The precondition failed", detail, false)
        }
        Failure::EngineSilent => {
            let detail =
                "The workflow gave no answer in time and may continue: trying again could do the work twice.".into();
            (S::GATEWAY_TIMEOUT, "engine-timeout", "The workflow did not answer in time", detail, false)
        }
        Failure::EngineGaveBack => {
            let detail = format!("The engine cannot run this now, and legacy may not be called. {NOT_BEGUN}");
            (S::SERVICE_UNAVAILABLE, "engine-unavailable", "The engine cannot run this now", detail, false)
        }
        Failure::Engine(problem) => {
            let status = S::from_u16(problem.status).unwrap_or(S::INTERNAL_SERVER_ERROR);
            (status, "", "", String::new(), false)
        }
    }
}

fn capitalise(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

/// Returns where the error came from: the value of `x-pointsman-source`.
pub(super) fn source(failure: &Failure) -> Source {
    match failure {
        Failure::Engine(problem) => problem.source,
        _ => Source::Proxy,
    }
}

/// The reason for which a refused request is counted and logged: the last part of its problem's type.
pub(super) fn reason(failure: &Failure, kind: &'static str) -> Cow<'static, str> {
    match failure {
        Failure::Engine(problem) => Cow::Owned(problem.kind.clone()),
        _ => Cow::Borrowed(kind),
    }
}

#[cfg(test)]
mod tests;
