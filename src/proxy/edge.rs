//! Accepting client connections on all listeners.
//!
//! Each listener has a task, and each connection has a task (`connection`) on a thread of `workers`. Always true: open
//! connections are bounded, all listeners together: at the limit a new one takes the place of one that is idle, or
//! waits (one for each listener in this process, more in the kernel's queues). When a drain begins, connections in the
//! kernel's queues are still accepted, and none after them; at a hand-over the successor accepts them.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::client_addresses::ConnectionPermit;
use super::connection;
use super::drain::drain_connections;
use super::endpoint::{Endpoint, ProxyListener};
use super::monotonic::now;
use super::shared::{Accepting, Drained, Shared};
use crate::limits::Limits;

/// The pause after accepting failed, for example because no file descriptors are left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// When a new connection finds no room, the connections that have been idle longest are closed: the limit on open
/// connections divided by this number, at most [`IDLE_CLOSED_MAX`]. Several are closed at once because a search looks
/// at all connections, and would otherwise be repeated for each new one.
const IDLE_CLOSED_SHARE: usize = 64;
/// The most idle connections that are closed at once.
const IDLE_CLOSED_MAX: usize = 32;
/// How long after a search for idle connections the next one begins, if there is still no room.
const IDLE_SEARCH_PAUSE: Duration = Duration::from_millis(20);
/// A connection that has been idle for less is not closed for a new one, because its client's next request may be on
/// its way, unless the new connection has waited for [`SEARCHES_BEFORE_ANY_IDLE`] searches.
const IDLE_MICROS_MIN: u64 = 100_000;
/// After this many searches, a new connection takes the place of any idle one, however briefly that has been idle.
const SEARCHES_BEFORE_ANY_IDLE: u32 = 25;

/// Accepts on all listeners until told to stop, then drains their connections together.
pub(super) async fn serve(shared: Arc<Shared>, listeners: Vec<ProxyListener>, shutdown: CancellationToken) -> Drained {
    let mut accepting = JoinSet::new();
    for listener in listeners {
        accepting.spawn(accept(shared.clone(), listener, shutdown.clone()));
    }
    let period = Limits::ms(shared.limits.service_idle_ms / 4).max(Duration::from_millis(100));
    let mut sweep = interval(period);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let resume = |connection, read| {
        shared.workers.spawn(&shared.tasks, connection::resume(shared.clone(), connection, read));
    };
    let mut parking = pin!(shared.parking.run(&shared.open_connections, &shared.wait_limits, resume));
    loop {
        tokio::select! {
            ended = accepting.join_next() => match ended {
                Some(Ok(())) => {}
                Some(Err(error)) => tracing::error!(%error, "a listener accepts no more connections, because its task panicked (a bug): restart the process"),
                None => break,
            },
            _ = sweep.tick() => shared.table().sweep(),
            () = &mut parking => {}
        }
    }
    shared.parking.stop().into_iter().for_each(|(connection, read)| resume(connection, read));
    drain_connections(&shared, &shutdown).await
}

/// Accepts on one listener until told to stop.
async fn accept(shared: Arc<Shared>, listener: ProxyListener, shutdown: CancellationToken) {
    let ProxyListener { socket, endpoint } = listener;
    // The one accepted connection for which there is no room yet.
    let mut waiting = None;
    let mut accepting = shared.accepting.subscribe();
    loop {
        let accepts = *accepting.borrow_and_update();
        if accepts == Accepting::Never && waiting.is_none() {
            return;
        }
        tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            _ = accepting.changed() => {}
            permit = wait_for_room(&shared), if waiting.is_some() => {
                if let Some((stream, peer)) = waiting.take() {
                    spawn_connection(&shared, &endpoint, stream, peer, permit);
                }
            }
            accepted = socket.accept(), if waiting.is_none() && accepts == Accepting::Yes => match accepted {
                Ok((stream, peer)) => match shared.connection_permits.clone().try_acquire_owned() {
                    Ok(permit) => spawn_connection(&shared, &endpoint, stream, peer, permit),
                    // A connection that is refused takes no other connection's place.
                    Err(_) if shared.has_too_many(peer.ip(), &endpoint) => {}
                    Err(_) => waiting = Some((stream, peer)),
                },
                Err(error) if is_transient(&error) => tracing::debug!(%error, "a connection ended before it began"),
                Err(error) => {
                    endpoint.count_accept_failure(&error);
                    sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    if *accepting.borrow() != Accepting::Yes {
        return; // what waits in the kernel's queue is the successor's
    }
    // Connections in the kernel's queue are established for their clients, who expect an answer.
    while let Some((stream, peer)) = waiting.take().or_else(|| socket.accept().now_or_never()?.ok()) {
        let Ok(permit) = shared.connection_permits.clone().try_acquire_owned() else { break };
        spawn_connection(&shared, &endpoint, stream, peer, permit);
    }
}

/// Waits until one more connection may be open. Meanwhile the connections that have been idle longest are closed.
async fn wait_for_room(shared: &Shared) -> OwnedSemaphorePermit {
    let limit = usize::try_from(shared.limits.client_connections_max).unwrap_or(usize::MAX);
    let at_once = (limit / IDLE_CLOSED_SHARE).clamp(1, IDLE_CLOSED_MAX);
    let mut searches = 0_u32;
    loop {
        let idle_for = if searches < SEARCHES_BEFORE_ANY_IDLE { IDLE_MICROS_MIN } else { 0 };
        searches = searches.saturating_add(1);
        shared.parking.close_idle(&shared.open_connections, at_once, now().saturating_sub(idle_for));
        // The semaphore is never closed.
        if let Ok(Ok(permit)) = timeout(IDLE_SEARCH_PAUSE, shared.connection_permits.clone().acquire_owned()).await {
            return permit;
        }
    }
}

/// Whether the error concerns one connection, whose client caused it: the next one can be accepted at once.
fn is_transient(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}

fn spawn_connection(
    shared: &Arc<Shared>,
    endpoint: &Arc<Endpoint>,
    stream: TcpStream,
    peer: SocketAddr,
    permit: OwnedSemaphorePermit,
) {
    if shared.egress.as_ref().is_some_and(|egress| !egress.admits(peer.ip())) {
        return;
    }
    let mut permit = ConnectionPermit::new(permit);
    // The PROXY header says later who the client is.
    if endpoint.proxy_protocol.is_none() && !shared.admits(&mut permit, peer.ip(), endpoint) {
        return;
    }
    // Without this, small writes wait for acknowledgements. A failure only costs time.
    let _ = stream.set_nodelay(true);
    let stream = match stream.into_std() {
        Ok(stream) => stream,
        Err(error) => return tracing::warn!(%error, "a new connection is closed: it cannot be moved to its thread"),
    };
    let (of_connection, endpoint) = (shared.clone(), endpoint.clone());
    let served = async move {
        match TcpStream::from_std(stream) {
            Ok(stream) => connection::serve(of_connection, endpoint, stream, peer.ip(), permit).await,
            Err(error) => tracing::warn!(%error, "a new connection is closed: its thread cannot watch it"),
        }
    };
    shared.workers.spawn(&shared.tasks, served);
}
