//! One HTTP/2 connection to a service.
//!
//! Always true: it is used only after the peer's settings have come, so that a peer that does not speak HTTP/2 fails
//! before anything of a request was sent; it carries at most as many requests at the same time as its peer accepts, and
//! [`SERVICE_HTTP2_STREAMS_MAX`]; what is read ahead for a client that does not read is bounded for each stream, and
//! never holds up another one.
//!
//! One task drives a connection with all of its streams. [`is_not_processed`] depends on that: hyper looks for a GOAWAY
//! between sending a request and waiting for its answer, and one that another thread has read meanwhile would count as
//! the request's failure, although it may not concern it.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::{BoxFuture, Either, select};
use futures_util::stream::{FuturesUnordered, Stream as _};
use h2::Reason;
use hyper::body::Body;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use super::stream::{Received, ServiceStream};
use crate::limits::{SERVICE_HTTP2_STREAMS_MAX, SERVICE_HTTP2_WINDOW_BYTES};

/// The errors of a request's body.
type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// The bounds of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Http2Bounds {
    /// The head of a reply.
    pub head_bytes_max: u32,
    /// When it is no longer given to requests; `None`: never.
    pub retires: Option<Instant>,
}

/// Why there is no connection: nothing of a request was sent.
#[derive(Debug, thiserror::Error)]
pub enum Http2Error {
    /// The peer answered with something else.
    #[error("the service does not speak HTTP/2")]
    NotSpoken,
    /// The peer closed the connection, or broke the protocol.
    #[error("the service ended the connection before its HTTP/2 settings")]
    Ended,
    /// The peer accepts no requests.
    #[error("the service accepts no requests on this HTTP/2 connection")]
    NoStreams,
    /// The preface could not be sent.
    #[error("{0}")]
    Handshake(hyper::Error),
}

/// Whether a request that failed with this error was certainly not processed: the peer refused its stream
/// (REFUSED_STREAM), or said that it has not begun with it (GOAWAY), as RFC 9113 has it in section 8.7.
pub fn is_not_processed(error: &hyper::Error) -> bool {
    let is_refused = |error: &h2::Error| error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM);
    is_going_away(error) || http2_error(error).is_some_and(|error| error.is_remote() && is_refused(error))
}

/// Whether a request was certainly not processed because the peer ends its connection (GOAWAY).
pub fn is_going_away(error: &hyper::Error) -> bool {
    http2_error(error).is_some_and(|error| error.is_remote() && error.is_go_away())
}

fn http2_error(error: &hyper::Error) -> Option<&h2::Error> {
    std::error::Error::source(error).and_then(|error| error.downcast_ref::<h2::Error>())
}

/// A connection. It is closed when nobody holds it and its streams have ended.
pub struct Http2Connection<B> {
    pub(super) sender: SendRequest<B>,
    /// Requests that are on it.
    pub(super) streams: AtomicUsize,
    /// Requests that its peer accepts at the same time.
    peer_max: Arc<AtomicUsize>,
    received: Received,
    retires: Option<Instant>,
    is_retired: AtomicBool,
    opened: Instant,
    /// Since when it has carried no request, in milliseconds after it was opened.
    idle_since_ms: AtomicU64,
}

impl<B> Http2Connection<B>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BodyError>,
{
    /// Makes a connection of a stream on which nothing was sent.
    ///
    /// # Errors
    /// The peer does not speak HTTP/2.
    pub async fn open(stream: ServiceStream, bounds: Http2Bounds) -> Result<Self, Http2Error> {
        let received = stream.received();
        let (io, settings) = AwaitsSettings::new(stream);
        #[allow(clippy::disallowed_methods)] // at most three futures for each stream, and the streams are bounded
        let (spawner, spawned) = unbounded_channel();
        let streams = u32::try_from(SERVICE_HTTP2_STREAMS_MAX).unwrap_or(u32::MAX);
        let mut builder = http2::Builder::new(Spawner(spawner));
        builder
            .initial_stream_window_size(SERVICE_HTTP2_WINDOW_BYTES)
            // A stream that nobody reads must not take the window of the others.
            .initial_connection_window_size(SERVICE_HTTP2_WINDOW_BYTES.saturating_mul(streams).min((1 << 31) - 1))
            .max_header_list_size(bounds.head_bytes_max)
            .max_send_buf_size(SERVICE_HTTP2_WINDOW_BYTES as usize);
        let (sender, connection) = builder.handshake(TokioIo::new(io)).await.map_err(Http2Error::Handshake)?;
        let peer_max = Arc::new(AtomicUsize::new(0));
        let driven = Box::pin(drive(connection, spawned, peer_max.clone()));
        match select(driven, pin!(settings)).await {
            Either::Left(((), _)) | Either::Right((Err(_), _)) => Err(Http2Error::Ended),
            Either::Right((Ok(false), _)) => Err(Http2Error::NotSpoken),
            Either::Right((Ok(true), _)) if peer_max.load(Relaxed) == 0 => Err(Http2Error::NoStreams),
            Either::Right((Ok(true), driven)) => {
                tokio::spawn(driven);
                Ok(Self {
                    sender,
                    streams: AtomicUsize::new(0),
                    peer_max,
                    received,
                    retires: bounds.retires,
                    is_retired: AtomicBool::new(false),
                    opened: Instant::now(),
                    idle_since_ms: AtomicU64::new(0),
                })
            }
        }
    }
}

