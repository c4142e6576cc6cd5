//! Reading a client's socket, below TLS and HTTP.

use std::io;
use std::os::fd::AsFd;
use std::task::{Context, Poll};

use bytes::Bytes;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::RecvFlags;
use tokio::io::{Interest, ReadBuf};
use tokio::net::TcpStream;

/// The most bytes that are read and discarded after an early answer.
pub(super) const LINGER_BYTES_MAX: usize = 1 << 20;

/// The size of the buffer for a client's first bytes after a pause: most heads fit.
const FIRST_READ_BYTES: usize = 4 << 10;

/// The result of peeking at a socket during an exchange.
pub(super) enum Peek {
    /// Nothing to read: the client is waiting.
    Nothing,
    /// Bytes of the next request; what comes after them cannot be seen.
    Bytes,
    /// The client closed its sending side.
    Fin,
    /// The client is gone.
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

/// Whether bytes of the client wait in its socket. Asks the system: the runtime learns of bytes a little later, and
/// closing a connection before that would lose the client's next request.
pub(super) fn has_bytes(socket: impl AsFd) -> bool {
    matches!(peek_at_once(socket), Ok(FirstRead::Bytes(_)))
}

/// The result of reading a socket without the runtime.
pub(super) enum FirstRead {
    /// The bytes that were read; empty if they were left in the socket.
    Bytes(Bytes),
    /// Nothing has come.
    Nothing,
    /// The client closed its sending side.
    End,
}

/// Reads without waiting.
pub(super) fn read_at_once(socket: impl AsFd) -> io::Result<FirstRead> {
    let mut bytes = [0_u8; FIRST_READ_BYTES];
    receive(socket, &mut bytes, RecvFlags::empty()).map(|(first, count)| match first {
        FirstRead::Bytes(_) => FirstRead::Bytes(Bytes::copy_from_slice(&bytes[..count])),
        other => other,
    })
}

/// Peeks without waiting; the bytes stay in the socket.
pub(super) fn peek_at_once(socket: impl AsFd) -> io::Result<FirstRead> {
    receive(socket, &mut [0_u8; 1], RecvFlags::PEEK).map(|(first, _)| first)
}

fn receive(socket: impl AsFd, bytes: &mut [u8], flags: RecvFlags) -> io::Result<(FirstRead, usize)> {
    match rustix::net::recv(socket, bytes, flags | RecvFlags::DONTWAIT) {
        Ok((_, 0)) => Ok((FirstRead::End, 0)),
        Ok((_, count)) => Ok((FirstRead::Bytes(Bytes::new()), count)),
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok((FirstRead::Nothing, 0)),
        Err(error) => Err(error.into()),
    }
}

/// Whether the client has closed its sending side or is gone. Unlike [`peek`], detects this even while the socket has
/// unread bytes; costs a system call.
pub(super) fn has_stopped_sending(stream: &TcpStream) -> bool {
    let mut polled = [PollFd::new(stream, PollFlags::RDHUP)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let is_ready = rustix::event::poll(&mut polled, Some(&now)).is_ok_and(|ready| ready > 0);
    is_ready && polled[0].revents().intersects(PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR)
}

/// Reads once. A read that leaves room in the buffer has emptied the socket: its readiness is cleared at once (by
/// returning `WouldBlock` to `try_io`), which saves the system call that would find it empty.
pub(super) fn read(stream: &TcpStream, buf: &mut ReadBuf<'_>) -> io::Result<usize> {
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
