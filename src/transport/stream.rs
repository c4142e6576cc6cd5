//! The bytes of a connection to a service, plain or over TLS, and how many of them came.
//!
//! Always true: whoever learns from HTTP that a connection has failed, and finds that [`Received::count`] has not
//! changed since a request was handed over, knows that not one byte of an answer came. HTTP alone does not tell that: a
//! connection that ends after half a head, or after an interim reply, fails like one that ends without a byte. Over TLS
//! the decrypted bytes count: an alert or a ticket is no part of an answer. Counting costs an addition for each read.
//! The interim replies to an HTTP/1.1 request can be counted too ([`Received::count_interim_replies`]).

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};

use hyper_util::client::legacy::connect::{Connected, Connection};
use metrics::counter;
use rustix::net::RecvFlags;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::handshake_counts::CountedHandshake;
use super::interim_scanner::InterimScanner;
use super::tls::{self, ConnectionProtocol, TlsError};
use crate::flag::{HttpVersion, ServiceTls};
use crate::names::ServiceName;

/// How many bytes have come over a connection.
#[derive(Clone, Debug, Default)]
pub struct Received(Arc<ReceivedState>);

#[derive(Debug, Default)]
struct ReceivedState {
    bytes: AtomicU64,
    /// Whether a request was sent whose interim replies are to be counted, and nothing was read since.
    counts_interim: AtomicBool,
}

impl Received {
    /// Returns the number of bytes so far.
    pub fn count(&self) -> u64 {
        self.0.bytes.load(Relaxed)
    }
    /// Counts the interim replies to the HTTP/1.1 request that is sent next as consumed: its client does not get them.
    pub fn count_interim_replies(&self) {
        self.0.counts_interim.store(true, Relaxed);
    }
    /// Counts bytes. Called only by the connection's own task.
    fn add(&self, bytes: usize) {
        self.0.bytes.store(self.count().wrapping_add(bytes as u64), Relaxed);
    }
    /// Whether a request whose interim replies are counted was sent since the last call.
    fn take_counts_interim(&self) -> bool {
        self.0.counts_interim.load(Relaxed) && self.0.counts_interim.swap(false, Relaxed)
    }
}

/// A service that is spoken to over TLS.
#[derive(Clone, Copy)]
pub struct SecuredPeer<'a> {
    /// The service's name in the files.
    pub service: &'a ServiceName,
    /// How the service is verified.
    pub tls: &'a ServiceTls,
    /// The host of the service's URL.
    pub host: &'a str,
}

/// A connection to a service.
pub struct ServiceStream {
    carrier: Carrier,
    received: Received,
    interim: InterimScanner,
}

enum Carrier {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    #[cfg(test)]
    Simulated(tokio::io::DuplexStream),
}

impl ServiceStream {
    /// Makes a connection of a socket that has just been connected to a service: over TLS if `tls` is given.
    ///
    /// # Errors
    /// The TLS handshake failed: nothing of a request was sent.
    pub async fn open(
        socket: TcpStream,
        tls: Option<SecuredPeer<'_>>,
        http: HttpVersion,
    ) -> Result<(Self, ConnectionProtocol), TlsError> {
        // Without this, small writes wait for acknowledgements. A failure only costs time.
        let _ = socket.set_nodelay(true);
        let (carrier, spoken) = match (tls, http) {
            (None, HttpVersion::Http2) => (Carrier::Plain(socket), ConnectionProtocol::Http2),
            (None, HttpVersion::Http1 | HttpVersion::Negotiated) => (Carrier::Plain(socket), ConnectionProtocol::Http1),
            (Some(SecuredPeer { service, tls, host }), _) => {
                let counted = CountedHandshake::with(service);
                let (stream, spoken) = counted.ended(tls::handshake(socket, tls, host, http).await)?;
                (Carrier::Tls(Box::new(stream)), spoken)
            }
        };
        Ok((Self { carrier, received: Received::default(), interim: InterimScanner::default() }, spoken))
    }

    /// A connection within the process.
    #[cfg(test)]
    pub(super) fn simulated(stream: tokio::io::DuplexStream) -> Self {
        let carrier = Carrier::Simulated(stream);
        Self { carrier, received: Received::default(), interim: InterimScanner::default() }
    }

