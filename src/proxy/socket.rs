//! The client's socket as hyper reads and writes it.
//!
//! Always true: moving bytes restart the limit in [`ConnectionWait`]; closing after an early answer waits for the
//! client to stop sending (bounded in time and bytes), because closing a socket with unread bytes sends a reset that
//! can destroy the answer on its way. hyper with half-closing allowed does not read the socket while a request is in
//! flight, so [`peek`] finds out whether the client is gone.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::RecvFlags;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use super::settler::Settler;
use super::wait::{ConnectionWait, Phase};

/// Bytes that are read and discarded after an early answer.
const LINGER_BYTES_MAX: usize = 1 << 20;

/// The client's side of one connection.
pub(super) struct ClientIo {
    pub(super) stream: Arc<TcpStream>,
    pub(super) wait: Arc<ConnectionWait>,
    settler: Arc<Settler>,
    shut: bool,
    discarded: usize,
}

impl ClientIo {
    pub(super) fn new(stream: Arc<TcpStream>, wait: Arc<ConnectionWait>, settler: Arc<Settler>) -> Self {
        Self { stream, wait, settler, shut: false, discarded: 0 }
    }
}

/// What peeking at a socket during an exchange shows.
pub(super) enum Peek {
    /// Nothing to read: the client is waiting.
    Nothing,
    /// Bytes of the next request; what comes after them cannot be seen.
    Bytes,
    /// It closed its sending side.
    Fin,
    /// It is gone.
    Reset,
}

/// Peeks without consuming; costs no system call while nothing has arrived.
pub(super) fn peek(stream: &TcpStream, cx: &mut Context<'_>) -> Peek {
    let mut byte = [0_u8; 1];
    match stream.poll_peek(cx, &mut ReadBuf::new(&mut byte)) {
        Poll::Pending => Peek::Nothing,
        Poll::Ready(Ok(0)) => Peek::Fin,
        Poll::Ready(Ok(_)) => Peek::Bytes,
        Poll::Ready(Err(_)) => Peek::Reset,
    }
}

/// Whether bytes of the client wait in its socket. Asks the system, not the runtime: that learns of bytes a little
/// later, and a connection that is closed meanwhile loses its client's next request.
pub(super) fn has_bytes(stream: &TcpStream) -> bool {
    let mut byte = [0_u8; 1];
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    rustix::net::recv(stream, &mut byte[..], flags).is_ok_and(|(_, length)| length > 0)
}

/// Whether the client has closed its sending side or is gone. Unlike [`peek`] it sees that behind bytes that nobody has
/// read yet; costs a system call.
pub(super) fn has_stopped_sending(stream: &TcpStream) -> bool {
    let mut polled = [PollFd::new(stream, PollFlags::RDHUP)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let is_ready = rustix::event::poll(&mut polled, Some(&now)).is_ok_and(|ready| ready > 0);
    is_ready && polled[0].revents().intersects(PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR)
}

/// Reads once. A read that leaves room in the buffer has emptied the socket: its readiness is cleared at once (by
/// returning `WouldBlock` to `try_io`), which saves the system call that would find it empty.
fn read(stream: &TcpStream, buf: &mut ReadBuf<'_>) -> io::Result<usize> {
    let mut got = Err(io::ErrorKind::WouldBlock.into());
    let outer = stream.try_io(Interest::READABLE, || {
        got = stream.try_read_buf(buf);
        match got {
            Ok(n) if n > 0 && buf.remaining() > 0 => Err(io::ErrorKind::WouldBlock.into()),
            _ => Ok(()),
        }
    });
    match (outer, got) {
        (Err(error), Err(_)) => Err(error),
        (_, got) => got,
    }
}

impl AsyncRead for ClientIo {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.stream.poll_read_ready(cx))?;
            match read(&self.stream, buf) {
                Ok(0) => {
                    self.wait.saw_fin();
                    return Poll::Ready(Ok(()));
                }
                Ok(count) => {
                    let filled = buf.filled();
                    self.wait.on_client_bytes(ends_message(&filled[filled.len() - count..]));
                    return Poll::Ready(Ok(()));
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Poll::Ready(Err(e)),
            }
        }
    }
}

/// Whether a message may end with these bytes: a head or a chunked body does, with an empty line. Fewer bytes than that
/// may be the end of it.
fn ends_message(bytes: &[u8]) -> bool {
    let tail = &bytes[bytes.len().saturating_sub(4)..];
    tail.ends_with(b"\r\n\r\n") || tail.ends_with(b"\n\n") || bytes.len() < 4
}

impl ClientIo {
    fn poll_writing(
        &self,
        cx: &mut Context<'_>,
        write: impl Fn(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.stream.poll_write_ready(cx))?;
            match write(&self.stream) {
                Ok(n) => {
                    if self.wait.phase() == Phase::Reply {
                        self.wait.progress();
                    }
                    return Poll::Ready(Ok(n));
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Poll::Ready(Err(e)),
            }
        }
    }
}

impl AsyncWrite for ClientIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_writing(cx, |stream| stream.try_write(buf))
    }
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_writing(cx, |stream| stream.try_write_vectored(bufs))
    }
    fn is_write_vectored(&self) -> bool {
        true
    }
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper calls this when it has written all that it had.
        self.wait.flushed(&self.settler);
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.shut {
            self.shut = true;
            let idle = matches!(self.wait.phase(), Phase::Idle | Phase::Tunnel);
            let result = rustix::net::shutdown(&*self.stream, rustix::net::Shutdown::Write);
            if result.is_err() || idle || self.wait.has_fin() {
                return Poll::Ready(Ok(()));
            }
            self.wait.enter(Phase::Linger);
        }
        // The limit of `Phase::Linger` ends this where the client goes on sending or never closes.
        loop {
            ready!(self.stream.poll_read_ready(cx))?;
            let mut waste = [0_u8; 8 << 10];
            match self.stream.try_read(&mut waste) {
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
