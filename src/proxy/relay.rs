//! Calls legacy for a request, and passes its reply on to the client.
//!
//! Always true: the reply's bytes are passed on as they come, without hop-by-hop fields; a reply that was framed twice
//! (with a transfer coding and a length) is the last one on its connection; a switch to a protocol that nobody asked
//! for is an error. `legacy` chooses the connection; `copied_exchange` copies request and reply for the comparison.

use std::pin::pin;
use std::time::Duration;

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version, request};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use metrics::counter;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;

use super::client_upgrade::{ClientUpgrade, StreamIo};
use super::copied_exchange::{CopiedExchange, NotCopied};
use super::cut_reason::CutReason;
use super::failure::{Failure, WaitedFor};
use super::headers::strip_reply;
use super::interim_replies::InterimReplies;
use super::legacy::{self, CallError};
use super::line_limit::LineLimit;
use super::monotonic::{now, recent};
use super::prepare_copy::CopySetup;
use super::proxied_request::{Client, ProxiedRequest, declared_length};
use super::reply_body::ReplyBody;
use super::request_body::RequestBody;
use super::respond::Refused;
use super::route_entry::RouteEntry;
use super::tunnel::{self, TunnelEnd};
use super::uncompared_request::UncomparedRequest;
use super::unsent_body;
use super::upload::Upload;
use super::wait::{ConnectionWait, Overdue, Phase};
use crate::clock;
use crate::flag::{SkipReason, State};
use crate::limits::Limits;
use crate::names::ServiceName;
use crate::secret::without_secret_params;
use crate::transport::{NotedCaller, client_text, has_known_coding, path_pattern};

/// A request that is to be forwarded to legacy. Forwarding takes what it needs out of the head and the body.
pub(super) struct RequestToForward<'a> {
    pub proxied: ProxiedRequest<'a>,
    pub head: &'a mut request::Parts,
    pub upload: &'a mut Upload,
    pub copies: CopySetup,
    pub rung: State,
}

/// Forwards a request whose body the client may still be sending, and answers the client with legacy's reply. Where the
/// files ask for it (`buffer_request`), the body is read first, so that legacy's connection and turn are taken only
/// when all of it is there. A call of gRPC is not read ahead: its client may wait for a part of the reply before it
/// goes on.
pub(super) async fn forward(request: RequestToForward<'_>) -> Result<Response<ReplyBody>, Refused> {
    let RequestToForward { mut proxied, head, upload, copies: (copied, copy), rung } = request;
    let (client, buffer_request) = (proxied.client, proxied.entry.buffer_request);
    if let Some(rates) = client.wait.rates()
        && is_grpc(&head.headers)
    {
        rates.set_streaming();
    }
    if buffer_request > 0 && !upload.is_empty() && !is_grpc(&head.headers) {
        let (wait, at) = (&client.wait, now());
        wait.enter(Phase::Upload);
        let read = upload.buffer(buffer_request, declared_length(&head.headers), &client.shared.request_buffers);
        let failure = match wait.or_overdue(read).await {
            Ok(()) => upload.whole().err().map(|()| Failure::Body),
            Err(overdue) => Some(Failure::Overdue(overdue)),
        };
        if let Some(failure) = failure {
            if let Some(copied) = copied {
                copied.skip(SkipReason::ClientWentAway);
            }
            return Err(proxied.refused(rung, failure));
        }
        wait.enter(Phase::OwnDeadline);
        proxied.waited += now().saturating_sub(at);
    }
    answer_from_legacy(proxied, head, upload.stream(copy), copied, rung).await
}

/// Notes who calls the service.
fn note_caller<B>(client: &Client, entry: &RouteEntry, request: &Request<B>, is_egress: bool) {
    let callers = entry.upstream.callers();
    if callers.takes(recent() / 1_000_000) {
        let source = if is_egress { "egress".to_owned() } else { format!("route {}", entry.route_metrics.route()) };
        let agent = request.headers().get(USER_AGENT).map(HeaderValue::as_bytes);
        let path = request.uri().path();
        let shown = entry.template.as_ref().map(|template| without_secret_params(path, template, "{}"));
        let path = path_pattern(request.method(), shown.as_deref().unwrap_or(path));
        callers.note(NotedCaller { source, client: client_text(client.peer, agent), path }, clock::now());
    }
}

pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    has_kind(headers, b"application/grpc")
}

/// Whether the content type begins with `kind`.
fn has_kind(headers: &HeaderMap, kind: &[u8]) -> bool {
    let is_kind =
        |value: &HeaderValue| value.as_bytes().get(..kind.len()).is_some_and(|v| v.eq_ignore_ascii_case(kind));
    headers.get(CONTENT_TYPE).is_some_and(is_kind)
}

/// Notes a reply whose kind says that its bytes may come slowly: it has no minimum rate.
pub(super) fn note_slow_kinds(wait: &ConnectionWait, headers: &HeaderMap) {
    if let Some(rates) = wait.rates()
        && (has_kind(headers, b"text/event-stream") || is_grpc(headers))
    {
        rates.set_streaming();
    }
}

/// Calls legacy, and answers the client with its reply. Takes what it needs of the head.
pub(super) async fn answer_from_legacy(
    mut proxied: ProxiedRequest<'_>,
    head: &mut request::Parts,
    body: RequestBody,
    mut copied: Option<CopiedExchange>,
    rung: State,
) -> Result<Response<ReplyBody>, Refused> {
    let (client, entry) = (proxied.client, proxied.entry);
    let wait = &client.wait;
    let is_egress = client.shared.egress.is_some();
    let is_compared = copied.as_ref().is_some_and(CopiedExchange::is_compared_request);
    let registry = client.shared.effect_registry.as_deref().filter(|_| !is_egress && !is_compared);
    let (uncompared, body) = match registry {
        Some(registry) => {
            let (uncompared, body) = UncomparedRequest::begin(registry, body);
            (Some(uncompared), body)
        }
        None => (None, body),
    };
    let mut request = Request::new(body);
    *request.method_mut() = std::mem::take(&mut head.method);
    *request.uri_mut() = std::mem::take(&mut head.uri);
    *request.headers_mut() = std::mem::take(&mut head.headers);
    let interim = head.extensions.remove::<InterimReplies>();
    if entry.upstream.service.preserve_header_case {
        // hyper keeps the case of field names in the extensions.
        *request.extensions_mut() = std::mem::take(&mut head.extensions);
    }
    let passes_interim = interim.is_some();
    if let Some(interim) = interim {
        interim.listen(&mut request, wait);
    }
    // A call that legacy makes is passed on as it came.
    if is_egress {
        client.record.begin_service_call(&entry.upstream.service);
    } else {
        client.forwarder.forward(request.headers_mut());
        client.record.begin_legacy_call(&entry.upstream.service, request.headers_mut());
    }
    note_caller(client, entry, &request, is_egress);
    match (&mut copied, uncompared) {
        (_, Some(uncompared)) => {
            proxied.admission.watch = Some(uncompared.announce(&request, &proxied.params, client.peer));
        }
        (Some(CopiedExchange::Request(copied)), None) => {
            copied.watch_effects(request.headers());
            copied.keep_sent(request.headers());
        }
        (Some(CopiedExchange::Skipped(_) | CopiedExchange::Call(_)) | None, None) => {}
    }
    client.record.note(|record| {
        (record.rung, record.service) = ((!is_egress).then_some(rung), Some(entry.upstream.service.name.clone()));
    });
    if let Some(at_legacy) = &mut proxied.admission.at_legacy {
        at_legacy.sent();
    }
    let called = {
        // Pinned here: a future that is passed by value takes its space twice in the enclosing future.
        let call = pin!(legacy::call(&entry.upstream, &mut request, wait, &client.own_connections, passes_interim));
        wait.or_overdue(call).await
    };
    let failure = match called {
        Ok(Ok((response, mut connection))) => {
            let (mut parts, incoming) = response.into_parts();
            let replied = now();
            wait.enter_at(Phase::Reply, replied);
            note_slow_kinds(wait, &parts.headers);
            if parts.status == StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE && !is_egress {
                log_head_too_large(&entry.upstream.service.name);
            }
            client.record.note(|record| {
                record.connect = Some(Duration::from_micros(connection.connecting));
                record.first_byte = Some(Duration::from_micros(replied.saturating_sub(connection.sent)));
            });
            let switching = parts.status == StatusCode::SWITCHING_PROTOCOLS;
            let invalid = match &proxied.upgrade {
                _ if !has_known_coding(&parts.headers) => Some(Failure::TransferCoding),
                None if switching => Some(Failure::Switched),
                // The client of an extended CONNECT would take any success as a switch of protocols.
                Some(ClientUpgrade::Stream(_)) if parts.status.is_success() => Some(Failure::NotSwitched),
                None | Some(_) => None,
            };
            if let Some(failure) = invalid {
                if let Some(copied) = copied {
                    copied.skip(SkipReason::LegacyFailed);
                }
                return Err(proxied.refused(rung, failure));
            }
            if switching && let Some(upgrade) = proxied.upgrade.take() {
                let legacy = on_upgrade_reply(&mut parts);
                let egress = client.shared.egress.as_ref();
                let unseen =
                    egress.zip(proxied.table.egress.as_ref()).and_then(|(egress, to)| egress.switched(to, entry));
                let open = (entry.upstream.callers().tunnel(), unseen);
                let (held, code) = ((connection.turn.take(), proxied.admission.take(), open), parts.status);
                match upgrade {
                    ClientUpgrade::Connection(upgrade) => {
                        let held = (held, client.shared.open_connections.count());
                        tunnel(client, code, switched(upgrade), switched(legacy), held)
                    }
                    ClientUpgrade::Stream(stream) => tunnel(client, code, handed_over(stream), switched(legacy), held),
                }
            }
            connection.reusable = strip_reply(&mut parts.headers, switching, !is_egress) && !switching;
            let length = http_body::Body::size_hint(&incoming).exact();
            let turn_at = connection.turn.as_ref().map_or(0, |turn| turn.taken_at);
            let copied_reply = copied.map(|mut copied| {
                copied.set_turn_at(turn_at);
                if client.wait.has_fin() {
                    copied.on_caller_closed();
                }
                copied.on_reply_head(parts.status, &parts.headers, length)
            });
            let copied_reply = match copied_reply {
                Some(Ok(copied)) => Some(copied),
                Some(Err(NotCopied(watch))) => {
                    proxied.admission.watch = watch;
                    None
                }
                None => None,
            };
            let answered = proxied.answered(rung, client.shared.forwarded_to(), parts.status);
            let asked = connection.sent.saturating_sub(connection.connecting);
            // Not overhead of the proxy: the request waited for its turn because legacy had as many as it may get.
            let waited = connection.turn.as_ref().map_or(0, |turn| turn.waited);
            let waited = waited + proxied.waited;
            let before = asked.saturating_sub(proxied.began).saturating_sub(waited);
            entry.route_metrics.record_overhead(before + now().saturating_sub(replied));
            parts.version = Version::HTTP_11;
            let unmodified = parts.status == StatusCode::NOT_MODIFIED && parts.headers.contains_key(CONTENT_LENGTH);
            let mut body = ReplyBody::legacy(incoming, connection, copied_reply, wait.clone(), Some(answered));
            if unmodified {
                body = body.unmodified();
            }
            return Ok(Response::from_parts(parts, body));
        }
        Ok(Err(CallError::Closed(_) | CallError::Invalid(_))) if wait.is_request_broken() => Failure::Body,
        Ok(Err(error)) => Failure::Legacy(error),
        Err(Overdue::Total) if !wait.is_sent() => Failure::OverdueUnsent(WaitedFor::Service),
        Err(overdue) => Failure::Overdue(overdue),
    };
    let is_certainly_unsent = matches!(
        failure,
        Failure::OverdueUnsent(_)
            | Failure::Legacy(
                CallError::Busy | CallError::OwnListener | CallError::NotProcessed | CallError::Unreachable(_)
            )
    );
    if let Some(at_legacy) = proxied.admission.at_legacy.as_mut().filter(|_| is_certainly_unsent) {
        at_legacy.ended();
    }
    if let Some(copied) = copied {
        let why = match failure {
            Failure::Body | Failure::Overdue(Overdue::Client | Overdue::ClientSlow) => SkipReason::ClientWentAway,
            Failure::Legacy(CallError::Busy | CallError::OwnListener | CallError::NotProcessed)
            | Failure::OverdueUnsent(_) => SkipReason::LegacyRefused,
            _ => SkipReason::LegacyFailed,
        };
        match copied.body_of_call().filter(|_| is_certainly_unsent).cloned() {
            Some(copy) => {
                let body = std::mem::take(request.body_mut());
                client.shared.tasks.spawn(async move {
                    unsent_body::read_to_copy(body, &copy).await;
                    copied.skip(why);
                });
            }
            None => copied.skip(why),
        }
    }
    Err(proxied.refused(rung, failure))
}

