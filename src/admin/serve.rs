//! Serves the API on its listeners, within bounds.
//!
//! A client that sends its request head too slowly is disconnected. When `api_connections_max` connections are open on
//! a listener, or the process has no file descriptor left, the oldest connection that is idle, or whose request body
//! has not arrived, is closed for a new one, so that idle and slow clients cannot keep out the request that sets the
//! kill switch ([`connections`]); if complete requests are in progress on all, further connections wait in the kernel's
//! accept queue. When the process stops, requests in flight are finished, within a bound.
//!
//! [`connections`]: super::connections

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use futures_util::future::join_all;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use super::connections::{Connections, OpenConnection, RequestInProgress};

/// How long a client may take to send the head of a request; an idle connection is closed after the same time.
const HEAD_READ_MAX: Duration = Duration::from_secs(75);
/// How long requests in flight may take after the stop; a client that has not read its response by then is cut off.
const DRAIN_MAX: Duration = Duration::from_secs(5);
/// The pause after a failed accept (too many open files), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The address of the client's side of the connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct PeerAddress(pub SocketAddr);

/// Serves each listener with its router, at most `connections_max` connections at once on each, until `stop` resolves;
/// then finishes the requests in flight, within `DRAIN_MAX`.
pub async fn serve(listeners: Vec<(TcpListener, Router)>, connections_max: u64, stop: impl Future<Output = ()>) {
    let max = usize::try_from(connections_max).unwrap_or(usize::MAX);
    let open: Arc<[_]> = listeners.iter().map(|_| Connections::new(max)).collect();
    let (stopping, stopped) = watch::channel(false);
    let connections = TaskTracker::new();
    let accepting = listeners.into_iter().enumerate().map(|(index, (listener, router))| {
        accept_connections(listener, router, open.clone(), index, connections.clone(), stopped.clone())
    });
    tokio::select! {
        _ = join_all(accepting) => {}
        () = stop => {}
    }
    let _ = stopping.send(true);
    connections.close();
    if tokio::time::timeout(DRAIN_MAX, connections.wait()).await.is_err() {
        tracing::warn!(connections = connections.len(), "connections to the API did not end in time and are closed");
    }
}

/// Accepts connections on one listener for as long as it is polled. `open` has the connections of every listener, those
/// of this one at `index`.
async fn accept_connections(
    listener: TcpListener,
    router: Router,
    open: Arc<[Arc<Connections>]>,
    index: usize,
    connections: TaskTracker,
    stopped: watch::Receiver<bool>,
) {
    let Some(of_listener) = open.get(index) else { return };
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let added = of_listener.add().await;
                connections.spawn(connection(stream, PeerAddress(peer), router.clone(), stopped.clone(), added));
            }
            Err(error) => {
                let files_used_up = [Errno::MFILE, Errno::NFILE].map(Errno::raw_os_error);
                let are_used_up = error.raw_os_error().is_some_and(|code| files_used_up.contains(&code));
                // The kernel reserves a file descriptor before it checks whether a connection waits, so this error
                // occurs even when none waits. Closing a connection then would hit the one that was just accepted.
                if !are_used_up {
                    tracing::warn!(%error, "the API could not accept a connection; it tries again");
                } else if has_waiting_connection(&listener) {
                    tracing::warn!(
                        %error,
                        "the API could not accept a connection; it closes the oldest idle one and tries again"
                    );
                    // The limit of open files applies to the whole process: connections to one listener must not keep
                    // clients out of another.
                    Connections::close_oldest_of(&open);
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Whether a client's connection waits to be accepted.
fn has_waiting_connection(listener: &TcpListener) -> bool {
    let mut polled = [PollFd::new(listener, PollFlags::IN)];
    poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0)
}

async fn connection(
    stream: TcpStream,
    peer: PeerAddress,
    router: Router,
    mut stopped: watch::Receiver<bool>,
    open: Arc<OpenConnection>,
) {
    let requests = open.clone();
    let service = hyper::service::service_fn(move |request: hyper::Request<Incoming>| {
        let router = router.clone();
        let (connection, in_progress) = (requests.clone(), requests.begin_request());
        async move {
            let in_progress = in_progress.ok_or_else(|| io::Error::other(CLOSED))?;
            let mut request = match request.body().is_end_stream() {
                true if !connection.complete_request() => return Err(io::Error::other(CLOSED)),
                true => request.map(Body::new),
                false => request.map(|body| Body::new(RequestBody { body, connection, is_complete: false })),
            };
            request.extensions_mut().insert(peer);
            let response = router.oneshot(request).await.map_err(io::Error::other)?;
            Ok::<_, io::Error>(response.map(|body| ResponseBody { body, _in_progress: in_progress }))
        }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_READ_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut served = pin!(served);
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        () = open.must_close() => {
            tracing::debug!("a connection to the API without a complete request is closed for a new one");
            return;
        }
        () = async { drop(stopped.wait_for(|stopped| *stopped).await) } => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection to the API ended early");
    }
}

/// The error of a request that arrives, or whose body does, on a connection that is being closed for a new one.
const CLOSED: &str = "closed for a new connection";

/// The body of a request. The request counts as complete once the body is read to its end, or dropped earlier because
/// the response is being made.
struct RequestBody {
    body: Incoming,
    connection: Arc<OpenConnection>,
    is_complete: bool,
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if frame.is_none() && !self.is_complete {
            self.is_complete = true;
            if !self.connection.complete_request() {
                return Poll::Ready(Some(Err(axum::Error::new(CLOSED))));
            }
        }
        Poll::Ready(frame.map(|frame| frame.map_err(axum::Error::new)))
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if !self.is_complete {
            self.connection.complete_request();
        }
    }
}

/// The body of a response. The request is in progress until this body is dropped.
struct ResponseBody {
    body: Body,
    _in_progress: RequestInProgress,
}

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
