//! One HTTP/2 connection to a service.
//!
//! Always true:
//! - A connection is used only after the peer's settings have come, so that a peer that does not speak HTTP/2 fails
//!   before anything of a request was sent.
//! - It carries at most as many requests at the same time as its peer accepts, and [`SERVICE_HTTP2_STREAMS_MAX`].
//! - What is read ahead for a client that does not read is bounded for each stream, and never delays another stream.
//!
//! One task drives a connection with all of its streams. `SendError::not_processed` depends on that: hyper checks for a
//! GOAWAY between sending a request and waiting for its answer. A GOAWAY that another thread read meanwhile would count
//! as the request's failure, although it may not concern the request. For the same reason nothing is read between the
//! moment when hyper takes a request and the moment when the request's head is written: if a GOAWAY were read there,
//! hyper would drop the request without telling whether its head was sent.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::{BoxFuture, Either, select};
use futures_util::stream::{FuturesUnordered, Stream as _};
use hyper::body::Body;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::http2_body::PermittedBody;
use super::http2_io::{Http2Io, IoState};
use super::stream::{Received, ServiceStream};
use crate::limits::{SERVICE_HTTP2_STREAMS_MAX, SERVICE_HTTP2_WINDOW_BYTES};

/// The errors of a request's body.
type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// The bounds of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Http2Bounds {
    /// The most bytes of a reply's head.
    pub head_bytes_max: u32,
    /// When the connection is no longer given to requests; `None`: never.
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

/// State that the task of a connection shares with its requests.
#[derive(Default)]
struct ConnectionState {
    /// How many requests the peer accepts at the same time.
    peer_max: AtomicUsize,
    /// Whether requests have been handed over since the task last checked.
    has_requests: AtomicBool,
    /// Held while a request is handed to hyper, and while hyper's side is dropped: a request that is put into hyper's
    /// queue while the queue is emptied for the last time would stay there, unanswered, as long as a sender exists.
    handing_over: Mutex<()>,
    io: Arc<IoState>,
}

/// A connection. It is closed when nobody holds it and its streams have ended.
pub struct Http2Connection<B> {
    pub(super) sender: SendRequest<PermittedBody<B>>,
    /// How many requests are on the connection now.
    streams: AtomicUsize,
    /// How many requests the connection was given so far.
    requests: AtomicUsize,
    state: Arc<ConnectionState>,
    received: Received,
    retires: Option<Instant>,
    is_retired: AtomicBool,
    opened: Instant,
    /// When the last request on the connection ended, in milliseconds after the connection was opened.
    idle_since_ms: AtomicU64,
}