static HEAD_LINES: LineLimit = LineLimit::new();

/// Counts and logs that a service refuses a head as too large: the fields that the proxy added may be the cause.
fn log_head_too_large(service: &ServiceName) {
    counter!("pointsman_legacy_heads_refused_total", "service" => service.to_string()).increment(1);
    if let Some(left_out) = HEAD_LINES.next_line(now() / 1_000_000) {
        let message = "legacy refuses the head of a request as too large (431); Pointsman adds some fields to each \
                       (`pointsman help files`): let legacy accept larger heads, or lower `head_bytes_max`";
        tracing::warn!(%service, left_out, "{message}");
    }
}

fn on_upgrade_reply(parts: &mut http::response::Parts) -> OnUpgrade {
    let mut response = Response::new(());
    *response.extensions_mut() = std::mem::take(&mut parts.extensions);
    let upgrade = hyper::upgrade::on(&mut response);
    parts.extensions = std::mem::take(response.extensions_mut());
    upgrade
}

/// Returns an HTTP/1.1 connection once it has switched to another protocol; `None` if that failed.
pub(super) async fn switched(upgrade: OnUpgrade) -> Option<TokioIo<Upgraded>> {
    let switched = upgrade.await.inspect_err(|error| tracing::debug!(%error, "an upgrade failed"));
    switched.ok().map(TokioIo::new)
}

