//! What precedes HTTP on a connection: the PROXY header, then the TLS handshake.
//!
//! Always true: each is bounded in time, is cut short by a drain, and counts among the open connections; a connection
//! on which one of them fails gets no answer except a TLS alert.

use std::future::{Future, poll_fn};
use std::net::IpAddr;
use std::pin::pin;
use std::sync::atomic::Ordering::Acquire;
use std::task::Poll;
use std::time::SystemTime;

use http::{HeaderName, HeaderValue};
use rustls::{HandshakeKind, ServerConnection};
use tokio::net::TcpStream;
use tokio::time::sleep_until;

use super::drain;
use super::endpoint::{Endpoint, EndpointTls, Protocol};
use super::line_limit::LineLimit;
use super::monotonic::{instant, now};
use super::proxy_header::{self, BadHeader};
use super::shared::Shared;
use super::tls_handshake::{self, HandshakeFailure, Handshaken, handshake, version_name};
use super::tls_stream::TlsStream;
use super::wait::{ConnectionWait, Phase};
use crate::limits::Limits;
use crate::listener::{ClientIdentity, ProxyProtocol};

static REFUSED_LINES: LineLimit = LineLimit::new();

/// Reads the PROXY header, and returns the address of the client: the load balancer's address if the header names none.
/// `None` if the connection is to be closed.
pub(super) async fn read_source(
    shared: &Shared,
    endpoint: &Endpoint,
    declared: &ProxyProtocol,
    stream: &TcpStream,
    peer: IpAddr,
    wait: &ConnectionWait,
) -> Option<IpAddr> {
    let outcome = match declared.trusts(peer) {
        false => Err("untrusted"),
        true => match within(shared, wait, shared.limits.proxy_header_ms, proxy_header::read(stream, declared.version))
            .await
        {
            Ok(read) => read.map_err(BadHeader::as_str),
            Err(interrupted) => Err(interrupted.as_str()),
        },
    };
    match outcome {
        Ok(source) => {
            endpoint.count_proxy_header(if source.is_some() { "proxied" } else { "local" });
            // The wait for the first request begins.
            wait.enter(Phase::Head);
            Some(source.unwrap_or(peer))
        }
        Err(reason) => {
            endpoint.count_proxy_header(reason);
            if let Some(left_out) = REFUSED_LINES.next_line(now() / 1_000_000) {
                let listener = endpoint.name();
                let message = "a connection was closed: no PROXY header was accepted from it";
                tracing::warn!(listener, %peer, reason, left_out, "{message}");
            }
            None
        }
    }
}

/// A connection whose handshake is complete.
pub(super) struct Secured {
    pub(super) stream: TlsStream,
    /// The header fields for the client's certificate.
    pub(super) identity: Vec<(HeaderName, HeaderValue)>,
    /// The protocol that was negotiated by ALPN; HTTP/1.1 if the client offered none.
    pub(super) protocol: Protocol,
}

/// Performs the TLS handshake. `None` if it failed and the connection was closed.
pub(super) async fn secure(
    shared: &Shared,
    endpoint: &Endpoint,
    tls: &EndpointTls,
    socket: TcpStream,
    peer: IpAddr,
    wait: &ConnectionWait,
) -> Option<Secured> {
    let step = async {
        // Nothing is allocated until the client has sent something. `readable` would not do: it may return before there
        // are bytes. An error is ignored here, because it comes again when the first bytes are read.
        let _ = socket.peek(&mut [0_u8; 1]).await;
        let handshaken = handshake(&socket, tls.server.load().config()).await?;
        let identity = identity_of(&handshaken.connection, tls)?;
        Ok((handshaken, identity))
    };
    let outcome = within(shared, wait, shared.limits.tls_handshake_ms, step).await;
    let (reason, why) = match outcome {
        Ok(Ok((handshaken, identity))) => {
            let is_resumed = handshaken.connection.handshake_kind() == Some(HandshakeKind::Resumed);
            endpoint.count_handshake(version_name(&handshaken.connection), is_resumed);
            // The wait for the first request begins.
            wait.enter(Phase::Head);
            let Handshaken { connection, has_peer_closed } = handshaken;
            let is_http2 = connection.alpn_protocol() == Some(b"h2");
            let protocol = if is_http2 { Protocol::Http2 } else { Protocol::Http1 };
            return Some(Secured { stream: TlsStream::new(socket, connection, has_peer_closed), identity, protocol });
        }
        Ok(Err((failure, why))) => (failure.as_str(), why),
        Err(interrupted) => (interrupted.as_str(), "the handshake was not completed in time".to_owned()),
    };
    endpoint.count_failed_handshake(reason);
    if let Some(left_out) = REFUSED_LINES.next_line(now() / 1_000_000) {
        let listener = endpoint.name();
        tracing::info!(listener, %peer, reason, why, left_out, "a TLS handshake failed");
    }
    tokio::select! {
        () = tls_handshake::close(&socket, Limits::ms(shared.limits.linger_ms)) => {}
        () = shared.cut.cancelled() => {}
    }
    None
}

/// Returns the header fields for the client's certificate, if it has sent one.
fn identity_of(
    connection: &ServerConnection,
    tls: &EndpointTls,
) -> Result<Vec<(HeaderName, HeaderValue)>, (HandshakeFailure, String)> {
    let Some(certificate) = connection.peer_certificates().and_then(<[_]>::first) else { return Ok(Vec::new()) };
    let refused = |why: String| (HandshakeFailure::ClientCertificate, format!("the client's certificate: {why}"));
    let identity = ClientIdentity::of(certificate).map_err(refused)?;
    // The certificate of a session that is resumed was verified when the session began.
    if !identity.is_valid_at(SystemTime::now()) {
        return Err((HandshakeFailure::ClientCertificateExpired, "the client's certificate has expired".to_owned()));
    }
    Ok(identity.fields(&tls.identity))
}

/// Why a step that precedes HTTP was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Interrupted {
    /// The step took too long.
    TimedOut,
    /// The process stops.
    Stopping,
}

impl Interrupted {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Interrupted::TimedOut => "timeout",
            Interrupted::Stopping => "stopping",
        }
    }
}

/// Runs a step that precedes HTTP, within its limit. During a drain it may take no longer than a first request may, and
/// while a successor accepts, no longer than an idle client may: after that the successor may have the store.
pub(super) async fn within<F: Future>(
    shared: &Shared,
    wait: &ConnectionWait,
    limit_ms: u64,
    step: F,
) -> Result<F::Output, Interrupted> {
    let mut step = pin!(step);
    let mut deadline = now().saturating_add(limit_ms.saturating_mul(1_000));
    let mut timer = pin!(sleep_until(instant(deadline)));
    let mut why = Interrupted::TimedOut;
    poll_fn(|cx| {
        // Registered before the drain's state is read: the drain writes the state and then wakes.
        wait.waker.register(cx.waker());
        match shared.drain.load(Acquire) {
            drain::CUT => return Poll::Ready(Err(Interrupted::Stopping)),
            state @ (drain::FINISH | drain::HAND_OVER) if why == Interrupted::TimedOut => {
                why = Interrupted::Stopping;
                let hands_over = state == drain::HAND_OVER;
                let limit = if hands_over { shared.wait_limits.succession_idle } else { drain::FIRST_REQUEST_MICROS };
                deadline = deadline.min(now().saturating_add(limit));
                timer.as_mut().reset(instant(deadline));
            }
            _ => {}
        }
        match step.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Ok(output)),
            Poll::Pending => timer.as_mut().poll(cx).map(|()| Err(why)),
        }
    })
    .await
}
