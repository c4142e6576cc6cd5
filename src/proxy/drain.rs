//! The end of serving: requests in flight finish, then connections are cut.
//!
//! A hand-over to a successor begins in the same way, and this process serves again if the successor is lost. Its idle
//! clients get some time for one more request: a client may be sending one at the moment when its connection is closed,
//! and that request would fail. The requests of routes with a workflow end first, so that the store can be given away
//! while other requests go on.

use std::sync::atomic::Ordering::{Acquire, Release};
use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::monotonic::now;
use super::raw_socket;
use super::shared::{Accepting, Drained, Shared};
use super::socket::Transport;
use super::wait::{ConnectionWait, Phase};
use crate::limits::Limits;

/// The phase of a drain: none has begun, requests are served normally.
pub(super) const NOT_DRAINING: u8 = 0;
/// The phase of a drain: finishing requests in flight.
pub(super) const FINISH: u8 = 1;
/// The phase of a drain: cutting connections.
pub(super) const CUT: u8 = 2;
/// The phase of a drain: as [`FINISH`], while a successor accepts.
pub(super) const HAND_OVER: u8 = 3;

/// After a drain begins: how long a new connection may take to send its first request. The connection waited in
/// the kernel's queue, so its request has usually arrived already.
pub(super) const FIRST_REQUEST_MICROS: u64 = 250_000;
/// How long until a connection that is to close, and on which the next request has begun to arrive, is checked again.
const CLOSE_RECHECK_MICROS: u64 = 5_000;
/// After the time in which idle clients may send one more request: how long their connections take to close.
const AFTER_IDLE: Duration = Duration::from_millis(20);
/// After [`AFTER_IDLE`] and `drain_head_ms`: how much longer connections without a whole request may stay open before a
/// warning is logged.
const LATE_CLOSE_WAIT: Duration = Duration::from_secs(2);
/// How often the drain checks whether connections without a whole request are closed.
const IDLE_CHECK_PAUSE: Duration = Duration::from_millis(10);
/// After the drain's time limit: how long cut connections may take to end.
const CUT_WAIT: Duration = Duration::from_secs(1);
/// At the end of a drain: the most time for writing the last lines of the access log.
const LAST_LINES_WAIT: Duration = Duration::from_secs(2);

/// When a connection of HTTP/1 is to be told to close.
pub(super) enum Close {
    Now,
    /// Not before this time.
    At(u64),
    /// Now, after an answer to the incomplete head: the rest of the head takes too long.
    UnfinishedHead,
}

/// Returns when an HTTP/1 connection is to be told to close. `drain` is the drain's phase (such as [`FINISH`]), and
/// `since` the time at which the connection noticed that phase.
pub(super) fn when_to_close(shared: &Shared, drain: u8, since: u64, wait: &ConnectionWait, io: &Transport) -> Close {
    let (at, limit, closes_at_once) = match drain {
        // If the head of the reply is not written yet, the connection can be told at once: `Connection: close` in that
        // head will tell the client.
        HAND_OVER => {
            let is_unanswered = matches!(wait.phase(), Phase::Upload | Phase::FirstByte | Phase::OwnDeadline);
            (now(), shared.wait_limits.succession_idle, is_unanswered)
        }
        _ => (now(), FIRST_REQUEST_MICROS, wait.exchange_count() > 0),
    };
    let due = since.saturating_add(limit);
    if wait.has_part_of_head() {
        // The request is answered before the connection closes, if the rest of its head comes soon.
        let due = due.saturating_add(shared.wait_limits.drain_head);
        return if at < due { Close::At(due) } else { Close::UnfinishedHead };
    }
    if closes_at_once {
        return Close::Now;
    }
    if at < due {
        return Close::At(due);
    }
    // The next request has arrived but was not read yet: it is answered before the connection closes.
    let is_unread = drain == HAND_OVER && wait.phase() == Phase::Idle && raw_socket::has_bytes(io.socket());
    match is_unread {
        true => Close::At(at.saturating_add(CLOSE_RECHECK_MICROS)),
        false => Close::Now,
    }
}