impl<B> Http2Connection<B>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BodyError>,
{
    /// Makes an HTTP/2 connection of a byte stream on which nothing was sent.
    ///
    /// # Errors
    /// The peer does not speak HTTP/2, ends the connection, or accepts no requests.
    pub async fn open(stream: ServiceStream, bounds: Http2Bounds) -> Result<Self, Http2Error> {
        let received = stream.received();
        let state = Arc::new(ConnectionState::default());
        let (io, settings) = Http2Io::new(stream, state.io.clone());
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
        let driven = Box::pin(drive(connection, spawned, state.clone()));
        match select(driven, pin!(settings)).await {
            Either::Left(((), _)) | Either::Right((Err(_), _)) => Err(Http2Error::Ended),
            Either::Right((Ok(false), _)) => Err(Http2Error::NotSpoken),
            Either::Right((Ok(true), _)) if state.peer_max.load(Relaxed) == 0 => Err(Http2Error::NoStreams),
            Either::Right((Ok(true), driven)) => {
                tokio::spawn(driven);
                Ok(Self {
                    sender,
                    streams: AtomicUsize::new(0),
                    requests: AtomicUsize::new(0),
                    state,
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
    /// Returns the counter of the bytes that come over the connection.
    pub fn received(&self) -> &Received {
        &self.received
    }
    /// Stops giving the connection to requests; requests that are on it go on. Returns whether this is the first call.
    pub fn retire(&self) -> bool {
        !self.is_retired.swap(true, Relaxed)
    }
    /// Whether the connection may be given to further requests, as far as this side knows. A connection with a stream
    /// that was cut may not: see [`super::Http2Stream::is_cut`].
    pub(super) fn is_usable(&self) -> bool {
        let is_old = || self.retires.is_some_and(|retires| retires <= Instant::now());
        !self.sender.is_closed() && !self.is_retired.load(Relaxed) && !self.has_cut_streams() && !is_old()
    }
    /// Counts a request that gets a stream permit on the connection.
    pub(super) fn enter(&self) {
        self.streams.fetch_add(1, Relaxed);
        self.requests.fetch_add(1, Relaxed);
    }
    /// Hands a request to hyper by calling `hand_over`, and tells the connection's task by `has_requests`.
    pub(super) fn hand_over<T>(&self, hand_over: impl FnOnce() -> T) -> T {
        let _handing_over = self.state.handing_over.lock().unwrap_or_else(PoisonError::into_inner);
        self.state.has_requests.store(true, Relaxed);
        hand_over()
    }
    /// Returns how many requests the connection was given so far.
    pub(super) fn requests(&self) -> usize {
        self.requests.load(Relaxed)
    }
    /// Whether the peer has reset a stream before its end, with a code that hyper takes for the end of the body.
    pub(super) fn has_cut_streams(&self) -> bool {
        self.state.io.has_cut_streams()
    }
    /// Returns how many requests the peer has processed or still processes, if it has said so by GOAWAY.
    pub(super) fn requests_processed(&self) -> Option<usize> {
        self.state.io.requests_processed()
    }
    /// Counts a request that has left the connection.
    pub(super) fn leave(&self) {
        if self.streams.fetch_sub(1, Relaxed) == 1 {
            let since = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.idle_since_ms.store(since, Relaxed);
        }
    }
    /// Returns for how long the connection has carried no request; `None` if it carries one.
    pub fn idle_for(&self) -> Option<Duration> {
        let since = Duration::from_millis(self.idle_since_ms.load(Relaxed));
        (self.streams.load(Relaxed) == 0).then(|| self.opened.elapsed().saturating_sub(since))
    }
    /// Whether the connection may carry one more request now.
    pub(super) fn has_room(&self) -> bool {
        self.streams.load(Relaxed) < self.state.peer_max.load(Relaxed).min(SERVICE_HTTP2_STREAMS_MAX)
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

/// How many times the streams are polled while reads are held. One poll writes the heads of new requests. If a request
/// waits for the permit of a request that was cut, the first poll resets the cut request's stream, and the second poll
/// writes the head.
const POLLS_WITHOUT_READING: usize = 2;

/// Drives a connection and its streams until all have ended.
async fn drive<B>(
    connection: http2::Connection<TokioIo<Http2Io>, B, Spawner>,
    mut spawned: UnboundedReceiver<BoxFuture<'static, ()>>,
    state: Arc<ConnectionState>,
) where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BodyError>,
{
    let mut connection = Some(connection);
    let mut streams = FuturesUnordered::new();
    poll_fn(|cx| {
        let mut polls_without_reading = 0;
        if state.has_requests.swap(false, Relaxed) {
            state.io.hold_reads();
            polls_without_reading = POLLS_WITHOUT_READING;
        }
        let polled = loop {
            take_requests(&mut connection, &state, cx);
            let mut is_over = false;
            loop {
                match spawned.poll_recv(cx) {
                    Poll::Ready(Some(future)) => streams.push(future),
                    Poll::Ready(None) => break is_over = true,
                    Poll::Pending => break,
                }
            }
            match Pin::new(&mut streams).poll_next(cx) {
                // Polled again: the end of a stream may have ended the connection too.
                Poll::Ready(Some(())) => {}
                Poll::Ready(None) if is_over => break Poll::Ready(()),
                Poll::Ready(None) | Poll::Pending if polls_without_reading > 0 => {
                    polls_without_reading -= 1;
                    if polls_without_reading == 0 {
                        state.io.release_reads();
                    }
                }
                Poll::Ready(None) | Poll::Pending => break Poll::Pending,
            }
        };
        // Settings of the peer, or its GOAWAY, may have come with what was just read.
        take_requests(&mut connection, &state, cx);
        let peer_max = connection.as_ref().map_or(0, |connection| connection.current_max_send_streams());
        state.peer_max.store(peer_max, Relaxed);
        polled
    })
    .await;
}

/// Lets the connection take requests. Once the connection has ended, it is dropped, and hyper gives back the requests
/// that it did not take.
fn take_requests<F: Future + Unpin>(connection: &mut Option<F>, state: &ConnectionState, cx: &mut Context<'_>) {
    if connection.as_mut().is_some_and(|connection| Pin::new(connection).poll(cx).is_ready()) {
        let _handing_over = state.handing_over.lock().unwrap_or_else(PoisonError::into_inner);
        *connection = None;
    }
}
