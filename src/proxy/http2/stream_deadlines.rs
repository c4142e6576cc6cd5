//! The waits of all exchanges of one HTTP/2 connection in two values, so that the connection's task need not ask each
//! exchange: the earliest deadline, and whether any of them waits for a flush.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::Request;

use super::stream::{Stream, run};
use crate::proxy::monotonic::NEVER;
use crate::proxy::proxied_request::Client;

/// The earliest deadline of a connection's exchanges, and whether any of them waits for a flush.
pub(super) struct StreamDeadlines {
    /// When the earliest wait is overdue. It may be too early, if that wait has ended: it is recomputed then.
    pub due: AtomicU64,
    /// Whether an exchange waits until the socket has taken the part of its reply that was passed on.
    flush: AtomicBool,
}

impl StreamDeadlines {
    pub(super) fn new() -> Self {
        Self { due: AtomicU64::new(NEVER), flush: AtomicBool::new(false) }
    }
    /// Wakes the exchanges that wait for a flush: the socket has taken everything that the h2 crate had to write.
    pub(super) fn flushed<'a>(&self, open: impl Iterator<Item = &'a Arc<Stream>>) {
        if self.flush.swap(false, Relaxed) {
            let waits = open.map(|stream| &stream.wait).filter(|wait| wait.flush.end());
            waits.for_each(|wait| wait.waker.wake());
        }
    }
}

/// Runs an exchange, and after each poll adds what it waits for to `deadlines`. Returns the id of its stream.
pub(super) async fn timed(
    client: Arc<Client>,
    stream: Arc<Stream>,
    deadlines: Arc<StreamDeadlines>,
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
) -> u32 {
    let id = respond.stream_id().as_u32();
    let shared = client.shared.clone();
    let mut exchange = pin!(run(client, stream.clone(), request, respond));
    poll_fn(|cx| {
        stream.wait.waker.register(cx.waker());
        let polled = exchange.as_mut().poll(cx);
        if polled.is_pending() {
            deadlines.due.fetch_min(stream.wait.due(&shared.wait_limits).0, Relaxed);
            if stream.wait.flush.is_awaited() {
                deadlines.flush.store(true, Relaxed);
            }
        }
        polled
    })
    .await;
    id
}
