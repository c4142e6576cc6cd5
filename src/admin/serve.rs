//! Serves the API on a listener, within bounds.
//!
//! A client that sends its request head too slowly is disconnected. When `CONNECTIONS_MAX` are open, further ones wait
//! in the kernel's accept queue. When the process stops, requests in flight are finished, within a bound.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

/// The most connections that are open at once.
const CONNECTIONS_MAX: usize = 256;
/// A client sends its head within this time; an idle connection is closed after it.
const HEAD_READ_MAX: Duration = Duration::from_secs(75);
/// At the stop, requests in flight may take this long; a client that does not read its response is then cut off.
const DRAIN_MAX: Duration = Duration::from_secs(5);
/// The pause after a failed accept (too many open files), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The address on the other side of the connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct PeerAddress(pub SocketAddr);

/// Serves until `stop` resolves, then finishes requests in flight, within `DRAIN_MAX`.
pub async fn serve(listener: TcpListener, router: Router, stop: impl Future<Output = ()>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let (stopping, stopped) = watch::channel(false);
    let connections = TaskTracker::new();
    let mut stop = pin!(stop);
    loop {
        let slot = tokio::select! {
            () = &mut stop => break,
            slot = slots.clone().acquire_owned() => slot,
        };
        let accepted = tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let connection = connection(stream, PeerAddress(peer), router.clone(), stopped.clone());
                connections.spawn(async move {
                    connection.await;
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the API could not accept a connection; it tries again");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    let _ = stopping.send(true);
    connections.close();
    if tokio::time::timeout(DRAIN_MAX, connections.wait()).await.is_err() {
        tracing::warn!(connections = connections.len(), "connections to the API did not end in time and are closed");
    }
}

async fn connection(stream: TcpStream, peer: PeerAddress, router: Router, mut stopped: watch::Receiver<bool>) {
    let service = hyper::service::service_fn(move |request: hyper::Request<Incoming>| {
        let router = router.clone();
        async move {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(peer);
            let answered = router.oneshot(request).await;
            Ok::<_, Infallible>(answered.unwrap_or_else(|never: Infallible| match never {}))
        }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_READ_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut served = pin!(served);
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        () = async { drop(stopped.wait_for(|stopped| *stopped).await) } => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection to the API ended early");
    }
}
