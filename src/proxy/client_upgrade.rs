//! Switching a client's side to another protocol: an HTTP/1.1 connection by `Upgrade`, a stream of HTTP/2 by an
//! extended CONNECT (RFC 8441).
//!
//! Always true: both are sent to legacy as an HTTP/1.1 `Upgrade`. Only the tunnel, which uses the client's side, treats
//! the two differently.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h2::{Reason, RecvStream, SendStream};
use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderName, HeaderValue, Method, Request, request};
use hyper::upgrade::OnUpgrade;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;

const SEC_WEBSOCKET_KEY: HeaderName = HeaderName::from_static("sec-websocket-key");
/// The most bytes that are handed to a stream at once.
const PIECE_BYTES: usize = 16 << 10;

/// The client's side of a switch to another protocol.
pub(super) enum ClientUpgrade {
    /// The whole HTTP/1.1 connection.
    Connection(OnUpgrade),
    /// An HTTP/2 stream, available once the answer was sent on it.
    Stream(oneshot::Receiver<StreamIo>),
}

/// Marks a request that was an extended CONNECT, and holds the client's side of the switch.
#[derive(Clone)]
struct ExtendedConnect(Arc<Mutex<Option<oneshot::Receiver<StreamIo>>>>);

/// Rewrites an extended CONNECT for a WebSocket as the equivalent HTTP/1.1 request. Returns where the stream is to be
/// handed over; `None` for any other request, including an extended CONNECT for another protocol or with the fields of
/// a body.
pub(super) fn rewrite_extended_connect(head: &mut request::Parts) -> Option<oneshot::Sender<StreamIo>> {
    let protocol = head.extensions.remove::<h2::ext::Protocol>()?;
    // With a length, some servers would wait for a body.
    let is_framed = [CONTENT_LENGTH, TRANSFER_ENCODING, EXPECT].iter().any(|name| head.headers.contains_key(name));
    if head.method != Method::CONNECT || protocol.as_str() != "websocket" || is_framed {
        return None;
    }
    let (sender, receiver) = oneshot::channel();
    head.method = Method::GET;
    head.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    head.headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    head.headers.insert(SEC_WEBSOCKET_KEY, websocket_key());
    head.extensions.insert(ExtendedConnect(Arc::new(Mutex::new(Some(receiver)))));
    Some(sender)
}

/// Returns the nonce that HTTP/1.1 requires and HTTP/2 does not have.
fn websocket_key() -> HeaderValue {
    use base64::prelude::{BASE64_STANDARD, Engine};
    let key = BASE64_STANDARD.encode(fastrand::u128(..).to_be_bytes());
    HeaderValue::try_from(key).unwrap_or(HeaderValue::from_static("AAAAAAAAAAAAAAAAAAAAAA=="))
}

/// Whether the request was an extended CONNECT.
pub(super) fn is_extended_connect(head: &request::Parts) -> bool {
    head.extensions.get::<ExtendedConnect>().is_some()
}

/// Returns the client's side of the switch, which is to be used once legacy has switched to another protocol.
pub(super) fn on_upgrade(head: &mut request::Parts) -> ClientUpgrade {
    if let Some(ExtendedConnect(stream)) = head.extensions.remove()
        && let Some(stream) = stream.lock().unwrap_or_else(PoisonError::into_inner).take()
    {
        return ClientUpgrade::Stream(stream);
    }
    let mut request = Request::new(());
    *request.extensions_mut() = std::mem::take(&mut head.extensions);
    let upgrade = hyper::upgrade::on(&mut request);
    head.extensions = std::mem::take(request.extensions_mut());
    ClientUpgrade::Connection(upgrade)
}

/// An HTTP/2 stream used as a byte connection: END_STREAM ends one direction, a reset is an error.
pub(super) struct StreamIo {
    send: SendStream<Bytes>,
    receive: RecvStream,
    /// Bytes that were received and not read yet.
    unread: Bytes,
    has_ended: bool,
    /// Reports how the stream ended: `true` if both directions ended with END_STREAM.
    ended: Option<oneshot::Sender<bool>>,
    has_client_ended: bool,
}

impl StreamIo {
    /// Returns the stream, and the receiver of how it ended.
    pub(super) fn new(send: SendStream<Bytes>, receive: RecvStream) -> (Self, oneshot::Receiver<bool>) {
        let (ended, has_ended) = oneshot::channel();
        let unread = Bytes::new();
        let io = Self { send, receive, unread, has_ended: false, ended: Some(ended), has_client_ended: false };
        (io, has_ended)
    }
}

fn io_error(error: h2::Error) -> std::io::Error {
    if error.is_io() {
        error.into_io().unwrap_or(std::io::ErrorKind::Other.into())
    } else {
        std::io::Error::other(error)
    }
}

impl AsyncRead for StreamIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let this = &mut *self;
        while this.unread.is_empty() {
            match ready!(this.receive.poll_data(cx)) {
                Some(data) => this.unread = data.map_err(io_error)?,
                None => {
                    this.has_client_ended = true;
                    return Poll::Ready(Ok(()));
                }
            }
        }
        let count = this.unread.len().min(buf.remaining());
        buf.put_slice(&this.unread[..count]);
        this.unread.advance(count);
        // The window for these bytes is released only now, when they were read. Releasing fails only for more than was
        // received.
        let _ = this.receive.flow_control().release_capacity(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for StreamIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.send.reserve_capacity(buf.len().min(PIECE_BYTES));
        while self.send.capacity() == 0 {
            match ready!(self.send.poll_capacity(cx)) {
                Some(capacity) => capacity.map_err(io_error)?,
                None => return Poll::Ready(Err(std::io::ErrorKind::BrokenPipe.into())),
            };
        }
        let count = self.send.capacity().min(buf.len()).min(PIECE_BYTES);
        self.send.send_data(Bytes::copy_from_slice(&buf[..count]), false).map_err(io_error)?;
        Poll::Ready(Ok(count))
    }
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        if !self.has_ended {
            self.has_ended = true;
            self.send.send_data(Bytes::new(), true).map_err(io_error)?;
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for StreamIo {
    fn drop(&mut self) {
        let is_whole = self.has_ended && self.has_client_ended;
        if !is_whole {
            self.send.send_reset(Reason::CANCEL);
        }
        if let Some(ended) = self.ended.take() {
            let _ = ended.send(is_whole); // nobody waits if the connection has ended
        }
    }
}