    fn socket(&self) -> &TcpStream {
        match &self.carrier {
            Carrier::Plain(socket) => socket,
            Carrier::Tls(stream) => stream.get_ref().0,
            #[cfg(test)]
            Carrier::Simulated(_) => unreachable!("it has no socket"),
        }
    }

    /// Returns the counter of the bytes that come over the connection.
    pub fn received(&self) -> Received {
        self.received.clone()
    }

    /// Counts the interim replies in bytes that have come, if a request asks for that.
    fn count_interim(&mut self, bytes: &[u8]) {
        if self.received.take_counts_interim() {
            self.interim = InterimScanner::begin();
        }
        if self.interim != InterimScanner::Done {
            let found = self.interim.scan(bytes);
            if found > 0 {
                counter!("pointsman_interim_replies_total", "outcome" => "consumed").increment(found);
            }
        }
    }

    /// If a write has failed, counts the bytes that wait in the socket as received: HTTP then gives the connection up,
    /// and reads no more.
    fn note_unread<T>(&self, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        #[cfg(test)]
        if let Carrier::Simulated(_) = &self.carrier {
            return written;
        }
        if let Poll::Ready(Err(_)) = &written {
            let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
            if rustix::net::recv(self.socket(), &mut [0_u8; 1][..], flags).is_ok_and(|(_, length)| length > 0) {
                self.received.add(1);
            }
        }
        written
    }
}

impl Connection for ServiceStream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for ServiceStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = match &mut self.carrier {
            Carrier::Plain(socket) => Pin::new(socket).poll_read(cx, buf),
            Carrier::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
            #[cfg(test)]
            Carrier::Simulated(stream) => Pin::new(stream).poll_read(cx, buf),
        };
        if buf.filled().len() > before {
            self.received.add(buf.filled().len() - before);
            self.count_interim(buf.filled().get(before..).unwrap_or_default());
        }
        read
    }
}

impl AsyncWrite for ServiceStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = match &mut self.carrier {
            Carrier::Plain(socket) => Pin::new(socket).poll_write(cx, bytes),
            Carrier::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
            #[cfg(test)]
            Carrier::Simulated(stream) => Pin::new(stream).poll_write(cx, bytes),
        };
        self.note_unread(written)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = match &mut self.carrier {
            Carrier::Plain(socket) => Pin::new(socket).poll_write_vectored(cx, bufs),
            Carrier::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            #[cfg(test)]
            Carrier::Simulated(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        };
        self.note_unread(written)
    }
    fn is_write_vectored(&self) -> bool {
        match &self.carrier {
            Carrier::Plain(socket) => socket.is_write_vectored(),
            Carrier::Tls(stream) => stream.is_write_vectored(),
            #[cfg(test)]
            Carrier::Simulated(stream) => stream.is_write_vectored(),
        }
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = match &mut self.carrier {
            Carrier::Plain(socket) => Pin::new(socket).poll_flush(cx),
            Carrier::Tls(stream) => Pin::new(stream).poll_flush(cx),
            #[cfg(test)]
            Carrier::Simulated(stream) => Pin::new(stream).poll_flush(cx),
        };
        self.note_unread(flushed)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.carrier {
            Carrier::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Carrier::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            #[cfg(test)]
            Carrier::Simulated(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (ServiceStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (ours, theirs) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        let opened = ServiceStream::open(ours.unwrap(), None, HttpVersion::Http1).await;
        (opened.unwrap().0, theirs.unwrap().0)
    }

    #[tokio::test]
    async fn bytes_that_were_read_are_counted() {
        let (mut ours, mut theirs) = pair().await;
        let received = ours.received();
        theirs.write_all(b"HTTP/1.1").await.unwrap();
        ours.read_exact(&mut [0; 8]).await.unwrap();
        assert_eq!(received.count(), 8);
    }

    /// The other end has answered, and closed while more was on its way to it.
    #[tokio::test]
    async fn bytes_that_nobody_reads_after_a_failed_write_are_counted() {
        let (mut ours, mut theirs) = pair().await;
        let received = ours.received();
        theirs.write_all(b"HTTP/1.1 413").await.unwrap();
        ours.socket().readable().await.unwrap();
        // Closing our own sending side makes writes fail without a reset, which could discard the bytes.
        rustix::net::shutdown(ours.socket(), rustix::net::Shutdown::Write).unwrap();
        assert!(ours.write_all(b"more").await.is_err());
        assert_eq!(received.count(), 1);
    }
}
