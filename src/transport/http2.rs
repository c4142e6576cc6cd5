//! The HTTP/2 connections to one address of a service, which many requests share.
//!
//! Always true: a request gets a stream on the first connection with room; where there is none, one more connection is
//! opened, up to [`SERVICE_HTTP2_CONNECTIONS_MAX`]; beyond that, requests wait until a stream is free. One connection
//! is opened at a time, and the requests that waited for it share its failure, so that many requests that come at once
//! neither open many connections nor wait one after the other. The caller bounds the time.
//!
//! Some services end each connection after a number of requests (nginx's `keepalive_requests`), and do not process what
//! was sent beyond that. Once that was observed, a connection gets no more than this number of requests
//! ([`RequestsMax`](super::http2_stream::RequestsMax)).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::http2_connection::Http2Connection;
use super::http2_stream::{AddressStreams, Http2Stream};
use crate::limits::SERVICE_HTTP2_CONNECTIONS_MAX;

/// The connections to one address. `E` is the error of a connection that could not be opened.
pub struct Multiplexer<B, E> {
    connections: Mutex<Vec<Arc<Http2Connection<B>>>>,
    /// Held while a connection is opened. Set if the last attempt failed: when, and with which error (`None` if the
    /// service does not speak HTTP/2).
    opening: tokio::sync::Mutex<Option<(Instant, Option<E>)>>,
    streams: Arc<AddressStreams>,
}

impl<B, E> Default for Multiplexer<B, E> {
    fn default() -> Self {
        Self { connections: Mutex::default(), opening: tokio::sync::Mutex::default(), streams: Arc::default() }
    }
}

impl<B, E> Multiplexer<B, E> {
    /// Returns a stream on an open connection for which `fits` holds, if one has room.
    pub fn take(&self, fits: impl Fn(&Http2Connection<B>) -> bool) -> Option<Http2Stream<B>> {
        let mut connections = self.lock();
        let requests_max = self.streams.requests_max.current();
        connections.retain(|connection| connection.is_usable() && connection.requests() < requests_max);
        let free = connections.iter().find(|connection| connection.has_room() && fits(connection))?;
        Some(Http2Stream::on(free.clone(), self.streams.clone()))
    }

    /// Returns a stream on a new connection, or on a connection that was opened meanwhile, if `fits` holds for it. If
    /// no more connections may be opened, waits for a stream on any connection. Returns `None` if `open` finds that
    /// HTTP/2 is not spoken, or if another request has found that while this one waited.
    ///
    /// # Errors
    /// No connection was opened; `copy` makes the error of each request that waited for the same attempt.
    pub async fn open(
        &self,
        open: impl AsyncFnOnce() -> Result<Option<Http2Connection<B>>, E>,
        fits: impl Fn(&Http2Connection<B>) -> bool,
        copy: impl Fn(&E) -> E,
    ) -> Result<Option<Http2Stream<B>>, E> {
        let asked_at = Instant::now();
        let mut last = self.opening.lock().await;
        loop {
            if let Some((_, why)) = last.as_ref().filter(|(at, _)| *at > asked_at) {
                return why.as_ref().map_or(Ok(None), |error| Err(copy(error)));
            }
            let is_full = self.lock().len() >= SERVICE_HTTP2_CONNECTIONS_MAX;
            if let Some(stream) = self.take(|connection| is_full || fits(connection)) {
                return Ok(Some(stream));
            }
            if !is_full {
                break;
            }
            drop(last);
            self.streams.freed.notified().await;
            last = self.opening.lock().await;
        }
        let opened = open().await;
        let failure = match &opened {
            Ok(Some(_)) => None,
            Ok(None) => Some(None),
            Err(error) => Some(Some(copy(error))),
        };
        *last = failure.map(|why| (Instant::now(), why));
        Ok(opened?.map(|connection| self.add(connection)))
    }

    /// Adds a connection, and takes a stream on it.
    pub fn add(&self, connection: Http2Connection<B>) -> Http2Stream<B> {
        let connection = Arc::new(connection);
        self.lock().push(connection.clone());
        Http2Stream::on(connection, self.streams.clone())
    }

    /// Stops giving the connections to requests; they are closed when the requests on them have ended.
    pub fn close_all(&self) {
        self.lock().clear();
    }

    /// Closes the connections that have carried no request for this long, or are not usable any more.
    pub fn sweep(&self, idle_max: Duration) {
        let is_idle = |connection: &Http2Connection<B>| connection.idle_for().is_some_and(|idle| idle >= idle_max);
        self.lock().retain(|connection| connection.is_usable() && !is_idle(connection));
    }

    /// Whether there is no connection.
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Http2Connection<B>>>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
