//! A client's TLS session over its socket.
//!
//! Always true: a flush completes only when the socket has taken the bytes, not only the session's buffer; bytes that
//! move on the socket restart the limits in [`ConnectionWait`], even if they do not complete a record; the session's
//! buffer is bounded. While a request is in flight hyper does not read; [`TlsStream::poll_peek`] then reads records
//! itself, at most one read ahead of hyper, so that a client's `close_notify` is noticed.
//!
//! The end of a client's bytes without `close_notify` is treated like one with it: every message has its own framing,
//! so a truncated connection cannot pass for a complete message.

use std::io::{self, BufRead, IoSlice, Read, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use rustls::ServerConnection;
use tokio::io::ReadBuf;
use tokio::net::TcpStream;

use super::raw_socket::{self, Peek};
use super::wait::{ConnectionWait, Phase};

/// A TLS session and its socket.
pub(super) struct TlsStream {
    pub(super) socket: TcpStream,
    // Used by one task at a time: the connection's own, or that of its tunnel.
    session: Mutex<Session>,
}

/// A TLS session without its socket.
pub(super) struct Session {
    connection: ServerConnection,
    /// Whether the client has ended its bytes, with or without `close_notify`.
    is_ended: bool,
    close_notify_is_sent: bool,
}

impl TlsStream {
    /// A session whose handshake is complete. `is_ended`: the client has already ended its bytes.
    pub(super) fn new(socket: TcpStream, connection: ServerConnection, is_ended: bool) -> Self {
        Self { socket, session: Mutex::new(Session { connection, is_ended, close_notify_is_sent: false }) }
    }

    /// A session that was taken from its socket while nothing was being sent or received.
    pub(super) fn resumed(socket: TcpStream, session: Session) -> Self {
        Self { socket, session: Mutex::new(session) }
    }

    pub(super) fn into_parts(self) -> (TcpStream, Session) {
        (self.socket, self.session.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether the session holds no bytes in either direction, and has not ended.
    pub(super) fn is_at_rest(&self) -> bool {
        let mut session = self.session();
        !session.is_ended && !session.connection.wants_write() && !session.has_decrypted()
    }

    fn session(&self) -> MutexGuard<'_, Session> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads decrypted bytes; reads none at the end of the client's bytes.
    pub(super) fn poll_read(
        &self,
        wait: &ConnectionWait,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<usize>> {
        let mut session = self.session();
        // What hyper wrote before a tunnel began is written here: the tunnel does not flush it.
        let _ = session.poll_drain(&self.socket, wait, cx)?;
        loop {
            let read = session.take_decrypted(buf);
            if read > 0 || session.is_ended {
                return Poll::Ready(Ok(read));
            }
            ready!(session.poll_fill(&self.socket, wait, cx))?;
        }
    }

    /// Encrypts bytes, and writes as much to the socket as it takes.
    pub(super) fn poll_write(
        &self,
        wait: &ConnectionWait,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut session = self.session();
        let drained = session.poll_drain(&self.socket, wait, cx)?;
        let written = session.connection.writer().write_vectored(bufs)?;
        if written == 0 && drained.is_pending() {
            // The session's buffer is full.
            return Poll::Pending;
        }
        // The rest leaves with the next write or flush.
        let _ = session.poll_drain(&self.socket, wait, cx)?;
        Poll::Ready(Ok(written))
    }

    /// Completes when the socket has taken all that was written.
    pub(super) fn poll_flush(&self, wait: &ConnectionWait, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.session().poll_drain(&self.socket, wait, cx)
    }

    /// Sends `close_notify`. Completes when the socket has taken it.
    pub(super) fn poll_close_notify(&self, wait: &ConnectionWait, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut session = self.session();
        if !session.close_notify_is_sent {
            session.close_notify_is_sent = true;
            session.connection.send_close_notify();
        }
        session.poll_drain(&self.socket, wait, cx)
    }

    /// Checks whether the client has sent something, or has gone, without consuming bytes of requests.
    pub(super) fn poll_peek(&self, wait: &ConnectionWait, cx: &mut Context<'_>) -> Peek {
        let mut session = self.session();
        loop {
            if session.has_decrypted() {
                return Peek::Bytes;
            }
            if session.is_ended {
                return Peek::Fin;
            }
            match session.poll_fill(&self.socket, wait, cx) {
                Poll::Pending => return Peek::Nothing,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Peek::Reset,
            }
        }
    }
}

impl Session {
    /// Sends `close_notify`, if the socket takes it.
    pub(super) fn try_send_close_notify(&mut self, mut socket: &std::net::TcpStream) {
        self.connection.send_close_notify();
        let _ = self.connection.write_tls(&mut socket); // the client may be gone
    }

    fn has_decrypted(&mut self) -> bool {
        self.connection.reader().fill_buf().is_ok_and(|bytes| !bytes.is_empty())
    }

    /// Takes decrypted bytes and returns their number.
    fn take_decrypted(&mut self, buf: &mut ReadBuf<'_>) -> usize {
        let mut reader = self.connection.reader();
        let taken = match reader.fill_buf() {
            Ok(bytes) => {
                let taken = bytes.len().min(buf.remaining());
                buf.put_slice(&bytes[..taken]);
                taken
            }
            Err(_) => 0,
        };
        reader.consume(taken);
        taken
    }

    /// Reads from the socket once and decrypts the complete records.
    fn poll_fill(&mut self, socket: &TcpStream, wait: &ConnectionWait, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(socket.poll_read_ready(cx))?;
            match self.connection.read_tls(&mut SocketIo(socket)) {
                Ok(read) => {
                    if read > 0 && wait.phase() == Phase::Upload {
                        wait.progress();
                    }
                    let state = self.connection.process_new_packets();
                    // Writes an alert, or the answer to a key update.
                    let sent = self.poll_drain(socket, wait, cx);
                    let state = state.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
                    self.is_ended |= read == 0 || state.peer_has_closed();
                    if let Poll::Ready(Err(error)) = sent {
                        return Poll::Ready(Err(error));
                    }
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Writes what the session holds to the socket.
    fn poll_drain(&mut self, socket: &TcpStream, wait: &ConnectionWait, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.connection.wants_write() {
            let Poll::Ready(ready) = socket.poll_write_ready(cx) else {
                wait.write_blocked(socket);
                return Poll::Pending;
            };
            ready?;
            match self.connection.write_tls(&mut SocketIo(socket)) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(count) => {
                    if wait.phase() == Phase::Reply {
                        wait.progress();
                        wait.rates().into_iter().for_each(|rates| rates.written(count));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// A non-blocking socket as rustls uses it.
pub(super) struct SocketIo<'a>(pub(super) &'a TcpStream);

impl Read for SocketIo<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        raw_socket::read(self.0, &mut ReadBuf::new(bytes))
    }
}

impl Write for SocketIo<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }
    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(bufs)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