/// See [`super::Proxy::begin_hand_over`].
pub(super) fn begin_hand_over(shared: &Shared) {
    shared.accepting.send_replace(Accepting::NotNow);
    shared.drain.store(HAND_OVER, Release);
    shared.open_connections.wake();
}

/// See [`super::Proxy::end_hand_over`].
pub(super) fn end_hand_over(shared: &Shared) {
    shared.drain.store(NOT_DRAINING, Release);
    shared.cuts_workflows.store(false, Release);
    shared.workflow_gate.open();
    shared.parking.end_pause();
    shared.open_connections.wake();
    shared.accepting.send_replace(Accepting::Yes);
}

/// Whether requests of routes with a workflow are cut: the process ends, or hands over its store.
pub(super) fn cuts_workflows(shared: &Shared) -> bool {
    shared.cuts_workflows.load(Acquire) || shared.drain.load(Acquire) == CUT
}

/// See [`super::Proxy::finish_workflows`].
pub(super) async fn finish_workflows(shared: &Shared, within: Duration) -> usize {
    // During this time idle clients may send one more request, which is served whatever its route. A connection whose
    // task noticed the hand-over late closes correspondingly later.
    sleep(Limits::ms(shared.limits.succession_idle_ms) + AFTER_IDLE).await;
    let all_closed = async {
        while shared.open_connections.is_any_before_request() {
            sleep(IDLE_CHECK_PAUSE).await;
        }
    };
    let head_wait = Duration::from_millis(shared.limits.drain_head_ms);
    if timeout(LATE_CLOSE_WAIT + head_wait, all_closed).await.is_err() {
        tracing::warn!(
            "connections without a whole request are still open; the next request on them may get 503 (handed-over)"
        );
    }
    shared.workflow_gate.close();
    let gate = &shared.workflow_gate;
    let cut = if gate.idle(within).await { 0 } else { gate.in_progress() };
    if cut > 0 {
        shared.cuts_workflows.store(true, Release);
        shared.open_connections.wake();
        if !gate.idle(CUT_WAIT).await {
            tracing::warn!(
                left = gate.in_progress(),
                "requests of routes with a workflow did not end when they were cut; the store is released all the same"
            );
        }
    }
    settle(shared).await;
    cut
}

/// Waits until copied exchanges are settled.
async fn settle(shared: &Shared) {
    if timeout(Limits::ms(shared.limits.drain_ms), shared.settler.wait_until_settled()).await.is_err() {
        tracing::warn!("copied exchanges were not settled in time; their comparisons are missing");
    }
}

/// Completes when the time limit for open connections is over.
async fn drain_is_over(shared: &Shared, shutdown: &CancellationToken) {
    let is_succeeded = *shared.accepting.borrow() == Accepting::Never;
    tokio::select! {
        () = sleep(Limits::ms(shared.limits.succession_drain_ms)), if is_succeeded => {}
        () = async {
            shutdown.cancelled().await;
            sleep(Limits::ms(shared.limits.drain_ms)).await;
        } => {}
    }
}

/// See [`super::Proxy::cut`].
pub(super) fn cut(shared: &Shared) {
    shared.drain.store(CUT, Release);
    shared.cut.cancel();
    shared.open_connections.wake();
}

/// Lets requests in flight finish within `drain_ms`, or, if a successor has taken over, within `succession_drain_ms`
/// unless `shutdown` is cancelled; then cuts what is left.
pub(super) async fn drain_connections(shared: &Shared, shutdown: &CancellationToken) -> Drained {
    let began = Instant::now();
    shared.drain.store(FINISH, Release);
    shared.open_connections.wake();
    shared.tasks.close();
    let finished = tokio::select! {
        () = shared.tasks.wait() => true,
        () = drain_is_over(shared, shutdown) => false,
    };
    let left = if finished { 0 } else { shared.tasks.len() };
    cut(shared);
    if !finished && timeout(CUT_WAIT, shared.tasks.wait()).await.is_err() {
        tracing::warn!(left = shared.tasks.len(), "connections are still open after the drain cut them");
    }
    settle(shared).await;
    if let Some(access_log) = &shared.access_log {
        access_log.flush(LAST_LINES_WAIT).await;
    }
    Drained { cut: left, took: began.elapsed() }
}