/// Returns an HTTP/2 stream once its answer was sent.
async fn handed_over(stream: oneshot::Receiver<StreamIo>) -> Option<StreamIo> {
    stream.await.ok()
}

/// Passes bytes of another protocol both ways until the tunnel ends. Until then the client, which got this status,
/// counts as an open connection, and `held` is kept.
pub(super) fn tunnel<C, L>(
    client: &Client,
    status: StatusCode,
    from_client: impl Future<Output = Option<C>> + Send + 'static,
    from_legacy: impl Future<Output = Option<L>> + Send + 'static,
    held: impl Send + 'static,
) where
    C: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    L: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let shared = &client.shared;
    let idle = Limits::ms(shared.limits.client_idle_ms);
    let (cut, wait, connection_permit) = (shared.cut.clone(), client.wait.clone(), client.connection_permit.clone());
    let answered_by = shared.forwarded_to();
    // The exchange ends with the tunnel, not with the head of its reply.
    let record = client.record.take();
    shared.tasks.spawn(async move {
        wait.enter(Phase::Tunnel);
        let TunnelEnd { from_client, from_legacy, cut } =
            tunnel::copy_both_ways(from_client, from_legacy, idle, cut).await;
        cut.into_iter().for_each(CutReason::count);
        if let Some(mut record) = record {
            record.note(|record| {
                record.status = Some(status.as_u16());
                record.arm = Some(answered_by.as_str());
                (record.request_bytes, record.reply_bytes) = (from_client, from_legacy);
            });
            record.end(cut);
        }
        drop((connection_permit, held));
    });
}
