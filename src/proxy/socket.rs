//! Is the client still there, and does it move?
//!
//! A client's socket as hyper reads and writes it. Always true: each byte that moves is noted on the connection's
//! [`Clock`]; closing after an early answer waits for the client to stop sending (bounded by the clock and by bytes),
//! because closing a socket with unread bytes sends a reset that can destroy the answer on its way. hyper with
//! half-closing allowed does not look at the socket while a request is under way, so [`gone`] does.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use super::clock::{Clock, Phase};

/// Bytes that are read and thrown away after an early answer.
const LINGER_BYTES_MAX: usize = 1 << 20;

/// The client's side of one connection.
pub(super) struct ClientIo {
    pub(super) stream: Arc<TcpStream>,
    pub(super) clock: Arc<Clock>,
    shut: bool,
    thrown_away: usize,
}

impl ClientIo {
    pub(super) fn new(stream: Arc<TcpStream>, clock: Arc<Clock>) -> Self {
        Self { stream, clock, shut: false, thrown_away: 0 }
    }
}

/// What a look at a socket in the middle of an exchange shows.
pub(super) enum Look {
    /// Nothing to read: the client waits.
    Quiet,
    /// The next request is there already: nothing more can be seen.
    Bytes,
    /// It closed its sending side.
    Fin,
    /// It is gone.
    Reset,
}

/// Looks without taking anything; costs no system call while nothing has come.
pub(super) fn look(stream: &TcpStream, cx: &mut Context<'_>) -> Look {
    let mut byte = [0_u8; 1];
    match stream.poll_peek(cx, &mut ReadBuf::new(&mut byte)) {
        Poll::Pending => Look::Quiet,
        Poll::Ready(Ok(0)) => Look::Fin,
        Poll::Ready(Ok(_)) => Look::Bytes,
        Poll::Ready(Err(_)) => Look::Reset,
    }
}

/// Reads once. A read that leaves room has emptied the socket: its readiness is taken back at once (by answering
/// `WouldBlock` for the moment before the read), which saves a system call that would only find that out.
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
                    self.clock.saw_fin();
                    return Poll::Ready(Ok(()));
                }
                Ok(_) => {
                    self.clock.heard();
                    return Poll::Ready(Ok(()));
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Poll::Ready(Err(e)),
            }
        }
    }
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
                    if self.clock.phase() == Phase::Reply {
                        self.clock.progress();
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
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.shut {
            self.shut = true;
            let idle = matches!(self.clock.phase(), Phase::Idle | Phase::Tunnel);
            let result = rustix::net::shutdown(&*self.stream, rustix::net::Shutdown::Write);
            if result.is_err() || idle || self.clock.has_fin() {
                return Poll::Ready(Ok(()));
            }
            self.clock.enter(Phase::Linger);
        }
        // The clock cuts this where the client goes on sending or never closes.
        loop {
            ready!(self.stream.poll_read_ready(cx))?;
            let mut waste = [0_u8; 8 << 10];
            match self.stream.try_read(&mut waste) {
                Ok(0) => return Poll::Ready(Ok(())),
                Ok(n) => {
                    self.thrown_away += n;
                    if self.thrown_away > LINGER_BYTES_MAX {
                        return Poll::Ready(Ok(()));
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return Poll::Ready(Ok(())),
            }
        }
    }
}
