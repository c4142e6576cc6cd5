//! The end of serving: requests in flight finish, then connections are cut.

use std::sync::atomic::Ordering::Release;
use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::shared::{Drained, Shared};
use crate::limits::Limits;

/// The state of a drain: serving normally.
pub(super) const NO: u8 = 0;
/// The state of a drain: finishing requests in flight.
pub(super) const FINISH: u8 = 1;
/// The state of a drain: cutting connections.
pub(super) const CUT: u8 = 2;

/// After a drain begins: how long a new connection may take to send its first request. The connection waited in
/// the kernel's queue, so its request has usually arrived already.
pub(super) const FIRST_REQUEST_MICROS: u64 = 250_000;
/// After the drain's time limit: how long cut connections may take to end.
const CUT_WAIT: Duration = Duration::from_secs(1);
/// At the end of a drain: how long the last lines of the access log may take to be written.
const LAST_LINES_WAIT: Duration = Duration::from_secs(2);

/// Lets requests in flight finish within `drain_ms`, and cuts what is left.
pub(super) async fn drain_connections(shared: &Shared) -> Drained {
    let began = Instant::now();
    shared.drain.store(FINISH, Release);
    shared.open_connections.wake();
    shared.tasks.close();
    let finished = timeout(Limits::ms(shared.limits.drain_ms), shared.tasks.wait()).await.is_ok();
    let cut = if finished { 0 } else { shared.tasks.len() };
    shared.drain.store(CUT, Release);
    shared.cut.cancel();
    shared.open_connections.wake();
    if !finished && timeout(CUT_WAIT, shared.tasks.wait()).await.is_err() {
        tracing::warn!(left = shared.tasks.len(), "connections are still open after the drain cut them");
    }
    if timeout(Limits::ms(shared.limits.drain_ms), shared.settler.settled()).await.is_err() {
        tracing::warn!("captured exchanges were not settled in time; their comparisons are missing");
    }
    if let Some(access_log) = &shared.access_log {
        access_log.flush(LAST_LINES_WAIT).await;
    }
    Drained { cut, took: began.elapsed() }
}