impl<B> Http2Connection<B> {
    /// The count of its bytes.
    pub fn received(&self) -> &Received {
        &self.received
    }
    /// Gives it to no request any more; those that are on it go on.
    pub fn retire(&self) {
        self.is_retired.store(true, Relaxed);
    }
    /// Whether it may be given to further requests, as far as this side knows.
    pub(super) fn is_usable(&self) -> bool {
        let is_old = || self.retires.is_some_and(|retires| retires <= Instant::now());
        !self.sender.is_closed() && !self.is_retired.load(Relaxed) && !is_old()
    }
    /// A request has left it.
    pub(super) fn left(&self) {
        if self.streams.fetch_sub(1, Relaxed) == 1 {
            let since = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.idle_since_ms.store(since, Relaxed);
        }
    }
    /// For how long it has carried no request; `None` if it carries one.
    pub fn idle_for(&self) -> Option<Duration> {
        let since = Duration::from_millis(self.idle_since_ms.load(Relaxed));
        (self.streams.load(Relaxed) == 0).then(|| self.opened.elapsed().saturating_sub(since))
    }
    /// Whether its peer accepts one more request now.
    pub(super) fn has_room(&self) -> bool {
        self.streams.load(Relaxed) < self.peer_max.load(Relaxed).min(SERVICE_HTTP2_STREAMS_MAX)
    }
}

/// Hands the futures of a connection to its task.
#[derive(Clone)]
struct Spawner(UnboundedSender<BoxFuture<'static, ()>>);

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Spawner {
    fn execute(&self, future: F) {
        // Their number is bounded by that of the streams. Without a receiver the connection has ended.
        let _ = self.0.send(Box::pin(future));
    }
}

/// Drives a connection and its streams until all have ended.
async fn drive<B>(
    connection: http2::Connection<TokioIo<AwaitsSettings>, B, Spawner>,
    mut spawned: UnboundedReceiver<BoxFuture<'static, ()>>,
    peer_max: Arc<AtomicUsize>,
) where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BodyError>,
{
    let mut connection = Some(connection);
    let mut streams = FuturesUnordered::new();
    poll_fn(|cx| {
        let polled = loop {
            take_requests(&mut connection, cx);
            let mut is_over = false;
            loop {
                match spawned.poll_recv(cx) {
                    Poll::Ready(Some(future)) => streams.push(future),
                    Poll::Ready(None) => break is_over = true,
                    Poll::Pending => break,
                }
            }
            match Pin::new(&mut streams).poll_next(cx) {
                // What has ended may have ended the connection too.
                Poll::Ready(Some(())) => {}
                Poll::Ready(None) if is_over => break Poll::Ready(()),
                Poll::Ready(None) | Poll::Pending => break Poll::Pending,
            }
        };
        // Settings of the peer, or its GOAWAY, may have come with what was just read.
        take_requests(&mut connection, cx);
        peer_max.store(connection.as_ref().map_or(0, |connection| connection.current_max_send_streams()), Relaxed);
        polled
    })
    .await;
}

/// Hands requests to the connection, as long as it takes them. Those that it does not take any more are returned.
fn take_requests<F: Future + Unpin>(connection: &mut Option<F>, cx: &mut Context<'_>) {
    if connection.as_mut().is_some_and(|connection| Pin::new(connection).poll(cx).is_ready()) {
        *connection = None;
    }
}

/// A stream that tells when the peer's settings, its first frame, have been read.
struct AwaitsSettings {
    stream: ServiceStream,
    /// The head of the first frame, as far as it was read, and how much of its payload is missing.
    head: Vec<u8>,
    settings: Option<oneshot::Sender<bool>>,
}

/// The head of a frame.
const FRAME_HEAD_BYTES: usize = 9;
/// The type of a SETTINGS frame.
const SETTINGS: u8 = 4;

impl AwaitsSettings {
    /// Receives whether the first frame has the settings.
    fn new(stream: ServiceStream) -> (Self, oneshot::Receiver<bool>) {
        let (sender, receiver) = oneshot::channel();
        (Self { stream, head: Vec::new(), settings: Some(sender) }, receiver)
    }

    fn look_at(&mut self, read: &[u8]) {
        // Settings are small: more than this is something else.
        const BYTES_MAX: usize = 4 << 10;
        self.head.extend_from_slice(&read[..read.len().min(BYTES_MAX - self.head.len())]);
        let is_settings = self.head.get(3).is_none_or(|kind| *kind == SETTINGS);
        let length = match self.head.get(..3) {
            Some(length) => length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)),
            None => 0,
        };
        let is_whole = self.head.len() >= FRAME_HEAD_BYTES + length;
        if (!is_settings || is_whole || self.head.len() >= BYTES_MAX)
            && let Some(settings) = self.settings.take()
        {
            let _ = settings.send(is_settings && is_whole);
            self.head = Vec::new();
        }
    }
}

impl AsyncRead for AwaitsSettings {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if self.settings.is_some() {
            self.look_at(&buf.filled()[before..]);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for AwaitsSettings {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }
    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
