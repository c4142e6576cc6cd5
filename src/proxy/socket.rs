//! The client's socket as hyper reads and writes it.
//!
//! Always true: moving bytes restart the limit in [`ConnectionWait`]; closing after an early answer first waits until
//! the client stops sending (bounded in time and bytes), because closing a socket with unread bytes sends a reset that
//! can destroy the answer on its way. hyper with half-closing allowed does not read the socket while a request is in
//! flight, so [`Transport::peek`] finds out whether the client is gone. With TLS all this holds for the bytes on the
//! socket, not for those in the session's buffer (`tls_stream`). HTTP/2 uses the same transport (`http2::io`).

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::headers::Scheme;
use super::raw_socket::{self, LINGER_BYTES_MAX, Peek};
use super::settler::Settler;
use super::tls_stream::TlsStream;
use super::unreadable_head;
use super::wait::{ConnectionWait, Phase};

/// The transport of a connection's HTTP bytes.
pub(super) enum Transport {
    /// The socket itself.
    Plain(TcpStream),
    /// A TLS session over the socket. Boxed, so that a plain connection takes less memory.
    Tls(Box<TlsStream>),
}

impl Transport {
    pub(super) fn socket(&self) -> &TcpStream {
        match self {
            Transport::Plain(socket) => socket,
            Transport::Tls(tls) => &tls.socket,
        }
    }

    pub(super) fn scheme(&self) -> Scheme {
        match self {
            Transport::Plain(_) => Scheme::Http,
            Transport::Tls(_) => Scheme::Https,
        }
    }

    /// Whether no bytes are buffered between HTTP and the socket, in either direction.
    pub(super) fn is_at_rest(&self) -> bool {
        match self {
            Transport::Plain(_) => true,
            Transport::Tls(tls) => tls.is_at_rest(),
        }
    }

    /// Checks whether the client has sent something, or has gone, without consuming bytes of requests; costs no system
    /// call while nothing has arrived.
    pub(super) fn peek(&self, wait: &ConnectionWait, cx: &mut Context<'_>) -> Peek {
        match self {
            Transport::Plain(socket) => raw_socket::peek(socket, cx),
            Transport::Tls(tls) => tls.poll_peek(wait, cx),
        }
    }

    /// Reads once; 0 at the end of the client's bytes.
    pub(super) fn poll_read(
        &self,
        wait: &ConnectionWait,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<usize>> {
        match self {
            Transport::Plain(socket) => poll_read_socket(socket, cx, buf),
            Transport::Tls(tls) => tls.poll_read(wait, cx, buf),
        }
    }

    pub(super) fn poll_write(
        &self,
        wait: &ConnectionWait,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self {
            Transport::Plain(socket) => poll_write_socket(socket, wait, cx, |socket| socket.try_write(buf)),
            Transport::Tls(tls) => tls.poll_write(wait, cx, &[IoSlice::new(buf)]),
        }
    }

    pub(super) fn poll_write_vectored(
        &self,
        wait: &ConnectionWait,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self {
            Transport::Plain(socket) => poll_write_socket(socket, wait, cx, |socket| socket.try_write_vectored(bufs)),
            Transport::Tls(tls) => tls.poll_write(wait, cx, bufs),
        }
    }

    /// Completes when the socket has taken all that was written.
    pub(super) fn poll_flush(&self, wait: &ConnectionWait, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Transport::Plain(_) => Poll::Ready(Ok(())),
            Transport::Tls(tls) => tls.poll_flush(wait, cx),
        }
    }
}

fn poll_read_socket(socket: &TcpStream, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<usize>> {
    loop {
        ready!(socket.poll_read_ready(cx))?;
        match raw_socket::read(socket, buf) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            read => return Poll::Ready(read),
        }
    }
}

fn poll_write_socket(
    socket: &TcpStream,
    wait: &ConnectionWait,
    cx: &mut Context<'_>,
    write: impl Fn(&TcpStream) -> io::Result<usize>,
) -> Poll<io::Result<usize>> {
    loop {
        let Poll::Ready(ready) = socket.poll_write_ready(cx) else {
            wait.write_blocked(socket);
            return Poll::Pending;
        };
        ready?;
        match write(socket) {
            Ok(n) => {
                if wait.phase() == Phase::Reply {
                    wait.progress();
                    wait.rates().into_iter().for_each(|rates| rates.written(n));
                }
                return Poll::Ready(Ok(n));
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Poll::Ready(Err(e)),
        }
    }
}

/// Ends the sending side, then reads and discards what the client still sends.
#[derive(Default)]
pub(super) struct Closing {
    shut: bool,
    discarded: usize,
}

impl Closing {
    /// Completes when the connection can be closed without destroying what the client has not read yet.
    pub(super) fn poll(
        &mut self,
        transport: &Transport,
        wait: &ConnectionWait,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.shut {
            let idle = matches!(wait.phase(), Phase::Idle | Phase::Tunnel);
            if let Transport::Tls(tls) = transport {
                let notified = tls.poll_close_notify(wait, cx);
                // A client that takes no bytes is not waited for if its connection is idle.
                if !idle && notified.is_pending() {
                    return Poll::Pending;
                }
            }
            self.shut = true;
            let result = rustix::net::shutdown(transport.socket(), rustix::net::Shutdown::Write);
            if result.is_err() || idle || wait.has_fin() {
                return Poll::Ready(Ok(()));
            }
            wait.enter(Phase::Linger);
        }
        // If the client goes on sending or never closes, the limit of `Phase::Linger` ends this.
        loop {
            ready!(transport.socket().poll_read_ready(cx))?;
            let mut waste = [0_u8; 8 << 10];
            match transport.socket().try_read(&mut waste) {
                Ok(0) => return Poll::Ready(Ok(())),
                Ok(n) => {
                    self.discarded += n;
                    if self.discarded > LINGER_BYTES_MAX {
                        return Poll::Ready(Ok(()));
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return Poll::Ready(Ok(())),
            }
        }
    }
}

/// Takes bytes that were read from the socket before; returns their number.
pub(super) fn take_read_before(read_before: &mut Bytes, buf: &mut ReadBuf<'_>) -> usize {
    let count = read_before.len().min(buf.remaining());
    buf.put_slice(&read_before[..count]);
    read_before.advance(count);
    if read_before.is_empty() {
        // Frees their memory.
        *read_before = Bytes::new();
    }
    count
}

/// The client's side of one connection.
pub(super) struct ClientIo {
    transport: Arc<Transport>,
    wait: Arc<ConnectionWait>,
    settler: Arc<Settler>,
    /// Bytes that were already read to find out which protocol the client speaks.
    read_before: Bytes,
    closing: Closing,
    /// What is written instead of hyper's answer to an unreadable head, and how much of it was written.
    refusal: Option<(Bytes, usize)>,
}

impl ClientIo {
    pub(super) fn new(
        transport: Arc<Transport>,
        wait: Arc<ConnectionWait>,
        settler: Arc<Settler>,
        read_before: Bytes,
    ) -> Self {
        Self { transport, wait, settler, read_before, closing: Closing::default(), refusal: None }
    }

    /// Writes another answer instead of hyper's answer to an unreadable head, which is `count` bytes and begins with
    /// `first`; `None` where hyper writes something else.
    fn poll_write_refusal(
        &mut self,
        cx: &mut Context<'_>,
        first: &[u8],
        count: usize,
    ) -> Option<Poll<io::Result<usize>>> {
        if self.refusal.is_none() {
            if !matches!(self.wait.phase(), Phase::Idle | Phase::Head) {
                return None;
            }
            self.refusal = Some((unreadable_head::answer_instead_of(first)?, 0));
        }
        let (answer, written) = self.refusal.as_mut()?;
        while *written < answer.len() {
            match self.transport.poll_write(&self.wait, cx, &answer[*written..]) {
                Poll::Ready(Ok(0)) => return Some(Poll::Ready(Err(io::ErrorKind::WriteZero.into()))),
                Poll::Ready(Ok(more)) => *written += more,
                other => return Some(other),
            }
        }
        Some(Poll::Ready(Ok(count)))
    }
}

impl AsyncRead for ClientIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = match self.read_before.is_empty() {
            true => ready!(self.transport.poll_read(&self.wait, cx, buf))?,
            false => take_read_before(&mut self.read_before, buf),
        };
        match read {
            0 => self.wait.on_fin(),
            count => {
                let filled = buf.filled();
                self.wait.on_client_bytes(may_end_message(&filled[filled.len() - count..]));
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Whether a message may end with these bytes: a head or a chunked body ends with an empty line. Fewer than four bytes
/// may be the rest of such a line.
fn may_end_message(bytes: &[u8]) -> bool {
    let tail = &bytes[bytes.len().saturating_sub(4)..];
    tail.ends_with(b"\r\n\r\n") || tail.ends_with(b"\n\n") || bytes.len() < 4
}

impl AsyncWrite for ClientIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.poll_write_refusal(cx, buf, buf.len()) {
            Some(written) => written,
            None => self.transport.poll_write(&self.wait, cx, buf),
        }
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let count = || bufs.iter().map(|buf| buf.len()).sum();
        match bufs.first().and_then(|first| self.poll_write_refusal(cx, first, count())) {
            Some(written) => written,
            None => self.transport.poll_write_vectored(&self.wait, cx, bufs),
        }
    }
    fn is_write_vectored(&self) -> bool {
        true
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.transport.poll_flush(&self.wait, cx))?;
        // hyper calls this when it has written everything that it had.
        self.wait.flushed(&self.settler);
        if self.wait.flush.end() {
            cx.waker().wake_by_ref();
        }
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.closing.poll(&this.transport, &this.wait, cx)
    }
}
